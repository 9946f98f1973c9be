//! Memory of all TCP sockets together.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::bytes;
use crate::facts::counters::PAGE_BYTES;

/// From so many sockets of the network on, their memory tells what one takes.
const MEASURED_FROM: u64 = 200;
const AT: &str = "/proc/sys/net/ipv4/tcp_mem";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(memory) = facts.network.tcp_memory else { return Outcome::default() };
    let in_bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES);
    // An idle connection holds no buffer; one that is written to holds a page at least.
    let measured = memory.sockets >= MEASURED_FROM;
    let each = if measured { in_bytes(memory.used) / memory.sockets } else { 0 }.max(PAGE_BYTES);
    let rung = Rung::crowd(
        Resource::TcpMemory,
        in_bytes(memory.max),
        in_bytes(memory.used),
        each.saturating_mul(1000),
        facts.connections(),
    )
    .in_bytes()
    .read("net.ipv4.tcp_mem", AT)
    .read("TCP mem", format!("/proc/{}/net/sockstat", facts.who.pid));
    let finding = (memory.used >= memory.pressure).then(|| {
        let full = memory.used >= memory.max;
        let severity = if full { Severity::Full } else { Severity::Tight };
        let (used, max) = (bytes(in_bytes(memory.used)), bytes(in_bytes(memory.max)));
        let twice = memory.max.saturating_mul(2);
        Finding::new(
            "tcp_memory",
            severity,
            format!("shares {used} of {max} for TCP buffers with the machine"),
        )
        .because(
            "from tcp_mem's second number on buffers shrink, from the third on connections die",
        )
        .now(format!("sudo sysctl -w net.ipv4.tcp_mem='{} {} {twice}'", twice / 2, twice / 4 * 3))
        .for_good("find who does not read: `ss -tm` shows whose buffers are full")
        .verify("cat /proc/net/sockstat")
        .seen(
            format!(
                "{} pages in use, pressure at {}, most {}",
                memory.used, memory.pressure, memory.max
            ),
            AT,
        )
    });
    Outcome::rung(rung).with(finding)
}
