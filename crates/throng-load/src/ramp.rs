//! Brings the crowd in and measures how long that takes.

use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, millis, seconds};
use crate::crowd::rate;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::progress::Progress;
use crate::stage::Stage;

/// A server that turns so many away in a row is full: more tries would only wait.
const FAILED_IN_A_ROW_MAX: u32 = 200;
/// How often progress is told.
const TELLING: Nanos = 500_000_000;

/// How fast clients begin to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How many may be under way at once.
    pub(crate) concurrent: u32,
    /// How many begin per second; 0 for no limit.
    pub(crate) rate: u32,
}

/// How the crowd came in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// How many tried.
    pub tried: u32,
    /// How many are in.
    pub ready: u32,
    /// How many could not come in.
    pub failed: u32,
    pub seconds: f64,
    /// Clients that came in per second.
    pub per_second: f64,
    /// From the first packet to being subscribed.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
    /// The server's processor time per 10,000 clients, in seconds.
    pub server_cpu_s_per_10k: Option<f64>,
    /// The share of a core that the load used: near 1 it measures itself.
    pub load_core_share: f64,
}

/// Connects until `to` clients have tried.
pub(crate) fn ramp(
    stage: &mut Stage,
    to: u32,
    pace: Pace,
    meter: Meter,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ramp, Failure> {
    let from = stage.crowd.begun();
    let ready_before = stage.crowd.counts().ready;
    stage.crowd.begin_ramp();
    let before = meter.read()?;
    let began = stage.clock.now();
    let mut tell_at = began + TELLING;
    loop {
        let counts = stage.crowd.counts();
        let begun = stage.crowd.begun();
        let full = counts.failed_in_a_row >= FAILED_IN_A_ROW_MAX;
        if counts.coming == 0 && (begun >= to || full) {
            break;
        }
        let now = stage.clock.now();
        if now >= tell_at {
            progress(Progress::Ramp { ready: counts.ready, failed: counts.failed, of: to });
            tell_at = now + TELLING;
        }
        let (allowed, next_at) = allowed(pace.rate, began, now);
        let room = pace.concurrent.saturating_sub(counts.coming);
        let more = (to - begun).min(room).min(allowed.saturating_sub(begun - from));
        let more = if full { 0 } else { more };
        for _ in 0..more {
            stage.crowd.begin_next();
        }
        stage.turn(next_at)?;
    }
    let usage = meter.since(before)?;
    let ready = stage.crowd.counts().ready.saturating_sub(ready_before);
    let joined = stage.crowd.joined();
    let tried = stage.crowd.begun() - from;
    Ok(Ramp {
        tried,
        ready,
        failed: tried - ready.min(tried),
        seconds: seconds(usage.took),
        per_second: rate(ready, usage.took),
        p50_ms: millis(joined.percentile(500)),
        p99_ms: millis(joined.percentile(990)),
        longest_ms: millis(joined.longest()),
        server_cpu_s_per_10k: usage
            .server
            .filter(|_| ready > 0)
            .map(|time| seconds(time) * 10_000.0 / f64::from(ready)),
        load_core_share: usage.own_share,
    })
}

/// How many may have begun by now, and when to look again.
fn allowed(rate: u32, began: Nanos, now: Nanos) -> (u32, Nanos) {
    const LOOK_AGAIN: Nanos = 100_000_000;
    if rate == 0 {
        return (u32::MAX, now + LOOK_AGAIN);
    }
    let each = 1_000_000_000 / u64::from(rate).max(1);
    let due = (now - began) / each.max(1) + 1;
    (u32::try_from(due).unwrap_or(u32::MAX), (began + due * each).min(now + LOOK_AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_one_begin_at_a_time() {
        assert_eq!(allowed(10, 0, 0), (1, 100_000_000));
        assert_eq!(allowed(10, 0, 250_000_000), (3, 300_000_000));
        assert_eq!(allowed(1000, 5, 5), (1, 1_000_005));
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!(allowed(0, 0, 7).0, u32::MAX);
    }
}
