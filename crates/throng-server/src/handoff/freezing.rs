//! The old process's side: copies of the sockets go ahead, the history goes ahead, everything stops
//! and is written down, and goes on or is left.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cargo, Courier, Doors, Outlet, Patience, common};
use throng_limits::{Lane, Permit};

use crate::front::Front;
use crate::shard::{CopyOrder, Post, Stop, StopOrder, Tally};

/// Everything that can be handed over.
#[derive(Debug, Clone)]
pub(crate) struct Freezer {
    front: Arc<Front>,
}

/// Why nothing was frozen; everything goes on.
#[derive(Debug)]
pub(crate) enum CannotFreeze {
    /// Requests did not end in time.
    Requests(Duration),
    /// Something was still under way between shards, node and broker.
    Shards(Duration),
    /// The courier failed, or a socket has no cookie.
    Copy(io::Error),
}

impl fmt::Display for CannotFreeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(patience) => {
                write!(f, "requests of the API were still under way after {patience:?}; try again")
            }
            Self::Shards(patience) => {
                write!(f, "the shards were not still within {patience:?}; try again")
            }
            Self::Copy(error) => {
                write!(f, "sockets could not be handed to the other process: {error}")
            }
        }
    }
}

impl std::error::Error for CannotFreeze {}

impl Freezer {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// Milliseconds that the clock shows, for [`crate::clock::Clock::resume`] in the other process.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.front.clock.now().mono_ms
    }

    /// So many permits for what a restart opens; none when they are not to be had.
    pub(crate) fn permits(&self, count: usize) -> Option<Vec<Permit>> {
        (0..count).map(|_| self.front.clients.try_take(Lane::Restart)).collect()
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.front.common.shards.len()
    }

    /// What is listened on.
    pub(crate) fn listeners(&self) -> Doors {
        self.front.doors.get().cloned().unwrap_or_default()
    }

    /// Hands copies of all sockets to the courier that were not handed to one yet, while everything
    /// is served; [`Tally::wait`] waits for the end of it.
    pub(crate) fn copy_ahead(&self, courier: &Arc<dyn Courier>) -> Arc<Tally> {
        let tally = Tally::new(self.shards());
        for (shard, mailbox) in (0..).zip(&self.front.common.shards) {
            let (courier, tally) = (Arc::clone(courier), Arc::clone(&tally));
            mailbox.post(Post::Copy(CopyOrder::Send { shard, courier, tally }));
        }
        tally
    }

    /// Tells the courier of all connections whose sockets it has and which it does not know as they
    /// are now, while everything is served; [`Tally::wait`] waits for the end of it. Each piece is for
    /// [`super::Loading::ahead`], in their order.
    pub(crate) fn tell_ahead(&self, courier: &Arc<dyn Courier>) -> Arc<Tally> {
        let tally = Tally::new(self.shards());
        for (shard, mailbox) in (0..).zip(&self.front.common.shards) {
            let (courier, tally) = (Arc::clone(courier), Arc::clone(&tally));
            mailbox.post(Post::Copy(CopyOrder::Tell { shard, courier, tally }));
        }
        tally
    }

    /// The restart came to nothing, and nobody holds copies any more.
    pub(crate) fn forget_copies(&self) {
        for mailbox in &self.front.common.shards {
            mailbox.post(Post::Copy(CopyOrder::Forget));
        }
        self.front.common.memory.forget_snapshot();
    }

    /// The history, chunk by chunk, while everything is served: each `Some` is one for
    /// [`super::Loading::snapshot`], in any order before [`super::Loading::load`].
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut snapshot = self.front.common.memory.snapshot();
        let clock = self.front.clock;
        std::iter::from_fn(move || snapshot.next_at(clock.now()))
    }

    /// Stops everything and writes it down. Blocks: it is called from a thread of its own. What
    /// goes wrong changes nothing.
    ///
    /// # Errors
    /// When it could not be stopped in time, or a socket could not be copied.
    pub(crate) fn freeze(
        &self,
        courier: &Arc<dyn Courier>,
        patience: Patience,
    ) -> Result<Frozen, CannotFreeze> {
        let common = &self.front.common;
        if !common.pause.close(patience.requests) {
            return Err(CannotFreeze::Requests(patience.requests));
        }
        // Who is being sent something just now shall have it: what would be left of it would make all
        // of them different from what the other process knows of them. Nobody waits meanwhile but
        // the requests.
        let calm = Tally::new(self.shards());
        for mailbox in &common.shards {
            mailbox.post(Post::Copy(CopyOrder::Calm { tally: Arc::clone(&calm) }));
        }
        // Where it is never calm, it is frozen all the same.
        calm.wait(patience.calm).ok();
        let start = Instant::now();
        let deadline = start + patience.shards;
        let stop = {
            let common = Arc::clone(common);
            Stop::new(self.shards(), Arc::clone(courier), move || {
                common.shards.iter().all(|mailbox| mailbox.is_empty()) && !common.node.is_waiting()
            })
        };
        for (shard, mailbox) in (0..).zip(&common.shards) {
            mailbox.post(Post::Freeze(StopOrder { stop: Arc::clone(&stop), shard }));
        }
        // From here on it resumes when it is dropped.
        let mut frozen = Frozen {
            front: Arc::clone(&self.front),
            stop,
            start,
            cargo: Cargo::default(),
            is_over: false,
        };
        if !frozen.stop.wait_quiet(deadline) {
            return Err(CannotFreeze::Shards(patience.shards));
        }
        // While the shards write.
        let now = self.front.clock.now();
        frozen.cargo.changes = common.memory.changes(now);
        frozen.cargo.common = common::put(&self.front, now);
        match frozen.stop.wait_written(deadline) {
            Some(Ok(shards)) => frozen.cargo.shards = shards,
            Some(Err(error)) => return Err(CannotFreeze::Copy(error)),
            None => return Err(CannotFreeze::Shards(patience.shards)),
        }
        Ok(frozen)
    }
}

