//! Ephemeral ports: each connection that is made takes one, for its source and target.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Bounds, Resource, Rung};
use crate::doctor::words::{counted, grouped};
use crate::facts::counters::PortRange;

const AT: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Routes on the ladder; a process with more shows the fullest.
const ROUTES_MAX: usize = 3;
/// Below this many, ports are nobody's concern.
const WORTH_SHOWING: u64 = 10;

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(range) = facts.network.ports else { return Outcome::default() };
    let mut outcome = Outcome::default();
    for route in facts.open.routes.iter().take(ROUTES_MAX) {
        if route.used < WORTH_SHOWING && !facts.is_proxy() {
            continue;
        }
        let (from, to) = (&route.from, &route.to);
        let mut rung =
            Rung::crowd(Resource::Ports, range.size(), route.used, 1000, facts.connections())
                .of(format!("{from} to {to}"))
                .read(format!("range {}-{}", range.first, range.last), AT);
        if !facts.is_proxy() {
            rung.bounds = Bounds::Beside;
        }
        if rung.is_left(TIGHT_PERCENT) {
            let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
            let used = grouped(route.used);
            let what =
                format!("has {used} of {} ports in use from {from} to {to}", grouped(range.size()));
            outcome.findings.push(
                Finding::new("ports", severity, what)
                    .because("a connection takes a port of its source address for its target")
                    .now(facts.in_network("sudo sysctl -w net.ipv4.ip_local_port_range='1024 65535'"))
                    .for_good("keep connections to the upstream open, listen there on a second address, or use a unix socket")
                    .for_good("net.ipv4.ip_local_port_range=1024 65535 in /etc/sysctl.d/90-ports.conf")
                    .verify(facts.in_network("cat /proc/sys/net/ipv4/ip_local_port_range"))
                    .seen(counted(route.used, "port"), format!("/proc/{}/net/tcp", facts.who.pid))
                    .seen(format!("{} ports to give", grouped(range.size())), AT),
            );
        }
        outcome.rungs.push(rung);
    }
    outcome.findings.extend(poisoned(facts, range));
    outcome
}

/// A port that is bound before anybody says to where is taken from every connection of its network,
/// to whatever target.
fn poisoned(facts: &Facts, range: PortRange) -> Option<Finding> {
    let (bound, size) = (facts.open.bound, range.size());
    if bound.saturating_mul(100) < size.saturating_mul(100 - TIGHT_PERCENT) {
        return None;
    }
    let severity = if bound >= size { Severity::Full } else { Severity::Tight };
    let what = format!(
        "shares {} ports, of which {} are bound and connected to nothing",
        grouped(size),
        grouped(bound)
    );
    Some(
        Finding::new("ports", severity, what)
            .because(
                "a port that is bound before connect is taken from connections to every target",
            )
            .for_good("whoever binds a source address sets IP_BIND_ADDRESS_NO_PORT (24) before")
            .verify(facts.in_network("cat /proc/sys/net/ipv4/ip_local_port_range"))
            .seen(counted(bound, "bound port"), format!("/proc/{}/net", facts.who.pid)),
    )
}
