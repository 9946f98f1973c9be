//! A bench for sessions: a node, a registry and a clock that is turned by hand, without a socket.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use parking_lot::Mutex;
use throng_hub::event::{Event, Mailbox};
use throng_hub::memory::Memory;
use throng_hub::node::{Node, NodeSetup};
use throng_hub::registry::{Audience, Batch, Member, Queued, Registry, Sink};
use throng_hub::request::{Answer, Now, Publish, ReplyTo, Request};
use throng_wire::framing::Framing;
use throng_wire::websocket::{Decoder, Event as Frame, Limits, Opcode, Role};

use super::super::{Cx, Effects, Ending, Kind, Open, Order, Session, encode_item, retention};
use crate::allowance::Allowance;
use crate::backend::{self, Call};
use crate::codes::Disconnect;
use crate::config::{Settings, Sources, load};
use crate::front::address::{ClientAddress, ToldBy};
use crate::log::{Format, Level, Log};
use crate::metrics::{Meter, Pings};
use crate::notary::{Check, Proof};
use crate::polls::Polls;
use crate::polls::watch::Watch;
use crate::rng::Rng;
use crate::shard::{ConnRef, Message, NEVER, Out, Taken};

/// When the clock of every bench starts: 2026-01-01.
pub(in crate::session) const START_UNIX_S: i64 = 1_767_225_600;
/// Commands of one turn; few, so that turns are met.
const SHARE: u32 = 8;
/// Where every client is.
pub(in crate::session) const NEAR: ClientAddress =
    ClientAddress { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), told_by: ToldBy::Socket };
/// The mailbox of the server API.
const FRONT: u16 = 1;

#[derive(Debug, Default)]
pub(super) struct Mail(pub(super) Mutex<VecDeque<Event>>);

impl Mailbox for Mail {
    fn put(&self, event: Event) {
        self.0.lock().push_back(event);
    }
}

/// One client, as its shard would keep it.
pub(in crate::session) struct Client {
    pub(in crate::session) session: Option<Session>,
    pub(in crate::session) conn: ConnRef,
    pub(in crate::session) framing: Framing,
    name: String,
    /// Frames that were said and not yet looked at.
    pub(super) said: Vec<u8>,
    /// Frames kept back until a release.
    pub(super) held: Option<Vec<u8>>,
    form: u8,
    pub(in crate::session) closed: Option<Disconnect>,
    pub(in crate::session) wake_s: u32,
    pub(in crate::session) waiting: bool,
    /// Messages that came while it was not read.
    pub(super) unread: VecDeque<Vec<u8>>,
}

pub(in crate::session) struct Bench {
    pub(in crate::session) settings: Settings,
    pub(in crate::session) node: Node,
    pub(super) shard_mail: Arc<Mail>,
    pub(in crate::session) registry: Registry,
    pub(in crate::session) watch: Watch,
    pub(in crate::session) polls: Polls,
    pub(in crate::session) allowance: Arc<Allowance>,
    log: Log,
    lines: Arc<Mutex<Vec<u8>>>,
    rng: Rng,
    pub(in crate::session) now_ms: u64,
    /// The last one that a client heard, as it is.
    pub(in crate::session) last_epoch: Mutex<String>,
    pub(in crate::session) clients: Vec<Client>,
    /// Connections of each user, as other shards would count them.
    pub(in crate::session) users: HashMap<String, usize>,
    /// Events wait until they are delivered by hand.
    pub(in crate::session) by_hand: bool,
    pub(in crate::session) orphans: HashMap<(u64, u32), throng_hub::request::Unsubscribe>,
    pub(in crate::session) identified: usize,
    pub(in crate::session) displaced: usize,
    pub(in crate::session) starved: Vec<usize>,
    /// What was last said is to be tried again by these.
    pub(in crate::session) starving: Vec<usize>,
    pub(in crate::session) meter: Meter,
    pub(in crate::session) pings: Pings,
    /// Questions to backends that nobody has answered yet.
    pub(in crate::session) calls: VecDeque<(Call, ReplyTo)>,
    /// Tokens whose signatures nobody has looked at yet.
    pub(in crate::session) checks: VecDeque<(Weak<Check>, ReplyTo)>,
}

/// Who asks as the server API does, and does not listen.
#[derive(Debug)]
struct Front;

impl Mailbox for Front {
    fn put(&self, _event: Event) {}
}

