//! The sessions of one shard: what they share, and how the hub's events and the API's orders reach
//! them.

mod look;
mod moving;
mod polled;
mod shown;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use throng_hub::event::{Event, Flight, Item, Mailbox as HubMailbox};
use throng_hub::map::Ask;
use throng_hub::memory::Memory;
use throng_hub::node::Node;
use throng_hub::publication::{ChannelName, Publication};
use throng_hub::registry::{Audience, Batch, Member, Queued, Registry, Sink, Stands};
use throng_hub::request::{Answer, Draw, Now, ReplyTo, Request, Unsubscribe};
use throng_hub::state::{Corrupt, Fields, Writer};
use throng_wire::dialect::{self, Push};
use throng_wire::framing::Framing;
use throng_wire::websocket::Violation;
use uuid::Uuid;

use crate::allowance::{Allowance, Drawn};
use crate::backend::{Answer as Answered, Switchboard};
use crate::clock::Clock;
use crate::codes::Disconnect;
use crate::config::Settings;
use crate::control::Transport;
use crate::desk::{Desk, Part};
use crate::handoff::pause::{Moved, Pause};
use crate::handoff::put_answer;
use crate::log::Log;
use crate::metrics::{Frame, Meter, Meters, Of, Pings};
use crate::notary::{Notary, Proof};
use crate::polls::watch::Watch;
use crate::polls::{self, Polls};
use crate::ring::{Close, Ring};
use crate::rng::{Rng, system_seed};
use crate::session::{
    Cx, Effects, Ending, Kind, Open, Order, Orphan, Session, Target, Underway, encode_deflated,
    encode_item, is_deflated, transport_of,
};
use crate::shard::{
    ConnRef, Crowd, Farewell, Gone, Handler, Mailbox, Message, Out, Post, Taken, WakeAt,
};
use crate::speakers::{Place, Speakers};
use crate::users::Users;

use self::moving::Coming;
use self::shown::Shown;
pub(crate) use look::{Seen, Wish};

/// What other threads tell a shard of sessions.
#[derive(Debug)]
pub(crate) enum Mail {
    /// The hub's events, in the one order of each channel.
    Hub(Event),
    /// A backend has answered a session.
    Backend { to: ReplyTo, answer: Answered },
    /// The signature of a session's token was looked at.
    Proof { to: ReplyTo, proof: Proof },
    /// For the sessions of a user; the desk is told when it is carried out.
    Order { target: Arc<Target>, order: Arc<Order>, ask: u64 },
    /// Who is here, or in one channel.
    Census { channel: Option<ChannelName>, ask: u64 },
    /// What `throng who` looks for.
    Look { wish: Arc<Wish>, ask: u64 },
    /// How many clients do not keep up.
    Weigh { ask: u64 },
    /// What the client of a response says elsewhere.
    Said { session: Uuid, slot: u32, said: Vec<u8>, drawn: Drawn },
    /// A key of a shared poll, or that it is there no more; by the name of its list.
    Polled { name: ChannelName, publication: Arc<Publication>, draw: Draw },
    /// The versions of a channel of shared polls begin anew.
    PollReset { channel: ChannelName, epoch: Arc<str> },
    /// Close this share of the connections: one in so many of those left; 1 is all of them.
    Shed { of: u32 },
    /// Closes one in so many of those over gRPC whose connections an older process has: their numbers
    /// end with `up_to`.
    ShedBridged { of: u32, up_to: u64 },
    /// These settings hold from now on; the desk is told.
    Settings { settings: Arc<Settings>, ask: u64 },
}

/// A shard's mailbox, for sessions.
pub(crate) type ShardMailbox = Mailbox<Open, Mail>;

/// A shard as the hub knows it.
#[derive(Debug)]
pub(crate) struct HubDoor(pub Arc<ShardMailbox>, pub Clock);

impl HubMailbox for HubDoor {
    fn put(&self, mut event: Event) {
        if let Event::Channel { item: Item::Publication(flight), .. } = &mut event {
            flight.came_us = self.1.us();
        }
        self.0.post(Post::Mail(Mail::Hub(event)));
    }
}

