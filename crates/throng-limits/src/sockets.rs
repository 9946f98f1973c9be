//! The sockets of a process: their states and peers, who waits at its listeners, and which of them
//! are of no use any more.
//!
//! The kernel is asked for what the process's own listeners accepted first; only for sockets that
//! are none of those does it go through all there are.

mod backlog;
mod crowd;
mod holders;
pub(crate) mod inet;
mod namespace;
pub(crate) mod netlink;
mod queue;
mod row;
mod silence;
mod source;
mod state;
mod survey;
pub mod text;
pub mod unix;

pub use backlog::{BACKLOG_MAX, BacklogError, RaisedBacklog, raise_backlog};
pub use holders::{Holder, Holders, holders_of_port};
pub use namespace::{Namespace, Place};
pub use queue::{AcceptQueue, accept_queue};
pub use row::{Row, Timer};
pub use silence::{Silence, Spoken, silence};
pub use state::{State, States};

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::descriptors::{Descriptors, descriptors};
use crate::doctor::Unseen;
use crate::facts::FactError;
use crate::tree::Tree;

use inet::{Question, TCP};
use source::Source;
use survey::Survey;

/// Connections whose silence is asked for: a share is right to a few in a hundred, for little of the
/// work of asking all.
const SAMPLE_MAX: usize = 512;
/// Peers, upstreams and targets that are worth showing.
const SHOWN_MAX: usize = 8;
/// BOUNDED: listeners of one network namespace that are remembered.
const LISTENERS_MAX: usize = 1 << 16;

/// What could be found out about a process's sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// How the table was read.
    pub way: Way,
    pub place: Place,
    /// The process's TCP listeners; those of its whole network namespace where its descriptors are
    /// not for us.
    pub listeners: Vec<Listener>,
    /// None where its descriptors are not for us.
    pub owned: Option<Owned>,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
}

/// How the table of sockets was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Asked of the kernel by `sock_diag`.
    SockDiag,
    /// The text below `/proc/PID/net`, or a captured copy.
    Text,
}

/// A TCP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub local: SocketAddr,
    pub inode: u32,
    /// Its number in the process, where its descriptors could be seen.
    pub number: Option<u32>,
    pub uid: u32,
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many may wait; the kernel lets one more in. The text of `/proc` does not say it.
    pub backlog: Option<u32>,
    /// Connections whose third packet is waited for.
    pub requested: u32,
}

/// A listener of the Unix family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListener {
    /// Ready to be shown.
    pub path: String,
    pub inode: u32,
    pub waiting: u32,
    pub backlog: Option<u32>,
}

/// The sockets that a process holds. Each counts once, however many descriptors it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    pub sockets: u32,
    /// Descriptors beyond the first of their socket.
    pub duplicates: u32,
    pub tcp: States,
    pub udp: u32,
    pub unix: u32,
    pub unix_listeners: Vec<UnixListener>,
    pub netlink: u32,
    pub packet: u32,
    pub raw: u32,
    /// Sockets that are connected to nothing and listen to nothing, by what the kernel calls their
    /// protocol: made or left over, and not closed.
    pub unhashed: Vec<(String, u32)>,
    /// Sockets of families that are not looked into, such as `VSOCK`.
    pub others: Vec<(String, u32)>,
    /// Sockets that were closed while we looked.
    pub closed: u32,
    /// TCP connections that came in at a listener of the namespace.
    pub inbound: u32,
    /// TCP connections that the process made.
    pub outbound: u32,
    /// Peers of the connections that came in, and how many there are of them all.
    pub peers: Vec<(IpAddr, u32)>,
    pub peers_in_all: u32,
    /// Peers of the connections in CLOSE_WAIT.
    pub close_wait_peers: Vec<(IpAddr, u32)>,
    /// Where the process's own connections go.
    pub upstreams: Vec<(Upstream, u32)>,
    /// Ephemeral ports in use towards where this process connects, or towards which most are.
    pub ports: Vec<PortUse>,
    /// Ports of the namespace that are bound to nothing in particular (Linux 6.8 tells).
    pub bound: u32,
    /// Established TCP connections without `SO_KEEPALIVE` at which nothing is on its way.
    pub unwatched: u32,
    /// Bytes that came and were not read, and that were sent and not acknowledged.
    pub unread_bytes: u64,
    pub unsent_bytes: u64,
    /// How silent the established connections are that came in.
    pub silence: Option<Silence>,
    /// How long those in CLOSE_WAIT have been.
    pub close_wait_silence: Option<Silence>,
}

/// What a process connects to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upstream {
    Tcp(SocketAddr),
    /// A path, ready to be shown.
    Unix(String),
}

/// Ports of one address that are taken by connections to one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUse {
    pub source: IpAddr,
    pub target: SocketAddr,
    /// By this process.
    pub own: u32,
    /// By everybody in the namespace, connections in TIME_WAIT included.
    pub all: u32,
}

