//! Growth over several looks: when it is full, if it goes on like this, and what grows.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::span;
use crate::growth::{Growth, Trend};

/// Fuller than in this time is soon.
const SOON_MS: u64 = 3_600_000;
/// What grows is named, so many at most.
const NAMED: usize = 3;

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(trend) = &facts.trend else { return Outcome::default() };
    Outcome {
        rungs: Vec::new(),
        findings: grows(facts, trend).into_iter().chain(leaks(facts, trend)).collect(),
    }
}

fn grows(facts: &Facts, trend: &Trend) -> Option<Finding> {
    let full_in_ms = trend.full_in_ms.filter(|ms| trend.grows && *ms > 0)?;
    let severity = if full_in_ms <= SOON_MS { Severity::Tight } else { Severity::Note };
    let what = format!(
        "grows by {:.0} descriptors a minute and is full in {}",
        trend.per_minute,
        span(full_in_ms / 1000)
    );
    let finding = Finding::new("growth", severity, what)
        .seen("the slope of the last looks", format!("/proc/{}/fd", facts.who.pid));
    let named = named(trend.growing.iter());
    Some(if named.is_empty() { finding } else { finding.because(format!("what grows: {named}")) })
}

/// What grows and serves nobody is a leak, however slowly.
fn leaks(facts: &Facts, trend: &Trend) -> Option<Finding> {
    let leaks = named(trend.leaks());
    (!leaks.is_empty()).then(|| {
        Finding::new(
            "growth",
            Severity::Tight,
            format!("leaks: {leaks}, which nobody needs and nobody closes"),
        )
        .because("only the program can close them; a higher limit buys time")
        .for_good("close what has ended; a restart frees what has leaked")
        .verify(format!("throng doctor {} --watch", facts.who.pid))
        .seen("the slope of the last looks", format!("/proc/{}/fd", facts.who.pid))
    })
}

/// `CLOSE_WAIT +120/min, sockets +118/min`.
fn named<'a>(growing: impl Iterator<Item = &'a Growth>) -> String {
    let named: Vec<String> = growing
        .take(NAMED)
        .map(|growth| format!("{} +{:.0}/min", growth.what.words(), growth.per_minute))
        .collect();
    named.join(", ")
}
