//! Handing everything over to another process: the state half. How the other process is started,
//! and how bytes and descriptors reach it, is the business of whoever calls this.
//!
//! # The old process
//!
//! 1. [`Freezer::listeners`]: they go first; both processes hold them, one accepts.
//! 2. [`Freezer::copy_ahead`]: every shard hands its sockets to a [`Courier`], in batches of at
//!    most [`crate::shard::BATCH_MAX`], on its own thread and between its turns, so that no descriptor is reused
//!    under it. It may be called again: then only sockets that were not sent yet are. From now on a
//!    connection that ends is shut down first, since the other process holds a duplicate
//!    ([`Freezer::forget_copies`] ends this after a restart that came to nothing).
//! 3. [`Freezer::snapshot`]: the history, chunk by chunk, while everything is served.
//! 4. [`Freezer::tell_ahead`]: every shard writes down its connections, some in each turn, while
//!    everything is served; called again, those that have changed since. Who is in the middle of
//!    something (half a frame, bytes that wait, an answer that is awaited) is left for later. A
//!    connection that is told of is marked; whoever takes its record to change it takes the mark away
//!    (`shard/conns`), and so does nobody who only writes to its socket. Where a channel stands is no
//!    connection's: a publication to a hundred thousand changes one channel.
//! 5. [`Freezer::freeze`]: API and gate pause, what is being sent is sent, the shards empty their
//!    mailboxes and stop; sockets that are new go to the courier; every shard writes down what was
//!    not told as it is now, and who has gone. What is under way at a backend goes on: its answer
//!    waits in the pause.
//! 6. [`Frozen::resume`] (also when it is dropped): goes on as if nothing had happened. Or, once the
//!    other process has acknowledged, [`Frozen::give_up`]: sockets are held and not touched; what
//!    the front still has goes to an [`Outlet`]. [`Parachute`] ends that.
//!
//! # The new process
//!
//! 1. [`Loading::prepare`]: shards, node and front as `serve::assemble` makes them, with a clock
//!    that counts on ([`Freezer::uptime_ms`], [`crate::clock::Clock::resume`]), without listeners;
//!    nothing serves.
//! 2. [`Loading::adopt`]: sockets, as they come; each has a place and is watched from then on, and
//!    nothing is read. [`Loading::snapshot`]: the history. [`Loading::ahead`]: connections, which
//!    are taken in as if they were to be served; who comes again, or goes, is undone first.
//! 3. [`Loading::load`]: checks and takes in everything, or says what is wrong; sockets that no
//!    record speaks of are closed (never shut down). After it the acknowledgement may be sent.
//! 4. [`Loading::serve`]: the shards begin. Nothing is lost by a socket having become readable
//!    meanwhile: its registration tells. [`Serving::arrive`] and [`Serving::backend_answer`] take
//!    what the old process's [`Outlet`] sends afterwards.
//!
//! If the new process ends before it has acknowledged, the old one resumes; nothing but descriptors
//! that it opened itself is closed with it.
//!
//! # Identity
//!
//! A connection is known by its number, which is unique for life. A socket travels with its cookie
//! (`SO_COOKIE`), which the receiver compares with what it finds, so that a descriptor that was
//! mixed up is noticed.
//!
//! # What does not move, and why
//!
//! * Generators of ids, epochs and jitter are seeded anew.
//! * The connect backend's cached answers: the backend is asked again.
//! * Where a sweep or a shedding stood: it begins again.
//! * Which log lines were repeated how often, and what `throng status` says of the calls of each
//!   backend (what metrics count of them does move).
//! * Seats of those who are no clients yet (the old process serves them to their end).

mod arrival;
mod common;
mod freezing;
mod loading;
pub(crate) mod parts;
pub(crate) mod pause;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use arrival::{put as put_arrival, put_answer};
pub(crate) use freezing::{Freezer, Frozen, Parachute};
pub(crate) use loading::{LoadError, Loaded, Loading, Serving};

use tokio::sync::oneshot;

use crate::front::{Asks, Door};
pub(crate) use crate::shard::{Courier, Parcel};

/// A socket as it came from the other process.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) number: u64,
    pub(crate) cookie: u64,
    pub(crate) shard: u16,
    pub(crate) socket: OwnedFd,
}

/// Where the front's leftovers go after the commit. Called from the front's tasks.
pub(crate) trait Outlet: Send + Sync {
    /// A connection that has just been upgraded here, to be given to [`Serving::arrive`].
    fn arrival(&self, state: Vec<u8>, socket: OwnedFd);

    /// A backend's answer, to be given to [`Serving::backend_answer`].
    fn backend_answer(&self, answer: Vec<u8>);

    /// A request of the API, to be answered by [`crate::front::call_api`] there: its status and body.
    fn call(&self, method: &str, asks: Asks, body: &[u8]) -> oneshot::Receiver<(u16, Vec<u8>)>;
}

/// How long the parts of a freeze may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until requests in progress are through. Clients are served meanwhile.
    pub(crate) requests: Duration,
    /// Until what is being sent is sent. Clients are served meanwhile.
    pub(crate) calm: Duration,
    /// From there until everything is written down.
    pub(crate) shards: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // A request that waits for room in the allowance may take seconds; shards take
        // milliseconds, and a client notices a second.
        Self {
            requests: Duration::from_secs(2),
            // Only a crowd that is sent more than it can be sent is never calm.
            calm: Duration::from_millis(500),
            shards: Duration::from_secs(1),
        }
    }
}

/// All that is written down at a freeze, to be given to [`Loading::load`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Cargo {
    /// What changed in the streams since [`Freezer::snapshot`].
    pub(crate) changes: Vec<u8>,
    /// What the shards have in common.
    pub(crate) common: Vec<u8>,
    /// Each shard's connections.
    pub(crate) shards: Vec<Vec<u8>>,
}

/// The sockets that are listened on, by door.
pub(crate) type Doors = Vec<(Door, Arc<TcpListener>)>;
