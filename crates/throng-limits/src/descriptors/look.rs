//! One look at the descriptors of a process, one after the other.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, StatxFlags, fstat, open, readlinkat_raw,
    seek, statx,
};
use rustix::io::Errno;

use crate::facts::FactError;
use crate::tree::{Tree, printable};

use super::kind::{self, Kind, socket_inode};
use super::{DESCRIPTORS_MAX, Descriptors, Holding};

/// One call of `getdents` lists 32,000 descriptors; the table of a larger process takes several.
const LISTING_BYTES: usize = 1 << 20;
/// A link in `/proc` is at most a page long (`do_proc_readlink`).
const LINK_BYTES: usize = 4096;
/// BOUNDED: deleted files whose size is asked for, and different names that are remembered.
const DELETED_ASKED_MAX: u32 = 1024;
const DELETED_NAMES_MAX: usize = 64;
/// BOUNDED: files whose numbers are kept; logs are opened early.
const FILES_MAX: usize = 1024;
/// Names of deleted files that are worth showing.
pub(super) const EXAMPLES: usize = 3;

/// A look at the descriptors, while it goes on.
#[derive(Default)]
pub(super) struct Look {
    found: Descriptors,
    names: Vec<(Vec<u8>, u32)>,
}

/// What is looked at first: a server opens its listeners, its files and its epolls before its
/// clients come.
const FIRST: u32 = 320;
/// With fewer descriptors it is as quick to look at each.
const CROWD_MIN: usize = 1024;
/// How many of a crowd are looked at all the same, and how many of these numbers must be in use.
const SAMPLED: u32 = 256;
const SAMPLED_MIN: u32 = SAMPLED / 2;

/// The first descriptors of a process that has many.
pub(crate) struct FirstLook {
    directory: Directory,
    look: Look,
    next: u32,
    there_were: usize,
}

impl FirstLook {
    /// Looks at the first descriptors; none where there are few, or the kernel does not count them.
    pub(crate) fn of(pid: u32) -> io::Result<Option<Self>> {
        let directory = Directory::open(pid)?;
        let there_were = directory.there_are()?;
        if there_were < CROWD_MIN {
            return Ok(None);
        }
        let mut look = Look::default();
        let mut name = Name::default();
        for number in 0..FIRST {
            look.read(&directory, number, name.of(number))?;
        }
        Ok(Some(Self { directory, look, next: FIRST, there_were }))
    }

    /// The sockets among them.
    pub(crate) fn sockets(&self) -> &[Holding] {
        &self.look.found.sockets
    }

    /// Takes it that all further descriptors are these sockets, which are given by their inodes,
    /// ascending: those that the kernel lists behind the process's listeners. None where that is
    /// not so: as many have to be open as there are sockets, all below the limit, and those that are
    /// looked at, spread over all of them, have to be among them.
    pub(crate) fn with_crowd(
        mut self,
        inodes: &[u32],
        limit: u64,
    ) -> io::Result<Option<Descriptors>> {
        let mut seen: Vec<u32> = self.sockets().iter().map(|held| held.inode).collect();
        seen.sort_unstable();
        let is_new = |inode: &u32| seen.binary_search(inode).is_err();
        let crowd: Vec<u32> = inodes.iter().copied().filter(is_new).collect();
        let there_are = self.directory.there_are()?;
        let found = self.look.found.numbers.len() + crowd.len();
        // Some come and go meanwhile.
        if found < there_are.min(self.there_were)
            || found > there_are.max(self.there_were)
            || u32::try_from(limit).is_ok_and(|limit| self.directory.has_any_from(limit))
        {
            return Ok(None);
        }
        let end = u32::try_from(there_are).unwrap_or(u32::MAX);
        let step = (end.saturating_sub(self.next) / SAMPLED).max(1);
        let mut name = Name::default();
        let mut sampled = 0;
        while self.next < end {
            match self.directory.link(name.of(self.next)) {
                Some(Some(inode)) if crowd.binary_search(&inode).is_ok() => sampled += 1,
                Some(_) => return Ok(None),
                None => {}
            }
            self.next = self.next.saturating_add(step);
        }
        let mut found = self.look.finish();
        found.kinds.add_many(Kind::Socket, crowd.len());
        found.crowd = crowd;
        Ok((sampled >= SAMPLED_MIN).then_some(found))
    }
}

