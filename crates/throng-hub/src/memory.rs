//! The broker of a node that is alone: everything is in memory and done at once.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::broker::{Broker, Op, Open, Read, Released, Step};
use crate::event::{Flight, Item};
use crate::history::Stream;
use crate::idempotency::{KEY_TTL_MS, Keys};
use crate::presence::Presence;
use crate::publication::{ChannelName, ClientInfo, Position, Publication};
use crate::random::Random;
use crate::request::{
    HistoryPage, Now, PresenceStats, Publish, Published, Recovery, Retention, Subscribed,
};
use crate::state::streams::Ahead;

/// Idempotency keys remembered at most, over all partitions: some 100 bytes each.
const KEYS_MAX: usize = 1 << 18;

/// A sweep does this share of the partitions, so that the locks it takes are few at a time.
const SWEEP_SHARE: usize = 8;

/// Streams, presence, versions and idempotency keys, by channel.
#[derive(Debug)]
pub struct Memory {
    hasher: FixedState,
    /// Each a lock of its own. Lock order: a partition of the node, then one of these.
    pub(crate) partitions: Box<[Mutex<Partition>]>,
    /// The next partition to sweep.
    swept: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) channels: HashMap<ChannelName, Kept, FixedState>,
    pub(crate) keys: Keys,
    pub(crate) random: Random,
    /// What changed since a snapshot; there while a restart is being prepared.
    pub(crate) ahead: Option<Box<Ahead>>,
}

/// What is kept of one channel; mostly one of these.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) stream: Option<Box<Stream>>,
    pub(crate) presence: Option<Box<Presence>>,
    pub(crate) version: Option<Box<Version>>,
}

/// The version of the last publication that had one.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) epoch: Box<str>,
    pub(crate) end_ms: u64,
}

impl Memory {
    /// With as many locks as `partitions`; `seed` decides epochs and the hashing of names.
    pub fn new(partitions: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hasher = FixedState::with_seed(random.next());
        let count = partitions.max(1);
        let partition = |_| {
            Mutex::new(Partition {
                channels: HashMap::with_hasher(hasher.clone()),
                keys: Keys::new((KEYS_MAX / count).max(64), hasher.clone()),
                random: Random::new(random.next()),
                ahead: None,
            })
        };
        let partitions = (0..count).map(partition).collect();
        Self { hasher, partitions, swept: AtomicUsize::new(0) }
    }

    /// Begins a new epoch in every stream: what became of the last one is not known.
    pub fn begin_anew(&self, now: Now) {
        for partition in &self.partitions {
            let mut partition = partition.lock();
            let Partition { channels, random, keys: _, ahead: _ } = &mut *partition;
            for stream in channels.values_mut().filter_map(|kept| kept.stream.as_mut()) {
                stream.begin_anew(random.epoch(), now);
            }
        }
    }

    pub(crate) fn lock(&self, channel: &str) -> MutexGuard<'_, Partition> {
        let hash = self.hasher.hash_one(channel);
        // The low half of the hash: the table inside uses the rest.
        self.partitions[(hash & 0xffff_ffff) as usize % self.partitions.len()].lock()
    }
}

impl Broker for Memory {
    fn publish(&self, _op: Op, publish: Publish, now: Now) -> Step<Released> {
        let mut partition = self.lock(&publish.channel);
        Step::Done(Ok(partition.publish(publish, now)))
    }

    fn subscribe(&self, _op: Op, open: Open<'_>, now: Now) -> Step<Subscribed> {
        let mut partition = self.lock(open.channel);
        Step::Done(Ok(partition.subscribe(open, now)))
    }

    fn unsubscribe(&self, channel: &ChannelName, now: Now) {
        let mut partition = self.lock(channel);
        partition.note(channel);
        if let Some(stream) =
            partition.channels.get_mut(channel).and_then(|kept| kept.stream.as_mut())
        {
            stream.followed = false;
            stream.use_at(now);
        }
    }

