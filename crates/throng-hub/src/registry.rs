//! The subscribers of one shard, and the fan-out to them in slices.

mod moving;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use crate::event::Item;
use crate::fanout::{Crowd, Work, weight};
use crate::filter::Filter;
use crate::filters::Filters;
use crate::publication::{ChannelName, ClientInfo, Position};
use crate::roster::{GONE, Roster};
use crate::subscription::Subscriptions;

use self::moving::Told;
pub(crate) use self::moving::further;
pub use self::moving::{Stands, Theirs};
pub use crate::fanout::{Amount, Audience, Batch, Contents, Encode, Sink, Tally};
pub use crate::subscription::{Member, SubFlags, Subscription};

/// Places of its list that a channel goes over before the next channel's turn, so that one with a
/// million members does not hold up one with two.
const TURN_PLACES_MAX: usize = 256;

/// Records of channels without work that are kept for the next channel that has some.
const SPARE_WORKS_MAX: usize = 64;

/// How a member joins.
#[derive(Debug, Default)]
pub struct Join {
    pub flags: SubFlags,
    /// In the caller's seconds; 0 is never.
    pub expires_s: u32,
    pub info: Option<Arc<ClientInfo>>,
    /// Where the channel's stream stood at the answer to the subscribe.
    pub position: Option<Position>,
    /// Which publications it wants; none: all.
    pub filter: Option<Arc<Filter>>,
}

/// The member has that channel already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadySubscribed;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    Queued,
    /// Nobody is here to hand it to; of joins and leaves: nobody who asked for them.
    NoSubscribers,
    /// Its offset was seen before: dropped.
    Duplicate,
    /// Publications are missing before this one. It goes to who follows no position; those who do
    /// (`Registry::positioned_members`) get nothing more until they left and joined again.
    Gap,
}

/// The subscribers of one shard. One thread owns it: there are no locks.
///
/// Memory, counted as size + 8 rounded up to 16 per allocation: a subscription is 24 bytes with
/// its member and 4 in its channel's list. With three channels that others share per member that
/// is 38 bytes each; a channel of one's own costs 110 more for its record, its place in the table
/// of names and the name itself, which the node shares (`costs_what_it_says` computes both). So
/// two shared channels and one's own are 72 bytes per subscription.
#[derive(Debug, Default)]
pub struct Registry {
    hasher: FixedState,
    /// Places in `channels`, by name.
    names: HashTable<u32>,
    channels: Vec<Option<Channel>>,
    free: Vec<u32>,
    members: Vec<Subscriptions>,
    /// The channels that have work, each once, the next in front.
    rotation: VecDeque<u32>,
    #[expect(clippy::vec_box, reason = "a box goes from here into a channel and back")]
    spare: Vec<Box<Work>>,
    subscriptions: usize,
    queued_bytes: usize,
    /// By place of the channel, where a member has one.
    filters: HashMap<u32, Filters, FixedState>,
    /// How many publications filters held back, ever.
    withheld: u64,
    /// What another process was told of the channels; there while a restart is being prepared.
    told: Option<Box<Told>>,
}

#[derive(Debug)]
struct Channel {
    name: ChannelName,
    roster: Roster,
    /// The last publication that was queued, boxed since most channels have no stream.
    position: Option<Box<Position>>,
    /// Only while items are queued or handed out. Then a place in the list stays a place.
    work: Option<Box<Work>>,
    /// Members who want to hear of joins and leaves: without one, a crowd that comes in is not
    /// announced to itself, which would cost the square of its size.
    listeners: u32,
    /// The last publication that was queued has no place in the stream: nobody has the one before
    /// the next as the last.
    strayed: bool,
}

const _: () = assert!(size_of::<Option<Channel>>() == 56);

impl Channel {
    fn live(&self) -> usize {
        self.roster.len() - self.work.as_ref().map_or(0, |work| work.holes.len())
    }

    fn live_members(&self) -> impl Iterator<Item = Member> {
        self.roster.as_slice().iter().copied().filter(|&member| member != GONE)
    }

    /// The flags of a member that joins: it has what the next patch is of only if it stands where
    /// the channel does.
    fn based(&self, flags: SubFlags, position: Option<Position>) -> SubFlags {
        let is_there = position.is_some() && self.position.as_deref().copied() == position;
        if is_there { flags } else { flags.without(SubFlags::BASED) }
    }

