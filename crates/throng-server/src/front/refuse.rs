//! Tells clients that no more of them fit, outside of hyper: a crowd that is refused again and
//! again must cost next to nothing.
//!
//! The head is only peeked at. Who turns out to want something else (the API, health, a page) is
//! served in the ordinary way, with every byte still in its socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use throng_wire::websocket::{accept_key, put_close};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::address::{Listener, Peeked};
use super::gate::{Visitor, reset};
use super::{Door, Front, drive, stream};
use crate::addresses::TooMany;
use crate::clock::Clock;
use crate::config::{Refuse, Settings};
use crate::log::line;
use crate::ring::Refused;

/// Bytes of a head that are looked at, with a PROXY header in front of it; a longer one is hyper's
/// to judge.
const HEAD_BYTES_MAX: usize = 4096;
/// How long a head may take here. A normal client's is there with its first packet.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a client may take to answer a close.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// What is said in a close frame.
const CLOSE: (u16, &str) = (3013, FULL);

/// What a head turns out to be.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// The rest has to be waited for.
    Incomplete,
    /// A client's handshake, with its key, or its request for a stream.
    Client(Option<String>),
    Other,
}

/// Serves a connection that came when no client fitted.
pub(crate) async fn receive(
    front: Arc<Front>,
    socket: TcpStream,
    peer: SocketAddr,
    door: Door,
    visitor: Visitor,
) {
    let head = tokio::select! {
        head = tokio::time::timeout(HEAD_TIME, peek(&front, &socket, (peer, door), &visitor)) => head,
        () = visitor.seat.told_to_go() => return make_way(&front, &socket),
    };
    visitor.busy();
    match (head, why(&front)) {
        (Ok(Ok(Look { head: Head::Client(key), from })), Some(why)) => {
            refuse(&front, socket, Turned { from, why }, key, &visitor).await;
        }
        (Ok(Ok(_)), _) => {
            visitor.is_served();
            drive(front, socket, peer, door, visitor).await;
        }
        (Ok(Err(_)) | Err(_), _) => reset(&socket),
    }
}

/// Why the next client would be turned away, if it would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// No descriptor is left for it, or no more clients are wanted.
    Full,
    /// `client.connection_rate_limit` is reached in this second.
    Rate,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::Full => FULL,
            Self::Rate => TOO_FAST,
        }
    }
}

/// Who is turned away, and why.
#[derive(Debug, Clone, Copy)]
struct Turned {
    from: IpAddr,
    why: Why,
}

fn why(front: &Front) -> Option<Why> {
    // Who comes while the server stops is told so by those who serve.
    if front.is_draining() {
        None
    } else if front.clients.is_full() {
        Some(Why::Full)
    } else {
        front.is_too_fast().then_some(Why::Rate)
    }
}

/// Whether the next client would be turned away.
pub(super) fn turns_away(front: &Front) -> bool {
    why(front).is_some()
}

/// Refuses a client whose head is there already, without a task and without waiting. Gives back
/// whoever has to be waited for, or wants something else.
pub(crate) fn at_once(
    front: &Front,
    socket: std::net::TcpStream,
    peer: SocketAddr,
    door: Door,
    visitor: &Visitor,
) -> Option<std::net::TcpStream> {
    if let Ok(Look { head: Head::Client(_), from }) = look(front, &socket, (peer, door))
        && let Some(why) = why(front).filter(|why| !closes(front, *why))
    {
        turn_down(front, &socket, Turned { from, why }, visitor);
        return None;
    }
    Some(socket)
}

/// Waits for a head without taking it from the socket.
async fn peek(
    front: &Front,
    socket: &TcpStream,
    came: (SocketAddr, Door),
    visitor: &Visitor,
) -> io::Result<Look> {
    let is_nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let look = || {
        let head = look(front, socket, came);
        if head.as_ref().is_err_and(is_nothing) {
            visitor.silent();
        }
        head
    };
    match look() {
        // Nothing was taken, so readiness ends only by saying that there is nothing: the next
        // bytes that arrive begin it anew.
        Err(error) if is_nothing(&error) => socket.async_io(Interest::READABLE, look).await,
        head => head,
    }
}

/// What was seen, and who has sent it.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    head: Head,
    /// Who connected, or for whom a trusted proxy says that it did. The head is not read for more:
    /// this must cost next to nothing.
    from: IpAddr,
}

