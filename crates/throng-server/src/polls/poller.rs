//! When the application is asked for which keys, and what becomes of its answers: a state machine
//! without I/O, whose time is an argument.
//!
//! A key is known while a shard tracks it. Each key is in at most one call at a time; the keys of a
//! channel are asked for in rounds, an interval each, whose calls are spread over it. What is new and
//! has no data yet, or whom somebody lags behind, is urgent: one call of that at a time, so that what
//! comes while it is under way goes together with the next.

mod channel;
mod moving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use throng_hub::publication::ChannelName;

use self::channel::Budget;
use crate::allowance::{Allowance, Drawn};

/// Keys of one channel, at most: a round goes over all of them while the poller is locked.
pub(crate) const CHANNEL_KEYS_MAX: usize = 100_000;
/// Keys of all channels, at most.
pub(crate) const NODE_KEYS_MAX: usize = 1_000_000;
/// What a key costs beside its own bytes.
const KEY_BYTES: usize = 256;
/// Of the allowance: this part for keys, and as much again for what is remembered of their data.
/// The rest is for messages on their way.
const SHARE: usize = 8;
/// The first wait after an urgent call that failed; it doubles up to [`PAUSE_MAX_MS`].
const PAUSE_MS: u64 = 500;
/// Nobody is left alone for longer than this, or than its interval.
const PAUSE_MAX_MS: u64 = 60_000;
/// How soon it is looked again at a key that nobody tracks, and that is in a call.
const UNANSWERED_MS: u64 = 100;
/// A channel whose namespace is no more is looked at again after this.
const LOST_MS: u64 = 10_000;

/// A key of a channel.
pub(crate) type Key = Arc<str>;

/// How a channel is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub interval_ms: u64,
    /// Keys of one call.
    pub batch: usize,
    pub versioned: bool,
    /// How long a key, or a channel, that nobody wants any more is remembered.
    pub keep_ms: u64,
}

/// All channels that are polled.
#[derive(Debug)]
pub(crate) struct Poller {
    channels: BTreeMap<ChannelName, Channel>,
    /// When each channel wants to be looked at.
    due: BTreeSet<(u64, ChannelName)>,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    keys: usize,
    key_bytes: usize,
    data_bytes: usize,
    allowance: Arc<Allowance>,
}

#[derive(Debug)]
struct Channel {
    /// Which life of versions this is.
    epoch: Arc<str>,
    /// The last version given by this node, where the application gives none.
    last_version: u64,
    /// Shards with subscribers.
    subscribers: Vec<u16>,
    entries: BTreeMap<Key, Entry>,
    /// Entries that some shard tracks.
    live: usize,
    /// Keys to be asked for at once; an entry says that it is here.
    urgent: VecDeque<Key>,
    urgent_call: Option<u64>,
    /// Not before this.
    urgent_at_ms: u64,
    /// What is left of this round; an entry says that it is here.
    round: VecDeque<Key>,
    slice_at_ms: u64,
    slice_gap_ms: u64,
    /// When the next round begins.
    round_at_ms: u64,
    /// The last number of a wish.
    last_wanted: u64,
    /// Calls in a row that failed.
    failures: u32,
    /// Entries that nobody tracks, and until when they are remembered.
    leaving: VecDeque<(u64, Key)>,
    /// When it ends, should nobody come.
    ends_ms: u64,
    due_ms: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Shards that track it.
    shards: Vec<u16>,
    /// 0: nothing is known.
    version: u64,
    /// Of the content.
    hash: u64,
    data: Option<Cached>,
    /// The call it is in.
    asked: Option<u64>,
    /// Not zero: somebody lags behind and there is no data at hand; then the number of that wish, so
    /// that an answer to a question from before is not taken for one to it.
    wanted: u64,
    /// Published since the last round: the next one passes it.
    fresh: bool,
    is_urgent: bool,
    in_round: bool,
    /// Stands in the list of those that nobody tracks; or did until lately.
    is_leaving: bool,
    /// Until when it is remembered, while nobody tracks it.
    gone_ms: u64,
    _drawn: Option<Drawn>,
}

#[derive(Debug)]
struct Cached {
    data: Bytes,
    _drawn: Drawn,
}

#[derive(Debug)]
struct Call {
    channel: ChannelName,
    keys: BTreeMap<Key, Said>,
    urgent: bool,
    epoch: Arc<str>,
}

/// What was said of a key when it was asked for.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// The version that is known.
    version: u64,
    /// The wish that was there; see [`Entry::wanted`].
    wanted: u64,
}

/// A question to the application.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub call: u64,
    pub channel: ChannelName,
    /// Each with the version that is known; always 0 where the application gives none.
    pub keys: Vec<(Key, u64)>,
    pub urgent: bool,
}

