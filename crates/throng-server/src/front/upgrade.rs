//! The WebSocket handshake (RFC 6455 4.2): what is checked, and the head that the shard will write.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use throng_limits::Permit;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Agreed, Window, accept_key, negotiate};

use super::address::{self, ClientAddress, ToldBy};
use super::gate::Seat;
use super::{Answer, Front, Outcome, Visit, json, refuse, text};
use crate::addresses::Held;
use crate::clock::Clock;
use crate::log::line;
use crate::origin;
use crate::ring::Refused;
use crate::rng::secret_uuid;
use crate::session::{Kind, NoCookie, Open};

/// A connection that is to move into a shard.
pub(crate) struct Move {
    pub(crate) shard: usize,
    pub(crate) head: Bytes,
    pub(crate) framing: Framing,
    /// With which window it is compressed, where that was agreed on.
    pub(crate) deflate: Option<Window>,
    pub(crate) open: Open,
    pub(crate) permit: Permit,
    pub(crate) address: Option<Box<Held>>,
}

impl Move {
    /// The status that the shard answers with.
    pub(super) fn status(&self) -> u16 {
        if self.framing.is_response() { 200 } else { 101 }
    }
}

/// Answers an upgrade request, or lets it move.
pub(super) async fn websocket(front: &Front, visit: &Visit, kind: Kind) -> Outcome {
    match checked(front, visit, kind).await {
        Ok(to) => Outcome::Upgraded(Box::new(to)),
        Err(answer) => {
            remember(front, visit.address.ip, &answer);
            Outcome::Answered(*answer)
        }
    }
}

/// Why a visitor was refused, where its status does not say it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Because(pub(super) &'static str);

/// Keeps a refusal for `throng who` and `throng status`.
pub(super) fn remember(front: &Front, ip: IpAddr, answer: &Answer) {
    let because = answer.extensions().get::<Because>().map(|because| because.0);
    let reason = because.unwrap_or(match answer.status() {
        StatusCode::FORBIDDEN if front.settings().dev => {
            "development mode lets in loopback names only"
        }
        StatusCode::FORBIDDEN => "the page's origin is not in client.allowed_origins",
        StatusCode::UPGRADE_REQUIRED => "the request came without its Upgrade headers",
        StatusCode::BAD_REQUEST => "the handshake is wrong",
        _ => "refused",
    });
    debug_assert!(crate::metrics::is_known_reason(reason), "{reason} has no label");
    front.common.ring.refused(Refused {
        at_s: Clock::second_of(front.clock.now()),
        address: Some(ip),
        status: answer.status().as_u16(),
        reason: reason.into(),
    });
}

async fn checked(front: &Front, visit: &Visit, kind: Kind) -> Result<Move, Box<Answer>> {
    let request = &visit.request;
    let headers = request.headers();
    let key = handshake_key(request.method(), headers)?;
    check_origin(front, headers, visit.address.ip)?;
    let query = Query(request.uri().query().unwrap_or_default());
    let (framing, protocol) = encoding(headers, &query, kind)?;
    let deflate = deflate(front, headers, kind)?;
    let (permit, address) = admit(front, visit.address, &visit.seat).await?;
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    );
    if let Some(protocol) = protocol {
        head.push_str("Sec-WebSocket-Protocol: ");
        head.push_str(protocol);
        head.push_str("\r\n");
    }
    if let Some(agreed) = deflate {
        head.push_str("Sec-WebSocket-Extensions: ");
        head.push_str(agreed.answer());
        head.push_str("\r\n");
    }
    if let Some(address) = address_for_probe(visit) {
        head.push_str(&format!("{SEEN_HEADER}: {address}\r\n"));
    }
    head.push_str("\r\n");
    let connect = (kind == Kind::Unidirectional)
        .then(|| query.get("cf_connect"))
        .flatten()
        .map(|connect| Bytes::from(percent_decoded(connect)));
    let session = match kind {
        Kind::Bidirectional => None,
        Kind::Unidirectional => {
            Some(secret_uuid().map_err(|_| busy(front, "the system has no randomness"))?)
        }
    };
    arrived(front, visit.address.ip, visit.peer);
    Ok(Move {
        shard: front.next_shard(),
        head: head.into(),
        framing,
        deflate: deflate.map(|agreed| agreed.window),
        open: Open {
            native_ping: query.get("cf_ws_frame_ping_pong") == Some("true"),
            session,
            connect,
            ..open(front, headers, kind, visit.address)
        },
        permit,
        address,
    })
}

/// Says that somebody was let in, to who wants to know everything.
pub(super) fn arrived(front: &Front, ip: IpAddr, peer: SocketAddr) {
    if front.wants_debug() {
        line!(front.common.log, Debug, "client.upgrade", "a client has come"; addr = &ip as &dyn std::fmt::Display, peer = peer.to_string().as_str());
    }
}

