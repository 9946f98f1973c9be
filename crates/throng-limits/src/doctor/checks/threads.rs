//! Threads: a server with one per connection stops where it may start no more.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Bounds, Resource, Rung};
use crate::doctor::words::grouped;

/// From so many connections on, their number tells whether each has a thread.
const TELLING_FROM: u64 = 20;

pub(super) fn look(facts: &Facts) -> Outcome {
    let there_are = facts.connections();
    // Fewer than four threads for five connections are a pool.
    let each_has_one = there_are >= TELLING_FROM && facts.who.threads * 5 >= there_are * 4;
    let bounds = if each_has_one { Bounds::Crowd } else { Bounds::Beside };
    let kernel = &facts.kernel;
    let machine = kernel.threads.map(|used| {
        let both = [(kernel.threads_max, "threads-max"), (kernel.pid_max, "pid_max")];
        both.into_iter().filter_map(move |(limit, name)| {
            Some((limit?, used, format!("/proc/sys/kernel/{name}")))
        })
    });
    let group = facts.cgroup.tasks.iter().map(|tasks| (tasks.limit, tasks.used, tasks.at.clone()));
    let narrowest = machine
        .into_iter()
        .flatten()
        .chain(group)
        .min_by_key(|(limit, used, _)| limit.saturating_sub(*used));
    let Some((limit, used, at)) = narrowest else { return Outcome::default() };
    let rung = Rung { bounds, ..Rung::crowd(Resource::Threads, limit, used, 1000, there_are) }
        .read("threads allowed", at.clone());
    let finding = rung.is_left(TIGHT_PERCENT).then(|| {
        let severity = match (bounds, rung.more) {
            (Bounds::Crowd, 0) => Severity::Full,
            (Bounds::Crowd, _) => Severity::Tight,
            _ => Severity::Note,
        };
        let (used, limit) = (grouped(used), grouped(limit));
        Finding::new("threads", severity, format!("shares {used} of {limit} threads ({at})"))
            .because("a thread that cannot start looks like a server that is full")
            .for_good("TasksMax= in the unit, pids.max of the container, or kernel.threads-max and kernel.pid_max")
            .verify(format!("cat {at}"))
            .seen(format!("{used} of {limit}"), at.clone())
    });
    Outcome::rung(rung).with(finding)
}
