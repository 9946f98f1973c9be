//! The memory that the process's control group allows, sockets included.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::bytes;

/// What the kernel alone needs for an idle connection, charged to the group.
const KERNEL_BYTES: u64 = 3788;
/// From so many connections on, the group's memory tells what one costs.
const MEASURED_FROM: u64 = 200;
/// Memory beyond this share is killed soon.
const TIGHT_PERCENT: u64 = 10;

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(memory) = &facts.cgroup.memory else { return Outcome::default() };
    let there_are = facts.connections();
    let each =
        if there_are >= MEASURED_FROM { memory.used / there_are } else { 0 }.max(KERNEL_BYTES);
    let rung = Rung::crowd(
        Resource::CgroupMemory,
        memory.limit,
        memory.used,
        each.saturating_mul(1000),
        there_are,
    )
    .in_bytes()
    .read("memory limit of the group", memory.at.clone());
    let finding = rung.is_left(TIGHT_PERCENT).then(|| {
        let (used, most) = (bytes(memory.used), bytes(memory.limit));
        let what = format!("will be killed for memory: its group uses {used} of {most}");
        Finding::new("cgroup_memory", Severity::Tight, what)
            .because(format!(
                "sockets count: an idle connection costs the group {} in the kernel alone",
                bytes(KERNEL_BYTES)
            ))
            .now(raised(&memory.at, memory.limit))
            .for_good("MemoryMax= in the unit, or the container's memory limit")
            .verify(format!("cat {}", memory.at))
            .seen(format!("{used} of {most}"), memory.at.clone())
    });
    Outcome::rung(rung).with(finding)
}

fn raised(at: &str, limit: u64) -> String {
    format!("echo {} | sudo tee {at}", limit.saturating_mul(2))
}