/// One item of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Item {
    pub key: String,
    pub data: Option<Bytes>,
    pub version: u64,
    pub removed: bool,
}

/// What the application says of the keys it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Items {
    /// Empty: it says nothing of it.
    pub epoch: String,
    pub items: Vec<Item>,
}

/// What shards are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Update {
        shards: Vec<u16>,
        channel: ChannelName,
        key: Key,
        update: Update,
    },
    /// The versions begin anew.
    Reset {
        shards: Vec<u16>,
        channel: ChannelName,
        epoch: Arc<str>,
    },
}

/// A key's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Update {
    /// For everybody who has an older version.
    New {
        version: u64,
        data: Bytes,
    },
    /// Only for those who were told to be behind.
    Again {
        version: u64,
        data: Bytes,
    },
    Removed,
}

/// What became of the items of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub changed: u64,
    pub unchanged: u64,
    pub removed: u64,
    /// Older than what is known.
    pub stale: u64,
    /// Of keys that were not asked for, or twice.
    pub unasked: u64,
    /// Without the version or the data that it needs.
    pub unusable: u64,
}

/// What came of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub news: Vec<News>,
    pub counts: Counts,
    /// The call was urgent.
    pub urgent: bool,
}

/// What a client that tracks a key is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracked {
    pub key: Key,
    /// What is newer than what it has.
    pub have: Option<(u64, Bytes)>,
    /// There is something newer, and it comes with [`Update::Again`].
    pub behind: bool,
}

/// No more keys fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Channel,
    Node,
    Bytes,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    Told(Vec<News>),
    /// What is known is as new.
    Stale(Vec<News>),
    /// Nobody tracks the key.
    Unwanted(Vec<News>),
}

impl Poller {
    pub(crate) fn new(allowance: Arc<Allowance>) -> Self {
        Self {
            channels: BTreeMap::new(),
            due: BTreeSet::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            keys: 0,
            key_bytes: 0,
            data_bytes: 0,
            allowance,
        }
    }

    /// A shard has a subscriber. Returns the channel's epoch; `make` gives a new one for a channel
    /// whose versions this node gives.
    pub(crate) fn subscribe(
        &mut self,
        now_ms: u64,
        (channel, shard): (&ChannelName, u16),
        rules: &Rules,
        make: impl FnOnce() -> Arc<str>,
    ) -> Arc<str> {
        let poll = self.channel(channel, now_ms);
        if poll.epoch.is_empty() && !rules.versioned {
            poll.epoch = make();
        }
        insert(&mut poll.subscribers, shard);
        Arc::clone(&poll.epoch)
    }

    /// A shard has a subscriber, which has come from another process.
    pub(crate) fn seat(&mut self, now_ms: u64, (channel, shard): (&ChannelName, u16)) {
        insert(&mut self.channel(channel, now_ms).subscribers, shard);
    }

    /// A shard has no subscribers left.
    pub(crate) fn unsubscribe(&mut self, now_ms: u64, channel: &str, shard: u16, keep_ms: u64) {
        let Some(poll) = self.channels.get_mut(channel) else { return };
        poll.subscribers.retain(|each| *each != shard);
        poll.ends_ms = now_ms.saturating_add(keep_ms);
        self.appoint(channel, now_ms);
    }

    /// A client of a shard tracks a key and has this version of it. Data of at most `room` bytes is
    /// given at once, and taken from it.
    ///
    /// # Errors
    /// No more keys fit.
    pub(crate) fn track(
        &mut self,
        now_ms: u64,
        (channel, shard): (&ChannelName, u16),
        (key, version): (&str, u64),
        (interval_ms, room): (u64, &mut usize),
    ) -> Result<Tracked, Full> {
        let key = self.seat_key(now_ms, (channel, shard), key, interval_ms)?;
        let Some(poll) = self.channels.get_mut(channel) else { return Err(Full::Node) };
        let Some(entry) = poll.entries.get_mut(&key) else { return Err(Full::Node) };
        let mut tracked = Tracked { key: Key::clone(&key), have: None, behind: false };
        let is_newer = entry.version > version;
        let at_hand = entry.data.as_ref().filter(|cached| is_newer && cached.data.len() <= *room);
        if let Some(Cached { data, .. }) = at_hand {
            *room -= data.len();
            tracked.have = Some((entry.version, data.clone()));
        } else if is_newer {
            tracked.behind = true;
            poll.last_wanted += 1;
            entry.wanted = poll.last_wanted;
        }
        let is_cold = entry.version == 0 && version == 0;
        if (is_cold || tracked.behind) && entry.asked.is_none() && !entry.is_urgent {
            entry.is_urgent = true;
            poll.urgent.push_back(key);
            self.appoint(channel, now_ms);
        }
        Ok(tracked)
    }

