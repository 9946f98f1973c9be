//! Decides who may come in: a seat for everyone who is not a client yet, taken before accepting.
//!
//! When all seats are taken, the one that has said nothing for the longest time is reset, so that
//! the newcomer gets in: a flood of silent connections does not lock out the API.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use socket2::SockRef;
use throng_limits::{Budget, Lane, Permit};
use tokio::sync::{Notify, futures::Notified};

use crate::addresses::Held;
use crate::rng::{Rng, system_seed};

/// How long who has said nothing is left alone: a head follows the connection's first packet at
/// once, however far away the client is.
const SILENCE_MIN: Duration = Duration::from_millis(50);
/// Seats at once. A request in progress needs some 30 KiB, so that a flood of them cannot have more
/// than some 130 MiB, however many descriptors there are.
const SEATS_MAX: usize = 4096;
/// Of those who were silent long enough one in so many is reset together, the longest first, so
/// that the next newcomers need not wait; and no more than so many.
const RESET_SHARE: usize = 8;
const RESET_MAX: usize = 32;
/// How often it is looked whether somebody was silent long enough.
const LOOK: Duration = Duration::from_millis(10);
/// Milliseconds between two lines that say that clients are refused.
const SAY_EVERY_MS: u64 = 10_000;
/// How long a newcomer waits while everybody inside is being answered.
const PATIENCE: Duration = Duration::from_millis(300);
/// Seconds after which a refused client is told to try again; spread, so that a crowd does not
/// come back in one instant.
const RETRY_AFTER_S: std::ops::RangeInclusive<u32> = 1..=5;

/// The seats, and the budget that they are paid from.
#[derive(Debug)]
pub(crate) struct Gate {
    budget: Budget,
    seats: Mutex<Slab<Arc<Seat>>>,
    /// Somebody has left.
    left: Notify,
    start: Instant,
    /// Nobody could be made room for: until someone leaves, newcomers do not wait for it.
    starved: AtomicBool,
    jitter: Mutex<Rng>,
    /// When it was last said that the server is full, in milliseconds from the start; 0: never.
    said_full_ms: AtomicU64,
    /// And that too many come at once.
    said_too_fast_ms: AtomicU64,
    /// And that connections were reset.
    said_reset_ms: AtomicU64,
    /// Clients that were told that the server is full.
    pub(crate) refused: AtomicU64,
    /// Connections that were reset to make room.
    pub(crate) reset: AtomicU64,
    /// Clients whose connections the front has, since they cannot be a socket: those over gRPC.
    pub(crate) bridged: AtomicU64,
}

/// The place of one connection that is no client yet.
#[derive(Debug)]
pub(crate) struct Seat {
    permit: Mutex<Option<Permit>>,
    /// Its part of what its address may have.
    address: Mutex<Option<Box<Held>>>,
    /// Milliseconds from the gate's start to the last sign of life.
    last_ms: AtomicU64,
    state: Mutex<Sitting>,
    go: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sitting {
    /// Nothing has been read or looked for yet, or a request is being answered.
    Busy,
    /// It was looked for its next bytes, and there were none.
    Silent,
    /// It was told to go.
    Leaving,
}

/// Someone on a seat; dropping it leaves the seat.
#[derive(Debug)]
pub(crate) struct Visitor {
    gate: Arc<Gate>,
    pub(crate) seat: Arc<Seat>,
    key: usize,
}

impl Gate {
    /// How many of those who are no clients are being answered, or read for the first time.
    pub(crate) fn busy(&self) -> usize {
        let seats = self.seats.lock();
        seats.iter().filter(|(_, seat)| *seat.state.lock() == Sitting::Busy).count()
    }

    pub(crate) fn new(budget: Budget) -> Arc<Self> {
        Arc::new(Self {
            budget,
            seats: Mutex::default(),
            left: Notify::new(),
            start: Instant::now(),
            starved: AtomicBool::new(false),
            jitter: Mutex::new(Rng::new(system_seed())),
            said_full_ms: AtomicU64::new(0),
            said_too_fast_ms: AtomicU64::new(0),
            said_reset_ms: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            bridged: AtomicU64::new(0),
        })
    }

