//! The last closes and refusals, and how many there were of each kind: what `throng who` and
//! `throng status` look back on.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_hub::request::Now;
use uuid::Uuid;

use crate::clock::Clock;

/// Closes that are remembered.
const CLOSES_MAX: usize = 8_000;
/// Refusals that are remembered; apart, so that a storm of them does not push out the closes.
const REFUSALS_MAX: usize = 2_000;
/// A user's name is remembered up to here.
const USER_BYTES_MAX: usize = 64;
/// Minutes that "lately" reaches back, the one under way counted.
const MINUTES: usize = 10;

/// A client that went, or was sent away.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub user: Arc<str>,
    pub client: Uuid,
    /// The connection's, unique for life: whoever has a larger one came later.
    pub number: u64,
    /// Seconds of the clock.
    pub at_s: u32,
    pub since_s: u32,
    pub address: Option<IpAddr>,
    pub code: u16,
    pub reason: Cow<'static, str>,
    /// What is to be known beside the reason.
    pub note: Option<Box<str>>,
}

// Ten thousand of them are about a megabyte; a note, which few have, adds some hundred bytes.
const _: () = assert!(size_of::<Close>() <= 112);

/// A visitor that did not become a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub at_s: u32,
    pub address: Option<IpAddr>,
    /// The HTTP status.
    pub status: u16,
    pub reason: &'static str,
}

/// How often, in all and lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Often {
    pub total: u64,
    pub lately: u64,
}

/// The last closes and refusals of a node. The lock is held for one push, or for one copy of
/// what is looked for.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    closes: VecDeque<Close>,
    refusals: VecDeque<Refused>,
    closed: BTreeMap<u16, Tally>,
    refused: BTreeMap<&'static str, Tally>,
}

impl Ring {
    /// A connection was closed.
    pub(crate) fn closed(&self, mut close: Close) {
        if close.user.len() > USER_BYTES_MAX {
            let mut end = USER_BYTES_MAX;
            while !close.user.is_char_boundary(end) {
                end -= 1;
            }
            close.user = close.user[..end].into();
        }
        let mut kept = self.0.lock();
        kept.closed.entry(close.code).or_default().count(close.at_s);
        push(&mut kept.closes, close, CLOSES_MAX);
    }

    /// A visitor was refused.
    pub(crate) fn refused(&self, refused: Refused) {
        let mut kept = self.0.lock();
        kept.refused.entry(refused.reason).or_default().count(refused.at_s);
        push(&mut kept.refusals, refused, REFUSALS_MAX);
    }

    /// How many were closed with each code.
    pub(crate) fn closed_by_code(&self, now: Now) -> Vec<(u16, Often)> {
        let second = Clock::second_of(now);
        self.0.lock().closed.iter().map(|(code, tally)| (*code, tally.often(second))).collect()
    }

    /// How many were refused for each reason.
    pub(crate) fn refused_by_reason(&self, now: Now) -> Vec<(&'static str, Often)> {
        let second = Clock::second_of(now);
        self.0.lock().refused.iter().map(|(why, tally)| (*why, tally.often(second))).collect()
    }

    /// The last closes that are meant, the newest first.
    pub(crate) fn closes(&self, limit: usize, is_meant: impl Fn(&Close) -> bool) -> Vec<Close> {
        let kept = self.0.lock();
        kept.closes.iter().rev().filter(|close| is_meant(close)).take(limit).cloned().collect()
    }

    /// The last refusals that are meant, the newest first.
    pub(crate) fn refusals(
        &self,
        limit: usize,
        is_meant: impl Fn(&Refused) -> bool,
    ) -> Vec<Refused> {
        let kept = self.0.lock();
        kept.refusals.iter().rev().filter(|one| is_meant(one)).take(limit).copied().collect()
    }
}

fn push<T>(ring: &mut VecDeque<T>, one: T, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(one);
}

/// Counts, and forgets minute by minute.
#[derive(Debug, Default)]
struct Tally {
    total: u64,
    /// By minute modulo their number: which minute, and how many.
    minutes: [(u32, u32); MINUTES],
}

impl Tally {
    fn count(&mut self, second: u32) {
        self.total += 1;
        let minute = second / 60;
        let slot = &mut self.minutes[minute as usize % MINUTES];
        if slot.0 != minute {
            *slot = (minute, 0);
        }
        slot.1 = slot.1.saturating_add(1);
    }

    fn often(&self, second: u32) -> Often {
        let minute = second / 60;
        let lately = self
            .minutes
            .iter()
            .filter(|(of, _)| (*of as usize) + MINUTES > minute as usize)
            .map(|(_, count)| u64::from(*count))
            .sum();
        Often { total: self.total, lately }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(number: u64, code: u16, at_s: u32) -> Close {
        let (user, client) = (Arc::from("ann"), Uuid::nil());
        let reason = Cow::Borrowed("because");
        Close { user, client, number, at_s, since_s: 0, address: None, code, reason, note: None }
    }

    fn at(second: u64) -> Now {
        Now { mono_ms: second * 1000, unix_ms: 0 }
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_are_forgotten_but_counted() {
        let ring = Ring::default();
        for number in 0..CLOSES_MAX as u64 + 5 {
            ring.closed(close(number, 3000, 1));
        }
        let closes = ring.closes(usize::MAX, |_| true);
        assert_eq!((closes.len(), closes[0].number), (CLOSES_MAX, CLOSES_MAX as u64 + 4));
        assert_eq!(closes[CLOSES_MAX - 1].number, 5);
        assert_eq!(ring.closes(3, |close| close.number % 2 == 0)[2].number, CLOSES_MAX as u64);
        let total = CLOSES_MAX as u64 + 5;
        assert_eq!(ring.closed_by_code(at(1)), [(3000, Often { total, lately: total })]);
    }

    #[test]
    fn lately_is_ten_minutes() {
        let ring = Ring::default();
        ring.closed(close(1, 3008, 30));
        ring.closed(close(2, 3008, 599));
        let lately = |second| ring.closed_by_code(at(second))[0].1.lately;
        assert_eq!([lately(599), lately(600), lately(1139), lately(1200)], [2, 1, 1, 0]);
        ring.closed(close(3, 3008, 630));
        assert_eq!(ring.closed_by_code(at(630)), [(3008, Often { total: 3, lately: 2 })]);
    }

    #[test]
    fn a_storm_of_refusals_does_not_push_out_the_closes() {
        let ring = Ring::default();
        ring.closed(close(1, 3012, 1));
        for _ in 0..20_000 {
            ring.refused(Refused { at_s: 2, address: None, status: 503, reason: "full" });
        }
        assert_eq!(ring.closes(9, |_| true).len(), 1);
        assert_eq!(ring.refusals(usize::MAX, |_| true).len(), REFUSALS_MAX);
        let often = Often { total: 20_000, lately: 20_000 };
        assert_eq!(ring.refused_by_reason(at(2)), [("full", often)]);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let ring = Ring::default();
        ring.closed(Close { user: "ä".repeat(63).as_str().into(), ..close(1, 3000, 1) });
        assert_eq!(&*ring.closes(1, |_| true)[0].user, "ä".repeat(32));
        ring.closed(Close { user: format!("a{}", "ä".repeat(63)).into(), ..close(1, 3000, 1) });
        assert_eq!(ring.closes(1, |_| true)[0].user.len(), 63);
    }
}