    /// A shard tracks a key, whoever of its clients does.
    ///
    /// # Errors
    /// No more keys fit.
    pub(crate) fn seat_key(
        &mut self,
        now_ms: u64,
        (channel, shard): (&ChannelName, u16),
        key: &str,
        interval_ms: u64,
    ) -> Result<Key, Full> {
        let poll = self.channel(channel, now_ms);
        let known = poll.entries.get_key_value(key).map(|(key, _)| Key::clone(key));
        let key = match known {
            Some(key) => key,
            None => {
                let many = poll.entries.len();
                self.admit(many, key.len())?;
                let drawn = Some(self.allowance.hold(KEY_BYTES + key.len()));
                let key = Key::from(key);
                let entry = Entry { _drawn: drawn, ..Entry::default() };
                self.channel(channel, now_ms).entries.insert(Key::clone(&key), entry);
                key
            }
        };
        let poll = self.channel(channel, now_ms);
        if let Some(entry) = poll.entries.get_mut(&key) {
            let was_dead = entry.shards.is_empty();
            insert(&mut entry.shards, shard);
            if was_dead {
                if poll.live == 0 && poll.round_at_ms <= now_ms {
                    poll.round_at_ms = now_ms.saturating_add(interval_ms);
                }
                poll.live += 1;
                self.appoint(channel, now_ms);
            }
        }
        Ok(key)
    }

    /// Counts a new key, if it fits.
    fn admit(&mut self, in_channel: usize, len: usize) -> Result<(), Full> {
        if in_channel >= CHANNEL_KEYS_MAX {
            return Err(Full::Channel);
        }
        if self.keys >= NODE_KEYS_MAX {
            return Err(Full::Node);
        }
        let bytes = self.key_bytes + KEY_BYTES + len;
        if bytes > self.allowance.limit() / SHARE {
            return Err(Full::Bytes);
        }
        self.keys += 1;
        self.key_bytes = bytes;
        Ok(())
    }

    /// No client of a shard tracks a key any more.
    pub(crate) fn untrack(
        &mut self,
        now_ms: u64,
        (channel, shard): (&str, u16),
        key: &str,
        keep_ms: u64,
    ) {
        let Some(poll) = self.channels.get_mut(channel) else { return };
        let Some(name) = poll.entries.get_key_value(key).map(|(key, _)| Key::clone(key)) else {
            return;
        };
        let Some(entry) = poll.entries.get_mut(key) else { return };
        let was_live = !entry.shards.is_empty();
        entry.shards.retain(|each| *each != shard);
        if was_live && entry.shards.is_empty() {
            entry.wanted = 0;
            entry.gone_ms = now_ms.saturating_add(keep_ms);
            if !std::mem::replace(&mut entry.is_leaving, true) {
                poll.leaving.push_back((entry.gone_ms, name));
            }
            poll.live -= 1;
            self.appoint(channel, now_ms);
        }
    }

    /// The application says itself what is new.
    pub(crate) fn publish(
        &mut self,
        channel: &ChannelName,
        (key, version, data): (&str, u64, Bytes),
        epoch: &str,
    ) -> Published {
        let Some(poll) = self.channels.get_mut(channel) else {
            return Published::Unwanted(Vec::new());
        };
        let mut freed = 0;
        let mut news = Vec::new();
        if !epoch.is_empty() && *poll.epoch != *epoch {
            news.push(poll.reset(channel, epoch, &mut freed));
        }
        self.data_bytes -= freed;
        let Some(key) = poll.entries.get_key_value(key).map(|(key, _)| Key::clone(key)) else {
            return Published::Unwanted(news);
        };
        let entry = poll.entries.get_mut(&key).filter(|entry| !entry.shards.is_empty());
        let Some(entry) = entry else { return Published::Unwanted(news) };
        if version <= entry.version {
            return Published::Stale(news);
        }
        entry.version = version;
        entry.fresh = true;
        entry.wanted = 0;
        let shards = entry.shards.clone();
        entry.keep(&data, &mut self.data_bytes, &self.allowance);
        let update = Update::New { version, data };
        news.push(News::Update { shards, channel: ChannelName::clone(channel), key, update });
        Published::Told(news)
    }

    /// What is to be asked now, while fewer than `limit` calls are under way. `rules` says how a
    /// channel is polled; none: not any more.
    pub(crate) fn turn(
        &mut self,
        now_ms: u64,
        limit: usize,
        rules: &mut dyn FnMut(&str) -> Option<Rules>,
    ) -> Vec<Ask> {
        let mut asks = Vec::new();
        // Each channel at most once: so it ends.
        for _ in 0..self.due.len() {
            let Some((at_ms, name)) = self.due.first().cloned() else { break };
            if at_ms > now_ms || self.calls.len() >= limit {
                break;
            }
            self.tidy(&name, now_ms);
            let Some(poll) = self.channels.get_mut(&name) else { continue };
            match rules(&name) {
                Some(rules) => {
                    let (calls, last) = (&mut self.calls, &mut self.last_call);
                    poll.ask((&name, &rules), now_ms, (calls, last, limit), &mut asks);
                    self.appoint(&name, now_ms.saturating_add(1));
                }
                None => self.appoint_at(&name, now_ms.saturating_add(LOST_MS)),
            }
        }
        asks
    }

