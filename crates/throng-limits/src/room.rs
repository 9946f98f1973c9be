//! Works out how many descriptors there are to spend, what sets that number, and how to lift it.

mod launcher;
pub mod nginx;
mod origin;

use std::path::Path;

use crate::facts::{OpenFiles, kernel};

pub use launcher::{Ancestor, Launcher, Supervisord};
pub use origin::{Origin, Setter};

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

#[cfg(test)]
mod tests;
