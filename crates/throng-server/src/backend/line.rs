//! The connections to one backend: kept alive, bounded, and each used by one call at a time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use throng_limits::{Budget, Lane};
use tokio::sync::Semaphore;

use super::answer::{self, Answer};
use super::dial;
use super::grpc::Shared;
use super::meter::{ByKind, Meter, Metered};
use super::{Ask, Call};
use crate::config::{Backend, Scheme};

/// Bytes of one answer; more is no answer to what is asked here.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections without a call that are kept, each of them a descriptor.
const IDLE_MAX: usize = 16;
/// How long: less than what servers in use wait before they close by themselves.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// Calls that wait for a place, per place: at more than that the last would time out anyway.
const WAITING_PER_PLACE: usize = 8;

/// What is known of one backend's calls.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) backend: Backend,
    places: Semaphore,
    waiting: AtomicUsize,
    idle: Mutex<Vec<Idle>>,
    meter: Meter,
    pub(super) calls: ByKind,
    /// Pays for its connections.
    pub(super) budget: Budget,
    /// Where it speaks gRPC.
    pub(super) shared: Shared,
}

/// What came back, before it is understood.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

/// Why a call on one connection came to nothing.
pub(super) enum Broken {
    /// Not a byte of the request was sent.
    Unsent(String),
    /// The connection ended before a byte of the answer.
    Unanswered(String),
    /// Anything else.
    Failed(String),
}

impl Line {
    pub(super) fn new(backend: Backend, budget: Budget) -> Self {
        Self {
            places: Semaphore::new(backend.max_in_flight),
            backend,
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
            meter: Meter::default(),
            calls: ByKind::default(),
            budget,
            shared: Shared::default(),
        }
    }

