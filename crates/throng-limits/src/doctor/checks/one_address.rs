//! Every client from one address: a proxy in front hides who they are.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::counted;
use crate::tree::printable;

/// From so many clients on it is no accident.
const CLIENTS_FROM: u64 = 20;

pub(super) fn look(facts: &Facts) -> Outcome {
    let [(address, count)] = facts.open.peers.as_slice() else { return Outcome::default() };
    if *count < CLIENTS_FROM {
        return Outcome::default();
    }
    let address = printable(address);
    let what = format!("sees {} from one address, {address}", counted(*count, "client"));
    let finding = Finding::new("one_address", Severity::Note, what)
        .because("a proxy in front hides them: a limit or a login check by address treats all as one")
        .for_good("let the proxy say who asks (X-Forwarded-For, or the PROXY protocol), and believe it from this address only")
        .seen(counted(*count, "connection"), format!("/proc/{}/net/tcp", facts.who.pid));
    Outcome::finding(finding)
}
