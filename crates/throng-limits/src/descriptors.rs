//! What a process has open: how many descriptors, which numbers, of what kind.

mod kind;
mod watches;

pub use kind::{Kind, Kinds, socket_inode};
pub use watches::{Watched, Watches, watches};

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, fstat, open, readlinkat_raw, statx,
};
use rustix::io::Errno;

use crate::facts::FactError;
use crate::tree::{Tree, printable};

/// One call of `getdents` lists 32,000 descriptors; the table of a larger process takes several.
const LISTING_BYTES: usize = 1 << 20;
/// A link in `/proc` is at most a page long (`do_proc_readlink`).
const LINK_BYTES: usize = 4096;
/// BOUNDED: descriptors that are looked at, twice the kernel's default for `fs.nr_open`.
const DESCRIPTORS_MAX: usize = 2 << 20;
/// BOUNDED: deleted files whose size is asked for, and different names that are remembered.
const DELETED_ASKED_MAX: u32 = 1024;
const DELETED_NAMES_MAX: usize = 64;
/// Names of deleted files that are worth showing.
const EXAMPLES: usize = 3;

/// What a process has open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// The numbers in use, ascending.
    pub numbers: Vec<u32>,
    pub kinds: Kinds,
    /// The sockets, by inode: which number each has. Several may share an inode.
    pub sockets: Vec<Holding>,
    pub deleted: Deleted,
    /// Numbers of the descriptors whose `fdinfo` tells more.
    pub epolls: Vec<u32>,
    pub inotifies: Vec<u32>,
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
    let mut look = if tree.is_live() && !tree.is_recording() {
        let path = format!("/proc/{pid}/fd");
        Look::live(&path).map_err(|error| FactError::unreadable(Path::new(&path), error))?
    } else {
        Look::tree(tree, pid)?
    };
    look.found.numbers.sort_unstable();
    look.found.sockets.sort_unstable();
    look.found.deleted.examples = commonest(look.names);
    Ok(look.found)
}

impl Descriptors {
    /// How many more a process may open until the numbers below its limit are used up: the limit
    /// bounds the number of a descriptor, not how many there are.
    #[must_use]
    pub fn free_below(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.below(limit))
    }

    /// How many have a number below a limit.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        let below = self.numbers.partition_point(|number| u64::from(*number) < limit);
        u64::try_from(below).unwrap_or(u64::MAX)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.numbers.len()).unwrap_or(u64::MAX)
    }

    /// The number under which a process holds a socket.
    #[must_use]
    pub fn number_of(&self, inode: u32) -> Option<u32> {
        let place = self.sockets.partition_point(|holding| holding.inode < inode);
        self.sockets.get(place).filter(|holding| holding.inode == inode).map(|held| held.number)
    }
}

/// A look at the descriptors, while it goes on.
#[derive(Default)]
struct Look {
    found: Descriptors,
    names: Vec<(Vec<u8>, u32)>,
}

impl Look {
    /// Straight from the kernel: a call for each link, and no copies.
    ///
    /// Numbers are given out from below, so where the kernel says how many there are (Linux 6.2),
    /// counting up finds them without a listing, which would cost a third more. The listing is
    /// asked for what is left when there are gaps.
    fn live(path: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        let there_are = usize::try_from(fstat(&directory)?.st_size).unwrap_or_default();
        let mut look = Self::default();
        let mut link = [MaybeUninit::uninit(); LINK_BYTES];
        let mut number = 0_u32;
        let mut gaps = 0;
        let mut name = Name::default();
        while look.found.numbers.len() < there_are.min(DESCRIPTORS_MAX) && gaps <= there_are / 8 {
            gaps += usize::from(!look.read(&directory, number, name.of(number), &mut link)?);
            number += 1;
        }
        if look.found.numbers.len() < there_are || there_are == 0 {
            look.rest(&directory, number, &mut link)?;
        }
        look.found.cut = look.found.numbers.len() == DESCRIPTORS_MAX;
        Ok(look)
    }

