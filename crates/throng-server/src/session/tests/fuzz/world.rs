//! A world of random clients: what can happen in it, and what must hold in it.

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use throng_hub::event::Event;
use throng_hub::request::{Answer, HubError, Publish, ReplyTo, Request};
use throng_hub::state::{Fields, Record, Writer};
use throng_wire::framing::Framing;

use super::super::bench::{Bench, NEAR};
use super::client::Client;
use super::hear;
use super::scene::{KINDS, answer, configuration, names};
use super::words::{self, Names, once_in, pick};
use crate::allowance::Allowance;
use crate::backend;
use crate::codes::{Disconnect, Kind as CodeKind, explain};
use crate::notary::Proof;
use crate::rng::Rng;
use crate::session::{Kind, Open, Order, Session, retention};
use crate::shard::{Message, NEVER};
use crate::token::{Grant, Override};

/// Clients of one world.
const CLIENTS_MAX: usize = 24;
/// Bytes of waiting commands that a client may hold: a message of each transport.
const BACKLOG_MAX: usize = 1 << 20;

/// Something that happens; what exactly is drawn from the seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happening {
    pub(super) what: What,
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Opens,
    Says,
    SaysSpoilt,
    SaysNoise,
    Pongs,
    Delivery,
    FanOut,
    BackendAnswers,
    NotaryAnswers,
    StrayAnswer,
    BrokerFails,
    Second,
    Jump,
    Ordered,
    Goes,
    Moves,
    Published,
    Resumes,
    Loses,
    Settles,
}

/// How often each of them happens.
const ODDS: [(What, u32); 20] = [
    (What::Opens, 6),
    (What::Says, 40),
    (What::SaysSpoilt, 2),
    (What::SaysNoise, 1),
    (What::Pongs, 3),
    (What::Delivery, 45),
    (What::FanOut, 12),
    (What::BackendAnswers, 16),
    (What::NotaryAnswers, 6),
    (What::StrayAnswer, 1),
    (What::BrokerFails, 1),
    (What::Second, 4),
    (What::Jump, 1),
    (What::Ordered, 4),
    (What::Goes, 1),
    (What::Moves, 2),
    (What::Published, 16),
    (What::Resumes, 4),
    (What::Loses, 1),
    (What::Settles, 4),
];

impl Happening {
    pub(super) fn any(rng: &mut Rng) -> Self {
        let mut left = rng.below(ODDS.iter().map(|(_, odds)| odds).sum());
        let chosen = ODDS.iter().find(|(_, odds)| match left.checked_sub(*odds) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        Self { what: chosen.unwrap().0, seed: rng.next_u64() }
    }
}

pub(super) struct World {
    bench: Bench,
    clients: Vec<Client>,
    /// The last id that each client used.
    ids: Vec<u32>,
    names: Names,
    /// Events may be lost.
    is_lossy: bool,
    /// Everything that was said, so that two worlds can be compared.
    digest: std::hash::DefaultHasher,
}

impl World {
    /// A world of this kind. What it says does not depend on `hash`.
    pub(super) fn new(kind: u32, hash: u64) -> Self {
        let mut bench = Bench::silent(configuration(kind % KINDS), hash);
        bench.by_hand = true;
        // Little enough for clients to wait for room.
        bench.allowance = Allowance::new(100_000);
        let names = names(&bench.settings);
        Self {
            bench,
            clients: Vec::new(),
            ids: Vec::new(),
            names,
            is_lossy: kind >= KINDS,
            digest: std::hash::DefaultHasher::new(),
        }
    }

    /// Lets something happen, and looks whether everything that must hold does.
    pub(super) fn happens(&mut self, happening: Happening) {
        let rng = &mut Rng::new(happening.seed);
        match happening.what {
            What::Opens => self.opens(rng),
            What::Says => {
                self.says(rng, |rng, names, encoding, id| words::frame(rng, encoding, names, id))
            }
            What::SaysSpoilt => self.says(rng, |rng, names, encoding, id| {
                let mut frame = words::frame(rng, encoding, names, id);
                words::mutate(rng, &mut frame);
                frame
            }),
            What::SaysNoise => self.says(rng, |rng, _, _, _| words::noise(rng)),
            What::Pongs => self.pongs(rng),
            What::Delivery => {
                for _ in 0..=rng.below(6) {
                    self.delivers(rng);
                }
            }
            What::FanOut => self.bench.fan_out(),
            What::BackendAnswers => self.backend_answers(rng),
            What::NotaryAnswers => self.notary_answers(rng),
            What::StrayAnswer => self.stray_answer(rng),
            What::BrokerFails => self.broker_fails(rng),
            What::Second => self.passes(rng, 1),
            What::Jump => {
                let seconds = *pick(rng, &[5, 12, 30, 61, 400]);
                self.passes(rng, seconds);
            }
            What::Ordered => self.ordered(rng),
            What::Goes => {
                if let Some(at) = self.someone(rng) {
                    self.bench.end(at);
                }
            }
            What::Moves => self.moves(),
            What::Published => self.published(rng),
            What::Resumes => self.resumes(),
            What::Loses => self.loses(rng),
            What::Settles => self.settles(rng),
        }
        self.listen();
        self.look();
    }

