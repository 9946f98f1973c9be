//! Connecting: who the client is, and which subscriptions it is given with the reply.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_hub::publication::ChannelName;
use throng_wire::dialect::{
    self, ConnectRequest, ConnectResult, Push, Reply, SubscribeRequest, SubscribeResult,
};

use super::proof::{Claimed, temporary};
use super::say::Outcome;
use super::subscribe::{Plan, Right, Shown, Wish};
use super::{Awaited, Cx, Extra, Kind, Session, Stage, Underway, backend, wake};
use crate::codes::{Disconnect, ErrorCode};
use crate::config::{BackendId, Settings};
use crate::metrics::{self, Frame};
use crate::shard::{NEVER, Taken};
use crate::token::{ConnectionClaims, Grant, TokenError};

/// A connect reply that waits for its subscriptions.
#[derive(Debug)]
pub(super) struct InProgress {
    id: u32,
    /// Subscriptions still to be answered.
    left: usize,
    /// Those answered, in the order of their answers.
    pub(super) outcomes: Vec<Outcome>,
    ttl: Option<u32>,
    /// The backend's word for the client.
    data: Option<Bytes>,
}

/// Who a client is, by its token, by a backend, or by nobody's word.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) claims: ConnectionClaims,
    /// For the client, with the connect reply.
    pub(super) data: Option<Bytes>,
    /// When server-side subscriptions end, in Unix seconds.
    pub(super) expiries: Vec<(ChannelName, i64)>,
}

/// What is known of a client at its connect command.
enum Known {
    Claims(ConnectionClaims),
    /// Nothing: this backend is to say.
    Ask(BackendId),
}

/// A subscription that comes with the connection.
struct Given {
    channel: ChannelName,
    grant: Grant,
    wish: Wish,
}

impl Session {
    pub(super) fn connect(&mut self, cx: &mut Cx<'_, '_>, id: u32, request: &ConnectRequest<'_>) {
        cx.command.library = metrics::library(&request.name);
        let wanted: Vec<(ChannelName, Wish)> = request
            .subs
            .iter()
            .map(|(channel, sub)| (ChannelName::from(&**channel), wish_of(sub)))
            .collect();
        if !cx.settings.backends.emulated_headers.is_empty() && !request.headers.is_empty() {
            let emulated = backend::emulated(&cx.settings.backends.emulated_headers, request);
            self.extra.get_or_insert_default().emulated = emulated;
        }
        if !request.token.is_empty() {
            return match self.connection_claims(cx, &request.token) {
                Ok(None) => {
                    self.stage = Stage::Connecting;
                    self.ask_notary(cx, &request.token, Claimed::Connect { id, wanted });
                }
                Ok(Some(claims)) => self.connect_by_token(cx, id, Ok(claims), &wanted),
                Err(error) => self.connect_by_token(cx, id, Err(error), &wanted),
            };
        }
        let claims = match self.credentials(cx) {
            Ok(Known::Claims(claims)) => claims,
            Ok(Known::Ask(backend)) => {
                return self.ask_connect(cx, (id, backend), request, wanted);
            }
            Err((why, because)) => return self.refuse(cx, why, &because),
        };
        self.admit(cx, id, Credentials { claims, ..Credentials::default() }, &wanted);
    }