    /// Moves the position on for an item that comes next. It keeps its base only where that is what
    /// was queued last.
    fn follow(&mut self, item: &mut Item) -> Queued {
        let Item::Publication(flight) = item else { return Queued::Queued };
        let publication = &flight.publication;
        let Some(epoch) = publication.epoch.filter(|_| publication.offset > 0) else {
            self.strayed = true;
            flight.base = None;
            return Queued::Queued;
        };
        let next = Position { offset: publication.offset, epoch };
        let Some(position) = &mut self.position else {
            self.position = Some(Box::new(next));
            self.strayed = false;
            flight.base = None;
            return Queued::Queued;
        };
        let last = std::mem::replace(&mut **position, next);
        if last.epoch != epoch || next.offset > last.offset.saturating_add(1) {
            self.strayed = false;
            flight.base = None;
            return Queued::Gap;
        }
        if next.offset <= last.offset {
            **position = last;
            return Queued::Duplicate;
        }
        if std::mem::take(&mut self.strayed) {
            flight.base = None;
        }
        Queued::Queued
    }
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// With names hashed under a secret, so that nobody can choose names that collide.
    pub fn with_seed(seed: u64) -> Self {
        Self { hasher: FixedState::with_seed(seed), ..Self::default() }
    }

    /// Adds a member to a channel. `join.position` becomes the channel's where it has none yet.
    ///
    /// # Errors
    ///
    /// The member has that channel already; nothing is changed.
    pub fn join(
        &mut self,
        member: Member,
        channel: &ChannelName,
        join: Join,
    ) -> Result<(), AlreadySubscribed> {
        debug_assert!(member != GONE, "u32::MAX is no member");
        let at = match self.lookup(channel) {
            Some(at) if self.of(member).iter().any(|one| one.channel == at) => {
                return Err(AlreadySubscribed);
            }
            Some(at) => at,
            None => self.open(channel),
        };
        let entry = channel_at(&mut self.channels, at);
        // While nobody was here publications passed this shard by: what it knew is old.
        if entry.live() == 0 || entry.position.is_none() {
            entry.position = join.position.map(Box::new);
            // Who is here and follows no position may have another one as the last.
            entry.strayed = entry.live() > 0;
            Told::moved(&mut self.told, at);
        }
        let mut flags = entry.based(join.flags, join.position).without(SubFlags::FILTERED);
        if let Some(filter) = &join.filter {
            flags = flags.with(SubFlags::FILTERED);
            self.filters.entry(at).or_default().add(member, filter);
        }
        let index = entry.roster.push(member);
        entry.listeners += u32::from(join.flags.contains(SubFlags::JOIN_LEAVE));
        let mut subscription = Subscription::new(at, index, flags, join.expires_s);
        subscription.info = join.info;
        if self.members.len() <= member as usize {
            self.members.resize_with(member as usize + 1, Subscriptions::default);
        }
        self.members[member as usize].push(subscription);
        self.subscriptions += 1;
        Ok(())
    }

    /// Removes a member from a channel; `None` if it was not there.
    pub fn leave(&mut self, member: Member, channel: &str) -> Option<Subscription> {
        let at = self.lookup(channel)?;
        let subscription = self.members.get_mut(member as usize)?.remove(at)?;
        self.vacate(member, &subscription);
        Some(subscription)
    }

    /// Removes a member from all its channels: the connection closed.
    pub fn leave_all(&mut self, member: Member, f: &mut dyn FnMut(&ChannelName, Subscription)) {
        let Some(subscriptions) = self.members.get_mut(member as usize) else { return };
        for subscription in subscriptions.take() {
            let at = subscription.channel;
            let name = ChannelName::clone(&channel_at(&mut self.channels, at).name);
            self.vacate(member, &subscription);
            f(&name, subscription);
        }
    }

    pub fn find(&self, member: Member, channel: &str) -> Option<&Subscription> {
        let at = self.lookup(channel)?;
        self.members.get(member as usize)?.find(at)
    }

    pub fn find_mut(&mut self, member: Member, channel: &str) -> Option<&mut Subscription> {
        let at = self.lookup(channel)?;
        self.members.get_mut(member as usize)?.find_mut(at)
    }

    /// A member's channels, in no order.
    pub fn subscriptions(
        &self,
        member: Member,
    ) -> impl Iterator<Item = (&ChannelName, &Subscription)> {
        self.of(member)
            .iter()
            .filter_map(|one| Some((&self.channels.get(one.channel as usize)?.as_ref()?.name, one)))
    }

    /// How many channels a member has.
    pub fn count(&self, member: Member) -> usize {
        self.of(member).len()
    }