/// How many connections each user has on this node; kept where that is limited.
#[derive(Debug, Default)]
pub(crate) struct UserCounts(Mutex<HashMap<Arc<str>, usize>>);

impl UserCounts {
    fn of(&self, user: &str) -> usize {
        self.0.lock().get(user).copied().unwrap_or(0)
    }

    /// Counts one more; returns how many there are then.
    fn add(&self, user: &Arc<str>) -> usize {
        let mut counts = self.0.lock();
        let count = counts.entry(Arc::clone(user)).or_default();
        *count += 1;
        *count
    }

    fn remove(&self, user: &Arc<str>) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(user);
            }
        }
    }
}

/// Whether the node has a subscription that a client asked for before it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seated {
    Yes,
    No,
}

/// The newest connection of each user, where a user has but one.
#[derive(Debug, Default)]
pub(crate) struct Newest(Mutex<HashMap<Arc<str>, u64>>);

impl Newest {
    /// Whether this connection is the newest one; then it is known as that.
    fn claim(&self, user: &Arc<str>, number: u64) -> bool {
        let mut newest = self.0.lock();
        let known = newest.entry(Arc::clone(user)).or_insert(number);
        *known = number.max(*known);
        *known == number
    }

    fn give_up(&self, user: &str, number: u64) {
        let mut newest = self.0.lock();
        if newest.get(user) == Some(&number) {
            newest.remove(user);
        }
    }
}

/// What the shards of a node have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub node: Arc<Node>,
    /// The broker behind it.
    pub memory: Arc<Memory>,
    /// Where everybody waits while everything is frozen.
    pub pause: Arc<Pause>,
    /// Who waits for answers to calls that another process made, by connection and ticket. Bounded
    /// by the calls that were under way there.
    pub awaited: Mutex<HashMap<(u64, u32), ReplyTo>>,
    /// Where channels stand, by the last word of the process before this one; until the node is told.
    pub stands: Mutex<Vec<Stands>>,
    /// What holds now; a reload puts others in its place. Shards have their own.
    pub current: RwLock<Arc<Settings>>,
    pub allowance: Arc<Allowance>,
    pub desk: Arc<Desk>,
    pub switchboard: Arc<Switchboard>,
    /// Shared polls: what is asked of the application, and who gets the answers.
    pub polls: Polls,
    pub notary: Arc<Notary>,
    pub log: Log,
    pub user_counts: UserCounts,
    pub newest: Newest,
    /// Every shard's mailbox, in the order of their numbers.
    pub shards: Vec<Arc<ShardMailbox>>,
    /// Connections that have connected, for `info`.
    pub clients: AtomicUsize,
    /// Publications that were asked for, by clients and the API.
    pub published: AtomicU64,
    /// The sessions whose clients speak elsewhere than they are spoken to.
    pub speakers: Speakers,
    /// This process's id among nodes.
    pub uid: OnceLock<Box<str>>,
    /// The last closes and refusals.
    pub ring: Ring,
    /// What is counted.
    pub meters: Meters,
}

/// The sessions of one shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    common: Arc<Common>,
    settings: Arc<Settings>,
    /// This shard's number.
    shard: u16,
    registry: Registry,
    /// Who tracks which keys of shared polls.
    watch: Watch,
    users: Users,
    /// Questions gathered while a session was at hand.
    requests: Vec<(Request, ReplyTo)>,
    /// Subscriptions asked for by clients that have gone before the answer.
    orphans: HashMap<(u64, u32), Unsubscribe>,
    /// Answers to subscribes that came while their connection was closing and its session not
    /// ended yet; and whether the node has the subscription.
    late: HashMap<(u64, u32), Seated>,
    /// Connections that want to publish so many bytes and have no room.
    starved: Vec<(ConnRef, usize)>,
    /// Bytes of the allowance that all of them hold.
    held: usize,
    /// Connections with subscriptions that show in maps.
    shown: Shown,
    /// Where shedding goes on.
    shed_from: u32,
    /// What is known of the shards of another process whose sessions are coming.
    coming: Coming,
    meter: Arc<Meter>,
    pings: Pings,
}

