//! The streams of the broker in memory, in two steps: most of them go ahead while it serves, and
//! what changed since follows when it has stopped.
//!
//! A snapshot starts a book of changes in each partition. Under the partition's lock it only takes
//! references; it writes them down without the lock. A stream that changed is written from the
//! publication on that went ahead, so a long history that has grown by one costs that one.
//!
//! Not written, since others tell it: presence (the subscriptions enter it again), and the
//! generator of epochs, which is seeded anew.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::record::{Corrupt, Field, Part, Record, Through, UntilMs, Within, Writer};
use super::sealed::{self, Piece, Unreadable};
use super::{SinceMs, publications};
use crate::history::Stream;
use crate::idempotency::Keys;
use crate::memory::{Kept, Memory, Partition, Version};
use crate::publication::{ChannelName, Epoch, Position, Publication};
use crate::request::{Now, Published};

/// Payload bytes after which a chunk of a snapshot ends.
const CHUNK_BYTES: usize = 1 << 20;
/// What a publication or a channel counts beside its payload.
const OVERHEAD_BYTES: usize = 64;

/// What is written of one channel.
const CHANNEL: u8 = 1;
/// What is written of one idempotency key.
const KEY: u8 = 2;
/// The snapshot is through.
const LAST: u8 = 3;

/// The book of changes of one partition since its snapshot.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Channels that changed, with the position up to which their streams went ahead.
    changed: HashMap<ChannelName, Option<Position>, FixedState>,
    /// How many keys had been remembered, ever.
    keys: u64,
}

impl Ahead {
    /// A channel changes; this is where its stream stood before.
    pub(crate) fn note(&mut self, channel: &ChannelName, sent: Option<Position>) {
        if !self.changed.contains_key(channel) {
            self.changed.insert(ChannelName::clone(channel), sent);
        }
    }
}

/// A snapshot on its way, chunk by chunk.
#[derive(Debug)]
pub struct Snapshot<'a> {
    memory: &'a Memory,
    next: usize,
    copies: std::vec::IntoIter<Copy>,
    /// Of the copy that is under way.
    under_way: Option<Copy>,
    keys: Vec<(Arc<str>, Published, u64)>,
    is_through: bool,
}

/// One channel, as it was under the lock.
#[derive(Debug)]
struct Copy {
    channel: ChannelName,
    stream: Option<StreamCopy>,
    version: Option<Version>,
}

#[derive(Debug)]
struct StreamCopy {
    head: Head,
    /// From the first that is to be written on.
    publications: Vec<(Arc<Publication>, u64)>,
}

/// A stream without its publications.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) epoch: Epoch,
    pub(crate) top: u64,
    /// The offset of the oldest publication that is kept; one above `top` where none is.
    pub(crate) first: u64,
    pub(crate) used_ms: u64,
    pub(crate) meta_ttl_ms: u64,
    pub(crate) followed: bool,
}
crate::record!("a stream's head", Head {
    1 epoch,
    2 top,
    3 first,
    4 used_ms as SinceMs,
    5 meta_ttl_ms,
    6 followed,
});

crate::record!("a version", Version { 1 number, 2 epoch, 3 end_ms as UntilMs });

impl Snapshot<'_> {
    /// The next chunk, at most about a megabyte and one publication long; none after the last.
    pub fn next_at(&mut self, now: Now) -> Option<Vec<u8>> {
        if self.is_through {
            return None;
        }
        let mut out = sealed::begin(Piece::Snapshot, now, CHUNK_BYTES + CHUNK_BYTES / 4);
        let mut left = CHUNK_BYTES;
        while left > 0 {
            for (joint, published, end_ms) in self.keys.drain(..) {
                left = left.saturating_sub(OVERHEAD_BYTES + joint.len());
                put_key(KEY, (&joint, published, end_ms), &mut out);
            }
            if let Some(copy) = self.under_way.take().or_else(|| self.copies.next()) {
                self.under_way = put_channel(copy, &mut left, &mut out);
            } else if !self.begin_partition() {
                self.is_through = true;
                true.put(LAST, &mut out);
                break;
            }
        }
        Some(sealed::seal(out))
    }

    /// Takes references to all that the next partition has. False after the last.
    fn begin_partition(&mut self) -> bool {
        let Some(partition) = self.memory.partitions.get(self.next) else { return false };
        self.next += 1;
        let mut partition = partition.lock();
        let copies: Vec<Copy> =
            partition.channels.iter().filter_map(|(name, kept)| copy(name, kept)).collect();
        self.copies = copies.into_iter();
        self.keys = partition.keys.newest(u64::MAX).collect();
        let keys = partition.keys.added();
        partition.ahead = Some(Box::new(Ahead { changed: HashMap::default(), keys }));
        true
    }
}

