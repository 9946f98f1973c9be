//! The payloads of permessage-deflate (RFC 7692 7.2), each compressed by itself: nothing is kept of a
//! connection between its messages, and one of each machine here serves all connections of a thread.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Violation;
use super::header::{Opcode, put_deflated_header, put_frame};

/// RFC 7692 7.2.1: what a flush ends with, which is not sent.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// An empty final block: a stream that was whole ends with exactly this.
const END: [u8; 2] = [0x03, 0x00];
/// What a reference can point back over (RFC 1951 2).
const REACH: usize = 32 * 1024;
/// RFC 7692 7.2.3.4 allows final blocks within a message. Behind each the window is filled anew, so
/// there may not be a million of them.
const FINALS_MAX: usize = 256;
/// Below this the few bytes saved are not worth the time.
const FLOOR: usize = 64;
/// What is kept of a buffer for the next message.
const KEPT: usize = 64 * 1024;
/// Compressors that are kept: two windows, for each of two levels.
const KEPT_MAX: usize = 4;

/// How far back what a server compresses may refer. One size is for all who do not ask for less, as
/// hardly anybody does, so that a publication is compressed once for them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 512 bytes, for who wants less than the usual.
    Small,
    /// 32 KiB, the most that there is.
    Usual,
}

impl Window {
    /// Its base-2 logarithm.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Small => 9,
            Self::Usual => 15,
        }
    }
}

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// 1, the fastest, to 9.
    pub level: u8,
    /// Payloads of fewer bytes are left as they are.
    pub min_size: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { level: 1, min_size: 0 }
    }
}

/// Compresses the payloads of messages.
#[derive(Default)]
pub struct Deflater {
    /// Used last comes last.
    ready: Vec<Ready>,
    room: Vec<u8>,
}

struct Ready {
    level: u8,
    window: Window,
    compress: Compress,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl Deflater {
    /// One that has allocated nothing yet.
    pub const fn new() -> Self {
        Self { ready: Vec::new(), room: Vec::new() }
    }

    /// Appends a server's whole frame, compressed where that makes it shorter.
    pub fn put_frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        (effort, window): (Effort, Window),
        out: &mut Vec<u8>,
    ) {
        if payload.len() < effort.min_size || !self.deflate(payload, effort.level, window) {
            return put_frame(opcode, payload, out);
        }
        put_deflated_header(opcode, self.room.len(), out);
        out.extend_from_slice(&self.room);
        if self.room.capacity() > KEPT {
            self.room = Vec::new();
        }
    }

    /// Makes `room` the compressed payload. False: that would not be shorter.
    fn deflate(&mut self, payload: &[u8], level: u8, window: Window) -> bool {
        if payload.len() < FLOOR {
            return false;
        }
        let at = self.ready(level, window);
        let Some(Ready { compress, .. }) = self.ready.get_mut(at) else { return false };
        compress.reset();
        self.room.clear();
        // More than it can become, nine bits a byte: one call takes all of it.
        self.room.reserve(payload.len() + payload.len() / 7 + 64);
        let flushed = compress.compress_vec(payload, &mut self.room, FlushCompress::Sync);
        let is_all = compress.total_in() == payload.len() as u64;
        let len = self.room.len().saturating_sub(TAIL.len());
        let is_whole = matches!(flushed, Ok(Status::Ok)) && is_all && self.room.ends_with(&TAIL);
        if !is_whole {
            // What it still had to say zlib-rs 0.6.8 does not forget all of in a reset, and panics
            // some messages later.
            self.ready.remove(at);
        }
        self.room.truncate(len);
        is_whole && len < payload.len()
    }

    /// The place of a compressor for this.
    fn ready(&mut self, level: u8, window: Window) -> usize {
        let level = level.clamp(1, 9);
        let found =
            self.ready.iter().position(|ready| ready.level == level && ready.window == window);
        found.unwrap_or_else(|| {
            // A reload may have asked for other levels than before.
            if self.ready.len() == KEPT_MAX {
                self.ready.remove(0);
            }
            let compress = Compress::new_with_window_bits(
                Compression::new(level.into()),
                false,
                window.bits(),
            );
            self.ready.push(Ready { level, window, compress });
            self.ready.len() - 1
        })
    }
}