#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The settings of a configuration written in TOML.
pub(in crate::session) fn settings(toml: &str) -> Settings {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file =
        std::env::temp_dir().join(format!("throng-bench-{}-{number}.toml", std::process::id()));
    std::fs::write(&file, toml).unwrap();
    let loaded = load(Sources { file: Some(file.clone()), ..Sources::default() });
    std::fs::remove_file(&file).unwrap();
    loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.problems))
}

/// A token with these claims, signed with the benches' key.
pub(in crate::session) fn token(claims: &serde_json::Value) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(br#"{"alg":"HS256"}"#), part(claims.to_string().as_bytes()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"bench");
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", part(signature.as_ref()))
}

impl Bench {
    /// A bench with the key for tokens and what `toml` says.
    pub(in crate::session) fn new(toml: &str) -> Self {
        let settings = settings(&format!("client.token.hmac_secret_key = \"bench\"\n{toml}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Log::to(Level::Info, Format::Text, Box::new(Lines(Arc::clone(&lines)))).unwrap();
        Self::assemble(settings, Registry::new(), (log, lines))
    }

    /// A bench that logs nothing, whose registry hashes with this seed.
    pub(super) fn silent(settings: Settings, seed: u64) -> Self {
        Self::assemble(settings, Registry::with_seed(seed), (Log::silent(), Arc::default()))
    }

    fn assemble(
        settings: Settings,
        registry: Registry,
        (log, lines): (Log, Arc<Mutex<Vec<u8>>>),
    ) -> Self {
        let shard_mail = Arc::new(Mail::default());
        let mailboxes: Vec<Arc<dyn Mailbox>> =
            vec![Arc::clone(&shard_mail) as Arc<dyn Mailbox>, Arc::new(Front)];
        let broker = Arc::new(Memory::new(4, 7));
        let node = Node::new(NodeSetup { mailboxes, broker, partitions: 4, seed: 7 });
        let allowance = Allowance::new(1 << 20);
        Self {
            settings,
            node,
            shard_mail,
            registry,
            watch: Watch::new(),
            polls: Polls::new(Arc::clone(&allowance)),
            allowance,
            log,
            lines,
            rng: Rng::new(1),
            now_ms: 1_000_000,
            last_epoch: Mutex::default(),
            clients: Vec::new(),
            users: HashMap::new(),
            meter: Meter::default(),
            pings: Pings::default(),
            by_hand: false,
            orphans: HashMap::new(),
            identified: 0,
            displaced: 0,
            starved: Vec::new(),
            starving: Vec::new(),
            calls: VecDeque::new(),
            checks: VecDeque::new(),
        }
    }

    pub(in crate::session) fn now(&self) -> Now {
        let unix_ms = START_UNIX_S * 1000 + i64::try_from(self.now_ms).unwrap() - 1_000_000;
        Now { mono_ms: self.now_ms, unix_ms }
    }

    /// A new client over a bidirectional transport.
    pub(in crate::session) fn open(&mut self) -> usize {
        self.open_with(Open {
            kind: Kind::Bidirectional,
            native_ping: false,
            user: None,
            session: None,
            connect: None,
            address: NEAR,
            headers: Box::default(),
            no_cookie: None,
            head: None,
        })
    }

    pub(in crate::session) fn open_with(&mut self, open: Open) -> usize {
        self.open_over(Framing::WebSocket, open)
    }

    pub(in crate::session) fn open_over(&mut self, framing: Framing, open: Open) -> usize {
        let at = self.clients.len();
        let conn = ConnRef { slot: u32::try_from(at).unwrap(), number: at as u64 + 100 };
        self.clients.push(Client {
            session: None,
            conn,
            framing,
            name: String::new(),
            said: Vec::new(),
            held: None,
            form: 0,
            closed: None,
            wake_s: NEVER,
            waiting: false,
            unread: VecDeque::new(),
        });
        let session = self.speak(at, |cx| Session::open(open, cx));
        self.clients[at].name = session.client().to_string();
        self.clients[at].session = Some(session);
        self.go_on(at);
        self.pump();
        at
    }

    /// A new client that has connected with this token, or without one.
    pub(in crate::session) fn connected(&mut self, token: &str) -> usize {
        let at = self.open();
        let reply = self.ask(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        assert!(reply[0].contains("\"connect\""), "{reply:?}");
        at
    }

    /// Lets a client say something; what it hears then.
    pub(in crate::session) fn ask(&mut self, at: usize, text: &str) -> Vec<String> {
        self.say(at, text);
        self.pump();
        self.heard(at)
    }

    /// Lets a client say something. It is not read while it waits.
    pub(in crate::session) fn say(&mut self, at: usize, text: &str) {
        self.say_bytes(at, text.as_bytes());
    }

    pub(in crate::session) fn say_bytes(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].unread.push_back(bytes.to_vec());
        self.read(at);
    }

    /// Lets a client say something that is no text.
    pub(in crate::session) fn message(&mut self, at: usize, message: Message<'_>) {
        self.with(at, |session, cx| session.message(cx, message));
    }

    fn read(&mut self, at: usize) {
        while !self.clients[at].waiting && self.clients[at].session.is_some() {
            let Some(said) = self.clients[at].unread.pop_front() else { return };
            let is_text = self.clients[at].framing == Framing::WebSocket;
            let message = match std::str::from_utf8(&said) {
                Ok(text) if is_text => Message::Text(text),
                _ => Message::Binary(&said),
            };
            let taken = self.with(at, |session, cx| session.message(cx, message));
            self.took(at, taken);
        }
    }

    fn go_on(&mut self, at: usize) {
        let taken = self.with(at, Session::proceed);
        self.took(at, taken);
        self.read(at);
    }

    fn took(&mut self, at: usize, taken: Option<Taken>) {
        match taken {
            Some(Taken::Waiting) => self.clients[at].waiting = true,
            Some(Taken::More) => self.go_on(at),
            Some(Taken::All) | None => {}
        }
    }

    /// Runs `f` on a session that is still there.
    pub(in crate::session) fn with<T>(
        &mut self,
        at: usize,
        f: impl FnOnce(&mut Session, &mut Cx<'_, '_>) -> T,
    ) -> Option<T> {
        let mut session = self.clients[at].session.take()?;
        let result = self.speak(at, |cx| f(&mut session, cx));
        self.clients[at].session = Some(session);
        if self.clients[at].closed.is_some() {
            self.end(at);
        }
        Some(result)
    }

    fn speak<T>(&mut self, at: usize, f: impl FnOnce(&mut Cx<'_, '_>) -> T) -> T {
        let now = self.now();
        let mut frames = Vec::new();
        let mut requests = Vec::new();
        let mut effects = Effects::default();
        let (conn, framing) = (self.clients[at].conn, self.clients[at].framing);
        let users = &self.users;
        let user_connections = |user: &str| users.get(user).copied().unwrap_or(0);
        let (registry, effects_mut) = (&mut self.registry, &mut effects);
        let (watch, polls) = (&mut self.watch, &self.polls);
        let (settings, allowance, log) = (&self.settings, &self.allowance, &self.log);
        let room = settings.client.queue_max_size;
        let (result, said) =
            Out::apart((conn, now), (&mut self.rng, &mut frames), (SHARE, room), |out| {
                out.framing = framing;
                f(&mut Cx {
                    out,
                    settings,
                    registry,
                    watch,
                    polls,
                    allowance,
                    log,
                    node: "node",
                    mailbox: 0,
                    requests: &mut requests,
                    user_connections: &user_connections,
                    effects: effects_mut,
                    meter: &self.meter,
                    at_us: now.mono_ms * 1000,
                    pings: &self.pings,
                    command: super::super::Underway::default(),
                })
            });
        let now_us = now.mono_ms * 1000;
        effects.count_handled(&self.meter, now_us, || now_us);
        let client = &mut self.clients[at];
        client.form = said.form.unwrap_or(client.form);
        client.wake_s = said.wake.unwrap_or(client.wake_s);
        if said.hold {
            client.held = Some(Vec::new());
        }
        if let Some(first) = said.release {
            client.said.extend_from_slice(&first);
            client.said.extend(client.held.take().unwrap());
        }
        client.hear(&frames);
        client.closed = client.closed.take().or(said.close);
        self.identified += usize::from(effects.identified);
        self.displaced += usize::from(effects.displace.is_some());
        self.starving.extend(effects.starved.map(|_| at));
        self.starved.extend(effects.starved);
        self.calls.extend(effects.calls);
        let checks = effects.checks.into_iter();
        self.checks.extend(checks.map(|(check, to)| (Arc::downgrade(&check), to)));
        for (request, to) in requests {
            self.node.call(request, to, now);
        }
        result
    }

    /// Ends a client's session, as if its socket had closed.
    pub(in crate::session) fn end(&mut self, at: usize) {
        let Some(session) = self.clients[at].session.take() else { return };
        let conn = self.clients[at].conn;
        let (now, node, orphans) = (self.now(), &self.node, &mut self.orphans);
        let to = ReplyTo { mailbox: 0, slot: conn.slot, number: conn.number, ticket: 0 };
        let (watch, polls, settings) = (&mut self.watch, &self.polls, &self.settings);
        let around = (&self.settings, &mut self.registry);
        session.end(around, conn, &mut |ending| match ending {
            Ending::Hide(call) => node.call(Request::Map(Box::new(call)), to, now),
            Ending::Poll(poll) => poll.end(watch, polls, (settings, 0, now.mono_ms)),
            Ending::Leave(leave) => node.call(Request::Unsubscribe(leave), to, now),
            Ending::Orphan(orphan) => {
                orphans.insert((orphan.number, orphan.ticket), orphan.undo);
            }
        });
    }

    /// Delivers what has come, unless that is done by hand.
    pub(in crate::session) fn pump(&mut self) {
        while !self.by_hand && self.waiting_events() > 0 {
            while self.waiting_events() > 0 {
                self.deliver(0);
            }
            self.fan_out();
        }
    }

    pub(in crate::session) fn waiting_events(&self) -> usize {
        self.shard_mail.0.lock().len()
    }

    /// Loses one waiting event.
    pub(in crate::session) fn drop_event(&mut self, index: usize) {
        self.shard_mail.0.lock().remove(index).unwrap();
    }

    /// Takes the oldest waiting event, an answer, out of the mailbox.
    pub(in crate::session) fn take_answer(&mut self) -> (ReplyTo, Answer) {
        match self.shard_mail.0.lock().pop_front().unwrap() {
            Event::Answer { to, answer } => (to, answer),
            other => panic!("{other:?}"),
        }
    }

    /// Delivers one waiting event.
    pub(in crate::session) fn deliver(&mut self, index: usize) {
        let event = self.shard_mail.0.lock().remove(index).unwrap();
        match event {
            Event::Channel { channel, item } => {
                if self.registry.queue(&channel, item) == Queued::Gap {
                    self.insufficient(&channel);
                }
            }
            Event::Insufficient { channel } => {
                self.registry.lose(&channel);
                self.insufficient(&channel);
            }
            Event::Answer { to, answer } => self.answer(to, answer),
        }
    }

    pub(in crate::session) fn answer(&mut self, to: ReplyTo, answer: Answer) {
        if let Some(undo) = self.orphans.remove(&(to.number, to.ticket)) {
            if answer.seats() == Some(true) {
                self.node.call(Request::Unsubscribe(undo), to, self.now());
            }
            return;
        }
        let at = to.slot as usize;
        let resumes = self.with(at, |session, cx| session.answer(cx, to.ticket, answer));
        if resumes == Some(true) && self.clients[at].waiting {
            self.resume(at);
        }
    }

    /// Answers the oldest question to a backend with this body; what was asked.
    pub(in crate::session) fn backend_says(&mut self, body: &str) -> Call {
        let (call, to) = self.calls.pop_front().unwrap();
        let answer = backend::understand(body.as_bytes()).unwrap_or(backend::Answer::Failed);
        let at = to.slot as usize;
        let resumes = self.with(at, |session, cx| session.backend_answer(cx, to.ticket, answer));
        if resumes == Some(true) && self.clients[at].waiting {
            self.resume(at);
        }
        self.pump();
        call
    }

    /// Says of the oldest token whose signature is to be looked at what was found. Returns what
    /// was looked at; none: its client has gone.
    pub(in crate::session) fn notary_says(&mut self, proof: Proof) -> Option<Arc<Check>> {
        let (check, to) = self.checks.pop_front().unwrap();
        let check = check.upgrade();
        let at = to.slot as usize;
        let resumes = self.with(at, |session, cx| session.proof(cx, to.ticket, proof));
        if resumes == Some(true) && self.clients[at].waiting {
            self.resume(at);
        }
        self.pump();
        check
    }

    pub(in crate::session) fn resume(&mut self, at: usize) {
        self.clients[at].waiting = false;
        self.go_on(at);
    }

    fn insufficient(&mut self, channel: &str) {
        let members: Vec<Member> = self.registry.positioned_members(channel).collect();
        for member in members {
            self.with(member as usize, |session, cx| session.insufficient(cx, channel));
        }
    }

    pub(in crate::session) fn fan_out(&mut self) {
        struct Delivery<'a>(&'a mut [Client]);
        impl Sink for Delivery<'_> {
            fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
                let client = &mut self.0[member as usize];
                let form = usize::from(client.form);
                let frames = batch.bytes(form, audience, &mut encode_item);
                client.hear(frames);
            }
        }
        while self.registry.has_work() {
            self.registry.fan_out(&mut Delivery(&mut self.clients), 1000);
        }
    }

    /// Publishes as the server API does.
    pub(in crate::session) fn publish(&mut self, channel: &str, data: &'static str) {
        self.publish_tagged(channel, data, &[]);
    }

    /// The same with tags, sorted by key.
    pub(super) fn publish_tagged(
        &mut self,
        channel: &str,
        data: &'static str,
        tags: &[(&str, &str)],
    ) {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let resolved = self.settings.channel.resolve(channel).unwrap();
        let request = Request::Publish(Publish {
            channel: channel.into(),
            data: Bytes::from_static(data.as_bytes()),
            info: None,
            tags: tags.iter().map(owned).collect(),
            draw: None,
            skip_history: false,
            delta: resolved.options.delta_publish,
            idempotency_key: None,
            version: 0,
            version_epoch: Box::default(),
            retention: retention(resolved.options),
        });
        let to = ReplyTo { mailbox: FRONT, slot: 0, number: 1, ticket: 0 };
        self.node.call(request, to, self.now());
        self.pump();
    }

    /// Gives one session an order of the server API.
    pub(in crate::session) fn order(&mut self, at: usize, order: &Order) {
        self.with(at, |session, cx| session.order(cx, order));
        self.pump();
    }

    /// Turns the clock on, second by second, and wakes whoever asked for it.
    pub(in crate::session) fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now_ms += 1000;
            let second = u32::try_from(self.now_ms / 1000).unwrap();
            self.pings.begin(second, self.now_ms * 1000);
            for at in 0..self.clients.len() {
                if self.clients[at].wake_s <= second
                    && let Some(wake) = self.with(at, Session::wake)
                {
                    self.clients[at].wake_s = wake;
                }
            }
            self.pump();
        }
    }

    /// What a client has heard since it was last asked, with names for what differs.
    pub(in crate::session) fn heard(&mut self, at: usize) -> Vec<String> {
        let mut bytes = std::mem::take(&mut self.clients[at].said);
        let mut decoder = Decoder::new();
        let mut heard = Vec::new();
        let mut input = bytes.as_mut_slice();
        while !input.is_empty() {
            let step = decoder.next(input, Role::Client, Limits { message_max: 1 << 24 }).unwrap();
            match step.event {
                Some(Frame::Text(text)) => heard.push(text.to_owned()),
                Some(Frame::Ping(_)) => heard.push(format!("{:?}", Opcode::Ping)),
                other => panic!("{other:?}"),
            }
            let consumed = step.consumed;
            input = &mut input[consumed..];
        }
        heard.iter().map(|text| self.named(text)).collect()
    }

    fn named(&self, text: &str) -> String {
        let mut text = text.replace(crate::version::said(), "V");
        for (index, client) in self.clients.iter().enumerate() {
            text = text.replace(&client.name, &format!("C{index}"));
        }
        let epoch = regex_lite::Regex::new("\"epoch\":\"[A-Za-z]{8}\"").unwrap();
        if let Some(found) = epoch.find(&text) {
            let bare = found.as_str().trim_start_matches("\"epoch\":").trim_matches('"');
            self.last_epoch.lock().replace_range(.., bare);
        }
        epoch.replace_all(&text, "\"epoch\":\"E\"").into_owned()
    }

    /// Why a client was closed.
    pub(in crate::session) fn close_code(&self, at: usize) -> Option<u16> {
        self.clients[at].closed.as_ref().map(|why| why.code)
    }

    /// The epoch of a channel, as a client would have learnt it.
    pub(in crate::session) fn epoch(&mut self, at: usize, channel: &str) -> String {
        self.ask(at, &format!(r#"{{"id":99,"history":{{"channel":"{channel}"}}}}"#));
        self.registry.position(channel).map_or_else(String::new, |at| at.epoch.as_str().to_owned())
    }

    /// Everything that was logged; the log ends with it.
    pub(in crate::session) fn logged(&self) -> String {
        assert!(self.log.finish(Duration::from_secs(10)));
        String::from_utf8(self.lines.lock().clone()).unwrap()
    }
}

impl Client {
    fn hear(&mut self, frames: &[u8]) {
        match &mut self.held {
            Some(held) => held.extend_from_slice(frames),
            None => self.said.extend_from_slice(frames),
        }
    }
}
