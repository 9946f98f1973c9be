//! Counts nanoseconds since a run began.

use std::time::{Duration, Instant};

/// A moment, in nanoseconds since the run began.
pub(crate) type Nanos = u64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(self) -> Nanos {
        nanos(self.began.elapsed())
    }
}

/// A length of time as nanoseconds; 584 years are as good as for ever.
pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn millis(time: Nanos) -> f64 {
    time as f64 / 1e6
}

pub(crate) fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}