    /// Lets a client in of whom it is known who it is.
    pub(super) fn admit(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        credentials: Credentials,
        wanted: &[(ChannelName, Wish)],
    ) {
        let Credentials { claims, data, expiries } = credentials;
        self.user =
            if claims.user.is_empty() { Arc::default() } else { claims.user.as_str().into() };
        if let Err(because) = self.room_for_user(cx) {
            return self.refuse(cx, Disconnect::CONNECTION_LIMIT, &because);
        }
        self.settle_extra(cx.settings, &claims);
        let given = match self.given(cx, &claims, wanted) {
            Ok(given) => given,
            Err((why, because)) => return self.refuse(cx, why, &because),
        };
        let ttl = self.set_expiry(cx, claims.expire_at);
        self.stage = Stage::Connecting;
        let connect = InProgress { id, left: given.len(), outcomes: Vec::new(), ttl, data };
        if given.is_empty() {
            return self.connected(cx, &connect);
        }
        // Nothing of these channels may overtake the connect reply.
        cx.out.hold();
        self.pending.get_or_insert_default().connect = Some(connect);
        for each in given {
            let settings = cx.settings;
            let Ok(resolved) = settings.channel.resolve(&each.channel) else { continue };
            let expiry = expiries.iter().find(|(channel, _)| *channel == each.channel);
            let wish = Wish {
                grant: each.grant,
                expire_at: expiry.map(|(_, at)| *at),
                server_side: true,
                ..each.wish
            };
            let (plan, request) = self.plan(cx, &each.channel, resolved.options, wish);
            self.ask_node(cx, request, Awaited::ConnectSubscribe { plan: Box::new(plan) });
        }
    }

    /// Keeps what later commands need of the credentials, and nothing else.
    fn settle_extra(&mut self, settings: &Settings, claims: &ConnectionClaims) {
        let backends = &settings.backends;
        let later = backends.list.len() > usize::from(backends.connect.is_some());
        if claims.meta.is_some() && later {
            self.extra.get_or_insert_default().meta.clone_from(&claims.meta);
        }
        if claims.info.is_some() {
            self.extra.get_or_insert_default().conn_info.clone_from(&claims.info);
        }
        self.extra.take_if(|extra| {
            (extra.user_header, extra.no_cookie) = (None, None);
            if !later {
                (extra.headers, extra.emulated) = Default::default();
            }
            extra.conn_info.is_none()
                && extra.meta.is_none()
                && extra.head.is_none()
                && extra.headers.is_empty()
                && extra.emulated.is_empty()
        });
    }

    /// Lets a client in whose token was read, or does not.
    pub(super) fn connect_by_token(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        read: Result<ConnectionClaims, TokenError>,
        wanted: &[(ChannelName, Wish)],
    ) {
        let client = &cx.settings.client;
        let mut claims = match read {
            Ok(claims) => claims,
            Err(TokenError::Invalid(reason)) => {
                let what = "the connection token is invalid";
                return self.refuse_token(cx, Disconnect::INVALID_TOKEN, what, &reason);
            }
            Err(error) => {
                self.stage = Stage::Failed;
                let (error, because) = temporary(error, "the connection token");
                return self.connect_error(cx, id, error, &because);
            }
        };
        if claims.user.is_empty() && client.disallow_anonymous_connection_tokens {
            let because = "the token names no user, and \
                           client.disallow_anonymous_connection_tokens is on";
            return self.refuse(cx, Disconnect::PERMISSION_DENIED, because);
        }
        if client.insecure {
            claims.expire_at = None;
        }
        if wake::is_over(cx, claims.expire_at) {
            self.stage = Stage::Failed;
            let because = "the token's expire_at is in the past";
            return self.connect_error(cx, id, ErrorCode::EXPIRED, because);
        }
        self.admit(cx, id, Credentials { claims, ..Credentials::default() }, wanted);
    }

    /// Who the client is that brought no token.
    fn credentials(&self, cx: &Cx<'_, '_>) -> Result<Known, (Disconnect, String)> {
        let client = &cx.settings.client;
        if let Some(backend) = cx.settings.backends.connect {
            return Ok(Known::Ask(backend));
        }
        let by_header = self.extra.as_ref().and_then(|extra| extra.user_header.as_deref());
        if let Some(user) = by_header.filter(|user| !user.is_empty()) {
            let user = user.to_owned();
            return Ok(Known::Claims(ConnectionClaims { user, ..ConnectionClaims::default() }));
        }
        if client.insecure || client.allow_anonymous_connect_without_token {
            return Ok(Known::Claims(ConnectionClaims::default()));
        }
        Err((
            Disconnect::BAD_REQUEST,
            "the client brought no token, and client.allow_anonymous_connect_without_token is off \
             (a token is made with client.token.hmac_secret_key)"
                .to_owned(),
        ))
    }

