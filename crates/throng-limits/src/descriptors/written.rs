//! The files that a process writes to: how large they are, and what room is left for more.

use rustix::fs::OFlags;

use super::Descriptors;
use super::kind::DELETED;
use crate::facts::FactError;
use crate::tree::{Space, Tree};

/// BOUNDED: files that are asked about. A server opens its logs before anything else.
const ASKED_MAX: usize = 256;

/// A file that is open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name, as the process sees it; without the kernel's word that it has none any more.
    pub name: String,
    pub number: u32,
    /// Whether each write goes to its end, wherever that is by then.
    pub appends: bool,
    /// Whether the process reads it back, too: a log is only written.
    pub is_read: bool,
    pub space: Space,
}

/// The files that a process writes to, and how many more were not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllWritten {
    pub files: Vec<Written>,
    /// They were too many, or not for us, or a copy does not say.
    pub unknown: usize,
    /// They lie on another machine: one that does not answer would be waited for without an end.
    pub remote: usize,
}

/// What one file is, as far as its room is concerned.
enum Asked {
    Written(Written),
    Read,
    Remote,
}

/// Looks at the files that a process writes to, each once. What was closed meanwhile is not counted.
#[must_use]
pub fn written(tree: &Tree, pid: u32, descriptors: &Descriptors) -> AllWritten {
    let Descriptors { files, .. } = descriptors;
    let mut found =
        AllWritten { unknown: files.len().saturating_sub(ASKED_MAX), ..AllWritten::default() };
    if files.is_empty() {
        return found;
    }
    let remote = remote_mounts(&tree.read_proc(&format!("{pid}/mountinfo")).unwrap_or_default());
    for number in files.iter().take(ASKED_MAX) {
        match ask(tree, pid, *number, &remote) {
            Ok(Asked::Written(file)) => {
                // The output and the errors of a program are often one file.
                if found.files.iter().all(|known| known.name != file.name) {
                    found.files.push(file);
                }
            }
            Ok(Asked::Read) => {}
            Ok(Asked::Remote) => found.remote += 1,
            // In a copy that is older than the question, it is nowhere.
            Err(error) => found.unknown += usize::from(!tree.is_live() || error.is_denied()),
        }
    }
    found
}

fn ask(tree: &Tree, pid: u32, number: u32, remote: &[u32]) -> Result<Asked, FactError> {
    let info = format!("{pid}/fdinfo/{number}");
    let text = tree.read_proc(&info)?;
    let flags = flags_in(&text)
        .ok_or_else(|| FactError::unexpected(format!("/proc/{info}").as_ref(), "line flags:"))?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Ok(Asked::Read);
    }
    let mount = field(&text, "mnt_id:").and_then(|id| id.parse().ok());
    if mount.is_some_and(|id| remote.contains(&id)) {
        return Ok(Asked::Remote);
    }
    let at = format!("{pid}/fd/{number}");
    let (name, space) = (tree.link_proc(&at)?, tree.space_proc(&at)?);
    let gone = str::from_utf8(DELETED).unwrap_or_default();
    let name = name.strip_suffix(gone).unwrap_or(&name).to_owned();
    let (appends, is_read) = (flags.contains(OFlags::APPEND), flags.contains(OFlags::RDWR));
    Ok(Asked::Written(Written { name, number, appends, is_read, space }))
}

/// The line `flags:` of an `fdinfo`, which is octal.
fn flags_in(text: &str) -> Option<OFlags> {
    Some(OFlags::from_bits_retain(u32::from_str_radix(field(text, "flags:")?, 8).ok()?))
}

/// What stands behind a word at the beginning of a line.
fn field<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    Some(text.lines().find_map(|line| line.strip_prefix(word))?.trim())
}

/// File systems whose answers come from another machine.
const REMOTE: [&str; 11] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "afs",
    "lustre",
    "ncpfs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
];

/// The mounts of such file systems in a `mountinfo`, by number. proc(5): the first field is the
/// number, and the type stands behind a lonely dash.
fn remote_mounts(mountinfo: &str) -> Vec<u32> {
    let remote = mountinfo.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let kind = source.split(' ').next()?;
        REMOTE.contains(&kind).then(|| mount.split(' ').next()?.parse().ok())?
    });
    remote.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::descriptors::descriptors;

    #[test]
    fn the_flags_are_octal() {
        let flags = flags_in("pos:\t0\nflags:\t02102001\nmnt_id:\t29\n").unwrap();
        assert!(flags.contains(OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC));
        assert_eq!(flags_in("pos:\t0\n"), None);
        assert_eq!(flags_in("flags:\t9\n"), None);
    }

    #[test]
    fn a_disk_of_another_machine_is_told_by_its_mount() {
        let text = "29 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    40 29 0:52 / /mnt rw shared:7 master:3 - nfs4 files:/srv rw,vers=4.2\n\
                    41 29 0:53 / /nfs4 rw - tmpfs nfs4 rw\nbroken";
        assert_eq!(remote_mounts(text), [40]);
    }

    #[test]
    fn what_we_write_is_found_and_what_we_read_is_not() {
        let path = std::env::temp_dir().join(format!("throng-written-{}.log", std::process::id()));
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        log.write_all(&[b'x'; 5000]).unwrap();
        let reading = File::open(&path).unwrap();
        let (tree, pid) = (Tree::live(), std::process::id());
        let found = descriptors(&tree, pid).unwrap();
        let written = written(&tree, pid, &found).files;
        std::fs::remove_file(&path).unwrap();
        let number = |file: &File| u32::try_from(file.as_raw_fd()).unwrap();
        let ours = written.iter().find(|each| each.number == number(&log)).unwrap();
        assert_eq!((ours.name.as_str(), ours.appends), (path.to_str().unwrap(), true));
        assert!(!ours.is_read);
        assert!(ours.space.taken <= 5000, "{:?}", ours.space);
        assert!(ours.space.free <= ours.space.free_for_root, "{:?}", ours.space);
        assert!(written.iter().all(|each| each.number != number(&reading)));
    }
}
