//! The JSON encoding: objects separated by newlines, with payloads embedded as they are.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(super) use decode::{command, connect_request};
pub use encode::PING;
pub(super) use encode::{put_push, put_reply};
