//! How the calls of one backend go: how many, how long, and what went wrong last.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Answer, Kind};
use crate::config::Backend;
use crate::metrics::{Cell, REQUESTS, Spread};

/// Calls whose times are remembered: enough for a hundredth to be more than a handful.
const TIMES_MAX: usize = 512;
/// Failures without a success between before a backend is said to fail: one may be an accident.
const FAILING_MIN: u64 = 3;
/// A failure that is longer ago says nothing about now.
const RECENT: Duration = Duration::from_secs(300);

/// Counts the calls of one backend.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: u64,
    failed: u64,
    refused: u64,
    /// Failures since the last success.
    in_a_row: u64,
    /// Of the last calls, in microseconds.
    times: VecDeque<u32>,
    last_failure: Option<(Instant, String)>,
}

/// What is counted of the calls of one kind, for metrics.
#[derive(Debug)]
pub(crate) struct Calls {
    /// In microseconds.
    pub(crate) times: Spread,
    pub(crate) failed: Cell,
    pub(crate) under_way: Cell,
}

impl Default for Calls {
    fn default() -> Self {
        Self { times: Spread::new(REQUESTS), failed: Cell::default(), under_way: Cell::default() }
    }
}

impl Calls {
    /// One more is under way, until this is dropped.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.add_shared(1);
        UnderWay(self)
    }

    pub(super) fn note(&self, took: Duration, has_failed: bool) {
        self.times.observe_shared(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if has_failed {
            self.failed.add_shared(1);
        }
    }

    /// Every number that only grows, in an order that stays.
    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        [&self.failed].into_iter().chain(self.times.cells())
    }
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Calls);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.subtract_shared(1);
    }
}

/// Those of each kind, by its number.
pub(crate) type ByKind = [Calls; Kind::ALL.len()];

/// How the calls of one backend went so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metered {
    /// The option behind it, such as `client.proxy.connect`.
    pub(crate) option: String,
    pub(crate) endpoint: String,
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// Answered with an error or a disconnect.
    pub(crate) refused: u64,
    /// Milliseconds that half of the last calls took, and all but a hundredth of them.
    pub(crate) times: Option<(f64, f64)>,
    pub(crate) under_way: usize,
    pub(crate) waiting: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) trouble: Option<Trouble>,
    /// Every recent call failed.
    pub(crate) failing: bool,
}

/// The last failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) ago: Duration,
    pub(crate) why: String,
    /// How many failed one after the other, this one the last.
    pub(crate) in_a_row: u64,
}

impl Meter {
    pub(super) fn note(&self, took: Duration, understood: &Result<Answer, String>) {
        let mut counts = self.0.lock();
        counts.calls += 1;
        if counts.times.len() == TIMES_MAX {
            counts.times.pop_front();
        }
        counts.times.push_back(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        match understood {
            Ok(Answer::Said(_) | Answer::Nothing) => counts.in_a_row = 0,
            Ok(_) => {
                counts.in_a_row = 0;
                counts.refused += 1;
            }
            Err(why) => {
                counts.failed += 1;
                counts.in_a_row += 1;
                counts.last_failure = Some((Instant::now(), why.clone()));
            }
        }
    }

    pub(super) fn read(&self, backend: &Backend, (under_way, waiting): (usize, usize)) -> Metered {
        let counts = self.0.lock();
        let mut times: Vec<u32> = counts.times.iter().copied().collect();
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).max(1) - 1;
            times.get(place).map(|us| f64::from(*us) / 1000.0)
        };
        let in_a_row = counts.in_a_row;
        let trouble = counts.last_failure.as_ref().map(|(at, why)| Trouble {
            ago: at.elapsed(),
            why: why.clone(),
            in_a_row,
        });
        Metered {
            option: backend.option.clone(),
            endpoint: backend.endpoint.to_string(),
            calls: counts.calls,
            failed: counts.failed,
            refused: counts.refused,
            times: at(50).zip(at(99)),
            under_way,
            waiting,
            max_in_flight: backend.max_in_flight,
            failing: in_a_row >= FAILING_MIN
                && trouble.as_ref().is_some_and(|trouble| trouble.ago < RECENT),
            trouble,
        }
    }
}

impl Metered {
    /// That it fails, for who asks whether all is well; none while it does not.
    pub(crate) fn reason(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().filter(|_| self.failing)?;
        let (count, why) = (crate::log::thousands(trouble.in_a_row), &trouble.why);
        let Self { endpoint, option, .. } = self;
        Some(format!(
            "the connect backend {endpoint} fails, so clients without a token cannot connect: its \
             last {count} calls did, the last because it {why}; see throng backend try connect and \
             {option}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Said;
    use crate::config::{Sources, load};

    fn backend() -> Backend {
        let flags = [
            ("client.proxy.connect.enabled", "true"),
            ("client.proxy.connect.endpoint", "http://app/x"),
        ];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let loaded = load(Sources { flags, dev: true, ..Sources::default() });
        loaded.settings.unwrap().backends.list.swap_remove(0)
    }

    #[test]
    fn times_are_of_the_last_calls_and_failures_in_a_row_are_told() {
        let backend = backend();
        let meter = Meter::default();
        assert_eq!(meter.read(&backend, (0, 0)).times, None);
        let said = Ok(Answer::Said(Box::<Said>::default()));
        for ms in 1..=100 {
            meter.note(Duration::from_millis(ms), &said);
        }
        let read = meter.read(&backend, (3, 4));
        assert_eq!((read.times, read.under_way, read.waiting), (Some((50.0, 99.0)), 3, 4));
        assert_eq!((read.calls, read.failed, read.reason()), (100, 0, None));
        let failed = Err("answered 502".to_owned());
        for _ in 0..FAILING_MIN {
            assert!(!meter.read(&backend, (0, 0)).failing);
            meter.note(Duration::from_millis(1), &failed);
        }
        let read = meter.read(&backend, (0, 0));
        let reason = read.reason().unwrap();
        assert!(
            reason.contains("its last 3 calls did, the last because it answered 502"),
            "{reason}"
        );
        // Somebody it says no to is an answer like any other.
        let no = Ok(Answer::Error { code: 1000, message: "no".into(), temporary: false });
        meter.note(Duration::from_millis(1), &no);
        let read = meter.read(&backend, (0, 0));
        assert_eq!((read.failing, read.failed, read.refused), (false, 3, 1));
        assert_eq!(read.trouble.unwrap().why, "answered 502");
        for _ in 0..2 * TIMES_MAX {
            meter.note(Duration::from_millis(7), &said);
        }
        assert_eq!(meter.read(&backend, (0, 0)).times, Some((7.0, 7.0)));
    }
}
