//! Who of a shard's clients tracks which key: the hub's lists of subscribers, one per key.
//!
//! A client is a watcher in each channel of shared polls that it is subscribed to, with a number of
//! its own: so what keys cost is nothing to who tracks none.

use std::sync::Arc;

use throng_hub::publication::ChannelName;
use throng_hub::registry::{Join, Member, Queued, Registry};

use crate::rng::system_seed;

/// No watcher has this number, as no member has.
pub(crate) const NOBODY: Member = Member::MAX;

/// Neither a key nor what stands before it has this; see [`is_key`].
const BETWEEN: char = '\0';

/// What lists are called: a channel and a key.
pub(crate) fn name_of(channel: &str, key: &str) -> ChannelName {
    let mut name = String::with_capacity(channel.len() + key.len() + 1);
    name.push_str(channel);
    name.push(BETWEEN);
    name.push_str(key);
    name.into()
}

/// The channel and the key of a list.
pub(crate) fn parts_of(name: &str) -> (&str, &str) {
    name.rsplit_once(BETWEEN).unwrap_or((name, ""))
}

/// Whether this can be a key. The zero stands between the keys that are signed, too: with one in it,
/// a signature of one key would be one of two.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= super::KEY_BYTES_MAX && !key.contains(BETWEEN)
}

/// The watchers of one shard.
#[derive(Debug)]
pub(crate) struct Watch {
    lists: Registry,
    /// Each watcher's connection.
    slots: Vec<u32>,
    free: Vec<Member>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { lists: Registry::with_seed(system_seed()), slots: Vec::new(), free: Vec::new() }
    }

    /// A connection is subscribed to a channel.
    pub(crate) fn seat(&mut self, slot: u32, channel: &str) -> Member {
        let watcher = match self.free.pop() {
            Some(watcher) => watcher,
            None => {
                self.slots.push(slot);
                Member::try_from(self.slots.len() - 1).unwrap_or(NOBODY)
            }
        };
        if let Some(seat) = self.slots.get_mut(watcher as usize) {
            *seat = slot;
        }
        self.follow(watcher, channel, "");
        watcher
    }

    /// It is no more. Returns whether it was the channel's last; who it was the last of is told of
    /// each key.
    pub(crate) fn unseat(
        &mut self,
        watcher: Member,
        channel: &str,
        last_of: &mut dyn FnMut(&str),
    ) -> bool {
        let mut left = Vec::new();
        self.lists.leave_all(watcher, &mut |name, _| left.push(Arc::clone(name)));
        self.free.push(watcher);
        // In an order that is everywhere the same.
        left.sort_unstable();
        for name in left {
            let (_, key) = parts_of(&name);
            if !key.is_empty() && self.lists.member_count(&name) == 0 {
                last_of(key);
            }
        }
        self.lists.member_count(&name_of(channel, "")) == 0
    }

    /// A watcher tracks a key.
    pub(crate) fn follow(&mut self, watcher: Member, channel: &str, key: &str) {
        let name = name_of(channel, key);
        // It may track it already.
        self.lists.join(watcher, &name, Join::default()).ok();
    }

    /// A watcher tracks a key no more. Returns whether it was the last.
    pub(crate) fn forget(&mut self, watcher: Member, channel: &str, key: &str) -> bool {
        let name = name_of(channel, key);
        self.lists.leave(watcher, &name).is_some() && self.lists.member_count(&name) == 0
    }

    /// The connection of a watcher.
    pub(crate) fn slot(&self, watcher: Member) -> Option<u32> {
        self.slots.get(watcher as usize).copied()
    }

    /// The connections that are subscribed to a channel.
    pub(crate) fn subscribers(&self, channel: &str) -> Vec<u32> {
        let name = name_of(channel, "");
        let mut slots: Vec<u32> =
            self.lists.members(&name).filter_map(|watcher| self.slot(watcher)).collect();
        slots.sort_unstable();
        slots
    }

    /// Queues an update for those who track the key now.
    pub(crate) fn queue(&mut self, name: &str, item: throng_hub::event::Item) -> bool {
        self.lists.queue(name, item) == Queued::Queued
    }

    pub(crate) fn has_work(&self) -> bool {
        self.lists.has_work()
    }

    /// The lists, to hand out what waits, and the connections of watchers.
    pub(crate) fn parts(&mut self) -> (&mut Registry, &[u32]) {
        (&mut self.lists, &self.slots)
    }
}