impl Sessions {
    /// The sessions of shard `shard`.
    pub(crate) fn new(common: Arc<Common>, shard: u16) -> Self {
        Self {
            meter: common.meters.shard(shard),
            settings: common.settings(),
            pings: Pings::default(),
            common,
            shard,
            registry: Registry::with_seed(system_seed()),
            watch: Watch::new(),
            users: Users::new(),
            requests: Vec::new(),
            orphans: HashMap::new(),
            late: HashMap::new(),
            starved: Vec::new(),
            held: 0,
            shown: Shown::default(),
            shed_from: 0,
            coming: Coming::default(),
        }
    }

    /// Runs `f` with what surrounds a session.
    fn surround<T>(
        &mut self,
        out: &mut Out<'_>,
        effects: &mut Effects,
        f: impl FnOnce(&mut Cx<'_, '_>) -> T,
    ) -> T {
        let common = &*self.common;
        f(&mut Cx {
            out,
            settings: &self.settings,
            registry: &mut self.registry,
            watch: &mut self.watch,
            polls: &common.polls,
            allowance: &common.allowance,
            log: &common.log,
            node: common.uid(),
            mailbox: self.shard,
            requests: &mut self.requests,
            user_connections: &|user| common.user_counts.of(user),
            effects,
            meter: &self.meter,
            at_us: common.meters.clock.us(),
            pings: &self.pings,
            command: Underway::default(),
        })
    }

    /// Runs `f` with what surrounds a session, then does what it left to be done.
    fn attend<T>(
        &mut self,
        out: &mut Out<'_>,
        session: &mut Session,
        f: impl FnOnce(&mut Session, &mut Cx<'_, '_>) -> T,
    ) -> T {
        let common = Arc::clone(&self.common);
        let mut effects = Effects::default();
        let mut began_us = 0;
        let held = session.held_bytes();
        out.effort = self.settings.effort_of(session.kind());
        let result = self.surround(out, &mut effects, |cx| {
            began_us = cx.at_us;
            f(session, cx)
        });
        // A panic on the way may have left the sum behind.
        self.held = (self.held + session.held_bytes()).saturating_sub(held);
        let conn = out.conn;
        if effects.identified {
            self.users.add(conn.slot, session.user());
            common.clients.fetch_add(1, Ordering::Relaxed);
            self.meter.accepted(session.kind().over(out.framing), effects.library);
            let limit = self.settings.client.user_connection_limit;
            // Two that came at once both found room; counting them tells which one has it.
            if limit > 0
                && common.user_counts.add(session.user()) > limit
                && !session.user().is_empty()
            {
                let because = format!(
                    "3504 the user has {limit} connections, which is client.user_connection_limit"
                );
                session.note(&common.log, 3504, &because);
                out.close(Disconnect::CONNECTION_LIMIT);
            }
        }
        effects.count_handled(&self.meter, began_us, || common.meters.clock.us());
        if effects.shown {
            self.shown.add(conn, self.settings.client.presence_update_interval, out.second);
        }
        if let Some(bytes) = effects.starved {
            self.starved.push((conn, bytes));
        }
        if let Some((user, client, why)) = effects.displace {
            // Two that come at once must not displace each other: the larger number stays.
            if common.newest.claim(&user, conn.number) {
                let (spared, before) = (vec![client], Some(conn.number));
                let target = Target { user, spared, before, ..Target::default() };
                common.order(target, Order::Disconnect(why), 0);
            } else {
                out.close(why);
            }
        }
        for (call, to) in effects.calls {
            common.switchboard.call(call, to);
        }
        for (check, to) in effects.checks {
            common.notary.check(&check, to);
        }
        for (request, to) in self.requests.drain(..) {
            if is_publish(&request) {
                common.published.fetch_add(1, Ordering::Relaxed);
            }
            common.node.call(request, to, out.now);
        }
        result
    }

