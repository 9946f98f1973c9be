//! One HTTP connection, from its first byte to its end or to its move into a shard.

use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::address::{ClientAddress, introduce};
use super::gate::{Gate, Seat, Visitor};
use super::upgrade::Move;
use super::{Answer, Door, Front, Outcome, Visit, refuse};
use crate::config::ProxyProtocol;
use crate::handoff::pause::Moved;
use crate::shard::{Adopt, Post};

/// Bytes of a request's head, and of what hyper reads ahead.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// What the service leaves word of.
#[derive(Default)]
struct Word {
    /// The first request's head has been read.
    arrived: AtomicBool,
    /// The connection is to move.
    departure: Mutex<Option<Box<Move>>>,
}

/// Serves one connection. Its permit is given back when it ends or has moved.
pub(crate) async fn drive(
    front: Arc<Front>,
    mut socket: TcpStream,
    peer: SocketAddr,
    door: Door,
    visitor: Visitor,
) {
    let http = &front.settings().http;
    // One deadline for everything that comes before the first request is understood.
    let deadline = Instant::now() + http.header_timeout;
    let Some(from) = introduced(&front, &mut socket, (peer, door), deadline, &visitor).await else {
        return;
    };
    // Whoever the internal port lets in is one's own.
    if door != Door::Internal {
        match front.admit_address(from.ip) {
            Ok(held) => visitor.seat.keep_address(held),
            Err(of) => return refuse::one_too_many(&front, socket, from.ip, of, &visitor).await,
        }
    }
    let word = Arc::<Word>::default();
    let seat = Arc::clone(&visitor.seat);
    let visits = Visits {
        front: Arc::clone(&front),
        word: Arc::clone(&word),
        peer,
        from,
        door,
        seat: Arc::clone(&seat),
        gate: visitor.gate(),
    };
    let mut first = pin!(tokio::time::sleep_until(deadline));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper's deadline for a head begins when it waits for one, so for the second request
        // and those after it, it is also how long an idle connection is kept.
        .header_read_timeout(http.keep_alive_timeout.max(http.header_timeout))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), visits);
    // A shard writes the answer to an upgrade, so the connection is left before hyper answers:
    // the service never resolves then, and this is polled until it has left word.
    let mut told_to_go = pin!(seat.told_to_go());
    let mut goes = false;
    let mut trouble = None;
    let moved = {
        let mut connection = pin!(&mut connection);
        poll_fn(|cx| {
            let end = connection.poll_without_shutdown(cx);
            let ended = end.is_ready();
            if let Poll::Ready(Err(error)) = end {
                trouble = Some(error);
            }
            let mut late =
                || !word.arrived.load(Ordering::Relaxed) && first.as_mut().poll(cx).is_ready();
            match word.departure.lock().take() {
                Some(to) => return Poll::Ready(Some(to)),
                None if ended || late() => return Poll::Ready(None),
                None => {}
            }
            if !word.arrived.load(Ordering::Relaxed) {
                visitor.silent();
            }
            goes = told_to_go.as_mut().poll(cx).is_ready();
            if goes { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    };
    let parts = connection.into_parts();
    if let Some(to) = moved {
        hand_over(&front, parts.io.into_inner(), parts.read_buf, *to).await;
    } else if goes {
        refuse::make_way(&front, parts.io.inner());
    } else if !word.arrived.load(Ordering::Relaxed) {
        front.listener(door, &front.settings()).no_request(from, &parts.read_buf);
        refuse::note_unread(&front, from.ip, trouble.as_ref(), !parts.read_buf.is_empty());
    } else {
        refuse::note_unread(&front, from.ip, trouble.as_ref(), false);
    }
    drop(visitor);
}

/// Who has connected, behind the PROXY header where one is wanted. None: it is over.
async fn introduced(
    front: &Front,
    socket: &mut TcpStream,
    (peer, door): (SocketAddr, Door),
    deadline: Instant,
    visitor: &Visitor,
) -> Option<ClientAddress> {
    let settings = front.settings();
    let listener = front.listener(door, &settings);
    if listener.protocol == ProxyProtocol::Off {
        return Some(ClientAddress::of_socket(peer));
    }
    visitor.silent();
    let from = tokio::select! {
        from = introduce(listener, socket, peer, deadline) => from,
        () = visitor.seat.told_to_go() => {
            refuse::make_way(front, socket);
            None
        }
    };
    visitor.busy();
    from
}

/// Gives the socket to the shard that was chosen for it.
async fn hand_over(front: &Front, socket: TcpStream, read_ahead: bytes::Bytes, to: Move) {
    // Leaving tokio's event queue fails only with the queue itself; the client reconnects.
    let Ok(socket) = socket.into_std() else { return };
    let Move { shard, head, framing, deflate, open, permit, address } = to;
    // What comes while everything is frozen waits, and goes to whoever serves then.
    let _pass = match front.common.pause.enter().await {
        Ok(pass) => pass,
        Err(Moved(outlet)) => {
            outlet.arrival(
                crate::handoff::put_arrival((head, framing, deflate), read_ahead, open),
                socket.into(),
            );
            return;
        }
    };
    let number = front.number();
    let adopt = Adopt { socket, permit, address, head, framing, deflate, read_ahead, number, open };
    if let Some(mailbox) = front.common.shards.get(shard) {
        mailbox.post(Post::Adopt(Box::new(adopt)));
    }
}

/// The requests of one connection.
struct Visits {
    front: Arc<Front>,
    word: Arc<Word>,
    peer: SocketAddr,
    /// Who connected, or for whom a trusted proxy did.
    from: ClientAddress,
    door: Door,
    seat: Arc<Seat>,
    gate: Arc<Gate>,
}

impl Service<hyper::Request<hyper::body::Incoming>> for Visits {
    type Response = Answer;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Self::Error>> + Send>>;

    fn call(&self, request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        let front = Arc::clone(&self.front);
        let word = Arc::clone(&self.word);
        let settings = front.settings();
        let (proxies, headers) = (&settings.proxies, request.headers());
        if !word.arrived.swap(true, Ordering::Relaxed) {
            front.undeclared.note(self.from, headers, proxies, &front.common.log);
        }
        let address = self.from.of_request(proxies, headers);
        self.seat.busy(&self.gate);
        let (seat, gate) = (Arc::clone(&self.seat), Arc::clone(&self.gate));
        let (peer, door) = (self.peer, self.door);
        let visit = Visit { request, peer, address, door, seat: Arc::clone(&seat) };
        Box::pin(async move {
            // Large, and moved once more than it is waited for.
            match Box::pin(front.visit(visit)).await {
                Outcome::Answered(mut answer) => {
                    if front.has_moved() {
                        // The next one is to go to the process that serves.
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(header::CONNECTION, close);
                    }
                    seat.busy(&gate);
                    seat.silent();
                    Ok(answer)
                }
                Outcome::Upgraded(to) => {
                    *word.departure.lock() = Some(to);
                    pending().await
                }
            }
        })
    }
}