    /// Everything comes to its end; returns what sums up all that was said.
    pub(super) fn ends(mut self, rng: &mut Rng) -> u64 {
        self.settles(rng);
        self.falls_silent(rng);
        for at in 0..self.clients.len() {
            self.bench.end(at);
        }
        self.settles(rng);
        let bench = &mut self.bench;
        assert!(bench.orphans.is_empty(), "{:?}", bench.orphans);
        assert_eq!(bench.registry.subscription_count(), 0);
        assert_eq!(bench.registry.channel_count(), 0);
        assert_eq!(bench.node.counts().subscriptions, 0);
        for channel in &self.names.channels {
            let to = ReplyTo { mailbox: 0, slot: u32::MAX, number: 0, ticket: 0 };
            let channel = channel.as_str().into();
            bench.node.call(Request::PresenceStats { channel }, to, bench.now());
            let (_, answer) = bench.take_answer();
            let Answer::PresenceStats(Ok(stats)) = answer else { panic!("{answer:?}") };
            assert_eq!((stats.clients, stats.users), (0, 0));
        }
        let allowance = &bench.allowance;
        let left = (allowance.used(), allowance.parked());
        assert_eq!(left, (0, 0), "bytes that nobody gave back");
        self.digest.finish()
    }

    fn someone(&self, rng: &mut Rng) -> Option<usize> {
        let here: Vec<usize> = (0..self.clients.len())
            .filter(|at| self.bench.clients[*at].session.is_some())
            .collect();
        (!here.is_empty()).then(|| *pick(rng, &here))
    }

    fn opens(&mut self, rng: &mut Rng) {
        let here = self.bench.clients.iter().filter(|client| client.session.is_some()).count();
        if here >= CLIENTS_MAX {
            return;
        }
        let is_uni = once_in(rng, 6);
        let framing = match is_uni {
            true => *pick(rng, &[Framing::WebSocket, Framing::Sse, Framing::Lines]),
            false => *pick(
                rng,
                &[
                    Framing::WebSocket,
                    Framing::WebSocket,
                    Framing::Binary,
                    Framing::Binary,
                    Framing::Sse,
                    Framing::Lines,
                    Framing::Lengths,
                ],
            ),
        };
        let comes_with = framing.is_response() || (is_uni && once_in(rng, 2));
        let connect = comes_with.then(|| match is_uni {
            true => words::connect_request(rng, &self.names),
            false => words::connect_frame(rng, framing.encoding(), &self.names),
        });
        let cookie = (HeaderName::from_static("cookie"), HeaderValue::from_static("s=1"));
        let open = Open {
            kind: if is_uni { Kind::Unidirectional } else { Kind::Bidirectional },
            native_ping: framing == Framing::WebSocket && once_in(rng, 5),
            user: None,
            session: (framing.is_response() || is_uni).then(|| rng.uuid()),
            connect: connect.clone().map(Bytes::from),
            address: NEAR,
            headers: if once_in(rng, 2) { Box::new([cookie]) } else { Box::default() },
            no_cookie: None,
            head: None,
        };
        let mut client = Client::new(is_uni, self.is_lossy);
        if let Some(connect) = &connect {
            client.says(framing.encoding(), connect);
        }
        self.clients.push(client);
        self.ids.push(4);
        let at = self.bench.open_over(framing, open);
        if connect.is_none() && !once_in(rng, 12) {
            let frame = match is_uni {
                true => words::connect_request(rng, &self.names),
                false => words::connect_frame(rng, framing.encoding(), &self.names),
            };
            self.tell(at, &frame);
        }
    }

    fn says(
        &mut self,
        rng: &mut Rng,
        what: impl FnOnce(&mut Rng, &Names, throng_wire::dialect::Encoding, &mut u32) -> Vec<u8>,
    ) {
        let Some(at) = self.someone(rng) else { return };
        let encoding = self.bench.clients[at].framing.encoding();
        let frame = what(rng, &self.names, encoding, &mut self.ids[at]);
        self.tell(at, &frame);
    }

