//! How a process waits: whether it is in `select()` now, and which ways it knows.

use std::path::Path;

use super::elf;
use crate::tree::Tree;

/// System calls by number: `select` and `pselect6`.
#[cfg(target_arch = "x86_64")]
const SELECT: [&str; 2] = ["23", "270"];
#[cfg(not(target_arch = "x86_64"))]
const SELECT: [&str; 1] = ["72"];
/// Looks at the main thread, which may be at work when it is looked at.
const LOOKS: usize = 16;
/// Other threads that are looked at.
const THREADS_MAX: usize = 64;
/// A thread that waits for so few numbers waits for something of its own, not for connections.
const OWN_NUMBERS: u64 = 64;
/// Where a copy keeps what a program imports.
const IMPORTS: &str = "elf-imports";
/// What is looked for: functions of select, and of what took its place.
const BY_SELECT: [&str; 4] = ["select", "pselect", "__fdelt_chk", "__fdelt_warn"];
const BY_POLL: [&str; 9] = [
    "poll",
    "ppoll",
    "__poll_chk",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_create1",
    "epoll_create",
    "io_uring_queue_init",
];

/// The ways to wait that a program takes from its libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    pub select: bool,
    /// poll, epoll, or io_uring.
    pub poll: bool,
}

/// Whether a process waits for descriptors in `select()` right now: the file that proves it.
#[must_use]
pub fn in_select(tree: &Tree, pid: u32) -> Option<String> {
    let main = format!("{pid}/syscall");
    for _ in 0..LOOKS {
        let Ok(text) = tree.read_proc(&main) else { break };
        if waits_for(&text).is_some_and(|numbers| numbers > 0) {
            return Some(format!("/proc/{main}"));
        }
        if !text.starts_with("running") {
            break;
        }
        std::thread::yield_now();
    }
    let threads = tree.list_proc(&format!("{pid}/task")).ok()?;
    let others = threads.iter().filter(|thread| **thread != pid.to_string()).take(THREADS_MAX);
    let mut files = others.map(|thread| format!("{pid}/task/{thread}/syscall"));
    files.find_map(|file| {
        let numbers = waits_for(&tree.read_proc(&file).ok()?)?;
        (numbers > OWN_NUMBERS).then(|| format!("/proc/{file}"))
    })
}

/// The first argument of `select()` in the text of `/proc/PID/syscall`: the highest descriptor it
/// waits for, and one. Zero is how old programs sleep.
#[must_use]
pub fn waits_for(syscall: &str) -> Option<u64> {
    let mut fields = syscall.split_whitespace();
    let number = fields.next()?;
    let first = fields.next()?.strip_prefix("0x")?;
    SELECT.contains(&number).then(|| u64::from_str_radix(first, 16).ok())?
}

/// The ways to wait that a program imports; none where its file is not for us.
#[must_use]
pub fn imports(tree: &Tree, pid: u32) -> Option<Ways> {
    let file = format!("{pid}/{IMPORTS}");
    if !tree.is_live() {
        let text = tree.read_proc(&file).ok()?;
        let has = |word: &str| text.split_whitespace().any(|each| each == word);
        return Some(Ways { select: has("select"), poll: has("poll") });
    }
    let program = format!("/proc/{pid}/exe");
    let has = |names: &[&str]| elf::imports(Path::new(&program), names);
    let ways = Ways { select: has(&BY_SELECT)?, poll: has(&BY_POLL)? };
    let words = [ways.select.then_some("select"), ways.poll.then_some("poll")];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    tree.record_proc(&file, &format!("{}\n", words.join(" ")));
    Some(ways)
}

#[cfg(test)]
mod tests;