    /// Counts a connected client that has come from another process, as [`Sessions::attend`] counts
    /// one that connects.
    fn count_in(&mut self, conn: ConnRef, session: &Session, framing: Framing) {
        let common = &self.common;
        self.users.add(conn.slot, session.user());
        self.meter.is_here(session.kind().over(framing));
        common.clients.fetch_add(1, Ordering::Relaxed);
        if self.settings.client.user_connection_limit > 0 {
            common.user_counts.add(session.user());
        }
        let personal = self.settings.client.personal_channel.as_ref();
        if personal.is_some_and(|personal| personal.single_connection) && !session.user().is_empty()
        {
            common.newest.claim(session.user(), conn.number);
        }
    }

    /// Undoes [`Sessions::count_in`], but for the meter.
    fn count_out(&mut self, conn: ConnRef, session: &Session) {
        let common = &self.common;
        self.users.remove(conn.slot);
        common.clients.fetch_sub(1, Ordering::Relaxed);
        if self.settings.client.user_connection_limit > 0 {
            common.user_counts.remove(session.user());
        }
        if self.settings.client.personal_channel.is_some() {
            common.newest.give_up(session.user(), conn.number);
        }
    }

    fn hub_event(&mut self, crowd: &mut Crowd<Session>, event: Event) {
        match event {
            Event::Channel { channel, item } => {
                if self.registry.queue(&channel, item) == Queued::Gap {
                    self.insufficient(crowd, &channel);
                }
            }
            Event::Insufficient { channel } => {
                self.registry.lose(&channel);
                self.insufficient(crowd, &channel);
            }
            Event::Answer { to, answer } => self.answer(crowd, to, answer),
        }
    }

    fn answer(&mut self, crowd: &mut Crowd<Session>, to: ReplyTo, answer: Answer) {
        if let Some(undo) = self.orphans.remove(&(to.number, to.ticket)) {
            if answer.seats() == Some(true) {
                self.common.node.call(Request::Unsubscribe(undo), to, crowd.now());
            }
            return;
        }
        let conn = ConnRef { slot: to.slot, number: to.number };
        let seated = answer.seats().map(|seats| if seats { Seated::Yes } else { Seated::No });
        let resumes = crowd.with(conn, |session, out| {
            self.attend(out, session, |session, cx| session.answer(cx, to.ticket, answer))
        });
        match resumes {
            Some(true) => crowd.resume(to.slot),
            Some(false) => {}
            // It has fallen in this very turn, and its end is still to come: that must find out
            // that no answer will.
            None => {
                let ends = crowd.conn_ref(to.slot) == Some(conn);
                if let Some(seated) = seated.filter(|_| ends && crowd.session(to.slot).is_some()) {
                    self.late.insert((to.number, to.ticket), seated);
                }
            }
        }
    }

    /// An answer to a connection that is gone is dropped: nothing was done for it yet.
    fn backend_answer(&mut self, crowd: &mut Crowd<Session>, to: ReplyTo, answer: Answered) {
        let conn = ConnRef { slot: to.slot, number: to.number };
        let resumes = crowd.with(conn, |session, out| {
            self.attend(out, session, |session, cx| session.backend_answer(cx, to.ticket, answer))
        });
        if resumes == Some(true) {
            crowd.resume(to.slot);
        }
    }

    /// One for a connection that is gone is dropped.
    fn proof(&mut self, crowd: &mut Crowd<Session>, to: ReplyTo, proof: Proof) {
        let conn = ConnRef { slot: to.slot, number: to.number };
        let resumes = crowd.with(conn, |session, out| {
            self.attend(out, session, |session, cx| session.proof(cx, to.ticket, proof))
        });
        if resumes == Some(true) {
            crowd.resume(to.slot);
        }
    }

    fn insufficient(&mut self, crowd: &mut Crowd<Session>, channel: &ChannelName) {
        let members: Vec<Member> = self.registry.positioned_members(channel).collect();
        for member in members {
            self.with_slot(crowd, member, |session, cx| session.insufficient(cx, channel));
        }
    }

    fn with_slot<T>(
        &mut self,
        crowd: &mut Crowd<Session>,
        slot: u32,
        f: impl FnOnce(&mut Session, &mut Cx<'_, '_>) -> T,
    ) -> Option<T> {
        let conn = crowd.conn_ref(slot)?;
        crowd.with(conn, |session, out| self.attend(out, session, f))
    }

