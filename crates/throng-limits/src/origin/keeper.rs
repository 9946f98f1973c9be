//! Small service managers: the file that each starts a service by, and the limit that it sets.

use super::source::{Disk, Evidence};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Runit,
    Daemontools,
    S6,
    OpenRc,
}

/// A service that one of them keeps running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub kind: Kind,
    pub name: String,
    /// The file to edit.
    pub file: String,
    /// The line that sets the limit now.
    pub sets: Option<Evidence>,
}

impl Kind {
    /// The program that is a service's parent.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "runsv" => Some(Self::Runit),
            "supervise" => Some(Self::Daemontools),
            "s6-supervise" => Some(Self::S6),
            "supervise-daemon" => Some(Self::OpenRc),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runit => "runit",
            Self::Daemontools => "daemontools",
            Self::S6 => "s6",
            Self::OpenRc => "OpenRC",
        }
    }

    /// The command that sets a limit before a service, with the way to start it again. A service is
    /// named by its directory, wherever that is; OpenRC's by its name.
    #[must_use]
    pub fn words(self, limit: u64, service: &str) -> (String, String) {
        match self {
            Self::Runit => (format!("chpst -o {limit}"), format!("sv restart {service}")),
            Self::Daemontools => (format!("softlimit -o {limit}"), format!("svc -t {service}")),
            Self::S6 => (format!("s6-softlimit -H -o {limit}"), format!("s6-svc -r {service}")),
            Self::OpenRc => {
                (format!("rc_ulimit=\"-n {limit}\""), format!("rc-service {service} restart"))
            }
        }
    }

    fn directories(self) -> &'static [&'static str] {
        match self {
            Self::Runit => &["/etc/service", "/var/service", "/etc/sv"],
            Self::Daemontools => &["/service", "/etc/service"],
            Self::S6 => &["/run/service", "/etc/s6/sv", "/etc/services.d"],
            Self::OpenRc => &["/etc/conf.d"],
        }
    }
}

impl Service {
    /// What its tools know it by.
    #[must_use]
    pub(super) fn handle(&self) -> &str {
        let directory = self.file.strip_suffix("/run").filter(|_| self.kind != Kind::OpenRc);
        directory.unwrap_or(&self.name)
    }

    /// Reads the service that a keeper with this command line keeps: `runsv push`.
    pub(crate) fn read(disk: Disk<'_>, kind: Kind, name: &str, cwd: Option<&str>) -> Self {
        let name = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name);
        let here = cwd.map(|cwd| format!("{cwd}/run")).filter(|_| kind != Kind::OpenRc);
        let usual = kind.directories().iter().map(|directory| match kind {
            Kind::OpenRc => format!("{directory}/{name}"),
            _ => format!("{directory}/{name}/run"),
        });
        let mut paths: Vec<_> = here.into_iter().chain(usual).collect();
        let found = paths.iter().position(|path| disk.has(path) == Some(true)).unwrap_or(0);
        let file = paths.swap_remove(found);
        let sets = disk.read(&file).and_then(|source| {
            let line = source.text.lines().position(sets_limit)?;
            Some(source.evidence(line + 1))
        });
        Self { kind, name: name.to_owned(), file, sets }
    }
}

/// Whether a line of a script sets the limit on files.
#[must_use]
pub(super) fn sets_limit(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let mut words =
        line.split(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '"' | '\'' | '(' | '='));
    let program = |word: &str| {
        matches!(
            word.rsplit('/').next(),
            Some("ulimit" | "chpst" | "softlimit" | "s6-softlimit" | "rc_ulimit")
        )
    };
    if !words.by_ref().any(program) {
        return false;
    }
    words.any(|word| {
        let flags = word.strip_prefix('-').filter(|flags| !flags.starts_with('-'));
        flags.is_some_and(|flags| flags.contains(['n', 'o']))
    })
}

/// The OpenRC service of a cgroup such as `/openrc.push`.
#[must_use]
pub(super) fn openrc_of(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts = paths.flat_map(|path| path.split('/'));
    parts.find_map(|part| part.strip_prefix("openrc.")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_set_the_limit_are_told_from_those_that_do_not() {
        for line in [
            "ulimit -n 65535",
            "  ulimit -Sn 65535; exec x",
            "exec chpst -u app -o 4096 ./push",
            "exec /usr/bin/softlimit -o 4096 ./push",
            "rc_ulimit=\"-n 65535\"",
            "sh -c 'ulimit -n 1024; exec server'",
        ] {
            assert!(sets_limit(line), "{line}");
        }
        for line in
            ["ulimit -c 0", "# ulimit -n 65535", "exec chpst -u app ./push", "echo -n ulimit"]
        {
            assert!(!sets_limit(line), "{line}");
        }
    }

    #[test]
    fn openrc_names_its_cgroups_after_services() {
        assert_eq!(openrc_of("0::/openrc.push\n").as_deref(), Some("push"));
        assert_eq!(openrc_of("0::/system.slice/push.service\n"), None);
    }
}
