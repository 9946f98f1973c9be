//! The limit on open files: how far a process may go, and how far it went.

use std::fmt;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{FactError, read};

/// What stands for "unlimited".
pub const UNLIMITED: u64 = u64::MAX;

/// `RLIMIT_NOFILE` of a process: the lowest descriptor number that it may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// What holds now.
    pub soft: u64,
    /// How far the process may raise it without privileges.
    pub hard: u64,
}

impl OpenFiles {
    /// The limit of this process.
    #[must_use]
    pub fn own() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self { soft: limit.current.unwrap_or(UNLIMITED), hard: limit.maximum.unwrap_or(UNLIMITED) }
    }

    /// The limit of any process; `/proc/PID/limits` is readable by everyone.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Self, FactError> {
        let path = format!("/proc/{pid}/limits");
        let path = Path::new(&path);
        let text = read(path)?;
        parse_open_files(&text).ok_or_else(|| FactError::unexpected(path, "row Max open files"))
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (hard {})", Number(self.soft), Number(self.hard))
    }
}

struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            UNLIMITED => out.write_str("unlimited"),
            number => write!(out, "{number}"),
        }
    }
}

/// Finds the row of open files in the text of `/proc/PID/limits`.
#[must_use]
pub fn parse_open_files(text: &str) -> Option<OpenFiles> {
    let row = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut columns = row.split_whitespace();
    Some(OpenFiles { soft: parse_limit(columns.next()?)?, hard: parse_limit(columns.next()?)? })
}

/// How many descriptors this process has open now.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn own_descriptors() -> Result<u64, FactError> {
    descriptors_in(Path::new("/proc/self/fd"))
}

pub(super) fn descriptors_in(path: &Path) -> Result<u64, FactError> {
    let unreadable = |error| FactError::unreadable(path, error);
    // Since Linux 6.2 the size of the directory is the count, and anyone may ask; before, it is 0.
    let counted = std::fs::metadata(path).map_err(unreadable)?.len();
    if counted > 0 {
        return Ok(counted);
    }
    let listed = std::fs::read_dir(path).map_err(unreadable)?.count();
    // Listing our own directory opens one descriptor more, which is gone by now.
    let listing = usize::from(path == Path::new("/proc/self/fd"));
    Ok(u64::try_from(listed.saturating_sub(listing)).unwrap_or(u64::MAX))
}

fn parse_limit(column: &str) -> Option<u64> {
    if column == "unlimited" { Some(UNLIMITED) } else { column.parse().ok() }
}

#[cfg(test)]
mod tests;