    /// Makes a call, and takes note of how it went. The error is a sentence for the log.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, String> {
        let begun = Instant::now();
        let calls = &self.calls[call.kind as usize];
        let under_way = calls.begin();
        let understood = self.ask(call).await.and_then(|arrived| self.understand(&arrived));
        drop(under_way);
        calls.note(begun.elapsed(), understood.is_err());
        self.meter.note(begun.elapsed(), &understood);
        understood
    }

    /// What an answer means.
    pub(super) fn understand(&self, arrived: &Arrived) -> Result<Answer, String> {
        answer::read(arrived, &self.backend)
    }

    /// How its calls go.
    pub(super) fn metered(&self) -> Metered {
        let max = self.backend.max_in_flight;
        let under_way = max.saturating_sub(self.places.available_permits());
        self.meter.read(&self.backend, (under_way, self.waiting.load(Ordering::Relaxed)))
    }

    /// Asks, once there is a place, and waits for the answer.
    pub(super) async fn ask(&self, call: &Call) -> Result<Arrived, String> {
        let backend = &self.backend;
        let most = backend.max_in_flight.saturating_mul(WAITING_PER_PLACE);
        let waiting = Waiting::enter(&self.waiting);
        if waiting.before >= most {
            return Err(format!(
                "{} calls are under way and {most} wait: max_in_flight allows no more",
                backend.max_in_flight
            ));
        }
        let late = |_| format!("did not answer within {:?}", backend.timeout);
        let place = tokio::time::timeout(backend.timeout, self.places.acquire()).await;
        let place = place.map_err(|_| {
            format!("was not free within {:?}: max_in_flight calls were under way", backend.timeout)
        })?;
        drop(waiting);
        let arrived = tokio::time::timeout(backend.timeout, self.exchange(call)).await;
        drop(place);
        arrived.map_err(late)?
    }

    async fn exchange(&self, call: &Call) -> Result<Arrived, String> {
        if self.backend.endpoint.scheme == Scheme::Grpc {
            return self.exchange_grpc(call).await;
        }
        let mut request = self.request(call)?;
        while let Some(sender) = self.take_idle() {
            let again = request.clone();
            match self.send(sender, request).await {
                Ok(answer) => return Ok(answer),
                Err(Broken::Failed(why)) => return Err(why),
                // The backend had closed it; nothing was done yet, or asking twice does no harm.
                Err(Broken::Unsent(_)) => request = again,
                Err(Broken::Unanswered(_)) if call.kind.only_asks() => {
                    request = again;
                    break;
                }
                Err(Broken::Unanswered(why)) => return Err(why),
            }
        }
        let sender = self.connect().await?;
        self.send(sender, request).await.map_err(|broken| match broken {
            Broken::Unsent(why) | Broken::Unanswered(why) | Broken::Failed(why) => why,
        })
    }

    /// The request of a call as it is shown to people: over gRPC its message is in Protobuf.
    pub(super) fn shown(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        match self.backend.endpoint.scheme {
            Scheme::Http => self.request(call),
            Scheme::Grpc => self.shown_grpc(call),
        }
    }

    /// The request of a call, with every header that is sent.
    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let endpoint = &self.backend.endpoint;
        let body = body(&call.ask)?;
        let host = match endpoint.port {
            80 => endpoint.host.clone(),
            port => format!("{}:{port}", endpoint.host),
        };
        let mut request = Request::post(endpoint.path.as_str())
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, body.len())
            .body(Full::new(body))
            .map_err(|error| format!("cannot be asked: {error}"))?;
        let headers = request.headers_mut();
        for (name, value) in &call.headers {
            headers.append(name.clone(), value.clone());
        }
        for (name, value) in &self.backend.static_headers {
            headers.insert(name.clone(), value.clone());
        }
        put_address(call, headers);
        Ok(request)
    }

    async fn send(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<Arrived, Broken> {
        if let Err(error) = sender.ready().await {
            return Err(Broken::Unsent(ended(&error)));
        }
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(refused) if refused.message().is_some() => {
                return Err(Broken::Unsent(ended(refused.error())));
            }
            Err(refused) => {
                let error = refused.into_error();
                let unanswered = !error.is_parse();
                let why = ended(&error);
                return Err(if unanswered { Broken::Unanswered(why) } else { Broken::Failed(why) });
            }
        };
        let (head, body) = response.into_parts();
        let body = collect(body).await.map_err(Broken::Failed)?;
        self.keep(sender);
        Ok(Arrived { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn take_idle(&self) -> Option<Sender> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|each| now.duration_since(each.since) < IDLE_TIME && !each.sender.is_closed());
        // The one used last: the others may then be given up.
        idle.pop().map(|each| each.sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock();
        if !sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Lets go of what was not used for a while.
    pub(super) fn tidy(&self) {
        self.tidy_grpc();
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|each| now.duration_since(each.since) < IDLE_TIME && !each.sender.is_closed());
    }

    async fn connect(&self) -> Result<Sender, String> {
        // Invariant PAY-FIRST: a connection to a backend is a descriptor like any other.
        let permit = self.budget.try_take(Lane::Upstream).ok_or_else(no_descriptor)?;
        let endpoint = &self.backend.endpoint;
        let socket = dial(&endpoint.host, endpoint.port, &self.budget).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| ended(&error))?;
        // It ends with its sender, or with its peer; the call that uses it hears of errors.
        tokio::spawn(async move {
            drop(connection.await);
            drop(permit);
        });
        Ok(sender)
    }
}

pub(super) fn no_descriptor() -> String {
    "cannot be connected to: no descriptor is left for one more connection to a backend; raise the \
     limit of this process"
        .to_owned()
}

/// The question in JSON.
pub(super) fn body(ask: &Ask) -> Result<Bytes, String> {
    let body = serde_json::to_vec(ask).map_err(|error| format!("cannot be asked: {error}"))?;
    Ok(body.into())
}

/// Last, so that nothing that a client said can stand there.
pub(super) fn put_address(call: &Call, headers: &mut HeaderMap) {
    if let Some(address) = call.address.and_then(shown) {
        headers.insert("x-real-ip", address.clone());
        headers.insert("x-forwarded-for", address);
    }
}

/// An address as a header has it: an IPv4 client of an IPv6 listener is an IPv4 client.
fn shown(address: IpAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(address.to_canonical().to_string()).ok()
}

async fn collect(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("answered more than {ANSWER_BYTES_MAX} bytes"))
        }
        Err(_) => Err("hung up in the middle of its answer".to_owned()),
    }
}

fn ended(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        format!("answered with a head of more than {HEAD_BYTES_MAX} bytes")
    } else if error.is_parse() {
        "answered what is not HTTP".to_owned()
    } else if error.is_timeout() {
        "did not answer in time".to_owned()
    } else {
        "hung up without an answer".to_owned()
    }
}

/// A place in the queue, given up when dropped.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
