//! The whole machine: every process with its limit and what it has open, the fullest first.

use super::facts::{Caller, Kernel};
use super::finding::{Severity, Unseen};
use super::gather::{caller, kernel};
use crate::descriptors::count;
use crate::facts::limits::parse_open_files;
use crate::facts::{Identity, OpenFiles};
use crate::sockets::states;
use crate::tree::Tree;

/// Processes that are looked at: `kernel.pid_max` of ordinary machines.
const PROCESSES_MAX: usize = 1 << 22;
/// A process is tight when a fifth is left.
const TIGHT_PERCENT: u64 = 20;

/// What the machine looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The fullest first.
    pub processes: Vec<Row>,
    pub kernel: Kernel,
    /// TCP sockets of our network namespace by state, most first.
    pub states: Vec<(String, u64)>,
    pub caller: Caller,
    pub unseen: Vec<Unseen>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub pid: u32,
    /// Safe to print.
    pub name: String,
    pub limit: OpenFiles,
    /// None where not even their number can be seen.
    pub open: Option<u64>,
}

impl Row {
    /// Descriptors that it may still open.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.open.map(|open| self.limit.soft.saturating_sub(open))
    }

    /// How full it is, in thousandths.
    #[must_use]
    pub fn full_milli(&self) -> Option<u64> {
        let full = u128::from(self.open?) * 1000 / u128::from(self.limit.soft.max(1));
        Some(u64::try_from(full).unwrap_or(u64::MAX))
    }

    #[must_use]
    pub fn severity(&self) -> Severity {
        match self.full_milli() {
            Some(1000..) => Severity::Full,
            Some(full) if full >= 1000 - TIGHT_PERCENT * 10 => Severity::Tight,
            _ => Severity::Fine,
        }
    }
}

impl Machine {
    /// Looks at every process there is.
    #[must_use]
    pub fn read(tree: &Tree) -> Self {
        let mut unseen = Vec::new();
        let mut processes = Vec::new();
        let mut unknown = 0_usize;
        for pid in pids(tree) {
            let Some(row) = row(tree, pid) else { continue };
            unknown += usize::from(row.open.is_none());
            processes.push(row);
        }
        if unknown > 0 {
            unseen.push(Unseen {
                what: format!("how many descriptors {unknown} processes have"),
                why: "they belong to other users".to_owned(),
                root_sees: true,
            });
        }
        // Fullest first; of equally full ones who has least left, then the oldest number.
        processes.sort_by_key(|row| {
            (std::cmp::Reverse(row.full_milli()), row.left().unwrap_or(u64::MAX), row.pid)
        });
        let own = std::process::id();
        let states = states(tree, own).map(|states| states.ranked()).unwrap_or_default();
        Self {
            processes,
            kernel: kernel(tree),
            states: states
                .into_iter()
                .map(|(state, count)| (state.word().to_owned(), count.into()))
                .collect(),
            caller: caller(tree),
            unseen,
        }
    }

    /// How bad the fullest process is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.processes.iter().map(Row::severity).max().unwrap_or(Severity::Fine)
    }
}

/// The processes of a tree, by number.
#[must_use]
pub fn pids(tree: &Tree) -> Vec<u32> {
    let names = tree.list_proc("").unwrap_or_default();
    let mut pids: Vec<u32> =
        names.iter().take(PROCESSES_MAX).filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn row(tree: &Tree, pid: u32) -> Option<Row> {
    // Who left meanwhile is left out.
    let who = Identity::read(tree, pid).ok().filter(|who| !who.is_zombie)?;
    // Threads of the kernel have no descriptors, and no words either.
    if who.arguments.is_empty() && (pid == 2 || who.parent == 2) {
        return None;
    }
    let limit = parse_open_files(&tree.read_proc(&format!("{pid}/limits")).ok()?)?;
    let open = match count(tree, pid) {
        Err(error) if error.is_gone() => return None,
        counted => counted.ok(),
    };
    Some(Row { pid, name: who.name(), limit, open })
}

/// Processes of this name: of the program, or of the script that an interpreter runs.
#[must_use]
pub fn named(tree: &Tree, name: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        Identity::read(tree, *pid).is_ok_and(|who| {
            let called = who.name();
            let mut words = called.split_whitespace().map(|word| word.trim_end_matches(':'));
            !who.is_zombie && (who.comm == name || called == name || words.any(|word| word == name))
        })
    };
    pids(tree).into_iter().filter(is_it).collect()
}

/// Processes of a unit, such as `push` or `push.service`.
#[must_use]
pub fn of_unit(tree: &Tree, unit: &str) -> Vec<u32> {
    let unit = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
    let is_in = |pid: &u32| {
        let groups = tree.read_proc(&format!("{pid}/cgroup")).unwrap_or_default();
        groups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|path| path.split('/').any(|part| part == unit))
    };
    pids(tree).into_iter().filter(is_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(open: Option<u64>, soft: u64) -> Row {
        Row { pid: 1, name: String::new(), limit: OpenFiles { soft, hard: soft }, open }
    }

    #[test]
    fn a_process_is_as_bad_as_it_is_full() {
        assert_eq!(row(Some(1024), 1024).severity(), Severity::Full);
        assert_eq!(row(Some(820), 1024).severity(), Severity::Tight);
        assert_eq!(row(Some(100), 1024).severity(), Severity::Fine);
        assert_eq!(row(None, 1024).severity(), Severity::Fine);
        assert_eq!(row(Some(0), 0).severity(), Severity::Fine);
        assert_eq!(row(Some(1024), 1024).left(), Some(0));
    }

    #[test]
    fn this_process_is_on_the_machine_by_number_and_by_name() {
        let tree = Tree::live();
        let own = std::process::id();
        let machine = Machine::read(&tree);
        assert!(machine.processes.iter().any(|row| row.pid == own && row.open.is_some()));
        let fulls: Vec<_> = machine.processes.iter().map(Row::full_milli).collect();
        assert!(fulls.is_sorted_by(|a, b| a >= b));
        let comm = Identity::read(&tree, own).unwrap().comm;
        assert!(named(&tree, &comm).contains(&own));
        assert_eq!(named(&tree, "no-such-program"), []);
        assert_eq!(of_unit(&tree, "no-such-unit"), []);
    }
}
