//! The sessions of one shard written down, and taken in by a shard of another process.

use std::collections::HashMap;

use throng_hub::publication::ChannelName;
use throng_hub::registry::Theirs;
use throng_hub::request::ReplyTo;
use throng_hub::state::{Corrupt, Fields, Record, Writer};
use throng_wire::framing::Framing;

use super::Sessions;
use crate::session::Session;
use crate::shard::{ConnRef, Crowd};
use crate::speakers::Place;

/// In what sessions share: a channel with subscribers.
const CHANNEL: u8 = 1;
/// A connection that waits for room to publish.
const STARVED: u8 = 2;

/// In a session's record: the session itself, before everything else.
const SESSION: u8 = 1;
/// One of its subscriptions.
const SUBSCRIPTION: u8 = 2;

/// What is known of the shard of another process whose sessions are coming.
#[derive(Debug, Default)]
pub(super) struct Coming {
    channels: Theirs,
    /// Bytes that connections want to publish, by number.
    starved: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Starved {
    number: u64,
    bytes: usize,
}
throng_hub::record!("a connection that waits for room", Starved { 1 number, 2 bytes });

impl Sessions {
    pub(super) fn put_all(&mut self, out: &mut Writer) {
        let Self {
            common: _,
            // The process's own.
            settings: _,
            shard: _,
            registry,
            // Entered again by the sessions.
            users: _,
            requests,
            orphans,
            late,
            starved,
            // Begins again.
            shed_from: _,
            ours,
            coming: _,
            // Written down for the node, with what all shards counted.
            meter: _,
            // By this process's own clock.
            pings: _,
        } = self;
        // The node has answered all questions when everything is frozen.
        debug_assert!(requests.is_empty() && orphans.is_empty() && late.is_empty());
        *ours = registry.put_channels(CHANNEL, out);
        for (conn, bytes) in starved {
            let waits = Starved { number: conn.number, bytes: *bytes };
            out.record(STARVED, |out| waits.put_fields(out));
        }
    }

    pub(super) fn put_one(&self, conn: ConnRef, session: &Session, out: &mut Writer) {
        out.record(SESSION, |out| session.put_fields(out));
        self.registry.put_subscriptions(conn.slot, &self.ours, SUBSCRIPTION, out);
    }

    pub(super) fn take_all(&mut self, mut fields: Fields<'_>) -> Result<(), Corrupt> {
        self.coming = Coming::default();
        while let Some(field) = fields.field()? {
            match field.tag {
                CHANNEL => self.coming.channels.take(&field)?,
                STARVED => {
                    let Starved { number, bytes } =
                        Starved::take_fields(field.fields(Starved::WHAT)?)?;
                    self.coming.starved.insert(number, bytes);
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
                    let theirs = &mut self.coming.channels;
                    let taken = self.registry.take_subscription(conn.slot, user, theirs, &field)?;
                    if let Some((channel, info)) = taken {
                        self.common.node.enter(&channel, &info, now);
                    }
                }
                _ => field.pass()?,
            }
        }
        let mut session = session.ok_or_else(|| fields.corrupt("there is no session"))?;
        session.draw(&self.common.allowance);
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
        if let Some(bytes) = self.coming.starved.remove(&conn.number) {
            self.starved.push((conn, bytes));
        }
        if let Some(id) = session.speaks_as() {
            let place = Place { shard: self.shard, slot: conn.slot };
            self.common.speakers.add(id, place);
        }
        if session.is_connected() {
            self.count_in(conn, &session, framing);
        }
        Ok(session)
    }

    /// The node learns of the subscriptions that have come.
    pub(super) fn seat(&mut self) {
        self.coming = Coming::default();
        let (node, shard) = (&self.common.node, self.shard);
        self.registry.seat(&mut |channel: &ChannelName, count, position| {
            node.seat(channel, shard, count, position)
        });
    }

    /// Another process knew streams better than this one does: who follows one recovers.
    pub(super) fn lose_all(&mut self, crowd: &mut Crowd<Session>) {
        let mut channels: Vec<ChannelName> = Vec::new();
        self.registry.seat(&mut |channel, _, _| {
            channels.push(ChannelName::clone(channel));
            ChannelName::clone(channel)
        });
        for channel in channels {
            self.registry.lose(&channel);
            self.insufficient(crowd, &channel);
        }
    }
}
