//! The subscribers of a shard, written down and taken in again, where the shards of the other
//! process may be other ones.

use std::sync::Arc;

use super::{Channel, Registry, channel_at, hash, name_at};
use crate::filter::Filter;
use crate::publication::{ChannelName, ClientInfo, Position};
use crate::roster::Roster;
use crate::state::{Corrupt, Field, Part, Record, Through, UntilUnlessZero, Within, Writer};
use crate::subscription::{Member, SubFlags, Subscription, Subscriptions};

/// A number that no channel has.
const NONE: u32 = u32::MAX;

/// What another process was told of a registry's channels while this one serves on.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By place.
    channels: Vec<Known>,
    /// The next number.
    next: u32,
    /// Places of channels whose position is another than was told; each once.
    moved: Vec<u32>,
}

/// What was told of the channel in a place.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The channel was the so many-th that was told; `NONE`: it was not told.
    number: u32,
    is_moved: bool,
}

const UNKNOWN: Known = Known { number: NONE, is_moved: false };

impl Told {
    /// A channel has been put in a place, perhaps of another one.
    pub(super) fn opened(told: &mut Option<Box<Self>>, at: u32) {
        if let Some(known) = told.as_mut().and_then(|told| told.channels.get_mut(at as usize)) {
            *known = UNKNOWN;
        }
    }

    /// The channel in a place stands elsewhere than before.
    pub(super) fn moved(told: &mut Option<Box<Self>>, at: u32) {
        let Some(told) = told else { return };
        if let Some(known) = told.channels.get_mut(at as usize)
            && known.number != NONE
            && !known.is_moved
        {
            known.is_moved = true;
            told.moved.push(at);
        }
    }
}

/// The channels of a registry of another process, in the order of their numbers.
#[derive(Debug, Default)]
pub struct Theirs {
    list: Vec<Named>,
    /// Numbers of those that stand elsewhere than was told first.
    moved: Vec<u32>,
}

/// Where a channel stood last in another process.
pub type Stands = (ChannelName, Option<Position>);

impl Registry {
    /// Writes the channels of these members that were not written yet, each in a record of the first
    /// tag; at the end, also where those stand now that have moved, in records of the second. What
    /// was written is known until [`Registry::forget_told`]. No fan-out may be under way at the end.
    pub fn put_channels(
        &mut self,
        members: &[Member],
        is_last: bool,
        (tag, moved_tag): (u8, u8),
        out: &mut Writer,
    ) {
        // Derived from the subscriptions: the tables, and how many there are.
        let Self {
            hasher: _,
            names: _,
            channels,
            free: _,
            members: all,
            rotation,
            spare: _,
            subscriptions: _,
            queued_bytes: _,
            // Written with the subscriptions that have one.
            filters: _,
            // Taken by who counts.
            withheld: _,
            told,
        } = self;
        debug_assert!(!is_last || rotation.is_empty(), "everything is handed out");
        let told = told.get_or_insert_default();
        told.channels.resize(channels.len().max(told.channels.len()), UNKNOWN);
        let subscriptions = members.iter().filter_map(|member| all.get(*member as usize));
        for subscription in subscriptions.flat_map(Subscriptions::as_slice) {
            let at = subscription.channel as usize;
            let (Some(Some(channel)), Some(known)) = (channels.get(at), told.channels.get_mut(at))
            else {
                continue;
            };
            if known.number != NONE {
                continue;
            }
            let Channel { name, roster: _, position, work: _, listeners: _, strayed } = channel;
            *known = Known { number: told.next, is_moved: false };
            told.next += 1;
            out.record(tag, |out| {
                name.put(1, out);
                Within::put(position, 2, out);
                (*strayed || position.is_none()).put(3, out);
            });
        }
        if !is_last {
            return;
        }
        for at in &told.moved {
            let at = *at as usize;
            let (Some(Some(channel)), Some(known)) = (channels.get(at), told.channels.get(at))
            else {
                continue;
            };
            if known.is_moved {
                out.record(moved_tag, |out| {
                    known.number.put(1, out);
                    Within::put(&channel.position, 2, out);
                    (channel.strayed || channel.position.is_none()).put(3, out);
                });
            }
        }
    }

