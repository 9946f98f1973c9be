//! What may be typed after `throng doctor`.

use std::path::PathBuf;

use clap::Args;

/// What limits a process, who set it, and how to lift it; without a process, the whole machine.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The process; none: ranks every process by how full it is
    pub(crate) pid: Option<u32>,
    /// Processes of this name, such as nginx or push.py
    #[arg(long, conflicts_with = "pid")]
    pub(crate) name: Option<String>,
    /// Processes of this systemd unit
    #[arg(long, conflicts_with_all = ["pid", "name"])]
    pub(crate) unit: Option<String>,
    /// Who listens on this TCP port, and what stands behind it
    #[arg(long, conflicts_with_all = ["pid", "name", "unit"])]
    pub(crate) port: Option<u16>,
    /// Would so many connections fit?
    #[arg(long, value_name = "N")]
    pub(crate) need: Option<u64>,
    /// Raise the limit on open files of the running process to N; nobody is disconnected
    #[arg(long, value_name = "N")]
    pub(crate) raise: Option<u64>,
    /// With --raise: of its supervisor too, so that what it starts next has it as well
    #[arg(long, requires = "raise")]
    pub(crate) with_parent: bool,
    /// Let N connections wait at the running process's listeners
    #[arg(long, value_name = "N")]
    pub(crate) raise_backlog: Option<u32>,
    /// Do not ask before something is raised
    #[arg(long)]
    pub(crate) yes: bool,
    /// What stops a crowd at N connections? Known limits that show themselves at this number
    #[arg(long, value_name = "N", exclusive = true)]
    pub(crate) ceiling: Option<u64>,
    /// Look again every so many seconds: what grows, and when it is full
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2")]
    pub(crate) watch: Option<u64>,
    /// With --watch: stop after so many looks
    #[arg(long, value_name = "N", requires = "watch")]
    pub(crate) looks: Option<u64>,
    /// Leave a copy of everything that is read in an empty directory, to send to somebody
    #[arg(long, value_name = "DIR", requires = "pid")]
    pub(crate) capture: Option<PathBuf>,
    /// Read this instead of /proc: the proc of a copy
    #[arg(long, value_name = "DIR")]
    pub(crate) proc: Option<PathBuf>,
    /// Read this instead of /: the root of a copy
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// What changed between two copies
    #[arg(
        long, num_args = 2, value_names = ["A", "B"],
        conflicts_with_all = [
            "pid", "name", "unit", "port", "need", "raise", "raise_backlog", "watch", "capture",
            "proc", "root", "all",
        ],
    )]
    pub(crate) diff: Option<Vec<PathBuf>>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Every ceiling, finding and piece of evidence
    #[arg(long)]
    pub(crate) all: bool,
}
