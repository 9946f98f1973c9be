//! The new process's side: sockets and history come ahead, then everything that was written down,
//! and then it serves.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use throng_hub::state::sealed::{Piece, Unreadable};

use super::{Cargo, Incoming, arrival, common};
use crate::backend::Answer;
use crate::front::Front;
use crate::serve::Parts;
use crate::sessions::{Common, Mail};
use crate::shard::{
    Boarded, Boarding, LoadOrder, Manifest, NotAboard, Post, Reserved, Unloadable, Witness,
};

/// A server on its way to take over. Dropped before [`Loading::serve`], it closes what it was given
/// without a word to any peer.
#[derive(Debug)]
pub(crate) struct Loading {
    front: Arc<Front>,
    shards: Vec<Berth>,
    /// Which shard each connection's socket went to.
    placed: Mutex<HashMap<u64, usize, FixedState>>,
}

/// A shard that does not serve yet.
#[derive(Debug)]
struct Berth {
    orders: Sender<Boarding>,
    thread: JoinHandle<io::Result<()>>,
}

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) connections: u64,
    /// Copies of sockets whose connections had ended.
    pub(crate) closed: u64,
    /// Answers of backends that are still to come.
    pub(crate) awaited: usize,
}

/// Why nothing can be taken over.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// What was written down cannot be read.
    Unreadable(Unreadable),
    /// A descriptor more than this process may have.
    NoDescriptor {
        clients: u64,
    },
    /// A descriptor is another socket than it was said to be.
    MixedUp {
        number: u64,
        expected: u64,
        found: u64,
    },
    /// A connection's socket has not come.
    NoSocket {
        number: u64,
    },
    /// Connections that went ahead are not there, or some that have gone are.
    Missing {
        told: u64,
        connections: u64,
    },
    Io {
        what: &'static str,
        error: io::Error,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(unreadable) => unreadable.fmt(f),
            Self::NoDescriptor { clients } => write!(
                f,
                "this process may not hold as many clients as there are: {clients} fit; raise its \
                 limit of descriptors, or limits.reserve is too large"
            ),
            Self::MixedUp { number, expected, found } => write!(
                f,
                "the socket of connection {number} should have the cookie {expected:#x} and has \
                 {found:#x}: descriptors were mixed up on their way"
            ),
            Self::NoSocket { number } => {
                write!(f, "the socket of connection {number} has not come")
            }
            Self::Missing { told, connections } => write!(
                f,
                "there should be {told} connections, and {connections} have come: what went ahead \
                 does not add up"
            ),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl Loading {
    /// Shards, node and front, of which nothing serves. `parts` are those of a server that starts,
    /// with a clock made by [`crate::clock::Clock::resume`].
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn prepare(parts: Parts) -> io::Result<Self> {
        let Parts { front, shards } = parts;
        let mut berths = Vec::with_capacity(shards.len());
        for (number, shard) in shards.into_iter().enumerate() {
            let (orders, received) = channel();
            let log = front.common.log.clone();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || crate::serve::alive(&log, || shard.board(&received)))?;
            berths.push(Berth { orders, thread });
        }
        Ok(Self { front, shards: berths, placed: Mutex::default() })
    }

    /// Sockets have come.
    ///
    /// # Errors
    /// When there is no room for one, or it is another than it was said to be.
    pub(crate) fn adopt(&self, incoming: Vec<Incoming>) -> Result<(), LoadError> {
        let mut lists: Vec<Vec<Reserved>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut placed = self.placed.lock();
        self.front.common.node.expect(placed.len() + incoming.len());
        for Incoming { number, cookie, shard, socket } in incoming {
            let found = rustix::net::sockopt::socket_cookie(&socket).map_err(|error| {
                LoadError::Io { what: "a socket has no cookie", error: error.into() }
            })?;
            if found != cookie {
                return Err(LoadError::MixedUp { number, expected: cookie, found });
            }
            // Invariant PAY-FIRST, as far as it goes: the kernel has opened it for us.
            let Some(permit) = self.front.clients.try_client() else {
                return Err(LoadError::NoDescriptor { clients: self.front.clients.ceiling() });
            };
            let shard = self.shard_for(shard.into());
            placed.insert(number, shard);
            lists[shard].push(Reserved { number, socket: socket.into(), permit });
        }
        drop(placed);
        for (berth, list) in self.shards.iter().zip(lists) {
            if !list.is_empty() {
                berth.order(Boarding::Reserve(list))?;
            }
        }
        Ok(())
    }

    /// A chunk of the history has come. It is loaded as it comes: times count from now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn snapshot(&self, chunk: &[u8]) -> Result<(), LoadError> {
        self.front
            .common
            .memory
            .load(chunk, Piece::Snapshot, self.front.clock.now())
            .map_err(LoadError::Unreadable)
    }

    /// Connections of the other process's shard `from` have come whose sockets are here, as they were
    /// when they were written down; they may come again. Blocks.
    ///
    /// # Errors
    /// When something cannot be read or is missing; then this is to be dropped.
    pub(crate) fn ahead(&self, from: usize, piece: Vec<u8>) -> Result<(), LoadError> {
        let manifest = {
            let placed = self.placed.lock();
            self.manifest((piece, from), &placed)?
        };
        let shard = self.shard_for(from);
        let results = self.begin_boarding(shard..shard + 1, vec![manifest], false)?;
        end_boarding(&results, 1).map(drop)
    }

    /// Which shard takes the connections of a shard of the other process. Where there are as many as
    /// before, each has those that it had.
    fn shard_for(&self, from: usize) -> usize {
        from % self.shards.len()
    }

    fn manifest(
        &self,
        (piece, from): (Vec<u8>, usize),
        placed: &HashMap<u64, usize, FixedState>,
    ) -> Result<Manifest, LoadError> {
        let shard_of = |number: u64| placed.get(&number).copied();
        let now = self.front.clock.now();
        Manifest::read((Arc::new(piece), from), self.shards.len(), now, &shard_of).map_err(
            |unloadable| match unloadable {
                Unloadable::Unreadable(unreadable) => LoadError::Unreadable(unreadable),
                Unloadable::NoSocket(number) => LoadError::NoSocket { number },
            },
        )
    }

    /// Lets shards take in what is written down.
    fn begin_boarding(
        &self,
        shards: Range<usize>,
        manifests: Vec<Manifest>,
        is_last: bool,
    ) -> Result<Receiver<Result<Boarded, NotAboard>>, LoadError> {
        let manifests = Arc::new(manifests);
        let (done, results) = channel();
        for (shard, berth) in self.shards.iter().enumerate() {
            if shards.contains(&shard) {
                berth.order(Boarding::Load(LoadOrder {
                    manifests: Arc::clone(&manifests),
                    shard,
                    is_last,
                    addresses: self.front.addresses.clone(),
                    done: done.clone(),
                }))?;
            }
        }
        Ok(results)
    }

    /// Takes in all that was written down. Blocks. After it, everything that is needed to serve is
    /// here, and nothing serves yet.
    ///
    /// # Errors
    /// When something cannot be read or is missing; then this is to be dropped.
    pub(crate) fn load(&self, cargo: Cargo) -> Result<Loaded, LoadError> {
        let Cargo { changes, common: shared, shards } = cargo;
        let front = &self.front;
        let now = front.clock.now();
        let placed = std::mem::take(&mut *self.placed.lock());
        let mut manifests = Vec::with_capacity(shards.len());
        for (from, piece) in shards.into_iter().enumerate() {
            manifests.push(self.manifest((piece, from), &placed)?);
        }
        let told: Option<u64> = manifests.iter().map(Manifest::connections).sum();
        let results = self.begin_boarding(0..self.shards.len(), manifests, true)?;
        // While the shards read.
        let memory = &front.common.memory;
        memory.load(&changes, Piece::Changes, now).map_err(LoadError::Unreadable)?;
        common::take(front, &shared, now).map_err(LoadError::Unreadable)?;
        let Boarded { connections, closed } = end_boarding(&results, self.shards.len())?;
        if let Some(told) = told.filter(|told| *told != connections) {
            return Err(LoadError::Missing { told, connections });
        }
        front.common.node.stand(&std::mem::take(&mut *front.common.stands.lock()));
        let mut loaded = Loaded { connections, closed, awaited: 0 };
        loaded.awaited = front.common.awaited.lock().len();
        Ok(loaded)
    }

    /// The shards begin to serve. The witness is told of every connection before it is used for the
    /// first time, as long as the other process may come back. Listeners are the caller's affair, as in a server that starts.
    pub(crate) fn serve(self, witness: Option<Witness>) -> Serving {
        let Self { front, shards, placed: _ } = self;
        let mut threads = Vec::with_capacity(shards.len());
        for Berth { orders, thread } in shards {
            // A shard that has ended has ended the process: invariant ALIVE.
            orders.send(Boarding::Serve(witness.clone())).ok();
            threads.push(thread);
        }
        Serving { front, threads }
    }
}

