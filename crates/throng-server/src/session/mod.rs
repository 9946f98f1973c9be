//! A session: what one established client is, as a value.
//!
//! Invariant PURE: a session does no I/O and reads no clock. It is given a command, an answer, an
//! order or the time, and leaves replies in the connection's [`Out`] and what must be asked of the
//! node in [`Cx::requests`]. Invariant MOVABLE: all of its state is plain data.

mod access;
mod answer;
mod ask;
mod backend;
mod connect;
mod cookie;
mod filter;
mod map;
mod moving;
mod order;
mod poll;
mod proof;
mod publish;
mod refresh;
mod refusal;
mod say;
mod subscribe;
#[cfg(test)]
mod tests;
mod wake;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use throng_hub::publication::ChannelName;
use throng_hub::registry::Registry;
use throng_hub::request::{ReplyTo, Request};
use throng_wire::dialect::{self, Command, Encoding, Request as Asked};
use uuid::Uuid;

use crate::allowance::{Allowance, Drawn, Parked};
use crate::backend::{Call, Headers};
use crate::codes::Disconnect;
use crate::config::Settings;
use crate::control::Transport;
use crate::front::address::ClientAddress;
use crate::log::Log;
use crate::metrics::{Frame, METHODS, Meter, Pings};
use crate::notary::Check;
use crate::notes::Who;
use crate::polls::Polls;
use crate::polls::watch::Watch;
use crate::shard::{ConnRef, Message, Out, Taken};

pub(crate) use answer::error_code;
pub(crate) use cookie::NoCookie;
pub(crate) use map::wrong_key;
pub(crate) use order::{Order, Target};
pub(crate) use poll::Wanted;
#[cfg(test)]
pub(crate) use say::ENCODED;
pub(crate) use say::{encode_deflated, encode_item, envelope_of, is_deflated, transport_of};
pub(crate) use subscribe::retention;

/// One client.
#[derive(Debug)]
pub(crate) struct Session {
    client: Uuid,
    /// IPv4 as IPv6 has it.
    address: Ipv6Addr,
    user: Arc<str>,
    stage: Stage,
    kind: Kind,
    /// Pings are WebSocket's own, not the protocol's.
    native_ping: bool,
    awaits_pong: bool,
    /// When it came, in seconds of the shard.
    since_s: u32,
    /// Seconds of the shard; `NEVER` where there is none.
    ping_s: u32,
    pong_by_s: u32,
    /// Until connected: when the client is stale. Then: when its token's grace is over.
    expires_s: u32,
    /// The earliest end of a subscription's grace.
    subs_expire_s: u32,
    /// By which the server API may name it; whose client speaks elsewhere than it is spoken to, by
    /// which that is known to be its. A secret then.
    session: Option<Box<Uuid>>,
    /// What few clients have.
    extra: Option<Box<Extra>>,
    pending: Option<Box<Pending>>,
    backlog: Option<Box<Backlog>>,
}

// A crowd's memory is these records: 19,000 of them fit in 2 MB.
const _: () = assert!(size_of::<Session>() <= 104);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No connect command yet.
    Fresh,
    /// The connect command waits for its subscriptions.
    Connecting,
    Ready,
    /// The connect command was answered with an error.
    Failed,
}

/// Whether a client may say anything after its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bidirectional,
    Unidirectional,
}

/// What a session starts with; from the request that opened its connection.
#[derive(Debug)]
pub(crate) struct Open {
    pub kind: Kind,
    /// `cf_ws_frame_ping_pong=true` was asked for.
    pub native_ping: bool,
    /// The value of `client.user_id_http_header`, where that is set.
    pub user: Option<Box<str>>,
    /// The session's id, where it has one; from the system's generator.
    pub session: Option<Uuid>,
    /// What came with the request: a unidirectional client's connect request, or the first
    /// commands of one that is sent a response.
    pub connect: Option<Bytes>,
    /// Where the client is.
    pub address: ClientAddress,
    /// Headers of the request that some backend is to see.
    pub headers: Headers,
    /// It brought no cookie, and the connect backend is to see one.
    pub no_cookie: Option<Box<NoCookie>>,
    /// The head of its response, where that waits until it is let in.
    pub head: Option<Bytes>,
}