/// What a session begins with, by the headers of its request.
pub(super) fn open(front: &Front, headers: &HeaderMap, kind: Kind, address: ClientAddress) -> Open {
    let user_header = &front.settings().client.user_id_http_header;
    let user = (!user_header.is_empty())
        .then(|| headers.get(user_header.as_str()))
        .flatten()
        .and_then(|user| user.to_str().ok())
        .map(Box::from);
    Open {
        kind,
        native_ping: false,
        user,
        session: None,
        connect: None,
        address,
        headers: for_backends(headers, &front.settings().backends.http_headers),
        no_cookie: no_cookie(front, headers),
        head: None,
    }
}

/// What `throng probe` asks where it is seen with, and is answered with.
pub const PROBE_HEADER: &str = "x-throng-probe";
pub const SEEN_HEADER: &str = "X-Throng-Address";

/// Where a client that asks for it is seen. Its own address is no secret of ours; that of a proxy
/// or of our network is, so of those only what they are is said.
fn address_for_probe(visit: &Visit) -> Option<String> {
    let headers = visit.request.headers();
    if !headers.contains_key(PROBE_HEADER) {
        return None;
    }
    let ClientAddress { ip, told_by } = visit.address;
    let is_proxys = told_by == ToldBy::Socket && address::is_forwarded(headers);
    Some(match (is_proxys, ip.is_loopback(), address::is_near(ip)) {
        (true, ..) => "proxy".to_owned(),
        (false, false, true) => "private".to_owned(),
        _ => ip.to_string(),
    })
}

/// The headers that some backend is to see, as they came.
pub(super) fn for_backends(headers: &HeaderMap, names: &[HeaderName]) -> crate::backend::Headers {
    names
        .iter()
        .flat_map(|name| headers.get_all(name).iter().map(|value| (name.clone(), value.clone())))
        .collect()
}

/// What is known of a client without a cookie, where the connect backend is to see one.
fn no_cookie(front: &Front, headers: &HeaderMap) -> Option<Box<NoCookie>> {
    let backends = &front.settings().backends;
    let backend = backends.connect.and_then(|id| backends.get(id))?;
    if headers.contains_key(header::COOKIE) || !backend.http_headers.contains(&header::COOKIE) {
        return None;
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (page, server) = (text(header::ORIGIN), text(header::HOST).unwrap_or_default());
    Some(Box::new(NoCookie::new(page, server)))
}

/// RFC 6455 4.2.1: what a client's handshake must have. Returns its key.
fn handshake_key<'r>(method: &Method, headers: &'r HeaderMap) -> Result<&'r str, Box<Answer>> {
    let upgrades = has_token(headers, header::UPGRADE, "websocket");
    if method != Method::GET || !upgrades || !has_token(headers, header::CONNECTION, "upgrade") {
        let mut answer = text(
            StatusCode::UPGRADE_REQUIRED,
            "This address speaks WebSocket, and the request came without its Upgrade headers.\n\
             If nginx is in front, it drops them unless told otherwise:\n\
             \n    proxy_http_version 1.1;\n    proxy_set_header Upgrade $http_upgrade;\n    \
             proxy_set_header Connection \"upgrade\";\n\n\
             And so that it is known who asks, and under which name:\n\
             \n    proxy_set_header Host $host;\n    \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n",
        );
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(answer));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        // RFC 6455 4.4: the answer names the version that is spoken.
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13\n");
        let version = HeaderValue::from_static("13");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(Box::new(answer));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        // Sixteen bytes in base64.
        .filter(|key| {
            let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(digit)
        })
        .ok_or_else(|| {
            Box::new(text(
                StatusCode::BAD_REQUEST,
                "Sec-WebSocket-Key must be 16 bytes in base64\n",
            ))
        })
}

/// Whether the page that asks may connect.
pub(super) fn check_origin(
    front: &Front,
    headers: &HeaderMap,
    ip: IpAddr,
) -> Result<(), Box<Answer>> {
    let settings = front.settings();
    // What has no Origin is no page of a browser.
    let Some(value) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = value.to_str().unwrap_or("unreadable");
    if settings.dev || origin::is_allowed(&settings.client.allowed_origins, origin) {
        return Ok(());
    }
    let shown: String = origin.chars().filter(|each| !each.is_control()).take(120).collect();
    let message = format!(
        "403 a page of {shown} was refused: it is not in client.allowed_origins; if it is yours, \
         add \"{shown}\" there"
    );
    line!(front.common.log, Warn, "origin.refused", "{}", message; addr = &ip as &dyn std::fmt::Display);
    Err(Box::new(text(
        StatusCode::FORBIDDEN,
        "the page's origin is not in client.allowed_origins\n",
    )))
}