    fn room_for_user(&self, cx: &Cx<'_, '_>) -> Result<(), String> {
        let limit = cx.settings.client.user_connection_limit;
        if limit == 0 || self.user.is_empty() || (cx.user_connections)(&self.user) < limit {
            return Ok(());
        }
        Err(format!("the user has {limit} connections, which is client.user_connection_limit"))
    }

    /// The subscriptions that come with the connection: the token's, the personal channel, and
    /// what a unidirectional client asks for and may have.
    fn given(
        &mut self,
        cx: &mut Cx<'_, '_>,
        claims: &ConnectionClaims,
        wanted: &[(ChannelName, Wish)],
    ) -> Result<Vec<Given>, (Disconnect, String)> {
        let mut given: Vec<Given> = Vec::new();
        let mut add = |channel: &str, grant: Grant| {
            if !given.iter().any(|each| &*each.channel == channel) {
                let asked = wanted.iter().find(|(name, _)| **name == *channel);
                let wish = asked.map_or_else(Wish::default, |(_, wish)| wish.clone());
                given.push(Given { channel: channel.into(), grant, wish });
            }
        };
        for (channel, grant) in &claims.subs {
            add(channel, grant.clone());
        }
        for channel in &claims.channels {
            add(channel, Grant::default());
        }
        if let Some(personal) = &cx.settings.client.personal_channel
            && !self.user.is_empty()
        {
            add(&self.personal_channel(cx.settings, &personal.namespace), Grant::default());
        }
        let token_channels: Vec<ChannelName> =
            given.iter().map(|each| ChannelName::clone(&each.channel)).collect();
        if self.kind == Kind::Unidirectional {
            self.add_wanted(cx, wanted, &mut given)?;
        }
        for each in &given {
            let because = match cx.settings.channel.resolve(&each.channel) {
                Ok(resolved)
                    if resolved.options.map.is_none() && resolved.options.poll.is_none() =>
                {
                    continue;
                }
                Ok(resolved) => {
                    let what = if resolved.options.map.is_some() { "map" } else { "shared poll" };
                    format!("the channel is a {what}, to which clients subscribe by themselves")
                }
                Err(error) => error.to_string(),
            };
            return Err((
                Disconnect::BAD_REQUEST,
                format!("{}: a server-side subscription: {because}", Shown(&each.channel)),
            ));
        }
        let limit = cx.settings.client.channel_limit;
        if limit > 0 && given.len() > limit {
            return Err((
                Disconnect::CHANNEL_LIMIT,
                format!(
                    "{} server-side subscriptions, and client.channel_limit is {limit}",
                    given.len()
                ),
            ));
        }
        self.remember_token_channels(token_channels);
        Ok(given)
    }

    /// The channels that a unidirectional client asks for, those that it could subscribe to itself.
    fn add_wanted(
        &self,
        cx: &mut Cx<'_, '_>,
        wanted: &[(ChannelName, Wish)],
        given: &mut Vec<Given>,
    ) -> Result<(), (Disconnect, String)> {
        for (channel, wish) in wanted {
            if given.iter().any(|each| each.channel == *channel) {
                continue;
            }
            let resolved = cx.settings.channel.resolve(channel).map_err(|error| {
                (Disconnect::BAD_REQUEST, format!("{}: {error}", Shown(channel)))
            })?;
            if resolved.options.poll.is_some() {
                let line = format!("103 {}: one that only listens tracks no keys", Shown(channel));
                self.note(cx.log, 103, &line);
                continue;
            }
            match self.right_without_token(cx.settings, &resolved) {
                Right::Yes => given.push(Given {
                    channel: ChannelName::clone(channel),
                    grant: Grant::default(),
                    wish: wish.clone(),
                }),
                Right::Ask(_) => {
                    let line = format!(
                        "103 {}: subscribe_proxy_enabled is on, and what a unidirectional \
                         client asks for is not asked about yet",
                        Shown(channel)
                    );
                    self.note(cx.log, 103, &line);
                }
                Right::No(because) => {
                    let line = format!("103 {}: {because}", Shown(channel));
                    self.note(cx.log, 103, &line);
                }
            }
        }
        Ok(())
    }

