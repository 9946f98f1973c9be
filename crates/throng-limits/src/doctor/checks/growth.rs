//! Growth between two looks: when it is full, if it goes on like this, and what grows.

use super::Outcome;
use crate::doctor::facts::{Before, Facts};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::{counted, grouped, span};
use crate::tree::printable;

/// Fuller than in this time is soon.
const SOON_S: u64 = 3600;
/// Growth below this many between two looks is breathing.
const GROWTH_FROM: u64 = 5;

pub(super) fn look(facts: &Facts) -> Outcome {
    let grown = facts.before.as_ref().zip(facts.open.count);
    let Some((before, count)) = grown else { return Outcome::default() };
    let more = count.saturating_sub(before.count);
    if more < GROWTH_FROM || before.seconds == 0 {
        return Outcome::default();
    }
    let left = facts.ceiling().saturating_sub(count);
    let seconds = exhausted_in(left, more, before.seconds);
    let rate = counted(more.saturating_mul(60) / before.seconds, "descriptor");
    let severity = if seconds <= SOON_S { Severity::Tight } else { Severity::Note };
    let what = format!("grows by {rate} a minute and is full in {}", span(seconds));
    let mut finding = Finding::new("growth", severity, what).seen(
        format!("{} more in {}", grouped(more), span(before.seconds)),
        format!("/proc/{}/fd", facts.who.pid),
    );
    let kinds = grown_kinds(facts, before);
    if !kinds.is_empty() {
        finding = finding.because(format!("what grows: {}", kinds.join(", ")));
    }
    Outcome::finding(finding)
}

/// Seconds until nothing is left, if it goes on like this.
fn exhausted_in(left: u64, more: u64, seconds: u64) -> u64 {
    let needed = u128::from(left) * u128::from(seconds) / u128::from(more.max(1));
    u64::try_from(needed).unwrap_or(u64::MAX)
}

/// Kinds that have a tenth of the growth or more, such as `sockets +120`.
fn grown_kinds(facts: &Facts, before: &Before) -> Vec<String> {
    let mut grown: Vec<(u64, &str)> = facts
        .open
        .kinds
        .iter()
        .map(|(kind, count)| {
            let then =
                before.kinds.iter().find(|(name, _)| name == kind).map_or(0, |(_, count)| *count);
            (count.saturating_sub(then), kind.as_str())
        })
        .filter(|(more, _)| *more > 0)
        .collect();
    let closed = facts.open.close_wait.saturating_sub(before.close_wait);
    if closed > 0 {
        grown.push((closed, "CLOSE_WAIT"));
    }
    grown.sort_by_key(|(more, _)| std::cmp::Reverse(*more));
    grown
        .into_iter()
        .take(3)
        .map(|(more, kind)| format!("{} +{}", printable(kind), grouped(more)))
        .collect()
}
