//! Patches that make one payload of another, in the format of Fossil's deltas: numbers in digits
//! of six bits, copies from what the reader has, text that it has not, and a sum.
//!
//! `<length of the target>\n`, then `<length>@<offset>,` copies from the source,
//! `<length>:<bytes>` inserts, and `<sum>;` ends it (fossil-scm.org, "Delta Format").
//!
//! What it costs is linear in both lengths, whatever the bytes are: what both begin and end with is
//! compared once. What is between is looked up in a part of the source, place by place, each with
//! a few places there; all comparisons draw from one allowance, and where that is used up the rest
//! is inserted.

/// What the source is looked up by. A copy of less would hardly be shorter than what it stands for.
const BLOCK: usize = 16;

/// Blocks of the source with one hash that are tried for a place of the target. More finds little:
/// the ends that both have in common, which most changes leave, need none.
const TRIED_MAX: usize = 8;

/// Bytes that may be compared for each byte of source and target.
const COMPARED_MAX: usize = 32;

/// Bytes of the source that are looked up at most, and places of the target that are looked for in
/// vain: a patch is made between other work, and this much takes a millisecond or two at most.
const LOOKED_UP_MAX: usize = 128 * 1024;

/// A beginning in common that is shorter is inserted rather than copied.
const COPY_MIN: usize = 12;

/// Sixty-four digits in the order of their value.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The patch that makes `target` of `source`; none where it would not be shorter than `target`.
///
/// Where `target` is UTF-8 the patch is, too, so it fits into a text: nothing is cut within a
/// character.
pub fn patch(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    // Places in the source are 32 bits wide in the index.
    if u32::try_from(source.len()).is_err() || u32::try_from(target.len()).is_err() {
        return None;
    }
    let mut patch = Patch::new(source, target);
    let (first, last) = patch.ends();
    patch.copy_if_longer(0, first, 0);
    let end = target.len() - last;
    if end - patch.done >= BLOCK && source.len() >= BLOCK {
        patch.look_up_to(end);
    }
    if last >= COPY_MIN {
        patch.insert_up_to(end);
        patch.copy(last, source.len() - last);
    } else {
        patch.insert_up_to(target.len());
    }
    patch.finish()
}

/// A patch being made.
struct Patch<'a> {
    source: &'a [u8],
    target: &'a [u8],
    /// No place may be within a character.
    is_text: bool,
    /// So much of the target is in the patch.
    done: usize,
    out: Vec<u8>,
}

impl<'a> Patch<'a> {
    fn new(source: &'a [u8], target: &'a [u8]) -> Self {
        let is_text = simdutf8::basic::from_utf8(target).is_ok();
        let mut patch = Self { source, target, is_text, done: 0, out: Vec::with_capacity(64) };
        patch.number(target.len());
        patch.out.push(b'\n');
        patch
    }

    /// How long a beginning, and behind it how long an end, both have in common.
    fn ends(&self) -> (usize, usize) {
        let (source, target) = (self.source, self.target);
        let first = self.at_or_before(common(source, target));
        let rest = |bytes: &'a [u8]| bytes.get(first..).unwrap_or_default();
        let last = common_end(rest(source), rest(target));
        (first, target.len() - self.at_or_behind(target.len() - last))
    }

    /// Copies what the source has of the target's bytes from `done` to `end`.
    fn look_up_to(&mut self, end: usize) {
        // Around the place where both begin to differ.
        let begin = self.done.saturating_sub(LOOKED_UP_MAX / 2).min(self.source.len());
        let part = self.source.get(begin..).unwrap_or_default();
        let index = Index::of(part.get(..LOOKED_UP_MAX).unwrap_or(part), begin);
        let mut left = COMPARED_MAX.saturating_mul(self.source.len() + self.target.len());
        let (mut at, mut vain) = (self.done, 0);
        while let Some(block) = block(self.target, at).filter(|_| at + BLOCK <= end)
            && left > 0
            && vain < LOOKED_UP_MAX
        {
            let Some(found) = self.longest(&index, block, (at, end), &mut left) else {
                at += 1;
                vain += 1;
                continue;
            };
            self.insert_up_to(found.at);
            self.copy(found.len, found.from);
            at = self.done;
        }
    }

    /// The longest piece around the block at `at` that the source has.
    fn longest(
        &self,
        index: &Index,
        block: &[u8; BLOCK],
        (at, end): (usize, usize),
        left: &mut usize,
    ) -> Option<Found> {
        let mut best: Option<Found> = None;
        for from in index.places(block).take(TRIED_MAX) {
            *left = left.saturating_sub(BLOCK);
            if self.source.get(from..from + BLOCK) != Some(block) {
                continue;
            }
            let before = common_end(
                self.source.get(..from).unwrap_or_default(),
                self.target.get(self.done..at).unwrap_or_default(),
            );
            let len = common(
                self.source.get(from..).unwrap_or_default(),
                self.target.get(at..end).unwrap_or_default(),
            );
            *left = left.saturating_sub(before + len);
            let begin = self.at_or_behind(at - before);
            let found = Found {
                at: begin,
                len: self.at_or_before(at + len).saturating_sub(begin),
                from: from + begin - at,
            };
            let is_better = best.as_ref().is_none_or(|best| found.len > best.len);
            if found.len >= COPY_MIN && is_better {
                best = Some(found);
            }
            if *left == 0 {
                break;
            }
        }
        best
    }

