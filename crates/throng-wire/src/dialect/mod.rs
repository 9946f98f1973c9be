//! The client protocol: commands in, replies and pushes out, in one of its encodings.

mod json;
mod message;
pub mod payload;
mod protobuf;

use std::fmt;

pub use message::*;
pub use protobuf::{Emulated, emulated, fields};
pub(crate) use protobuf::{put_varint, varint, varint_size};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Objects separated by newlines, payloads as raw JSON.
    Json,
    /// proto3 messages, each behind its length.
    Protobuf,
}

impl Encoding {
    /// A message without anything in it: the server's ping, and the client's answer.
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => b"",
        }
    }
}

/// A frame that is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Where in the frame, in bytes from its start: within what is wrong, or right next to it.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// The commands of one frame, in order. An empty frame is malformed.
pub fn commands(encoding: Encoding, frame: &[u8]) -> Commands<'_> {
    Commands { encoding, frame, consumed: 0, done: false }
}

/// Iterates over the commands of a frame, and ends after the first that is malformed.
///
/// A caller may stop early, and continue later with `commands` of the frame from
/// [`consumed`](Self::consumed) on, unless that is all of it.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    encoding: Encoding,
    frame: &'a [u8],
    consumed: usize,
    done: bool,
}

impl<'a> Commands<'a> {
    /// How many bytes of the frame are taken, separators included: all of them once the last
    /// command was.
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// What is not yet taken.
    pub fn rest(&self) -> &'a [u8] {
        self.frame.get(self.consumed..).unwrap_or_default()
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let taken = match self.encoding {
            Encoding::Json => json::command(self.rest()),
            Encoding::Protobuf => protobuf::command(self.rest()),
        };
        Some(match taken {
            Ok((command, size)) => {
                self.consumed += size;
                self.done = self.rest().is_empty();
                Ok(command)
            }
            Err(malformed) => {
                self.done = true;
                Err(Malformed { at: self.consumed + malformed.at, ..malformed })
            }
        })
    }
}

impl std::iter::FusedIterator for Commands<'_> {}

/// What a unidirectional transport begins with, its first message or `?cf_connect`: the
/// request itself, not a command, in JSON.
///
/// # Errors
/// Where the frame is anything but one such object.
pub fn connect_request(frame: &[u8]) -> Result<ConnectRequest<'_>, Malformed> {
    json::connect_request(frame)
}

/// Reads a tags filter. How large it may be its reader says before: a node takes two bytes at least.
///
/// # Errors
/// Where it is none, or nests deeper than any that is of use.
pub fn filter(encoding: Encoding, raw: &[u8]) -> Result<FilterNode<'_>, Malformed> {
    match encoding {
        Encoding::Json => json::filter(raw),
        Encoding::Protobuf => protobuf::filter(raw),
    }
}

/// Appends the reply to the command with this id, without a separator or length.
pub fn put_reply(encoding: Encoding, id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::put_reply(id, reply, out),
        Encoding::Protobuf => protobuf::put_reply(id, reply, out),
    }
}

/// Appends a push, without a separator or length.
pub fn put_push(encoding: Encoding, envelope: Envelope, push: &Push<'_>, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::put_push(envelope, push, out),
        Encoding::Protobuf => protobuf::put_push(envelope, push, out),
    }
}
