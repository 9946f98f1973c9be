//! Hands out permits for descriptors, in lanes, so that no crowd of one kind starves the others.
//!
//! A lane has a guaranteed part, which is kept free for it, and borrows what nobody is guaranteed.
//! The clients have no part of their own: they are what the rest is for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Guaranteed to all lanes together, at least: with the process's own descriptors it is no more
/// than 70 at a limit of 1024.
const GUARANTEED_MIN: u64 = 48;
/// And at most: a large limit is there for clients.
const GUARANTEED_MAX: u64 = 4096;
/// What is guaranteed is one in so many.
const GUARANTEED_SHARE: u64 = 64;
/// And never more than one in so many, where the limit is tiny.
const GUARANTEED_SHARE_MAX: u64 = 3;
const LANES: usize = 7;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Clients that were let in.
    Clients,
    /// HTTP in progress: handshakes, API, health.
    Front,
    /// Backends and brokers.
    Upstream,
    /// Files that are read for a moment, resolving, reloading.
    Files,
    /// Those who come when no client fits, until they are told so.
    Refusing,
    /// What a restart needs.
    Restart,
    /// What stands between a client and its socket, where it has none of its own: of what is free.
    Bridges,
}

impl Lane {
    pub const ALL: [Self; LANES] = [
        Self::Clients,
        Self::Front,
        Self::Upstream,
        Self::Files,
        Self::Refusing,
        Self::Restart,
        Self::Bridges,
    ];
}

/// How many permits each lane is guaranteed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guarantees([u64; LANES]);

impl Guarantees {
    /// What suits so many permits.
    #[must_use]
    pub fn of(total: u64) -> Self {
        let sum = (total / GUARANTEED_SHARE)
            .clamp(GUARANTEED_MIN, GUARANTEED_MAX)
            .min(total / GUARANTEED_SHARE_MAX);
        let mut parts = [0; LANES];
        // Of twelve: most for the API and those who are about to become clients.
        for (lane, twelfths) in
            [(Lane::Upstream, 2), (Lane::Files, 1), (Lane::Refusing, 3), (Lane::Restart, 1)]
        {
            parts[lane as usize] = sum * twelfths / 12;
        }
        parts[Lane::Front as usize] = sum - parts.iter().sum::<u64>();
        Self(parts)
    }

    /// The part of one lane.
    #[must_use]
    pub fn part(&self, lane: Lane) -> u64 {
        self.0[lane as usize]
    }

    /// All parts together: what no client gets.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// How many descriptors may be open, and how many are; a clone is the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    account: Arc<Account>,
}

/// The right to hold one descriptor. Dropping it gives the place back.
///
/// Invariant PAY-FIRST: no descriptor is opened without one.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    lane: Lane,
}

#[derive(Debug)]
struct Account {
    state: Mutex<State>,
}

/// Invariant: the permits that are out (`used`) never grow beyond `total`.
#[derive(Debug, Clone, Copy)]
struct State {
    total: u64,
    /// Clients wanted at most.
    clients_max: u64,
    guaranteed: Guarantees,
    used: [u64; LANES],
}

impl Budget {
    /// A budget of clients alone.
    #[must_use]
    pub fn new(clients: u64) -> Self {
        Self::with(clients, Guarantees::default())
    }

    /// So many permits for everything, parts of them guaranteed.
    #[must_use]
    pub fn with(total: u64, guaranteed: Guarantees) -> Self {
        let state = State { total, clients_max: u64::MAX, guaranteed, used: [0; LANES] };
        Self { account: Arc::new(Account { state: Mutex::new(state) }) }
    }

    /// From now on, no more clients than this, even where more would fit.
    pub fn want_clients(&self, clients: u64) {
        self.account.state().clients_max = clients;
    }

    /// From now on, so many permits. Those that are out stay out.
    pub fn resize(&self, total: u64, guaranteed: Guarantees) {
        let mut state = self.account.state();
        state.total = total;
        state.guaranteed = guaranteed;
    }

    /// One more of this lane: from its own part, or from what is free.
    #[must_use]
    pub fn try_take(&self, lane: Lane) -> Option<Permit> {
        let mut state = self.account.state();
        if !state.fits(lane) {
            return None;
        }
        state.used[lane as usize] += 1;
        drop(state);
        Some(Permit { account: Arc::clone(&self.account), lane })
    }

    /// A place for one more client, unless all are taken.
    #[must_use]
    pub fn try_client(&self) -> Option<Permit> {
        self.try_take(Lane::Clients)
    }

    /// Whether another client would fit now.
    #[must_use]
    pub fn fits_client(&self) -> bool {
        self.account.state().fits(Lane::Clients)
    }

    /// Whether there are as many clients as may be, whatever the other lanes have borrowed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let state = self.account.state();
        state.used[Lane::Clients as usize] >= state.ceiling()
    }

    /// How many clients there are.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.used(Lane::Clients)
    }

    /// How many clients fit.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.account.state().ceiling()
    }

    /// Permits of a lane that are out.
    #[must_use]
    pub fn used(&self, lane: Lane) -> u64 {
        self.account.state().used[lane as usize]
    }

    /// Permits of all lanes that are out.
    #[must_use]
    pub fn used_total(&self) -> u64 {
        self.account.state().used_total()
    }

    /// How many permits there are for everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.account.state().total
    }

    /// What each lane is guaranteed.
    #[must_use]
    pub fn guaranteed(&self) -> Guarantees {
        self.account.state().guaranteed
    }
}

impl Permit {
    /// What it is for.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Turns into a permit of another lane, where one fits: a handshake's into a client's.
    ///
    /// # Errors
    /// The permit as it was, when the other lane is full.
    pub fn turn(mut self, lane: Lane) -> Result<Self, Self> {
        let mut state = self.account.state();
        let before = *state;
        // What this one gives back is part of what it may have.
        state.used[self.lane as usize] -= 1;
        let fits = state.fits(lane);
        if fits {
            state.used[lane as usize] += 1;
        } else {
            *state = before;
        }
        drop(state);
        if !fits {
            return Err(self);
        }
        self.lane = lane;
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.state().used[self.lane as usize] -= 1;
    }
}

impl Account {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing between two states can panic, so a poisoned lock guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether one more of this lane may be handed out.
    fn fits(&self, lane: Lane) -> bool {
        let used = self.used[lane as usize];
        if self.used_total() >= self.total || (lane == Lane::Clients && used >= self.clients_max) {
            return false;
        }
        let spoken_for: u64 =
            self.used.iter().zip(self.guaranteed.0).map(|(&used, part)| used.max(part)).sum();
        used < self.guaranteed.part(lane) || spoken_for < self.total
    }

    fn ceiling(&self) -> u64 {
        self.total.saturating_sub(self.guaranteed.sum()).min(self.clients_max)
    }

    fn used_total(&self) -> u64 {
        self.used.iter().sum()
    }
}

#[cfg(test)]
mod tests;
