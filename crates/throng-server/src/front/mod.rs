//! The front: everything that is an HTTP request.
//!
//! It accepts, reads requests with hyper, answers the API, health and the playground, and takes a
//! connection that is to be upgraded apart before it is answered: its socket moves to a shard.

pub(crate) mod accept;
pub(crate) mod address;
mod api;
pub(crate) mod arrivals;
mod body;
mod connection;
mod cors;
mod emulate;
pub(crate) mod gate;
mod grpc;
pub(crate) mod health;
mod pages;
mod reference;
mod refuse;
mod stream;
mod upgrade;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use throng_limits::Budget;

use self::address::{ClientAddress, Undeclared};
use self::arrivals::Arrivals;
use crate::addresses::{Addresses, Held, TooMany};
use crate::clock::Clock;
use crate::config::{Level, ProxyProtocol, Settings};
use crate::handoff::Doors;
use crate::log::line;
use crate::metrics::{self, Of};
use crate::origin;
use crate::reload::Source;
use crate::sessions::Common;

pub use api::openapi;
pub(crate) use api::{Asks, METHODS as API_METHODS, call_api, method_name as api_method};
pub(crate) use connection::drive;
pub(crate) use upgrade::percent_decoded;
pub use upgrade::{PROBE_HEADER, SEEN_HEADER};

/// What a request is answered with.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What the front's tasks share.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) common: Arc<Common>,
    pub(crate) clock: Clock,
    /// Clients that may be held; the upgrade draws from it.
    pub(crate) clients: Budget,
    /// The seats of those who are no clients yet; accepting draws from it.
    pub(crate) gate: Arc<gate::Gate>,
    /// Numbers for connections, unique for life.
    pub(crate) last_number: AtomicU64,
    /// The shard that the next connection moves to.
    pub(crate) next_shard: AtomicUsize,
    /// The server is stopping: no new clients.
    pub(crate) draining: AtomicBool,
    pub(crate) arrivals: Arrivals,
    /// Proxies that nobody declared.
    pub(crate) undeclared: Undeclared,
    pub(crate) addresses: Addresses,
    /// Where a reload finds its configuration.
    pub(crate) source: OnceLock<Source>,
    /// How this program is called from any directory, for the playground.
    pub(crate) command: String,
    /// What is listened on, once it is.
    pub(crate) doors: OnceLock<Doors>,
}

/// Which of the two ports a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The only one, when there is no internal port.
    Both,
    Public,
    Internal,
    /// The server API over gRPC, `grpc_api.port`.
    GrpcApi,
    /// Clients over gRPC that only listen, `uni_grpc.port`.
    UniGrpc,
}

impl Door {
    /// Whether HTTP/1.1 is spoken there; elsewhere it is gRPC.
    pub(crate) fn speaks_http1(self) -> bool {
        !matches!(self, Self::GrpcApi | Self::UniGrpc)
    }

    /// For metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Both | Self::Public => "public",
            Self::Internal => "internal",
            Self::GrpcApi => "grpc_api",
            Self::UniGrpc => "uni_grpc",
        }
    }

    fn shows_clients(self) -> bool {
        self != Self::Internal
    }

    fn shows_internals(self) -> bool {
        self != Self::Public
    }
}

/// One request, and where it came from.
pub(crate) struct Visit {
    pub(crate) request: Request<Incoming>,
    pub(crate) peer: SocketAddr,
    /// Whose it is, whatever stands between.
    pub(crate) address: ClientAddress,
    pub(crate) door: Door,
    /// Its connection's place, which an upgrade turns into a client's.
    pub(crate) seat: Arc<gate::Seat>,
}

/// What a request comes to.
pub(crate) enum Outcome {
    Answered(Answer),
    /// The connection leaves HTTP: the shard answers.
    Upgraded(Box<upgrade::Move>),
}

