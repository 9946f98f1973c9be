//! What the application's own configuration allows, and who stands in front of it.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::{Cap, Facts, Front};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::grouped;
use crate::tree::printable;

pub(super) fn look(facts: &Facts) -> Outcome {
    let mut outcome = Outcome::default();
    for cap in &facts.caps {
        let rung = rung(cap);
        outcome.findings.extend(finding(cap, &rung));
        outcome.rungs.push(rung);
    }
    outcome.rungs.extend(facts.fronts.iter().map(|front| in_front(facts, front)));
    outcome
}

fn rung(cap: &Cap) -> Rung {
    Rung::crowd(Resource::Application, cap.limit, cap.used, cap.cost_milli, cap.there_are)
        .of(cap.option.clone())
        .read(cap.option.clone(), printable(&cap.at))
}

fn finding(cap: &Cap, rung: &Rung) -> Option<Finding> {
    if !rung.is_left(TIGHT_PERCENT) {
        return None;
    }
    let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
    let (used, limit, option, at) = (grouped(cap.used), cap.limit, &cap.option, printable(&cap.at));
    let twice = limit.saturating_mul(2).max(65_536);
    Some(
        Finding::new(
            "application",
            severity,
            format!("uses {used} of the {limit} that {option} allows"),
        )
        .because(format!("its own configuration says so ({at})"))
        .for_good(format!("{option} {twice} in {at}"))
        .for_good(cap.apply.clone())
        .verify(format!("grep -n {option} {}", at.split(':').next().unwrap_or(&at)))
        .seen(format!("{option} {limit}"), at),
    )
}

/// A proxy lets no more users through than it may have, whatever stands behind it.
fn in_front(facts: &Facts, front: &Front) -> Rung {
    let there_are = facts.connections();
    let rung = Rung::crowd(
        Resource::Application,
        front.users,
        there_are.min(front.users),
        1000,
        there_are,
    )
    .of(format!("{} in front", front.name))
    .read(front.by.clone(), printable(&front.at));
    // Who is here already came around it, or through more workers than were seen.
    Rung { allows: front.users, ..rung }
}
