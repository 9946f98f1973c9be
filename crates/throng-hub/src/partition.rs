//! One part of the node's channels, under one lock: who listens, and what waits for the broker.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use uuid::Uuid;

use crate::broker::Op;
use crate::done::Done;
use crate::event::Item;
use crate::joining::Joining;
use crate::map::Maps;
use crate::publication::{ChannelName, Position};
use crate::registry::further;
use crate::request::{Now, ReplyTo, Subscribe};

/// Questions that wait for the broker at most, over all partitions: as many as one second of a
/// slow broker brings, and a few hundred bytes each.
pub(crate) const WAITING_MAX: usize = 1 << 16;

/// How long the broker may take for an answer.
pub(crate) const WAIT_MS_MAX: u64 = 5_000;

/// Refused subscriptions remembered at most in one partition.
const REFUSED_MAX: usize = 1024;

/// One part of the channels.
#[derive(Debug)]
pub(crate) struct Partition {
    channels: HashMap<ChannelName, Channel, FixedState>,
    joining: HashMap<ChannelName, Joining, FixedState>,
    /// By op, so in the order of their deadlines.
    waiting: BTreeMap<Op, Waiting>,
    waiting_max: usize,
    /// Subscriptions that were refused a moment ago, the oldest first: their clients may leave
    /// before they read so, and have no seat to give.
    refused: VecDeque<Refused>,
    /// Ops are told apart over the partitions by their remainder, and this says which is ours.
    next_op: u64,
    op_step: u64,
    subscriptions: usize,
    pub(crate) done: Done,
    /// The channels that are maps, whether or not anybody is subscribed.
    pub(crate) maps: Maps,
}

/// A channel with subscribers.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) seats: Seats,
    /// Where its stream stands in the mailboxes, when that is known; boxed, since most have none.
    pub(crate) top: Option<Box<Position>>,
}

/// How many subscriptions each mailbox has in one channel, sorted by mailbox; never 0.
#[derive(Debug)]
pub(crate) enum Seats {
    One { mailbox: u16, count: u32 },
    Many(Box<[(u16, u32)]>),
}

/// A question that waits for the broker.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) to: ReplyTo,
    pub(crate) since_ms: u64,
    pub(crate) question: Question,
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum Question {
    Publish,
    Subscribe(Box<Joiner>),
    History,
    RemoveHistory,
    Presence,
    PresenceStats,
}

/// A subscription that was refused.
#[derive(Debug)]
struct Refused {
    channel: ChannelName,
    client: Uuid,
    mailbox: u16,
    at_ms: u64,
}

/// Who asked for a subscription.
#[derive(Debug)]
pub(crate) struct Joiner {
    pub(crate) subscribe: Subscribe,
    /// How many times the broker was asked before.
    pub(crate) tries: u8,
}

impl Partition {
    /// The `index`th of `count`.
    pub(crate) fn new(index: usize, count: usize, hasher: &FixedState) -> Self {
        Self {
            channels: HashMap::with_hasher(hasher.clone()),
            joining: HashMap::with_hasher(hasher.clone()),
            waiting: BTreeMap::new(),
            waiting_max: (WAITING_MAX / count).max(64),
            refused: VecDeque::new(),
            next_op: index as u64,
            op_step: count as u64,
            subscriptions: 0,
            done: Done::default(),
            maps: Maps::new(count, hasher, Arc::default(), index as u64),
        }
    }

    pub(crate) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// Whether a question waits for the broker: then its answer would be lost by a move.
    ///
    /// What else there is need not move once all mailboxes are empty: subscriptions come with the
    /// shards that have them, and who was refused has read so.
    pub(crate) fn is_waiting(&self) -> bool {
        let Self {
            channels: _,
            joining,
            waiting,
            waiting_max: _,
            refused: _,
            next_op: _,
            op_step: _,
            subscriptions: _,
            // Whoever counts on reads it from `Node::done`.
            done: _,
            // Written down by `Node::put_maps`.
            maps: _,
        } = self;
        !waiting.is_empty() || !joining.is_empty()
    }

    /// Each channel with its subscriptions, in no order.
    pub(crate) fn audiences(&self) -> impl Iterator<Item = (&ChannelName, u32)> {
        self.channels.iter().map(|(name, channel)| (name, channel.seats.total()))
    }

    pub(crate) fn audience(&self, channel: &str) -> u32 {
        self.channels.get(channel).map_or(0, |channel| channel.seats.total())
    }

    /// A channel with subscribers, and its name as all who hear of it share it.
    pub(crate) fn channel(&mut self, name: &str) -> Option<(&ChannelName, &mut Channel)> {
        self.channels.get_key_value_mut(name)
    }