/// What the bytes that have arrived are; `WouldBlock` while they are not enough.
fn look(front: &Front, socket: &impl AsFd, (peer, door): (SocketAddr, Door)) -> io::Result<Look> {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let count = recv(socket, &mut bytes[..], RecvFlags::PEEK)?.0;
    let settings = front.settings();
    let look = look_of(&bytes[..count], &settings, front.listener(door, &settings), (peer, door));
    match look.head {
        // It has gone, or half of it; there is nobody to answer.
        Head::Incomplete if count == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        Head::Incomplete if count < HEAD_BYTES_MAX => Err(io::ErrorKind::WouldBlock.into()),
        Head::Incomplete => Ok(Look { head: Head::Other, ..look }),
        _ => Ok(look),
    }
}

fn look_of(
    bytes: &[u8],
    settings: &Settings,
    listener: Listener<'_>,
    (peer, door): (SocketAddr, Door),
) -> Look {
    let own = peer.ip().to_canonical();
    match listener.peek(own, bytes) {
        Peeked::Behind { from, bytes: behind } => {
            Look { head: head_of(&bytes[behind..], settings, door), from }
        }
        Peeked::Incomplete => Look { head: Head::Incomplete, from: own },
        // Who serves takes the header off, and says what is wrong with it.
        Peeked::Wrong => Look { head: Head::Other, from: own },
    }
}

fn head_of(bytes: &[u8], settings: &Settings, door: Door) -> Head {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = lines.next().unwrap_or_default();
    if !bytes.contains(&b'\n') {
        let may_be = |method: &[u8]| method.starts_with(bytes) || bytes.starts_with(method);
        return if may_be(b"GET ") || may_be(b"POST ") { Head::Incomplete } else { Head::Other };
    }
    let mut words = first.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let wanted = wanted_at(method, path, settings).filter(|_| door.shows_clients());
    let Some(wanted) = wanted else { return Head::Other };
    // What some clients leave out, the carriage return, is no reason to keep them waiting.
    let Some(end) = (0..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        let blank: &[&[u8]] = &[b"\n\r\n", b"\n\n"];
        blank.iter().find(|blank| rest.starts_with(blank)).map(|blank| at + blank.len())
    }) else {
        return Head::Incomplete;
    };
    let fields = Fields::read(lines);
    match wanted {
        Wanted::Upgrade if fields.upgrades => Head::Client(fields.key),
        Wanted::Upgrade => Head::Other,
        Wanted::Stream => match fields.body_bytes {
            // Closing a socket before its request has come whole resets it, and the answer is lost.
            Some(body) if bytes.len() - end >= body => Head::Client(None),
            Some(body) if end.saturating_add(body) < HEAD_BYTES_MAX => Head::Incomplete,
            Some(_) | None => Head::Other,
        },
    }
}

/// What a client may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Upgrade,
    /// A long response.
    Stream,
}

fn wanted_at(method: &[u8], path: &[u8], settings: &Settings) -> Option<Wanted> {
    let (websocket, uni) = (&settings.websocket, &settings.uni_websocket);
    let upgrades = (websocket.enabled && path == websocket.path.as_bytes())
        || (uni.enabled && path == uni.path.as_bytes());
    if upgrades && method == b"GET" {
        return Some(Wanted::Upgrade);
    }
    let way = stream::at(settings, path)?;
    way.takes(method).then_some(Wanted::Stream)
}

/// The fields of a head that count here.
struct Fields {
    upgrades: bool,
    key: Option<String>,
    /// None: it cannot be told how long the body is.
    body_bytes: Option<usize>,
}

impl Fields {
    fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut fields = Self { upgrades: false, key: None, body_bytes: Some(0) };
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let text = || std::str::from_utf8(value).ok();
            if name.eq_ignore_ascii_case(b"upgrade") {
                fields.upgrades |= value.eq_ignore_ascii_case(b"websocket");
            } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
                fields.key = text().map(str::to_owned);
            } else if name.eq_ignore_ascii_case(b"content-length") {
                fields.body_bytes = text().and_then(|bytes| bytes.parse().ok());
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                fields.body_bytes = None;
            }
        }
        fields
    }
}

/// Says no, in the way that is configured.
async fn refuse(
    front: &Front,
    mut socket: TcpStream,
    turned: Turned,
    key: Option<String>,
    visitor: &Visitor,
) {
    let Some(key) = key.filter(|_| closes(front, turned.why)) else {
        turn_down(front, &socket, turned, visitor);
        return;
    };
    count(front, turned, CLOSE.0);
    take_head(&socket);
    let told = close(&mut socket, &key);
    tokio::select! {
        // Both ends of it are the end of the connection.
        _ = tokio::time::timeout(CLOSE_TIME, told) => {}
        () = visitor.seat.told_to_go() => {}
    }
}

