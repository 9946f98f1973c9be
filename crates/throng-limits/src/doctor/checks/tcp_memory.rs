//! Memory of all TCP sockets together.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::{bytes, grouped};
use crate::facts::counters::{PAGE_BYTES, Quota};

/// From so many sockets of the network on, their memory tells what one takes.
const MEASURED_FROM: u64 = 200;
const AT: &str = "/proc/sys/net/ipv4/tcp_mem";

pub(super) fn look(facts: &Facts) -> Outcome {
    let mut outcome = memory(facts);
    outcome.findings.extend(orphans(facts));
    outcome.findings.extend(time_wait(facts));
    outcome
}

/// Connections that were closed and still send: above their number the kernel resets them.
fn orphans(facts: &Facts) -> Option<Finding> {
    let Quota { count, max } = facts.network.orphans?;
    if count.saturating_mul(100) < max.saturating_mul(100 - TIGHT_PERCENT) || count == 0 {
        return None;
    }
    let severity = if count >= max { Severity::Full } else { Severity::Tight };
    let (many, most) = (grouped(count), grouped(max));
    let what = format!("shares {many} of {most} orphaned connections with the machine");
    let twice = max.saturating_mul(2);
    Some(
        Finding::new("tcp_memory", severity, what)
            .because("above tcp_max_orphans a connection that is closed is reset, and what it still had to send is lost")
            .now(facts.in_network(&format!("sudo sysctl -w net.ipv4.tcp_max_orphans={twice}")))
            .for_good(format!("net.ipv4.tcp_max_orphans={twice} in /etc/sysctl.d/90-tcp.conf"))
            .verify("cat /proc/net/sockstat")
            .seen(format!("{many} of {most}"), "/proc/sys/net/ipv4/tcp_max_orphans"),
    )
}

/// Above their number connections are forgotten at once when they are closed, which is harmless
/// nearly always.
fn time_wait(facts: &Facts) -> Option<Finding> {
    let Quota { count, max } = facts.network.time_wait?;
    (count >= max && count > 0).then(|| {
        let what =
            format!("has a network that is full of {} connections in TIME_WAIT", grouped(max));
        Finding::new("tcp_memory", Severity::Note, what)
            .because("the kernel says \"time wait bucket table overflow\"; they hold no descriptor")
            .seen(format!("{count} of {max}"), "/proc/sys/net/ipv4/tcp_max_tw_buckets")
    })
}

fn memory(facts: &Facts) -> Outcome {
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