/// Everything stands still. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    front: Arc<Front>,
    stop: Arc<Stop>,
    /// When clients began to wait.
    start: Instant,
    cargo: Cargo,
    is_over: bool,
}

impl Frozen {
    /// What was written down.
    pub(crate) fn cargo(&self) -> &Cargo {
        &self.cargo
    }

    /// The same, to be kept.
    #[cfg(test)]
    pub(crate) fn take_cargo(&mut self) -> Cargo {
        std::mem::take(&mut self.cargo)
    }

    /// When everything stopped.
    pub(crate) fn since(&self) -> Instant {
        self.start
    }

    /// Goes on as if nothing had happened.
    pub(crate) fn resume(self) {}

    /// The other process has taken over. Sockets stay open here and are not touched; what the front
    /// still has goes to `outlet`, accepting ends.
    pub(crate) fn give_up(mut self, outlet: Arc<dyn Outlet>) -> Parachute {
        self.is_over = true;
        self.front.common.pause.moved(outlet);
        Parachute { front: Arc::clone(&self.front), stop: Arc::clone(&self.stop), is_over: false }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.is_over {
            self.stop.resume();
            self.front.common.pause.open();
        }
    }
}

/// The sockets of connections that live elsewhere, held in case that process dies. Dropped, it closes
/// them here, which nobody notices.
#[derive(Debug)]
pub(crate) struct Parachute {
    front: Arc<Front>,
    stop: Arc<Stop>,
    is_over: bool,
}

impl Parachute {
    /// The other process is dead. Serves again what was frozen, as it was then. Which connections
    /// may go on, `keeps` says for each by its number and socket, on the shards' threads: those
    /// whose kernel offsets are what they were. The others are cut off; every stream begins a new
    /// epoch, and who follows one is told to recover: so no offset is ever given twice.
    pub(crate) fn take_back(
        mut self,
        keeps: impl Fn(u64, BorrowedFd<'_>) -> bool + Send + Sync + 'static,
    ) {
        self.is_over = true;
        let common = &self.front.common;
        common.memory.begin_anew(self.front.clock.now());
        common.node.begin_maps_anew();
        self.stop.take_back(keeps);
        common.pause.open();
    }
}

impl Drop for Parachute {
    fn drop(&mut self) {
        if !self.is_over {
            self.stop.leave();
        }
    }
}