    /// The channels that have subscribers here, in no order.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.iter().flatten().map(|channel| &channel.name)
    }

    /// How many channels have subscribers here.
    pub fn channel_count(&self) -> usize {
        self.names.len()
    }

    /// How many subscriptions there are in the shard.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// A channel's subscribers.
    pub fn members(&self, channel: &str) -> impl Iterator<Item = Member> {
        self.entry(channel).into_iter().flat_map(Channel::live_members)
    }

    /// Whether a channel has subscribers here.
    pub fn has(&self, channel: &str) -> bool {
        self.lookup(channel).is_some()
    }

    /// How many subscribers a channel has.
    pub fn member_count(&self, channel: &str) -> u32 {
        u32::try_from(self.entry(channel).map_or(0, Channel::live)).unwrap_or(u32::MAX)
    }

    /// A channel's subscribers who follow its position: after a gap they must recover.
    pub fn positioned_members(&self, channel: &str) -> impl Iterator<Item = Member> {
        let at = self.lookup(channel);
        self.members(channel).filter(move |&member| {
            at.and_then(|at| self.members[member as usize].find(at))
                .is_some_and(|one| one.flags.contains(SubFlags::POSITIONED))
        })
    }

    /// The last publication of the channel that was queued here.
    pub fn position(&self, channel: &str) -> Option<Position> {
        self.entry(channel)?.position.as_deref().copied()
    }

    /// Publications of the channel may be lost: who follows its position gets nothing more until
    /// it has left and joined again, and the next to join says what the position is.
    pub fn lose(&mut self, channel: &str) {
        if let Some(at) = self.lookup(channel) {
            channel_at(&mut self.channels, at).position = None;
            Told::moved(&mut self.told, at);
            self.mark_lost(at);
        }
    }

    /// Queues an item for those who are subscribed now.
    pub fn queue(&mut self, channel: &str, mut item: Item) -> Queued {
        let Some(at) = self.lookup(channel) else { return Queued::NoSubscribers };
        let entry = channel_at(&mut self.channels, at);
        let announces = !matches!(item, Item::Publication(_));
        if entry.live() == 0 || (announces && entry.listeners == 0) {
            return Queued::NoSubscribers;
        }
        let queued = entry.follow(&mut item);
        if queued == Queued::Duplicate {
            return queued;
        }
        Told::moved(&mut self.told, at);
        self.queued_bytes += weight(&item);
        let end = u32::try_from(entry.roster.len()).unwrap_or(u32::MAX);
        let work = entry.work.get_or_insert_with(|| {
            self.rotation.push_back(at);
            match self.spare.pop() {
                Some(mut work) => {
                    work.reuse(&entry.name);
                    work
                }
                None => Box::new(Work::new(&entry.name)),
            }
        });
        work.push(item, end);
        if queued == Queued::Gap {
            self.mark_lost(at);
        }
        queued
    }

    /// Goes over up to `deliveries` subscribers; returns whether more work waits.
    pub fn fan_out(&mut self, sink: &mut dyn Sink, deliveries: usize) -> bool {
        let mut left = deliveries;
        while left > 0 {
            let Some(at) = self.rotation.pop_front() else { return false };
            // Each turn counts for one at least, so that a crowd of empty turns ends, too.
            left -= self.turn(at, sink, left.min(TURN_PLACES_MAX)).max(1);
        }
        self.has_work()
    }

    /// Whether items wait to be handed out.
    pub fn has_work(&self) -> bool {
        !self.rotation.is_empty()
    }

    /// How many publications filters have held back since this was asked last.
    pub fn take_withheld(&mut self) -> u64 {
        std::mem::take(&mut self.withheld)
    }

    /// Payload bytes that wait to be handed out.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn turn(&mut self, at: u32, sink: &mut dyn Sink, places: usize) -> usize {
        let entry = channel_at(&mut self.channels, at);
        let nobody = entry.live() == 0;
        let Some(work) = &mut entry.work else { return 0 };
        let mut went = 0;
        if nobody {
            self.queued_bytes -= work.give_up();
        } else {
            let roster = entry.roster.as_slice();
            let filters = match self.filters.is_empty() {
                true => None,
                false => self.filters.get(&at),
            };
            let (members, withheld) = (&mut self.members[..], &mut self.withheld);
            let mut crowd = Crowd { channel: at, roster, members, filters, withheld };
            went = work.advance(&mut crowd, sink, places);
            self.queued_bytes -= work.end_pass(sink);
        }
        if work.is_done() {
            self.settle(at);
        } else {
            self.rotation.push_back(at);
        }
        went
    }

    /// The channel has no more work: the tombstones go. It costs as much as there are, whatever
    /// the length of the list, since nothing depends on its order now.
    fn settle(&mut self, at: u32) {
        let Some(mut work) = channel_at(&mut self.channels, at).work.take() else { return };
        let mut holes = std::mem::take(&mut work.holes);
        // From the last one on: so the one that fills a hole is never a hole itself.
        holes.sort_unstable_by(|a, b| b.cmp(a));
        for hole in holes {
            self.close_up(at, hole);
        }
        if self.spare.len() < SPARE_WORKS_MAX {
            self.spare.push(work);
        }
        self.free_if_empty(at);
    }

    fn vacate(&mut self, member: Member, left: &Subscription) {
        let (at, index) = (left.channel, left.index);
        if left.flags.contains(SubFlags::FILTERED) {
            self.unfilter(member, at);
        }
        self.subscriptions -= 1;
        let entry = channel_at(&mut self.channels, at);
        entry.listeners -= u32::from(left.flags.contains(SubFlags::JOIN_LEAVE));
        if let Some(work) = &mut entry.work {
            work.holes.push(index);
            entry.roster.bury(index);
            return;
        }
        self.close_up(at, index);
        self.free_if_empty(at);
    }

    fn unfilter(&mut self, member: Member, at: u32) {
        if let Some(filters) = self.filters.get_mut(&at) {
            filters.remove(member);
            if filters.is_empty() {
                self.filters.remove(&at);
            }
        }
    }

    /// Fills a place with the last of the list, and tells that member where it stands now.
    fn close_up(&mut self, at: u32, index: u32) {
        let entry = channel_at(&mut self.channels, at);
        let Some(moved) = entry.roster.swap_remove(index) else { return };
        match self.members[moved as usize].find_mut(at) {
            Some(subscription) => subscription.index = index,
            None => debug_assert!(false, "a listed member has its subscription"),
        }
    }

    fn mark_lost(&mut self, at: u32) {
        for member in channel_at(&mut self.channels, at).live_members() {
            let subscription = self.members[member as usize].find_mut(at);
            if let Some(one) = subscription.filter(|one| one.flags.contains(SubFlags::POSITIONED)) {
                one.flags = one.flags.with(SubFlags::LOST);
            }
        }
    }

    fn open(&mut self, name: &ChannelName) -> u32 {
        let channel = Channel {
            name: ChannelName::clone(name),
            roster: Roster::Empty,
            position: None,
            work: None,
            listeners: 0,
            strayed: false,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.channels[at as usize] = Some(channel);
                at
            }
            None => {
                self.channels.push(Some(channel));
                u32::try_from(self.channels.len() - 1).expect("fewer than 2^32 channels")
            }
        };
        Told::opened(&mut self.told, at);
        let (hasher, channels) = (&self.hasher, &self.channels);
        let hash_at = |&at: &u32| hash(hasher, name_at(channels, at));
        self.names.insert_unique(hash(hasher, name), at, hash_at);
        at
    }

    fn free_if_empty(&mut self, at: u32) {
        let slot = &mut self.channels[at as usize];
        let Some(channel) = slot.take_if(|channel| channel.roster.len() == 0) else { return };
        let hash = hash(&self.hasher, &channel.name);
        if let Ok(found) = self.names.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        self.free.push(at);
    }

    fn lookup(&self, channel: &str) -> Option<u32> {
        let same = |&at: &u32| name_at(&self.channels, at) == channel;
        self.names.find(hash(&self.hasher, channel), same).copied()
    }

    fn entry(&self, channel: &str) -> Option<&Channel> {
        self.channels[self.lookup(channel)? as usize].as_ref()
    }

    fn of(&self, member: Member) -> &[Subscription] {
        self.members.get(member as usize).map_or(&[], Subscriptions::as_slice)
    }
}

fn hash(hasher: &FixedState, name: &str) -> u64 {
    hasher.hash_one(name)
}

fn name_at(channels: &[Option<Channel>], at: u32) -> &str {
    channels[at as usize].as_ref().map_or("", |channel| &channel.name)
}

fn channel_at(channels: &mut [Option<Channel>], at: u32) -> &mut Channel {
    channels[at as usize].as_mut().expect("a channel that is referred to is not freed")
}

#[cfg(test)]
mod deltas;
#[cfg(test)]
mod tests;
