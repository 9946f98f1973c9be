//! The SYN queue: who has begun to connect.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::grouped;

const AT: &str = "/proc/sys/net/ipv4/tcp_max_syn_backlog";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(limit) = facts.network.syn_backlog else { return Outcome::default() };
    if facts.open.listeners.is_empty() {
        return Outcome::default();
    }
    let rung = Rung::rush(Resource::SynQueue, limit, facts.open.half_open)
        .read("net.ipv4.tcp_max_syn_backlog", AT);
    let lost = facts.network.lost.syn_queue_drops;
    // With cookies a full queue costs nobody a connection.
    let drops = facts.network.syn_cookies == Some(0) && facts.open.half_open >= limit;
    let finding = drops.then(|| {
        let what = format!(
            "drops who begins to connect: {} of {limit} are half open",
            grouped(facts.open.half_open)
        );
        Finding::new("syn_queue", Severity::Full, what)
            .because("SYN cookies are off (net.ipv4.tcp_syncookies = 0), so a full queue drops")
            .now("sudo sysctl -w net.ipv4.tcp_syncookies=1")
            .for_good("net.ipv4.tcp_syncookies=1 in /etc/sysctl.d/90-syn.conf")
            .verify("cat /proc/sys/net/ipv4/tcp_syncookies")
            .seen(
                format!("TCPReqQFullDrop {}", grouped(lost)),
                format!("/proc/{}/net/netstat", facts.who.pid),
            )
    });
    Outcome::rung(rung).with(finding)
}