    fn order(&mut self, crowd: &mut Crowd<Session>, target: &Target, order: &Order) {
        let meant: Vec<u32> = self
            .users
            .slots(&target.user)
            .filter(|slot| crowd.session(*slot).is_some_and(|session| session.is_meant(target)))
            .filter(|slot| {
                let number = crowd.conn_ref(*slot).map_or(u64::MAX, |conn| conn.number);
                target.before.is_none_or(|before| number < before)
            })
            .collect();
        for slot in meant {
            self.with_slot(crowd, slot, |session, cx| session.order(cx, order));
        }
    }

    fn census(&self, crowd: &Crowd<Session>, channel: Option<&ChannelName>) -> Part {
        match channel {
            Some(channel) => Part::Users(
                self.registry
                    .members(channel)
                    .filter_map(|slot| crowd.session(slot))
                    .map(|session| Arc::clone(session.user()))
                    .collect(),
            ),
            None => Part::Users(self.users.iter().map(|(name, _)| Arc::clone(name)).collect()),
        }
    }

    /// Closes one in `of` of the connections that are left, going round the slots.
    fn shed(&mut self, crowd: &mut Crowd<Session>, of: u32) {
        let mut slots: Vec<u32> = crowd.sessions().map(|(conn, _)| conn.slot).collect();
        let share = slots.len().div_ceil(of.max(1) as usize);
        let first = slots.partition_point(|slot| *slot < self.shed_from);
        slots.rotate_left(first);
        for slot in slots.into_iter().take(share) {
            self.shed_from = slot + 1;
            crowd.fall(slot, Disconnect::SHUTDOWN);
        }
    }
}

/// See [`Mail::ShedBridged`].
fn shed_bridged(crowd: &mut Crowd<Session>, of: u32, up_to: u64) {
    let bridged: Vec<u32> = (crowd.sessions())
        .filter(|(conn, session)| {
            let over = crowd.framing(conn.slot).map(|framing| session.kind().over(framing));
            conn.number <= up_to && over == Some(Transport::UniGrpc)
        })
        .map(|(conn, _)| conn.slot)
        .collect();
    let share = bridged.len().div_ceil(of.max(1) as usize);
    for slot in bridged.into_iter().take(share) {
        crowd.fall(slot, Disconnect::SHUTDOWN);
    }
}

impl Common {
    /// The settings that hold now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read())
    }

    /// This node's id among nodes; a restart keeps it.
    pub(crate) fn uid(&self) -> &str {
        self.uid.get_or_init(|| Rng::new(system_seed()).uuid().to_string().into())
    }

    /// An answer has come to a call that another process made.
    pub(crate) async fn answered(&self, number: u64, ticket: u32, answer: Answered) {
        let passed = self.pause.enter().await;
        match passed {
            Ok(_pass) => {
                let Some(to) = self.awaited.lock().remove(&(number, ticket)) else { return };
                if let Some(shard) = self.shards.get(usize::from(to.mailbox)) {
                    shard.post(Post::Mail(Mail::Backend { to, answer }));
                }
            }
            Err(Moved(outlet)) => outlet.backend_answer(put_answer(number, ticket, &answer)),
        }
    }

    /// Sends an order to every shard.
    pub(crate) fn order(&self, target: Target, order: Order, ask: u64) {
        let (target, order) = (Arc::new(target), Arc::new(order));
        for shard in &self.shards {
            let (target, order) = (Arc::clone(&target), Arc::clone(&order));
            shard.post(Post::Mail(Mail::Order { target, order, ask }));
        }
    }
}

impl Handler for Sessions {
    type Session = Session;
    type Open = Open;
    type Mail = Mail;

    fn open(&mut self, out: &mut Out<'_>, open: Open) -> Session {
        let slot = out.conn.slot;
        // A session that has just begun asks for nothing.
        let session = self.surround(out, &mut Effects::default(), |cx| Session::open(open, cx));
        if let Some(id) = session.speaks_as() {
            self.common.speakers.add(id, Place { shard: self.shard, slot });
        }
        session
    }

    fn held(&self, session: &Session) -> usize {
        session.held_bytes()
    }

