//! Every code a client can meet, in one table: what it is called on the wire, whether the client
//! tries again, and what an operator should know about it. Invariant NO-SILENCE: no connection,
//! subscription or request ends without a code from here.

use std::borrow::Cow;

/// Why a command was answered with an error; the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    pub code: u32,
    pub message: &'static str,
    /// The client may send the same command again.
    pub temporary: bool,
}

/// Why the server closed a connection: the close frame's code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u16,
    /// At most [`Disconnect::REASON_BYTES_MAX`] bytes.
    pub reason: Cow<'static, str>,
}

/// Why the server ended a subscription; the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe {
    pub code: u32,
    pub reason: &'static str,
}

impl Disconnect {
    /// RFC 6455 5.5: a control frame carries 125 bytes, two of which are the code.
    pub const REASON_BYTES_MAX: usize = 123;

    /// A code that the application chose; a reason too long for a close frame is cut.
    pub fn custom(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(Self::REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: Cow::Owned(reason[..end].to_owned()) }
    }

    /// Whether a client that is closed with this comes back by itself.
    pub fn reconnects(&self) -> bool {
        !matches!(self.code, 3500..=3999 | 4500..=4999)
    }
}

impl Unsubscribe {
    /// Whether a client that is unsubscribed with this subscribes again by itself.
    pub fn resubscribes(&self) -> bool {
        self.code >= 2500
    }
}

/// Where a code is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Error,
    Disconnect,
    Unsubscribe,
    WebSocketClose,
    HttpStatus,
    /// Made up by the client library, never sent by the server.
    Client,
}

impl Kind {
    /// As a heading names it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Error => "error in a reply",
            Self::Disconnect => "disconnect",
            Self::Unsubscribe => "unsubscribe",
            Self::WebSocketClose => "WebSocket close code",
            Self::HttpStatus => "HTTP status",
            Self::Client => "the client library's own code",
        }
    }
}

/// What an operator should know about a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub kind: Kind,
    pub code: u32,
    /// What it is called on the wire.
    pub name: &'static str,
    /// What the client does by itself.
    pub then: &'static str,
    /// Causes, and what to do.
    pub text: &'static str,
}

/// Everything known about a number: the same one may be an HTTP status and an application's error.
/// Empty for a number that means nothing here.
pub fn explain(code: u32) -> Vec<Explanation> {
    let mut found = Vec::new();
    found.extend(ErrorCode::TABLE.iter().filter(|(e, _)| e.code == code).map(from_error));
    found.extend(
        Disconnect::TABLE.iter().filter(|(d, ..)| u32::from(d.code) == code).map(from_disconnect),
    );
    found.extend(Unsubscribe::TABLE.iter().filter(|(u, ..)| u.code == code).map(from_unsubscribe));
    found.extend(OTHERS.iter().filter(|e| e.code == code).cloned());
    if found.is_empty() {
        found.extend(of_the_application(code));
    }
    found
}

/// What an error is called on the wire, if there is one of this code.
pub(crate) fn error_message(code: u32) -> Option<&'static str> {
    ErrorCode::TABLE.iter().find(|(error, _)| error.code == code).map(|(error, _)| error.message)
}

/// Every code with a meaning of its own, for a list: errors first, then closes, then the rest.
pub fn all() -> Vec<Explanation> {
    let errors = ErrorCode::TABLE.iter().map(from_error);
    let closes = Disconnect::TABLE.iter().map(from_disconnect);
    let unsubscribes = Unsubscribe::TABLE.iter().map(from_unsubscribe);
    errors.chain(closes).chain(unsubscribes).chain(OTHERS.iter().cloned()).collect()
}