impl Memory {
    /// Begins to write everything down while it serves. What changes from here on is noted until
    /// [`Memory::forget_snapshot`].
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            memory: self,
            next: 0,
            copies: Vec::new().into_iter(),
            under_way: None,
            keys: Vec::new(),
            is_through: false,
        }
    }

    /// What changed since the snapshot; without one, everything. Nothing else may call the broker
    /// meanwhile, or it is not known on which side of this it is.
    pub fn changes(&self, now: Now) -> Vec<u8> {
        let mut out = sealed::begin(Piece::Changes, now, 4096);
        let mut all = usize::MAX;
        for partition in &self.partitions {
            let partition = partition.lock();
            let Partition { channels, keys, random: _, ahead } = &*partition;
            let sent_keys = ahead.as_ref().map_or(0, |ahead| ahead.keys);
            for (joint, published, end_ms) in keys.newest(keys.added() - sent_keys) {
                put_key(KEY, (&joint, published, end_ms), &mut out);
            }
            let mut put = |copy: Copy| drop(put_channel(copy, &mut all, &mut out));
            match ahead {
                None => {
                    channels.iter().filter_map(|(name, kept)| copy(name, kept)).for_each(put);
                }
                Some(ahead) => {
                    for (name, sent) in &ahead.changed {
                        // What went here goes there: its time comes there, too, but what is over
                        // and not swept yet may be used again.
                        let gone = || Copy::gone(name);
                        put(channels
                            .get(name)
                            .map_or_else(gone, |kept| Copy::of(name, kept, *sent)));
                    }
                }
            }
        }
        sealed::seal(out)
    }

    /// Notes no changes any more.
    pub fn forget_snapshot(&self) {
        for partition in &self.partitions {
            partition.lock().ahead = None;
        }
    }

    /// Takes in a chunk of a snapshot, or the changes since one.
    ///
    /// # Errors
    /// When it cannot be read; then this broker is of no use.
    pub fn load(&self, bytes: &[u8], piece: Piece, now: Now) -> Result<(), Unreadable> {
        let is_last = sealed::open(bytes, piece, now, |mut fields| {
            let mut is_last = piece == Piece::Changes;
            while let Some(field) = fields.field()? {
                match field.tag {
                    CHANNEL => self.load_channel(&field)?,
                    KEY => self.load_key(&field)?,
                    LAST => is_last = true,
                    _ => field.pass()?,
                }
            }
            Ok(is_last)
        })?;
        if is_last {
            for partition in &self.partitions {
                partition.lock().keys.settle();
            }
        }
        Ok(())
    }

    fn load_key(&self, field: &Field<'_>) -> Result<(), Corrupt> {
        take_key(field, |channel, joint, published, end_ms| {
            self.lock(channel).keys.restore(joint, published, end_ms);
        })
    }

    fn load_channel(&self, field: &Field<'_>) -> Result<(), Corrupt> {
        let mut fields = field.fields("a channel")?;
        let mut name: Option<ChannelName> = None;
        let mut version = None;
        let mut head: Option<Head> = None;
        let mut kept = Vec::new();
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => name = Some(Part::take(None, &field)?),
                2 => version = Within::take(None, &field)?,
                3 => head = Within::take(None, &field)?,
                4 => {
                    let head =
                        head.ok_or_else(|| field.corrupt("is a publication before its stream"))?;
                    kept.push(publications::take(field.fields("a publication")?, head.epoch)?);
                }
                _ => field.pass()?,
            }
        }
        let name = name.ok_or_else(|| fields.corrupt("a channel without a name"))?;
        let mut partition = self.lock(&name);
        if head.is_none() && version.is_none() {
            // It went since it was told of.
            if let Some(kept) = partition.channels.get_mut(&name) {
                (kept.stream, kept.version) = (None, None);
                if kept.presence.is_none() {
                    partition.channels.remove(&name);
                }
            }
            return Ok(());
        }
        let entry = partition.channels.entry(name).or_default();
        entry.version = version;
        match head {
            None => entry.stream = None,
            Some(head) => {
                let before = entry.stream.take().map(|stream| *stream);
                let stream = Stream::continued(before, head, kept)
                    .ok_or_else(|| fields.corrupt("a stream with a gap"))?;
                entry.stream = Some(Box::new(stream));
            }
        }
        Ok(())
    }
}

