//! The sessions of one shard written down, and taken in by a shard of another process.

use std::collections::HashMap;

use throng_hub::publication::ChannelName;
use throng_hub::registry::{Stands, SubFlags, Theirs};
use throng_hub::request::{Now, ReplyTo, Request};
use throng_hub::state::{Corrupt, Fields, Record, Writer};
use throng_wire::framing::Framing;

use super::Sessions;
use crate::clock::Clock;
use crate::polls;
use crate::session::Session;
use crate::shard::{ConnRef, Crowd};
use crate::speakers::Place;

/// In what sessions share: a channel with subscribers.
const CHANNEL: u8 = 1;
/// A connection that waits for room to publish.
const STARVED: u8 = 2;
/// Where a channel stands that has moved since it was told.
const MOVED: u8 = 3;

/// In a session's record: the session itself, before everything else.
const SESSION: u8 = 1;
/// One of its subscriptions.
const SUBSCRIPTION: u8 = 2;

/// What is known of the shards of another process whose sessions are coming.
#[derive(Debug, Default)]
pub(super) struct Coming {
    /// By shard.
    channels: Vec<Theirs>,
    /// The shard whose sessions come now.
    shard: usize,
    /// Connections that want to publish, and how many bytes.
    starved: Vec<Starved>,
    /// All have come.
    is_through: bool,
}

#[derive(Debug)]
struct Starved {
    number: u64,
    bytes: usize,
}
throng_hub::record!("a connection that waits for room", Starved { 1 number, 2 bytes });

impl Sessions {
    pub(super) fn put_all(&mut self, slots: &[u32], is_last: bool, out: &mut Writer) {
        let Self {
            common: _,
            // The process's own.
            settings: _,
            shard: _,
            registry,
            // Entered again by the sessions.
            watch: _,
            users: _,
            requests,
            orphans,
            late,
            starved,
            // Counted by who takes the sessions.
            held: _,
            // Known again by the sessions.
            shown: _,
            // Begins again.
            shed_from: _,
            coming: _,
            // Written down for the node, with what all shards counted.
            meter: _,
            // By this process's own clock.
            pings: _,
        } = self;
        registry.put_channels(slots, is_last, (CHANNEL, MOVED), out);
        if !is_last {
            return;
        }
        // The node has answered all questions when everything is frozen.
        debug_assert!(requests.is_empty() && orphans.is_empty() && late.is_empty());
        for (conn, bytes) in starved {
            let waits = Starved { number: conn.number, bytes: *bytes };
            out.record(STARVED, |out| waits.put_fields(out));
        }
    }

    pub(super) fn put_one(&self, conn: ConnRef, session: &Session, out: &mut Writer) {
        out.record(SESSION, |out| session.put_fields(out));
        self.registry.put_subscriptions(conn.slot, SUBSCRIPTION, out);
    }

    /// Nobody knows what was written.
    pub(super) fn forget_written(&mut self) {
        self.registry.forget_told();
    }

    pub(super) fn take_all(&mut self, shard: usize, mut fields: Fields<'_>) -> Result<(), Corrupt> {
        let Coming { channels, shard: of, starved, is_through: _ } = &mut self.coming;
        *of = shard;
        if channels.len() <= shard {
            channels.resize_with(shard + 1, Theirs::default);
        }
        let Some(theirs) = channels.get_mut(shard) else { return Ok(()) };
        while let Some(field) = fields.field()? {
            match field.tag {
                CHANNEL => theirs.take(&field)?,
                MOVED => theirs.take_moved(&field)?,
                STARVED => {
                    starved.push(Starved::take_fields(field.fields(Starved::WHAT)?)?);
                }
                _ => field.pass()?,
            }
        }
        Ok(())
    }