    fn held_by_all(&self) -> usize {
        self.held
    }

    fn message(&mut self, out: &mut Out<'_>, session: &mut Session, message: Message<'_>) -> Taken {
        self.attend(out, session, |session, cx| session.message(cx, message))
    }

    fn proceed(&mut self, out: &mut Out<'_>, session: &mut Session) -> Taken {
        self.attend(out, session, Session::proceed)
    }

    fn wake(&mut self, out: &mut Out<'_>, session: &mut Session) -> WakeAt {
        self.attend(out, session, Session::wake)
    }

    fn mail(&mut self, crowd: &mut Crowd<Session>, mail: Mail) {
        match mail {
            Mail::Hub(event) => self.hub_event(crowd, event),
            Mail::Backend { to, answer } => self.backend_answer(crowd, to, answer),
            Mail::Proof { to, proof } => self.proof(crowd, to, proof),
            Mail::Order { target, order, ask } => {
                self.order(crowd, &target, &order);
                self.common.desk.part(ask, Part::Done);
            }
            Mail::Census { channel, ask } => {
                let part = self.census(crowd, channel.as_ref());
                self.common.desk.part(ask, part);
            }
            Mail::Look { wish, ask } => {
                let seen = self.look(crowd, &wish);
                self.common.desk.part(ask, Part::Seen(seen));
            }
            Mail::Said { session, slot, said, drawn } => {
                let is_meant =
                    crowd.session(slot).is_some_and(|here| here.speaks_as() == Some(session));
                if let Some(conn) = crowd.conn_ref(slot).filter(|_| is_meant) {
                    crowd.hear(conn, &said);
                }
                // From here on it is the connection's, which accounts for it.
                drop(drawn);
            }
            Mail::Polled { name, publication, draw } => {
                let came_us = self.common.meters.clock.us();
                let flight = Flight { publication, draw: Some(draw), base: None, came_us };
                self.watch.queue(&name, Item::Publication(flight));
            }
            Mail::PollReset { channel, epoch } => self.poll_reset(crowd, &channel, &epoch),
            Mail::Weigh { ask } => self.common.desk.part(ask, Part::Weighed(crowd.weigh())),
            Mail::Shed { of } => self.shed(crowd, of),
            Mail::ShedBridged { of, up_to } => shed_bridged(crowd, of, up_to),
            Mail::Settings { settings, ask } => {
                self.settings = settings;
                self.common.desk.part(ask, Part::Done);
            }
        }
    }

    fn settle(&mut self, crowd: &mut Crowd<Session>) {
        // Who had no room to publish tries again when some has come back.
        if self.starved.is_empty() {
            return;
        }
        // Held until the end, so that no more of them go on than have room together.
        let mut room = Vec::new();
        self.starved.retain(|(conn, bytes)| {
            if crowd.conn_ref(conn.slot) != Some(*conn) {
                return false;
            }
            let Some(drawn) = self.common.allowance.draw(*bytes) else { return true };
            room.push(drawn);
            crowd.resume(conn.slot);
            false
        });
    }

    fn has_work(&self) -> bool {
        self.registry.has_work() || self.watch.has_work()
    }

    fn work(&mut self, crowd: &mut Crowd<Session>, deliveries: usize) {
        let (meter, clock, settings) = (&*self.meter, &self.common.meters.clock, &*self.settings);
        self.registry.fan_out(&mut Delivery { crowd, meter, clock, settings }, deliveries);
        self.meter.withheld(self.registry.take_withheld());
        if self.watch.has_work() {
            self.hand_out_polled(crowd, deliveries);
        }
    }

