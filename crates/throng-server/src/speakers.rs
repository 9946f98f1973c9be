//! Where the sessions are whose clients speak elsewhere than they are spoken to.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

/// The sessions of the node that are fed by `/emulation`. Who knows a session's id may speak for its
/// client, so ids come from the system's generator, and no list of them is given out.
///
/// By half of the id, which finds a place in a third of the memory; whether the whole of it is right is
/// for the session to say. No two of a crowd have the same half: it has 60 random bits.
///
/// Invariant BOUNDED: there are no more than connections.
#[derive(Debug, Default)]
pub(crate) struct Speakers(Mutex<HashMap<u64, Place>>);

/// Where a session may be: in which shard, and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    pub(crate) slot: u32,
}

const _: () = assert!(size_of::<(u64, Place)>() <= 16);

impl Speakers {
    /// A session has begun.
    pub(crate) fn add(&self, session: Uuid, place: Place) {
        self.0.lock().insert(half(session), place);
    }

    /// It has ended.
    pub(crate) fn remove(&self, session: Uuid) {
        let mut places = self.0.lock();
        places.remove(&half(session));
        // A crowd that left must not leave its table behind.
        if places.capacity() > 1024 && places.len() < places.capacity() / 8 {
            places.shrink_to_fit();
        }
    }

    /// Where it is, if it is anywhere.
    pub(crate) fn find(&self, session: Uuid) -> Option<Place> {
        self.0.lock().get(&half(session)).copied()
    }
}

fn half(session: Uuid) -> u64 {
    session.as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_left_leaves_no_table() {
        let speakers = Speakers::default();
        let id = |slot: u32| Uuid::from_u64_pair(u64::from(slot), 7);
        for slot in 0..10_000 {
            speakers.add(id(slot), Place { shard: 1, slot });
        }
        for slot in 1..10_000 {
            speakers.remove(id(slot));
        }
        assert_eq!(speakers.find(id(0)), Some(Place { shard: 1, slot: 0 }));
        assert_eq!(speakers.find(id(1)), None);
        assert!(speakers.0.lock().capacity() < 2000);
    }
}
