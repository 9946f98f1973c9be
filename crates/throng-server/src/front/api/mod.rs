//! The server API over HTTP: who may call it, how a call comes in, and how its answer goes out.

mod call;
mod maps;
mod methods;
mod openapi;
mod shape;
mod whole;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::address::ClientAddress;
use super::upgrade::percent_decoded;
use super::{Answer, Front, Visit, emulate, json, text};
use crate::codes::ErrorCode;
use crate::handoff::pause::Moved;
use crate::log::line;
use crate::metrics;

pub(super) use call::{ApiError, Binary, Call};
pub use openapi::openapi;

/// How many methods there are.
pub(crate) const METHODS: usize = methods::METHODS.len();

/// The name of the method at this place, for metrics.
pub(crate) fn method_name(place: usize) -> &'static str {
    methods::METHODS.get(place).copied().unwrap_or("unknown")
}

/// Bytes of one request: many publications in one batch, or a large one.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The method that a path below the API's names; empty for the path itself, where the method
/// stands in the body.
pub(super) fn method_of<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    match rest.strip_prefix('/') {
        Some(method) => Some(method),
        None => rest.is_empty().then_some(""),
    }
}

/// Answers one API request.
pub(super) async fn answer(front: &Front, visit: Visit, method: &str) -> Answer {
    let request = visit.request;
    if request.method() != Method::POST {
        let mut answer =
            text(StatusCode::METHOD_NOT_ALLOWED, "calls of the API are POST requests\n");
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return answer;
    }
    if !front.settings().http_api.insecure
        && let Err(answer) =
            authorise(front, visit.address, request.headers(), request.uri().query())
    {
        return *answer;
    }
    if !method.is_empty() && !methods::is_known(method) {
        return text(StatusCode::NOT_FOUND, "there is no such method of the API\n");
    }
    let asks = Asks::of(front, request.headers());
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return too_large();
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return too_large();
        }
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the request's body broke off\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the request's body took over 30 s\n"),
    };
    match front.common.pause.enter().await {
        Ok(_pass) => call_api(front, method, &body, asks).await,
        Err(Moved(outlet)) => passed_on(outlet.call(method, asks, &body).await.ok()),
    }
}

/// Whether there is a method of this name.
pub(super) fn is_known(method: &str) -> bool {
    methods::is_known(method)
}

/// Does what a request whose sender has the right to it asks for.
pub(crate) async fn call_api(front: &Front, method: &str, body: &[u8], asks: Asks) -> Answer {
    if let Some(encoding) = emulate::called(method) {
        return emulate::passed(front, encoding, body).await;
    }
    match method {
        "" => legacy(front, body).await,
        metrics::METHOD => metrics::passed(front).await,
        method => one(front, method, body, asks).await,
    }
}

/// The answer of the process that serves now.
pub(super) fn passed_on(reply: Option<(u16, Vec<u8>)>) -> Answer {
    match reply {
        Some((status, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            json(status, body)
        }
        // It may have been done, and may not.
        None => text(StatusCode::BAD_GATEWAY, "the server that this was passed to is gone\n"),
    }
}

/// What a request wants of its answer beside the result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asks {
    /// Errors as HTTP statuses.
    transport_errors: bool,
    /// Who a publication reached.
    audience: bool,
    /// Payloads that are no JSON in fields of their own, for whoever makes bytes of them again.
    #[serde(default)]
    binary_beside: bool,
}

impl Asks {
    /// What a call over gRPC asks for.
    pub(super) const GRPC: Self =
        Self { transport_errors: false, audience: false, binary_beside: true };

    fn binary(self) -> Binary {
        if self.binary_beside { Binary::Beside } else { Binary::InPlace }
    }

    fn of(front: &Front, headers: &HeaderMap) -> Self {
        let is = |name: &str, wanted: &str| {
            headers
                .get(name)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
        };
        Self {
            transport_errors: front.settings().http_api.error_mode_transport
                || is("x-centrifugo-error-mode", "transport"),
            audience: is("x-throng-audience", "true"),
            binary_beside: false,
        }
    }
}

async fn one(front: &Front, method: &str, body: &[u8], asks: Asks) -> Answer {
    let params: &RawValue = match serde_json::from_slice(body) {
        Ok(params) => params,
        Err(error) => return malformed(&error.to_string()),
    };
    if !params.get().starts_with('{') {
        return malformed("it is of another type");
    }
    let call = Call { method, params, audience: asks.audience, binary: asks.binary() };
    match logged(front, methods::run(front, call).await) {
        Ok(result) if method == "batch" => json(StatusCode::OK, result),
        Ok(result) => {
            let mut out = Vec::with_capacity(result.len() + 16);
            out.extend_from_slice(b"{\"result\":");
            out.extend_from_slice(&result);
            if asks.audience && method == "publish" {
                methods::put_audience_of(front, params, &mut out).await;
            }
            out.push(b'}');
            json(StatusCode::OK, out)
        }
        Err(error) => failed(&error, asks),
    }
}

