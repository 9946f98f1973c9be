//! Holds the crowd, answers pings, and measures what that costs the server.

use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, seconds};
use crate::failure::Failure;
use crate::meter::{Meter, Reading, Usage};
use crate::progress::Progress;
use crate::stage::Stage;

/// How often progress is told.
const TELLING: Nanos = 5_000_000_000;

/// What an idle crowd costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// What was measured: as many whole ping intervals as fit into the time that was asked for.
    pub seconds: f64,
    /// Whole ping intervals in it; 0 when not one fits, or the server announced none.
    pub intervals: u64,
    /// Pings that came, of all clients.
    pub pings: u64,
    /// How many clients were in at the end.
    pub clients: u32,
    /// The server's processor time, in percent of one core.
    pub server_core_percent: Option<f64>,
    pub load_core_share: f64,
}

/// How long to measure of a time, and how many intervals that is.
pub(crate) fn window(hold: Nanos, interval: Option<Nanos>) -> (Nanos, u64) {
    let intervals = interval.map_or(0, |interval| hold / interval.max(1));
    // A part of an interval would count pings that are unevenly spread.
    let window = interval.filter(|_| intervals > 0).map_or(hold, |interval| interval * intervals);
    (window, intervals)
}

/// Holds for a time. With a `rival` its use is read at the same moments: the same noise for both.
pub(crate) fn hold(
    stage: &mut Stage,
    hold: Nanos,
    (meter, rival): (Meter, Option<Meter>),
    progress: &mut dyn FnMut(Progress),
) -> Result<(Idle, Option<f64>), Failure> {
    let began = stage.clock.now();
    let (window, intervals) = window(hold, stage.crowd.counts().interval());
    let before = meter.read()?;
    let rival_before = rival.map(Meter::read).transpose()?;
    let pings_before = stage.crowd.counts().pings;
    let until = began + window;
    while stage.clock.now() < until {
        let now = stage.clock.now();
        progress(Progress::Hold { seconds_left: (began + hold - now) / 1_000_000_000 });
        stage.turn_until((now + TELLING).min(until))?;
    }
    let usage = meter.since(before)?;
    let counts = stage.crowd.counts();
    let rival_percent = match rival.zip(rival_before) {
        Some((rival, before)) => percent(rival_usage(rival, before)?),
        None => None,
    };
    stage.turn_until(began + hold)?;
    let idle = Idle {
        seconds: seconds(usage.took),
        intervals,
        pings: counts.pings - pings_before,
        clients: counts.ready,
        server_core_percent: percent(usage),
        load_core_share: usage.own_share,
    };
    Ok((idle, rival_percent))
}

fn rival_usage(rival: Meter, before: Reading) -> Result<Usage, Failure> {
    rival.since(before)
}

fn percent(usage: Usage) -> Option<f64> {
    usage.server.map(|time| time as f64 * 100.0 / usage.took as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_intervals_are_measured() {
        assert_eq!(window(60, Some(25)), (50, 2));
        assert_eq!(window(75, Some(25)), (75, 3));
        assert_eq!(window(10, Some(25)), (10, 0));
        assert_eq!(window(10, None), (10, 0));
    }
}
