//! The connections of the gRPC ports: HTTP/2, without TLS, spoken at once.
//!
//! What strangers may do with HTTP/2 is bounded here, by settings with their reasons; what they may
//! say is the business of the service behind the port.

mod api;
mod uni;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::address::ClientAddress;
use super::gate::{Gate, Seat, Visitor};
use super::{Door, Front, refuse};
use crate::grpc::frame::{self, Whole};
use crate::grpc::status::{Code, Status};

/// Calls of one connection at once. A pool of workers shares one connection; whoever wants more
/// opens another, and each holds a request and its answer.
const STREAMS_MAX: u32 = 128;
/// Bytes of the head of a call, decompressed, which is also what bounds a header that goes on in
/// frame after frame: as much as HTTP/1.1 gets here.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// Calls that are taken back before anybody has looked at them (CVE-2023-44487); past it the
/// connection ends. Clients that time out take back some, and never a row of them at once.
const RESETS_PENDING_MAX: usize = 20;
/// Calls that we have to reset because what was sent is wrong; past it the connection ends.
const RESETS_OURS_MAX: usize = 64;
/// Bytes of one call, and of all calls of a connection, that may be on their way unread: what a
/// stranger can make us hold before anybody has asked for the key.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one answer that are handed on before the peer has taken those before.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// How often a silent peer is asked whether it is there, and how long it may take to say so: a
/// connection through a machine that forgot it is found out, and idle ones cost a packet.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request may take to come, and an answer to be taken. HTTP/2 lets a peer hold answers
/// back for ever without being silent.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for answers that are not taken, and for connections that have lost their
/// clients: those hold no seat and are not counted, so that they end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Serves one connection. Its permit is given back when it ends.
pub(super) async fn drive(
    front: Arc<Front>,
    socket: TcpStream,
    peer: SocketAddr,
    (door, visitor): (Door, Visitor),
) {
    let deadline = Instant::now() + front.settings().http.header_timeout;
    let from = ClientAddress::of_socket(peer);
    // Whoever the API's port lets in is one's own.
    if door == Door::UniGrpc {
        match front.admit_address(from.ip) {
            Ok(held) => visitor.seat.keep_address(held),
            Err(of) => {
                let words = refuse::too_many(&front, from.ip, of);
                return refuse::remember(&front, from.ip, 503, words);
            }
        }
    }
    let seat = Arc::clone(&visitor.seat);
    let calls = Arc::new(Calls {
        front: Arc::clone(&front),
        from,
        peer,
        door,
        holds_client: Notify::new(),
        seat: Arc::clone(&seat),
        gate: visitor.gate(),
        open: AtomicUsize::new(0),
        arrived: AtomicBool::new(false),
        places: Arc::new(Semaphore::new(STREAMS_MAX as usize)),
        answers: Mutex::default(),
        last_answer: AtomicU64::new(0),
    });
    let served = builder().serve_connection(TokioIo::new(socket), Served(Arc::clone(&calls)));
    let mut connection = pin!(served);
    let mut first = pin!(tokio::time::sleep_until(deadline));
    let mut told_to_go = pin!(seat.told_to_go());
    // While it sits among those who are no clients; afterwards its descriptor is paid for apart.
    let (mut visitor, mut paid) = (Some(visitor), None);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut goes = false;
    // It has said nothing yet.
    seat.silent();
    loop {
        tokio::select! {
            // Whatever ended it, the peer knows.
            _ = connection.as_mut() => break,
            () = &mut first, if !calls.arrived.load(Ordering::Relaxed) => break,
            () = &mut told_to_go => {
                refuse::say_reset(&front);
                break;
            }
            // Whoever calls again is to reach the process that serves: GOAWAY lets those calls end
            // that are under way, and a client opens another connection for the next one.
            () = front.common.pause.until_moved(), if !goes => {
                goes = true;
                connection.as_mut().graceful_shutdown();
            }
            () = calls.holds_client.notified(), if visitor.is_some() => {
                paid = seat.take_permit();
                visitor = None;
            }
            _ = look.tick() => {
                let is_left = visitor.is_none() && calls.open.load(Ordering::Relaxed) == 0;
                if calls.is_stuck() || (is_left && goes) {
                    break;
                }
                if is_left {
                    goes = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
    drop(paid);
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OURS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE);
    builder
}

/// What the calls of one connection share.
struct Calls {
    front: Arc<Front>,
    from: ClientAddress,
    peer: SocketAddr,
    door: Door,
    /// The first client has come over it.
    holds_client: Notify,
    seat: Arc<Seat>,
    gate: Arc<Gate>,
    /// Under way, until their answers are handed on.
    open: AtomicUsize,
    /// The first one has come.
    arrived: AtomicBool,
    /// Of calls that are carried out. One that its caller takes back goes on to its end, and keeps
    /// its place: nothing is left half done, and taking calls back makes no room for more.
    places: Arc<Semaphore>,
    /// When the answers that are not handed on yet were begun.
    answers: Mutex<BTreeMap<u64, Instant>>,
    last_answer: AtomicU64,
}

impl Calls {
    /// Whether the peer has not taken an answer for so long that it will not.
    fn is_stuck(&self) -> bool {
        let oldest = self.answers.lock().values().next().copied();
        oldest.is_some_and(|begun| begun.elapsed() >= ANSWER_PATIENCE)
    }

    fn begin(self: &Arc<Self>) -> Open {
        self.arrived.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.seat.busy(&self.gate);
        Open { calls: Arc::clone(self), answer: None }
    }
}

/// A call that is under way, until this is dropped.
struct Open {
    calls: Arc<Calls>,
    answer: Option<u64>,
}

impl Open {
    /// What is said is on its way to the peer.
    fn answered(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let number = self.calls.last_answer.fetch_add(1, Ordering::Relaxed);
        self.calls.answers.lock().insert(number, Instant::now());
        self.answer = Some(number);
    }

    /// The peer has taken all that was said.
    fn taken(&mut self) {
        if let Some(number) = self.answer.take() {
            self.calls.answers.lock().remove(&number);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.taken();
        let calls = &self.calls;
        calls.seat.busy(&calls.gate);
        if calls.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            calls.seat.silent();
        }
    }
}

/// What is sent back, and the call that is over with it.
struct Reply {
    said: Said,
    open: Open,
}

enum Said {
    Whole(Whole),
    Stream(Box<uni::Bridge>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { said, open } = &mut *self;
        let bridge = match said {
            Said::Whole(whole) => return Pin::new(whole).poll_frame(cx),
            Said::Stream(bridge) => bridge,
        };
        // Asked for more, the peer has taken what was said before; until then it is waited for.
        open.taken();
        let next = bridge.poll(cx);
        if next.is_ready() {
            open.answered();
        }
        next.map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match &self.said {
            Said::Whole(whole) => whole.is_end_stream(),
            Said::Stream(_) => false,
        }
    }
}

struct Served(Arc<Calls>);

impl Service<Request<Incoming>> for Served {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut open = self.0.begin();
        Box::pin(async move {
            let calls = Arc::clone(&open.calls);
            let failed = |status: Status| frame::failed(&status).map(Said::Whole);
            let answer = match (refused(&request), calls.door) {
                (Some(answer), _) => answer.map(Said::Whole),
                (None, Door::UniGrpc) => uni::consume(&calls, request)
                    .await
                    .map_or_else(failed, |bridge| frame::answered(Said::Stream(bridge.into()))),
                (None, _) => api::answer(&calls, request)
                    .await
                    .map_or_else(failed, |message| frame::done(&message).map(Said::Whole)),
            };
            open.answered();
            Ok(answer.map(|said| Reply { said, open }))
        })
    }
}

/// The answer to what is no call of gRPC (PROTOCOL-HTTP2.md, Requests).
fn refused(request: &Request<Incoming>) -> Option<Response<Whole>> {
    let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        let rest = kind.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest, b"" | b"+proto") || rest.starts_with(b";"))
    });
    let status = match (is_grpc, request.method()) {
        (true, &Method::POST) => return None,
        (true, _) => StatusCode::METHOD_NOT_ALLOWED,
        (false, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    };
    let mut answer = Response::new(Whole::default());
    *answer.status_mut() = status;
    Some(answer)
}

/// Reads the one message of a call.
async fn message(mut body: Incoming, max: usize) -> Result<Bytes, Status> {
    let wrong = |what: &str| Err(Status::new(Code::InvalidArgument, what));
    let read = async {
        let (mut buffer, mut message) = (BytesMut::new(), None);
        while let Some(read) = body.frame().await {
            let Ok(read) = read else { return wrong("the request broke off") };
            buffer.extend_from_slice(&read.into_data().unwrap_or_default());
            if message.is_none() {
                message = frame::take(&mut buffer, max)?;
            }
            if message.is_some() && !buffer.is_empty() {
                return wrong("there is more than one message in the request");
            }
        }
        message.map_or_else(|| wrong("the message is not whole"), Ok)
    };
    match tokio::time::timeout(REQUEST_PATIENCE, read).await {
        Ok(message) => message,
        Err(_) => wrong("the request took over 30 s"),
    }
}
