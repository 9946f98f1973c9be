//! What the application's own configuration allows, and who stands in front of it.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::advice::is_stuck;
use crate::doctor::facts::{Cap, Facts, Front};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Bounds, Resource, Rung};
use crate::doctor::words::{counted, grouped};
use crate::tree::printable;

pub(super) fn look(facts: &Facts) -> Outcome {
    let mut outcome = Outcome::default();
    for cap in &facts.caps {
        let rung = rung(cap);
        outcome.findings.extend(finding(cap, &rung, facts));
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

fn finding(cap: &Cap, rung: &Rung, facts: &Facts) -> Option<Finding> {
    let need = facts.need;
    let (used, limit, option) = (grouped(cap.used), cap.limit, &cap.option);
    let short = need.filter(|need| *need > rung.allows);
    let what = match short {
        _ if rung.more == 0 => format!("uses {used} of the {limit} that {option} allows"),
        Some(need) => format!(
            "does not hold {}: {option} {limit} = {} users",
            counted(need, "connection"),
            grouped(rung.allows)
        ),
        None if rung.is_left(TIGHT_PERCENT) => {
            format!("uses {used} of the {limit} that {option} allows")
        }
        None => return None,
    };
    let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
    let at = printable(&cap.at);
    let needed = need.unwrap_or(0).saturating_mul(cap.cost_milli) / 1000;
    let wanted = wanted(cap, needed, facts);
    let why = if cap.at_most {
        format!("its limit allows no more; it may have been told less: {at}")
    } else {
        format!("its own configuration says so ({at})")
    };
    let place = if at.starts_with('/') { format!(" in {at}") } else { String::new() };
    let mut finding = Finding::new("application", severity, what)
        .because(why)
        .for_good(format!("{option} {wanted}{place}"));
    let descriptors = wanted.saturating_mul(cap.takes.each).saturating_add(cap.takes.kept);
    if !cap.takes.raises_hard && descriptors > facts.limit.hard {
        let pid = facts.who.pid;
        let hard = facts.limit.hard;
        finding = finding.for_good(format!(
            "its hard limit is {hard}, and it needs {descriptors}: throng doctor {pid} --raise {descriptors}"
        ));
    }
    let number = wanted.to_string();
    for step in cap.steps.iter().filter(|step| step.now < wanted) {
        finding = finding.for_good(step.command.replace("{N}", &number));
    }
    Some(
        finding
            .for_good(cap.apply.replace("{N}", &number))
            .verify(verify(cap, &at))
            .seen(format!("{option} {limit}"), at),
    )
}

/// How high a cap should be: twice what it is, and enough for those who are wanted; within the hard
/// limit, where nobody raises that and it is enough.
fn wanted(cap: &Cap, needed: u64, facts: &Facts) -> u64 {
    let wanted = cap.limit.saturating_mul(2).max(needed).max(65_536);
    let room = facts.limit.hard.saturating_sub(cap.takes.kept) / cap.takes.each.max(1);
    let stays = is_stuck(facts) || !cap.takes.raises_hard;
    if stays && needed <= room { wanted.min(room).max(cap.limit) } else { wanted }
}

/// The command that shows whether it was edited.
fn verify(cap: &Cap, at: &str) -> String {
    let file = at.split([':', ' ']).next().unwrap_or(at);
    if file.starts_with('/') {
        format!("grep -n {} {file}", cap.option)
    } else {
        // A program that is asked, such as `redis-cli -p 6379 config get maxclients`.
        at.to_owned()
    }
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
    // More than it lets through are here: they came around it, and it is not the only way in.
    let bounds = if there_are > front.users { Bounds::Beside } else { Bounds::Crowd };
    Rung { allows: front.users, bounds, ..rung }
}