    /// Writes a member's subscriptions, each in a record of this tag, after its channels.
    pub fn put_subscriptions(&self, member: Member, tag: u8, out: &mut Writer) {
        let told = self.told.as_ref().map_or(&[][..], |told| &told.channels);
        for subscription in self.of(member) {
            let Subscription { channel, index: _, expires_s, flags, _niche: _, info } =
                subscription;
            let number = told.get(*channel as usize).map_or(NONE, |known| known.number);
            out.record(tag, |out| {
                number.put(1, out);
                <UntilUnlessZero as Through<u32>>::put(expires_s, 2, out);
                flags.put(3, out);
                Within::put(info, 4, out);
                // Who does not know of these would send what the client cannot read, or does not want.
                if flags.contains(SubFlags::DELTA) {
                    out.needed(5, |_| {});
                }
                let filters =
                    self.filters.get(channel).filter(|_| flags.contains(SubFlags::FILTERED));
                if let Some((_, filter)) = filters.and_then(|filters| filters.of(member)) {
                    out.needed(6, |out| filter.put_fields(out));
                }
            });
        }
    }

    /// No other process knows anything any more.
    pub fn forget_told(&mut self) {
        self.told = None;
    }

    /// Takes a subscription in that stood in a record, of a member whose user is `user`. `seat` is
    /// told of the channel and where it stands, and answers the name that the node shares. Returns
    /// the channel, and the info with which the member is to be in its presence, if it is.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn take_subscription(
        &mut self,
        member: Member,
        user: &Arc<str>,
        (theirs, field): (&Theirs, &Field<'_>),
        seat: &mut dyn FnMut(&ChannelName, Option<Position>) -> ChannelName,
    ) -> Result<Option<(ChannelName, Arc<ClientInfo>)>, Corrupt> {
        let (mut number, mut expires_s, mut flags) = (0, 0, SubFlags::default());
        let mut info: Option<ClientInfo> = None;
        let mut filter: Option<Arc<Filter>> = None;
        let mut fields = field.fields("a subscription")?;
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => number = u32::take(None, &field)?,
                2 => expires_s = UntilUnlessZero::take(None, &field)?,
                3 => flags = SubFlags::take(None, &field)?,
                4 => info = Within::take(None, &field)?,
                5 => {
                    field.fields("a subscription with patches")?;
                }
                6 => filter = Some(Arc::new(Filter::take_fields(field.fields(Filter::WHAT)?)?)),
                _ => field.pass()?,
            }
        }
        let Some(Named { name, position, strayed }) = theirs.list.get(number as usize) else {
            return Err(fields.corrupt(format!("there is no channel {number}")));
        };
        let at = self.restore(name, (*position, *strayed));
        if self.of(member).iter().any(|one| one.channel == at) {
            return Err(fields.corrupt("the channel is subscribed to already"));
        }
        if let Some(info) = info.as_mut().filter(|info| info.user == *user) {
            info.user = Arc::clone(user);
        }
        let info = info.map(Arc::new);
        match &filter {
            Some(filter) => self.filters.entry(at).or_default().add(member, filter),
            None if flags.contains(SubFlags::FILTERED) => {
                return Err(fields.corrupt("its filter is missing"));
            }
            None => {}
        }
        let entry = channel_at(&mut self.channels, at);
        entry.name = seat(&entry.name, entry.position.as_deref().copied());
        let name = ChannelName::clone(&entry.name);
        let index = entry.roster.push(member);
        entry.listeners += u32::from(flags.contains(SubFlags::JOIN_LEAVE));
        let mut subscription = Subscription::new(at, index, flags, expires_s);
        subscription.info.clone_from(&info);
        if self.members.len() <= member as usize {
            self.members.resize_with(member as usize + 1, Subscriptions::default);
        }
        self.members[member as usize].push(subscription);
        self.subscriptions += 1;
        Ok(info.filter(|_| flags.contains(SubFlags::PRESENCE)).map(|info| (name, info)))
    }

    /// Makes room for so many more members, and as many channels, before there is any hurry.
    pub fn expect(&mut self, members: usize) {
        self.members.reserve(members);
        self.channels.reserve(members);
        let (hasher, channels) = (&self.hasher, &self.channels);
        self.names.reserve(members, |&at| hash(hasher, name_at(channels, at)));
    }

    /// The last publication of these channels had no place in the stream.
    pub fn stray(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(at) = self.lookup(channel) {
                channel_at(&mut self.channels, at).strayed = true;
            }
        }
    }

    /// Where channels stand that have moved since they were told, all subscriptions being there.
    /// What was known before is old: it is passed over even where the other is no further.
    pub fn stand(&mut self, stands: &[Stands]) {
        let places: Vec<_> = stands.iter().map(|(name, _)| self.lookup(name)).collect();
        for at in places.iter().flatten() {
            channel_at(&mut self.channels, *at).position = None;
        }
        for (at, (_, position)) in places.iter().zip(stands) {
            let Some(at) = at else { continue };
            let entry = channel_at(&mut self.channels, *at);
            let known = entry.position.as_deref().copied();
            entry.position = further(known, *position).map(Box::new);
        }
    }

    /// The channel's number; a channel that stood further elsewhere stands there here.
    fn restore(
        &mut self,
        name: &ChannelName,
        (position, strayed): (Option<Position>, bool),
    ) -> u32 {
        let at = self.lookup(name).unwrap_or_else(|| self.open(name));
        let entry = channel_at(&mut self.channels, at);
        debug_assert!(entry.work.is_none(), "nothing is handed out yet");
        if matches!(entry.roster, Roster::Empty) {
            (entry.position, entry.strayed) = (None, false);
        }
        entry.strayed |= strayed;
        let known = entry.position.as_deref().copied();
        let stands = further(known, position);
        if stands != known {
            entry.position = stands.map(Box::new);
        }
        at
    }
}

