//! The node-wide allowance of bytes that the crowd may have waiting.
//!
//! Invariant BOUNDED: outboxes, half-received messages, waiting commands, recovery replies and
//! publications on their way all draw from one allowance. What the crowd holds may use all of it,
//! publications only what keeps a part free, so that publishers wait before clients are closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Publishers may fill this share of the allowance, in percent; past it they wait.
const PUBLISHERS_PERCENT: usize = 75;

/// Bytes that may be waiting, all clients together.
#[derive(Debug)]
pub struct Allowance {
    limit: usize,
    used: AtomicUsize,
    /// Of those used, bytes of clients that wait for room to publish.
    parked: AtomicUsize,
    /// Wakes API publishers when bytes came back while some waited.
    freed: Notify,
    waiting: AtomicUsize,
}

impl Allowance {
    /// An allowance of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Takes `bytes` whether or not they fit; the shard that sees [`Allowance::exceeded`] then
    /// closes the connection with the most waiting.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Whether more is taken than allowed.
    pub fn exceeded(&self) -> bool {
        self.used() > self.limit
    }

    /// Bytes taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes allowed.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Draws a publication's bytes, if publishers may have them now.
    pub fn draw(self: &Arc<Self>, bytes: usize) -> Option<Drawn> {
        let ceiling = self.limit / 100 * PUBLISHERS_PERCENT;
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            // Those who wait for room must not be what there is no room for: they would wait for
            // each other.
            let busy = used.saturating_sub(self.parked.load(Ordering::Relaxed));
            // One publication always fits an idle allowance, however small that is.
            if busy > 0 && busy.saturating_add(bytes) > ceiling {
                return None;
            }
            match self.used.compare_exchange_weak(
                used,
                used + bytes,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Drawn { from: Arc::clone(self), bytes }),
                Err(now) => used = now,
            }
        }
    }

    /// Takes `bytes` whether or not they fit, until the claim is dropped.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Drawn {
        self.take(bytes);
        Drawn { from: Arc::clone(self), bytes }
    }

    /// Bytes of clients that wait for room to publish.
    #[cfg(test)]
    pub(crate) fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Says that so many of the bytes held belong to a client that waits for room to publish, until
    /// that is dropped.
    pub fn park(self: &Arc<Self>, bytes: usize) -> Parked {
        self.parked.fetch_add(bytes, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_waiters();
        }
        Parked { at: Arc::clone(self), bytes }
    }

    /// Whether publishers may draw anything now.
    pub fn has_room(&self) -> bool {
        let busy = self.used().saturating_sub(self.parked.load(Ordering::Relaxed));
        busy < self.limit / 100 * PUBLISHERS_PERCENT
    }

    /// Waits until a draw may succeed again; the caller has a deadline.
    pub async fn draw_later(self: &Arc<Self>, bytes: usize) -> Drawn {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Registered before the attempt, so that bytes freed in between are not missed.
            freed.as_mut().enable();
            if let Some(drawn) = self.draw(bytes) {
                return drawn;
            }
            freed.await;
        }
    }
}

/// Counts one waiting publisher, also when its wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes drawn for one publication; given back when the last shard is done with it.
#[derive(Debug)]
pub struct Drawn {
    from: Arc<Allowance>,
    bytes: usize,
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.from.give(self.bytes);
    }
}

/// Bytes of a client that waits for room to publish.
#[derive(Debug)]
pub struct Parked {
    at: Arc<Allowance>,
    bytes: usize,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.at.parked.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_wait_while_a_quarter_is_still_free_for_the_crowd() {
        let allowance = Allowance::new(1000);
        let first = allowance.draw(700).unwrap();
        assert!(allowance.draw(100).is_none());
        assert!(!allowance.exceeded());
        drop(first);
        assert_eq!(allowance.used(), 0);
        assert!(allowance.draw(100).is_some());
    }

    #[test]
    fn one_publication_fits_an_idle_allowance_however_small() {
        let allowance = Allowance::new(10);
        assert!(allowance.draw(100).is_some());
    }

    #[test]
    fn those_who_wait_for_room_do_not_wait_for_each_other() {
        let allowance = Allowance::new(1000);
        let held: Vec<_> = (0..9).map(|_| allowance.hold(100)).collect();
        assert!(allowance.draw(100).is_none() && !allowance.has_room());
        let parked: Vec<_> = (0..9).map(|_| allowance.park(100)).collect();
        assert!(allowance.has_room());
        let drawn = allowance.draw(700).unwrap();
        assert!(allowance.draw(100).is_none() && allowance.exceeded());
        drop((parked, drawn));
        assert!(allowance.draw(100).is_none());
        drop(held);
        assert!(allowance.draw(1000).is_some());
    }

    #[tokio::test]
    async fn a_waiting_publisher_goes_on_when_bytes_come_back() {
        let allowance = Allowance::new(1000);
        let first = allowance.draw(700).unwrap();
        let waiter = {
            let allowance = Arc::clone(&allowance);
            tokio::spawn(async move { allowance.draw_later(600).await })
        };
        tokio::task::yield_now().await;
        drop(first);
        waiter.await.unwrap();
        assert_eq!(allowance.used(), 0);
    }
}
