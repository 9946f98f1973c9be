//! Who set the limit, in words, and what lifts it where this process was started.

use std::fmt;
use std::path::Path;

use super::Bound;
use super::launcher::{self, Ancestor, Launcher, Supervisord};
use crate::Tree;
use crate::facts::{OpenFiles, shown};
use crate::number::thousands;

/// At up to so many descriptors a server is told unasked how to have more: it is what shells,
/// distributions and kernels give to programs that never asked, and nobody's choice.
const FEW: u64 = 4096;
/// What to ask for where nobody said how many: more than one machine's crowd, and below
/// `fs.nr_open` everywhere.
const ENOUGH: u64 = 65_536;

/// Who set the limit, and who would have to raise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub setter: Setter,
    pub launcher: Launcher,
    limit: OpenFiles,
    /// The ancestors, the parent first.
    line: Vec<Ancestor>,
}

/// Where the limit comes from, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setter {
    /// The first of the ancestors that had it.
    Ancestor { pid: u32, name: String },
    /// supervisord had it first, below its parent's; and it never lowers one.
    BeforeSupervisord { pid: u32 },
    /// supervisord had it first, and it is what its `minfds` says.
    Minfds { pid: u32 },
    /// No ancestor has it: whoever started this process set it in between.
    AtStart,
    /// A setting of the kernel.
    Kernel(&'static str),
}

impl Origin {
    /// Reads who set the limit that holds for a process.
    #[must_use]
    pub fn read(proc: &Path, pid: u32, limit: OpenFiles, bound: Bound) -> Self {
        let (launcher, line) = launcher::read(&Tree::at(proc, "/"), pid);
        Self::of(limit, bound, launcher, line)
    }

    /// Tells who set a limit by the limits of the ancestors.
    #[must_use]
    pub fn of(limit: OpenFiles, bound: Bound, launcher: Launcher, line: Vec<Ancestor>) -> Self {
        let setter = match bound {
            Bound::NrOpen => Setter::Kernel("fs.nr_open"),
            Bound::FileMax => Setter::Kernel("fs.file-max"),
            Bound::OpenFiles => setter(limit.hard, &launcher, &line),
        };
        Self { setter, launcher, limit, line }
    }

    /// What became of the limit that this process was started with, and whose limit it is now.
    #[must_use]
    pub fn story(&self, was: OpenFiles) -> String {
        if was.soft >= self.limit.soft {
            return self.to_string();
        }
        let soft = thousands(was.soft);
        let raised = if self.limit.soft == self.limit.hard {
            "raised to the hard limit".to_owned()
        } else {
            format!("raised, below the hard limit of {}", thousands(self.limit.hard))
        };
        format!("soft was {soft}{}; {raised}; {self}", self.soft_by(was.soft))
    }

    /// Whose soft limit it was, where supervisord has a hand in it.
    fn soft_by(&self, soft: u64) -> String {
        let Launcher::Supervisord { it, .. } = &self.launcher else { return String::new() };
        let mut line = self.line.iter().skip_while(|each| each.pid != it.pid);
        let Some(own) = line.next().filter(|own| own.limit.soft == soft) else {
            return String::new();
        };
        match line.next().map(|parent| parent.limit.soft) {
            Some(before) if before < own.limit.soft && own.limit.soft == it.minfds => {
                format!(", which supervisord's minfds had made of {}", thousands(before))
            }
            _ if own.limit.soft == it.minfds => {
                ", the least that supervisord's minfds leaves".to_owned()
            }
            _ => ", as supervisord passes it on".to_owned(),
        }
    }

    /// How to have more, where there are so few that nobody can have meant it.
    #[must_use]
    pub fn more(&self) -> Option<String> {
        (self.limit.soft.min(self.limit.hard) <= FEW).then(|| {
            // As much as can be had without privileges, if that is more than now.
            let above = self.above().map_or(ENOUGH, |above| above.limit.hard);
            let without = Some(above).filter(|hard| *hard > self.limit.hard);
            format!("for more, {}", self.fix(without.unwrap_or(ENOUGH).min(ENOUGH)))
        })
    }

    /// What to do, so that so many descriptors are allowed, in a sentence's second half.
    #[must_use]
    pub fn fix(&self, needed: u64) -> String {
        if let Setter::Kernel(setting) = self.setter {
            return format!("run: sysctl -w {setting}={needed} (and write it to /etc/sysctl.d)");
        }
        match &self.launcher {
            Launcher::Supervisord { it, within } if self.has_it(it.pid) => {
                self.fix_supervisord(it, within, needed)
            }
            Launcher::Supervisord { .. } => format!(
                "set ulimit -n {needed} where the command of its [program:...] in supervisord's \
                 configuration sets it, and restart it"
            ),
            within => self.fix_start(within, needed, "it"),
        }
    }

