//! RFC 6455 without I/O: frames into events, payloads into frames, and the handshake's key.

mod close;
mod handshake;
mod header;
mod mask;
mod message;
#[cfg(test)]
mod tests;

pub use close::{Violation, put_client_close, put_close};
pub use handshake::{accept_key, request_key};
pub use header::{Opcode, put_client_frame, put_frame, put_header};
pub use message::{Decoder, Event, Limits, Role, Step};
