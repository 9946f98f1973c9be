//! What started this process, as far as its start line tells: read by `origin`, which knows it all.

use std::path::PathBuf;

use crate::Tree;
use crate::facts::OpenFiles;
use crate::origin::{Keeping, Relative, Scope, keeping, lineage};

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

/// A running supervisord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisord {
    pub pid: u32,
    /// It raises its soft limit to this, once, when it starts; it never lowers one.
    pub minfds: u64,
    /// The file that sets it, or could.
    pub config: Option<PathBuf>,
    /// Whether it could raise a hard limit, too. If not, it does not start with a higher `minfds`.
    pub may_raise: bool,
}

/// The ancestors of a process, its parent first, and what keeps it running.
pub(super) fn read(tree: &Tree, pid: u32) -> (Launcher, Vec<Ancestor>) {
    let line = lineage(tree, pid);
    let Keeping { supervisord, container, unit } = keeping(tree, &line);
    // A service of a user is started by whoever logs in as that user.
    let unit = unit.filter(|(name, scope)| *scope == Scope::System && !name.starts_with("user@"));
    let within = match (container, unit) {
        (true, _) => Launcher::Container,
        (false, Some((name, _))) => Launcher::Systemd(name),
        (false, None) => Launcher::Shell,
    };
    let launcher = match supervisord {
        Some((at, minfds, config)) => Launcher::Supervisord {
            it: Supervisord {
                pid: line[at].pid,
                minfds,
                config: config.map(PathBuf::from),
                may_raise: line[at].raises,
            },
            within: Box::new(within),
        },
        None => within,
    };
    (launcher, line.into_iter().skip(1).map(Ancestor::from).collect())
}

impl From<Relative> for Ancestor {
    fn from(relative: Relative) -> Self {
        Self { pid: relative.pid, name: relative.name, limit: relative.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of one process, in this cgroup.
    fn launcher(cgroup: &str, name: &str) -> Launcher {
        let at =
            std::env::temp_dir().join(format!("throng-launcher-{name}-{}", std::process::id()));
        let limits = "Max open files            1024  4096  files\n";
        for (file, text) in [
            ("9/limits", limits),
            ("9/cgroup", cgroup),
            ("9/status", "PPid:\t7\n"),
            ("7/limits", limits),
            ("7/comm", name),
            ("7/status", "PPid:\t0\n"),
        ] {
            let file = at.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let (launcher, line) = read(&Tree::at(&at, at.join("root")), 9);
        std::fs::remove_dir_all(&at).unwrap();
        assert_eq!(line.len(), 1);
        launcher
    }

    #[test]
    fn the_launcher_is_told_by_ancestors_and_cgroups() {
        let check = |cgroup: &str, wanted: Launcher| {
            assert_eq!(launcher(cgroup, "sh"), wanted, "{cgroup}");
        };
        check("0::/system.slice/push.service\n", Launcher::Systemd("push.service".to_owned()));
        check("0::/user.slice/user-0.slice/session-3.scope\n", Launcher::Shell);
        check("0::/user.slice/user-1000.slice/user@1000.service\n", Launcher::Shell);
        check("0::/system.slice/docker-4af.scope\n", Launcher::Container);
        check("12:pids:/kubepods/burstable/pod1/4af\n0::/\n", Launcher::Container);
        check("0::/\n", Launcher::Shell);
        check("nonsense", Launcher::Shell);
        let found = launcher("0::/\n", "supervisord");
        assert!(
            matches!(found, Launcher::Supervisord { it, .. } if it.pid == 7 && it.minfds == 1024)
        );
    }
}
