//! What started a process, and would start it again.

use super::container::{Runtime, container_of};
use super::keeper::{Kind, openrc_of};
use super::lineage::Relative;
use super::unit::{Scope, unit_of};

/// What keeps a process running, as far as it decides where a limit is raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    Supervisord {
        pid: u32,
        name: String,
        unit: Option<String>,
    },
    Unit {
        name: String,
        scope: Scope,
    },
    Container(Runtime),
    /// runit and the like; the pid where it is an ancestor.
    Keeper {
        kind: Kind,
        service: String,
        pid: Option<u32>,
    },
    /// A program that opened a session by PAM: `su`, `sshd`, `cron`.
    Session {
        service: String,
        pid: Option<u32>,
    },
    /// A shell of which no login can be seen.
    Shell {
        pid: u32,
        name: String,
    },
    Unknown,
}

/// What the environment of a process tells by the names in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub names: Vec<String>,
}

impl Marks {
    /// Finds the names in the text of `/proc/PID/environ`.
    #[must_use]
    pub(super) fn parse(environ: &str) -> Self {
        let name = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
        Self { names: environ.split('\0').filter_map(name).collect() }
    }

    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|each| each == name)
    }
}

/// What a launcher is told by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs<'a> {
    pub(crate) line: &'a [Relative],
    pub(crate) cgroup: &'a str,
    pub(crate) marks: &'a Marks,
    /// The whole machine that we see is a container.
    pub(crate) inside: Inside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    Container,
    Machine,
}

/// The container that a process is in.
pub(crate) fn container(signs: Signs<'_>) -> Option<(Runtime, String)> {
    if let Some(found) = container_of(signs.cgroup) {
        return Some(found);
    }
    if signs.marks.has("KUBERNETES_SERVICE_HOST") {
        return Some((Runtime::Kubernetes, String::new()));
    }
    let contained = signs.inside == Inside::Container || signs.marks.has("container");
    contained.then(|| (Runtime::Unknown, String::new()))
}

/// Tells what started a process: the closest of its ancestors that starts things, or what its
/// cgroup and environment remember where the ancestor is gone.
pub(crate) fn launcher(signs: Signs<'_>) -> Launcher {
    let above = signs.line.iter().enumerate().skip(1);
    for (at, each) in above.clone() {
        if is_supervisord(each) {
            let unit = unit_of(signs.cgroup).map(|(name, _)| name);
            return Launcher::Supervisord { pid: each.pid, name: each.name.clone(), unit };
        }
        if let Some(kind) = Kind::of(&each.name) {
            let service = each.cmdline.get(1).cloned().unwrap_or_default();
            return Launcher::Keeper { kind, service, pid: Some(each.pid) };
        }
        if is_shim(&each.name) {
            break;
        }
        let keeps_unit = is_user_manager(each) && unit_of(signs.cgroup).is_some();
        if let Some(service) = pam_service(each).filter(|_| at > 0 && !keeps_unit) {
            return Launcher::Session { service: service.to_owned(), pid: Some(each.pid) };
        }
    }
    if let Some((runtime, _)) = container(signs).filter(|_| signs.inside == Inside::Machine) {
        return Launcher::Container(runtime);
    }
    if let Some(service) = openrc_of(signs.cgroup) {
        return Launcher::Keeper { kind: Kind::OpenRc, service, pid: None };
    }
    if let Some((name, scope)) = unit_of(signs.cgroup) {
        return Launcher::Unit { name, scope };
    }
    if let Some(service) = remembered(signs) {
        return Launcher::Session { service: service.to_owned(), pid: None };
    }
    // In a container of our own, somebody's shell is closer than what started the container.
    let mut shells =
        above.map(|(_, each)| each).filter(|each| is_shell(&each.name) && each.pid != 1);
    match (shells.next(), container(signs)) {
        (Some(shell), _) => Launcher::Shell { pid: shell.pid, name: shell.name.clone() },
        (None, Some((runtime, _))) => Launcher::Container(runtime),
        (None, None) => Launcher::Unknown,
    }
}

/// The service of PAM under which a program opens sessions.
pub(crate) fn pam_service(program: &Relative) -> Option<&'static str> {
    let has = |words: &[&str]| program.cmdline.iter().any(|word| words.contains(&word.as_str()));
    let login = has(&["-", "-l", "--login"]);
    Some(match program.name.as_str() {
        "sshd" | "sshd-session" => "sshd",
        "su" if login => "su-l",
        "su" => "su",
        "sudo" if has(&["-i", "--login"]) => "sudo-i",
        "sudo" => "sudo",
        "runuser" if login => "runuser-l",
        // Without -c it is given a program and opens no session: --user.
        "runuser" if has(&["-u", "--user"]) => return None,
        "runuser" => "runuser",
        "cron" | "CRON" => "cron",
        "crond" => "crond",
        "login" => "login",
        _ if is_user_manager(program) => "systemd-user",
        _ => return None,
    })
}

pub(crate) fn is_user_manager(program: &Relative) -> bool {
    program.name == "systemd" && program.pid != 1
}

pub(crate) fn is_supervisord(program: &Relative) -> bool {
    program.name == "supervisord"
}

pub(crate) fn is_shell(name: &str) -> bool {
    matches!(
        name.trim_start_matches('-'),
        "sh" | "bash" | "dash" | "zsh" | "ash" | "ksh" | "fish" | "busybox"
    )
}

/// The parent of what runs in a container.
pub(crate) fn is_shim(name: &str) -> bool {
    name.starts_with("containerd-shim") || name == "conmon" || name == "docker-containe"
}

/// The session that a process without visible ancestors came out of.
fn remembered(signs: Signs<'_>) -> Option<&'static str> {
    let in_session = signs.cgroup.split('/').any(|part| part.trim().starts_with("session-"));
    let marks = [("SUDO_USER", "sudo"), ("SSH_CONNECTION", "sshd")];
    let marked = marks.iter().find(|(name, _)| signs.marks.has(name)).map(|(_, service)| *service);
    // Without a mark, a session of the console is the rarer guess; su from root has its own name.
    marked.or_else(|| {
        in_session.then(|| if signs.cgroup.contains("/session-c") { "su" } else { "sshd" })
    })
}

#[cfg(test)]
mod tests;
