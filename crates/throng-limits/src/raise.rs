//! Raises the limit on open files: the own soft one as far as it may go, another process's to a number.

use std::fmt;

use rustix::process::{Pid, Resource, Rlimit, prlimit, setrlimit};

use crate::facts::limits::{OpenFiles, UNLIMITED};

/// Where raising stops: the kernel's own default for `fs.nr_open`. Programs that walk all possible
/// descriptors (old daemons, started as our children) take minutes when told "unlimited".
pub const OPEN_FILES_MAX: u64 = 1 << 20;

/// What the limit was, and what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    pub was: OpenFiles,
    pub is: OpenFiles,
}

/// The kernel did not let us.
#[derive(Debug, thiserror::Error)]
#[error("cannot raise the limit on open files from {} to {wanted}: {source}", .was.soft)]
pub struct RaiseError {
    pub was: OpenFiles,
    pub wanted: u64,
    pub source: std::io::Error,
}

impl fmt::Display for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.was == self.is {
            return write!(out, "limit on open files: {}", self.is);
        }
        write!(out, "limit on open files: {}, raised from {}", self.is, self.was.soft)
    }
}

/// Raises the soft limit to the hard one, at most to [`OPEN_FILES_MAX`]; never lowers it.
///
/// # Errors
/// When the kernel refuses, which it does when `fs.nr_open` was lowered below the hard limit.
pub fn raise_open_files() -> Result<Raised, RaiseError> {
    let was = OpenFiles::own();
    let wanted = wanted_soft(was);
    if wanted == was.soft {
        return Ok(Raised { was, is: was });
    }
    let maximum = (was.hard != UNLIMITED).then_some(was.hard);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|error| RaiseError { was, wanted, source: error.into() })?;
    Ok(Raised { was, is: OpenFiles::own() })
}

/// Raises the soft limit of a running process, and its hard one where that is lower; never lowers
/// either. It counts from the next descriptor on, and nobody is disconnected.
///
/// # Errors
/// When the process is gone, or whoever asks may not: the hard limit takes `CAP_SYS_RESOURCE`,
/// and no limit goes above `fs.nr_open`.
pub fn raise_open_files_of(pid: u32, wanted: u64) -> Result<Raised, RaiseError> {
    let fails = |was, source: std::io::Error| RaiseError { was, wanted, source };
    let was = OpenFiles::of(pid).map_err(|error| {
        fails(OpenFiles { soft: 0, hard: 0 }, std::io::Error::other(error.to_string()))
    })?;
    if was.soft >= wanted {
        return Ok(Raised { was, is: was });
    }
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(number) = number else {
        return Err(fails(was, std::io::ErrorKind::NotFound.into()));
    };
    let maximum = (was.hard != UNLIMITED).then_some(was.hard.max(wanted));
    prlimit(Some(number), Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|error| fails(was, error.into()))?;
    let is =
        OpenFiles::of(pid).map_err(|error| fails(was, std::io::Error::other(error.to_string())))?;
    Ok(Raised { was, is })
}

fn wanted_soft(limits: OpenFiles) -> u64 {
    limits.soft.max(limits.hard.min(OPEN_FILES_MAX))
}

#[cfg(test)]
mod tests;