    /// A seat for whoever comes next. None when everybody inside is being answered and nobody
    /// leaves in time: then the newcomer cannot be held.
    ///
    /// Told to stop waiting, it has taken nothing.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<Visitor> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left.notified();
            if let Some(visitor) = self.try_enter() {
                return Some(visitor);
            }
            if self.reset_longest_silent() {
                // They are on their way out.
            } else if self.starved.load(Ordering::Relaxed) || Instant::now() >= deadline {
                self.starved.store(true, Ordering::Relaxed);
                return None;
            }
            // Whether it ended by time or by somebody's leaving, it is looked again.
            tokio::time::timeout(LOOK, left).await.ok();
        }
    }

    /// When no client fits, most of those who come are to be refused.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Visitor> {
        if self.seats.lock().len() >= SEATS_MAX {
            return None;
        }
        let [first, second] = if self.budget.is_full() {
            [Lane::Refusing, Lane::Front]
        } else {
            [Lane::Front, Lane::Refusing]
        };
        let permit = self.budget.try_take(first).or_else(|| self.budget.try_take(second))?;
        let seat = Arc::new(Seat {
            permit: Mutex::new(Some(permit)),
            address: Mutex::default(),
            last_ms: AtomicU64::new(self.now_ms()),
            state: Mutex::new(Sitting::Busy),
            go: Notify::new(),
        });
        let key = self.seats.lock().insert(Arc::clone(&seat));
        Some(Visitor { gate: Arc::clone(self), seat, key })
    }

    /// A client's permit for whoever sits here. Where half-done handshakes and idle connections have
    /// what it needs, they go first: none only when the server is full of clients, or everybody
    /// inside is being answered and nobody leaves in time.
    pub(crate) async fn make_client(&self, seat: &Seat) -> Option<Permit> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left.notified();
            if let Some(permit) = seat.become_client() {
                return Some(permit);
            }
            if self.budget.is_full() || (!self.reset_longest_silent() && Instant::now() >= deadline)
            {
                return None;
            }
            tokio::time::timeout(LOOK, left).await.ok();
        }
    }

    /// Tells those that have been silent longest to go, if they have been for long enough.
    fn reset_longest_silent(&self) -> bool {
        let now = self.now_ms();
        let seats = self.seats.lock();
        let mut silent: Vec<(u64, &Seat)> = seats
            .iter()
            .filter(|(_, seat)| *seat.state.lock() == Sitting::Silent)
            .map(|(_, seat)| (seat.last_ms.load(Ordering::Relaxed), &**seat))
            .filter(|(last, _)| u128::from(now.saturating_sub(*last)) >= SILENCE_MIN.as_millis())
            .collect();
        if silent.is_empty() {
            return false;
        }
        let count = (silent.len() / RESET_SHARE).clamp(1, RESET_MAX);
        silent.select_nth_unstable_by_key(count - 1, |(last, _)| *last);
        let leave = |(_, seat): &(u64, &Seat)| seat.leave();
        let reset = silent[..count].iter().filter(|one| leave(one)).count();
        self.reset.fetch_add(reset as u64, Ordering::Relaxed);
        reset > 0
    }

    /// Whether it is time for another line about clients for whom there is no room.
    pub(crate) fn may_say_full(&self) -> bool {
        self.may_say(&self.said_full_ms)
    }

    /// And about those that come too fast.
    pub(crate) fn may_say_too_fast(&self) -> bool {
        self.may_say(&self.said_too_fast_ms)
    }

    /// And about connections that were reset to make room.
    pub(crate) fn may_say_reset(&self) -> bool {
        self.may_say(&self.said_reset_ms)
    }

    fn may_say(&self, said_ms: &AtomicU64) -> bool {
        let (now, said) = (self.now_ms().max(1), said_ms.load(Ordering::Relaxed));
        let is_time = said == 0 || now.saturating_sub(said) >= SAY_EVERY_MS;
        // Of those who come at once, one says it.
        let exchange =
            || said_ms.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_time && exchange()
    }

    /// Seconds to name in `Retry-After`.
    pub(crate) fn retry_after_s(&self) -> u32 {
        let spread = RETRY_AFTER_S.end() - RETRY_AFTER_S.start() + 1;
        RETRY_AFTER_S.start() + self.jitter.lock().below(spread)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Visitor {
    /// Something was heard from it, or is being done for it.
    pub(crate) fn busy(&self) {
        self.seat.busy(&self.gate);
    }

    /// It is waited for.
    pub(crate) fn silent(&self) {
        self.seat.silent();
    }

    /// From now on it is one of those who are served.
    pub(crate) fn is_served(&self) {
        let mut permit = self.seat.permit.lock();
        // Where the front's lane is full, it is served on the permit that it has.
        *permit = permit.take().map(|permit| permit.turn(Lane::Front).unwrap_or_else(|same| same));
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }
}

impl Seat {
    pub(crate) fn busy(&self, gate: &Gate) {
        self.last_ms.store(gate.now_ms(), Ordering::Relaxed);
        let mut state = self.state.lock();
        if *state == Sitting::Silent {
            *state = Sitting::Busy;
        }
    }

    pub(crate) fn silent(&self) {
        let mut state = self.state.lock();
        if *state == Sitting::Busy {
            *state = Sitting::Silent;
        }
    }

    /// Tells it to go, unless it has been heard from meanwhile.
    fn leave(&self) -> bool {
        let mut state = self.state.lock();
        if *state != Sitting::Silent {
            return false;
        }
        *state = Sitting::Leaving;
        self.go.notify_one();
        true
    }

    /// Resolves when it has to go.
    pub(crate) fn told_to_go(&self) -> Notified<'_> {
        self.go.notified()
    }

    pub(crate) fn keep_address(&self, held: Option<Box<Held>>) {
        *self.address.lock() = held;
    }

    /// The client takes it along.
    pub(crate) fn take_address(&self) -> Option<Box<Held>> {
        self.address.lock().take()
    }

    /// Its permit, for what is not one of those who sit here any more.
    pub(crate) fn take_permit(&self) -> Option<Permit> {
        let permit = self.permit.lock().take()?;
        // Where no more of those fit, it goes on with what it has.
        Some(permit.turn(Lane::Bridges).unwrap_or_else(|same| same))
    }

    /// Its permit as a client's, where one more client fits.
    fn become_client(&self) -> Option<Permit> {
        let mut held = self.permit.lock();
        match held.take()?.turn(Lane::Clients) {
            Ok(client) => Some(client),
            Err(same) => {
                *held = Some(same);
                None
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.gate.seats.lock().remove(self.key);
        self.seat.permit.lock().take();
        self.seat.address.lock().take();
        self.gate.starved.store(false, Ordering::Relaxed);
        self.gate.left.notify_waiters();
    }
}

/// Closes with a reset: the kernel keeps nothing of it, and the other side knows at once.
pub(crate) fn reset(socket: &impl AsFd) {
    // What cannot be set is closed in the ordinary way.
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_limits::Guarantees;

    fn gate(total: u64) -> Arc<Gate> {
        Gate::new(Budget::with(total, Guarantees::of(total)))
    }

    fn all_seats(gate: &Arc<Gate>) -> Vec<Visitor> {
        std::iter::from_fn(|| gate.try_enter()).collect()
    }

    #[tokio::test]
    async fn the_longest_silent_goes_and_the_newcomer_gets_in() {
        let gate = gate(30);
        let mut seats = all_seats(&gate);
        for (age, visitor) in seats.iter().enumerate() {
            visitor.seat.last_ms.store(age as u64, Ordering::Relaxed);
            visitor.silent();
        }
        seats[0].busy();
        let victim = seats.remove(1);
        tokio::time::sleep(SILENCE_MIN).await;
        let leaver = tokio::spawn(async move {
            victim.seat.told_to_go().await;
        });
        assert!(gate.enter().await.is_some());
        leaver.await.unwrap();
        // Where the leaver was slow to go, more were told to.
        assert!(gate.reset.load(Ordering::Relaxed) >= 1);
    }

    #[tokio::test]
    async fn who_is_being_answered_is_not_reset() {
        let gate = gate(30);
        let seats = all_seats(&gate);
        assert!(gate.enter().await.is_none());
        // Nobody has left since: the next one is told at once.
        let begin = Instant::now();
        assert!(gate.enter().await.is_none());
        assert!(begin.elapsed() < PATIENCE);
        drop(seats);
        assert!(gate.enter().await.is_some());
        assert_eq!(gate.budget.used_total(), 0);
    }

    #[test]
    fn a_seat_becomes_a_clients_permit_and_is_empty_then() {
        let gate = gate(100);
        let visitor = gate.try_enter().unwrap();
        let permit = visitor.seat.become_client().unwrap();
        assert_eq!(permit.lane(), Lane::Clients);
        assert!(visitor.seat.become_client().is_none());
        drop(visitor);
        assert_eq!((gate.budget.open(), gate.budget.used_total()), (1, 1));
    }

    #[tokio::test]
    async fn half_done_handshakes_go_before_a_client_is_refused() {
        let gate = gate(60);
        let mut seats = all_seats(&gate);
        let newcomer = seats.pop().unwrap();
        let lane = newcomer.seat.permit.lock().as_ref().map(Permit::lane);
        assert_eq!(lane, Some(Lane::Refusing));
        assert!(newcomer.seat.become_client().is_none(), "handshakes have all there is");
        let count = seats.len();
        let mut slow = tokio::task::JoinSet::new();
        for visitor in seats {
            visitor.silent();
            slow.spawn(async move { visitor.seat.told_to_go().await });
        }
        tokio::time::sleep(SILENCE_MIN).await;
        assert!(gate.make_client(&newcomer.seat).await.is_some());
        let reset = gate.reset.load(Ordering::Relaxed);
        assert!(reset > 0 && reset < count as u64, "{reset} of {count}");
    }

    #[tokio::test]
    async fn a_server_full_of_clients_refuses_at_once() {
        let gate = gate(60);
        gate.budget.want_clients(0);
        let newcomer = gate.try_enter().unwrap();
        let silent = gate.try_enter().unwrap();
        silent.silent();
        tokio::time::sleep(SILENCE_MIN).await;
        assert!(gate.make_client(&newcomer.seat).await.is_none());
        assert_eq!(gate.reset.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn there_are_no_more_seats_than_their_memory_is_worth() {
        let gate = gate(100_000);
        assert_eq!(all_seats(&gate).len(), SEATS_MAX);
    }

    #[test]
    fn the_time_to_come_back_is_spread() {
        let gate = gate(10);
        let times: std::collections::BTreeSet<_> = (0..200).map(|_| gate.retry_after_s()).collect();
        assert_eq!(times.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
}
