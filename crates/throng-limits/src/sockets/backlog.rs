//! Makes the accept queue of a running server longer, without its help: `listen` on a copy of its
//! listener changes the listener.

use std::io;
use std::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{getsockname, listen};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::descriptors::descriptors;
use crate::facts::FactError;
use crate::tree::Tree;

use super::namespace::Namespace;
use super::row::Row;
use super::source::Source;

/// Longer than this serves nobody: who waits behind 65,535 others has given up.
pub const BACKLOG_MAX: u32 = 65_535;

/// What became of one listener's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaisedBacklog {
    pub local: SocketAddr,
    /// None where the kernel does not tell us.
    pub was: Option<u32>,
    /// Read back from the kernel.
    pub is: Option<u32>,
    /// `net.core.somaxconn` of the process's network namespace, when it is what cut the queue.
    pub cut_by: Option<u32>,
}

/// Why a queue was not made longer.
#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    #[error("a queue of {wanted} is not possible: ask for 1 to {BACKLOG_MAX}")]
    OutOfRange { wanted: u32 },
    #[error("cannot see the descriptors of process {pid}: {source}")]
    Unseen { pid: u32, source: FactError },
    #[error("process {pid} does not listen on TCP port {port}")]
    NotListening { pid: u32, port: u16 },
    #[error("process {pid} is gone")]
    Gone { pid: u32 },
    #[error(
        "not allowed to copy a descriptor of process {pid}: run as root (it takes CAP_SYS_PTRACE, \
         which a container may lack, and kernel.yama.ptrace_scope below 3)"
    )]
    NotAllowed { pid: u32 },
    #[error("this kernel cannot copy descriptors of other processes: Linux 5.6 or newer can")]
    OldKernel,
    #[error("process {pid} closed its listener at {local} meanwhile")]
    Closed { pid: u32, local: SocketAddr },
    #[error("cannot change the queue of {local}: {source}")]
    Refused { local: SocketAddr, source: io::Error },
}

/// A listener that will be changed.
struct Target {
    number: i32,
    inode: u32,
    local: SocketAddr,
    was: Option<u32>,
}

/// Lets as many connections wait at a process's listeners of a port; never fewer than now. It
/// holds until the process makes its listeners anew.
///
/// # Errors
/// When the process does not listen there, or is not ours to change.
pub fn raise_backlog(pid: u32, port: u16, wanted: u32) -> Result<Vec<RaisedBacklog>, BacklogError> {
    if wanted == 0 || wanted > BACKLOG_MAX {
        return Err(BacklogError::OutOfRange { wanted });
    }
    let tree = Tree::live();
    let namespace = Namespace::of(&tree, pid);
    let targets = targets(&tree, pid, &namespace, port)?;
    let process = open_process(pid)?;
    for target in &targets {
        if target.was.is_none_or(|was| was < wanted) {
            lengthen(&process, pid, target, wanted)?;
        }
    }
    let now = queues(&tree, pid, &namespace, port);
    let somaxconn = namespace.setting(&tree, "core/somaxconn").ok();
    let somaxconn: Option<u32> = somaxconn.and_then(|text| text.trim().parse().ok());
    let raised = targets.into_iter().map(|target| {
        let is = now.iter().find(|queue| queue.inode == target.inode).and_then(|queue| queue.was);
        let is_cut = is.is_some_and(|is| is < wanted);
        let cut_by = somaxconn.filter(|most| is_cut && *most < wanted);
        RaisedBacklog { local: target.local, was: target.was, is, cut_by }
    });
    Ok(raised.collect())
}

/// The process's listeners of the port.
fn targets(
    tree: &Tree,
    pid: u32,
    namespace: &Namespace,
    port: u16,
) -> Result<Vec<Target>, BacklogError> {
    let open = descriptors(tree, pid).map_err(|source| match source {
        source if source.is_gone() => BacklogError::Gone { pid },
        source if source.is_denied() => BacklogError::NotAllowed { pid },
        source => BacklogError::Unseen { pid, source },
    })?;
    let mut targets = queues(tree, pid, namespace, port);
    targets.retain_mut(|target| {
        let number = open.number_of(target.inode).and_then(|number| i32::try_from(number).ok());
        target.number = number.unwrap_or_default();
        number.is_some()
    });
    if targets.is_empty() { Err(BacklogError::NotListening { pid, port }) } else { Ok(targets) }
}

/// All listeners of the port in the process's network namespace.
fn queues(tree: &Tree, pid: u32, namespace: &Namespace, port: u16) -> Vec<Target> {
    let (mut source, _) = Source::open(tree, pid, namespace);
    let told = source.is_kernel();
    let rows = source.listening_at(port).into_iter();
    let queue = |row: Row| {
        let was = told.then_some(row.send_queue);
        Target { number: 0, inode: row.inode, local: row.local, was }
    };
    rows.map(queue).collect()
}

fn open_process(pid: u32) -> Result<OwnedFd, BacklogError> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(BacklogError::Gone { pid })?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|error| match error {
        Errno::NOSYS => BacklogError::OldKernel,
        Errno::PERM => BacklogError::NotAllowed { pid },
        _ => BacklogError::Gone { pid },
    })
}

fn lengthen(process: &OwnedFd, pid: u32, target: &Target, wanted: u32) -> Result<(), BacklogError> {
    let local = target.local;
    let copy = pidfd_getfd(process, target.number, PidfdGetfdFlags::empty());
    let copy = copy.map_err(|error| match error {
        Errno::PERM | Errno::ACCESS => BacklogError::NotAllowed { pid },
        Errno::BADF => BacklogError::Closed { pid, local },
        Errno::SRCH => BacklogError::Gone { pid },
        Errno::NOSYS => BacklogError::OldKernel,
        error => BacklogError::Refused { local, source: error.into() },
    })?;
    // Between our look and the copy the number may have become something else.
    let same = getsockname(&copy).ok().and_then(|name| SocketAddr::try_from(name).ok());
    let same = same.map(|name| SocketAddr::new(name.ip().to_canonical(), name.port()));
    if same != Some(local) || !socket_acceptconn(&copy).unwrap_or_default() {
        return Err(BacklogError::Closed { pid, local });
    }
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    listen(&copy, wanted).map_err(|error| BacklogError::Refused { local, source: error.into() })
}
