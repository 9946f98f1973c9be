//! The checks: one file each, one table of all.

mod accept_queue;
mod application;
mod cgroup_memory;
mod conntrack;
mod descriptors;
mod epoll;
mod file_max;
mod growth;
mod huge_limit;
mod idle;
mod inotify;
mod leaks;
mod log_disk;
mod neighbours;
mod nr_open;
mod one_address;
mod ports;
mod select;
mod syn_queue;
mod tcp_memory;
mod threads;

pub use accept_queue::BACKLOG;
pub use select::SELECT_MAX;

use super::facts::Facts;
use super::finding::Finding;
use super::ladder::Rung;

/// Where a ceiling is nearly reached: a fifth of it is left.
pub(super) const TIGHT_PERCENT: u64 = 20;

/// One thing that is looked at: a pure function of the facts.
pub struct Check {
    /// Its name, which does not change.
    pub name: &'static str,
    pub look: fn(&Facts) -> Outcome,
}

/// What a check has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub rungs: Vec<Rung>,
    pub findings: Vec<Finding>,
}

/// Every check. Of findings that are equally bad the earlier one is the verdict.
pub const CHECKS: [Check; 21] = [
    Check { name: "descriptors", look: descriptors::look },
    Check { name: "nr_open", look: nr_open::look },
    Check { name: "file_max", look: file_max::look },
    Check { name: "leaks", look: leaks::look },
    Check { name: "growth", look: growth::look },
    Check { name: "accept_queue", look: accept_queue::look },
    Check { name: "application", look: application::look },
    Check { name: "select", look: select::look },
    Check { name: "ports", look: ports::look },
    Check { name: "conntrack", look: conntrack::look },
    Check { name: "syn_queue", look: syn_queue::look },
    Check { name: "tcp_memory", look: tcp_memory::look },
    Check { name: "neighbours", look: neighbours::look },
    Check { name: "cgroup_memory", look: cgroup_memory::look },
    Check { name: "threads", look: threads::look },
    Check { name: "epoll", look: epoll::look },
    Check { name: "inotify", look: inotify::look },
    Check { name: "log_disk", look: log_disk::look },
    Check { name: "idle", look: idle::look },
    Check { name: "huge_limit", look: huge_limit::look },
    Check { name: "one_address", look: one_address::look },
];

impl Outcome {
    fn rung(rung: Rung) -> Self {
        Self { rungs: vec![rung], findings: Vec::new() }
    }

    fn finding(finding: Finding) -> Self {
        Self { rungs: Vec::new(), findings: vec![finding] }
    }

    fn with(mut self, finding: Option<Finding>) -> Self {
        self.findings.extend(finding);
        self
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

#[cfg(test)]
mod tests;
