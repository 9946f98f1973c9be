//! Publishes, waits until everyone has everything, and counts.

use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, millis, seconds};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::sample::median;
use crate::stage::Stage;

/// How long the server may tidy up after the last delivery before its time is read.
const AFTERMATH: Nanos = 20_000_000;

/// What a round publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volley {
    pub(crate) messages: u32,
    /// Publications that not everyone has yet; 1: the next is sent when all have this one.
    pub(crate) in_flight: u32,
    /// Bytes of data in each.
    pub(crate) size: usize,
    /// When nothing has come for so long, what is missing is lost.
    pub(crate) patience: Nanos,
}

/// One round of fan-out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// How many clients were in.
    pub receivers: u32,
    pub messages: u32,
    pub deliveries: u64,
    /// Copies that had not come when nothing had come for as long as a client may take.
    pub lost: u64,
    /// Copies that came twice.
    pub duplicates: u64,
    /// Copies that came after a later publication's.
    pub disordered: u64,
    pub seconds: f64,
    /// Deliveries per second.
    pub per_second: f64,
    /// From sending the publication to reading its copy.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// From sending the publication to its last receiver, median of the publications.
    pub last_receiver_ms: f64,
    /// The server's processor time per delivery, in microseconds (= seconds per million).
    pub server_cpu_us: Option<f64>,
    /// The share of a core that the load used: near 1 it measures itself.
    pub load_core_share: f64,
}

/// Rounds with the same number of publications in flight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fanout {
    pub in_flight: u32,
    pub rounds: Vec<Round>,
    /// The medians of the rounds, each value for itself; counts are sums.
    pub median: Round,
}

impl Fanout {
    pub(crate) fn of(in_flight: u32, rounds: Vec<Round>) -> Self {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value)).unwrap_or(0.0);
        let sum = |value: fn(&Round) -> u64| rounds.iter().map(value).sum();
        let median = Round {
            receivers: rounds.iter().map(|round| round.receivers).min().unwrap_or(0),
            messages: rounds.iter().map(|round| round.messages).sum(),
            deliveries: sum(|round| round.deliveries),
            lost: sum(|round| round.lost),
            duplicates: sum(|round| round.duplicates),
            disordered: sum(|round| round.disordered),
            seconds: of(|round| round.seconds),
            per_second: of(|round| round.per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
            last_receiver_ms: of(|round| round.last_receiver_ms),
            server_cpu_us: median(rounds.iter().filter_map(|round| round.server_cpu_us)),
            load_core_share: of(|round| round.load_core_share),
        };
        Self { in_flight, rounds, median }
    }
}

/// Publishes one volley to everyone who is in.
pub(crate) fn round(stage: &mut Stage, volley: Volley, meter: Meter) -> Result<Round, Failure> {
    let receivers = stage.crowd.counts().ready;
    stage.crowd.ledger().begin_round();
    let before = meter.read()?;
    let began = stage.clock.now();
    let mut sent = 0;
    let mut heard = (0, began);
    loop {
        let tally = stage.crowd.ledger().tally();
        let (complete, deliveries) = (tally.complete, tally.deliveries);
        let now = stage.clock.now();
        if deliveries > heard.0 {
            heard = (deliveries, now);
        }
        let done = sent == volley.messages && complete >= sent && stage.may_publish();
        if done || now > heard.1 + volley.patience {
            break;
        }
        while sent < volley.messages
            && sent.saturating_sub(complete) < volley.in_flight.max(1)
            && stage.may_publish()
        {
            stage.publish(volley.size)?;
            sent += 1;
        }
        stage.turn(now + volley.patience / 50)?;
    }
    let took = stage.clock.now() - began;
    stage.check_publisher()?;
    let quiet_at = stage.clock.now() + AFTERMATH;
    stage.turn_until(quiet_at)?;
    stage.crowd.end_round();
    let usage = meter.since(before)?;
    let tally = stage.crowd.ledger().tally();
    let deliveries = tally.deliveries;
    let last = tally.last_receiver.iter().map(|time| millis(*time));
    Ok(Round {
        receivers,
        messages: sent,
        deliveries,
        lost: tally.lost,
        duplicates: tally.duplicates,
        disordered: tally.disordered,
        seconds: seconds(took),
        per_second: deliveries as f64 / seconds(took).max(1e-9),
        p50_ms: millis(tally.latency.percentile(500)),
        p99_ms: millis(tally.latency.percentile(990)),
        last_receiver_ms: median(last).unwrap_or(0.0),
        server_cpu_us: usage
            .server
            .filter(|_| deliveries > 0)
            .map(|time| time as f64 / 1000.0 / deliveries as f64),
        load_core_share: usage.own_share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_round_does_not_decide() {
        let round = |cpu, lost| Round {
            receivers: 10,
            messages: 2,
            deliveries: 20 - lost,
            lost,
            server_cpu_us: Some(cpu),
            ..Round::default()
        };
        let fanout = Fanout::of(1, vec![round(4.0, 0), round(90.0, 1), round(5.0, 0)]);
        assert_eq!(fanout.median.server_cpu_us, Some(5.0));
        assert_eq!((fanout.median.deliveries, fanout.median.lost), (59, 1));
        assert_eq!((fanout.median.messages, fanout.median.receivers), (6, 10));
    }

    #[test]
    fn without_a_pid_there_is_no_processor_time() {
        assert_eq!(Fanout::of(1, vec![Round::default()]).median.server_cpu_us, None);
    }
}
