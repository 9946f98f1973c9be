//! What the kernel says, one file per source.

pub mod cgroup;
pub mod counters;
pub mod elf;
pub mod identity;
pub mod kernel;
pub mod limits;
pub mod listener;
pub mod netstat;
pub mod nginx;
pub mod process;
pub mod sockstat;
pub mod waiting;

pub use cgroup::Cgroup;
pub use counters::Network;
pub use identity::Identity;
pub use limits::OpenFiles;
pub use listener::listener_holder;
pub use process::{cpu_time, memory};

use std::io::Read as _;
use std::path::Path;

/// A fact that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// The file is not there, or not for us: the process is gone, or belongs to someone else.
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    /// The file is there and does not say what it says on any kernel we know.
    #[error("{path} has no {what}")]
    Unexpected { path: String, what: &'static str },
}

impl FactError {
    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { path: path.display().to_string(), source }
    }

    /// Whether it is not for us: root would see it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.kind() == Some(std::io::ErrorKind::PermissionDenied)
    }

    /// Whether it is not there; of a process: it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        // ESRCH: the process ended between opening and reading.
        let ended =
            matches!(self, Self::Unreadable { source, .. } if source.raw_os_error() == Some(3));
        ended || self.kind() == Some(std::io::ErrorKind::NotFound)
    }

    fn kind(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Unreadable { source, .. } => Some(source.kind()),
            Self::Unexpected { .. } => None,
        }
    }

    pub(crate) fn unexpected(path: &Path, what: &'static str) -> Self {
        Self::Unexpected { path: path.display().to_string(), what }
    }
}

fn read(path: &Path) -> Result<String, FactError> {
    std::fs::read_to_string(path).map_err(|error| FactError::unreadable(path, error))
}

/// As much of a file as any that is read here has; a stranger's configuration could be endless.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The beginning of a file, with whatever is no text made visible.
pub(crate) fn read_at_most(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A path for people: whoever may name a file must not speak to their terminal.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "?")
}
