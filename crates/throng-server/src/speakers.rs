//! Where the sessions are whose clients speak elsewhere than they are spoken to.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::shard::ConnRef;

/// The sessions of the node that are fed by `/emulation`, by their ids. Who knows an id may speak for
/// its client, so they come from the system's generator, and no list of them is given out.
///
/// Invariant BOUNDED: there are no more than connections.
#[derive(Debug, Default)]
pub(crate) struct Speakers(Mutex<HashMap<Uuid, Place>>);

/// Where a session is: in which shard, and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    pub(crate) conn: ConnRef,
}

impl Speakers {
    /// A session has begun.
    pub(crate) fn add(&self, session: Uuid, place: Place) {
        self.0.lock().insert(session, place);
    }

    /// It has ended.
    pub(crate) fn remove(&self, session: Uuid) {
        let mut places = self.0.lock();
        places.remove(&session);
        // A crowd that left must not leave its table behind.
        if places.capacity() > 1024 && places.len() < places.capacity() / 8 {
            places.shrink_to_fit();
        }
    }

    /// Where it is.
    pub(crate) fn find(&self, session: Uuid) -> Option<Place> {
        self.0.lock().get(&session).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_left_leaves_no_table() {
        let speakers = Speakers::default();
        let place = |slot| Place { shard: 1, conn: ConnRef { slot, number: 7 } };
        for slot in 0..10_000_u32 {
            speakers.add(Uuid::from_u128(u128::from(slot)), place(slot));
        }
        for slot in 1..10_000_u32 {
            speakers.remove(Uuid::from_u128(u128::from(slot)));
        }
        assert_eq!(speakers.find(Uuid::from_u128(0)), Some(place(0)));
        assert_eq!(speakers.find(Uuid::from_u128(1)), None);
        assert!(speakers.0.lock().capacity() < 2000);
    }
}
