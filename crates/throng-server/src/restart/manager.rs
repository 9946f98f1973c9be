//! Who watches this process, and what a change of its number means to them.
//!
//! A restart gives the server a new process. A manager that watches a number has to be told of the
//! new one (systemd, with `Type=notify`), or must never see the number change: then the server
//! runs behind a parent that stays (`keeper`).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Set for a server that runs behind a keeper: its standard input is the way to it.
pub const KEEPER_VARIABLE: &str = "THRONG_KEEPER";
/// Set for a server that takes over from another: its standard input is the way to that one.
pub const HANDOFF_VARIABLE: &str = "THRONG_HANDOFF";
/// Where systemd listens; sd_notify(3).
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";
/// Programs that watch their child and know no other.
const WATCHERS: [&str; 7] =
    ["supervisord", "runsv", "s6-supervise", "supervise", "perpd", "monit", "dinit"];

/// What watches the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Nothing: a shell, whose job ends with the first process.
    None,
    /// systemd, which can be told of a new main process.
    Notified,
    /// A program that would take the first restart for an end, and so needs a keeper.
    Watching(&'static str),
    /// A keeper of ours: the new process tells it.
    Kept,
}

/// What is known of the surroundings of a process.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub pid: u32,
    /// The name of its parent.
    pub parent: String,
    pub parent_pid: u32,
    /// `NOTIFY_SOCKET` is set.
    pub notifies: bool,
    /// `INVOCATION_ID` is set: some ancestor is a unit of systemd's.
    pub is_unit: bool,
    /// `SUPERVISOR_ENABLED` is set.
    pub is_supervised: bool,
    pub is_kept: bool,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn read() -> Self {
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let parent_pid = parent_in(&status).unwrap_or(0);
        let comm = Path::new("/proc").join(parent_pid.to_string()).join("comm");
        Self {
            pid: std::process::id(),
            parent: std::fs::read_to_string(comm).unwrap_or_default().trim().to_owned(),
            parent_pid,
            notifies: set(NOTIFY_VARIABLE),
            is_unit: set("INVOCATION_ID"),
            is_supervised: set("SUPERVISOR_ENABLED"),
            is_kept: set(KEEPER_VARIABLE),
        }
    }

    /// Who watches.
    #[must_use]
    pub fn watched_by(&self) -> Manager {
        if self.is_kept {
            return Manager::Kept;
        }
        if self.pid == 1 {
            return Manager::Watching("the container, whose first process this is");
        }
        let watcher = WATCHERS.iter().find(|name| self.parent == **name);
        match watcher {
            Some(name) => Manager::Watching(name),
            // A shell between the two that did not exec.
            None if self.is_supervised => Manager::Watching("supervisord"),
            None if self.notifies => Manager::Notified,
            // Whoever was started by a unit's own shell has it in its environment, too.
            None if self.is_unit && self.parent_pid == 1 => {
                Manager::Watching("systemd, whose unit is not Type=notify")
            }
            None => Manager::None,
        }
    }
}

/// The parent in the text of `/proc/PID/status`.
pub(crate) fn parent_in(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Tells systemd something; does nothing where it does not listen.
///
/// # Errors
/// When it listens and cannot be told.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let Some(path) = env::var_os(NOTIFY_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let address = match path.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched_by(change: impl FnOnce(&mut Surroundings)) -> Manager {
        let mut surroundings = Surroundings {
            pid: 71,
            parent: "bash".to_owned(),
            parent_pid: 70,
            ..Default::default()
        };
        change(&mut surroundings);
        surroundings.watched_by()
    }

    #[test]
    fn a_shell_watches_nothing_and_a_keeper_is_told() {
        assert_eq!(watched_by(|_| {}), Manager::None);
        assert_eq!(watched_by(|s| s.is_kept = true), Manager::Kept);
        // Whatever else the keeper's own manager left in the environment.
        assert_eq!(
            watched_by(|s| {
                s.is_kept = true;
                s.is_supervised = true;
            }),
            Manager::Kept
        );
    }

    #[test]
    fn who_knows_only_its_child_must_not_see_it_change() {
        let watching = |s: fn(&mut Surroundings)| matches!(watched_by(s), Manager::Watching(_));
        assert!(watching(|s| s.parent = "supervisord".to_owned()));
        assert!(watching(|s| s.parent = "runsv".to_owned()));
        assert!(watching(|s| s.is_supervised = true));
        assert!(watching(|s| s.pid = 1));
        assert!(watching(|s| {
            s.is_unit = true;
            s.parent_pid = 1;
        }));
    }

    #[test]
    fn systemd_is_told_where_it_listens() {
        assert_eq!(watched_by(|s| s.notifies = true), Manager::Notified);
        // A shell of a unit: nobody there waits for this process.
        assert_eq!(watched_by(|s| s.is_unit = true), Manager::None);
    }
}