    fn closed(&mut self, gone: Gone, mut session: Session, why: &Disconnect) {
        let Gone { conn, framing, now } = gone;
        let common = Arc::clone(&self.common);
        self.held = self.held.saturating_sub(session.held_bytes());
        self.users.remove(conn.slot);
        if let Some(id) = session.speaks_as() {
            common.speakers.remove(id);
        }
        if session.is_connected() {
            self.count_out(conn, &session);
            self.meter.left(session.kind().over(framing));
        }
        let to = ReplyTo { mailbox: self.shard, slot: conn.slot, number: conn.number, ticket: 0 };
        let (orphans, late) = (&mut self.orphans, &mut self.late);
        let (watch, settings, shard) = (&mut self.watch, &*self.settings, self.shard);
        if let Some(because) = shards_reason(&self.settings, session.kind(), why) {
            session.note(&common.log, why.code.into(), &because);
        }
        // That a client went is not the server's doing.
        if why.code != Disconnect::CONNECTION_CLOSED.code {
            self.meter.rare.count(Of::Disconnect, 0, why.code.into());
        }
        common.ring.closed(Close {
            user: Arc::clone(session.user()),
            client: session.client(),
            number: conn.number,
            at_s: Clock::second_of(now),
            since_s: session.since_s(),
            address: Some(session.address()),
            code: why.code,
            reason: why.reason.clone(),
            note: session.afterword(),
        });
        let around = (&*self.settings, &mut self.registry);
        session.end(around, conn, &mut |ending| match ending {
            Ending::Poll(poll) => {
                poll.end(watch, &common.polls, (settings, shard, polls::ms(now)));
            }
            Ending::Leave(leave) => common.node.call(Request::Unsubscribe(leave), to, now),
            Ending::Hide(call) => common.node.call(Request::Map(Box::new(call)), to, now),
            Ending::Orphan(Orphan { number, ticket, undo }) => {
                match late.remove(&(number, ticket)) {
                    None => drop(orphans.insert((number, ticket), undo)),
                    Some(Seated::Yes) => common.node.call(Request::Unsubscribe(undo), to, now),
                    Some(Seated::No) => {}
                }
            }
        });
    }

    fn farewell(
        &self,
        session: &Session,
        why: &Disconnect,
        framing: Framing,
        out: &mut Vec<u8>,
    ) -> Farewell {
        if let Some(refusal) = session.refusal(&self.settings, framing, why) {
            out.extend_from_slice(&refusal);
            return Farewell::CloseFrame;
        }
        let uni = &self.settings.uni_websocket;
        let transport = session.kind().over(framing);
        let (pushes, closes) = match (framing, session.kind()) {
            (Framing::WebSocket | Framing::Binary, Kind::Bidirectional) => (false, true),
            (Framing::WebSocket | Framing::Binary, Kind::Unidirectional) => {
                (!uni.disable_disconnect_push, !uni.disable_closing_handshake)
            }
            // The end of a response says nothing by itself.
            (Framing::Sse | Framing::Lines | Framing::Lengths, _) => (true, true),
        };
        if pushes {
            let mut payload = Vec::new();
            let push = Push::Disconnect {
                code: why.code.into(),
                reason: &why.reason,
                reconnect: why.reconnects(),
            };
            dialect::put_push(framing.encoding(), session.kind().envelope(), &push, &mut payload);
            self.meter.sent(transport, Frame::PushDisconnect, payload.len());
            framing.put(&payload, out);
        }
        // A connection that is gone is told nothing, and who closed first is answered.
        let is_told = !matches!(why.code, 3000 | 3009);
        if closes && is_told && !framing.is_response() {
            self.meter.rare.count(Of::Close, transport as u8, why.code.into());
        }
        if closes { Farewell::CloseFrame } else { Farewell::Silent }
    }

    fn tick(&mut self, crowd: &mut Crowd<Session>) {
        // The sweep that sends the pings of this second comes next.
        self.pings.begin(crowd.second(), self.common.meters.clock.us());
        let counters = crowd.counters();
        self.meter.panics.set(counters.panics);
        self.meter.resets.set(counters.resets);
        self.meter.late_answers.set(counters.late_answers);
        self.unload();
        self.show_again(crowd);
    }

    fn is_at_rest(&self, session: &Session) -> bool {
        session.is_at_rest()
    }

    fn put_shared(&mut self, slots: &[u32], is_last: bool, out: &mut Writer) {
        self.put_all(slots, is_last, out);
    }

    fn put_session(&mut self, conn: ConnRef, session: &Session, out: &mut Writer) {
        self.put_one(conn, session, out);
    }

    fn forget_told(&mut self) {
        self.forget_written();
    }