/// What few clients have.
#[derive(Debug, Default)]
struct Extra {
    user_header: Option<Box<str>>,
    connect: Option<Bytes>,
    conn_info: Option<Bytes>,
    /// The token's server-side subscriptions, sorted: a refresh must not change them.
    token_channels: Vec<ChannelName>,
    /// Headers of the handshake that some backend is to see.
    headers: Headers,
    /// The same, as the client says it would have sent them; untrusted.
    emulated: Headers,
    /// For backends only; JSON.
    meta: Option<Bytes>,
    /// Until it is connected: that it brought no cookie.
    no_cookie: Option<Box<NoCookie>>,
    /// What is to be known of its refusal beside the code.
    afterword: Option<Box<str>>,
    /// Until it is connected, where who is not let in is answered with a status: the head of its
    /// response.
    head: Option<Bytes>,
    /// The error that its connect ended with, where that is told by a status.
    error: u32,
    /// Subscriptions to channels of shared polls.
    polls: Option<Box<poll::Polling>>,
}

/// Questions to the node that are not answered yet.
#[derive(Debug, Default)]
struct Pending {
    last_ticket: u32,
    /// A client asks one thing at a time; the server's orders come beside.
    list: Vec<(u32, Awaited)>,
    /// A connect reply that waits for its subscriptions.
    connect: Option<connect::InProgress>,
    /// Maps that the client reads page by page, and is not subscribed to yet.
    catching: Vec<map::Catching>,
    /// The command that waits.
    command: Underway,
}

/// The command at hand, for those who count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Underway {
    pub method: Frame,
    /// When it was read, by the process's own clock; 0: by another process's.
    pub began_us: u64,
    /// The library that a connecting client says it is.
    pub library: u8,
}

/// What an answer is for.
#[derive(Debug)]
enum Awaited {
    Subscribe {
        id: u32,
        plan: Box<subscribe::Plan>,
    },
    /// A subscription in the connect reply.
    ConnectSubscribe {
        plan: Box<subscribe::Plan>,
    },
    /// A subscription ordered through the API, told by a push.
    OrderedSubscribe {
        plan: Box<subscribe::Plan>,
    },
    Publish {
        id: u32,
    },
    Presence {
        id: u32,
    },
    PresenceStats {
        id: u32,
    },
    History {
        id: u32,
    },
    /// A backend's answer.
    Backend(Box<backend::Asked>),
    /// Whether the signature of its token counts.
    Proof(Box<proof::Unproven>),
}

impl Awaited {
    /// Whether a command of the client's own waits for it.
    fn is_command(&self) -> bool {
        match self {
            Self::OrderedSubscribe { .. } => false,
            Self::Backend(asked) => asked.is_command(),
            _ => true,
        }
    }

    /// Bytes of the allowance that wait with it.
    fn held_bytes(&self) -> usize {
        match self {
            Self::Backend(asked) => asked.held_bytes(),
            Self::Proof(unproven) => unproven.check.token.len(),
            _ => 0,
        }
    }
}

/// The rest of a frame whose commands wait for an answer or for the next turn.
#[derive(Debug)]
struct Backlog {
    frame: Vec<u8>,
    at: usize,
    /// None only on its way from another process.
    _drawn: Option<Drawn>,
    /// While its first command waits for room to publish.
    _parked: Option<Parked>,
}

/// A subscription that was asked of the node for a client that has gone: undone when answered.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub number: u64,
    pub ticket: u32,
    pub undo: throng_hub::request::Unsubscribe,
}

