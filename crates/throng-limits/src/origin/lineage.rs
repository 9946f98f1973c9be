//! The line from a process up to the machine's first: what each is, what it has, since when it runs.

use crate::facts::OpenFiles;
use crate::facts::limits::parse_open_files;
use crate::{Tree, printable};

/// Ancestors that are asked: no machine nests deeper, and a forged tree could be a circle.
const LINE_MAX: usize = 64;
/// `USER_HZ`: 100 on every architecture that throng is built for.
const TICKS_PER_SECOND: i64 = 100;
/// The bit of CAP_SYS_RESOURCE in a set of capabilities.
const SYS_RESOURCE: u32 = 24;
/// Words of a command line that are kept: what decides stands at its beginning.
const WORDS_MAX: usize = 64;

/// One process of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    pub pid: u32,
    pub name: String,
    pub uid: u32,
    pub limit: OpenFiles,
    /// When it was started, in seconds since 1970.
    pub started_s: Option<i64>,
    /// Its command line, as it may be shown.
    pub cmdline: Vec<String>,
    /// Whether a program that root owns and this one starts could raise a hard limit.
    pub may_raise: bool,
    /// Whether it could itself, as it is.
    pub raises: bool,
}

/// The process itself, then its parent, and so on; ends where one cannot be seen.
pub(crate) fn lineage(tree: &Tree, pid: u32) -> Vec<Relative> {
    let booted_s = tree.read_proc("stat").ok().as_deref().and_then(parse_boot);
    let mut line: Vec<Relative> = Vec::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid > 0) {
        if line.len() == LINE_MAX || line.iter().any(|each| each.pid == pid) {
            break;
        }
        let Some((relative, parent)) = relative(tree, pid, booted_s) else { break };
        line.push(relative);
        next = parent;
    }
    line
}

fn relative(tree: &Tree, pid: u32, booted_s: Option<i64>) -> Option<(Relative, Option<u32>)> {
    let limit = parse_open_files(&tree.read_proc(&format!("{pid}/limits")).ok()?)?;
    let read = |name: &str| tree.read_proc(&format!("{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let ticks = parse_start(&read("stat"));
    let started_s = booted_s.zip(ticks).map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND);
    let cmdline = read("cmdline");
    let words = cmdline.split('\0').filter(|word| !word.is_empty()).take(WORDS_MAX);
    let uid = parse_number(&status, "Uid:").unwrap_or(0);
    let users = read("uid_map");
    let may_raise = has_power(&status, "CapBnd:").unwrap_or(true) && is_the_machines(&users);
    let relative = Relative {
        pid,
        name: printable(read("comm").trim()),
        uid,
        limit,
        started_s,
        cmdline: words.map(printable).collect(),
        may_raise,
        raises: may_raise && has_power(&status, "CapEff:").unwrap_or(uid == 0),
    };
    Some((relative, parse_number(&status, "PPid:")))
}

/// The time of the boot, from the text of `/proc/stat`.
#[must_use]
pub(super) fn parse_boot(stat: &str) -> Option<i64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The time of the start in ticks since the boot, from the text of `/proc/PID/stat`.
#[must_use]
pub(super) fn parse_start(stat: &str) -> Option<i64> {
    // The name of the program stands in parentheses and may hold spaces and parentheses itself.
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    // proc(5): state is field 3, starttime 22.
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// The first number of a row of `/proc/PID/status`, such as `PPid:`.
#[must_use]
pub(super) fn parse_number(status: &str, row: &str) -> Option<u32> {
    let row = status.lines().find_map(|line| line.strip_prefix(row))?;
    row.split_whitespace().next()?.parse().ok()
}

/// Whether a set of capabilities holds the one that raises hard limits; none where it is not told, as
/// in a status that was composed by hand.
fn has_power(status: &str, row: &str) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix(row))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set & (1 << SYS_RESOURCE) != 0)
}

/// Whether users are the machine's own, and not a container's: a capability from there raises nothing.
fn is_the_machines(uid_map: &str) -> bool {
    // user_namespaces(7): the machine's own maps everybody to themselves.
    uid_map.trim().is_empty() || uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_start() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        assert_eq!(parse_start(stat), Some(4242));
        assert_eq!(parse_start("7 (a"), None);
        assert_eq!(parse_boot("cpu 1 2\nbtime 1700000000\nprocesses 1\n"), Some(1_700_000_000));
    }

    #[test]
    fn the_power_to_raise_is_a_bit() {
        assert_eq!(has_power("CapPrm:\t0\nCapBnd:\t000001ffffffffff\n", "CapBnd:"), Some(true));
        assert_eq!(has_power("CapBnd:\t000001fffeffffff\n", "CapBnd:"), Some(false));
        assert_eq!(has_power("CapEff:\tmany\n", "CapEff:"), None);
        assert_eq!(has_power("", "CapEff:"), None);
    }

    #[test]
    fn a_capability_of_a_containers_own_users_raises_nothing() {
        assert!(is_the_machines("         0          0 4294967295\n"));
        assert!(!is_the_machines("         0     100000      65536\n"));
        assert!(is_the_machines(""));
    }

    /// A `/proc` of its own, gone afterwards.
    struct Proc(std::path::PathBuf);

    impl Proc {
        fn of(name: &str, processes: &[(u32, u32, &str, &str)]) -> Self {
            let at = std::env::temp_dir().join(format!("throng-{name}-{}", std::process::id()));
            for (pid, parent, name, limit) in processes {
                let at = at.join(pid.to_string());
                std::fs::create_dir_all(&at).unwrap();
                std::fs::write(at.join("status"), format!("PPid:\t{parent}\n")).unwrap();
                std::fs::write(at.join("comm"), format!("{name}\n")).unwrap();
                let limits = format!("Max open files            {limit}  files\n");
                std::fs::write(at.join("limits"), limits).unwrap();
            }
            Self(at)
        }

        fn line(&self, pid: u32) -> Vec<Relative> {
            lineage(&Tree::at(&self.0, "/"), pid)
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok(); // the next run makes another
        }
    }

    #[test]
    fn ancestors_are_read_from_any_proc() {
        let proc = Proc::of(
            "proc",
            &[
                (9, 7, "throng", "1024 1024"),
                (7, 1, "sh\u{1b}[2J", "512 1024"),
                (1, 0, "init", "1 2"),
            ],
        );
        let line = proc.line(9);
        assert_eq!(line.iter().map(|each| each.pid).collect::<Vec<_>>(), [9, 7, 1]);
        assert_eq!(line[1].limit, OpenFiles { soft: 512, hard: 1024 });
        assert!(!line[1].name.contains('\u{1b}'), "{}", line[1].name);
    }

    #[test]
    fn a_tree_that_is_a_circle_ends() {
        let proc = Proc::of("circle", &[(5, 6, "a", "1 2"), (6, 5, "b", "1 2")]);
        assert_eq!(proc.line(5).len(), 2);
    }

    #[test]
    fn this_process_has_a_line() {
        let line = lineage(&Tree::live(), std::process::id());
        assert_eq!(line[0].pid, std::process::id());
        assert!(line[0].started_s.unwrap() > 1_700_000_000);
        assert!(!line[0].cmdline.is_empty());
    }
}