    pub(super) fn personal_channel(&self, settings: &Settings, namespace: &str) -> String {
        let user_boundary = &settings.channel.user_boundary;
        let user = &self.user;
        if namespace.is_empty() {
            format!("{user_boundary}{user}")
        } else {
            format!("{namespace}{}{user_boundary}{user}", settings.channel.namespace_boundary)
        }
    }

    fn remember_token_channels(&mut self, mut channels: Vec<ChannelName>) {
        channels.sort_unstable();
        if !channels.is_empty() {
            self.extra.get_or_insert_with(Box::<Extra>::default).token_channels = channels;
        }
    }

    /// Sets when the connection expires. Returns the seconds until then, for the client.
    pub(super) fn set_expiry(&mut self, cx: &mut Cx<'_, '_>, unix_s: Option<i64>) -> Option<u32> {
        let Some(unix_s) = unix_s else {
            self.expires_s = NEVER;
            return None;
        };
        if cx.settings.backends.refresh.is_some() {
            // The backend is asked at that moment, and the client need not know.
            self.expires_s = wake::expiry(cx, unix_s, Duration::ZERO).0;
            return None;
        }
        let (at_s, ttl) = wake::expiry(cx, unix_s, cx.settings.client.expired_close_delay);
        self.expires_s = at_s;
        Some(ttl)
    }

    /// One of the connect reply's subscriptions is settled.
    pub(super) fn connect_progress(&mut self, cx: &mut Cx<'_, '_>, outcome: Outcome) {
        let Some(pending) = &mut self.pending else { return };
        let Some(connect) = &mut pending.connect else { return };
        connect.outcomes.push(outcome);
        connect.left -= 1;
        if connect.left == 0
            && let Some(connect) = pending.connect.take()
        {
            self.connected(cx, &connect);
        }
    }

