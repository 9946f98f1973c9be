//! The firewall's table of connections.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::grouped;

const AT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(table) = facts.network.conntrack else { return Outcome::default() };
    let cost = facts.descriptors_milli();
    let rung = Rung::crowd(Resource::Conntrack, table.max, table.count, cost, facts.connections())
        .read("nf_conntrack_max", AT);
    let finding = rung.is_left(TIGHT_PERCENT).then(|| {
        let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
        let (count, max) = (grouped(table.count), grouped(table.max));
        let twice = table.max.saturating_mul(2);
        Finding::new("conntrack", severity, format!("shares {count} of {max} followed connections with the machine"))
            .because("the firewall follows every connection, and drops new ones silently when its table is full")
            .now(format!("sudo sysctl -w net.netfilter.nf_conntrack_max={twice}"))
            .for_good(format!("net.netfilter.nf_conntrack_max={twice} in /etc/sysctl.d/90-conntrack.conf"))
            .verify("cat /proc/sys/net/netfilter/nf_conntrack_count")
            .seen(format!("{count} of {max}"), AT)
    });
    Outcome::rung(rung).with(finding)
}
