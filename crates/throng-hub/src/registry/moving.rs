//! The subscribers of a shard, written down and taken in again, where the shards of the other
//! process may be other ones.

use std::sync::Arc;

use super::{Channel, Registry, channel_at, hash, name_at};
use crate::publication::{ChannelName, ClientInfo, Position};
use crate::roster::Roster;
use crate::state::{Corrupt, Field, Part, Record, Through, UntilUnlessZero, Within, Writer};
use crate::subscription::{Member, SubFlags, Subscription, Subscriptions};

/// A number that no channel has.
const NONE: u32 = u32::MAX;

/// The numbers under which a registry's channels were written down.
#[derive(Debug, Default)]
pub struct Ours(Vec<u32>);

/// The channels of a registry of another process, in the order of their numbers.
#[derive(Debug, Default)]
pub struct Theirs(Vec<Their>);

#[derive(Debug)]
struct Their {
    name: ChannelName,
    position: Option<Position>,
    /// Its number here, when it has subscribers here.
    at: u32,
}

impl Registry {
    /// Writes the channels, each in a record of this tag. No fan-out may be under way.
    pub fn put_channels(&self, tag: u8, out: &mut Writer) -> Ours {
        // Derived from the subscriptions: the tables, and how many there are.
        let Self {
            hasher: _,
            names: _,
            channels,
            free: _,
            members: _,
            rotation,
            spare: _,
            subscriptions: _,
            queued_bytes: _,
        } = self;
        debug_assert!(rotation.is_empty(), "everything is handed out");
        let mut ours = vec![NONE; channels.len()];
        let mut next = 0;
        for (at, channel) in channels.iter().enumerate() {
            let Some(channel) = channel else { continue };
            let Channel { name, roster: _, position, work: _, listeners: _ } = channel;
            ours[at] = next;
            next += 1;
            out.record(tag, |out| {
                name.put(1, out);
                Within::put(position, 2, out);
            });
        }
        Ours(ours)
    }

    /// Writes a member's subscriptions, each in a record of this tag.
    pub fn put_subscriptions(&self, member: Member, ours: &Ours, tag: u8, out: &mut Writer) {
        for subscription in self.of(member) {
            let Subscription { channel, index: _, expires_s, flags, _niche: _, info } =
                subscription;
            let channel = ours.0.get(*channel as usize).copied().unwrap_or(NONE);
            out.record(tag, |out| {
                channel.put(1, out);
                <UntilUnlessZero as Through<u32>>::put(expires_s, 2, out);
                flags.put(3, out);
                Within::put(info, 4, out);
            });
        }
    }

    /// Takes a subscription in that stood in a record, of a member whose user is `user`. Returns
    /// the channel, and the info with which the member is to be in its presence, if it is.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn take_subscription(
        &mut self,
        member: Member,
        user: &Arc<str>,
        theirs: &mut Theirs,
        field: &Field<'_>,
    ) -> Result<Option<(ChannelName, Arc<ClientInfo>)>, Corrupt> {
        let (mut number, mut expires_s, mut flags) = (0, 0, SubFlags::default());
        let mut info: Option<ClientInfo> = None;
        let mut fields = field.fields("a subscription")?;
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => number = u32::take(None, &field)?,
                2 => expires_s = UntilUnlessZero::take(None, &field)?,
                3 => flags = SubFlags::take(None, &field)?,
                4 => info = Within::take(None, &field)?,
                _ => field.pass()?,
            }
        }
        let Some(their) = theirs.0.get_mut(number as usize) else {
            return Err(fields.corrupt(format!("there is no channel {number}")));
        };
        if their.at == NONE {
            their.at = self.restore(&their.name, their.position);
        }
        let at = their.at;
        if self.of(member).iter().any(|one| one.channel == at) {
            return Err(fields.corrupt("the channel is subscribed to already"));
        }
        if let Some(info) = info.as_mut().filter(|info| info.user == *user) {
            info.user = Arc::clone(user);
        }
        let info = info.map(Arc::new);
        let entry = channel_at(&mut self.channels, at);
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

    /// Tells each channel's subscribers and position, and keeps the name that is answered, which
    /// the node shares.
    pub fn seat(&mut self, f: &mut dyn FnMut(&ChannelName, u32, Option<Position>) -> ChannelName) {
        for channel in self.channels.iter_mut().flatten() {
            let count = u32::try_from(channel.live()).unwrap_or(u32::MAX);
            channel.name = f(&channel.name, count, channel.position.as_deref().copied());
        }
    }

    /// The channel's number; a channel that stood further elsewhere stands there here.
    fn restore(&mut self, name: &ChannelName, position: Option<Position>) -> u32 {
        let at = self.lookup(name).unwrap_or_else(|| self.open(name));
        let entry = channel_at(&mut self.channels, at);
        debug_assert!(entry.work.is_none(), "nothing is handed out yet");
        if matches!(entry.roster, Roster::Empty) {
            entry.position = None;
        }
        let known = entry.position.as_deref().copied();
        entry.position = further(known, position).map(Box::new);
        at
    }
}

/// Of two places that a channel was seen at, the one that came later.
pub(crate) fn further(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    match (one, other) {
        (Some(one), Some(other)) if one.epoch == other.epoch && other.offset > one.offset => {
            Some(other)
        }
        (None, other) => other,
        (one, _) => one,
    }
}

impl Theirs {
    /// Takes in a channel that stood in a record.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn take(&mut self, field: &Field<'_>) -> Result<(), Corrupt> {
        let Named { name, position } = Named::take_fields(field.fields(Named::WHAT)?)?;
        self.0.push(Their { name, position, at: NONE });
        Ok(())
    }
}

#[derive(Debug)]
struct Named {
    name: ChannelName,
    position: Option<Position>,
}
crate::record!("a channel with subscribers", Named { 1 name, 2 position as Within });
