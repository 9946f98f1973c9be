//! Tells clients that no more of them fit, outside of hyper: a crowd that is refused again and
//! again must cost next to nothing.
//!
//! The head is only peeked at. Who turns out to want something else (the API, health, a page) is
//! served in the ordinary way, with every byte still in its socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use throng_wire::websocket::{accept_key, put_close};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::gate::{Visitor, reset};
use super::{Door, Front, drive, stream};
use crate::clock::Clock;
use crate::config::{Refuse, Settings};
use crate::log::line;
use crate::ring::Refused;

/// Bytes of a head that are looked at; a longer one is hyper's to judge.
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
        head = tokio::time::timeout(HEAD_TIME, peek(&front, &socket, door, &visitor)) => head,
        () = visitor.seat.told_to_go() => {
            reset(&socket);
            return;
        }
    };
    visitor.busy();
    match head {
        Ok(Ok(Head::Client(key))) if is_full(&front) => {
            refuse(&front, socket, peer, key, &visitor).await;
        }
        Ok(Ok(_)) => {
            visitor.is_served();
            drive(front, socket, peer, door, visitor).await;
        }
        Ok(Err(_)) | Err(_) => reset(&socket),
    }
}

/// Whether the next client would be refused.
fn is_full(front: &Front) -> bool {
    !front.is_draining() && !front.clients.fits_client()
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
    let head = look(front, &socket, door);
    if matches!(head, Ok(Head::Client(_))) && !closes(front) && is_full(front) {
        turn_down(front, &socket, peer, visitor);
        return None;
    }
    Some(socket)
}

/// Waits for a head without taking it from the socket.
async fn peek(
    front: &Front,
    socket: &TcpStream,
    door: Door,
    visitor: &Visitor,
) -> io::Result<Head> {
    let is_nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let look = || {
        let head = look(front, socket, door);
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

/// What the bytes that have arrived are; `WouldBlock` while they are not enough.
fn look(front: &Front, socket: &impl AsFd, door: Door) -> io::Result<Head> {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let count = recv(socket, &mut bytes[..], RecvFlags::PEEK)?.0;
    match head_of(&bytes[..count], front.settings(), door) {
        // It has gone, or half of it; there is nobody to answer.
        Head::Incomplete if count == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        Head::Incomplete if count < HEAD_BYTES_MAX => Err(io::ErrorKind::WouldBlock.into()),
        Head::Incomplete => Ok(Head::Other),
        head => Ok(head),
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
    peer: SocketAddr,
    key: Option<String>,
    visitor: &Visitor,
) {
    let Some(key) = key.filter(|_| closes(front)) else {
        turn_down(front, &socket, peer, visitor);
        return;
    };
    visitor.gate().refused.fetch_add(1, Ordering::Relaxed);
    say_full(front);
    remember(front, peer, CLOSE.0);
    take_head(&socket);
    let told = close(&mut socket, &key);
    tokio::select! {
        // Both ends of it are the end of the connection.
        _ = tokio::time::timeout(CLOSE_TIME, told) => {}
        () = visitor.seat.told_to_go() => {}
    }
}

/// Answers with 503.
fn turn_down(front: &Front, socket: &impl AsFd, peer: SocketAddr, visitor: &Visitor) {
    let gate = visitor.gate();
    gate.refused.fetch_add(1, Ordering::Relaxed);
    say_full(front);
    remember(front, peer, 503);
    take_head(socket);
    let answer = answer(gate.retry_after_s());
    // It fits into the empty buffer of a new socket; who has gone needs no answer.
    send(socket, answer.as_bytes(), SendFlags::NOSIGNAL).ok();
}

/// For `throng who` and `status`. The head is not read for the address behind a proxy: this must
/// cost next to nothing.
fn remember(front: &Front, peer: SocketAddr, status: u16) {
    front.common.ring.refused(Refused {
        at_s: Clock::second_of(front.clock.now()),
        address: Some(peer.ip().to_canonical()),
        status,
        reason: FULL,
    });
}

fn closes(front: &Front) -> bool {
    front.settings().limits.refuse == Refuse::Close
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
    if !front.gate.may_say() {
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

/// The reason: neither limits nor paths are a stranger's business.
pub(super) const FULL: &str = "server full";
/// The same as the body of an answer.
const REASON: &str = "{\"error\":\"server full\"}";

fn answer(retry_after_s: u32) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_s}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{REASON}",
        REASON.len()
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
    socket.write_all(&bytes).await?;
    socket.shutdown().await?;
    // Its first command and its close are on their way; a socket with unread bytes would be reset.
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
        let answer = answer(3);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 3"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(body, r#"{"error":"server full"}"#);
    }
}
