//! Who started this process, and which of its ancestors first had its limit.

use std::path::Path;

use super::OpenFiles;
use super::limits::parse_open_files;
use super::supervisord::Supervisord;

/// Ancestors that are asked: no machine nests deeper, and a forged tree could be a circle.
const ANCESTORS_MAX: usize = 64;

/// One process of the line from this one to the machine's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    pub pid: u32,
    pub name: String,
    pub limit: OpenFiles,
}

/// What keeps this process running, as far as it decides where a limit is raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    Supervisord {
        it: Supervisord,
        /// What keeps supervisord itself running.
        within: Box<Self>,
    },
    Container,
    /// A unit, such as `push.service`.
    Systemd(String),
    /// A shell, or something unknown.
    Shell,
}

/// The ancestors of a process, its parent first. Ends where one cannot be seen.
#[must_use]
pub fn ancestors(proc: &Path, pid: u32) -> Vec<Ancestor> {
    let mut line = Vec::new();
    let mut next = parent(proc, pid);
    while let Some(pid) = next.filter(|pid| *pid > 0) {
        let at = proc.join(pid.to_string());
        let limits = std::fs::read_to_string(at.join("limits")).ok();
        let Some(limit) = limits.as_deref().and_then(parse_open_files) else { break };
        let name = std::fs::read_to_string(at.join("comm")).unwrap_or_default();
        // Whoever has a process may name it as he likes, and the name goes to logs and terminals.
        let name = name.trim().replace(char::is_control, "?");
        line.push(Ancestor { pid, name, limit });
        if line.len() == ANCESTORS_MAX {
            break;
        }
        next = parent(proc, pid);
    }
    line
}

/// The highest ancestor from which this hard limit was inherited without a change; none when the
/// parent already has another one.
#[must_use]
pub fn first_with(hard: u64, ancestors: &[Ancestor]) -> Option<&Ancestor> {
    ancestors.iter().take_while(|each| each.limit.hard == hard).last()
}

/// Reads who started a process.
#[must_use]
pub fn launcher(proc: &Path, pid: u32, ancestors: &[Ancestor]) -> Launcher {
    let cgroup = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup"));
    let within = launcher_of(&cgroup.unwrap_or_default(), Path::new("/.dockerenv").exists());
    match ancestors.iter().find(|each| each.name == "supervisord") {
        Some(each) => Launcher::Supervisord {
            it: Supervisord::read(proc, each.pid),
            within: Box::new(within),
        },
        None => within,
    }
}

/// Tells who started a process by the text of its `cgroup`.
#[must_use]
pub fn launcher_of(cgroup: &str, in_container: bool) -> Launcher {
    let paths = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let contained = |path: &str| {
        ["docker", "kubepods", "containerd", "libpod"].iter().any(|name| path.contains(name))
    };
    // Docker's own daemon is a unit with that name, and no container.
    if in_container || paths().any(|path| contained(path) && !path.ends_with(".service")) {
        return Launcher::Container;
    }
    paths().find_map(unit).map_or(Launcher::Shell, Launcher::Systemd)
}

/// The unit of the system that a path of cgroups ends in; a login session is none.
fn unit(path: &str) -> Option<String> {
    let last = path.rsplit('/').find(|part| !part.is_empty())?;
    let login = last.starts_with("session-") || path.contains("/user.slice/");
    (last.ends_with(".service") && !login).then(|| last.to_owned())
}

pub(crate) fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    parse_parent(&status)
}

/// Finds the parent in the text of `/proc/PID/status`.
#[must_use]
pub fn parse_parent(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