    /// The place, or the one before it that is not within a character.
    fn at_or_before(&self, mut at: usize) -> usize {
        while self.is_text && is_within(self.target, at) {
            at -= 1;
        }
        at
    }

    fn at_or_behind(&self, mut at: usize) -> usize {
        while self.is_text && is_within(self.target, at) {
            at += 1;
        }
        at
    }

    fn copy_if_longer(&mut self, at: usize, len: usize, from: usize) {
        if len >= COPY_MIN {
            self.insert_up_to(at);
            self.copy(len, from);
        }
    }

    fn copy(&mut self, len: usize, from: usize) {
        self.number(len);
        self.out.push(b'@');
        self.number(from);
        self.out.push(b',');
        self.done += len;
    }

    fn insert_up_to(&mut self, end: usize) {
        let Some(bytes) = self.target.get(self.done..end).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        self.number(bytes.len());
        self.out.push(b':');
        // What is longer than the target is not wanted, so it is not made.
        if self.out.len() + bytes.len() <= self.target.len() {
            self.out.extend_from_slice(bytes);
        } else {
            self.out.resize(self.target.len(), 0);
        }
        self.done = end;
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        if self.out.len() >= self.target.len() {
            return None;
        }
        self.number(sum(self.target) as usize);
        self.out.push(b';');
        (self.out.len() < self.target.len()).then_some(self.out)
    }

    fn number(&mut self, number: usize) {
        let digits = (usize::BITS - number.leading_zeros()).div_ceil(6).max(1);
        for place in (0..digits).rev() {
            let digit = number >> (6 * place) & 63;
            self.out.extend(DIGITS.get(digit));
        }
    }
}

/// A piece of the target that is in the source.
struct Found {
    at: usize,
    len: usize,
    from: usize,
}

/// Where the source has its blocks, by their hash.
struct Index {
    /// For each hash, one more than the number of the first block with it; 0 is none.
    first: Vec<u32>,
    /// For each block, the same of the next block with its hash.
    next: Vec<u32>,
    shift: u32,
    /// Where its part of the source begins.
    begin: usize,
}

impl Index {
    fn of(part: &[u8], begin: usize) -> Self {
        let (blocks, _) = part.as_chunks::<BLOCK>();
        let bits = (blocks.len().next_power_of_two().trailing_zeros() + 1).clamp(4, 24);
        let shift = u64::BITS - bits;
        let mut first = vec![0_u32; 1 << bits];
        let mut next = vec![0_u32; blocks.len()];
        // From the end: so those come first that may be followed by most.
        let count = u32::try_from(blocks.len()).unwrap_or_default();
        for ((number, block), next) in
            (1..=count).rev().zip(blocks.iter().rev()).zip(next.iter_mut().rev())
        {
            if let Some(first) = first.get_mut(hash(block, shift)) {
                *next = std::mem::replace(first, number);
            }
        }
        Self { first, next, shift, begin }
    }

    /// Where blocks with the hash of this one begin.
    fn places(&self, block: &[u8; BLOCK]) -> impl Iterator<Item = usize> + '_ {
        let known = |number: u32| (number > 0).then(|| number as usize - 1);
        let first = self.first.get(hash(block, self.shift)).copied().unwrap_or_default();
        let next = move |number: &usize| known(self.next.get(*number).copied().unwrap_or_default());
        std::iter::successors(known(first), next).map(|number| self.begin + number * BLOCK)
    }
}

fn hash(block: &[u8; BLOCK], shift: u32) -> usize {
    let [low, high] = [0, 8].map(|at| {
        let word = block.get(at..at + 8).and_then(|word| word.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    });
    let mixed = (low ^ high.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32 ^ high).wrapping_mul(0xd6e8_feb8_6659_fd93);
    usize::try_from(mixed >> shift).unwrap_or_default()
}

fn block(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk)
}

/// Whether a place is within a character of a text.
fn is_within(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80)
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let same = |(a, b): &(&[u8; 32], &[u8; 32])| a == b;
    let (one_blocks, other_blocks) = (one.as_chunks::<32>().0, other.as_chunks::<32>().0);
    let at = 32 * one_blocks.iter().zip(other_blocks).take_while(same).count();
    let rest = |bytes| <[u8]>::get(bytes, at..).unwrap_or_default();
    at + rest(one).iter().zip(rest(other)).take_while(|(a, b)| a == b).count()
}

fn rest_of(bytes: &[u8], end: usize) -> &[u8] {
    bytes.get(..bytes.len() - end).unwrap_or_default()
}

/// How many bytes both end with.
fn common_end(one: &[u8], other: &[u8]) -> usize {
    let same = |(a, b): &(&[u8; 32], &[u8; 32])| a == b;
    let (one_blocks, other_blocks) = (one.as_rchunks::<32>().1, other.as_rchunks::<32>().1);
    let end = 32 * one_blocks.iter().rev().zip(other_blocks.iter().rev()).take_while(same).count();
    let rest = rest_of(one, end).iter().rev().zip(rest_of(other, end).iter().rev());
    end + rest.take_while(|(a, b)| a == b).count()
}

/// The sum of the bytes as big-endian words of 32 bits, the last one filled up with zeros.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words = words.iter().fold(0_u32, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)));
    let last = rest.iter().zip([24, 16, 8]).map(|(byte, shift)| u32::from(*byte) << shift);
    last.fold(words, u32::wrapping_add)
}

#[cfg(test)]
mod tests;