    /// A client says this, if its transport would carry it.
    fn tell(&mut self, at: usize, frame: &[u8]) {
        let client = &self.bench.clients[at];
        // Nothing more is heard of who waits: its socket is not read.
        if client.session.is_none() || client.unread.len() > 4 {
            return;
        }
        let is_lost =
            client.framing.is_response() && (frame.is_empty() || self.clients[at].is_uni());
        if is_lost {
            return;
        }
        self.clients[at].says(client.framing.encoding(), frame);
        self.bench.say_bytes(at, frame);
    }

    fn pongs(&mut self, rng: &mut Rng) {
        for at in 0..self.clients.len() {
            let client = &self.bench.clients[at];
            let Some(session) = &client.session else { continue };
            if session.native_ping {
                self.bench.message(at, Message::Pong(b""));
            } else if session.awaits_pong && !client.waiting && !once_in(rng, 60) {
                self.tell(at, &words::pong(client.framing.encoding()));
            }
        }
        if once_in(rng, 50)
            && let Some(at) = self.someone(rng)
        {
            self.bench.message(at, Message::Ping);
        }
    }

    /// Delivers one event: any, but in the order of its channel.
    fn delivers(&mut self, rng: &mut Rng) {
        let index = {
            let mail = self.bench.shard_mail.0.lock();
            if mail.is_empty() {
                return;
            }
            let far = if once_in(rng, 3) { u32::try_from(mail.len()).unwrap() } else { 1 };
            let index = rng.below(far) as usize;
            let channel = channel_of(&mail[index]);
            let first =
                mail.iter().position(|event| channel.is_some() && channel_of(event) == channel);
            first.unwrap_or(index)
        };
        self.bench.deliver(index);
    }

    fn backend_answers(&mut self, rng: &mut Rng) {
        if self.bench.calls.is_empty() {
            return;
        }
        let index = rng.below(u32::try_from(self.bench.calls.len()).unwrap()) as usize;
        self.bench.calls.swap(0, index);
        let body = answer(rng, &self.names);
        self.bench.backend_says(&body);
    }

    fn notary_answers(&mut self, rng: &mut Rng) {
        if self.bench.checks.is_empty() {
            return;
        }
        let index = rng.below(u32::try_from(self.bench.checks.len()).unwrap()) as usize;
        self.bench.checks.swap(0, index);
        // As the notary does: whose client has gone is passed over.
        if self.bench.checks[0].0.upgrade().is_none() {
            self.bench.checks.pop_front();
            return;
        }
        let proof = match rng.below(8) {
            0 => Proof::Forged("so it seems".into()),
            1 => Proof::Unknown("answered 503".into()),
            2 => Proof::Busy,
            _ => Proof::Genuine,
        };
        self.bench.notary_says(proof);
    }

    /// An answer for who is gone, or for a question that was answered.
    fn stray_answer(&mut self, rng: &mut Rng) {
        let count = u32::try_from(self.clients.len()).unwrap();
        if count == 0 {
            return;
        }
        let slot = rng.below(count);
        let number = self.bench.clients[slot as usize].conn.number;
        let to = ReplyTo { mailbox: 0, slot, number, ticket: 1_000_000 };
        match rng.below(3) {
            0 => self.bench.answer(to, Answer::Presence(Ok(Vec::new()))),
            1 => {
                let answer = backend::Answer::Failed;
                let ticket = to.ticket;
                self.bench
                    .with(slot as usize, |session, cx| session.backend_answer(cx, ticket, answer));
            }
            _ => {
                let ticket = to.ticket;
                self.bench
                    .with(slot as usize, |session, cx| session.proof(cx, ticket, Proof::Genuine));
            }
        }
    }

    /// The broker does not do what the oldest waiting question asks, where nothing depends on it.
    fn broker_fails(&mut self, rng: &mut Rng) {
        let error = *pick(rng, &[HubError::Broker, HubError::Overloaded]);
        let mut mail = self.bench.shard_mail.0.lock();
        for event in mail.iter_mut() {
            let Event::Answer { answer, .. } = event else { continue };
            match answer {
                Answer::Published(result) => *result = Err(error),
                Answer::Presence(result) => *result = Err(error),
                Answer::PresenceStats(result) => *result = Err(error),
                Answer::History(result) => *result = Err(error),
                _ => continue,
            }
            return;
        }
    }

