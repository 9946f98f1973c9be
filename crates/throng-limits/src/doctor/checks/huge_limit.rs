//! A limit so high that programs which walk all possible descriptors take minutes.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::grouped;

/// Above this, walking them is felt.
const HUGE: u64 = 1 << 20;

pub(super) fn look(facts: &Facts) -> Outcome {
    let soft = facts.limit.soft;
    if soft <= HUGE {
        return Outcome::default();
    }
    let pid = facts.who.pid;
    let what = format!(
        "has a limit of {}: old programs that close every possible descriptor burn processor and memory",
        grouped(soft)
    );
    let finding = Finding::new("huge_limit", Severity::Note, what)
        .because("LimitNOFILE=infinity of a container runtime, where systemd raised fs.nr_open")
        .now(format!("sudo prlimit --pid {pid} --nofile=1048576:{}", facts.limit.hard.min(1 << 30)))
        .for_good("LimitNOFILE=1024:524288 in the unit of the container runtime, or --ulimit nofile=65536:65536")
        .verify(format!("grep 'open files' /proc/{pid}/limits"))
        .seen(format!("limit {soft}"), format!("/proc/{pid}/limits"));
    Outcome::finding(finding)
}