    pub(super) fn take_one(
        &mut self,
        (conn, framing): (ConnRef, Framing),
        mut fields: Fields<'_>,
    ) -> Result<Session, Corrupt> {
        let now = fields.now();
        let mut session: Option<Session> = None;
        while let Some(field) = fields.field()? {
            match field.tag {
                SESSION => session = Some(Session::take_fields(field.fields(Session::WHAT)?)?),
                SUBSCRIPTION => {
                    let user = session
                        .as_ref()
                        .ok_or_else(|| field.corrupt("is a subscription before its session"))?
                        .user();
                    let Some(theirs) = self.coming.channels.get(self.coming.shard) else {
                        return Err(field.corrupt("is a subscription before the channels"));
                    };
                    let (node, shard) = (&self.common.node, self.shard);
                    let taken = self.registry.take_subscription(
                        conn.slot,
                        user,
                        (theirs, &field),
                        &mut |channel, position| node.seat(channel, shard, 1, position),
                    )?;
                    if let Some((channel, info)) = taken {
                        self.common.node.enter(&channel, &info, now);
                    }
                }
                _ => field.pass()?,
            }
        }
        let mut session = session.ok_or_else(|| fields.corrupt("there is no session"))?;
        session.draw(&self.common.allowance);
        self.held += session.held_bytes();
        let place = (&*self.settings, self.shard, polls::ms(now));
        session.seat_polls(conn.slot, &mut self.watch, &self.common.polls, place);
        for ticket in session.tickets() {
            let ConnRef { slot, number } = conn;
            let to = ReplyTo { mailbox: self.shard, slot, number, ticket };
            self.common.awaited.lock().insert((number, ticket), to);
        }
        // Looked at anew: what the other process finds stays there.
        for (ticket, check) in session.unproven() {
            let ConnRef { slot, number } = conn;
            let to = ReplyTo { mailbox: self.shard, slot, number, ticket };
            self.common.notary.check(check, to);
        }
        if let Some(id) = session.speaks_as() {
            let place = Place { shard: self.shard, slot: conn.slot };
            self.common.speakers.add(id, place);
        }
        if session.is_connected() {
            self.count_in(conn, &session, framing);
        }
        if session.is_shown(&self.registry, conn.slot) {
            let interval = self.settings.client.presence_update_interval;
            self.shown.add(conn, interval, Clock::second_of(now));
        }
        Ok(session)
    }

    /// Undoes [`Sessions::take_one`].
    pub(super) fn drop_one(
        &mut self,
        (conn, framing): (ConnRef, Framing),
        session: &mut Session,
        now: Now,
    ) {
        self.held = self.held.saturating_sub(session.held_bytes());
        let Self { common, settings, registry, shard, .. } = self;
        let place = (&**settings, *shard, polls::ms(now));
        session.unseat_polls(&mut self.watch, &common.polls, place);
        registry.leave_all(conn.slot, &mut |channel, subscription| {
            common.node.unseat(channel, *shard);
            if subscription.flags.contains(SubFlags::PRESENCE) {
                common.node.withdraw(channel, session.client(), now);
            }
            let to = ReplyTo { mailbox: *shard, slot: conn.slot, number: conn.number, ticket: 0 };
            for call in session.hide(settings, channel, subscription.flags) {
                common.node.call(Request::Map(Box::new(call)), to, now);
            }
        });
        for ticket in session.tickets() {
            common.awaited.lock().remove(&(conn.number, ticket));
        }
        if let Some(id) = session.speaks_as() {
            common.speakers.remove(id);
        }
        if session.is_connected() {
            self.count_out(conn, session);
            self.meter.is_not_here(session.kind().over(framing));
        }
    }

    /// All sessions have come.
    pub(super) fn seat(&mut self, crowd: &Crowd<Session>) {
        let Coming { channels, shard: _, starved, is_through } = &mut self.coming;
        *is_through = true;
        let starved = std::mem::take(starved);
        let strays: Vec<ChannelName> = channels.iter().flat_map(Theirs::strays).cloned().collect();
        let stands: Vec<Stands> = channels.iter_mut().flat_map(Theirs::take_stands).collect();
        self.registry.stand(&stands);
        self.registry.stray(&strays);
        // The node is told when all shards have come so far.
        let mut all = self.common.stands.lock();
        let here = stands.into_iter().filter(|(channel, _)| self.registry.has(channel));
        all.extend(here);
        drop(all);
        if starved.is_empty() {
            return;
        }
        let waits: HashMap<u64, usize> =
            starved.iter().map(|Starved { number, bytes }| (*number, *bytes)).collect();
        for (conn, _) in crowd.sessions() {
            if let Some(bytes) = waits.get(&conn.number) {
                self.starved.push((conn, *bytes));
            }
        }
    }

    /// Lets go what was needed while sessions came: giving the names of many channels back takes time,
    /// which there is once it serves.
    pub(super) fn unload(&mut self) {
        if self.coming.is_through {
            self.coming = Coming::default();
        }
    }

    /// Another process knew streams better than this one does: who follows one recovers.
    pub(super) fn lose_all(&mut self, crowd: &mut Crowd<Session>) {
        let channels: Vec<ChannelName> = self.registry.channels().cloned().collect();
        for channel in channels {
            self.registry.lose(&channel);
            self.insufficient(crowd, &channel);
        }
    }
}
