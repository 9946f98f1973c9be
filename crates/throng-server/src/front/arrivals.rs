//! `client.connection_rate_limit`: how many clients the node lets in per second.

use std::time::Instant;

use parking_lot::Mutex;

/// A token bucket over all arrivals of the node. It holds a second's worth, so that a rate of N is
/// N in any second and not one every Nth.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Arrivals {
    /// Whether one more may arrive now, at `per_second` at most; 0 is no limit. It is counted.
    pub(super) fn admit(&self, per_second: usize, now: Instant) -> bool {
        self.look(per_second, now, |bucket| {
            bucket.tokens -= 1.0;
        })
    }

    /// Whether the next one would be one too many. Nothing is counted.
    pub(super) fn is_spent(&self, per_second: usize, now: Instant) -> bool {
        !self.look(per_second, now, |_| {})
    }

    fn look(&self, per_second: usize, now: Instant, take: impl FnOnce(&mut Bucket)) -> bool {
        if per_second == 0 {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate of 2^52 a second is not needed")]
        let rate = per_second as f64;
        let mut bucket = self.0.lock();
        let bucket = bucket.get_or_insert(Bucket { tokens: rate, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(rate);
        bucket.at = bucket.at.max(now);
        if bucket.tokens < 1.0 {
            return false;
        }
        take(bucket);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn arrivals_refill_at_the_rate_and_not_at_one_a_second() {
        let arrivals = Arrivals::default();
        let start = Instant::now();
        let count = |at: Instant| (0..1000).filter(|_| arrivals.admit(100, at)).count();
        assert_eq!(count(start), 100);
        assert_eq!(count(start + Duration::from_millis(500)), 50);
        assert_eq!(count(start + Duration::from_secs(60)), 100);
    }

    #[test]
    fn looking_whether_one_may_come_counts_nobody() {
        let arrivals = Arrivals::default();
        let now = Instant::now();
        assert!(!arrivals.is_spent(2, now) && !arrivals.is_spent(2, now));
        assert!(arrivals.admit(2, now) && arrivals.admit(2, now));
        assert!(arrivals.is_spent(2, now));
        assert!(!arrivals.is_spent(2, now + Duration::from_millis(500)));
        assert!(!arrivals.is_spent(0, now), "0 is no limit");
    }
}
