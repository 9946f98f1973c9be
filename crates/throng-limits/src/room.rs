//! Works out how many descriptors there are to spend, what sets that number, and how to lift it.

use std::fmt;
use std::path::Path;

use crate::facts::launcher::{Launcher, ancestors, first_with, launcher};
use crate::facts::{OpenFiles, kernel};

/// What stops the next descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The process's own limit.
    OpenFiles,
    /// `fs.nr_open`.
    NrOpen,
    /// `fs.file-max`: the whole machine's.
    FileMax,
}

/// How many descriptors this process may have, by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    pub descriptors: u64,
    pub bound: Bound,
}

/// Who set the limit, and who would have to raise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub setter: Setter,
    pub launcher: Launcher,
}

/// Where the limit comes from, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setter {
    /// The first of the ancestors that had it.
    Ancestor { pid: u32, name: String },
    /// No ancestor has it: whoever started this process set it in between.
    AtStart,
    /// A setting of the kernel.
    Kernel(&'static str),
}

impl Ceiling {
    /// The lowest of the three bounds; one that cannot be read does not count.
    /// `open` is how many this process has open already, which file-max has counted.
    #[must_use]
    pub fn read(proc: &Path, limit: OpenFiles, open: u64) -> Self {
        let machine = kernel::file_numbers(proc).ok();
        Self::lowest(
            limit.soft,
            kernel::nr_open(proc).unwrap_or(u64::MAX),
            machine.map_or(u64::MAX, |numbers| numbers.left().saturating_add(open)),
        )
    }

    fn lowest(open_files: u64, nr_open: u64, file_max: u64) -> Self {
        let bounds =
            [(open_files, Bound::OpenFiles), (nr_open, Bound::NrOpen), (file_max, Bound::FileMax)];
        // Of equal ones the first: the process's own limit is the one that is raised first.
        let (descriptors, bound) = bounds
            .into_iter()
            .min_by_key(|(number, _)| *number)
            .unwrap_or((open_files, Bound::OpenFiles));
        Self { descriptors, bound }
    }
}

impl Origin {
    /// Reads who set the limit that holds for a process.
    #[must_use]
    pub fn read(proc: &Path, pid: u32, limit: OpenFiles, bound: Bound) -> Self {
        let line = ancestors(proc, pid);
        let setter = match bound {
            Bound::NrOpen => Setter::Kernel("fs.nr_open"),
            Bound::FileMax => Setter::Kernel("fs.file-max"),
            Bound::OpenFiles => first_with(limit.hard, &line).map_or(Setter::AtStart, |first| {
                Setter::Ancestor { pid: first.pid, name: first.name.clone() }
            }),
        };
        Self { setter, launcher: launcher(proc, pid, &line) }
    }

    /// What to do, so that so many descriptors are allowed, in a sentence's second half.
    #[must_use]
    pub fn fix(&self, needed: u64) -> String {
        if let Setter::Kernel(setting) = self.setter {
            return format!("run: sysctl -w {setting}={needed} (and write it to /etc/sysctl.d)");
        }
        match &self.launcher {
            Launcher::Supervisord => format!(
                "set minfds={needed} under [supervisord] in supervisord.conf and, if it runs as a \
                 systemd unit, LimitNOFILE={needed} there, then restart supervisord itself \
                 (reload and update do not apply it)"
            ),
            Launcher::Container => format!(
                "start the container with --ulimit nofile={needed}:{needed} (compose: ulimits)"
            ),
            Launcher::Systemd(unit) => format!(
                "run: systemctl edit {unit}, add [Service] and LimitNOFILE={needed}, then restart \
                 it"
            ),
            Launcher::Shell => {
                format!("run: ulimit -n {needed} before it starts, as root if the shell refuses")
            }
        }
    }
}

impl fmt::Display for Setter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ancestor { pid: 1, name } => write!(out, "as {name}, pid 1, gives it to all"),
            Self::Ancestor { pid, name } => write!(out, "set by {name}, pid {pid}"),
            Self::AtStart => out.write_str("set where this process was started"),
            Self::Kernel(setting) => write!(out, "set by {setting}"),
        }
    }
}

#[cfg(test)]
mod tests;
