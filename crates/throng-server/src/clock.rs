//! The one place where the server reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use throng_hub::request::Now;

/// A clock that all threads of a process share; its zero is when the
/// server was started.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
    /// What it showed then: a restarted server counts on from where the last process was, so that
    /// nothing that it takes over happened before zero.
    base_ms: u64,
    /// What it shows instead, in tests.
    #[cfg(test)]
    hand: Option<&'static std::sync::atomic::AtomicU64>,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self::resume(0)
    }

    /// A clock that shows this now.
    pub fn resume(base_ms: u64) -> Self {
        Self {
            zero: Instant::now(),
            base_ms,
            #[cfg(test)]
            hand: None,
        }
    }

    /// A clock that shows these milliseconds, turned by hand.
    #[cfg(test)]
    pub(crate) fn by_hand(hand: &'static std::sync::atomic::AtomicU64) -> Self {
        Self { hand: Some(hand), ..Self::resume(0) }
    }

    #[cfg(test)]
    pub(crate) fn is_by_hand(&self) -> bool {
        self.hand.is_some()
    }

    /// The time at `instant`.
    pub fn at(&self, instant: Instant) -> Now {
        #[cfg(test)]
        if let Some(hand) = self.hand {
            let mono_ms = hand.load(std::sync::atomic::Ordering::Relaxed);
            // 2026-01-01 and so many milliseconds.
            let unix_ms = 1_767_225_600_000 + i64::try_from(mono_ms).unwrap_or(0);
            return Now { mono_ms, unix_ms };
        }
        let mono = instant.saturating_duration_since(self.zero).as_millis();
        let unix =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Now {
            mono_ms: u64::try_from(mono).unwrap_or(u64::MAX).saturating_add(self.base_ms),
            unix_ms: i64::try_from(unix).unwrap_or(i64::MAX),
        }
    }

    /// Microseconds since this process's clock began; to be compared with one another only.
    pub(crate) fn us(&self) -> u64 {
        #[cfg(test)]
        if let Some(hand) = self.hand {
            return hand.load(std::sync::atomic::Ordering::Relaxed) * 1000;
        }
        let since = self.zero.elapsed();
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }

    /// The time now.
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// Whole seconds since the clock started.
    pub fn second_of(now: Now) -> u32 {
        // 136 years of uptime.
        u32::try_from(now.mono_ms / 1000).unwrap_or(u32::MAX - 1)
    }
}