/// How the connection's messages are written, and the subprotocol that says so back, if the client
/// named one. An empty header is none: some clients send it.
fn encoding(
    headers: &HeaderMap,
    query: &Query<'_>,
    kind: Kind,
) -> Result<(Framing, Option<&'static str>), Box<Answer>> {
    let offers = |name: &str| has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, name);
    let asked =
        query.get("format") == Some("protobuf") || query.get("cf_protocol") == Some("protobuf");
    let (framing, protocol) = if offers(PROTOBUF) && !offers(JSON) {
        (Framing::Binary, Some(PROTOBUF))
    } else if asked {
        (Framing::Binary, None)
    } else {
        (Framing::WebSocket, offers(JSON).then_some(JSON))
    };
    if kind == Kind::Unidirectional && framing == Framing::Binary {
        let words = "this path speaks JSON only; Protobuf is spoken at the path of websocket\n";
        return Err(Box::new(text(StatusCode::BAD_REQUEST, words)));
    }
    Ok((framing, protocol))
}

/// What is agreed on of what the client offers (RFC 7692), where `compression` is on. Most clients
/// offer it by themselves.
fn deflate(front: &Front, headers: &HeaderMap, kind: Kind) -> Result<Option<Agreed>, Box<Answer>> {
    let settings = front.settings();
    let compression = match kind {
        Kind::Bidirectional => settings.websocket.compression,
        Kind::Unidirectional => settings.uni_websocket.compression,
    };
    if compression.is_none() {
        return Ok(None);
    }
    let lines = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    negotiate(lines.iter().map(HeaderValue::as_bytes)).map_err(|_| {
        let words = "Sec-WebSocket-Extensions is not a list of extensions with parameters\n";
        Box::new(text(StatusCode::BAD_REQUEST, words))
    })
}

/// The subprotocols (RFC 6455 1.9).
const PROTOBUF: &str = "centrifuge-protobuf";
const JSON: &str = "centrifuge-json";

/// Whether one more client is wanted now, whoever it is; the error is why not.
pub(super) fn is_wanted(front: &Front) -> Result<(), &'static str> {
    let client = &front.settings().client;
    if front.is_draining() {
        return Err("the server is stopping");
    }
    let limit = client.connection_limit;
    if limit > 0 && front.clients.open() >= limit as u64 {
        refuse::say_full(front);
        return Err(refuse::FULL);
    }
    if !front.arrivals.admit(client.connection_rate_limit, Instant::now()) {
        refuse::say_too_fast(front);
        return Err(refuse::TOO_FAST);
    }
    Ok(())
}

/// Whether one more client may come in, and its permit.
pub(super) async fn admit(
    front: &Front,
    from: ClientAddress,
    seat: &Arc<Seat>,
) -> Result<(Permit, Option<Box<Held>>), Box<Answer>> {
    is_wanted(front).map_err(|words| busy(front, words))?;
    let address = match from.told_by {
        // The connection is the proxy's; whoever stands behind it is counted here.
        ToldBy::Header => front.admit_address(from.ip),
        // Counted since it was accepted.
        ToldBy::Socket | ToldBy::ProxyProtocol => Ok(None),
    };
    let address =
        address.map_err(|too_many| busy(front, refuse::too_many(front, from.ip, too_many)))?;
    // Most are refused before they come so far; this one came while the last place was taken.
    let permit = front.gate.make_client(seat).await.ok_or_else(|| {
        front.gate.refused.fetch_add(1, Ordering::Relaxed);
        refuse::say_full(front);
        busy(front, refuse::FULL)
    })?;
    Ok((permit, address.or_else(|| seat.take_address())))
}

/// 503 with the time after which to try again.
pub(super) fn busy(front: &Front, words: &'static str) -> Box<Answer> {
    let mut answer = json(StatusCode::SERVICE_UNAVAILABLE, format!("{{\"error\":\"{words}\"}}"));
    answer.extensions_mut().insert(Because(words));
    let after = HeaderValue::from(front.gate.retry_after_s());
    answer.headers_mut().insert(header::RETRY_AFTER, after);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Box::new(answer)
}

/// Whether a comma-separated header, in one line or several, has this token.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|each| each.trim().eq_ignore_ascii_case(token))
}

/// A query string.
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        })
    }
}

/// The bytes behind `%41` and `+`; what is no escape stands for itself.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        let escaped = (*first == b'%').then(|| rest.get(..2)).flatten().and_then(|hex| {
            let hex = std::str::from_utf8(hex).ok()?;
            u8::from_str_radix(hex, 16).ok()
        });
        match escaped {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[2..];
            }
            None => out.push(if *first == b'+' { b' ' } else { *first }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_half_ones_stand_for_themselves() {
        assert_eq!(percent_decoded("%7B%22a%22%3a1%7D+x%2"), b"{\"a\":1} x%2");
    }
}
