//! Leaks: descriptors that serve nobody and are not closed.

use super::Outcome;
use crate::doctor::advice::live;
use crate::doctor::facts::{Facts, Open};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::{counted, grouped};
use crate::tree::printable;

/// A few of each are in passing; a leak is a share of all descriptors, of at least this many.
const LEAKED_FROM: u64 = 20;
const SHARE_PERCENT: u64 = 20;
/// Files without a name are few in any program.
const DELETED_FROM: u64 = 5;
/// Peers and names that are given as examples.
const EXAMPLES: usize = 3;

pub(super) fn look(facts: &Facts) -> Outcome {
    let found = [close_wait(facts), unhashed(facts), deleted(facts)];
    Outcome { rungs: Vec::new(), findings: found.into_iter().flatten().collect() }
}

/// The peer closed, and the process does not notice: its own fault, which no setting mends.
fn close_wait(facts: &Facts) -> Option<Finding> {
    let Open { close_wait, close_wait_peers, .. } = &facts.open;
    let of = suspicious(facts, *close_wait)?;
    let peers: Vec<String> = close_wait_peers
        .iter()
        .take(EXAMPLES)
        .map(|(peer, count)| format!("{} ({})", printable(peer), grouped(*count)))
        .collect();
    let what = format!("leaks connections: {of} are CLOSE_WAIT, closed by the peer and not by it");
    let mut finding = buying_time(facts, Finding::new("leaks", Severity::Tight, what))
        .because("its code does not close what the other side has closed; keep-alive settings do not help")
        .for_good("close the connection when a read returns nothing; a restart frees what has leaked")
        .verify(facts.in_network("ss -tn state close-wait"))
        .seen(of, format!("/proc/{}/net/tcp", facts.who.pid));
    if !peers.is_empty() {
        finding = finding.seen(format!("from {}", peers.join(", ")), "ss -tn state close-wait");
    }
    Some(finding)
}

/// Sockets that no table knows: created or shut down, and never closed.
fn unhashed(facts: &Facts) -> Option<Finding> {
    let of = suspicious(facts, facts.open.unhashed)?;
    let what = format!("leaks sockets: {of} are sockets that are not connected to anything");
    Some(
        buying_time(facts, Finding::new("leaks", Severity::Tight, what))
            .because("they were created or shut down and never closed; lsof calls them \"can't identify protocol\"")
            .for_good("close a socket when connecting fails, and after shutdown(); a restart frees what has leaked")
            .verify(format!("lsof -nP -p {} | grep -c 'protocol: TCP'", facts.who.pid))
            .seen(of, format!("/proc/{}/fd", facts.who.pid)),
    )
}

fn deleted(facts: &Facts) -> Option<Finding> {
    let Open { deleted, deleted_names, .. } = &facts.open;
    if *deleted < DELETED_FROM {
        return None;
    }
    let names: Vec<String> =
        deleted_names.iter().take(EXAMPLES).map(|name| printable(name)).collect();
    let what = format!("holds {} that were deleted", counted(*deleted, "file"));
    let pid = facts.who.pid;
    Some(
        Finding::new("leaks", Severity::Note, what)
            .because("logs were rotated and it was not told: the descriptors and the disk space stay taken")
            .now(format!("sudo truncate -s 0 /proc/{pid}/fd/N gives the space back, not the descriptor"))
            .for_good("copytruncate in its logrotate file, or a postrotate that tells it")
            .verify(format!("ls -l /proc/{pid}/fd | grep -c deleted"))
            .seen(names.join(", "), format!("/proc/{pid}/fd")),
    )
}

/// `200 of 279 descriptors`, where that is no accident.
fn suspicious(facts: &Facts, leaked: u64) -> Option<String> {
    let open = facts.open.count?;
    let many = leaked >= LEAKED_FROM && leaked * 100 >= open * SHARE_PERCENT;
    many.then(|| format!("{} of {} descriptors", grouped(leaked), grouped(open)))
}

/// A higher limit, where it may be raised and is half used up: it is no cure.
fn buying_time(facts: &Facts, finding: Finding) -> Finding {
    let is_urgent = facts.used().is_some_and(|used| used.saturating_mul(2) >= facts.ceiling());
    match live(facts).command.filter(|_| is_urgent) {
        Some(command) => finding.now(command),
        None => finding,
    }
}