impl Owned {
    /// Unhashed sockets of all protocols.
    #[must_use]
    pub fn unhashed_in_all(&self) -> u32 {
        self.unhashed.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// What a process has open, and what its sockets are. Where it serves a crowd and has little else,
/// not each of its descriptors is looked at: [`Descriptors::crowd`] are those that were not.
///
/// # Errors
/// The descriptors, as [`descriptors`]; the sockets tell what they can without.
pub fn open_and_sockets(
    tree: &Tree,
    pid: u32,
    limit: u64,
) -> (Result<Descriptors, FactError>, Sockets) {
    if let Some((open, sockets)) = crowd::crowd(tree, pid, limit) {
        return (Ok(open), sockets);
    }
    let open = descriptors(tree, pid);
    let sockets = sockets(tree, pid, open.as_ref().ok());
    (open, sockets)
}

/// Reads the sockets of a process; `open` is what it has open, where that could be seen.
#[must_use]
pub fn sockets(tree: &Tree, pid: u32, open: Option<&Descriptors>) -> Sockets {
    let namespace = Namespace::of(tree, pid);
    let mut unseen = Vec::new();
    let (mut source, refused) = Source::open(tree, pid, &namespace);
    if let Some(error) = refused {
        unseen.push(missing_kernel(&namespace, &error));
    }
    let was_asked = source.is_kernel();
    let mut survey = open.map(Survey::new);
    let mut listeners = Vec::new();
    match &mut survey {
        None => listeners = all_listeners(&mut source, &mut unseen),
        Some(survey) => {
            if tree.is_recording() {
                match source.copy(survey.inodes(), &survey.numbers()) {
                    Ok(cut) => unseen.extend(cut.then(missing_rows)),
                    Err(error) => unseen.push(missing_table("TCP", &error)),
                }
            }
            survey.run(&mut source, None, &mut unseen);
        }
    }
    if was_asked && !source.is_kernel() && !tree.is_recording() {
        unseen.push(missing_kernel(&namespace, &io::Error::other("it was built without tcp_diag")));
    }
    let way = if source.is_kernel() { Way::SockDiag } else { Way::Text };
    let owned = survey.map(|survey| {
        let (own_listeners, owned) = survey.finish();
        listeners = own_listeners;
        owned
    });
    Sockets { way, place: namespace.place(), listeners, owned, unseen }
}

/// How many TCP sockets of a process's network namespace are in each state, whoever has them:
/// what `netstat -ant | awk '{print $6}' | sort | uniq -c` counts.
///
/// # Errors
/// When neither the kernel nor its text tells.
pub fn states(tree: &Tree, pid: u32) -> io::Result<States> {
    let namespace = Namespace::of(tree, pid);
    let (mut source, _) = Source::open(tree, pid, &namespace);
    let mut states = States::default();
    for family in inet::FAMILIES {
        source.rows(Question { family, ..Question::all(TCP) }, |row| states.add(row.state))?;
    }
    Ok(states)
}

fn all_listeners(source: &mut Source<'_>, unseen: &mut Vec<Unseen>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for family in inet::FAMILIES {
        let question = Question { family, states: State::Listen.bit(), ..Question::all(TCP) };
        let mut rows = Vec::new();
        let read = source.rows(question, |row| {
            if rows.len() < LISTENERS_MAX {
                rows.push(row);
            }
        });
        listeners.extend(rows.iter().map(|row| Listener::of(row, None)));
        if let Err(error) = read {
            unseen.push(missing_table("TCP", &error));
        }
    }
    if !source.is_kernel() {
        listeners.iter_mut().for_each(Listener::forget_zero);
    }
    listeners
}

impl Listener {
    fn of(row: &Row, number: Option<u32>) -> Self {
        Self {
            local: row.local,
            inode: row.inode,
            number,
            uid: row.uid,
            waiting: row.receive_queue,
            backlog: Some(row.send_queue),
            requested: 0,
        }
    }

    /// The kernel's own text has zero where the queue's length belongs; ours in a copy has not.
    fn forget_zero(&mut self) {
        self.backlog = self.backlog.filter(|backlog| *backlog > 0);
    }
}

fn missing_kernel(namespace: &Namespace, error: &io::Error) -> Unseen {
    let what = "how long the queues of its listeners may be, and how silent its connections are";
    let why = match namespace.place() {
        Place::Here => format!("the kernel does not answer questions about sockets: {error}"),
        Place::Elsewhere => format!("its network namespace could not be entered: {error}"),
        Place::Unknown => "which network namespace it is in is not for us to see".to_owned(),
    };
    let root_sees = namespace.place() != Place::Here;
    Unseen { what: what.to_owned(), why, root_sees }
}

fn missing_table(name: &str, error: &io::Error) -> Unseen {
    Unseen {
        what: format!("its {name} sockets"),
        why: format!("the table could not be read: {error}"),
        root_sees: error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn missing_rows() -> Unseen {
    Unseen {
        what: "some of its sockets".to_owned(),
        why: "the machine has more than a copy keeps".to_owned(),
        root_sees: false,
    }
}

#[cfg(test)]
mod tests;
