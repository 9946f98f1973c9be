//! Events that are counted by a code: seldom enough for a lock, and too many codes for an array.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Codes that are told apart in one place. An application chooses its own codes: past this they are
/// counted together.
const KINDS_MAX: usize = 512;
/// Stands for all codes past that.
pub(crate) const OTHER: u32 = u32::MAX;

/// What happened. The numbers of those that stand here are part of what is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Of {
    /// An error in a reply, by method and code.
    ReplyError = 1,
    /// A subscription that the server ended, by code.
    Unsubscribe = 2,
    /// A connection that the server ended, by code.
    Disconnect = 3,
    /// A close frame that was sent, by transport and code.
    Close = 4,
    /// A call of the server API that failed, by method and code.
    ApiError = 5,
    /// A request over HTTP: by the path's number, and the method's number times 1,000 and the status.
    Request = 6,
}

impl Of {
    const ALL: [Self; 6] = [
        Self::ReplyError,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Close,
        Self::ApiError,
        Self::Request,
    ];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|of| *of as u8 == number)
    }
}

/// By which numbers an event is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) of: Of,
    pub(crate) label: u8,
    pub(crate) code: u32,
}

/// Counts by key. The lock is held for one step, or while they are copied.
#[derive(Debug, Default)]
pub(crate) struct Rare(Mutex<BTreeMap<Key, u64>>);

impl Rare {
    pub(crate) fn count(&self, of: Of, label: u8, code: u32) {
        self.add(Key { of, label, code }, 1);
    }

    pub(super) fn add(&self, mut key: Key, more: u64) {
        let mut counts = self.0.lock();
        if counts.len() >= KINDS_MAX && !counts.contains_key(&key) {
            key.code = OTHER;
        }
        *counts.entry(key).or_default() += more;
    }

    /// Adds them to others'.
    pub(super) fn add_to(&self, sum: &mut BTreeMap<Key, u64>) {
        for (key, count) in &*self.0.lock() {
            *sum.entry(*key).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_without_end_are_counted_together() {
        let rare = Rare::default();
        for code in 0..100_000 {
            rare.count(Of::ReplyError, 1, code);
            rare.count(Of::Disconnect, 0, code);
        }
        let mut sum = BTreeMap::new();
        rare.add_to(&mut sum);
        assert!(sum.len() <= KINDS_MAX + 2, "{}", sum.len());
        assert_eq!(sum.values().sum::<u64>(), 200_000);
        assert_eq!(sum[&Key { of: Of::ReplyError, label: 1, code: 7 }], 1);
        assert!(sum[&Key { of: Of::Disconnect, label: 0, code: OTHER }] > 99_000);
    }
}
