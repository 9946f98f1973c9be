//! The members of one channel in one shard, in the order in which they joined.

use crate::subscription::Member;

/// Stands where a member left while a fan-out was under way.
pub(crate) const GONE: Member = Member::MAX;

/// A list of members; most channels have one.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a Vec in place would make every channel larger")]
pub(crate) enum Roster {
    #[default]
    Empty,
    One(Member),
    Many(Box<Vec<Member>>),
}

impl Roster {
    pub(crate) fn as_slice(&self) -> &[Member] {
        match self {
            Self::Empty => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Appends; returns the place.
    pub(crate) fn push(&mut self, member: Member) -> u32 {
        let index = self.len();
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(member),
            Self::One(one) => Self::Many(Box::new(vec![one, member])),
            Self::Many(mut many) => {
                many.push(member);
                Self::Many(many)
            }
        };
        u32::try_from(index).expect("a shard has fewer than 2^32 members")
    }

    /// Leaves a tombstone, so that no place changes.
    pub(crate) fn bury(&mut self, index: u32) {
        match self {
            Self::Empty => {}
            Self::One(one) => *one = GONE,
            Self::Many(many) => many[index as usize] = GONE,
        }
    }

    /// Removes a place and fills it with the last; returns who moved there.
    pub(crate) fn swap_remove(&mut self, index: u32) -> Option<Member> {
        let Self::Many(many) = self else {
            *self = Self::Empty;
            return None;
        };
        many.swap_remove(index as usize);
        let moved = many.get(index as usize).copied();
        if let [last] = many.as_slice() {
            *self = Self::One(*last);
        } else if many.capacity() > 4 * many.len() {
            many.shrink_to(2 * many.len());
        }
        moved
    }
}