/// Says what went wrong in a line of the log.
fn logged<T>(front: &Front, result: Result<T, ApiError>) -> Result<T, ApiError> {
    result.inspect_err(|error| {
        line!(
            front.common.log,
            Info,
            "api.error",
            "{} a call of the API failed: {}",
            error.code.code,
            error.because
        );
    })
}

/// The errors of calls, and their statuses for those who ask for statuses.
const STATUSES: [(ErrorCode, StatusCode); 8] = [
    (ErrorCode::INTERNAL, StatusCode::INTERNAL_SERVER_ERROR),
    (ErrorCode::UNKNOWN_CHANNEL, StatusCode::NOT_FOUND),
    (ErrorCode::METHOD_NOT_FOUND, StatusCode::NOT_FOUND),
    (ErrorCode::BAD_REQUEST, StatusCode::BAD_REQUEST),
    (ErrorCode::NOT_AVAILABLE, StatusCode::BAD_REQUEST),
    (ErrorCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
    (ErrorCode::UNRECOVERABLE_POSITION, StatusCode::RANGE_NOT_SATISFIABLE),
    (ErrorCode::CONCURRENT_PAGINATION, StatusCode::CONFLICT),
];

fn failed(error: &ApiError, asks: Asks) -> Answer {
    let body = error.body();
    if !asks.transport_errors {
        return json(StatusCode::OK, format!("{{\"error\":{body}}}"));
    }
    let known = STATUSES.iter().find(|(code, _)| code.code == error.code.code);
    let status = known.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status);
    json(status, body)
}

/// The old form: objects with `method` and `params`, a line of answer for each.
async fn legacy(front: &Front, body: &[u8]) -> Answer {
    let calls = serde_json::Deserializer::from_slice(body).into_iter::<call::Legacy<'_>>();
    // All of it is read before any of it is done, so that a bad line does not leave half behind.
    let calls: Vec<call::Legacy<'_>> = match calls.collect() {
        Ok(calls) => calls,
        Err(error) => return malformed(&error.to_string()),
    };
    if calls.is_empty() {
        return malformed("it is empty");
    }
    let mut out = Vec::new();
    for call in calls {
        if !out.is_empty() {
            out.push(b'\n');
        }
        let params = call.params.unwrap_or(RawValue::NULL);
        let result = if methods::is_known(&call.method) {
            let method = &*call.method;
            let call = Call { method, params, audience: false, binary: Binary::InPlace };
            methods::run(front, call).await
        } else {
            Err(ApiError::new(ErrorCode::METHOD_NOT_FOUND, "there is no such method"))
        };
        match logged(front, result) {
            Ok(result) => {
                out.extend_from_slice(b"{\"result\":");
                out.extend_from_slice(&result);
                out.push(b'}');
            }
            Err(error) => {
                out.extend_from_slice(format!("{{\"error\":{}}}", error.body()).as_bytes())
            }
        }
    }
    json(StatusCode::OK, out)
}

fn too_large() -> Answer {
    text(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is over 16 MiB\n")
}

fn malformed(error: &str) -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, "");
    *answer.body_mut() =
        http_body_util::Full::new(Bytes::from(format!("the body is not a JSON object: {error}\n")));
    answer
}

/// The key, in one of its three places. What is wrong with it is said in the log, not to strangers.
fn authorise(
    front: &Front,
    from: ClientAddress,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<(), Box<Answer>> {
    let settings = front.settings();
    let wanted = settings.http_api.key.as_bytes();
    let by_header = headers.get("x-api-key").map(|key| key.as_bytes().to_vec());
    let by_authorization = || {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("apikey").then(|| key.trim().as_bytes().to_vec())
    };
    let by_query = || {
        let pair = query?.split('&').find_map(|pair| pair.strip_prefix("api_key="))?;
        Some(percent_decoded(pair))
    };
    let because = match by_header.or_else(by_authorization).or_else(by_query) {
        _ if wanted.is_empty() => "http_api.key is not set, so no key is right",
        None => "the request has no key; http_api.key belongs into the header X-API-Key",
        Some(key) if same(&key, wanted) => return Ok(()),
        Some(_) => "the request's key is not http_api.key",
    };
    line!(
        front.common.log,
        Warn,
        "api.unauthorised",
        "401 a call of the API was refused: {}",
        because;
        addr = &from.ip as &dyn std::fmt::Display
    );
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::UNAUTHORIZED;
    Err(Box::new(answer))
}

/// Compares in a time that tells nothing about where two keys differ.
pub(super) fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}