/// An idempotency key, and what its publish was answered.
#[derive(Debug)]
struct Key {
    joint: Box<str>,
    position: Option<Position>,
    end_ms: u64,
}
crate::record!("an idempotency key", Key { 1 joint, 2 position as Within, 3 end_ms as UntilMs });

/// Reads what [`put_key`] wrote: the key's channel, the key with it, the answer and its end.
pub(crate) fn take_key(
    field: &Field<'_>,
    restore: impl FnOnce(&str, &str, Published, u64),
) -> Result<(), Corrupt> {
    let Key { joint, position, end_ms } = Key::take_fields(field.fields(Key::WHAT)?)?;
    let channel =
        Keys::channel_of(&joint).ok_or_else(|| field.corrupt("is a key that names no channel"))?;
    restore(channel, &joint, Published { position }, end_ms);
    Ok(())
}

/// Writes an idempotency key.
pub(crate) fn put_key(
    tag: u8,
    (joint, published, end_ms): (&str, Published, u64),
    out: &mut Writer,
) {
    let Published { position } = published;
    out.record(tag, |out| {
        out.bytes(1, joint.as_bytes());
        Within::put(&position, 2, out);
        <UntilMs as Through<u64>>::put(&end_ms, 3, out);
    });
}

/// What is to be written of a channel of which nothing went ahead.
fn copy(name: &ChannelName, kept: &Kept) -> Option<Copy> {
    let speaks = kept.stream.is_some() || kept.version.is_some();
    speaks.then(|| Copy::of(name, kept, None))
}

impl Copy {
    /// A channel whose stream went ahead up to `sent`.
    fn of(name: &ChannelName, kept: &Kept, sent: Option<Position>) -> Self {
        let Kept { stream, presence: _, version } = kept;
        let stream = stream.as_ref().map(|stream| {
            let head = stream.head();
            let sent = sent.filter(|sent| sent.epoch == head.epoch).map_or(0, |sent| sent.offset);
            StreamCopy { head, publications: stream.after(sent).cloned().collect() }
        });
        let version = version.as_deref().cloned();
        Self { channel: ChannelName::clone(name), stream, version }
    }

    /// A channel of which nothing is kept any more.
    fn gone(name: &ChannelName) -> Self {
        Self { channel: ChannelName::clone(name), stream: None, version: None }
    }
}

/// Writes a channel, or as much of it as there is room for; returns the rest.
fn put_channel(copy: Copy, left: &mut usize, out: &mut Writer) -> Option<Copy> {
    let Copy { channel, stream, version } = copy;
    let mut rest = None;
    out.record(CHANNEL, |out| {
        channel.put(1, out);
        if let Some(version) = &version {
            out.record(2, |out| version.put_fields(out));
        }
        *left = left.saturating_sub(OVERHEAD_BYTES + channel.len());
        let Some(StreamCopy { head, publications }) = stream else { return };
        let fits = fitting(&publications, left);
        let mut publications = publications;
        let later = publications.split_off(fits);
        // Until its last part has come, a stream ends where that part does.
        let top = match (later.is_empty(), publications.last()) {
            (false, Some((last, _))) => last.offset,
            _ => head.top,
        };
        out.record(3, |out| Head { top, ..head }.put_fields(out));
        for (publication, end_ms) in &publications {
            out.record(4, |out| publications::put(publication, *end_ms, out));
        }
        if !later.is_empty() {
            let stream = Some(StreamCopy { head, publications: later });
            rest = Some(Copy { channel: ChannelName::clone(&channel), stream, version: None });
        }
    });
    if let Some(rest) = &mut rest {
        rest.version = version;
    }
    rest
}

/// How many of the publications fit; one always does.
fn fitting(publications: &[(Arc<Publication>, u64)], left: &mut usize) -> usize {
    let mut count = 0;
    for (publication, _) in publications {
        if count > 0 && *left == 0 {
            break;
        }
        count += 1;
        *left = left.saturating_sub(OVERHEAD_BYTES + publication.data.len());
    }
    count
}

#[cfg(test)]
mod tests;