impl Look {
    /// Straight from the kernel: a call for each link, and no copies.
    ///
    /// Numbers are given out from below, so where the kernel says how many there are (Linux 6.2),
    /// counting up finds them without a listing, which would cost a third more. The listing is
    /// asked for what is left when there are gaps.
    pub(super) fn live(pid: u32) -> io::Result<Self> {
        let directory = Directory::open(pid)?;
        let there_are = directory.there_are()?;
        let mut look = Self::default();
        let mut number = 0_u32;
        let mut gaps = 0;
        let mut name = Name::default();
        while look.found.numbers.len() < there_are.min(DESCRIPTORS_MAX) && gaps <= there_are / 8 {
            gaps += usize::from(!look.read(&directory, number, name.of(number))?);
            number += 1;
        }
        if look.found.numbers.len() < there_are || there_are == 0 {
            look.rest(&directory, number)?;
        }
        Ok(look)
    }

    /// The descriptors from a number on, as they are listed.
    fn rest(&mut self, directory: &Directory, from: u32) -> io::Result<()> {
        let mut listing = Vec::with_capacity(LISTING_BYTES);
        let mut entries = RawDir::new(&directory.0, listing.spare_capacity_mut());
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
                && !self.read(directory, number, name)?
            {
                self.found.closed += 1;
            }
        }
        Ok(())
    }

    /// Looks at one descriptor. False when there is none of this number.
    fn read(&mut self, directory: &Directory, number: u32, name: &CStr) -> io::Result<bool> {
        let mut link = [MaybeUninit::uninit(); LINK_BYTES];
        let link = match readlinkat_raw(&directory.0, name, &mut link) {
            Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
            link => link?.0,
        };
        let asked = self.found.deleted.count < DELETED_ASKED_MAX;
        let bytes = || if asked { deleted_bytes(&directory.0, name) } else { Some(0) };
        self.take(number, link, bytes);
        Ok(true)
    }

    /// From a tree, which may be a captured one, or may have to be copied.
    pub(super) fn tree(tree: &Tree, pid: u32) -> Result<Self, FactError> {
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

    /// What was found.
    pub(super) fn finish(self) -> Descriptors {
        let mut found = self.found;
        found.cut |= found.numbers.len() == DESCRIPTORS_MAX;
        found.numbers.sort_unstable();
        found.sockets.sort_unstable();
        found.deleted.examples = commonest(self.names);
        found
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
        if matches!(kind, Kind::File | Kind::DeletedFile) && self.found.files.len() < FILES_MAX {
            self.found.files.push(number);
        }
        self.found.kinds.add(kind);
    }
}

/// The directory of a process's descriptors.
struct Directory(OwnedFd);

impl Directory {
    fn open(pid: u32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(open(format!("/proc/{pid}/fd"), flags, Mode::empty())?))
    }

    /// How many descriptors there are now; zero before Linux 6.2.
    fn there_are(&self) -> io::Result<usize> {
        Ok(usize::try_from(fstat(&self.0)?.st_size).unwrap_or_default())
    }

    /// Whether a descriptor is there, and the inode of one that is a socket.
    fn link(&self, name: &CStr) -> Option<Option<u32>> {
        let mut link = [MaybeUninit::uninit(); LINK_BYTES];
        Some(socket_inode(readlinkat_raw(&self.0, name, &mut link).ok()?.0))
    }

    /// Whether any descriptor has this number or a greater one. The kernel's places in the listing
    /// are the numbers, behind two for the directory itself and the one above. Where it does not
    /// tell, one may.
    fn has_any_from(&self, number: u32) -> bool {
        let mut listing = [MaybeUninit::uninit(); 512];
        let from = seek(&self.0, SeekFrom::Start(u64::from(number) + 2));
        from.is_err() || RawDir::new(&self.0, &mut listing).next().is_some()
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
pub(super) struct Name([u8; 11]);

impl Name {
    pub(super) fn of(&mut self, number: u32) -> &CStr {
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