    fn history(&self, _op: Op, read: Read<'_>, now: Now) -> Step<HistoryPage> {
        let mut partition = self.lock(read.channel);
        let stream = partition.stream(read.channel, read.retention, now);
        Step::Done(stream.read(read.query))
    }

    fn remove_history(&self, _op: Op, channel: &ChannelName, now: Now) -> Step<()> {
        let mut partition = self.lock(channel);
        partition.note(channel);
        if let Some(stream) =
            partition.channels.get_mut(channel).and_then(|kept| kept.stream.as_mut())
        {
            stream.clear();
            stream.use_at(now);
        }
        Step::Done(Ok(()))
    }

    fn enter(&self, channel: &ChannelName, info: &Arc<ClientInfo>, _now: Now) {
        self.lock(channel).kept(channel).presence.get_or_insert_default().enter(info);
    }

    fn leave(&self, channel: &ChannelName, client: Uuid, now: Now) {
        let mut partition = self.lock(channel);
        let Partition { channels, ahead, .. } = &mut *partition;
        let Some(kept) = channels.get_mut(channel) else { return };
        if let Some(presence) = &mut kept.presence {
            presence.leave(client);
        }
        if kept.ends(channel, ahead, now) {
            channels.remove(channel);
        }
    }

    fn presence(&self, _op: Op, channel: &ChannelName, _now: Now) -> Step<Vec<Arc<ClientInfo>>> {
        let partition = self.lock(channel);
        let presence = partition.channels.get(channel).and_then(|kept| kept.presence.as_ref());
        Step::Done(Ok(presence.map(|presence| presence.list()).unwrap_or_default()))
    }

    fn presence_stats(&self, _op: Op, channel: &ChannelName, _now: Now) -> Step<PresenceStats> {
        let partition = self.lock(channel);
        let presence = partition.channels.get(channel).and_then(|kept| kept.presence.as_ref());
        Step::Done(Ok(presence.map(|presence| presence.stats()).unwrap_or_default()))
    }

    fn announce(&self, _channel: &ChannelName, item: Item) -> Option<Item> {
        Some(item)
    }

    fn sweep(&self, now: Now) {
        let share = self.partitions.len().div_ceil(SWEEP_SHARE);
        let first = self.swept.fetch_add(share, Ordering::Relaxed);
        for at in first..first.wrapping_add(share) {
            self.partitions[at % self.partitions.len()].lock().sweep(now);
        }
    }
}

impl Partition {
    fn publish(&mut self, mut publish: Publish, now: Now) -> Released {
        let channel = ChannelName::clone(&publish.channel);
        let key = publish.idempotency_key.take();
        let known = key.as_ref().and_then(|key| self.keys.find(&channel, key, now));
        if let Some(published) = known {
            return Released { published, flight: None };
        }
        let released = if self.is_old_version(&publish, now) {
            Released {
                published: Published { position: self.position(&publish, now) },
                flight: None,
            }
        } else {
            self.remember_version(&publish, now);
            self.append(publish, now)
        };
        if let Some(key) = key {
            self.keys.remember(&channel, &key, released.published, now);
        }
        released
    }

    fn append(&mut self, publish: Publish, now: Now) -> Released {
        let Publish { channel, data, info, tags, draw, skip_history, delta, retention, .. } =
            publish;
        let mut publication = Publication::new(data, info, now.unix_ms);
        (publication.tags, publication.delta) = (tags, delta);
        let (publication, base) = if retention.keeps() && !skip_history {
            let stream = self.stream(&channel, retention, now);
            let base = stream.latest().filter(|_| delta).cloned();
            (stream.append(publication, retention, now), base)
        } else {
            (Arc::new(publication), None)
        };
        let published = Published { position: position_of(&publication) };
        Released { published, flight: Some(Flight { publication, draw, base, came_us: 0 }) }
    }

    fn position(&mut self, publish: &Publish, now: Now) -> Option<Position> {
        let keeps = publish.retention.keeps();
        keeps.then(|| self.stream(&publish.channel, publish.retention, now).position())
    }