    /// The client is connected: says so, before anything else it is told.
    fn connected(&mut self, cx: &mut Cx<'_, '_>, connect: &InProgress) {
        self.stage = Stage::Ready;
        cx.effects.identified = true;
        cx.effects.library = cx.command.library;
        let personal = cx.settings.client.personal_channel.as_ref();
        if personal.is_some_and(|personal| personal.single_connection) && !self.user.is_empty() {
            cx.effects.displace =
                Some((Arc::clone(&self.user), self.client, Disconnect::CONNECTION_LIMIT));
        }
        self.begin_pings(cx);
        cx.out.wake_at(self.wake_at());
        let encoding = cx.out.framing.encoding();
        let lists: Vec<Vec<dialect::Publication<'_>>> =
            connect.outcomes.iter().map(|outcome| outcome.publications(encoding)).collect();
        let subs: Vec<(&str, SubscribeResult<'_>)> = connect
            .outcomes
            .iter()
            .zip(&lists)
            .map(|(outcome, list)| (&*outcome.channel, outcome.result(list)))
            .collect();
        let client = self.client.to_string();
        let session = self.session.as_ref().map(ToString::to_string);
        let settings = &cx.settings.client;
        let interval = ping_seconds(settings.ping_interval);
        let result = ConnectResult {
            client: &client,
            version: crate::version::said(),
            expires: connect.ttl.is_some(),
            ttl: connect.ttl.unwrap_or(0),
            data: connect.data.as_deref(),
            subs: &subs,
            ping: if self.native_ping { 0 } else { interval },
            pong: !self.native_ping && interval > 0 && self.kind == Kind::Bidirectional,
            session: session.as_deref().unwrap_or(""),
            // Only who speaks elsewhere must say where its session is.
            node: if self.speaks_as().is_some() { cx.node } else { "" },
            time: if settings.connect_include_server_time { cx.out.now.unix_ms } else { 0 },
        };
        let mut payload = Vec::with_capacity(192);
        match self.kind {
            Kind::Bidirectional => {
                let reply = Reply::Connect(result);
                dialect::put_reply(encoding, connect.id, &reply, &mut payload);
            }
            Kind::Unidirectional => {
                let push = Push::Connect(result);
                dialect::put_push(encoding, self.envelope(), &push, &mut payload);
            }
        }
        let frame = match self.kind {
            Kind::Bidirectional => Frame::Connect,
            Kind::Unidirectional => Frame::PushConnect,
        };
        cx.meter.sent(self.transport(cx), frame, payload.len());
        let head = self.extra.as_mut().and_then(|extra| extra.head.take());
        if connect.outcomes.is_empty() && self.pending.is_none() {
            cx.out.frames(head.as_deref().unwrap_or_default());
            cx.out.message(&payload);
        } else {
            let wrapped = cx.out.wrapped(&payload);
            let message = match head {
                Some(head) => [&head[..], &wrapped].concat().into(),
                None => wrapped,
            };
            cx.out.release(message);
        }
    }

    /// A connect command's error; a unidirectional client is told by a close instead.
    pub(super) fn connect_error(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        error: ErrorCode,
        because: &str,
    ) {
        if self.kind == Kind::Bidirectional {
            return self.deny(cx, id, error, because);
        }
        if let Some(extra) = &mut self.extra
            && extra.head.is_some()
        {
            extra.error = error.code;
        }
        let chosen = cx.settings.client.uni_disconnects.iter();
        let why = match error.code {
            code if let Some((_, why)) = chosen.clone().find(|(from, _)| *from == code) => {
                why.clone()
            }
            109 | 110 => Disconnect::CONNECTION_EXPIRED,
            111 => Disconnect::TOO_MANY_REQUESTS,
            103 => Disconnect::PERMISSION_DENIED,
            _ => Disconnect::INTERNAL,
        };
        self.refuse(cx, why, because);
    }

    /// A unidirectional client's message: the first is its connect request, the rest is not for us.
    pub(super) fn uni_message(&mut self, cx: &mut Cx<'_, '_>, frame: &[u8]) -> Taken {
        if self.stage != Stage::Fresh {
            return Taken::All;
        }
        match dialect::connect_request(frame) {
            Ok(request) => {
                cx.meter.received(self.transport(cx), Frame::Connect, frame.len());
                let began_us = cx.at_us;
                cx.command = Underway { method: Frame::Connect, began_us, library: 0 };
                self.connect(cx, 0, &request);
            }
            Err(malformed) => self.refuse(
                cx,
                Disconnect::BAD_REQUEST,
                &format!("the connect request is not readable: {}", super::Unquoted(&malformed)),
            ),
        }
        if cx.out.is_closing() {
            return Taken::All;
        }
        if !self.is_waiting() {
            cx.handled(Frame::Connect);
        }
        self.standing()
    }
}

fn wish_of(request: &SubscribeRequest<'_>) -> Wish {
    Wish {
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
        recover: request.recover.then(|| (Box::from(&*request.epoch), request.offset)),
        ..Wish::default()
    }
}

fn ping_seconds(interval: Duration) -> u32 {
    super::seconds(interval)
}

impl Plan {
    /// Whether the reply tells a position.
    pub(super) fn positioned(&self) -> bool {
        self.flags.contains(throng_hub::registry::SubFlags::POSITIONED)
    }
}
