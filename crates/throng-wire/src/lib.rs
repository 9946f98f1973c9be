//! Bytes to messages: WebSocket frames and the client protocol.
//!
//! Nothing here does I/O, reads a clock or knows what a channel is: bytes come in as slices,
//! messages go out as values, and replies are appended to a buffer that the caller owns.
//!
//! * [`websocket`]: RFC 6455 frames, messages, close codes and the handshake key.
//! * [`framing`]: what a server's messages are wrapped in, on a WebSocket and elsewhere.
//! * [`dialect`]: the client protocol's commands, replies and pushes in their encodings.
//! * [`fossil`]: what turns one payload into the next, for who has the one.
#![forbid(unsafe_code)]
// Strangers' bytes are parsed here, so no index may panic.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod dialect;
pub mod fossil;
pub mod framing;
pub mod websocket;
