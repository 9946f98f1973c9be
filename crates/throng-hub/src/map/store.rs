//! The maps of one partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::value::{Limits, Map};
use super::{
    ChangesQuery, Enter, Entered, Page, Removal, Rules, StateQuery, Suppressed, Write, Written,
};
use crate::idempotency::Keys;
use crate::publication::{ChannelName, Position, Publication};
use crate::random::Random;
use crate::request::{HubError, Now, Published};

/// Idempotency keys remembered at most, over all partitions.
const KEYS_MAX: usize = 1 << 16;

/// A sweep comes every second, and what is over may wait a few.
const FORGET_EVERY: u32 = 8;

/// How many bytes all maps of a node have and may have.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX) }
    }
}

impl Room {
    pub(crate) fn limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Partitions ask at the same time: all together they may pass the limit by one value each.
    fn left(&self) -> usize {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.used())
    }

    pub(super) fn settle(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// What became of a write, and what the subscribers are to be told of it, in this order.
#[derive(Debug)]
pub(crate) struct Told<T> {
    pub(crate) result: T,
    /// A key's end, that was noticed now.
    pub(crate) ended: Option<Arc<Publication>>,
    pub(crate) change: Option<Arc<Publication>>,
}

/// The maps of one partition.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(super) channels: HashMap<ChannelName, Map, FixedState>,
    /// When the next key of each map ends that has one with an end.
    pub(super) due: BTreeSet<(u64, ChannelName)>,
    pub(super) keys: Keys,
    pub(super) random: Random,
    pub(super) room: Arc<Room>,
    /// How often it was asked to forget.
    pub(super) calls: u32,
}

impl Maps {
    /// One of `count`.
    pub(crate) fn new(count: usize, hasher: &FixedState, room: Arc<Room>, seed: u64) -> Self {
        Self {
            channels: HashMap::with_hasher(hasher.clone()),
            due: BTreeSet::new(),
            keys: Keys::new((KEYS_MAX / count.max(1)).max(64), hasher.clone()),
            random: Random::new(seed),
            room,
            calls: 0,
        }
    }

    pub(crate) fn publish(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        mut write: Write,
        now: Now,
    ) -> Told<Result<Written, HubError>> {
        let token = write.idempotency_key.take();
        if let Some(told) = self.repeated(channel, rules, token.as_deref(), now) {
            return told;
        }
        let room = self.room.left();
        self.with(channel, rules, now, |map| {
            let ended = map.expire_key(&write.key, now);
            let (result, change) = match map.publish(write, room, now) {
                Ok(Ok(change)) => (Ok(None), Some(change)),
                Ok(Err(why)) => (Ok(Some(why)), None),
                Err(full) => (Err(full), None),
            };
            let position = map.position();
            let result = result.map(|suppressed| Written { position, suppressed });
            Told { result, ended, change }
        })
        .remember(self, channel, token.as_deref(), now)
    }

    pub(crate) fn remove(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        mut removal: Removal,
        now: Now,
    ) -> Told<Result<Written, HubError>> {
        let token = removal.idempotency_key.take();
        if let Some(told) = self.repeated(channel, rules, token.as_deref(), now) {
            return told;
        }
        self.with(channel, rules, now, |map| {
            let ended = map.expire_key(&removal.key, now);
            let (suppressed, change) = match map.remove(removal, now) {
                Ok(change) => (None, Some(change)),
                Err(why) => (Some(why), None),
            };
            let result = Ok(Written { position: map.position(), suppressed });
            Told { result, ended, change }
        })
        .remember(self, channel, token.as_deref(), now)
    }

    pub(crate) fn read(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        query: &StateQuery,
        now: Now,
    ) -> Result<Page, HubError> {
        self.with(channel, rules, now, |map| map.read(query))
    }

    pub(crate) fn read_changes(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        query: &ChangesQuery,
        now: Now,
    ) -> Result<Page, HubError> {
        self.with(channel, rules, now, |map| map.read_changes(query))
    }

    pub(crate) fn enter(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        enter: &Enter,
        now: Now,
    ) -> Result<Entered, HubError> {
        let Enter { page, bytes_max, live_max, .. } = *enter;
        let limits = Limits { page, bytes_max, live_max };
        self.with(channel, rules, now, |map| map.enter(&enter.way, limits))
    }

    pub(crate) fn count(&self, channel: &str) -> usize {
        self.channels.get(channel).map_or(0, Map::len)
    }