    /// Adds a subscription of a mailbox; returns the channel's shared name.
    pub(crate) fn take_seat(&mut self, channel: &ChannelName, mailbox: u16) -> ChannelName {
        self.subscriptions += 1;
        match self.channels.entry(ChannelName::clone(channel)) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().seats.add(mailbox, 1);
                ChannelName::clone(entry.key())
            }
            Entry::Vacant(entry) => {
                let seats = Seats::One { mailbox, count: 1 };
                entry.insert(Channel { seats, top: None });
                ChannelName::clone(channel)
            }
        }
    }

    /// Makes room for so many channels.
    pub(crate) fn expect(&mut self, channels: usize) {
        self.channels.reserve(channels);
    }

    /// Adds the subscriptions that a mailbox brings from another process, and where their channel
    /// stood there; returns the channel's shared name.
    pub(crate) fn take_seats(
        &mut self,
        channel: &ChannelName,
        (mailbox, count): (u16, u32),
        top: Option<Position>,
    ) -> ChannelName {
        self.subscriptions += count as usize;
        match self.channels.entry(ChannelName::clone(channel)) {
            Entry::Occupied(mut entry) => {
                let channel = entry.get_mut();
                channel.seats.add(mailbox, count);
                let known = channel.top.as_deref().copied();
                let stands = further(known, top);
                if stands != known {
                    channel.top = stands.map(Box::new);
                }
                ChannelName::clone(entry.key())
            }
            Entry::Vacant(entry) => {
                let seats = Seats::One { mailbox, count };
                entry.insert(Channel { seats, top: top.map(Box::new) });
                ChannelName::clone(channel)
            }
        }
    }

    /// Where the channel stands now, nobody knowing better; none: nobody knows.
    pub(crate) fn stand(&mut self, channel: &str, top: Option<Position>) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.top = top.map(Box::new);
        }
    }

    /// Takes a subscription of a mailbox away, if it has one.
    pub(crate) fn give_seat(&mut self, channel: &str, mailbox: u16) -> Given {
        let Some(entry) = self.channels.get_mut(channel) else { return Given::NoSeat };
        if !entry.seats.remove(mailbox) {
            return Given::NoSeat;
        }
        self.subscriptions -= 1;
        if entry.seats.total() > 0 {
            return Given::Seat;
        }
        self.channels.remove(channel);
        Given::LastSeat
    }

    /// Frees room that a past crowd of channels left.
    pub(crate) fn shrink(&mut self) {
        if self.channels.capacity() > 4 * self.channels.len().max(16) {
            self.channels.shrink_to(2 * self.channels.len());
        }
    }

    /// Forgets maps that nobody uses and nobody follows.
    pub(crate) fn forget_maps(&mut self, now: Now) {
        let channels = &self.channels;
        self.maps.forget(now, |channel| channels.contains_key(channel));
    }

    /// The number for a question to the broker; none when too many wait already.
    pub(crate) fn op(&mut self) -> Option<Op> {
        if self.waiting.len() >= self.waiting_max {
            return None;
        }
        let op = Op(self.next_op);
        self.next_op += self.op_step;
        Some(op)
    }

    pub(crate) fn wait(&mut self, op: Op, waiting: Waiting) {
        if let Question::Subscribe(joiner) = &waiting.question {
            let channel = ChannelName::clone(&joiner.subscribe.channel);
            self.joining.entry(channel).or_default().waiting += 1;
        }
        self.waiting.insert(op, waiting);
    }

    /// Ends a wait. Those who join the channel leave what arrived meanwhile to `end_joining`.
    pub(crate) fn take_waiting(&mut self, op: Op) -> Option<Waiting> {
        self.waiting.remove(&op)
    }

    /// Ends the oldest wait that took too long.
    pub(crate) fn take_overdue(&mut self, now_ms: u64) -> Option<Waiting> {
        let oldest = self.waiting.first_entry()?;
        let overdue = oldest.get().since_ms.saturating_add(WAIT_MS_MAX) <= now_ms;
        overdue.then(|| oldest.remove())
    }

    /// The wait of a client that joins a channel.
    pub(crate) fn take_joining(
        &mut self,
        channel: &str,
        client: Uuid,
        mailbox: u16,
    ) -> Option<Waiting> {
        self.joining.get(channel)?;
        let is_it = |waiting: &Waiting| {
            waiting.to.mailbox == mailbox
                && matches!(&waiting.question, Question::Subscribe(joiner)
                    if joiner.subscribe.client == client && *joiner.subscribe.channel == *channel)
        };
        let op = self.waiting.iter().find_map(|(op, waiting)| is_it(waiting).then_some(*op))?;
        self.waiting.remove(&op)
    }

    /// Publications of the channel may have been lost; those who join it ask again.
    pub(crate) fn lose(&mut self, channel: &str) {
        let next = Op(self.next_op);
        if let Some(joining) = self.joining.get_mut(channel) {
            joining.lose(next);
        }
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.top = None;
        }
    }

    /// Remembers that a client has no seat, until it can have read so.
    pub(crate) fn refuse(&mut self, subscribe: &Subscribe, mailbox: u16, at_ms: u64) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        let channel = ChannelName::clone(&subscribe.channel);
        self.refused.push_back(Refused { channel, client: subscribe.client, mailbox, at_ms });
    }

    /// Whether the client was refused a moment ago; it is asked once.
    pub(crate) fn take_refused(&mut self, channel: &str, client: Uuid, mailbox: u16) -> bool {
        let is_it = |refused: &Refused| {
            refused.client == client && refused.mailbox == mailbox && *refused.channel == *channel
        };
        let at = self.refused.iter().position(is_it);
        at.is_some_and(|at| self.refused.remove(at).is_some())
    }

    pub(crate) fn forget_refused(&mut self, now_ms: u64) {
        let is_old = |refused: &Refused| refused.at_ms.saturating_add(WAIT_MS_MAX) <= now_ms;
        while self.refused.front().is_some_and(is_old) {
            self.refused.pop_front();
        }
    }

    pub(crate) fn joining(&mut self, channel: &str) -> Option<&mut Joining> {
        self.joining.get_mut(channel)
    }

    /// Whether all subscriptions of the channel still wait: then nobody has a place in it yet.
    pub(crate) fn nobody_is_seated(&self, channel: &str) -> bool {
        let waiting = self.joining.get(channel).map_or(0, |joining| joining.waiting);
        waiting >= self.audience(channel) as usize
    }

    /// One fewer waits to join the channel.
    pub(crate) fn end_joining(&mut self, channel: &str) {
        let Some(joining) = self.joining.get_mut(channel) else { return };
        joining.waiting -= 1;
        if joining.waiting == 0 {
            self.joining.remove(channel);
        }
    }
}

