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
    results: HashMap<Arc<str>, Published, FixedState>,
    /// In the order of their end, since all live equally long.
    ends: VecDeque<(u64, Arc<str>)>,
}

impl Keys {
    pub(crate) fn new(max: usize, hasher: FixedState) -> Self {
        Self { max, results: HashMap::with_hasher(hasher), ends: VecDeque::new() }
    }

    pub(crate) fn find(&mut self, channel: &str, key: &str, now: Now) -> Option<Published> {
        self.expire(now);
        self.results.get(&*joint(channel, key)).copied()
    }

    pub(crate) fn remember(&mut self, channel: &str, key: &str, published: Published, now: Now) {
        let joint: Arc<str> = joint(channel, key).into();
        if self.results.insert(Arc::clone(&joint), published).is_none() {
            self.ends.push_back((now.mono_ms.saturating_add(KEY_TTL_MS), joint));
        }
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

    fn drop_oldest(&mut self) {
        if let Some((_, joint)) = self.ends.pop_front() {
            self.results.remove(&joint);
        }
    }
}

/// Channel and key as one; the length keeps "a" + "bc" from being "ab" + "c".
fn joint(channel: &str, key: &str) -> String {
    format!("{}:{channel}{key}", channel.len())
}