    /// Time goes by: who asked for one of these seconds is woken in it.
    fn passes(&mut self, rng: &mut Rng, seconds: u32) {
        for _ in 0..seconds {
            self.bench.pass(1);
            self.pongs(rng);
        }
        self.bench.node.sweep(self.bench.now());
    }

    fn ordered(&mut self, rng: &mut Rng) {
        let Some(at) = self.someone(rng) else { return };
        if !self.bench.clients[at].session.as_ref().unwrap().is_connected() {
            return;
        }
        let channel = Arc::<str>::from(pick(rng, &self.names.channels).as_str());
        let now_s = self.bench.now().unix_ms / 1000;
        let expire_at = *pick(rng, &[None, None, Some(now_s + 5), Some(now_s - 5), Some(i64::MAX)]);
        let order = match rng.below(12) {
            0..=5 => Order::Subscribe {
                channel,
                grant: Grant {
                    data: once_in(rng, 2).then(|| Bytes::from_static(b"{}")),
                    info: None,
                    overrides: Override {
                        presence: once_in(rng, 3).then_some(true),
                        force_recovery: once_in(rng, 3).then_some(true),
                        ..Override::default()
                    },
                },
                expire_at,
                recover_since: once_in(rng, 2).then(|| (Box::default(), rng.below(5).into())),
            },
            6 | 7 => Order::Unsubscribe { channel },
            8 => Order::Unsubscribe { channel: "".into() },
            9 | 10 => {
                let info = Some(Bytes::from_static(b"1"));
                Order::Refresh { expired: once_in(rng, 10), expire_at, info }
            }
            _ if once_in(rng, 2) => Order::Disconnect(Disconnect::FORCE_DISCONNECT),
            _ => return,
        };
        self.bench.order(at, &order);
    }

    /// Every session is written down and read again, as by another process.
    fn moves(&mut self) {
        while self.bench.waiting_events() > 0 {
            self.bench.deliver(0);
            self.bench.fan_out();
        }
        self.bench.fan_out();
        let now = self.bench.now();
        let written = |session: &Session| {
            let mut out = Writer::new(Vec::new(), now);
            session.put_fields(&mut out);
            out.into_bytes()
        };
        let read =
            |bytes: &[u8]| Session::take_fields(Fields::new(bytes, 0, Session::WHAT, now)).unwrap();
        for at in 0..self.clients.len() {
            let client = &mut self.bench.clients[at];
            let Some(session) = client.session.take() else { continue };
            assert!(client.held.is_none(), "frames are kept back when the node has answered");
            // What waits is put in order by the first move; after that nothing changes.
            let bytes = written(&read(&written(&session)));
            drop(session);
            let mut session = read(&bytes);
            session.draw(&self.bench.allowance);
            assert_eq!(written(&session), bytes, "what was read is what was written");
            for (ticket, check) in session.unproven() {
                let (slot, number) = (client.conn.slot, client.conn.number);
                let to = ReplyTo { mailbox: 0, slot, number, ticket };
                self.bench.checks.push_back((Arc::downgrade(check), to));
            }
            client.session = Some(session);
        }
    }

