//! Which connections a new process has touched: written down before it reads or writes one for the
//! first time, so that the old one knows, if the new one dies at once, which are as they were.
//!
//! The kernel's counters of a socket would tell the same, for a system call per connection while
//! everybody waits. This costs one for each connection that is really used in the first seconds,
//! and none afterwards.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::shard::{Touch, Witness};

/// Stands in the list when nothing more is added, whatever is touched. No connection has it.
const ANYTHING: u64 = u64::MAX;

/// The list: a file in memory that both processes have open, and that only grows.
#[derive(Debug)]
pub(crate) struct Touched(File);

impl Touched {
    /// An empty list.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(memfd_create("throng", MemfdFlags::CLOEXEC)?.into()))
    }

    /// The list as the other process has it.
    pub(crate) fn of(file: OwnedFd) -> Self {
        Self(file.into())
    }

    /// What adds to the list.
    pub(crate) fn witness(self) -> Witness {
        Arc::new(move |touch| match touch {
            Touch::Connection(number) => self.add(number),
            Touch::Anything => self.add(ANYTHING),
        })
    }

    /// Adds a connection. Several threads may do so: the kernel moves the end of a file under a
    /// lock of its own (write(2), POSIX 2.9.7).
    ///
    /// # Errors
    /// When there is no memory left; then the connection must not be touched.
    fn add(&self, number: u64) -> io::Result<()> {
        (&self.0).write_all(&number.to_le_bytes())
    }

    /// All that were added. The other process must have ended.
    ///
    /// # Errors
    /// When the list is not readable, or was closed: then any connection may have been touched.
    pub(crate) fn numbers(&self) -> io::Result<HashSet<u64>> {
        let mut bytes = Vec::new();
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        let (numbers, half) = bytes.as_chunks();
        let numbers: HashSet<u64> = numbers.iter().map(|each| u64::from_le_bytes(*each)).collect();
        if numbers.contains(&ANYTHING) || !half.is_empty() {
            return Err(io::Error::other("the list was closed"));
        }
        Ok(numbers)
    }
}

impl AsFd for Touched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_process_adds_from_several_threads_is_found_here() {
        let own = Touched::new().unwrap();
        let theirs = Touched::of(own.as_fd().try_clone_to_owned().unwrap());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let theirs = &theirs;
                scope.spawn(move || (0..500).for_each(|n| theirs.add(thread * 500 + n).unwrap()));
            }
        });
        assert_eq!(own.numbers().unwrap(), (0..2000).collect::<HashSet<u64>>());
    }

    #[test]
    fn a_list_that_was_closed_tells_nothing() {
        let own = Touched::new().unwrap();
        let witness = Touched::of(own.as_fd().try_clone_to_owned().unwrap()).witness();
        witness(Touch::Connection(7)).unwrap();
        assert_eq!(own.numbers().unwrap(), HashSet::from([7]));
        witness(Touch::Anything).unwrap();
        assert!(own.numbers().is_err());
    }
}
