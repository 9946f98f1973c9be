//! The Protobuf encoding: proto3 messages, each behind its length. The messages themselves are
//! here; their lengths are a matter of [`framing`](crate::framing) on the way out, and of
//! [`commands`](super::commands) on the way in.

mod decode;
mod encode;
pub mod fields;
#[cfg(test)]
mod tests;

pub use decode::{Emulated, emulated};
pub(super) use decode::{command, filter};
pub(super) use encode::{put_push, put_reply};

pub(crate) use fields::{put_varint, varint, varint_size};
