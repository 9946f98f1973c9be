//! Hands out permits for clients, up to a ceiling.
//!
//! First form: one kind of permit and a fixed ceiling. What else needs descriptors (listeners,
//! backends, brokers, files) is taken off the ceiling by whoever makes the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many clients may be held, and how many are.
#[derive(Debug, Clone)]
pub struct Budget {
    account: Arc<Account>,
}

/// The right to hold one client. Dropping it gives the place back.
///
/// Invariant PAY-FIRST: no descriptor of a client is kept without one.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    ceiling: u64,
    open: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(ceiling: u64) -> Self {
        Self { account: Arc::new(Account { ceiling, open: AtomicU64::new(0) }) }
    }

    /// A place for one more client, unless all are taken.
    #[must_use]
    pub fn try_client(&self) -> Option<Permit> {
        let one_more = |open| (open < self.account.ceiling).then_some(open + 1);
        // Only the count is shared, so its own order of changes is all that is needed.
        self.account.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit { account: Arc::clone(&self.account) })
    }

    /// How many permits are out.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.account.open.load(Ordering::Relaxed)
    }

    /// How many permits there are.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.account.ceiling
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
