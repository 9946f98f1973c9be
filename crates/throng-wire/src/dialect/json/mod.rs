//! The JSON encoding: objects separated by newlines, with payloads embedded as they are.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod value;

pub(super) use decode::{command, connect_request, filter};
pub(super) use encode::{put_push, put_reply};