    /// The server API publishes, or removes what was published.
    fn published(&mut self, rng: &mut Rng) {
        let channel = pick(rng, &self.names.channels);
        let Ok(resolved) = self.bench.settings.channel.resolve(channel) else { return };
        let retention = retention(resolved.options);
        let channel = channel.as_str().into();
        let request = if once_in(rng, 12) {
            Request::RemoveHistory { channel }
        } else {
            Request::Publish(Publish {
                delta: once_in(rng, 2),
                channel,
                // Often much like the one before.
                data: Bytes::from(match rng.below(2) {
                    0 => rng.below(100).to_string(),
                    _ => format!(r#"{{"n":{},"much":"{}"}}"#, rng.below(100), "ab".repeat(200)),
                }),
                info: None,
                tags: Box::default(),
                draw: None,
                skip_history: once_in(rng, 8),
                idempotency_key: once_in(rng, 6).then(|| "once".into()),
                version: if once_in(rng, 6) { rng.below(4).into() } else { 0 },
                version_epoch: Box::default(),
                retention,
            })
        };
        let to = ReplyTo { mailbox: 1, slot: 0, number: 1, ticket: 0 };
        self.bench.node.call(request, to, self.bench.now());
    }

    /// Who had no room to publish tries again.
    fn resumes(&mut self) {
        for at in std::mem::take(&mut self.bench.starving) {
            if self.bench.clients[at].waiting {
                self.bench.resume(at);
            }
        }
        self.bench.starved.clear();
    }

    /// A publication is lost on its way, or may have been.
    fn loses(&mut self, rng: &mut Rng) {
        if !self.is_lossy {
            return;
        }
        let index = {
            let mut mail = self.bench.shard_mail.0.lock();
            let lost = mail.iter().position(|event| matches!(event, Event::Channel { .. }));
            if let Some(Event::Channel { channel, .. }) = lost.and_then(|index| mail.get(index))
                && once_in(rng, 3)
            {
                let channel = Arc::clone(channel);
                mail.push_back(Event::Insufficient { channel });
            }
            lost
        };
        if let Some(index) = index {
            self.bench.drop_event(index);
        }
    }

    /// Everybody answers, until nothing is outstanding; then nobody waits.
    fn settles(&mut self, rng: &mut Rng) {
        for _ in 0..100_000 {
            if self.bench.waiting_events() > 0 {
                self.delivers(rng);
            } else if self.bench.registry.has_work() {
                self.bench.fan_out();
            } else if !self.bench.calls.is_empty() {
                self.backend_answers(rng);
            } else if !self.bench.checks.is_empty() {
                self.notary_answers(rng);
            } else if !self.bench.starving.is_empty() {
                self.resumes();
            } else {
                break;
            }
        }
        self.listen();
        for (at, client) in self.clients.iter().enumerate() {
            let here = &self.bench.clients[at];
            let Some(session) = &here.session else { continue };
            assert!(!client.waits(), "client {at} waits for an answer: {client:?} {session:?}");
            assert!(!here.waiting && here.unread.is_empty(), "client {at} is not read");
            assert!(session.is_at_rest(), "client {at} is not at rest: {session:?}");
        }
    }

    /// Who says nothing any more is closed in time.
    fn falls_silent(&mut self, rng: &mut Rng) {
        for _ in 0..200 {
            let next = self.bench.clients.iter().filter(|client| client.session.is_some());
            let next = next.map(|client| client.wake_s).min().unwrap_or(NEVER);
            let now = u32::try_from(self.bench.now_ms / 1000).unwrap();
            if next > now + 3600 {
                break;
            }
            self.bench.pass(next.saturating_sub(now).max(1));
            self.bench.node.sweep(self.bench.now());
            self.settles(rng);
        }
        for (at, client) in self.bench.clients.iter().enumerate() {
            let Some(session) = &client.session else { continue };
            assert!(
                session.kind() == Kind::Unidirectional && session.is_connected(),
                "client {at} says nothing and is still here: {session:?}"
            );
        }
    }

    /// Everybody hears what was said.
    fn listen(&mut self) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            let said = std::mem::take(&mut self.bench.clients[at].said);
            if said.is_empty() {
                continue;
            }
            self.digest.write_usize(at);
            self.digest.write(&said);
            for message in hear::messages(self.bench.clients[at].framing, said) {
                client.hears(&message);
            }
            self.names.epochs.append(&mut client.epochs);
            let old = self.names.epochs.len().saturating_sub(16);
            self.names.epochs.drain(..old);
        }
    }

    /// What holds at any time.
    fn look(&mut self) {
        let mut held = 0;
        let publications = self.bench.waiting_events();
        for (at, client) in self.bench.clients.iter().enumerate() {
            if let Some(why) = &client.closed {
                let code = u32::from(why.code);
                let known = explain(code).iter().any(|explanation| {
                    matches!(explanation.kind, CodeKind::Disconnect | CodeKind::WebSocketClose)
                });
                assert!(known, "client {at} is closed with {code}");
                assert!(why.reason.len() <= Disconnect::REASON_BYTES_MAX);
            }
            let Some(session) = &client.session else { continue };
            assert_eq!(
                session.is_connected(),
                self.clients[at].is_connected(),
                "client {at} knows that it is connected: {session:?}"
            );
            held += session.held_bytes();
            let backlog = session.backlog.as_ref().map_or(0, |backlog| backlog.frame.len());
            assert!(backlog <= BACKLOG_MAX);
            let waits = session.pending.as_ref().map_or(0, |pending| pending.list.len());
            assert!(waits <= 64, "{waits} questions of one client");
        }
        if publications == 0 && !self.bench.registry.has_work() {
            let used = self.bench.allowance.used();
            assert!(used >= held, "{used} of {held} bytes are accounted for");
        }
    }
}

fn channel_of(event: &Event) -> Option<&str> {
    match event {
        Event::Channel { channel, .. } | Event::Insufficient { channel } => Some(channel),
        Event::Answer { answer: Answer::Subscribed { channel, .. }, .. } => Some(channel),
        Event::Answer { .. } => None,
    }
}
