//! The addresses of machines on the local network, which a crowd without a router in between fills.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::grouped;
use crate::facts::counters::Quota;

const AT: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(Quota { count, max }) = facts.network.neighbours else { return Outcome::default() };
    if max == 0 || count.saturating_mul(100) < max.saturating_mul(100 - TIGHT_PERCENT) {
        return Outcome::default();
    }
    let severity = if count >= max { Severity::Full } else { Severity::Tight };
    let (many, most) = (grouped(count), grouped(max));
    let what = format!("shares {many} of {most} neighbours on its network with the machine");
    let more = max.saturating_mul(8);
    let setting = "net.ipv4.neigh.default.gc_thresh3";
    Outcome::finding(
        Finding::new("neighbours", severity, what)
            .because("a machine beyond them is not reached: ENOBUFS, \"neighbor table overflow\" in dmesg")
            .now(format!("sudo sysctl -w {setting}={more}"))
            .for_good(format!("{setting}={more} in /etc/sysctl.d/90-neighbours.conf"))
            .verify("ip neigh | wc -l")
            .seen(format!("{many} of {most}"), AT),
    )
}