    /// The descriptors from a number on, as they are listed.
    fn rest(
        &mut self,
        directory: &OwnedFd,
        from: u32,
        link: &mut [MaybeUninit<u8>],
    ) -> io::Result<()> {
        let mut listing = Vec::with_capacity(LISTING_BYTES);
        let mut entries = RawDir::new(directory, listing.spare_capacity_mut());
        while self.found.numbers.len() < DESCRIPTORS_MAX
            && let Some(entry) = entries.next()
        {
            let entry = match entry {
                // The process ended.
                Err(Errno::NOENT | Errno::SRCH) => break,
                entry => entry?,
            };
            let name = entry.file_name();
            let number = name.to_str().ok().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| *number >= from)
                && !self.read(directory, number, name, link)?
            {
                self.found.closed += 1;
            }
        }
        Ok(())
    }

    /// Looks at one descriptor. False when there is none of this number.
    fn read(
        &mut self,
        directory: &OwnedFd,
        number: u32,
        name: &CStr,
        link: &mut [MaybeUninit<u8>],
    ) -> io::Result<bool> {
        let link = match readlinkat_raw(directory, name, link) {
            Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
            link => link?.0,
        };
        let asked = self.found.deleted.count < DELETED_ASKED_MAX;
        self.take(number, link, || if asked { deleted_bytes(directory, name) } else { Some(0) });
        Ok(true)
    }

    /// From a tree, which may be a captured one, or may have to be copied.
    fn tree(tree: &Tree, pid: u32) -> Result<Self, FactError> {
        let directory = format!("{pid}/fd");
        let mut look = Self::default();
        let names = tree.list_proc(&directory)?;
        look.found.cut = names.len() > DESCRIPTORS_MAX;
        for name in names.iter().take(DESCRIPTORS_MAX) {
            let Ok(number) = name.parse() else { continue };
            match tree.link_proc(&format!("{directory}/{name}")) {
                Ok(link) => look.take(number, link.as_bytes(), || Some(0)),
                Err(_) => look.found.closed += 1,
            }
        }
        Ok(look)
    }

    /// Counts one descriptor. `bytes` is asked how large a file without a name is, and says
    /// nothing when it has its name still: a name may really end in "(deleted)".
    fn take(&mut self, number: u32, link: &[u8], bytes: impl FnOnce() -> Option<u64>) {
        let found = &mut self.found;
        found.numbers.push(number);
        let mut kind = Kind::of(link);
        match kind {
            Kind::Socket => {
                let holding = socket_inode(link).map(|inode| Holding { inode, number });
                found.sockets.extend(holding);
            }
            Kind::Epoll => found.epolls.push(number),
            Kind::Inotify => found.inotifies.push(number),
            Kind::DeletedFile if is_nameless(link) => kind = Kind::File,
            Kind::DeletedFile => match bytes() {
                Some(bytes) => {
                    found.deleted.count += 1;
                    found.deleted.bytes = found.deleted.bytes.saturating_add(bytes);
                    let name = link.strip_suffix(kind::DELETED).unwrap_or(link);
                    remember(&mut self.names, name);
                }
                None => kind = Kind::File,
            },
            _ => {}
        }
        self.found.kinds.add(kind);
    }
}

/// Whether a file was made without a name (`O_TMPFILE`): `/tmp/#1234 (deleted)`. Nobody rotated it.
fn is_nameless(link: &[u8]) -> bool {
    let name = link.strip_suffix(kind::DELETED).unwrap_or(link);
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let number = last.strip_prefix(b"#").unwrap_or_default();
    !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

/// The name of a descriptor's link: its number.
#[derive(Default)]
struct Name([u8; 11]);

impl Name {
    fn of(&mut self, number: u32) -> &CStr {
        let Self(bytes) = self;
        // The last byte stays zero.
        let mut at = bytes.len() - 1;
        let mut left = number;
        loop {
            at -= 1;
            bytes[at] = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
            if left == 0 {
                break;
            }
        }
        CStr::from_bytes_until_nul(&bytes[at..]).unwrap_or_default()
    }
}

/// The size of a file without a name; nothing when it has one. Nothing is fetched from a server
/// that may not answer.
fn deleted_bytes(directory: &OwnedFd, name: &CStr) -> Option<u64> {
    let wanted = StatxFlags::NLINK | StatxFlags::TYPE | StatxFlags::SIZE;
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let Ok(stat) = statx(directory.as_fd(), name, flags, wanted) else { return Some(0) };
    let is_file = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::RegularFile;
    match stat.stx_nlink {
        0 if is_file => Some(stat.stx_size),
        0 => Some(0),
        _ => None,
    }
}

fn remember(names: &mut Vec<(Vec<u8>, u32)>, name: &[u8]) {
    if let Some((_, count)) = names.iter_mut().find(|(known, _)| known == name) {
        *count += 1;
    } else if names.len() < DELETED_NAMES_MAX {
        names.push((name.to_vec(), 1));
    }
}

fn commonest(mut names: Vec<(Vec<u8>, u32)>) -> Vec<(String, u32)> {
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    names.truncate(EXAMPLES);
    let shown = |name: Vec<u8>| printable(&String::from_utf8_lossy(&name));
    names.into_iter().map(|(name, count)| (shown(name), count)).collect()
}

#[cfg(test)]
mod tests;