impl Front {
    /// What holds now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.common.settings()
    }

    /// What the port behind a door wants of those who connect.
    fn listener<'a>(&'a self, door: Door, settings: &'a Settings) -> address::Listener<'a> {
        let proxies = &settings.proxies;
        let (protocol, option) = match door {
            Door::Both | Door::Public => (proxies.protocol, "http_server.proxy_protocol"),
            Door::Internal => (proxies.internal_protocol, "http_server.internal_proxy_protocol"),
            // Proxies of gRPC say it in the head of each call.
            Door::GrpcApi | Door::UniGrpc => (ProxyProtocol::Off, ""),
        };
        let log = &self.common.log;
        address::Listener { protocol, option, proxies, log }
    }

    /// Whether more clients have come in this second than may.
    fn is_too_fast(&self) -> bool {
        let rate = self.settings().client.connection_rate_limit;
        rate > 0 && self.arrivals.is_spent(rate, Instant::now())
    }

    /// Counts one more connection or client of an address. A trusted proxy's own are not counted:
    /// whoever stands behind it is.
    fn admit_address(&self, ip: IpAddr) -> Result<Option<Box<Held>>, TooMany> {
        if self.settings().proxies.trusts(ip) {
            return Ok(None);
        }
        self.addresses.admit(ip, Instant::now())
    }

    pub(crate) async fn visit(&self, visit: Visit) -> Outcome {
        let path = path_number(&self.settings(), visit.request.uri().path());
        let method = method_number(visit.request.method());
        let outcome = self.answer(visit).await;
        let status = match &outcome {
            Outcome::Answered(answer) => answer.status().as_u16(),
            Outcome::Upgraded(to) => to.status(),
        };
        let code = method * 1000 + u32::from(status);
        self.common.meters.front.rare.count(Of::Request, path, code);
        outcome
    }

    async fn answer(&self, visit: Visit) -> Outcome {
        let settings = self.settings();
        let path = visit.request.uri().path();
        if settings.dev
            && let Err(answer) = self.loopback_only(visit.request.headers())
        {
            upgrade::remember(self, visit.address.ip, &answer);
            return Outcome::Answered(*answer);
        }
        if visit.door.shows_clients() {
            if settings.websocket.enabled && path == settings.websocket.path {
                return upgrade::websocket(self, &visit, crate::session::Kind::Bidirectional).await;
            }
            if settings.uni_websocket.enabled && path == settings.uni_websocket.path {
                return upgrade::websocket(self, &visit, crate::session::Kind::Unidirectional)
                    .await;
            }
            if let Some(way) = stream::at(&settings, path.as_bytes()) {
                return stream::answer(self, visit, way).await;
            }
            if settings.emulates() && path == settings.emulation.path {
                return Outcome::Answered(emulate::answer(self, visit).await);
            }
            if settings.init && path == settings.init_path {
                return Outcome::Answered(emulate::init(self, &visit));
            }
        }
        let api_here = visit.door.shows_internals() || settings.http_api.external;
        if settings.http_api.enabled
            && api_here
            && let Some(method) = api::method_of(&settings.http_api.path, path)
        {
            let method = method.to_owned();
            // Much is kept of a call while it waits; of a connection that asks for something else, nothing.
            return Outcome::Answered(Box::pin(api::answer(self, visit, &method)).await);
        }
        if settings.health
            && visit.door.shows_internals()
            && let Some(rest) = path.strip_prefix(settings.health_path.as_str())
            && let Some(answer) = health::answer(self, rest, visit.request.uri().query())
        {
            return Outcome::Answered(answer);
        }
        if settings.prometheus.enabled
            && visit.door.shows_internals()
            && path == settings.prometheus.path
        {
            return Outcome::Answered(metrics::answer(self, visit.request.method()).await);
        }
        if settings.swagger
            && visit.door.shows_internals()
            && let Some(rest) = path.strip_prefix(settings.swagger_path.as_str())
            && let Some(answer) = reference::answer(&settings, visit.request.method(), rest)
        {
            return Outcome::Answered(answer);
        }
        if settings.dev
            && visit.request.method() == Method::GET
            && let Some(page) = pages::page(path, &self.command)
        {
            return Outcome::Answered(page);
        }
        Outcome::Answered(self.not_found(path))
    }

    /// In development mode everybody may do everything, so a page of the web that the developer
    /// happens to visit must not: its requests carry its own origin, or a name that is not
    /// loopback's.
    fn loopback_only(&self, headers: &HeaderMap) -> Result<(), Box<Answer>> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if !host.is_none_or(origin::is_loopback_host) {
            return Err(Box::new(text(
                StatusCode::FORBIDDEN,
                "throng serve --dev answers only to loopback names such as localhost:8000; to be \
                 reached by another name, make a configuration: throng config init --origin URL\n",
            )));
        }
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        if !origin.is_none_or(origin::is_loopback_origin) {
            line!(
                self.common.log,
                Warn,
                "dev.origin",
                "a page from elsewhere was refused: in development mode Origin must be a loopback name"
            );
            return Err(Box::new(text(
                StatusCode::FORBIDDEN,
                "throng serve --dev lets in only pages from loopback names such as localhost\n",
            )));
        }
        Ok(())
    }

    fn not_found(&self, path: &str) -> Answer {
        let settings = self.settings();
        if let Some(way) = stream::ways(&settings).iter().find(|way| way.stream.path == path) {
            return words(StatusCode::NOT_FOUND, format!("{}.enabled is off\n", way.section));
        }
        let hint = if path == settings.uni_websocket.path {
            "uni_websocket.enabled is off\n"
        } else if path.starts_with(&settings.health_path) && !settings.health {
            "health.enabled is off\n"
        } else if path == settings.prometheus.path && !settings.prometheus.enabled {
            "prometheus.enabled is off\n"
        } else {
            "there is nothing here\n"
        };
        text(StatusCode::NOT_FOUND, hint)
    }

    /// The shard that the next connection moves to.
    fn next_shard(&self) -> usize {
        let shards = self.common.shards.len().max(1);
        self.next_shard.fetch_add(1, Ordering::Relaxed) % shards
    }

    /// The next connection's number.
    pub(crate) fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether another process serves by now.
    pub(crate) fn has_moved(&self) -> bool {
        matches!(self.common.pause.try_enter(), Some(Err(_)))
    }

    pub(crate) fn wants_debug(&self) -> bool {
        self.common.log.wants(Level::Debug)
    }
}

