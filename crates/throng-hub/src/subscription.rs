//! One member's place in one channel, and all the places of one member.

use std::sync::Arc;

use crate::publication::ClientInfo;

/// A connection's place in its shard's slab. `u32::MAX` is no member.
pub type Member = u32;

/// How a member follows a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubFlags(pub u16);

impl SubFlags {
    /// Follows the offsets: a gap must be told, not passed over.
    pub const POSITIONED: Self = Self(1);
    /// May recover what it missed.
    pub const RECOVERABLE: Self = Self(1 << 1);
    /// Wants to hear of joins and leaves.
    pub const JOIN_LEAVE: Self = Self(1 << 2);
    /// Subscribed by the server, not by its own command.
    pub const SERVER_SIDE: Self = Self(1 << 3);
    /// Is in the channel's presence.
    pub const PRESENCE: Self = Self(1 << 4);
    /// Its join was announced, so its leave must be.
    pub const ANNOUNCE: Self = Self(1 << 5);
    /// Takes patches: what it gets has another form.
    pub const DELTA: Self = Self(1 << 8);
    /// It has the last publication that was handed out here, or that was queued before it came: of
    /// the next one it can take a patch.
    pub const BASED: Self = Self(1 << 9);
    /// The channel is a map.
    pub const MAP: Self = Self(1 << 10);
    /// What the client wrote there under its own id goes with it.
    pub const REMOVES: Self = Self(1 << 11);
    /// The subscription shows in a map of connections.
    pub const SHOWS_CLIENT: Self = Self(1 << 12);
    /// The subscription shows in a map of users.
    pub const SHOWS_USER: Self = Self(1 << 13);
    /// Gets only those publications that its filter lets through.
    pub const FILTERED: Self = Self(1 << 6);
    /// A publication passed it by: it gets nothing more until it has left and joined again.
    pub const LOST: Self = Self(1 << 15);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags without those.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// These flags and those.
    #[must_use]
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// One member's place in one channel.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) channel: u32,
    /// Where it stands in the channel's list, so that leaving needs no search there.
    pub(crate) index: u32,
    /// When the subscription expires, in the caller's seconds; 0 is never.
    pub expires_s: u32,
    pub flags: SubFlags,
    pub(crate) _niche: Niche,
    pub info: Option<Arc<ClientInfo>>,
}

/// Leaves values of one padding byte unused, so that `Subscriptions` needs no tag of its own.
#[derive(Debug)]
#[repr(u8)]
pub(crate) enum Niche {
    Here,
}

// A server holds one of these per subscription: 24 bytes, and 4 more in the channel's list.
const _: () = assert!(size_of::<Subscription>() == 24);
const _: () = assert!(size_of::<Subscriptions>() == 24);

impl Subscription {
    pub(crate) fn new(channel: u32, index: u32, flags: SubFlags, expires_s: u32) -> Self {
        Self { channel, index, expires_s, flags, _niche: Niche::Here, info: None }
    }
}

/// From this many on the list grows by doubling: below, each byte counts; above, each copy does.
const FEW_MAX: usize = 16;

/// All the subscriptions of one member, in no order.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a Vec in place would make every member's record larger")]
pub(crate) enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    Few(Box<[Subscription]>),
    Many(Box<Vec<Subscription>>),
}

impl Subscriptions {
    pub(crate) fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Self::None => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }

    pub(crate) fn find(&self, channel: u32) -> Option<&Subscription> {
        self.as_slice().iter().find(|one| one.channel == channel)
    }

    pub(crate) fn find_mut(&mut self, channel: u32) -> Option<&mut Subscription> {
        self.as_mut_slice().iter_mut().find(|one| one.channel == channel)
    }

    pub(crate) fn push(&mut self, added: Subscription) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(added),
            Self::One(one) => Self::Few(Box::new([one, added])),
            Self::Few(few) => {
                let mut list = few.into_vec();
                if list.len() < FEW_MAX {
                    list.reserve_exact(1);
                    list.push(added);
                    Self::Few(list.into_boxed_slice())
                } else {
                    list.push(added);
                    Self::Many(Box::new(list))
                }
            }
            Self::Many(mut many) => {
                many.push(added);
                Self::Many(many)
            }
        };
    }

    pub(crate) fn remove(&mut self, channel: u32) -> Option<Subscription> {
        let at = self.as_slice().iter().position(|one| one.channel == channel)?;
        let mut list = self.take();
        let removed = list.swap_remove(at);
        *self = Self::of(list);
        Some(removed)
    }

    pub(crate) fn take(&mut self) -> Vec<Subscription> {
        match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(one) => vec![one],
            Self::Few(few) => few.into_vec(),
            Self::Many(many) => *many,
        }
    }

    fn of(mut list: Vec<Subscription>) -> Self {
        match list.len() {
            0 => Self::None,
            1 => list.pop().map_or(Self::None, Self::One),
            2..=FEW_MAX => Self::Few(list.into_boxed_slice()),
            len => {
                if list.capacity() > 4 * len {
                    list.shrink_to(2 * len);
                }
                Self::Many(Box::new(list))
            }
        }
    }
}
