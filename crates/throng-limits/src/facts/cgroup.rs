//! What a process's control groups allow it: memory and threads, both versions.

use crate::tree::Tree;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Groups within groups that are looked at.
const DEPTH_MAX: usize = 32;
/// From here on a limit is none: version 1 writes "unlimited" as a page short of 2^63.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The narrowest limits on the way from a process's group to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The group, such as `/system.slice/push.service`; `/` where there is none.
    pub path: String,
    pub memory: Option<Use>,
    /// `pids.max`: processes and threads.
    pub tasks: Option<Use>,
}

/// A limit, what is used of it, and where both were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub limit: u64,
    pub used: u64,
    pub at: String,
}

/// A version's directory below the mount, and the names of its files.
struct Files {
    below: &'static str,
    limit: &'static str,
    used: &'static str,
}

impl Cgroup {
    /// Reads the limits that a process's groups set.
    #[must_use]
    pub fn read(tree: &Tree, pid: u32) -> Self {
        let text = tree.read_proc(&format!("{pid}/cgroup")).unwrap_or_default();
        let unified = parse_group(&text, "");
        let memory_one = parse_group(&text, "memory");
        let tasks_one = parse_group(&text, "pids");
        let memory =
            |path: &str, below, limit, used| narrowest(tree, path, &Files { below, limit, used });
        Self {
            memory: memory_one
                .map(|path| {
                    memory(path, "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
                })
                .or_else(|| unified.map(|path| memory(path, "", "memory.max", "memory.current")))
                .flatten(),
            tasks: tasks_one
                .map(|path| memory(path, "/pids", "pids.max", "pids.current"))
                .or_else(|| unified.map(|path| memory(path, "", "pids.max", "pids.current")))
                .flatten(),
            path: unified.or(memory_one).unwrap_or("/").to_owned(),
        }
    }
}

/// Finds the group of a controller in the text of `/proc/PID/cgroup`; the unified one is `""`.
#[must_use]
pub fn parse_group<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|each| each == controller).then_some(path)
    })
}

/// Of the group and those around it, the limit that leaves least.
fn narrowest(tree: &Tree, path: &str, files: &Files) -> Option<Use> {
    let mut narrowest: Option<Use> = None;
    let mut path = path.trim_end_matches('/');
    for _ in 0..DEPTH_MAX {
        let group = format!("{MOUNT}{}{path}", files.below);
        let number = |file: &str| {
            let text = tree.read_root(&format!("{group}/{file}")).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let Some((limit, used)) = number(files.limit).zip(number(files.used))
            && limit < UNLIMITED_FROM
        {
            let here = Use { limit, used, at: format!("{group}/{}", files.limit) };
            let left = |each: &Use| each.limit.saturating_sub(each.used);
            if narrowest.as_ref().is_none_or(|before| left(&here) < left(before)) {
                narrowest = Some(here);
            }
        }
        let Some((outer, _)) = path.rsplit_once('/') else { break };
        path = outer;
    }
    narrowest
}

#[cfg(test)]
mod tests;