/// Answers with 503.
fn turn_down(front: &Front, socket: &impl AsFd, turned: Turned, visitor: &Visitor) {
    count(front, turned, 503);
    take_head(socket);
    let answer = answer(turned.why.words(), visitor.gate().retry_after_s());
    // It fits into the empty buffer of a new socket; who has gone needs no answer.
    send(socket, answer.as_bytes(), SendFlags::NOSIGNAL).ok();
}

/// For the log, and for `throng who` and `status`.
fn count(front: &Front, turned: Turned, status: u16) {
    match turned.why {
        Why::Full => {
            front.gate.refused.fetch_add(1, Ordering::Relaxed);
            say_full(front);
        }
        Why::Rate => say_too_fast(front),
    }
    remember(front, turned.from, status, turned.why.words());
}

pub(super) fn remember(front: &Front, from: IpAddr, status: u16, reason: &'static str) {
    debug_assert!(crate::metrics::is_known_reason(reason), "{reason} has no label");
    let at_s = Clock::second_of(front.clock.now());
    front.common.ring.refused(Refused { at_s, address: Some(from), status, reason: reason.into() });
}

/// Whether the answer is a close that a page can read. It says that the server is full, so who came
/// too fast is told otherwise.
fn closes(front: &Front, why: Why) -> bool {
    front.settings().limits.refuse == Refuse::Close && why == Why::Full
}

/// Takes what was peeked at from the socket: closing one with unread bytes would reset it, and the
/// answer be lost.
fn take_head(socket: &impl AsFd) {
    let mut head = [0; HEAD_BYTES_MAX];
    // Who has gone meanwhile needs no answer, and gets none.
    recv(socket, &mut head[..], RecvFlags::empty()).ok();
}

/// One line every ten seconds, with how many so far: why clients are refused, and what would help.
pub(super) fn say_full(front: &Front) {
    if !front.gate.may_say_full() {
        return;
    }
    let refused = front.gate.refused.load(Ordering::Relaxed);
    let log = &front.common.log;
    let limit = front.settings().client.connection_limit as u64;
    let ceiling = front.clients.ceiling();
    if limit > 0 && front.clients.open() >= limit {
        line!(log, Warn, "full", "503 clients are refused: client.connection_limit is reached"; limit = limit, refused = refused);
    } else {
        line!(log, Warn, "full", "503 clients are refused: no descriptor is left for one more; raise the limit of this process (prlimit --pid {} --nofile=N works at once)", std::process::id(); ceiling = ceiling, refused = refused);
    }
}

/// As often.
pub(super) fn say_too_fast(front: &Front) {
    if front.gate.may_say_too_fast() {
        let limit = front.settings().client.connection_rate_limit as u64;
        line!(front.common.log, Warn, "rate", "503 clients are refused: more come than client.connection_rate_limit allows per second"; limit = limit);
    }
}

/// Says that an address has too much of something, and gives back the words for whoever asked.
pub(super) fn too_many(front: &Front, address: IpAddr, of: TooMany) -> &'static str {
    let option = match of {
        TooMany::Connections => "limits.per_address.connections",
        TooMany::Arrivals => "limits.per_address.rate",
    };
    line!(front.common.log, Warn, "address", "503 connections of one address are refused: {} is reached; if many people share the address, raise it", option; address = address.to_string().as_str());
    ADDRESS
}

/// Answers whoever is one too many of an address, whatever it asks for.
pub(super) async fn one_too_many(
    front: &Front,
    mut socket: TcpStream,
    from: IpAddr,
    of: TooMany,
    visitor: &Visitor,
) {
    let words = too_many(front, from, of);
    remember(front, from, 503, words);
    let answer = answer(words, visitor.gate().retry_after_s());
    let told = async {
        let mut head = vec![0; HEAD_BYTES_MAX];
        // The answer must not overtake the question.
        if socket.read(&mut head).await? == 0 {
            return Ok(());
        }
        visitor.busy();
        last_words(&mut socket, answer.as_bytes()).await
    };
    visitor.silent();
    let told = tokio::select! {
        told = tokio::time::timeout(CLOSE_TIME, told) => told,
        () = visitor.seat.told_to_go() => Ok(Ok(())),
    };
    // Who has asked nothing gets no answer.
    if !matches!(told, Ok(Ok(()))) {
        reset(&socket);
    }
}

