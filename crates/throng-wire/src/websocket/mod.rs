//! RFC 6455 without I/O: frames into events, payloads into frames, and the handshake's key; and
//! RFC 7692, by which payloads are compressed.
//!
//! ```
//! use throng_wire::websocket::{Decoder, Event, Limits, Opcode, Role, Violation, put_frame};
//!
//! /// Answers what one read from a client brought.
//! fn echo(decoder: &mut Decoder, mut input: &mut [u8], out: &mut Vec<u8>) -> Result<(), Violation> {
//!     loop {
//!         let step = decoder.next(input, Role::Server, Limits { message_max: 65_536 })?;
//!         let consumed = step.consumed;
//!         match step.event {
//!             None => return Ok(()),
//!             Some(Event::Text(text)) => put_frame(Opcode::Text, text.as_bytes(), out),
//!             Some(Event::Ping(bytes)) => put_frame(Opcode::Pong, bytes, out),
//!             Some(_) => {}
//!         }
//!         input = &mut input[consumed..];
//!     }
//! }
//!
//! let mut out = Vec::new();
//! let mut input = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x80\0\0\0\0";
//! echo(&mut Decoder::new(), &mut input, &mut out)?;
//! assert_eq!(out, b"\x81\x05Hello\x8a\x00");
//! # Ok::<(), Violation>(())
//! ```

mod close;
mod deflate;
mod extension;
mod half;
mod handshake;
mod header;
mod mask;
mod message;
#[cfg(test)]
mod tests;

pub use close::{Violation, put_client_close, put_close};
pub use deflate::{Deflater, Effort, Inflater, Window};
pub use extension::{Agreed, Malformed, negotiate};
pub use half::{Half, HalfFrame, Senseless};
pub use handshake::{accept_key, request_key};
pub use header::{Opcode, put_client_frame, put_frame, put_header};
pub use message::{Decoder, Deflated, Event, Limits, Role, Step};
