//! The network namespace of a process: its sockets, and its part of `sysctl`, are seen from within.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::facts::FactError;
use crate::tree::Tree;

use super::netlink::Line;

/// Where a process's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the same namespace as ours.
    Here,
    /// In one of its own, as in a container.
    Elsewhere,
    /// We may not know, as it is another user's process.
    Unknown,
}

/// The network namespace of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pid: u32,
    place: Place,
    live: bool,
}

impl Namespace {
    /// Compares a process's namespace with ours. A captured tree is its own world.
    #[must_use]
    pub fn of(tree: &Tree, pid: u32) -> Self {
        let theirs = tree.link_proc(&format!("{pid}/ns/net"));
        let ours = tree.link_proc("self/ns/net");
        let place = match (theirs, ours) {
            (Ok(theirs), Ok(ours)) if theirs == ours => Place::Here,
            (Ok(_), Ok(_)) => Place::Elsewhere,
            _ => Place::Unknown,
        };
        Self { pid, place, live: tree.is_live() }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads a setting below `/proc/sys/net`, such as `core/somaxconn`, as it holds for the
    /// process: most of them are per namespace. Where we may not go there, ours is read.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn setting(&self, tree: &Tree, name: &str) -> Result<String, FactError> {
        let path = format!("sys/net/{name}");
        if self.live
            && self.place == Place::Elsewhere
            && let Ok(text) = self.within(|| std::fs::read_to_string(format!("/proc/{path}")))
        {
            tree.record_proc(&path, &text);
            return Ok(text);
        }
        tree.read_proc(&path)
    }

    /// Opens a line to the kernel in the process's namespace. A socket stays in the namespace in
    /// which it was made, whoever uses it.
    pub(crate) fn line(&self) -> io::Result<Line> {
        match self.place {
            Place::Here => Line::open(),
            Place::Elsewhere => self.within(Line::open),
            Place::Unknown => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// Does something in the process's namespace, on a thread that ends with it: a namespace is a
    /// thread's, and ours stay where they are.
    fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let door = File::open(format!("/proc/{}/ns/net", self.pid))?;
        let visit = move || {
            move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| {
            let visitor = thread::Builder::new().spawn_scoped(scope, visit)?;
            visitor.join().unwrap_or_else(|_| Err(io::Error::other("the visit failed")))
        })
    }
}
