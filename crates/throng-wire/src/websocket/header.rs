//! The header that opens every frame, and whole frames out of a payload.

use super::close::Violation;
use super::mask;
use super::message::Role;

/// The longest header: two bytes, a 64-bit length and a mask.
pub(super) const HEADER_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 5.5).
pub(super) const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// RFC 7692 6: on the first frame of a message, that its payload is compressed.
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message under way.
    Continuation,
    /// A message in UTF-8.
    Text,
    /// A message of any bytes.
    Binary,
    /// The end of the connection.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    /// Its four bits in a header.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// The opcode with these bits, if there is one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            // RFC 6455 5.2: 3 to 7 and B to F are reserved.
            _ => return None,
        })
    }

    pub(super) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Appends the header of a server's frame, final and unmasked: 2, 4 or 10 bytes.
pub fn put_header(opcode: Opcode, payload_len: usize, out: &mut Vec<u8>) {
    put_lengths(FIN | opcode.bits(), 0, payload_len, out);
}

/// The same before a compressed payload.
pub(super) fn put_deflated_header(opcode: Opcode, payload_len: usize, out: &mut Vec<u8>) {
    put_lengths(FIN | RSV1 | opcode.bits(), 0, payload_len, out);
}

/// Appends a server's whole frame, final and unmasked.
pub fn put_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    put_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a client's whole frame, final and masked.
pub fn put_client_frame(opcode: Opcode, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    put_lengths(FIN | opcode.bits(), MASKED, payload.len(), out);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(mask, out.get_mut(start..).unwrap_or_default());
}

fn put_lengths(first: u8, masked: u8, payload_len: usize, out: &mut Vec<u8>) {
    out.push(first);
    // RFC 6455 5.2: the length takes the fewest bytes that hold it.
    match u16::try_from(payload_len) {
        Ok(short @ 0..=125) => out.push(masked | short.to_be_bytes()[1]),
        Ok(medium) => {
            out.push(masked | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// A header as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// Whether it begins a message that is compressed.
    pub(super) deflated: bool,
    pub(super) opcode: Opcode,
    /// Zeros where the frame is not masked.
    pub(super) mask: [u8; 4],
    pub(super) payload_len: usize,
    /// How many bytes the header itself takes.
    pub(super) size: usize,
}

/// Whether permessage-deflate was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deflate {
    Agreed,
    No,
}

/// Reads a header from the front of `bytes`; `None` where more bytes are needed. What is wrong
/// is said as soon as the byte that shows it is there.
pub(super) fn parse(
    bytes: &[u8],
    role: Role,
    deflate: Deflate,
) -> Result<Option<Header>, Violation> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    // RFC 6455 5.2: reserved bits are 0 unless an extension gave them a meaning.
    let deflated = first & RESERVED == RSV1 && deflate == Deflate::Agreed;
    if first & RESERVED != 0 && !deflated {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    // RFC 7692 6.1: the bit has its meaning on a message's first frame alone.
    if deflated && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Violation::ReservedBits);
    }
    let fin = first & FIN != 0;
    // RFC 6455 5.5: control frames are not fragmented.
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }

    let [second, rest @ ..] = rest else { return Ok(None) };
    let masked = second & MASKED != 0;
    // RFC 6455 5.1: a client masks every frame, a server none.
    match role {
        Role::Server if !masked => return Err(Violation::Unmasked),
        Role::Client if masked => return Err(Violation::Masked),
        Role::Server | Role::Client => {}
    }
    let short = second & 0x7F;
    // RFC 6455 5.5: control frames are at most 125 bytes.
    if opcode.is_control() && usize::from(short) > CONTROL_MAX {
        return Err(Violation::ControlTooLong);
    }

    let Some((payload_len, rest)) = payload_len(short, rest)? else { return Ok(None) };
    let (mask, rest) = if masked {
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        (*mask, rest)
    } else {
        ([0; 4], rest)
    };
    Ok(Some(Header { fin, deflated, opcode, mask, payload_len, size: bytes.len() - rest.len() }))
}

/// The payload's length, and what follows it. A longer form than needed is accepted: only the
/// sender is bound to the shortest.
fn payload_len(short: u8, rest: &[u8]) -> Result<Option<(usize, &[u8])>, Violation> {
    Ok(match short {
        126 => rest
            .split_first_chunk::<2>()
            .map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest)),
        127 => match rest.split_first_chunk::<8>() {
            None => None,
            // RFC 6455 5.2: the most significant bit of the 64 is 0.
            Some(([first, ..], _)) if first & 0x80 != 0 => return Err(Violation::LengthOverflow),
            // A length that this machine cannot address is past every limit anyway.
            Some((len, rest)) => {
                Some((usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX), rest))
            }
        },
        short => Some((usize::from(short), rest)),
    })
}