    fn fix_supervisord(&self, it: &Supervisord, within: &Launcher, needed: u64) -> String {
        if it.may_raise {
            let config = shown(it.config.as_deref().unwrap_or(Path::new("supervisord.conf")));
            return format!(
                "set minfds={needed} under [supervisord] in {config}, then restart supervisord \
                 itself (reload and update do not apply it)"
            );
        }
        format!(
            "{}, then stop supervisord itself and start it there (reload and update do not apply \
             it); minfds cannot do it: this supervisord may not raise a hard limit, and would not \
             start",
            self.fix_start(within, needed, "supervisord")
        )
    }

    /// How to start something with another limit, where whoever had it first had it.
    fn fix_start(&self, within: &Launcher, needed: u64, what: &str) -> String {
        match within {
            Launcher::Container if self.is_everybodys() => format!(
                "start the container with --ulimit nofile={needed}:{needed} (compose: ulimits)"
            ),
            Launcher::Systemd(unit) if self.is_the_units() => format!(
                "run: systemctl edit {unit}, add [Service] and LimitNOFILE={needed}, then restart \
                 {unit}"
            ),
            _ => match &self.setter {
                Setter::Ancestor { pid, name } if *pid != 1 && self.above().is_some() => format!(
                    "start {name}, pid {pid}, again with: ulimit -n {needed}{}",
                    self.reach(needed)
                ),
                _ => format!(
                    "run: ulimit -n {needed} before {what} starts{}, as root if the shell refuses",
                    self.reach(needed)
                ),
            },
        }
    }

    /// How far it goes without being root.
    fn reach(&self, needed: u64) -> String {
        let lower = self.above().filter(|above| above.limit.hard < needed);
        lower.map_or_else(String::new, |above| {
            let Ancestor { pid, name, limit } = above;
            let hard = thousands(limit.hard);
            format!(" (as root: {name}, pid {pid}, above it, has {hard})")
        })
    }

    fn has_it(&self, pid: u32) -> bool {
        let mut same = self.line.iter().take_while(|each| each.limit.hard == self.limit.hard);
        same.any(|each| each.pid == pid)
    }

    /// Who stands above the first that had it, and has another.
    fn above(&self) -> Option<&Ancestor> {
        self.line.iter().find(|each| each.limit.hard != self.limit.hard)
    }

    /// Whether all that can be seen has it, up to the first process.
    fn is_everybodys(&self) -> bool {
        self.above().is_none()
    }

    /// Whether it came to this process, or to supervisord, from the system's first process.
    fn is_the_units(&self) -> bool {
        self.above().is_none_or(|above| above.pid == 1)
    }
}

/// The highest ancestor from which this hard limit was inherited without a change; none when the
/// parent already has another one.
fn first_with(hard: u64, ancestors: &[Ancestor]) -> Option<&Ancestor> {
    ancestors.iter().take_while(|each| each.limit.hard == hard).last()
}

fn setter(hard: u64, launcher: &Launcher, line: &[Ancestor]) -> Setter {
    let Some(first) = first_with(hard, line) else { return Setter::AtStart };
    let above = line.iter().find(|each| each.limit.hard != hard);
    match launcher {
        Launcher::Supervisord { it, .. } if it.pid == first.pid => {
            if above.is_some_and(|above| above.limit.hard > hard) {
                return Setter::BeforeSupervisord { pid: it.pid };
            }
            if it.may_raise && it.minfds == hard {
                return Setter::Minfds { pid: it.pid };
            }
        }
        _ => {}
    }
    Setter::Ancestor { pid: first.pid, name: first.name.clone() }
}

/// As what stands in parentheses behind the limit.
impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.launcher, &self.setter) {
            (Launcher::Systemd(unit), Setter::AtStart) if self.is_the_units() => {
                return write!(out, "set by systemd for {unit}");
            }
            (Launcher::Container, Setter::AtStart) if self.is_everybodys() => {
                return out.write_str("set where its container was started");
            }
            _ => write!(out, "{}", self.setter)?,
        }
        match (&self.launcher, &self.setter) {
            (Launcher::Supervisord { it, .. }, Setter::Ancestor { pid, .. })
                if *pid != it.pid && self.has_it(it.pid) =>
            {
                write!(out, "; supervisord, pid {}, passed it on and did not set it", it.pid)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Setter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ancestor { pid: 1, name } => write!(out, "{name}, pid 1, gives it to all"),
            Self::Ancestor { pid, name } => write!(out, "{name}, pid {pid}, had it first"),
            Self::BeforeSupervisord { pid } => write!(
                out,
                "set before supervisord, pid {pid}, began, which passed it on and did not set it"
            ),
            Self::Minfds { pid } => write!(out, "set by supervisord, pid {pid}: its minfds"),
            Self::AtStart => out.write_str("set where this process was started"),
            Self::Kernel(setting) => write!(out, "set by {setting}"),
        }
    }
}

#[cfg(test)]
mod tests;
