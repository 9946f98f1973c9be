//! Who listens on a TCP port: from the port to the sockets, and from these to processes.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RawDir, open, readlinkat_raw};

use crate::descriptors::socket_inode;
use crate::tree::Tree;

use super::namespace::{Namespace, Place};
use super::source::Source;

/// A server opens its listeners before its clients come, so they are among the first.
const FIRST_LOOK: usize = 64;
/// BOUNDED: descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 2 << 20;
/// BOUNDED: network namespaces that are searched; a machine has one, and one for each container.
const NAMESPACES_MAX: usize = 256;

/// A process that has a listener of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    pub pid: u32,
    /// Under which number.
    pub number: u32,
    pub inode: u32,
}

/// Who listens on a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// By process; workers that share a listener are all there.
    pub found: Vec<Holder>,
    /// How many sockets listen on the port.
    pub listeners: usize,
    /// Processes whose descriptors are not for us; one of them may be the one.
    pub unseen: u32,
    /// The network namespace in which the port was found is not ours.
    pub elsewhere: bool,
}

/// Finds who listens on a port: in our network namespace, and where nobody does there, in others.
#[must_use]
pub fn holders_of_port(tree: &Tree, port: u16) -> Holders {
    let names = tree.list_proc("").unwrap_or_default();
    let pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let mut holders = Holders::default();
    let mut searched: Vec<String> = Vec::new();
    // This process is the first to be asked, as its namespace is ours.
    for pid in std::iter::once(std::process::id()).chain(pids.iter().copied()) {
        let link = match tree.link_proc(&format!("{pid}/ns/net")) {
            Ok(link) => link,
            // In a copy that does not say, each process is a namespace of its own.
            Err(_) if !tree.is_live() && pids.contains(&pid) => pid.to_string(),
            Err(_) => continue,
        };
        if searched.contains(&link) || searched.len() == NAMESPACES_MAX {
            continue;
        }
        searched.push(link);
        let namespace = Namespace::of(tree, pid);
        let inodes = listening(tree, pid, &namespace, port);
        if !inodes.is_empty() {
            holders.listeners = inodes.len();
            holders.elsewhere = namespace.place() == Place::Elsewhere;
            search(tree, &pids, &inodes, &mut holders);
            break;
        }
    }
    holders
}

/// The inodes of the sockets that listen on a port, ascending.
fn listening(tree: &Tree, pid: u32, namespace: &Namespace, port: u16) -> Vec<u32> {
    let (mut source, _) = Source::open(tree, pid, namespace);
    let rows = source.listening_at(port);
    let mut inodes: Vec<u32> = rows.iter().map(|row| row.inode).collect();
    inodes.sort_unstable();
    inodes
}

/// Looks through the first descriptors of all processes, and through all of them only for those
/// sockets that nobody has among the first.
fn search(tree: &Tree, pids: &[u32], inodes: &[u32], holders: &mut Holders) {
    for most in [FIRST_LOOK, DESCRIPTORS_MAX] {
        holders.unseen = 0;
        let missing: Vec<u32> = inodes
            .iter()
            .copied()
            .filter(|inode| !holders.found.iter().any(|holder| holder.inode == *inode))
            .collect();
        if missing.is_empty() {
            break;
        }
        for pid in pids {
            match holdings(tree, *pid, most, &missing) {
                Ok(found) => holders.found.extend(found),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    holders.unseen += 1
                }
                Err(_) => {}
            }
        }
    }
    holders.found.sort_unstable();
}

/// Which of these sockets a process has among its first descriptors.
fn holdings(tree: &Tree, pid: u32, most: usize, inodes: &[u32]) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    let mut look = |number: u32, link: &[u8]| {
        if let Some(inode) = socket_inode(link)
            && inodes.binary_search(&inode).is_ok()
        {
            found.push(Holder { pid, number, inode });
        }
    };
    if !tree.is_live() {
        for name in tree.list_proc(&format!("{pid}/fd")).unwrap_or_default().iter().take(most) {
            if let (Ok(number), Ok(link)) =
                (name.parse(), tree.link_proc(&format!("{pid}/fd/{name}")))
            {
                look(number, link.as_bytes());
            }
        }
        return Ok(found);
    }
    let path = format!("/proc/{pid}/fd");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(Path::new(&path), flags, Mode::empty())?;
    let mut listing = Vec::with_capacity(32 << 10);
    let mut link = [MaybeUninit::uninit(); 64];
    let mut entries = RawDir::new(&directory, listing.spare_capacity_mut());
    let mut looked = 0;
    while looked < most
        && let Some(entry) = entries.next()
    {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        looked += 1;
        if let Ok((link, _)) = readlinkat_raw(&directory, name, &mut link) {
            look(number, link);
        }
    }
    // Into a copy goes only what was found.
    for holder in &found {
        tree.link_proc(&format!("{pid}/fd/{}", holder.number)).ok();
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