    /// When something is to be done next, while fewer than `limit` calls are under way.
    pub(crate) fn next_due(&self, limit: usize) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms).filter(|_| self.calls.len() < limit)
    }

    /// The application has answered; none: the call came to nothing.
    pub(crate) fn answered(
        &mut self,
        now_ms: u64,
        call: u64,
        answer: Option<Items>,
        rules: &Rules,
    ) -> Outcome {
        let Some(Call { channel, mut keys, urgent, epoch }) = self.calls.remove(&call) else {
            return Outcome::default();
        };
        let mut outcome = Outcome { urgent, ..Outcome::default() };
        let Some(poll) = self.channels.get_mut(&channel) else { return outcome };
        if poll.urgent_call == Some(call) {
            poll.urgent_call = None;
        }
        // The channel may have ended and begun again: then other calls ask for its keys.
        keys.retain(|key, _| match poll.entries.get_mut(key) {
            Some(entry) if entry.asked == Some(call) => {
                entry.asked = None;
                true
            }
            _ => false,
        });
        match answer {
            None => poll.failed(now_ms, (keys, urgent), rules),
            Some(items) => {
                poll.failures = 0;
                let budget = Budget {
                    data_bytes: &mut self.data_bytes,
                    keys: &mut self.keys,
                    key_bytes: &mut self.key_bytes,
                    allowance: &self.allowance,
                };
                poll.take_in((&channel, &epoch), (keys, items), rules, (budget, &mut outcome));
            }
        }
        self.appoint(&channel, now_ms);
        outcome
    }

    /// Channels, keys that are tracked or remembered, and bytes of their data.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.channels.len(), self.keys, self.data_bytes)
    }

    /// Forgets what nobody wants any more.
    fn tidy(&mut self, name: &str, now_ms: u64) {
        let Some(poll) = self.channels.get_mut(name) else { return };
        while let Some((at_ms, _)) = poll.leaving.front()
            && *at_ms <= now_ms
        {
            let Some((_, key)) = poll.leaving.pop_front() else { break };
            let Some(entry) = poll.entries.get_mut(&key) else { continue };
            entry.is_leaving = false;
            // It is in a call still: so that it is never in two, it stays until that is answered.
            if entry.asked.is_some() && entry.gone_ms <= now_ms {
                entry.gone_ms = now_ms.saturating_add(UNANSWERED_MS);
            }
            if entry.shards.is_empty() && entry.gone_ms > now_ms {
                // Or it was tracked again meanwhile.
                entry.is_leaving = true;
                poll.leaving.push_back((entry.gone_ms, key));
            } else if entry.shards.is_empty()
                && let Some(entry) = poll.entries.remove(&key)
            {
                self.keys -= 1;
                self.key_bytes -= KEY_BYTES + key.len();
                self.data_bytes -= entry.data.map_or(0, |cached| cached.data.len());
            }
        }
        let is_over = poll.subscribers.is_empty() && poll.entries.is_empty();
        if is_over && poll.ends_ms <= now_ms {
            let due = (poll.due_ms, ChannelName::from(name));
            self.due.remove(&due);
            self.channels.remove(name);
        }
    }

    fn channel(&mut self, name: &ChannelName, now_ms: u64) -> &mut Channel {
        if !self.channels.contains_key(name) {
            self.channels.insert(ChannelName::clone(name), Channel::new());
            self.appoint(name, now_ms);
        }
        self.channels.get_mut(name).expect("it is there now")
    }

    /// Sees to it that a channel is looked at when it wants to be, and not before `from_ms`.
    fn appoint(&mut self, name: &str, from_ms: u64) {
        let Some(poll) = self.channels.get(name) else { return };
        self.appoint_at(name, poll.wants().max(from_ms));
    }

    fn appoint_at(&mut self, name: &str, at_ms: u64) {
        let Some((name, poll)) = self.channels.get_key_value(name) else { return };
        let name = ChannelName::clone(name);
        let before = (poll.due_ms, name);
        self.due.remove(&before);
        let (_, name) = before;
        if let Some(poll) = self.channels.get_mut(&name) {
            poll.due_ms = at_ms;
        }
        if at_ms < u64::MAX {
            self.due.insert((at_ms, name));
        }
    }
}

fn insert(shards: &mut Vec<u16>, shard: u16) {
    if let Err(at) = shards.binary_search(&shard) {
        shards.insert(at, shard);
    }
}
