//! One question to a backend, asked by hand with the server's own calls: what is sent, what comes
//! back, and what would become of the client.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use throng_limits::{Budget, Guarantees};
use throng_wire::dialect::Encoding;

use super::line::{Arrived, Line};
use super::verdict::{self, Verdict};
use super::{Ask, Call, Headers, Kind};
use crate::clock::Clock;
use crate::config::{Backend, BackendId, Settings, never_copied};
use crate::rng::{Rng, system_seed};

/// Descriptors of one question: resolving and one connection, with room.
const DESCRIPTORS: u64 = 64;

/// A client, and what it wants to know of its backend.
#[derive(Debug, Clone)]
pub struct Trying {
    pub kind: Kind,
    /// Where the client is.
    pub address: IpAddr,
    /// Headers of its handshake.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub data: Option<String>,
    /// Of a client that has connected.
    pub user: String,
    pub channel: Option<String>,
    /// Of a remote call.
    pub method: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Tried {
    pub kind: Kind,
    /// The option behind the backend, such as `client.proxy.connect`.
    pub option: String,
    /// Without its query, which may be a secret.
    pub endpoint: String,
    pub sent: Sent,
    /// Headers of the client that were not passed on, and why.
    pub held_back: Vec<(String, String)>,
    /// The error says why there is none.
    pub came: Result<Came, String>,
    pub took: Duration,
    pub verdict: Verdict,
}

/// A request, as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Such as `POST /connect HTTP/1.1`.
    pub line: String,
    /// In their order.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Why nothing was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTrial {
    /// No such backend is configured: the option that switches it on, and what to write.
    Off { option: String, sample: String },
    /// There is no such channel or method, or what was given cannot be asked.
    Wrong(String),
}

