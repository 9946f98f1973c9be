//! What waits for a full socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

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
    pub(super) fn push_front(&mut self, frames: Bytes) {
        self.bytes += frames.len();
        if self.written == 0 {
            return self.frames.push_front(frames);
        }
        let Some(mut half) = self.frames.pop_front() else { return };
        let rest = half.split_off(frame_end(&half, self.written));
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

    /// What waits, and how much of the first is written.
    pub(super) fn parts(&self) -> (&VecDeque<Bytes>, usize) {
        let Self { frames, written, bytes: _ } = self;
        (frames, *written)
    }

    /// An outbox in which this waits. None: no socket can have taken so much of the first.
    pub(super) fn of(frames: VecDeque<Bytes>, written: usize) -> Option<Self> {
        let all: usize = frames.iter().map(Bytes::len).sum();
        let fits = frames.front().is_some_and(|first| written < first.len());
        let whole = frames.iter().all(|frames| !frames.is_empty());
        (fits && whole).then_some(Self { frames, written, bytes: all - written })
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
    pub(super) fn cut(&mut self) -> usize {
        let before = self.bytes;
        let half = self.frames.front().filter(|_| self.written > 0).map(|frames| {
            let end = frame_end(frames, self.written);
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

/// Where the frame ends of which byte `at - 1` was the last one written. `frames` are whole
/// unmasked frames, as the server makes them.
fn frame_end(frames: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let Some(&second) = frames.get(end + 1) else { return frames.len() };
        let (head, payload) = match second & 0x7f {
            126 => {
                let Some(len) = frames.get(end + 2..end + 4) else { return frames.len() };
                (4, usize::from(u16::from_be_bytes([len[0], len[1]])))
            }
            127 => {
                let Some(len) = frames.get(end + 2..end + 10) else { return frames.len() };
                let len = len.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                (10, usize::try_from(len).unwrap_or(usize::MAX))
            }
            len => (2, usize::from(len)),
        };
        end = end.saturating_add(head).saturating_add(payload);
    }
    end.min(frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_wire::websocket::{Opcode, put_frame};

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
            put_frame(Opcode::Text, &vec![b'x'; *len], &mut out);
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
            outbox.push_front(first.clone());
            assert_eq!(outbox.bytes(), queued.len() + first.len() - written);
            socket.room = usize::MAX;
            outbox.flush(&mut socket).unwrap();
            assert_eq!(outbox.bytes(), 0);
            let expected = [&queued[..before], &first, &queued[before..]].concat();
            assert_eq!(socket.got, expected, "{written} written");
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
            let dropped = outbox.cut();
            let end = ends.iter().copied().find(|end| *end >= written).unwrap();
            assert_eq!(outbox.bytes(), end - written, "{written} written");
            assert_eq!(before - dropped, outbox.bytes());
        }
    }
}
