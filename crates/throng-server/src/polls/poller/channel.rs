//! One channel of the poller: its rounds, what is urgent, and what it makes of an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use throng_hub::publication::ChannelName;

use super::{
    Ask, Cached, Call, Channel, Counts, Entry, Item, Items, KEY_BYTES, Key, News, Outcome,
    PAUSE_MAX_MS, PAUSE_MS, Rules, SHARE, Said, Update,
};
use crate::allowance::Allowance;

/// What entries draw from.
pub(super) struct Budget<'a> {
    pub(super) data_bytes: &'a mut usize,
    pub(super) keys: &'a mut usize,
    pub(super) key_bytes: &'a mut usize,
    pub(super) allowance: &'a Arc<Allowance>,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self {
            epoch: "".into(),
            last_version: 0,
            subscribers: Vec::new(),
            entries: BTreeMap::new(),
            live: 0,
            urgent: VecDeque::new(),
            urgent_call: None,
            urgent_at_ms: 0,
            round: VecDeque::new(),
            slice_at_ms: 0,
            slice_gap_ms: 0,
            round_at_ms: 0,
            last_wanted: 0,
            failures: 0,
            leaving: VecDeque::new(),
            ends_ms: 0,
            due_ms: u64::MAX,
        }
    }

    /// When it is to be looked at; never where that is the largest number.
    pub(super) fn wants(&self) -> u64 {
        let mut at_ms = u64::MAX;
        if let Some((gone_ms, _)) = self.leaving.front() {
            at_ms = at_ms.min(*gone_ms);
        }
        if self.subscribers.is_empty() && self.entries.is_empty() {
            at_ms = at_ms.min(self.ends_ms);
        }
        if !self.urgent.is_empty() && self.urgent_call.is_none() {
            at_ms = at_ms.min(self.urgent_at_ms);
        }
        if !self.round.is_empty() {
            at_ms = at_ms.min(self.slice_at_ms);
        } else if self.live > 0 {
            at_ms = at_ms.min(self.round_at_ms);
        }
        at_ms
    }

    pub(super) fn ask(
        &mut self,
        (name, rules): (&ChannelName, &Rules),
        now_ms: u64,
        (calls, last, limit): (&mut BTreeMap<u64, Call>, &mut u64, usize),
        asks: &mut Vec<Ask>,
    ) {
        let mut call = |poll: &mut Self, keys: BTreeMap<Key, Said>, urgent: bool| {
            *last += 1;
            for key in keys.keys() {
                if let Some(entry) = poll.entries.get_mut(key) {
                    entry.asked = Some(*last);
                }
            }
            if urgent {
                poll.urgent_call = Some(*last);
            }
            asks.push(Ask {
                call: *last,
                channel: ChannelName::clone(name),
                keys: keys.iter().map(|(key, said)| (Key::clone(key), said.version)).collect(),
                urgent,
            });
            let (channel, epoch) = (ChannelName::clone(name), Arc::clone(&poll.epoch));
            calls.insert(*last, Call { channel, keys, urgent, epoch });
            calls.len() < limit
        };
        if self.urgent_call.is_none() && self.urgent_at_ms <= now_ms {
            let keys = self.take_urgent(rules);
            if !keys.is_empty() && !call(self, keys, true) {
                return;
            }
        }
        if self.round.is_empty() && self.live > 0 && self.round_at_ms <= now_ms {
            self.begin_round(now_ms, rules);
        }
        while !self.round.is_empty() && self.slice_at_ms <= now_ms {
            let keys = self.take_slice(rules);
            // One after a stall does not bring a heap of calls at once.
            self.slice_at_ms = self.slice_at_ms.saturating_add(self.slice_gap_ms).max(now_ms);
            if !keys.is_empty() {
                self.slice_at_ms = self.slice_at_ms.max(now_ms.saturating_add(1));
                if !call(self, keys, false) {
                    return;
                }
            }
        }
    }

    fn begin_round(&mut self, now_ms: u64, rules: &Rules) {
        for (key, entry) in &mut self.entries {
            if !entry.shards.is_empty() {
                entry.in_round = true;
                self.round.push_back(Key::clone(key));
            }
        }
        let calls = self.round.len().div_ceil(rules.batch.max(1)).max(1);
        self.slice_gap_ms = rules.interval_ms / u64::try_from(calls).unwrap_or(u64::MAX);
        self.slice_at_ms = now_ms;
        self.round_at_ms = now_ms.saturating_add(rules.interval_ms);
    }

    fn take_urgent(&mut self, rules: &Rules) -> BTreeMap<Key, Said> {
        let mut keys = BTreeMap::new();
        while keys.len() < rules.batch
            && let Some(key) = self.urgent.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.is_urgent = false;
            if entry.asked.is_none() && !entry.shards.is_empty() {
                keys.insert(key, entry.known(rules));
            }
        }
        keys
    }

    fn take_slice(&mut self, rules: &Rules) -> BTreeMap<Key, Said> {
        let mut keys = BTreeMap::new();
        while keys.len() < rules.batch
            && let Some(key) = self.round.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.in_round = false;
            let is_fresh = std::mem::take(&mut entry.fresh);
            if entry.asked.is_none() && !entry.shards.is_empty() && !is_fresh {
                keys.insert(key, entry.known(rules));
            }
        }
        keys
    }

    pub(super) fn failed(
        &mut self,
        now_ms: u64,
        (keys, urgent): (BTreeMap<Key, Said>, bool),
        rules: &Rules,
    ) {
        self.failures = self.failures.saturating_add(1);
        let doubled = |first_ms: u64| {
            let most = PAUSE_MAX_MS.max(rules.interval_ms);
            first_ms.saturating_mul(1 << (self.failures - 1).min(10)).min(most)
        };
        self.urgent_at_ms = now_ms.saturating_add(doubled(PAUSE_MS));
        let round_at_ms = now_ms.saturating_add(doubled(rules.interval_ms));
        self.round_at_ms = self.round_at_ms.max(round_at_ms);
        if !urgent {
            return;
        }
        for key in keys.into_keys() {
            if let Some(entry) = self.entries.get_mut(&key).filter(|entry| !entry.is_urgent) {
                entry.is_urgent = true;
                self.urgent.push_back(key);
            }
        }
    }

    /// Begins anew: what was known means nothing any more.
    pub(super) fn reset(&mut self, name: &ChannelName, epoch: &str, freed: &mut usize) -> News {
        self.epoch = epoch.into();
        for entry in self.entries.values_mut() {
            *freed += entry.data.take().map_or(0, |cached| cached.data.len());
            (entry.version, entry.wanted, entry.fresh) = (0, 0, false);
        }
        let (shards, channel) = (self.subscribers.clone(), ChannelName::clone(name));
        News::Reset { shards, channel, epoch: Arc::clone(&self.epoch) }
    }

    pub(super) fn take_in(
        &mut self,
        (name, epoch): (&ChannelName, &str),
        (mut keys, answer): (BTreeMap<Key, Said>, Items),
        rules: &Rules,
        (mut budget, outcome): (Budget<'_>, &mut Outcome),
    ) {
        if rules.versioned {
            // The versions have begun anew since it was asked: an answer that does not say that it
            // knows is from before.
            if *epoch != *self.epoch && answer.epoch != *self.epoch {
                return;
            }
            if !answer.epoch.is_empty() && answer.epoch != *self.epoch {
                let mut freed = 0;
                outcome.news.push(self.reset(name, &answer.epoch, &mut freed));
                *budget.data_bytes -= freed;
            }
        }
        for item in answer.items {
            let Some((key, said)) = keys.remove_entry(&*item.key) else {
                outcome.counts.unasked += 1;
                continue;
            };
            let told = self.take_item(&key, item, rules, (&mut budget, &mut outcome.counts));
            if let Some((shards, update)) = told {
                let channel = ChannelName::clone(name);
                outcome.news.push(News::Update { shards, channel, key: Key::clone(&key), update });
            }
            self.ask_again(key, said);
        }
        // What is left out is as it was.
        outcome.counts.unchanged += keys.len() as u64;
        for (key, said) in keys {
            self.ask_again(key, said);
        }
    }

    /// Somebody still waits for data: since after it was asked for, as a rule.
    fn ask_again(&mut self, key: Key, said: Said) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.wanted > 0) else {
            return;
        };
        if said.wanted == entry.wanted {
            // The application has nothing.
            entry.wanted = 0;
        } else if !entry.is_urgent {
            entry.is_urgent = true;
            self.urgent.push_back(key);
        }
    }

    fn take_item(
        &mut self,
        key: &Key,
        item: Item,
        rules: &Rules,
        (budget, counts): (&mut Budget<'_>, &mut Counts),
    ) -> Option<(Vec<u16>, Update)> {
        let entry = self.entries.get_mut(key)?;
        if item.removed {
            counts.removed += 1;
            let entry = self.entries.remove(key)?;
            *budget.keys -= 1;
            *budget.key_bytes -= KEY_BYTES + key.len();
            *budget.data_bytes -= entry.data.map_or(0, |cached| cached.data.len());
            self.live -= usize::from(!entry.shards.is_empty());
            return Some((entry.shards, Update::Removed));
        }
        let data = item.data;
        let hash = data.as_ref().map_or(0, hash);
        let version = match (&data, rules.versioned) {
            (_, true) if item.version == 0 => {
                counts.unusable += 1;
                return None;
            }
            (None, true) if item.version > entry.version => {
                counts.unusable += 1;
                return None;
            }
            (_, true) => item.version,
            (None, false) => entry.version,
            (Some(_), false) if entry.version > 0 && entry.hash == hash => entry.version,
            (Some(_), false) => {
                self.last_version += 1;
                self.last_version
            }
        };
        if version < entry.version {
            counts.stale += 1;
            return None;
        }
        let is_new = version > entry.version;
        *(if is_new { &mut counts.changed } else { &mut counts.unchanged }) += 1;
        let data = data?;
        let is_wanted = std::mem::take(&mut entry.wanted) > 0;
        (entry.version, entry.hash) = (version, hash);
        entry.keep(&data, budget.data_bytes, budget.allowance);
        let update = match (is_new, is_wanted) {
            (true, _) => Update::New { version, data },
            (false, true) => Update::Again { version, data },
            (false, false) => return None,
        };
        Some((entry.shards.clone(), update)).filter(|(shards, _)| !shards.is_empty())
    }
}

impl Entry {
    /// What the application is told to be known.
    fn known(&self, rules: &Rules) -> Said {
        // Who is to send the data must not hear that it is known.
        let version = if rules.versioned && self.wanted == 0 { self.version } else { 0 };
        Said { version, wanted: self.wanted }
    }

    /// Remembers what clients that come later are given, if there is room.
    pub(super) fn keep(
        &mut self,
        data: &Bytes,
        data_bytes: &mut usize,
        allowance: &Arc<Allowance>,
    ) {
        *data_bytes -= self.data.take().map_or(0, |cached| cached.data.len());
        let bytes = *data_bytes + data.len();
        if bytes <= allowance.limit() / SHARE {
            *data_bytes = bytes;
            self.data = Some(Cached { data: data.clone(), _drawn: allowance.hold(data.len()) });
        }
    }
}

/// The same for the same content in every process, so that it may move.
fn hash(data: &Bytes) -> u64 {
    let digest = digest::digest(&digest::SHA256, data);
    let first = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}
