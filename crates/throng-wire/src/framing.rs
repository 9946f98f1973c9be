//! How the messages of one connection are told apart: by WebSocket frames, as server-sent events,
//! or by lines.

use crate::dialect::{Encoding, put_varint, varint, varint_size};
use crate::websocket::{Deflater, Effort, Opcode, Window, put_frame, put_header};

/// What a server's messages are wrapped in, which also says how they are encoded. In JSON they are
/// text without a line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// RFC 6455 text frames, a message each.
    WebSocket,
    /// An event each, as a page's `EventSource` reads them: `data: …` and an empty line.
    Sse,
    /// A line each.
    Lines,
    /// RFC 6455 binary frames, a Protobuf message behind its length each.
    Binary,
    /// Protobuf messages, each behind its length.
    Lengths,
}

impl Framing {
    /// Whether it is the body of an HTTP response: nothing but its end can be heard from the
    /// client on such a connection, and its own end is the end of the stream.
    pub const fn is_response(self) -> bool {
        !matches!(self, Self::WebSocket | Self::Binary)
    }

    /// How the messages are written, in both directions.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::WebSocket | Self::Sse | Self::Lines => Encoding::Json,
            Self::Binary | Self::Lengths => Encoding::Protobuf,
        }
    }

    /// Appends one message.
    pub fn put(self, message: &[u8], out: &mut Vec<u8>) {
        debug_assert!(
            self.encoding() != Encoding::Json || !message.contains(&b'\n'),
            "a message is one line"
        );
        match self {
            Self::WebSocket => put_frame(Opcode::Text, message, out),
            Self::Binary => {
                let len = message.len() as u64;
                put_header(Opcode::Binary, varint_size(len) + message.len(), out);
                Self::Lengths.put(message, out);
            }
            Self::Lengths => {
                put_varint(message.len() as u64, out);
                out.extend_from_slice(message);
            }
            Self::Sse => {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(message);
                out.extend_from_slice(b"\n\n");
            }
            Self::Lines => {
                out.extend_from_slice(message);
                out.push(b'\n');
            }
        }
    }

    /// Appends one message, compressed where it is a frame's payload and that makes it shorter: for a
    /// connection on which that was agreed.
    pub fn put_deflated(
        self,
        message: &[u8],
        (deflater, effort, window): (&mut Deflater, Effort, Window),
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::WebSocket => deflater.put_frame(Opcode::Text, message, (effort, window), out),
            Self::Binary => {
                let mut payload = Vec::with_capacity(message.len() + 10);
                Self::Lengths.put(message, &mut payload);
                deflater.put_frame(Opcode::Binary, &payload, (effort, window), out);
            }
            Self::Sse | Self::Lines | Self::Lengths => self.put(message, out),
        }
    }

    /// Where the message ends that byte `at - 1` belongs to. `messages` are whole ones, as
    /// [`Framing::put`] makes them.
    pub fn end_of(self, messages: &[u8], at: usize) -> usize {
        let end: &[u8] = match self {
            Self::WebSocket | Self::Binary => return frame_end(messages, at),
            Self::Lengths => return length_end(messages, at),
            Self::Sse => b"\n\n",
            Self::Lines => b"\n",
        };
        if at == 0 {
            return 0;
        }
        // The end itself may be what was cut in two.
        let from = at.saturating_sub(end.len());
        let rest = messages.get(from..).unwrap_or_default();
        let found = rest.windows(end.len()).position(|bytes| bytes == end);
        found.map_or(messages.len(), |found| from + found + end.len())
    }
}

/// The same for unmasked frames.
fn frame_end(frames: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let Some(&second) = frames.get(end + 1) else { return frames.len() };
        // RFC 6455 5.2: 126 and 127 say how many bytes the length has that follows.
        let (head, payload) = match second & 0x7f {
            126 => (4, None),
            127 => (10, None),
            len => (2, Some(usize::from(len))),
        };
        let payload = match (payload, frames.get(end + 2..end + head)) {
            (Some(payload), _) => payload,
            (None, None) => return frames.len(),
            (None, Some(len)) => {
                let len = len.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                usize::try_from(len).unwrap_or(usize::MAX)
            }
        };
        end = end.saturating_add(head).saturating_add(payload);
    }
    end.min(frames.len())
}

/// The same for messages behind their lengths.
fn length_end(messages: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let Some((len, head)) = varint(messages.get(end..).unwrap_or_default()) else {
            return messages.len();
        };
        end = end.saturating_add(head).saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
    }
    end.min(messages.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_wrapped_as_their_readers_expect() {
        let put = |framing: Framing| {
            let mut out = Vec::new();
            framing.put(b"{}", &mut out);
            out
        };
        assert_eq!(put(Framing::WebSocket), [0x81, 2, b'{', b'}']);
        assert_eq!(put(Framing::Sse), b"data: {}\n\n");
        assert_eq!(put(Framing::Lines), b"{}\n");
        assert_eq!(put(Framing::Binary), [0x82, 3, 2, b'{', b'}']);
        assert_eq!(put(Framing::Lengths), b"\x02{}");
    }

    #[test]
    fn the_end_of_a_message_is_found_from_each_of_its_bytes() {
        for framing in
            [Framing::WebSocket, Framing::Sse, Framing::Lines, Framing::Binary, Framing::Lengths]
        {
            let mut messages = Vec::new();
            let mut ends = vec![0];
            for len in [1, 200, 70_000] {
                framing.put(&vec![b'x'; len], &mut messages);
                ends.push(messages.len());
            }
            // Every byte near an end, and some in between.
            for at in (0..=messages.len())
                .filter(|at| at % 997 == 0 || ends.iter().any(|end| end.abs_diff(*at) < 12))
            {
                let wanted = ends.iter().copied().find(|end| *end >= at).unwrap();
                assert_eq!(framing.end_of(&messages, at), wanted, "{framing:?} at {at}");
            }
        }
    }
}