/// Inflates the payloads of messages, into a buffer that is never larger than a message may be.
pub struct Inflater {
    message_max: usize,
    inflate: Option<Decompress>,
    out: Vec<u8>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("message_max", &self.message_max).finish_non_exhaustive()
    }
}

impl Inflater {
    /// One that has allocated nothing yet. Messages have at most `message_max` bytes.
    pub const fn new(message_max: usize) -> Self {
        Self { message_max, inflate: None, out: Vec::new() }
    }

    /// Gives back what the last message took, but for a little.
    pub fn release(&mut self) {
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }

    /// How many bytes the last message has; 0 when it was released.
    pub fn held(&self) -> usize {
        self.out.len()
    }

    /// The payload as it was before it was compressed.
    pub(super) fn inflate(&mut self, payload: &[u8]) -> Result<&[u8], Violation> {
        self.release();
        // Some compressors have nothing to say of nothing, where an empty block is usual.
        if !payload.is_empty() {
            self.run(payload)?;
        }
        Ok(&self.out)
    }

    fn run(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let Self { message_max, inflate, out } = self;
        let inflate = inflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let mut finals = 0;
        for (piece, is_end) in [(payload, false), (&TAIL[..], false), (&END[..], true)] {
            let mut rest = piece;
            loop {
                make_room(out, payload.len(), *message_max)?;
                let (came, made) = (inflate.total_in(), out.len());
                let status = inflate
                    .decompress_vec(rest, out, FlushDecompress::Sync)
                    .or(Err(Violation::Inflating))?;
                let taken = usize::try_from(inflate.total_in() - came).unwrap_or(usize::MAX);
                rest = rest.get(taken..).unwrap_or_default();
                if out.len() > *message_max {
                    return Err(Violation::InflatesTooBig);
                }
                let is_full = out.len() == out.capacity();
                match status {
                    Status::StreamEnd if is_end && rest.is_empty() => return Ok(()),
                    Status::StreamEnd => {
                        finals += 1;
                        restart(inflate, out, finals)?;
                        if rest.is_empty() {
                            break;
                        }
                    }
                    // What there was no room for comes with the next call.
                    Status::Ok | Status::BufError if is_full => {}
                    Status::Ok | Status::BufError if rest.is_empty() => break,
                    Status::Ok | Status::BufError if taken == 0 && out.len() == made => {
                        return Err(Violation::Inflating);
                    }
                    Status::Ok | Status::BufError => {}
                }
            }
        }
        // It broke off in the middle of a block.
        Err(Violation::Inflating)
    }
}

/// Goes on behind a final block, with what may be referred to.
fn restart(inflate: &mut Decompress, out: &[u8], finals: usize) -> Result<(), Violation> {
    if finals > FINALS_MAX {
        return Err(Violation::Inflating);
    }
    inflate.reset(false);
    let from = out.len().saturating_sub(REACH);
    let window = out.get(from..).unwrap_or_default();
    if !window.is_empty() {
        inflate.set_dictionary(window).or(Err(Violation::Inflating))?;
    }
    Ok(())
}

/// Makes room for more where there is none left: for one byte more than a message may have, at most.
fn make_room(out: &mut Vec<u8>, payload_len: usize, message_max: usize) -> Result<(), Violation> {
    if out.len() < out.capacity() {
        return Ok(());
    }
    let most = message_max.saturating_add(1);
    if out.len() >= most {
        return Err(Violation::InflatesTooBig);
    }
    let room = payload_len.max(out.capacity()).max(128).saturating_mul(2).min(most);
    out.reserve_exact(room - out.len());
    Ok(())
}

#[cfg(test)]
mod tests;
