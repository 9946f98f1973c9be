//! The queue through which other threads reach a shard.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mio::Waker;
use parking_lot::Mutex;

use super::Adopt;
use super::freeze::{CopyOrder, StopOrder};

/// One letter.
#[derive(Debug)]
pub enum Post<O, M> {
    /// A connection moves in.
    Adopt(Box<Adopt<O>>),
    /// For the handler.
    Mail(M),
    /// Sockets are to be copied to another process, or are no copies any more.
    Copy(CopyOrder),
    /// Everything stops at the end of this turn.
    Freeze(StopOrder),
    /// The shard ends when its connections are gone; closing them is the handler's affair.
    Stop,
}

/// A shard's mailbox. Bounded by what fills it: connections hold permits, publications draw on
/// the allowance, answers belong to commands of which a connection has one at a time.
pub struct Mailbox<O, M> {
    queue: Mutex<Vec<Post<O, M>>>,
    /// The shard is running a turn and will look into the queue before it sleeps.
    awake: AtomicBool,
    waker: Waker,
    /// The shard's seconds, written once per turn or second: its heartbeat.
    beat: AtomicU64,
}

impl<O, M> Mailbox<O, M> {
    /// A mailbox that wakes its shard with `waker`.
    pub fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Vec::new()),
            awake: AtomicBool::new(true),
            waker,
            beat: AtomicU64::new(0),
        })
    }

    /// Appends a letter and wakes the shard if it sleeps.
    pub fn post(&self, post: Post<O, M>) {
        self.queue.lock().push(post);
        self.nudge();
    }

    /// Wakes the shard if it sleeps.
    fn nudge(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            // A failed wake means that the shard's eventfd is gone, and so is the shard: the
            // process ends with it (invariant ALIVE), nobody is left to tell.
            self.waker.wake().ok();
        }
    }

    /// Whether nothing waits in it.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// Swaps the queue with `empty`: the room that a burst took goes when its letters are read.
    pub(super) fn take(&self, empty: &mut Vec<Post<O, M>>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut *self.queue.lock(), empty);
    }

    /// The shard wants to sleep. Returns whether it may: not if letters came meanwhile.
    pub(super) fn doze(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        if self.queue.lock().is_empty() {
            return true;
        }
        self.awake.store(true, Ordering::SeqCst);
        false
    }

    /// The shard is up.
    pub(super) fn rise(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    /// Records that the shard is alive at this second.
    pub(super) fn beat(&self, second: u32) {
        self.beat.store(u64::from(second), Ordering::Relaxed);
    }

    /// The second of the shard's last sign of life.
    pub fn last_beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }
}

impl<O, M> fmt::Debug for Mailbox<O, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.queue.lock().len()).finish_non_exhaustive()
    }
}
