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
    pub may_raise: bool,
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
    let relative = Relative {
        pid,
        name: printable(read("comm").trim()),
        uid: parse_number(&status, "Uid:").unwrap_or(0),
        limit,
        started_s,
        cmdline: words.map(printable).collect(),
        may_raise: parse_may_raise(&status),
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

/// Whether what is bounded by this process's capabilities can raise a hard limit. A status without
/// them is one of a time before, or was composed by hand: root may.
fn parse_may_raise(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set & (1 << SYS_RESOURCE) != 0)
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
        assert!(parse_may_raise("CapBnd:\t000001ffffffffff\n"));
        assert!(!parse_may_raise("CapBnd:\t000001fffeffffff\n"));
        assert!(parse_may_raise(""));
    }

    #[test]
    fn this_process_has_a_line() {
        let line = lineage(&Tree::live(), std::process::id());
        assert_eq!(line[0].pid, std::process::id());
        assert!(line[0].started_s.unwrap() > 1_700_000_000);
        assert!(!line[0].cmdline.is_empty());
    }
}