    fn take_shared(&mut self, shard: usize, fields: Fields<'_>) -> Result<(), Corrupt> {
        self.take_all(shard, fields)
    }

    fn expect(&mut self, sessions: usize) {
        self.registry.expect(sessions);
        self.users.expect(sessions);
    }

    fn take_session(
        &mut self,
        (conn, framing): (ConnRef, Framing),
        fields: Fields<'_>,
    ) -> Result<Session, Corrupt> {
        self.take_one((conn, framing), fields)
    }

    fn drop_session(
        &mut self,
        (conn, framing): (ConnRef, Framing),
        mut session: Session,
        now: Now,
    ) {
        self.drop_one((conn, framing), &mut session, now);
    }

    fn settle_in(&mut self, crowd: &mut Crowd<Session>) -> Result<(), Corrupt> {
        self.seat(crowd);
        Ok(())
    }

    fn begin_anew(&mut self, crowd: &mut Crowd<Session>) {
        self.lose_all(crowd);
    }
}

/// Why the shard closed a connection by itself, for the log; what a session refuses it says
/// itself, and that a client went is no news.
fn shards_reason(settings: &Settings, kind: Kind, why: &Disconnect) -> Option<String> {
    Some(match why.code {
        3008 => "3008 more was waiting for the client than client.queue_max_size or \
                 limits.buffer_bytes allow, or its message did not end within \
                 limits.incomplete_message_timeout"
            .to_owned(),
        1009 => {
            let websocket = &settings.websocket;
            let uni = &settings.uni_websocket;
            let (section, limit, inflated) = match kind {
                Kind::Bidirectional => {
                    ("websocket", websocket.message_size_limit, websocket.inflated_size_limit)
                }
                Kind::Unidirectional => {
                    ("uni_websocket", uni.message_size_limit, uni.inflated_size_limit)
                }
            };
            if why.reason == Violation::InflatesTooBig.reason() {
                format!(
                    "1009 a compressed message inflates to more than \
                     {section}.decompressed_message_size_limit, which is {inflated}"
                )
            } else {
                format!(
                    "1009 a message is larger than {section}.message_size_limit, which is {limit}"
                )
            }
        }
        1002 | 1007 => format!("{} the client broke WebSocket's rules: {}", why.code, why.reason),
        _ => return None,
    })
}

/// Whether somebody publishes; what says again that somebody is there is nothing new.
fn is_publish(request: &Request) -> bool {
    match request {
        Request::Publish(_) => true,
        Request::Map(call) => matches!(call.ask, Ask::Publish(_)) && !call.quiet,
        _ => false,
    }
}

/// Fan-out into a crowd.
struct Delivery<'a> {
    crowd: &'a mut Crowd<Session>,
    meter: &'a Meter,
    clock: &'a Clock,
    settings: &'a Settings,
}

impl Sink for Delivery<'_> {
    fn approach(&mut self, members: &[Member]) {
        self.crowd.approach(members);
    }

    fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
        let Some(form) = self.crowd.form(member) else { return };
        let transport = transport_of(form);
        let encode = &mut |of: usize, channel: &ChannelName, item: &Item, out: &mut Vec<u8>| {
            if !is_deflated(form) {
                return encode_item(of, channel, item, out);
            }
            let kind = match transport {
                Some(Transport::UniWebsocket) => Kind::Unidirectional,
                _ => Kind::Bidirectional,
            };
            let how = (self.crowd.deflater(), self.settings.effort_of(kind));
            encode_deflated(of, (channel, item), how, out);
        };
        let (frames, contents) = batch.counted(usize::from(form), audience, encode);
        if let Some(transport) = transport {
            self.meter.delivered(transport, frames.len(), contents);
        }
        self.crowd.deliver(member, frames);
    }

    fn changed(&mut self, member: Member) {
        self.crowd.changed(member);
    }

    fn passed(&mut self, batch: &Batch) {
        let now_us = self.clock.us();
        for item in batch.items() {
            if let Item::Publication(flight) = item {
                self.meter.fanned_out(now_us.saturating_sub(flight.came_us));
            }
        }
    }
}