/// What became of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    NoSeat,
    Seat,
    /// The channel has no subscribers now.
    LastSeat,
}

impl Channel {
    /// Moves the top on for an item; false for a publication that was released before.
    pub(crate) fn follow(&mut self, item: &Item) -> bool {
        let Item::Publication(flight) = item else { return true };
        let publication = &flight.publication;
        let Some(epoch) = publication.epoch.filter(|_| publication.offset > 0) else {
            return true;
        };
        let next = Position { offset: publication.offset, epoch };
        match &mut self.top {
            Some(top) if top.epoch == epoch && next.offset <= top.offset => false,
            Some(top) => {
                **top = next;
                true
            }
            None => {
                self.top = Some(Box::new(next));
                true
            }
        }
    }
}

impl Seats {
    /// The mailboxes, in their order.
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = u16> {
        let (one, many): (_, &[(u16, u32)]) = match self {
            Self::One { mailbox, .. } => (Some(*mailbox), &[]),
            Self::Many(many) => (None, many),
        };
        one.into_iter().chain(many.iter().map(|(mailbox, _)| *mailbox))
    }

    fn total(&self) -> u32 {
        match self {
            Self::One { count, .. } => *count,
            Self::Many(many) => many.iter().map(|(_, count)| count).sum(),
        }
    }

    fn add(&mut self, added: u16, seats: u32) {
        match self {
            Self::One { mailbox, count } if *mailbox == added => *count += seats,
            Self::One { mailbox, count } => {
                let mut many = Box::new([(*mailbox, *count), (added, seats)]);
                many.sort_unstable();
                *self = Self::Many(many);
            }
            Self::Many(many) => match many.binary_search_by_key(&added, |seat| seat.0) {
                Ok(at) => many[at].1 += seats,
                Err(at) => {
                    let mut more = std::mem::take(many).into_vec();
                    more.insert(at, (added, seats));
                    *many = more.into_boxed_slice();
                }
            },
        }
    }

    /// False if the mailbox has no seat.
    fn remove(&mut self, removed: u16) -> bool {
        match self {
            Self::One { mailbox, count } if *mailbox == removed && *count > 0 => *count -= 1,
            Self::One { .. } => return false,
            Self::Many(many) => {
                let Ok(at) = many.binary_search_by_key(&removed, |seat| seat.0) else {
                    return false;
                };
                many[at].1 -= 1;
                if many[at].1 == 0 {
                    let mut fewer = std::mem::take(many).into_vec();
                    fewer.remove(at);
                    *self = Self::of(fewer);
                }
            }
        }
        true
    }

    fn of(seats: Vec<(u16, u32)>) -> Self {
        match seats.as_slice() {
            [(mailbox, count)] => Self::One { mailbox: *mailbox, count: *count },
            _ => Self::Many(seats.into_boxed_slice()),
        }
    }
}

#[cfg(test)]
mod tests;
