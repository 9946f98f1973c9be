//! The server API over gRPC: the same calls, with their parameters and answers in Protobuf.

use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use super::Calls;
use crate::codes::ErrorCode;
use crate::front::api::{self, Asks, call_api, passed_on, same};
use crate::front::{Answer, Front};
use crate::grpc::schema::Rpc;
use crate::grpc::status::{Code, Status};
use crate::handoff::pause::Moved;
use crate::log::line;

/// Answers one call: the response's message.
pub(super) async fn answer(
    calls: &Arc<Calls>,
    request: Request<Incoming>,
) -> Result<Vec<u8>, Status> {
    let (head, body) = request.into_parts();
    let settings = calls.front.settings();
    let Some(options) = &settings.grpc_api else {
        return Err(Status::new(Code::Unavailable, "the API is switched off"));
    };
    if !options.insecure {
        authorise(calls, &head.headers, options.key.as_bytes())?;
    }
    let known = crate::grpc::api().called(head.uri.path());
    let Some(rpc) = known.filter(|rpc| api::is_known(&rpc.snake)) else {
        let what =
            "there is no such method; the service is centrifugal.centrifugo.api.CentrifugoApi";
        return Err(Status::new(Code::Unimplemented, what));
    };
    let as_status = options.error_mode_transport || wants_statuses(&head.headers);
    let message = super::message(body, options.message_max).await?;
    let params = crate::grpc::api().to_json(rpc.request, &message);
    let params = params
        .map_err(|wrong| Status::new(Code::InvalidArgument, format!("the request {wrong}")))?;
    let place = Arc::clone(&calls.places).acquire_owned().await;
    let front = Arc::clone(&calls.front);
    let carried_out = tokio::spawn(async move {
        let answer = carry_out(&front, &rpc.snake, &params).await;
        drop(place);
        answer
    });
    let answer =
        carried_out.await.map_err(|_| Status::new(Code::Internal, "a bug: it panicked"))?;
    said(rpc, answer, as_status).await
}

async fn carry_out(front: &Front, method: &str, params: &[u8]) -> Answer {
    match front.common.pause.enter().await {
        Ok(_pass) => call_api(front, method, params, Asks::GRPC).await,
        Err(Moved(outlet)) => passed_on(outlet.call(method, Asks::GRPC, params).await.ok()),
    }
}

/// An answer of the HTTP API as a message.
async fn said(rpc: &Rpc, answer: Answer, as_status: bool) -> Result<Vec<u8>, Status> {
    let status = answer.status();
    let Ok(body) = answer.into_body().collect().await;
    let body = body.to_bytes();
    if status != StatusCode::OK {
        let code = if status.is_server_error() { Code::Unavailable } else { Code::InvalidArgument };
        return Err(Status::new(code, String::from_utf8_lossy(&body).trim_end()));
    }
    if as_status && let Some(error) = error_of(&body) {
        return Err(error);
    }
    crate::grpc::api()
        .to_protobuf(rpc.response, &body)
        .map_err(|wrong| Status::new(Code::Internal, format!("a bug: the answer {wrong}")))
}

#[derive(Deserialize)]
struct Failed {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    code: u32,
    message: String,
}

fn error_of(body: &[u8]) -> Option<Status> {
    let Failed { error } = serde_json::from_slice(body).ok()?;
    let known = CODES.iter().find(|(code, _)| code.code == error.code);
    Some(Status::new(known.map_or(Code::Internal, |(_, code)| *code), error.message))
}

/// The errors of calls as statuses, for those who ask for statuses.
const CODES: [(ErrorCode, Code); 7] = [
    (ErrorCode::UNKNOWN_CHANNEL, Code::NotFound),
    (ErrorCode::METHOD_NOT_FOUND, Code::NotFound),
    (ErrorCode::BAD_REQUEST, Code::InvalidArgument),
    (ErrorCode::NOT_AVAILABLE, Code::InvalidArgument),
    (ErrorCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
    (ErrorCode::UNRECOVERABLE_POSITION, Code::OutOfRange),
    (ErrorCode::CONCURRENT_PAGINATION, Code::AlreadyExists),
];

fn wants_statuses(headers: &HeaderMap) -> bool {
    let mode = headers.get("x-centrifugo-error-mode");
    mode.is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"transport"))
}

/// The key. What is wrong with it is said in the log, not to strangers.
fn authorise(calls: &Calls, headers: &HeaderMap, wanted: &[u8]) -> Result<(), Status> {
    let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let key = said.and_then(|said| {
        let (scheme, key) = said.split_at_checked(b"apikey ".len())?;
        scheme.eq_ignore_ascii_case(b"apikey ").then(|| key.trim_ascii())
    });
    let because = match key {
        None => "the call has no key; it belongs into the metadata as authorization: apikey KEY",
        Some(key) if !wanted.is_empty() && same(key, wanted) => return Ok(()),
        Some(_) => "the call's key is not grpc_api.key",
    };
    line!(
        calls.front.common.log,
        Warn,
        "grpc_api.unauthorised",
        "a call of the API over gRPC was refused: {}",
        because;
        addr = &calls.from.ip as &dyn std::fmt::Display
    );
    Err(Status::new(Code::Unauthenticated, "the key is missing or wrong"))
}