/// Takes note of a request that could not be read: hyper has answered it, where it can be answered.
/// `begun`: it began, and did not end in time.
pub(super) fn note_unread(front: &Front, from: IpAddr, why: Option<&hyper::Error>, begun: bool) {
    let (status, reason) = match why {
        Some(why) if why.is_parse_too_large() => (431, "the request's head is too large"),
        Some(why) if why.is_parse() => (400, "what came is not a request of HTTP"),
        // Deadlines end a connection without an error of hyper's.
        None if begun => (408, "the request's head did not come in time"),
        // Who goes away has no answer to be told of, and who was idle long enough did nothing wrong.
        Some(_) | None => return,
    };
    remember(front, from, status, reason);
    line!(front.common.log, Warn, "http.unread", "{} a request was refused: {}; a client of yours does not do that: a scanner, or something that speaks no HTTP or too much of it", status, reason; addr = &from as &dyn std::fmt::Display);
}

/// Resets a connection that has to make room: it has asked nothing for the longest time.
pub(super) fn make_way(front: &Front, socket: &impl AsFd) {
    reset(socket);
    say_reset(front);
}

/// Says that this happens.
pub(super) fn say_reset(front: &Front) {
    if front.gate.may_say_reset() {
        let so_far = front.gate.reset.load(Ordering::Relaxed);
        line!(front.common.log, Warn, "front.reset", "connections are reset to make room for others, those first that have asked nothing for the longest time"; reset = so_far);
    }
}

/// The reasons: neither limits nor paths are a stranger's business.
pub(super) const FULL: &str = "server full";
pub(super) const TOO_FAST: &str = "too many clients come at once";
const ADDRESS: &str = "too many connections of your address";

fn answer(words: &str, retry_after_s: u32) -> String {
    // {"error":"..."}
    let length = words.len() + 12;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_s}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n\
         {{\"error\":\"{words}\"}}"
    )
}

/// Completes the handshake only to close: a page cannot read a 503, but it can read a close.
async fn close(socket: &mut TcpStream, key: &str) -> io::Result<()> {
    let mut bytes = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    )
    .into_bytes();
    put_close(CLOSE.0, CLOSE.1, &mut bytes);
    last_words(socket, &bytes).await
}

/// Writes, and waits for the other side's end.
async fn last_words(socket: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    socket.write_all(words).await?;
    socket.shutdown().await?;
    // What it says meanwhile is taken: a socket with unread bytes would be reset.
    let mut dropped = [0; 512];
    while socket.read(&mut dropped).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn check(head: &str, wanted: &Head) {
        let settings = load(Sources { dev: true, ..Sources::default() }).settings.unwrap();
        assert_eq!(head_of(head.as_bytes(), &settings, Door::Both), *wanted, "{head:?}");
    }

    const UPGRADE: &str = "GET /connection/websocket?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nsec-websocket-key: k==\r\n\r\n";

    #[test]
    fn a_handshake_is_told_from_everything_else() {
        check(UPGRADE, &Head::Client(Some("k==".to_owned())));
        check(&UPGRADE.replace("\r\n", "\n"), &Head::Client(Some("k==".to_owned())));
        check("GET /health HTTP/1.1\r\n", &Head::Other);
        check("POST /api/publish HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", &Head::Other);
        check("GET /connection/websocket HTTP/1.1\r\nHost: a\r\n\r\n", &Head::Other);
        check("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET", &Head::Other);
        check("\u{0}\u{1}", &Head::Other);
        check("PU", &Head::Other);
    }

    #[test]
    fn every_beginning_of_a_handshake_is_waited_with() {
        for end in 0..UPGRADE.len() - 1 {
            check(&UPGRADE[..end], &Head::Incomplete);
        }
    }

    #[test]
    fn a_request_for_a_stream_is_a_client_when_its_body_is_there() {
        let client = Head::Client(None);
        check("GET /connection/uni_sse?cf_connect=%7B%7D HTTP/1.1\r\nHost: a\r\n\r\n", &client);
        check("GET /connection/sse HTTP/1.0\r\n\r\n", &client);
        let posted = "POST /connection/http_stream HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        check(posted, &client);
        for end in 0..posted.len() {
            check(&posted[..end], &Head::Incomplete);
        }
        check(&posted.replace(": 2", ": 5000"), &Head::Other);
        check(&posted.replace(": 2", ": 18446744073709551615"), &Head::Other);
        check(&posted.replace(": 2", ": x"), &Head::Other);
        check(&posted.replace("Content-Length: 2", "Transfer-Encoding: chunked"), &Head::Other);
        check("GET /connection/http_stream HTTP/1.1\r\n\r\n", &Head::Other);
        check("OPTIONS /connection/http_stream HTTP/1.1\r\n\r\n", &Head::Other);
        check("POST /emulation HTTP/1.1\r\n", &Head::Other);
    }

    #[test]
    fn the_answer_is_whole_and_says_nothing_of_the_limit() {
        let answer = answer(FULL, 3);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 3"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(body, r#"{"error":"server full"}"#);
    }
}