/// What surrounds a session while it handles something.
pub(crate) struct Cx<'a, 'o> {
    pub out: &'a mut Out<'o>,
    pub settings: &'a Settings,
    pub registry: &'a mut Registry,
    /// Who of this shard tracks which keys of shared polls.
    pub watch: &'a mut Watch,
    pub polls: &'a Polls,
    pub allowance: &'a Arc<Allowance>,
    pub log: &'a Log,
    /// This node's id.
    pub node: &'a str,
    /// This shard's mailbox.
    pub mailbox: u16,
    /// Questions and news for the node, in order.
    pub requests: &'a mut Vec<(Request, ReplyTo)>,
    /// How many connections of a user the node has, where that is limited.
    pub user_connections: &'a (dyn Fn(&str) -> usize + 'a),
    /// What the handler does with the session after this.
    pub effects: &'a mut Effects,
    /// Where what happens is counted.
    pub meter: &'a Meter,
    /// When this began, in microseconds of the process's own clock.
    pub at_us: u64,
    /// When pings went out.
    pub pings: &'a Pings,
    pub command: Underway,
}

/// What a session wants done that is neither bytes nor the node's.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// The session has a user now and is to be found by it.
    pub identified: bool,
    /// Older connections of this user are to be closed with this.
    pub displace: Option<(Arc<str>, Uuid, Disconnect)>,
    /// It wants to publish so many bytes and there is no room: resume it when there is.
    pub starved: Option<usize>,
    /// Questions to backends.
    pub calls: Vec<(Call, ReplyTo)>,
    /// Tokens whose signatures are to be looked at.
    pub checks: Vec<(Arc<Check>, ReplyTo)>,
    /// By method: commands that were read and answered in one go.
    pub handled: [u8; METHODS],
    /// A command that waited is answered.
    pub answered: Option<Underway>,
    /// Maps show a subscription of it: they are to be told again in time.
    pub shown: bool,
    /// With [`Effects::identified`]: what the client says it is.
    pub library: u8,
}

impl Effects {
    /// Counts how long commands took that are answered now; those that were read just now were read
    /// at `began_us`.
    pub(crate) fn count_handled(&self, meter: &Meter, began_us: u64, now_us: impl Fn() -> u64) {
        let answered = self.answered.filter(|command| command.began_us > 0);
        if self.handled == [0; METHODS] && answered.is_none() {
            return;
        }
        let now_us = now_us();
        for (method, count) in Frame::ALL.into_iter().zip(self.handled) {
            for _ in 0..count {
                meter.handled(method, now_us.saturating_sub(began_us));
            }
        }
        if let Some(Underway { method, began_us, .. }) = answered {
            meter.handled(method, now_us.saturating_sub(began_us));
        }
    }
}

