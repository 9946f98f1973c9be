//! The transports that are one long HTTP response: what is checked, and the head that the shard will
//! write.
//!
//! Such a response has no length and no chunks: it ends where its connection ends (RFC 9112 6.3). So
//! every client is sent the same bytes, those who speak HTTP/1.0 too, and a publication is wrapped
//! once for all of them. That an end came too early is no danger: the protocol has a farewell.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use throng_wire::dialect;
use throng_wire::framing::Framing;

use super::body::{self, Most};
use super::cors::Page;
use super::upgrade::{Because, Move, Query, admit, arrived, busy, open, percent_decoded, remember};
use super::{Answer, Front, Outcome, Visit, text, words};
use crate::config::{Settings, Stream};
use crate::rng::secret_uuid;
use crate::session::{Kind, Open};

/// A transport of this kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'s> {
    pub(super) stream: &'s Stream,
    pub(super) kind: Kind,
    framing: Framing,
    /// Its options' place.
    pub(super) section: &'static str,
    body_option: &'static str,
}

/// All of them, those that are off too.
pub(super) fn ways(settings: &Settings) -> [Way<'_>; 4] {
    let (both, one) = (Kind::Bidirectional, Kind::Unidirectional);
    [
        (&settings.sse, both, Framing::Sse, "sse", "sse.max_request_body_size"),
        (
            &settings.http_stream,
            both,
            Framing::Lines,
            "http_stream",
            "http_stream.max_request_body_size",
        ),
        (&settings.uni_sse, one, Framing::Sse, "uni_sse", "uni_sse.max_request_body_size"),
        (
            &settings.uni_http_stream,
            one,
            Framing::Lines,
            "uni_http_stream",
            "uni_http_stream.max_request_body_size",
        ),
    ]
    .map(|(stream, kind, framing, section, body_option)| Way {
        stream,
        kind,
        framing,
        section,
        body_option,
    })
}

/// The one at this path, if it is on.
pub(super) fn at<'s>(settings: &'s Settings, path: &[u8]) -> Option<Way<'s>> {
    ways(settings).into_iter().find(|way| way.stream.enabled && way.stream.path.as_bytes() == path)
}

impl Way<'_> {
    /// Whether a request of this method opens it.
    pub(super) fn takes(self, method: &[u8]) -> bool {
        method == b"POST" || (method == b"GET" && self.framing == Framing::Sse)
    }

    /// What `Allow` says.
    fn methods(self) -> &'static str {
        if self.takes(b"GET") { "GET, POST, OPTIONS" } else { "POST, OPTIONS" }
    }
}

/// Answers a request for one of them, or lets it move.
pub(super) async fn answer(front: &Front, visit: Visit, way: Way<'_>) -> Outcome {
    let ip = visit.address.ip;
    let page = match Page::of(front, visit.request.headers(), ip) {
        Ok(page) => page,
        Err(answer) => return Outcome::Answered(*answer),
    };
    let method = visit.request.method();
    if method == Method::OPTIONS {
        return Outcome::Answered(page.preflight(way.methods()));
    }
    if !way.takes(method.as_str().as_bytes()) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "a stream is opened with POST\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(way.methods()));
        return Outcome::Answered(page.may_read(answer));
    }
    match checked(front, visit, way, &page).await {
        Ok(to) => Outcome::Upgraded(Box::new(to)),
        Err(answer) => {
            remember(front, ip, &answer);
            Outcome::Answered(page.may_read(*answer))
        }
    }
}

async fn checked(
    front: &Front,
    visit: Visit,
    way: Way<'_>,
    page: &Page,
) -> Result<Move, Box<Answer>> {
    let Visit { request, peer, address, seat, .. } = visit;
    let (parts, body) = request.into_parts();
    let way = match (is_protobuf(&parts), way.framing, way.kind) {
        (false, ..) => way,
        (true, Framing::Lines, Kind::Bidirectional) => Way { framing: Framing::Lengths, ..way },
        (true, ..) => {
            return Err(wrong(
                "this path speaks JSON only; Protobuf is spoken at the path of http_stream, and on a \
                 WebSocket\n",
            ));
        }
    };
    let most = Most { bytes: way.stream.body_max, option: way.body_option };
    let first = first(&parts, way, body::read(body, most, (&seat, &front.gate)).await?)?;
    let (permit, held) = admit(front, address, &seat).await?;
    arrived(front, address.ip, peer);
    let session = secret_uuid().map_err(|_| busy(front, "the system has no randomness"))?;
    let head = head(front, way, page);
    // Where who is not let in is answered with a status, nothing is said until that is known.
    let (now, later) = match way.stream.refusals {
        Some(_) => (Bytes::new(), Some(head)),
        None => (head, None),
    };
    Ok(Move {
        shard: front.next_shard(),
        head: now,
        framing: way.framing,
        deflate: None,
        open: Open {
            session: Some(session),
            connect: Some(first),
            head: later,
            ..open(front, &parts.headers, way.kind, address)
        },
        permit,
        address: held,
    })
}

/// RFC 9110 8.3: what the body is, where a client says so.
pub(super) fn is_protobuf(parts: &Parts) -> bool {
    parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"))
}

/// What the client says first: in the body, or in the address.
fn first(parts: &Parts, way: Way<'_>, body: Bytes) -> Result<Bytes, Box<Answer>> {
    let in_address = || {
        let query = Query(parts.uri.query().unwrap_or_default());
        query.get("cf_connect").map(percent_decoded).unwrap_or_default().into()
    };
    let first = if body.is_empty() { in_address() } else { body };
    match way.kind {
        // Who asks for nothing gets what everybody gets.
        Kind::Unidirectional if first.is_empty() => Ok(Bytes::from_static(b"{}")),
        Kind::Unidirectional => match dialect::connect_request(&first) {
            Ok(_) => Ok(first),
            Err(malformed) => {
                Err(wrong(format!("the connect request is not readable: {malformed}\n")))
            }
        },
        Kind::Bidirectional if first.is_empty() => Err(wrong(
            "the connect command is missing; it belongs into the request's body or, with GET, into \
             the address as ?cf_connect=\n",
        )),
        Kind::Bidirectional => Ok(first),
    }
}

fn wrong(said: impl Into<Bytes>) -> Box<Answer> {
    let mut answer = words(StatusCode::BAD_REQUEST, said);
    answer.extensions_mut().insert(Because("the request that opens a stream is wrong"));
    Box::new(answer)
}

/// The head of the response.
fn head(front: &Front, way: Way<'_>, page: &Page) -> Bytes {
    let unix_ms = u64::try_from(front.clock.now().unix_ms).unwrap_or(0);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(unix_ms));
    let content = match way.framing {
        Framing::Sse => "text/event-stream; charset=utf-8",
        Framing::Lengths => "application/octet-stream",
        Framing::WebSocket | Framing::Binary | Framing::Lines => "application/x-ndjson",
    };
    // Nobody between may keep, hold back or change what is said.
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {content}\r\nConnection: close\r\n\
         Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
         Pragma: no-cache\r\nExpires: 0\r\nX-Accel-Buffering: no\r\n"
    )
    .into_bytes();
    for (name, value) in page.fields() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    if way.framing == Framing::Sse {
        // An empty line is no event, and the first bytes of the body tell a page that it is open.
        head.extend_from_slice(b"\r\n");
    }
    head.into()
}
