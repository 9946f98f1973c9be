//! The accept queues: who has connected and waits to be taken.

use super::Outcome;
use crate::doctor::facts::{Facts, Listener};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::{counted, grouped};

/// Listeners on the ladder; a process with more shows the fullest.
const LISTENERS_MAX: usize = 8;
/// What a queue is raised to.
pub const BACKLOG: u64 = 4096;

pub(super) fn look(facts: &Facts) -> Outcome {
    let mut listeners: Vec<&Listener> = facts.open.listeners.iter().collect();
    let left =
        |each: &Listener| each.backlog.map_or(u64::MAX, |most| most.saturating_sub(each.waiting));
    listeners.sort_by_key(|each| left(each));
    let mut outcome = Outcome::default();
    for listener in listeners.into_iter().take(LISTENERS_MAX) {
        let Some(backlog) = listener.backlog else { continue };
        let rung = Rung::rush(Resource::AcceptQueue, backlog, listener.waiting)
            .of(listener.at.clone())
            .read("waiting and backlog", listener.at_file.clone());
        outcome.rungs.push(rung);
        if is_nearly_full(listener.waiting, backlog) {
            outcome.findings.push(overflowing(facts, listener, backlog));
        }
    }
    for listener in facts.open.unix_listeners.iter().take(LISTENERS_MAX) {
        let Some(backlog) = listener.backlog.map(u64::from) else { continue };
        let (waiting, at) = (u64::from(listener.waiting), &listener.path);
        let rung = Rung::rush(Resource::AcceptQueue, backlog, waiting)
            .of(at.clone())
            .read("waiting and backlog", "ss -xl");
        outcome.rungs.push(rung);
        if is_nearly_full(waiting, backlog) {
            outcome.findings.push(overflowing_unix(facts, at, waiting, backlog));
        }
    }
    if let Some(turned_away) = facts.lost_lately.filter(|count| *count > 0)
        && outcome.findings.is_empty()
    {
        let what = format!(
            "lost {} at a full accept queue since the first look",
            counted(turned_away, "connection")
        );
        outcome.findings.push(advised(facts, Finding::new("accept_queue", Severity::Tight, what)));
    }
    outcome
}

/// The kernel takes one more than it was told: a queue is full at backlog + 1.
fn is_nearly_full(waiting: u64, backlog: u64) -> bool {
    waiting > backlog || waiting.saturating_mul(10) >= backlog.max(1).saturating_mul(8)
}

/// Who connects to a full queue of a Unix socket is not left to wait, but told to try again.
fn overflowing_unix(facts: &Facts, at: &str, waiting: u64, backlog: u64) -> Finding {
    let severity = match (waiting > backlog, no_descriptor(facts)) {
        (_, true) => Severity::Note,
        (true, false) => Severity::Full,
        (false, false) => Severity::Tight,
    };
    let waiting = grouped(waiting);
    let what = if severity == Severity::Full {
        format!("refuses connections: {waiting} wait at {at}, and no more than {backlog} may")
    } else {
        format!("lets {waiting} of {backlog} wait at {at}")
    };
    let why = if no_descriptor(facts) {
        "it cannot accept them for want of descriptors"
    } else {
        "it does not accept as fast as they come, and a full Unix socket says EAGAIN at once"
    };
    Finding::new("accept_queue", severity, what)
        .because(why)
        .for_good(format!("listen there with a backlog of {BACKLOG}"))
        .verify("ss -xl")
        .seen(format!("{waiting} waiting, backlog {backlog}"), "ss -xl")
}

fn overflowing(facts: &Facts, listener: &Listener, backlog: u64) -> Finding {
    let full = listener.waiting > backlog;
    let severity = match (full, no_descriptor(facts)) {
        // Who cannot accept has a full queue; that is the effect, not the cause.
        (_, true) => Severity::Note,
        (true, false) => Severity::Full,
        (false, false) => Severity::Tight,
    };
    let (waiting, at) = (grouped(listener.waiting), &listener.at);
    let what = if full {
        format!("turns connections away: {waiting} wait at {at}, and no more than {backlog} may")
    } else {
        format!("lets {waiting} of {backlog} wait at {at}")
    };
    let finding = Finding::new("accept_queue", severity, what)
        .seen(format!("{waiting} waiting, backlog {backlog}"), listener.at_file.clone())
        .seen(
            format!("{} overflows since boot", grouped(facts.network.lost.listen_overflows)),
            format!("/proc/{}/net/netstat", facts.who.pid),
        );
    if no_descriptor(facts) {
        return finding.because("it cannot accept them for want of descriptors");
    }
    advised(facts, finding)
}

fn advised(facts: &Facts, finding: Finding) -> Finding {
    let pid = facts.who.pid;
    let somaxconn = facts.network.somaxconn;
    let short = somaxconn.filter(|limit| *limit < BACKLOG);
    let mut finding = finding
        .because(
            "it does not accept as fast as clients come: either they come in a rush, or it is busy",
        )
        .now(format!("sudo throng doctor {pid} --raise-backlog {BACKLOG}"))
        .for_good(format!(
            "listen with a backlog of {BACKLOG} (Tornado: bind_sockets(..., backlog={BACKLOG}))"
        ))
        .verify(facts.in_network("ss -tln"));
    if let Some(limit) = short {
        finding = finding
            .for_good(format!("net.core.somaxconn={BACKLOG} in /etc/sysctl.d/90-listen.conf"))
            .seen(format!("net.core.somaxconn {limit}"), "/proc/sys/net/core/somaxconn");
    }
    finding
}

fn no_descriptor(facts: &Facts) -> bool {
    facts.used().is_some_and(|used| used >= facts.ceiling())
}