/// Asks the backend that the settings name, as a server with them would.
///
/// # Errors
/// When there is nothing to ask, or nobody.
pub fn attempt(settings: &Settings, trying: &Trying) -> Result<Tried, NoTrial> {
    let wrong = |what: String| NoTrial::Wrong(what);
    let id = chosen(settings, trying)?;
    let backend = settings.backends.get(id).ok_or_else(|| wrong("a bug: no backend".to_owned()))?;
    let given = given(&trying.headers).map_err(wrong)?;
    let call = call(trying, (id, backend), &given).map_err(wrong)?;
    let line = Line::new(backend.clone(), Budget::with(DESCRIPTORS, Guarantees::of(DESCRIPTORS)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| wrong(format!("no event loop can be made: {error}")))?;
    let (sent, arrived, took) = runtime.block_on(async {
        let request = line.shown(&call).map_err(wrong)?;
        let sent = sent(request).await;
        let begun = Instant::now();
        let arrived = line.ask(&call).await;
        Ok((sent, arrived, begun.elapsed()))
    })?;
    // A name that is still being looked up must not hold up the answer.
    runtime.shutdown_background();
    let understood = match &arrived {
        Ok(arrived) => line.understand(arrived),
        Err(why) => Err(why.clone()),
    };
    let came = arrived.map(|arrived| came(&arrived));
    let held_back = held_back(&given, backend);
    let asked = verdict::Asked {
        settings,
        backend,
        trying,
        has_cookie: given.iter().any(|(name, _)| name == http::header::COOKIE),
        now_s: Clock::start().now().unix_ms / 1000,
    };
    let verdict = asked.verdict(&understood, came.as_ref().ok());
    Ok(Tried {
        kind: trying.kind,
        option: backend.option.clone(),
        endpoint: backend.endpoint.to_string(),
        sent,
        held_back,
        came,
        took,
        verdict,
    })
}

/// What is said of an answer with this body; sessions are compared with it.
#[cfg(test)]
pub(crate) fn judged(settings: &Settings, trying: &Trying, body: &str, now_s: i64) -> Verdict {
    let id = chosen(settings, trying).unwrap();
    let backend = settings.backends.get(id).unwrap();
    let asked = verdict::Asked { settings, backend, trying, has_cookie: true, now_s };
    let came = Came { status: 200, headers: Vec::new(), body: body.to_owned() };
    asked.verdict(&super::understand(body.as_bytes()), Some(&came))
}

/// Who is asked.
fn chosen(settings: &Settings, trying: &Trying) -> Result<BackendId, NoTrial> {
    let backends = &settings.backends;
    let question = trying.kind.name();
    let off = |option: &str, sample: String| NoTrial::Off { option: option.to_owned(), sample };
    let endpoint = format!("endpoint = \"http://127.0.0.1:3000/throng/{question}\"");
    match trying.kind {
        Kind::Connect => backends.connect.ok_or_else(|| {
            let sample = format!(
                "[client.proxy.connect]\nenabled = true\n{endpoint}\nhttp_headers = [\"Cookie\"]"
            );
            off("client.proxy.connect.enabled", sample)
        }),
        Kind::Refresh => backends.refresh.ok_or_else(|| {
            let sample = format!("[client.proxy.refresh]\nenabled = true\n{endpoint}");
            off("client.proxy.refresh.enabled", sample)
        }),
        Kind::Rpc => {
            let method = trying.method.as_deref().unwrap_or_default();
            match backends.rpc_of(method) {
                Ok(found) => found.backend.ok_or_else(|| {
                    let sample = match found.namespace {
                        "" => "[rpc.without_namespace]\nproxy_enabled = true".to_owned(),
                        name => {
                            format!("[[rpc.namespaces]]\nname = \"{name}\"\nproxy_enabled = true")
                        }
                    };
                    let sample = format!("[rpc.proxy]\n{endpoint}\n\n{sample}");
                    off(&format!("proxy_enabled of {}", found.option()), sample)
                }),
                Err(namespace) => Err(NoTrial::Wrong(format!(
                    "rpc.namespaces has no {namespace:?}, so the method {method:?} is answered with \
                     error 104"
                ))),
            }
        }
        Kind::SharedPollRefresh => Err(NoTrial::Wrong(
            "what shared polls ask is not asked by hand; docs/shared-poll.md has the request for \
             curl"
                .to_owned(),
        )),
        Kind::Subscribe | Kind::Publish | Kind::SubRefresh | Kind::MapPublish | Kind::MapRemove => {
            of_channel(settings, trying, &endpoint)
        }
    }
}

/// Who is asked about a channel.
fn of_channel(settings: &Settings, trying: &Trying, endpoint: &str) -> Result<BackendId, NoTrial> {
    let question = trying.kind.name();
    let channel = trying.channel.as_deref().unwrap_or_default();
    let resolved = settings.channel.resolve(channel);
    let resolved = resolved.map_err(|why| NoTrial::Wrong(format!("{channel:?}: {why}")))?;
    let options = resolved.options;
    let backend = match trying.kind {
        Kind::Subscribe => options.subscribe_backend,
        Kind::Publish => options.publish_backend,
        Kind::MapPublish => options.map.as_ref().and_then(|map| map.publish_backend),
        Kind::MapRemove => options.map.as_ref().and_then(|map| map.remove_backend),
        _ => options.sub_refresh_backend,
    };
    backend.ok_or_else(|| {
        let switch = match trying.kind {
            Kind::MapPublish => "map.publish_proxy_enabled".to_owned(),
            Kind::MapRemove => "map.remove_proxy_enabled".to_owned(),
            _ => format!("{question}_proxy_enabled"),
        };
        let (place, sample) = match resolved.namespace {
            "" => {
                ("channel.without_namespace".to_owned(), "[channel.without_namespace]".to_owned())
            }
            name => (
                format!("the namespace {name}"),
                format!("[[channel.namespaces]]\nname = \"{name}\""),
            ),
        };
        let sample = format!("[channel.proxy.{question}]\n{endpoint}\n\n{sample}\n{switch} = true");
        NoTrial::Off { option: format!("{switch} of {place}"), sample }
    })
}

fn given(headers: &[(String, String)]) -> Result<Headers, String> {
    let mut given = Vec::new();
    for (name, value) in headers {
        let bad = || format!("{name:?} with its value is no header");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        given.push((name, HeaderValue::from_str(value).map_err(|_| bad())?));
    }
    Ok(given.into())
}

fn call(
    trying: &Trying,
    (id, backend): (BackendId, &Backend),
    headers: &Headers,
) -> Result<Call, String> {
    if let Some(Err(error)) = trying.data.as_deref().map(serde_json::from_str::<IgnoredAny>) {
        return Err(format!("the data is not JSON: {error}"));
    }
    let data = trying.data.as_deref().map(str::as_bytes);
    let user = trying.user.as_str().into();
    let channel = trying.channel.as_deref().unwrap_or_default().into();
    let ask = match trying.kind {
        Kind::Connect => Ask::connect(data, ("", ""), Vec::new()),
        Kind::Refresh => Ask::refresh(&user),
        Kind::Rpc => Ask::rpc(&user, trying.method.as_deref().unwrap_or_default(), data),
        Kind::Subscribe => Ask::subscribe(&user, &channel, "", data),
        Kind::Publish => Ask::publish(&user, &channel, data),
        Kind::SubRefresh => Ask::sub_refresh(&user, &channel),
        Kind::MapPublish => Ask::map_key(&user, &channel, "key", data),
        Kind::MapRemove => Ask::map_key(&user, &channel, "key", None),
        Kind::SharedPollRefresh => Ask::shared_poll_refresh(&channel, Vec::new()),
    };
    let client = Rng::new(system_seed()).uuid().to_string();
    let ask = ask.said_by(client, "websocket", Encoding::Json);
    let ask = if backend.binary_encoding { ask.in_base64() } else { ask };
    let none = Headers::default();
    Ok(Call::new((trying.kind, id), backend, ask, (headers, &none), Some(trying.address)))
}

/// Those that the backend does not see, and why.
fn held_back(given: &Headers, backend: &Backend) -> Vec<(String, String)> {
    let option = &backend.option;
    given
        .iter()
        .filter(|(name, _)| !backend.http_headers.contains(name))
        .map(|(name, _)| {
            let why = if never_copied(name) {
                "throng sets it, or it belongs to one connection".to_owned()
            } else {
                format!("{option}.http_headers does not name it")
            };
            (name.as_str().to_owned(), why)
        })
        .collect()
}

async fn sent(request: http::Request<http_body_util::Full<bytes::Bytes>>) -> Sent {
    let (head, body) = request.into_parts();
    // A body that is there already cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Sent {
        line: format!("{} {} {:?}", head.method, head.uri, head.version),
        headers: texts(&head.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn came(arrived: &Arrived) -> Came {
    Came {
        status: arrived.status,
        headers: texts(&arrived.headers),
        body: String::from_utf8_lossy(&arrived.body).into_owned(),
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}
