//! The client protocol: commands in, replies and pushes out, in one of its encodings.

mod message;

pub use message::*;