/// Of two places that a channel was seen at, the one that came later: the further one, and of two
/// epochs the one that is told last.
pub(crate) fn further(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    match (one, other) {
        (Some(one), Some(other)) if one.epoch == other.epoch && other.offset <= one.offset => {
            Some(one)
        }
        (_, Some(other)) => Some(other),
        (one, None) => one,
    }
}

impl Theirs {
    /// Takes in a channel that stood in a record.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn take(&mut self, field: &Field<'_>) -> Result<(), Corrupt> {
        self.list.push(Named::take_fields(field.fields(Named::WHAT)?)?);
        Ok(())
    }

    /// Takes in where a channel stands that has moved.
    ///
    /// # Errors
    /// When it cannot be that.
    pub fn take_moved(&mut self, field: &Field<'_>) -> Result<(), Corrupt> {
        let fields = field.fields(Moved::WHAT)?;
        let Moved { number, position, strayed } = Moved::take_fields(fields)?;
        let Some(their) = self.list.get_mut(number as usize) else {
            return Err(field.corrupt(format_args!("is of channel {number}, which there is not")));
        };
        (their.position, their.strayed) = (position, strayed);
        self.moved.push(number);
        Ok(())
    }

    /// Those of the channels that have moved whose last publication had no place in the stream;
    /// before [`Theirs::take_stands`].
    pub fn strays(&self) -> impl Iterator<Item = &ChannelName> {
        let named = |number: &u32| self.list.get(*number as usize);
        self.moved.iter().filter_map(named).filter(|one| one.strayed).map(|one| &one.name)
    }

    /// Where those stand that have moved, once.
    pub fn take_stands(&mut self) -> impl Iterator<Item = Stands> + '_ {
        let Self { list, moved } = self;
        moved.drain(..).filter_map(|number| {
            let Named { name, position, strayed: _ } = list.get(number as usize)?;
            Some((ChannelName::clone(name), *position))
        })
    }
}

#[derive(Debug)]
struct Moved {
    number: u32,
    position: Option<Position>,
    strayed: bool,
}
crate::record!("where a channel stands", Moved { 1 number, 2 position as Within, 3 strayed });

#[derive(Debug)]
struct Named {
    name: ChannelName,
    position: Option<Position>,
    strayed: bool,
}
crate::record!("a channel with subscribers", Named { 1 name, 2 position as Within, 3 strayed });
