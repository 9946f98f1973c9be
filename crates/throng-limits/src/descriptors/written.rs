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

/// Looks at the files that a process writes to, each once, and counts those that could not be asked.
/// What was closed meanwhile is not one of these.
#[must_use]
pub fn written(tree: &Tree, pid: u32, descriptors: &Descriptors) -> (Vec<Written>, usize) {
    let mut found: Vec<Written> = Vec::new();
    let mut unknown = descriptors.files.len().saturating_sub(ASKED_MAX);
    for number in descriptors.files.iter().take(ASKED_MAX) {
        match ask(tree, pid, *number) {
            // The output and the errors of a program are often one file.
            Ok(Some(file)) if found.iter().all(|known| known.name != file.name) => found.push(file),
            Ok(_) => {}
            // In a copy that is older than the question, it is nowhere.
            Err(error) => unknown += usize::from(!tree.is_live() || error.is_denied()),
        }
    }
    (found, unknown)
}

/// Asks about one file; none where it is only read.
fn ask(tree: &Tree, pid: u32, number: u32) -> Result<Option<Written>, FactError> {
    let info = format!("{pid}/fdinfo/{number}");
    let flags = flags_in(&tree.read_proc(&info)?);
    let flags = flags
        .ok_or_else(|| FactError::unexpected(format!("/proc/{info}").as_ref(), "line flags:"))?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Ok(None);
    }
    let at = format!("{pid}/fd/{number}");
    let (name, space) = (tree.link_proc(&at)?, tree.space_proc(&at)?);
    let gone = str::from_utf8(DELETED).unwrap_or_default();
    let name = name.strip_suffix(gone).unwrap_or(&name).to_owned();
    let (appends, is_read) = (flags.contains(OFlags::APPEND), flags.contains(OFlags::RDWR));
    Ok(Some(Written { name, number, appends, is_read, space }))
}

/// The line `flags:` of an `fdinfo`, which is octal.
fn flags_in(text: &str) -> Option<OFlags> {
    let digits = text.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
    Some(OFlags::from_bits_retain(u32::from_str_radix(digits, 8).ok()?))
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
    fn what_we_write_is_found_and_what_we_read_is_not() {
        let path = std::env::temp_dir().join(format!("throng-written-{}.log", std::process::id()));
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        log.write_all(&[b'x'; 5000]).unwrap();
        let reading = File::open(&path).unwrap();
        let (tree, pid) = (Tree::live(), std::process::id());
        let found = descriptors(&tree, pid).unwrap();
        let (written, _) = written(&tree, pid, &found);
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