    fn is_old_version(&self, publish: &Publish, now: Now) -> bool {
        let version = self.channels.get(&publish.channel).and_then(|kept| kept.version.as_ref());
        publish.version > 0
            && version.is_some_and(|version| {
                version.end_ms > now.mono_ms
                    && version.epoch == publish.version_epoch
                    && publish.version <= version.number
            })
    }

    fn remember_version(&mut self, publish: &Publish, now: Now) {
        if publish.version == 0 {
            return;
        }
        // As long as the position lives; without a stream, as long as an idempotency key.
        let ttl_ms = publish.retention.meta_ttl_ms.max(KEY_TTL_MS);
        self.note(&publish.channel);
        self.kept(&publish.channel).version = Some(Box::new(Version {
            number: publish.version,
            epoch: publish.version_epoch.clone(),
            end_ms: now.mono_ms.saturating_add(ttl_ms),
        }));
    }

    fn subscribe(&mut self, open: Open<'_>, now: Now) -> Subscribed {
        if !open.positioned && open.recover.is_none() && !open.retention.keeps() {
            return Subscribed { position: None, recovery: Recovery::NotAsked };
        }
        let stream = self.stream(open.channel, open.retention, now);
        stream.followed = true;
        let recovery = open.recover.map_or(Recovery::NotAsked, |recover| stream.recover(recover));
        Subscribed { position: Some(stream.position()), recovery }
    }

    /// The channel's stream; a new one with a new epoch where there was none, or none that lives.
    fn stream(&mut self, channel: &ChannelName, retention: Retention, now: Now) -> &mut Stream {
        self.note(channel);
        // Borrowed apart: the entry stays borrowed while an epoch is made.
        let random = &mut self.random;
        let kept = self.channels.entry(ChannelName::clone(channel)).or_default();
        kept.stream.take_if(|stream| {
            stream.expire(now);
            stream.is_over(now)
        });
        let new = || Box::new(Stream::new(random.epoch(), now));
        let stream = kept.stream.get_or_insert_with(new);
        stream.touch(retention, now);
        stream
    }

    /// A channel's stream or version is about to change.
    fn note(&mut self, channel: &ChannelName) {
        if let Some(ahead) = &mut self.ahead {
            let stream = self.channels.get(channel).and_then(|kept| kept.stream.as_deref());
            ahead.note(channel, stream.map(Stream::position));
        }
    }

    fn kept(&mut self, channel: &ChannelName) -> &mut Kept {
        self.channels.entry(ChannelName::clone(channel)).or_default()
    }

    fn sweep(&mut self, now: Now) {
        self.keys.expire(now);
        let ahead = &mut self.ahead;
        self.channels.retain(|channel, kept| !kept.ends(channel, ahead, now));
        if self.channels.capacity() > 4 * self.channels.len() {
            self.channels.shrink_to(2 * self.channels.len());
        }
    }
}

impl Kept {
    /// Forgets what is over, which a snapshot on its way may have spoken of; whether that is all.
    fn ends(&mut self, channel: &ChannelName, ahead: &mut Option<Box<Ahead>>, now: Now) -> bool {
        let Some(ahead) = ahead else { return self.is_over(now) };
        let sent = self.stream.as_deref().map(Stream::position);
        let had = (self.stream.is_some(), self.version.is_some());
        let is_over = self.is_over(now);
        if had != (self.stream.is_some(), self.version.is_some()) {
            ahead.note(channel, sent);
        }
        is_over
    }

    /// Forgets what is over; whether that is all.
    fn is_over(&mut self, now: Now) -> bool {
        self.presence.take_if(|presence| presence.is_empty());
        self.version.take_if(|version| version.end_ms <= now.mono_ms);
        self.stream.take_if(|stream| {
            stream.expire(now);
            stream.is_over(now)
        });
        self.presence.is_none() && self.version.is_none() && self.stream.is_none()
    }
}

fn position_of(publication: &Publication) -> Option<Position> {
    publication.epoch.map(|epoch| Position { offset: publication.offset, epoch })
}

#[cfg(test)]
mod tests;
