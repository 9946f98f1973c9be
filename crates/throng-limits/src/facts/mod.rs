//! What the kernel says, one file per source.

pub mod kernel;
pub mod launcher;
pub mod limits;
pub mod listener;
pub mod nginx;
pub mod process;
pub mod supervisord;

pub use limits::OpenFiles;
pub use listener::{listener_holder, listening_inodes};
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
    fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { path: path.display().to_string(), source }
    }

    fn unexpected(path: &Path, what: &'static str) -> Self {
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