impl Cx<'_, '_> {
    /// A command was answered as soon as it was read.
    fn handled(&mut self, method: Frame) {
        if let Some(count) = self.effects.handled.get_mut(method as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// What became of one command.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// Not now: try the same command again when resumed.
    Retry,
}

impl Session {
    /// A session for a connection that has just been upgraded.
    pub(crate) fn open(open: Open, cx: &mut Cx<'_, '_>) -> Self {
        let stale = seconds(cx.settings.client.stale_close_delay);
        let more = open.user.is_some()
            || open.connect.is_some()
            || !open.headers.is_empty()
            || open.no_cookie.is_some()
            || open.head.is_some();
        let extra = more.then(|| {
            Box::new(Extra {
                user_header: open.user,
                connect: open.connect,
                headers: open.headers,
                no_cookie: open.no_cookie,
                head: open.head,
                ..Extra::default()
            })
        });
        let framing = cx.out.framing;
        let form = say::form_of(framing, open.kind.envelope());
        cx.out.set_form(say::form_over(form, cx.out.window()));
        let expires_s = cx.out.second.saturating_add(stale);
        cx.out.wake_at(expires_s);
        Self {
            client: cx.out.rng.uuid(),
            address: match open.address.ip {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            },
            user: Arc::default(),
            stage: Stage::Fresh,
            kind: open.kind,
            native_ping: open.native_ping,
            awaits_pong: false,
            since_s: cx.out.second,
            ping_s: crate::shard::NEVER,
            pong_by_s: crate::shard::NEVER,
            expires_s,
            subs_expire_s: crate::shard::NEVER,
            session: open.session.map(Box::new),
            extra,
            pending: None,
            backlog: None,
        }
    }

    /// The client's id.
    pub(crate) fn client(&self) -> Uuid {
        self.client
    }

    /// Where the client is: its own address, also behind trusted proxies.
    pub(crate) fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    /// The client's user; empty for an anonymous one, and before it has connected.
    pub(crate) fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether the connect command has been answered with success.
    pub(crate) fn is_connected(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// When its connection was upgraded, in seconds of the shard.
    pub(crate) fn since_s(&self) -> u32 {
        self.since_s
    }

    /// The secret by which its client speaks elsewhere than it is spoken to, if it does.
    pub(crate) fn speaks_as(&self) -> Option<Uuid> {
        self.session.as_deref().copied().filter(|_| self.kind == Kind::Bidirectional)
    }

    /// What is to be known of its refusal beside the code.
    pub(crate) fn afterword(&mut self) -> Option<Box<str>> {
        self.extra.as_mut()?.afterword.take()
    }

    /// Whether it only listens.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// A message of the client.
    pub(crate) fn message(&mut self, cx: &mut Cx<'_, '_>, message: Message<'_>) -> Taken {
        let frame = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(data) => data,
            Message::Ping => return Taken::All,
            Message::Pong(_) => {
                // RFC 6455 5.5.3 allows pongs that nobody asked for; they answer no ping of the
                // protocol.
                if self.native_ping {
                    self.count_pong(cx);
                    self.take_native_pong();
                }
                return Taken::All;
            }
        };
        // The shard's limit is the larger one of the two transports'; what comes in requests had
        // its limit there.
        let limit = match self.kind {
            _ if cx.out.framing.is_response() => usize::MAX,
            Kind::Bidirectional if cx.out.inflated => cx.settings.websocket.inflated_size_limit,
            Kind::Bidirectional => cx.settings.websocket.message_size_limit,
            Kind::Unidirectional if cx.out.inflated => {
                cx.settings.uni_websocket.inflated_size_limit
            }
            Kind::Unidirectional => cx.settings.uni_websocket.message_size_limit,
        };
        if frame.len() > limit {
            let too_big = match cx.out.inflated {
                true => throng_wire::websocket::Violation::InflatesTooBig,
                false => throng_wire::websocket::Violation::TooBig,
            };
            cx.out.close(Disconnect::custom(too_big.close_code(), too_big.reason()));
            return Taken::All;
        }
        self.said(cx, frame)
    }

    /// What the client says, wherever it came from.
    fn said(&mut self, cx: &mut Cx<'_, '_>, frame: &[u8]) -> Taken {
        if self.kind == Kind::Unidirectional {
            return self.uni_message(cx, frame);
        }
        // By far the most frequent message of a quiet crowd.
        if frame == b"{}" && cx.out.framing.encoding() == Encoding::Json {
            cx.meter.received(self.transport(cx), Frame::ClientPong, frame.len());
            self.take_pong(cx);
            return Taken::All;
        }
        let (at, taken) = self.commands(cx, frame);
        if at < frame.len() && !cx.out.is_closing() {
            self.backlog = Some(Box::new(Backlog {
                frame: frame[at..].to_vec(),
                at: 0,
                _drawn: Some(cx.allowance.hold(frame.len() - at)),
                _parked: cx.effects.starved.map(|_| cx.allowance.park(frame.len() - at)),
            }));
        }
        taken
    }

    /// Goes on after an answer, or in a new turn.
    pub(crate) fn proceed(&mut self, cx: &mut Cx<'_, '_>) -> Taken {
        if let Some(connect) = self.extra.as_mut().and_then(|extra| extra.connect.take()) {
            return self.said(cx, &connect);
        }
        // Who waited for room was resumed, but an answer has let it go on before.
        if self.is_waiting() {
            return Taken::Waiting;
        }
        let Some(mut backlog) = self.backlog.take() else { return Taken::All };
        let (taken_bytes, taken) = self.commands(cx, &backlog.frame[backlog.at..]);
        backlog.at += taken_bytes;
        if backlog.at < backlog.frame.len() && !cx.out.is_closing() {
            backlog._parked = cx.effects.starved.map(|_| cx.allowance.park(backlog.frame.len()));
            self.backlog = Some(backlog);
        }
        taken
    }

    /// Handles the commands of a frame until one must wait or the turn's share is spent. Returns
    /// the bytes that are done with.
    fn commands(&mut self, cx: &mut Cx<'_, '_>, frame: &[u8]) -> (usize, Taken) {
        let mut commands = dialect::commands(cx.out.framing.encoding(), frame);
        let mut done = 0;
        loop {
            let Some(command) = commands.next() else { return (frame.len(), Taken::All) };
            let step = match command {
                Ok(command) => self.command(cx, command),
                Err(malformed) => {
                    cx.command = Underway::default();
                    self.refuse(
                        cx,
                        Disconnect::BAD_REQUEST,
                        &format!("a command is not readable: {}", Unquoted(&malformed)),
                    );
                    Step::Done
                }
            };
            let method = cx.command.method;
            if step == Step::Done {
                let before = std::mem::replace(&mut done, commands.consumed());
                cx.meter.received(self.transport(cx), method, done - before);
            }
            if cx.out.is_closing() {
                return (frame.len(), Taken::All);
            }
            if step == Step::Retry || self.is_waiting() {
                return (done, Taken::Waiting);
            }
            cx.handled(method);
            cx.out.share = cx.out.share.saturating_sub(1);
            if cx.out.share == 0 {
                return (done, Taken::More);
            }
        }
    }

    fn command(&mut self, cx: &mut Cx<'_, '_>, command: Command<'_>) -> Step {
        let id = command.id;
        let method = Frame::of_request(&command.request);
        cx.command = Underway { method, began_us: cx.at_us, library: 0 };
        if self.stage != Stage::Ready {
            match command.request {
                Asked::Connect(request) if self.stage == Stage::Fresh && id > 0 => {
                    self.connect(cx, id, &request);
                }
                _ => self.refuse(
                    cx,
                    Disconnect::BAD_REQUEST,
                    "the first command must be connect, and come once",
                ),
            }
            return Step::Done;
        }
        // Only a message without an answer, and the answer to a ping, do without an id.
        if id == 0 && !matches!(command.request, Asked::Send { .. } | Asked::Pong) {
            self.refuse(cx, Disconnect::BAD_REQUEST, "a command that has a reply needs an id");
            return Step::Done;
        }
        match command.request {
            Asked::Connect(_) => {
                self.refuse(cx, Disconnect::BAD_REQUEST, "connect came a second time");
            }
            Asked::Subscribe(request) => self.subscribe(cx, id, &request),
            Asked::Unsubscribe { channel } => self.unsubscribe(cx, id, &channel),
            Asked::Publish { channel, data } => return self.publish(cx, id, &channel, &data),
            Asked::PublishKey(request) => return self.publish_key(cx, id, &request),
            Asked::Presence { channel } => self.presence(cx, id, &channel, ask::Presence::Full),
            Asked::PresenceStats { channel } => {
                self.presence(cx, id, &channel, ask::Presence::Stats);
            }
            Asked::History(request) => self.history(cx, id, &request),
            Asked::Rpc { method, data } => self.rpc(cx, id, &method, &data),
            Asked::Send { .. } => {
                self.refuse(cx, Disconnect::NOT_AVAILABLE, "send has no receiver here");
            }
            Asked::Refresh { token } => self.refresh(cx, id, &token),
            Asked::SubRefresh(request) => self.sub_refresh(cx, id, &request),
            Asked::Pong => self.take_pong(cx),
            Asked::Unknown => self.refuse(
                cx,
                Disconnect::BAD_REQUEST,
                "a command that this version does not know",
            ),
        }
        Step::Done
    }

    /// Whether a command of the client's own waits for its answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            pending.connect.is_some()
                || pending.list.iter().any(|(_, awaited)| awaited.is_command())
        })
    }

    /// Bytes of the allowance that it holds: commands that wait, and what their answers wait with.
    pub(crate) fn held_bytes(&self) -> usize {
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.frame.len());
        let pending = self.pending.as_ref().map_or(0, |pending| {
            pending.list.iter().map(|(_, awaited)| awaited.held_bytes()).sum()
        });
        backlog + pending
    }

    /// Whether it waits for room to publish.
    fn is_starving(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog._parked.is_some())
    }

    fn standing(&self) -> Taken {
        if self.is_waiting() { Taken::Waiting } else { Taken::All }
    }

    /// Asks the node something and remembers what the answer is for.
    fn ask_node(&mut self, cx: &mut Cx<'_, '_>, request: Request, awaited: Awaited) {
        let pending = self.pending.get_or_insert_default();
        pending.last_ticket = pending.last_ticket.wrapping_add(1);
        let ticket = pending.last_ticket;
        if awaited.is_command() {
            pending.command = cx.command;
        }
        pending.list.push((ticket, awaited));
        let to = reply_to(cx, ticket);
        cx.requests.push((request, to));
    }

    /// What it speaks.
    fn transport(&self, cx: &Cx<'_, '_>) -> Transport {
        self.kind.over(cx.out.framing)
    }

    /// Says in one line of the log what became of this client, counted by code.
    pub(crate) fn note(&self, log: &Log, code: u32, message: &str) {
        let who = Who { user: self.user(), client: self.client(), address: self.address() };
        log.client(code, message, who);
    }

    /// Ends the session, and says why in one line of the log.
    fn refuse(&self, cx: &mut Cx<'_, '_>, why: Disconnect, because: &str) {
        self.note(cx.log, why.code.into(), &format!("{} {because}", why.code));
        cx.out.close(why);
    }

    /// Refuses one command with a line of the log that names the option behind it.
    fn deny(&self, cx: &mut Cx<'_, '_>, id: u32, error: crate::codes::ErrorCode, because: &str) {
        self.note(cx.log, error.code, &format!("{} {because}", error.code));
        self.error(cx, id, error);
    }

    /// What remains to be done for a session that has ended: the node is told of every
    /// subscription, and those still asked for are kept until they can be undone.
    pub(crate) fn end(
        mut self,
        (settings, cx_registry): (&Settings, &mut Registry),
        conn: ConnRef,
        end: &mut dyn FnMut(Ending),
    ) {
        let client = self.client;
        for poll in self.take_polls() {
            end(Ending::Poll(poll));
        }
        cx_registry.leave_all(conn.slot, &mut |channel, subscription| {
            end(Ending::Leave(subscribe::leaving(client, channel, &subscription)));
            let gone = map::hide(settings, client, channel, subscription.flags);
            gone.for_each(|call| end(Ending::Hide(call)));
        });
        let Some(pending) = self.pending.take() else { return };
        for (ticket, awaited) in pending.list {
            let (Awaited::Subscribe { plan, .. }
            | Awaited::ConnectSubscribe { plan }
            | Awaited::OrderedSubscribe { plan }) = awaited
            else {
                continue;
            };
            end(Ending::Orphan(Orphan { number: conn.number, ticket, undo: plan.undo(client) }));
        }
    }
}

/// Something that a session leaves behind.
#[derive(Debug)]
pub(crate) enum Ending {
    Leave(throng_hub::request::Unsubscribe),
    /// What maps show of it.
    Hide(throng_hub::map::Call),
    Orphan(Orphan),
    Poll(poll::Polled),
}

fn reply_to(cx: &Cx<'_, '_>, ticket: u32) -> ReplyTo {
    ReplyTo { mailbox: cx.mailbox, slot: cx.out.conn.slot, number: cx.out.conn.number, ticket }
}

/// What is wrong with a client's input, for the log: a text that stands where something else
/// belongs may be a token, so what is quoted is left out.
struct Unquoted<'a>(&'a dialect::Malformed);

impl std::fmt::Display for Unquoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = &self.0.reason;
        write!(f, "byte {}: ", self.0.at)?;
        match (reason.find('"'), reason.rfind('"')) {
            (Some(from), Some(to)) => write!(f, "{}…{}", &reason[..from], &reason[to + 1..]),
            _ => f.write_str(reason),
        }
    }
}

/// A duration in whole seconds, rounded up; what is set is never cut to nothing.
fn seconds(duration: std::time::Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(crate::shard::NEVER / 2)
}
