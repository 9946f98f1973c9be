//! What a process has open: how many descriptors, which numbers, of what kind.

mod kind;
mod look;
mod watches;
mod written;

pub use kind::{Kind, Kinds, socket_inode};
pub use watches::{Watched, Watches, watches};
pub use written::{AllWritten, Written, written};

use std::path::Path;

use crate::facts::FactError;
use crate::tree::Tree;

pub(crate) use look::FirstLook;
use look::Look;

/// BOUNDED: descriptors that are looked at, twice the kernel's default for `fs.nr_open`.
const DESCRIPTORS_MAX: usize = 2 << 20;

/// What a process has open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// The numbers in use, ascending; without those of the crowd.
    pub numbers: Vec<u32>,
    /// Sockets that were not looked at one by one, by inode, ascending: those that the kernel lists
    /// behind the process's listeners, where as many are open, and all of a sample are these. The
    /// numbers of all are below the process's limit.
    pub crowd: Vec<u32>,
    pub kinds: Kinds,
    /// The sockets, by inode: which number each has. Several may share an inode.
    pub sockets: Vec<Holding>,
    pub deleted: Deleted,
    /// Numbers of the descriptors whose `fdinfo` tells more.
    pub epolls: Vec<u32>,
    pub inotifies: Vec<u32>,
    /// Numbers of the plain files, with a name and without; the first thousand.
    pub files: Vec<u32>,
    /// Descriptors that were closed while we looked.
    pub closed: u32,
    /// The process had more than we look at.
    pub cut: bool,
}

/// A descriptor of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    pub inode: u32,
    pub number: u32,
}

/// Files that are open and have no name any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    pub count: u32,
    /// The space that comes back when they are closed; files past the first thousand and those of
    /// a captured tree do not count.
    pub bytes: u64,
    /// The commonest names they had, ready to be shown, and how many descriptors each has.
    pub examples: Vec<(String, u32)>,
}

/// Reads how many descriptors a process has open, without looking at any.
///
/// # Errors
/// When the process is gone, or (before Linux 6.2) belongs to another user.
pub fn count(tree: &Tree, pid: u32) -> Result<u64, FactError> {
    let directory = format!("{pid}/fd");
    let listed = || Ok(u64::try_from(tree.list_proc(&directory)?.len()).unwrap_or(u64::MAX));
    // A directory of a copy has a size of its own, which says nothing.
    if !tree.is_live()
        && let Ok(count) = listed()
    {
        return Ok(count);
    }
    // Linux 6.2: the size of the directory is their number, and everybody may read it. Before it
    // is zero, as it is for who has none.
    match tree.meta_proc(&directory)?.len {
        0 => listed(),
        size => Ok(size),
    }
}

/// Looks at every descriptor of a process.
///
/// # Errors
/// When the process is gone, or belongs to another user and we are not root.
pub fn descriptors(tree: &Tree, pid: u32) -> Result<Descriptors, FactError> {
    let look = if tree.is_live() && !tree.is_recording() {
        let unreadable =
            |error| FactError::unreadable(Path::new(&format!("/proc/{pid}/fd")), error);
        Look::live(pid).map_err(unreadable)?
    } else {
        Look::tree(tree, pid)?
    };
    Ok(look.finish())
}

impl Descriptors {
    /// How many more a process may open until the numbers below its limit are used up: the limit
    /// bounds the number of a descriptor, not how many there are.
    #[must_use]
    pub fn free_below(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.below(limit))
    }

    /// How many have a number below the process's limit.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        let below = self.numbers.partition_point(|number| u64::from(*number) < limit);
        u64::try_from(below + self.crowd.len()).unwrap_or(u64::MAX)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.numbers.len() + self.crowd.len()).unwrap_or(u64::MAX)
    }

    /// The number under which a process holds a socket.
    #[must_use]
    pub fn number_of(&self, inode: u32) -> Option<u32> {
        let place = self.sockets.partition_point(|holding| holding.inode < inode);
        self.sockets.get(place).filter(|holding| holding.inode == inode).map(|held| held.number)
    }
}

#[cfg(test)]
mod tests;