/// The paths that are told apart in metrics; everything else is one.
fn paths(settings: &Settings) -> [&str; 12] {
    [
        &settings.websocket.path,
        &settings.uni_websocket.path,
        &settings.sse.path,
        &settings.http_stream.path,
        &settings.uni_sse.path,
        &settings.uni_http_stream.path,
        &settings.emulation.path,
        &settings.init_path,
        &settings.http_api.path,
        &settings.health_path,
        &settings.prometheus.path,
        "/",
    ]
}

/// The number of a path, with all that stands below it.
fn path_number(settings: &Settings, path: &str) -> u8 {
    let is_at = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let paths = paths(settings);
    let at = paths.iter().position(is_at).filter(|at| paths[*at] != "/" || path == "/");
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// The path of a number, for metrics.
pub(crate) fn http_path(settings: &Settings, number: u8) -> &str {
    paths(settings).get(usize::from(number)).copied().unwrap_or("other")
}

const HTTP_METHODS: [&str; 6] = ["other", "GET", "POST", "OPTIONS", "HEAD", "PUT"];

fn method_number(method: &Method) -> u32 {
    let at = HTTP_METHODS.iter().position(|known| *known == method.as_str());
    at.and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
}

/// The HTTP method of a number, for metrics.
pub(crate) fn http_method(number: u32) -> &'static str {
    HTTP_METHODS.get(number as usize).copied().unwrap_or("other")
}

/// An answer in words.
pub(crate) fn text(status: StatusCode, said: &'static str) -> Answer {
    words(status, said)
}

/// The same, where the words are put together.
fn words(status: StatusCode, said: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", said.into())
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "application/json", body.into())
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}
