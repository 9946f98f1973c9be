//! The close frame, and what a peer can do to deserve one.

use std::fmt;

use super::header::{CONTROL_MAX, Opcode, put_client_frame, put_frame};

/// How a peer broke the protocol. The connection is to be closed with
/// [`close_code`](Self::close_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on.
    ReservedBits,
    /// An opcode without a meaning.
    ReservedOpcode,
    /// A client's frame without a mask.
    Unmasked,
    /// A server's frame with a mask.
    Masked,
    /// A control frame that is not final.
    ControlFragmented,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A length of 2^63 bytes or more.
    LengthOverflow,
    /// A continuation of nothing.
    UnexpectedContinuation,
    /// A new message within an unfinished one.
    ExpectedContinuation,
    /// A message longer than [`Limits::message_max`](super::Limits::message_max).
    TooBig,
    /// Text, or a close reason, that is not UTF-8.
    InvalidUtf8,
    /// A message whose compressed payload is none, or breaks off.
    Inflating,
    /// A compressed message that is longer than an [`Inflater`](super::Inflater) may make it.
    InflatesTooBig,
    /// A close frame with half a code.
    CloseTruncated,
    /// A close code that may not be sent.
    CloseCode,
}

impl Violation {
    /// The code to close with: 1002 protocol error, 1007 not UTF-8 or not what it says it
    /// is compressed from, 1009 too big.
    pub const fn close_code(&self) -> u16 {
        match self {
            // RFC 6455 8.1.
            Self::InvalidUtf8 | Self::Inflating => 1007,
            Self::TooBig | Self::InflatesTooBig => 1009,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthOverflow
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::CloseTruncated
            | Self::CloseCode => 1002,
        }
    }

    /// What was wrong, short enough for a close frame.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits are set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "client frame is not masked",
            Self::Masked => "server frame is masked",
            Self::ControlFragmented => "control frame is fragmented",
            Self::ControlTooLong => "control frame is too long",
            Self::LengthOverflow => "frame length is out of range",
            Self::UnexpectedContinuation => "continuation without a message",
            Self::ExpectedContinuation => "new message within a fragmented one",
            Self::TooBig => "message is too big",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::Inflating => "compressed message is damaged",
            Self::InflatesTooBig => "message is too big when inflated",
            Self::CloseTruncated => "close frame has half a code",
            Self::CloseCode => "close code may not be sent",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}

/// Appends a server's whole close frame. A reason that does not fit is cut after the last whole
/// character that does (123 bytes).
pub fn put_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    put_frame(Opcode::Close, body(code, reason, &mut [0; CONTROL_MAX]), out);
}

/// Appends a client's whole close frame, cut like [`put_close`]'s.
pub fn put_client_close(mask: [u8; 4], code: u16, reason: &str, out: &mut Vec<u8>) {
    put_client_frame(Opcode::Close, mask, body(code, reason, &mut [0; CONTROL_MAX]), out);
}

// RFC 6455 5.5.1: two bytes of code, then the reason.
fn body<'a>(code: u16, reason: &str, room: &'a mut [u8; CONTROL_MAX]) -> &'a [u8] {
    let reason = cut(reason).as_bytes();
    let (head, tail) = room.split_at_mut(2);
    head.copy_from_slice(&code.to_be_bytes());
    for (to, from) in tail.iter_mut().zip(reason) {
        *to = *from;
    }
    room.get(..2 + reason.len()).unwrap_or_default()
}

fn cut(reason: &str) -> &str {
    (0..=CONTROL_MAX - 2).rev().find_map(|end| reason.get(..end)).unwrap_or_default()
}

/// Reads the body of a close frame.
pub(super) fn parse(body: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match body {
        [] => Ok(None),
        [_] => Err(Violation::CloseTruncated),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCode);
            }
            let reason = simdutf8::basic::from_utf8(reason).or(Err(Violation::InvalidUtf8))?;
            Ok(Some((code, reason)))
        }
    }
}

// RFC 6455 7.4 and the IANA registry: 1004 to 1006 and 1015 never travel; below 3000 only what is
// registered; 3000 to 4999 belongs to libraries and applications.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
