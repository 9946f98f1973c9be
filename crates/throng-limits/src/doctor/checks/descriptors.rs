//! The process's own limit on open files.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::{counted, limit};

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(used) = facts.used() else { return Outcome::default() };
    let pid = facts.who.pid;
    let soft = facts.limit.soft;
    let rung = Rung::crowd(
        Resource::Descriptors,
        soft,
        used,
        facts.descriptors_milli(),
        facts.connections(),
    )
    .read("Max open files", format!("/proc/{pid}/limits"))
    .read("descriptors open", format!("/proc/{pid}/fd"));
    let of = format!("{} of {} descriptors", limit(used), limit(soft));
    let found = |severity, what: String| {
        Finding::new("descriptors", severity, what)
            .seen(
                format!("limit {}, hard {}", limit(soft), limit(facts.limit.hard)),
                format!("/proc/{pid}/limits"),
            )
            .seen(format!("{} open below the limit", limit(used)), format!("/proc/{pid}/fd"))
    };
    let finding = if rung.more == 0 {
        // RLIMIT_NOFILE bounds numbers: a limit that was lowered leaves what is open above it.
        let what = if used > soft {
            format!("{} descriptors, and the limit is {soft}", limit(used))
        } else {
            of
        };
        Some(found(Severity::Full, format!("cannot accept one more connection: {what}")))
    } else if rung.is_left(TIGHT_PERCENT) {
        let more = counted(rung.more, "more connection");
        Some(found(Severity::Tight, format!("has room for {more}: {of}")))
    } else {
        None
    };
    Outcome::rung(rung).with(finding)
}