fn from_error((error, text): &(ErrorCode, &'static str)) -> Explanation {
    let then = match error.code {
        109 => "fetches a new token and tries again",
        _ if error.temporary => "tries again after a pause",
        _ => "reports it to your code and does not try again",
    };
    Explanation { kind: Kind::Error, code: error.code, name: error.message, then, text }
}

fn from_disconnect((close, name, text): &(Disconnect, &'static str, &'static str)) -> Explanation {
    let then = if close.reconnects() { "reconnects by itself" } else { "stays disconnected" };
    Explanation { kind: Kind::Disconnect, code: u32::from(close.code), name, then, text }
}

fn from_unsubscribe((end, text): &(Unsubscribe, &'static str)) -> Explanation {
    let then = if end.resubscribes() { "subscribes again by itself" } else { "stays unsubscribed" };
    Explanation { kind: Kind::Unsubscribe, code: end.code, name: end.reason, then, text }
}

/// The ranges that belong to the application.
fn of_the_application(code: u32) -> Option<Explanation> {
    let (kind, then, text) = match code {
        400..=1999 => (
            Kind::Error,
            "reports it to your code",
            "An error of your application: its backend answered a client's request with this code. \
             Its meaning is in your code, not in throng's.",
        ),
        4000..=4499 => (
            Kind::Disconnect,
            "reconnects by itself",
            "A disconnect of your application, from its backend or from a call of the `disconnect` \
             API. Codes from 4000 to 4499 let the client come back.",
        ),
        4500..=4999 => (
            Kind::Disconnect,
            "stays disconnected",
            "A disconnect of your application, from its backend or from a call of the `disconnect` \
             API. Codes from 4500 to 4999 tell the client to stay away.",
        ),
        _ => return None,
    };
    Some(Explanation { kind, code, name: "the application's own", then, text })
}

/// Declares each error once: a constant, and its row in the table.
macro_rules! errors {
    ($($name:ident = $code:literal $message:literal $(, $temporary:ident)?; $text:literal)*) => {
        impl ErrorCode {
            $(#[doc = $message] pub const $name: Self =
                Self { code: $code, message: $message, temporary: errors!(@ $($temporary)?) };)*
            const TABLE: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
    (@ temporary) => { true };
    (@) => { false };
}

/// Declares each disconnect once: a constant, and its row in the table.
macro_rules! disconnects {
    ($($name:ident = $code:literal $reason:literal; $text:literal)*) => {
        impl Disconnect {
            $(#[doc = $reason] pub const $name: Self =
                Self { code: $code, reason: Cow::Borrowed($reason) };)*
            const TABLE: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$name, $reason, $text)),*];
        }
    };
}

/// Declares each unsubscribe once: a constant, and its row in the table.
macro_rules! unsubscribes {
    ($($name:ident = $code:literal $reason:literal; $text:literal)*) => {
        impl Unsubscribe {
            $(#[doc = $reason] pub const $name: Self = Self { code: $code, reason: $reason };)*
            const TABLE: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

errors! {
    INTERNAL = 100 "internal server error", temporary;
    "Something failed inside the server while it handled one command. The log has a line about it \
     with the same time. It is safe to send the command again; if it keeps failing, that log line \
     is what to report. A token whose key cannot be fetched (`client.token.jwks_public_endpoint`) is \
     answered so, too, and may be shown again."
    UNAUTHORIZED = 101 "unauthorized";
    "The request needs a signed-in user. Connect with a token: `throng token --user ID` makes one \
     for a try."
    UNKNOWN_CHANNEL = 102 "unknown channel";
    "The channel's name begins with a namespace that is not in the configuration. What stands \
     before the first `:` is the namespace: `news:today` needs an entry named `news` in \
     `channel.namespaces`. Add it, or correct the name; a channel without `:` needs none."
    PERMISSION_DENIED = 103 "permission denied";
    "The user may not do this in this channel. To subscribe, a user needs a subscription token, or \
     `allow_subscribe_for_client` in the channel's namespace (and `allow_subscribe_for_anonymous` \
     for users without an id); to publish, `allow_publish_for_client` or `…_for_subscriber`; the \
     same with `presence` and `history`. Channels beginning with `$` always need a subscription \
     token: `throng token --user ID --channel NAME`. A token that is invalid or made for something \
     else gives this too."
    METHOD_NOT_FOUND = 104 "method not found";
    "The server has no such method. For a call of the server API, compare the path with the list \
     of methods; for `rpc` from a client, nothing on the server answers that method."
    ALREADY_SUBSCRIBED = 105 "already subscribed";
    "The client is subscribed to this channel already, perhaps by the server (a token's `channels`, \
     or a personal channel). Subscribe once per connection and channel."
    LIMIT_EXCEEDED = 106 "limit exceeded";
    "The connection has as many channels as `client.channel_limit` allows (128 if not set). \
     Unsubscribe from what is no longer shown, use one channel for several things, or raise the \
     limit."
    BAD_REQUEST = 107 "bad request";
    "The server understood the frame but not the wish: a channel's name that is too long or against \
     the rules, an empty payload, a payload that is not what `publication_data_format` asks for, or \
     a field out of range. The client's own log shows the command that was sent."
    NOT_AVAILABLE = 108 "not available";
    "The feature is switched off for this channel: `presence` and `presence_stats` need \
     `presence = true` in its namespace, `history` needs `history_size` and `history_ttl` above \
     zero. Switch it on there, or do not ask."
    TOKEN_EXPIRED = 109 "token expired";
    "The token's `exp` is in the past. The client library then calls your `getToken` and tries \
     again, so this is normal now and then. If it never ends, the clock of the machine that makes \
     the tokens is behind this server's, or `getToken` returns an old token from a cache."
    EXPIRED = 110 "expired";
    "The connection's or subscription's right has run out and was not renewed. Return a fresh token \
     from `getToken`."
    TOO_MANY_REQUESTS = 111 "too many requests", temporary;
    "The server has no room for the request now: what is waiting for slow clients has used up \
     `limits.buffer_bytes`, or too many calls wait already. Try again after a pause. If it lasts, \
     publish less, close slow clients sooner (`client.queue_max_size`), or raise the limit."
    UNRECOVERABLE_POSITION = 112 "unrecoverable position";
    "The client asked to go on from a place in the channel's history that is no longer there: the \
     server was restarted, the history was removed, or too much was published since. Load the state \
     afresh and subscribe without a position. Larger `history_size` and `history_ttl` make it rarer."
    CONCURRENT_PAGINATION = 113 "concurrent pagination", temporary;
    "Two requests for pages of the same channel were under way at once on one connection. Wait for \
     one before asking the next."
}

disconnects! {
    CONNECTION_CLOSED = 3000 "connection closed";
    "The connection ended from the other side: the browser tab was closed, the phone changed \
     networks, or a proxy between gave up. Nothing is wrong on the server. When all clients show it \
     at a regular interval, a proxy's idle timeout is shorter than `client.ping_interval`."
    SHUTDOWN = 3001 "shutdown";
    "The server is stopping or is being restarted and closes its clients one after the other over \
     `shutdown.spread`, so that they do not all return at the same moment."
    INTERNAL = 3004 "internal server error";
    "Something failed inside the server while it handled this one connection; the others are not \
     touched. The log has a line about it with the same time, which is what to report."
    CONNECTION_EXPIRED = 3005 "connection expired";
    "The connection's token ran out and no new one came within `client.expired_close_delay`. The \
     client library needs a `getToken` function that returns a fresh token; if it has one, look why \
     it fails or answers late."
    SUBSCRIPTION_EXPIRED = 3006 "subscription expired";
    "A subscription made by the server ran out and was not renewed within \
     `client.expired_sub_close_delay`. Return fresh rights with the connection's token."
    SLOW = 3008 "slow";
    "More bytes were waiting for this client than `client.queue_max_size` allows (1 MiB if not \
     set), or the node's `limits.buffer_bytes` were used up and this client had the most waiting. \
     Its network or device does not keep up with what is published to it. With recovery on it comes \
     back without a loss. If many clients show it: publish less often, send smaller payloads, or \
     raise the two limits."
    WRITE_ERROR = 3009 "write error";
    "The server could not write to the connection, mostly because the client's network vanished \
     without a goodbye."
    INSUFFICIENT = 3010 "insufficient state";
    "The server noticed that this client's place in a channel's history has a gap, and closes the \
     connection so that the client returns and recovers. Rare by itself; frequent when \
     `history_size` is small compared with what is published at once."
    FORCE_RECONNECT = 3011 "force reconnect";
    "Somebody asked the server to send this client away and have it return, for example to connect \
     to another node."
    NO_PONG = 3012 "no pong";
    "The client did not answer a ping within `client.pong_timeout` (8 s if not set). The device \
     slept, the network vanished, or the page was frozen in the background. Normal for mobile \
     clients; if everybody shows it, the machine is overloaded or a proxy buffers."
    TOO_MANY_REQUESTS = 3013 "too many requests";
    "The server has no room to let the client in right now. It comes back after a pause."
    STATE_INVALIDATED = 3014 "state invalidated";
    "The server discarded what it knew about this client's subscriptions; it reconnects and loads \
     the state afresh."
    INVALID_TOKEN = 3500 "invalid token";
    "The connection's token was not accepted: signed with another key than the configuration has, \
     signed with an algorithm that is not set up, wrong `aud` or `iss`, damaged, or a subscription \
     token where a connection token belongs. The log says which, and so does `throng token --check \
     TOKEN -c FILE`. A token that is accepted is made by `throng token --user ID`, which signs with \
     the secret of your configuration."
    BAD_REQUEST = 3501 "bad request";
    "The client broke the protocol, or showed neither a token nor any other right to connect. The \
     most frequent cause is a missing token: set `token` or `getToken` in the client, or, if \
     visitors without a token are welcome, `client.allow_anonymous_connect_without_token`. Then: a \
     frame that is not a command, something before `connect`, or two `connect`s."
    STALE = 3502 "stale";
    "The connection was opened but no successful `connect` followed within \
     `client.stale_close_delay` (10 s if not set): a scanner, a health check of a load balancer on \
     the WebSocket path, or a client that ignores that its `connect` was refused."
    FORCE_DISCONNECT = 3503 "force disconnect";
    "Your application, or somebody at the command line, disconnected this user with the \
     `disconnect` API."
    CONNECTION_LIMIT = 3504 "connection limit";
    "The user has as many connections as `client.user_connection_limit` allows, or, with \
     `subscribe_to_user_personal_channel.single_connection`, a newer connection took this one's \
     place. One connection per browser tab counts as one."
    CHANNEL_LIMIT = 3505 "channel limit";
    "The token subscribes the connection to more channels than `client.channel_limit` allows. Put \
     fewer into the token, or raise the limit."
    INAPPROPRIATE_PROTOCOL = 3506 "inappropriate protocol";
    "The client speaks an encoding that this transport does not carry. Use JSON, or a transport \
     that carries Protobuf."
    PERMISSION_DENIED = 3507 "permission denied";
    "The connection is not allowed, and asking again would not help: for example a token without a \
     user id while `client.disallow_anonymous_connection_tokens` is on."
    NOT_AVAILABLE = 3508 "not available";
    "The client used something that the server does not offer, for example `send`, which has nobody \
     to receive it. Remove the call, or use `publish` or `rpc`."
    TOO_MANY_ERRORS = 3509 "too many errors";
    "The client caused one error after another and was sent away. Its own log shows which command."
}

unsubscribes! {
    SERVER = 2000 "server unsubscribe";
    "Your application ended the subscription with the `unsubscribe` API. Subscribe again from code \
     if it should come back."
    INSUFFICIENT = 2500 "insufficient state";
    "The server noticed a gap between what this subscriber has and the channel's history: its epoch \
     changed (a restart, history removed) or a publication was lost between nodes. The client \
     subscribes again and recovers what the history still holds."
    EXPIRED = 2501 "subscription expired";
    "The subscription's token ran out and no new one came within `client.expired_sub_close_delay`. \
     The subscription needs a `getToken` function that returns a fresh token."
    STATE_INVALIDATED = 2502 "state invalidated";
    "The server discarded what it knew about this subscription; the client subscribes again and \
     loads the state afresh."
}

const fn other(kind: Kind, row: (u32, &'static str, &'static str, &'static str)) -> Explanation {
    Explanation { kind, code: row.0, name: row.1, then: row.2, text: row.3 }
}

/// Codes that are not the protocol's own, as they are met around throng.
const OTHERS: &[Explanation] = &[
    other(
        Kind::Client,
        (
            0,
            "unsubscribe called",
            "stays unsubscribed",
            "The page or app itself called `unsubscribe()` (or `disconnect()`, `connect()`). Nothing \
         came from the server.",
        ),
    ),
    other(
        Kind::Client,
        (
            1,
            "transport closed",
            "reconnects by itself",
            "The connection went away without a code of the protocol's: network, proxy, or a server \
         that was killed. `throng probe URL` shows which step of connecting fails.",
        ),
    ),
    other(
        Kind::Client,
        (
            2,
            "connect timeout, or a bad protocol message",
            "reconnects by itself",
            "The client library gave up waiting for the server, or could not read what it got. Look \
         whether something else than throng answers at that address.",
        ),
    ),
    other(
        Kind::Client,
        (
            3,
            "message size limit",
            "stays disconnected",
            "The client sent a message larger than `websocket.message_size_limit` (64 KiB if not set). \
         Send less, or raise the limit.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (1000, "normal closure", "depends on who closed", "One side closed in good order."),
    ),
    other(
        Kind::WebSocketClose,
        (1001, "going away", "reconnects by itself", "The page was left or a proxy is stopping."),
    ),
    other(
        Kind::WebSocketClose,
        (
            1002,
            "protocol error",
            "reconnects by itself",
            "A frame broke the rules of WebSocket (RFC 6455): reserved bits, an unmasked frame of a \
         client, a fragment out of turn. Suspect a home-made client or a proxy that changes bytes.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1003,
            "unsupported data",
            "reconnects by itself",
            "A binary frame where text belongs, or the reverse: JSON goes in text frames, Protobuf in \
         binary ones, chosen when the connection is opened.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1005,
            "no status received",
            "reconnects by itself",
            "The close frame had no code. Never sent; a library reports it.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1006,
            "abnormal closure",
            "reconnects by itself",
            "The connection broke without a close frame. Never sent; a browser reports it, also when \
         the handshake was refused with an HTTP status, which it hides: `throng probe URL` shows \
         the status. If it comes after a fixed time of silence, a proxy's idle timeout is too \
         short (nginx: `proxy_read_timeout`, 60 s if not set).",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (1007, "invalid payload", "reconnects by itself", "A text frame was not UTF-8."),
    ),
    other(
        Kind::WebSocketClose,
        (
            1008,
            "policy violation",
            "reconnects by itself",
            "throng does not send it; a proxy or another server does.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1009,
            "message too big",
            "stays disconnected",
            "The client sent a message larger than `websocket.message_size_limit` (64 KiB if not set). \
         Send less, or raise the limit.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1010,
            "mandatory extension",
            "reconnects by itself",
            "The client demanded an extension that the server did not offer.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1011,
            "internal error",
            "reconnects by itself",
            "throng says 3004 instead; a proxy or another server sent this.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1012,
            "service restart",
            "reconnects by itself",
            "throng says 3001 instead; a proxy or another server sent this.",
        ),
    ),
    other(
        Kind::WebSocketClose,
        (
            1013,
            "try again later",
            "reconnects by itself",
            "throng says 3013, or HTTP 503 before the handshake; a proxy or another server sent this.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            400,
            "Bad Request",
            "gets nowhere by repeating the request",
            "The request could not be read: a body that is not JSON, or a WebSocket handshake without \
         its headers, which a proxy that does not forward `Upgrade` causes.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            401,
            "Unauthorized",
            "gets nowhere by repeating the request",
            "A call of the server API without the right key. Send `X-API-Key: KEY` with the value of \
         `http_api.key`; while that is empty, every call is refused. `throng publish` takes it from \
         `--api-key`, `THRONG_HTTP_API_KEY` or `-c FILE`.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            403,
            "Forbidden",
            "gets nowhere by repeating the request",
            "The browser's page comes from an origin that `client.allowed_origins` does not name. Add \
         it exactly as the address bar shows it, without a path: `https://example.com`. `*` stands \
         for any part; an empty list lets in no browser at all.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            404,
            "Not Found",
            "gets nowhere by repeating the request",
            "Nothing answers at this path: the WebSocket is at `/connection/websocket`, the server API \
         at `/api/METHOD`, health at `/health` when `health.enabled`. With \
         `http_server.internal_port` set, API and health are on that port only.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            405,
            "Method Not Allowed",
            "gets nowhere by repeating the request",
            "The server API answers POST only.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            426,
            "Upgrade Required",
            "gets nowhere by repeating the request",
            "Somebody asked for the WebSocket path without asking for WebSocket: a browser's address \
         bar, a health check, or a proxy that drops the headers `Upgrade` and `Connection`. For \
         nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection \"upgrade\";`.",
        ),
    ),
    other(
        Kind::HttpStatus,
        (
            503,
            "Service Unavailable",
            "reconnects by itself",
            "The server is full: no descriptors left for clients, `client.connection_limit`, \
         `client.connection_rate_limit` or a limit of `limits.per_address` reached, or it is \
         stopping. The body says which, and \
         `Retry-After` when to return. The limit stands in the server's first log line, and in \
         /proc/PID/limits.",
        ),
    ),
];

#[cfg(test)]
mod tests;
