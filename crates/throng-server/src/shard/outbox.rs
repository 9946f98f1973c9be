//! What waits for a full socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;
use throng_wire::framing::Framing;

/// Slices given to one `writev`.
const SLICES_MAX: usize = 32;
/// Entries at most, whatever their bytes: an entry costs 32 bytes beside its payload.
const ENTRIES_MAX: usize = 16_384;

/// Frames that wait for a socket to take them; exists only while there are any.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whole frames; of the first, `written` bytes are gone.
    frames: VecDeque<Bytes>,
    written: usize,
    bytes: usize,
}

/// How far a flush came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything is written.
    Empty,
    /// The socket takes no more now.
    Full,
}

impl Outbox {
    /// Appends frames of which `written` bytes are gone already; only an empty outbox may be
    /// given half-written ones.
    pub(super) fn push(&mut self, frames: Bytes, written: usize) {
        debug_assert!(written == 0 || self.frames.is_empty());
        if self.frames.is_empty() {
            self.written = written;
        }
        self.bytes += frames.len() - written;
        self.frames.push_back(frames);
    }

    /// Puts frames before all others, but behind a frame that is half-written.
    pub(super) fn push_front(&mut self, frames: Bytes, framing: Framing) {
        self.bytes += frames.len();
        if self.written == 0 {
            return self.frames.push_front(frames);
        }
        let Some(mut half) = self.frames.pop_front() else { return };
        let rest = half.split_off(framing.end_of(&half, self.written));
        if !rest.is_empty() {
            self.frames.push_front(rest);
        }
        self.frames.push_front(frames);
        if half.len() > self.written {
            self.frames.push_front(half);
        } else {
            self.written = 0;
        }
    }

    /// Bytes still to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds more entries than any client may have.
    pub(super) fn overcrowded(&self) -> bool {
        self.frames.len() > ENTRIES_MAX
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<Flushed> {
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, frames) in slices.iter_mut().zip(&self.frames) {
                let from = if count == 0 { self.written } else { 0 };
                *slice = IoSlice::new(&frames[from..]);
                count += 1;
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.advance(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Full);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::Empty)
    }

    fn advance(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while taken > 0 {
            let Some(first) = self.frames.front() else { return };
            let rest = first.len() - self.written;
            if taken < rest {
                self.written += taken;
                return;
            }
            taken -= rest;
            self.written = 0;
            self.frames.pop_front();
        }
    }

    /// Drops all but the frame that is half-written, so that the peer can still read what comes
    /// next. Returns the bytes dropped.
    pub(super) fn cut(&mut self, framing: Framing) -> usize {
        let before = self.bytes;
        let half = self.frames.front().filter(|_| self.written > 0).map(|frames| {
            let end = framing.end_of(frames, self.written);
            frames.slice(..end)
        });
        self.frames.clear();
        self.bytes = 0;
        let written = std::mem::take(&mut self.written);
        if let Some(half) = half.filter(|half| half.len() > written) {
            self.push(half, written);
        }
        before - self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a number of bytes, then is full.
    struct Narrow {
        room: usize,
        got: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frames(payloads: &[usize]) -> Bytes {
        let mut out = Vec::new();
        for len in payloads {
            Framing::WebSocket.put(&vec![b'x'; *len], &mut out);
        }
        out.into()
    }

    #[test]
    fn writes_in_order_over_any_cuts() {
        let all = [frames(&[3, 200]), frames(&[70_000]), frames(&[1])];
        let whole: Vec<u8> = all.concat();
        let mut outbox = Outbox::default();
        for each in &all {
            outbox.push(each.clone(), 0);
        }
        let mut socket = Narrow { room: 0, got: Vec::new() };
        for room in [1, 4, 200, 65_000, 10_000] {
            socket.room = room;
            outbox.flush(&mut socket).unwrap();
        }
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(socket.got, whole);
    }

    #[test]
    fn what_is_put_in_front_parts_no_frame() {
        // Frames of 5, 204 and 70,010 bytes.
        for (written, before) in
            [(0, 0), (4, 5), (5, 5), (6, 209), (209, 209), (300, 70_219), (70_218, 70_219)]
        {
            let (queued, first) = (frames(&[3, 200, 70_000]), frames(&[9]));
            let mut outbox = Outbox::default();
            outbox.push(queued.clone(), 0);
            let mut socket = Narrow { room: written, got: Vec::new() };
            outbox.flush(&mut socket).unwrap();
            outbox.push_front(first.clone(), Framing::WebSocket);
            assert_eq!(outbox.bytes(), queued.len() + first.len() - written);
            socket.room = usize::MAX;
            outbox.flush(&mut socket).unwrap();
            assert_eq!(outbox.bytes(), 0);
            let expected = [&queued[..before], &first, &queued[before..]].concat();
            assert_eq!(socket.got, expected, "{written} written");
        }
    }

    #[test]
    fn events_and_lines_are_not_parted_either() {
        for (framing, len) in [(Framing::Sse, 17), (Framing::Lines, 10)] {
            let two = || {
                let mut out = Vec::new();
                framing.put(b"[1,2,3,4]", &mut out);
                framing.put(b"[5,6,7,8]", &mut out);
                Bytes::from(out)
            };
            for written in 0..=2 * len {
                let mut socket = Narrow { room: written, got: Vec::new() };
                let mut outbox = Outbox::default();
                outbox.push(two(), 0);
                outbox.flush(&mut socket).unwrap();
                outbox.cut(framing);
                let mut front = Vec::new();
                framing.put(b"[9]", &mut front);
                outbox.push_front(front.into(), framing);
                socket.room = usize::MAX;
                outbox.flush(&mut socket).unwrap();
                let said = String::from_utf8(socket.got).unwrap();
                let said = said.replace("data: ", "").replace("\n\n", "\n");
                let kept = ["[1,2,3,4]\n", "[5,6,7,8]\n"].concat();
                let kept = &kept[..written.div_ceil(len) * 10];
                assert_eq!(said, format!("{kept}[9]\n"), "{framing:?}, {written} written");
            }
        }
    }

    #[test]
    fn a_cut_keeps_only_the_half_written_frame() {
        // Frames of 5, 204 and 70,010 bytes.
        let ends = [0, 5, 209, 70_219];
        for written in [0, 4, 5, 6, 208, 209, 300, 70_218] {
            let mut outbox = Outbox::default();
            outbox.push(frames(&[3, 200, 70_000]), 0);
            outbox.push(frames(&[9]), 0);
            let mut socket = Narrow { room: written, got: Vec::new() };
            outbox.flush(&mut socket).unwrap();
            let before = outbox.bytes();
            let dropped = outbox.cut(Framing::WebSocket);
            let end = ends.iter().copied().find(|end| *end >= written).unwrap();
            assert_eq!(outbox.bytes(), end - written, "{written} written");
            assert_eq!(before - dropped, outbox.bytes());
        }
    }
}