    /// Forgets a map; whether there was one.
    pub(crate) fn clear(&mut self, channel: &str) -> bool {
        let Some((name, map)) = self.channels.remove_entry(channel) else { return false };
        if let Some(due_ms) = map.due_ms() {
            self.due.remove(&(due_ms, name));
        }
        self.room.settle(map.cost(), 0);
        true
    }

    /// Ends the next key whose time is over. Returns its channel and what is to be told.
    pub(crate) fn expire_next(&mut self, now: Now) -> Option<(ChannelName, Arc<Publication>)> {
        let (due_ms, channel) = self.due.first()?;
        if *due_ms > now.mono_ms {
            return None;
        }
        let channel = ChannelName::clone(channel);
        let ended = self.change(&channel, |map| map.expire_next(now))?;
        Some((channel, ended?))
    }

    /// Forgets what nobody uses and nobody follows; every so many calls.
    pub(crate) fn forget(&mut self, now: Now, is_followed: impl Fn(&str) -> bool) {
        self.calls = self.calls.wrapping_add(1);
        if !self.calls.is_multiple_of(FORGET_EVERY) {
            return;
        }
        self.keys.settle();
        self.keys.expire(now);
        let (due, room) = (&mut self.due, &self.room);
        self.channels.retain(|channel, map| {
            let before = map.cost();
            let stays = !map.is_over(now) || is_followed(channel);
            if !stays && let Some(due_ms) = map.due_ms() {
                due.remove(&(due_ms, ChannelName::clone(channel)));
            }
            room.settle(before, if stays { map.cost() } else { 0 });
            stays
        });
        if self.channels.capacity() > 4 * self.channels.len() {
            self.channels.shrink_to(2 * self.channels.len());
        }
    }

    /// Begins a new epoch in every map.
    pub(crate) fn begin_anew(&mut self) {
        for map in self.channels.values_mut() {
            let before = map.cost();
            map.begin_anew(self.random.epoch());
            self.room.settle(before, map.cost());
        }
    }

    /// Takes in a map of another process.
    pub(super) fn put(&mut self, channel: ChannelName, map: Map) {
        self.clear(&channel);
        if let Some(due_ms) = map.due_ms() {
            self.due.insert((due_ms, ChannelName::clone(&channel)));
        }
        self.room.settle(0, map.cost());
        self.channels.insert(channel, map);
    }

    /// Remembers an idempotency key that another process knew.
    pub(crate) fn restore_key(&mut self, joint: &str, published: Published, end_ms: u64) {
        self.keys.restore(joint, published, end_ms);
    }

    fn repeated(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        token: Option<&str>,
        now: Now,
    ) -> Option<Told<Result<Written, HubError>>> {
        let Published { position } = self.keys.find(channel, token?, now)?;
        let position = match position {
            Some(position) => position,
            None => self.with(channel, rules, now, |map| map.position()),
        };
        let result = Ok(Written { position, suppressed: Some(Suppressed::Idempotency) });
        Some(Told { result, ended: None, change: None })
    }

    /// Does something with a map under these rules; a new one where there was none.
    fn with<T>(
        &mut self,
        channel: &ChannelName,
        rules: Rules,
        now: Now,
        f: impl FnOnce(&mut Map) -> T,
    ) -> T {
        if !self.channels.contains_key(channel) {
            let map = Map::new(self.random.epoch(), now);
            self.channels.insert(ChannelName::clone(channel), map);
        }
        let done = self.change(channel, |map| {
            map.touch(rules, now);
            f(map)
        });
        done.expect("a map that is there, or was put there")
    }

    /// Does something with a map, and keeps the books.
    fn change<T>(&mut self, channel: &ChannelName, f: impl FnOnce(&mut Map) -> T) -> Option<T> {
        let map = self.channels.get_mut(channel)?;
        let (cost, due_ms) = (map.cost(), map.due_ms());
        let done = f(map);
        self.room.settle(cost, map.cost());
        let next_ms = map.due_ms();
        if next_ms != due_ms {
            if let Some(due_ms) = due_ms {
                self.due.remove(&(due_ms, ChannelName::clone(channel)));
            }
            if let Some(next_ms) = next_ms {
                self.due.insert((next_ms, ChannelName::clone(channel)));
            }
        }
        Some(done)
    }
}

impl Told<Result<Written, HubError>> {
    /// Remembers what a write that changed something was answered.
    fn remember(self, maps: &mut Maps, channel: &str, token: Option<&str>, now: Now) -> Self {
        if let (Some(token), Ok(Written { position, suppressed: None })) = (token, &self.result) {
            let position: Option<Position> = Some(*position);
            maps.keys.remember(channel, token, Published { position }, now);
        }
        self
    }
}
