//! One more client that asks for something all the time, in quiet and during a burst.
//!
//! It has a thread of its own, so that what is measured is the server's queue and not the load's,
//! which is long while a burst comes in.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::{Client, ClientError, Manner};
use crate::clock::{Clock, Nanos, millis, seconds};
use crate::failure::Failure;
use crate::fanout::{Volley, round};
use crate::histogram::Histogram;
use crate::meter::Meter;
use crate::options::Options;
use crate::stage::Stage;

/// How often it asks.
const EVERY: Duration = Duration::from_millis(5);
/// How long an answer may take until the neighbour gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server is left alone before each burst, for comparison.
const QUIET: Nanos = 1_000_000_000;
/// At one request in five milliseconds, an hour.
const SAMPLES_MAX: usize = 720_000;

/// What the neighbour of a burst feels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Publications per burst, all sent at once.
    pub burst_messages: u32,
    /// How long all bursts took together.
    pub burst_seconds: f64,
    /// Answers while nothing else went on.
    pub quiet: Answers,
    /// Answers to what was asked during a burst.
    pub burst: Answers,
    /// How late the neighbour's own thread was woken, 99 %: the machine's part in the above.
    pub own_lateness_p99_ms: f64,
}

/// Times from a request to its answer. A request that was due while the one before it was not
/// answered yet counts too, from when it was due until that answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
}

struct Asking {
    stop: SyncSender<()>,
    thread: JoinHandle<Result<Vec<Sample>, ClientError>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    asked_at: Nanos,
    answered_at: Nanos,
    /// How late the thread was woken to ask.
    late: Nanos,
}

/// Sends bursts to the crowd while the neighbour asks.
pub(crate) fn measure(
    stage: &mut Stage,
    options: &Options,
    meter: Meter,
) -> Result<Neighbour, Failure> {
    let asking = begin(options, stage.clock)?;
    let mut bursts = Vec::new();
    let messages = options.messages;
    let (size, patience) = (options.size as usize, crate::clock::nanos(options.timeout));
    let volley = Volley { messages, in_flight: messages, size, patience };
    let mut outcome = Ok(());
    for _ in 0..options.rounds {
        let quiet_until = stage.clock.now() + QUIET;
        outcome = stage.turn_until(quiet_until);
        let began = stage.clock.now();
        let round = outcome.and_then(|()| round(stage, volley, meter));
        outcome = round.map(|round| {
            // The round's own end, without what was waited after it.
            let took = Duration::from_secs_f64(round.seconds);
            bursts.push((began, began + crate::clock::nanos(took)));
        });
        if outcome.is_err() {
            break;
        }
    }
    asking.stop.send(()).ok(); // it may have ended by itself, which join() tells
    let samples = asking.thread.join().expect("the neighbour's thread does not panic");
    outcome?;
    let samples = samples.map_err(|error| {
        Failure::new("the neighbour was not answered", error, "see the server's log")
    })?;
    Ok(conclude(&samples, &bursts, messages))
}

fn begin(options: &Options, clock: Clock) -> Result<Asking, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new("the neighbour could not connect", error, "run throng probe with this URL")
    };
    let mut client =
        Client::connect(&options.url, &Manner::default()).map_err(|error| failed(&error))?;
    let token = options.token.as_deref().unwrap_or_default();
    client.greet(token, PATIENCE).map_err(|error| failed(&error))?;
    let (stop, stopped) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("neighbour".to_owned())
        .spawn(move || ask(client, &stopped, clock))
        .map_err(|error| failed(&error))?;
    Ok(Asking { stop, thread })
}

/// Asks until it is told to stop.
fn ask(
    mut client: Client,
    stopped: &Receiver<()>,
    clock: Clock,
) -> Result<Vec<Sample>, ClientError> {
    let every = crate::clock::nanos(EVERY);
    let mut samples = Vec::new();
    let mut due = clock.now() + every;
    while samples.len() < SAMPLES_MAX {
        let wait = Duration::from_nanos(due.saturating_sub(clock.now()));
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        // Woken late is the machine's doing, so what is measured begins now.
        let asked_at = clock.now();
        let late = asked_at.saturating_sub(due);
        // Unsubscribing from what one is not subscribed to is always answered, with nothing.
        client.command("unsubscribe", r#"{"channel":"x"}"#, PATIENCE)?;
        let answered_at = clock.now();
        samples.push(Sample { asked_at, answered_at, late });
        due = asked_at + every;
        // What would have been asked in the meantime would have waited as well, until now: without
        // these a long wait would count once, and the short ones around it a hundred times.
        while due < answered_at && samples.len() < SAMPLES_MAX {
            samples.push(Sample { asked_at: due, answered_at, late: 0 });
            due += every;
        }
    }
    client.close();
    Ok(samples)
}

fn conclude(samples: &[Sample], bursts: &[(Nanos, Nanos)], burst_messages: u32) -> Neighbour {
    let (mut quiet, mut burst, mut late) = (Histogram::new(), Histogram::new(), Histogram::new());
    for sample in samples {
        let in_burst = bursts
            .iter()
            .any(|(began, ended)| sample.answered_at >= *began && sample.asked_at <= *ended);
        let answers = if in_burst { &mut burst } else { &mut quiet };
        answers.add(sample.answered_at.saturating_sub(sample.asked_at));
        late.add(sample.late);
    }
    Neighbour {
        burst_messages,
        burst_seconds: seconds(bursts.iter().map(|(began, ended)| ended - began).sum()),
        quiet: answers(&quiet),
        burst: answers(&burst),
        own_lateness_p99_ms: millis(late.percentile(990)),
    }
}

fn answers(histogram: &Histogram) -> Answers {
    Answers {
        count: histogram.count(),
        p50_ms: millis(histogram.percentile(500)),
        p99_ms: millis(histogram.percentile(990)),
        longest_ms: millis(histogram.longest()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_during_a_burst_is_told_apart() {
        let sample = |asked_at, answered_at| Sample { asked_at, answered_at, late: 1 };
        let samples = [sample(0, 10), sample(95, 130), sample(150, 160), sample(300, 310)];
        let neighbour = conclude(&samples, &[(100, 200)], 7);
        assert_eq!((neighbour.quiet.count, neighbour.burst.count), (2, 2));
        assert_eq!(neighbour.burst.longest_ms, 35e-6);
        assert_eq!(neighbour.burst_messages, 7);
    }
}
