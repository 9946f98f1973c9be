//! Connections whose subscriptions show in maps of who is there: the maps are told again in time,
//! so that a key outlives nobody by much, whatever becomes of this process.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::Sessions;
use crate::session::Session;
use crate::shard::{ConnRef, Crowd};

/// Connections that are told of in one second; with more the interval is longer.
const IN_A_SECOND_MAX: usize = 4096;

/// Who is told of when.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// By the second, since the interval is the same for all.
    due: VecDeque<(u32, ConnRef)>,
    /// The numbers of those that are in there.
    known: HashSet<u64>,
}

impl Shown {
    pub(super) fn add(&mut self, conn: ConnRef, interval: Duration, second: u32) {
        if self.known.insert(conn.number) {
            let interval = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX).max(1);
            self.due.push_back((second.saturating_add(interval), conn));
        }
    }

    fn take_due(&mut self, second: u32) -> Option<ConnRef> {
        self.due.front().filter(|(due_s, _)| *due_s <= second)?;
        let (_, conn) = self.due.pop_front()?;
        self.known.remove(&conn.number);
        if self.due.is_empty() {
            *self = Self::default();
        }
        Some(conn)
    }
}

impl Sessions {
    /// Says again who is there. Whoever is still shown has its turn again.
    pub(super) fn show_again(&mut self, crowd: &mut Crowd<Session>) {
        for _ in 0..IN_A_SECOND_MAX {
            let Some(conn) = self.shown.take_due(crowd.second()) else { return };
            if crowd.conn_ref(conn.slot) == Some(conn) {
                self.with_slot(crowd, conn.slot, |session, cx| session.show_again(cx));
            }
        }
    }
}
