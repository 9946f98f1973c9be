//! The keys of recent publishes, so that a repeated one is answered and not published.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::request::{Now, Published};

/// How long a key is remembered: the incumbent's five minutes.
pub(crate) const KEY_TTL_MS: u64 = 5 * 60 * 1000;

/// The results of recent publishes by their keys; a bounded number, the oldest go first.
#[derive(Debug)]
pub(crate) struct Keys {
    max: usize,
    /// With the end of each: a place in `ends` with another one is of an older life of the key.
    results: HashMap<Arc<str>, (Published, u64), FixedState>,
    /// In the order of their end, since all live equally long.
    ends: VecDeque<(u64, Arc<str>)>,
    /// How many were remembered, ever.
    added: u64,
    /// Restored keys stand at the end of `ends` in any order.
    unsorted: bool,
}

impl Keys {
    pub(crate) fn new(max: usize, hasher: FixedState) -> Self {
        Self {
            max,
            results: HashMap::with_hasher(hasher),
            ends: VecDeque::new(),
            added: 0,
            unsorted: false,
        }
    }

    pub(crate) fn find(&mut self, channel: &str, key: &str, now: Now) -> Option<Published> {
        self.expire(now);
        self.results.get(&*joint(channel, key)).map(|(published, _)| *published)
    }

    pub(crate) fn remember(&mut self, channel: &str, key: &str, published: Published, now: Now) {
        let joint: Arc<str> = joint(channel, key).into();
        let end_ms = now.mono_ms.saturating_add(KEY_TTL_MS);
        self.put(joint, published, end_ms);
        if self.ends.len() > self.max {
            self.drop_oldest();
        }
    }

    pub(crate) fn expire(&mut self, now: Now) {
        while self.ends.front().is_some_and(|(end_ms, _)| *end_ms <= now.mono_ms) {
            self.drop_oldest();
        }
        if self.ends.is_empty() {
            self.ends.shrink_to_fit();
            self.results.shrink_to_fit();
        }
    }

    /// How many were remembered, ever.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Those of the last `count` ever remembered that are still known, the oldest first: key with
    /// channel, result and end.
    pub(crate) fn newest(
        &self,
        count: u64,
    ) -> impl Iterator<Item = (Arc<str>, Published, u64)> + '_ {
        let known = self.ends.len();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(known);
        self.ends.range(known - count..).filter_map(|(end_ms, joint)| {
            let (published, end) = self.results.get(joint)?;
            (end == end_ms).then(|| (Arc::clone(joint), *published, *end_ms))
        })
    }

    /// Remembers a key that another process knew; [`Keys::settle`] puts it in its place.
    pub(crate) fn restore(&mut self, joint: &str, published: Published, end_ms: u64) {
        self.unsorted |= self.ends.back().is_some_and(|(last_ms, _)| *last_ms > end_ms);
        self.put(joint.into(), published, end_ms);
    }

    /// A key that comes a second time has ended in between, and begins anew.
    fn put(&mut self, joint: Arc<str>, published: Published, end_ms: u64) {
        let before = self.results.insert(Arc::clone(&joint), (published, end_ms));
        if before.is_none_or(|(_, before_ms)| before_ms != end_ms) {
            self.ends.push_back((end_ms, joint));
            self.added += 1;
        }
    }

    /// All restored keys are there.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.ends.make_contiguous().sort_by_key(|(end_ms, _)| *end_ms);
        }
        while self.ends.len() > self.max {
            self.drop_oldest();
        }
    }

    /// The channel of a key as [`Keys::newest`] gives it.
    pub(crate) fn channel_of(joint: &str) -> Option<&str> {
        let (len, rest) = joint.split_once(':')?;
        rest.get(..len.parse().ok()?)
    }

    fn drop_oldest(&mut self) {
        if let Some((end_ms, joint)) = self.ends.pop_front()
            && self.results.get(&joint).is_some_and(|(_, end)| *end == end_ms)
        {
            self.results.remove(&joint);
        }
    }
}

/// Channel and key as one; the length keeps "a" + "bc" from being "ab" + "c".
fn joint(channel: &str, key: &str) -> String {
    format!("{}:{channel}{key}", channel.len())
}