impl Berth {
    fn order(&self, boarding: Boarding) -> Result<(), LoadError> {
        let error = io::ErrorKind::BrokenPipe;
        self.orders
            .send(boarding)
            .map_err(|_| LoadError::Io { what: "a shard has ended", error: error.into() })
    }
}

/// Waits for the shards that were told to take something in.
fn end_boarding(
    results: &Receiver<Result<Boarded, NotAboard>>,
    shards: usize,
) -> Result<Boarded, LoadError> {
    let mut all = Boarded::default();
    for _ in 0..shards {
        let boarded = results.recv().map_err(|_| LoadError::Io {
            what: "a shard has ended",
            error: io::ErrorKind::BrokenPipe.into(),
        })?;
        let Boarded { connections, closed } = boarded.map_err(|not| match not {
            NotAboard::Corrupt(corrupt) => LoadError::Unreadable(Unreadable::Corrupt {
                piece: "the state of a shard",
                corrupt,
            }),
            NotAboard::NoSocket(number) => LoadError::NoSocket { number },
            NotAboard::Register(error) => {
                LoadError::Io { what: "a socket cannot be watched", error }
            }
        })?;
        all.connections += connections;
        all.closed += closed;
    }
    Ok(all)
}

/// A server that has taken over.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) front: Arc<Front>,
    pub(crate) threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Serving {
    /// A connection that was upgraded by the old process after the commit.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for it.
    pub(crate) fn arrive(&self, state: &[u8], socket: OwnedFd) -> Result<(), LoadError> {
        arrival::take(&self.front, state, socket)
    }

    /// The answer to a call that the old process had made. One that nobody waits for is dropped.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn backend_answer(&self, state: &[u8]) -> Result<(), LoadError> {
        let (number, ticket, answer) = arrival::take_answer(state)?;
        self.front.common.answered(number, ticket, answer).await;
        Ok(())
    }

    /// No more answers come from the old process: who still waits for one is told that it failed,
    /// with an error that is temporary. A call is never made twice.
    pub(crate) fn give_up_calls(&self) {
        give_up_calls(&self.front.common);
    }
}

/// See [`Serving::give_up_calls`].
pub(super) fn give_up_calls(common: &Common) {
    let awaited: Vec<_> = common.awaited.lock().drain().collect();
    for (_, to) in awaited {
        let answer = Answer::Failed;
        if let Some(shard) = common.shards.get(usize::from(to.mailbox)) {
            shard.post(Post::Mail(Mail::Backend { to, answer }));
        }
    }
}
