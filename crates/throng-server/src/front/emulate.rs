//! `POST /emulation`, where those speak who have a response instead of a WebSocket, and the address
//! that a page may ask for before it connects.

use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use uuid::Uuid;

use super::body::{self, Most};
use super::cors::Page;
use super::stream::is_protobuf;
use super::upgrade::busy;
use super::{Answer, Front, Visit, text, words};
use crate::sessions::Mail;
use crate::shard::Post;

/// What a client says, and by which stream it hears.
#[derive(Debug, Deserialize)]
struct Envelope {
    session: String,
    /// The node that its session is on; empty: this one.
    #[serde(default)]
    node: String,
    /// Commands, a line each.
    data: String,
}

/// Answers a request in which a client speaks.
pub(super) async fn answer(front: &Front, visit: Visit) -> Answer {
    let page = match Page::of(front, visit.request.headers(), visit.address.ip) {
        Ok(page) => page,
        Err(answer) => return *answer,
    };
    let method = visit.request.method();
    if method == Method::OPTIONS {
        return page.preflight("POST, OPTIONS");
    }
    let answer = if method == Method::POST {
        hear(front, visit).await.err().map_or_else(no_content, |refused| *refused)
    } else {
        not_allowed("POST, OPTIONS")
    };
    page.may_read(answer)
}

/// Answers at `init.handler_prefix`: who has asked has a connection, and the cookies of a proxy that
/// spreads clients over servers.
pub(super) fn init(front: &Front, visit: &Visit) -> Answer {
    let page = match Page::of(front, visit.request.headers(), visit.address.ip) {
        Ok(page) => page,
        Err(answer) => return *answer,
    };
    let method = visit.request.method();
    if method == Method::OPTIONS {
        return page.preflight("GET, OPTIONS");
    }
    let mut answer = if method == Method::GET { no_content() } else { not_allowed("GET, OPTIONS") };
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page.may_read(answer)
}

/// Passes what a client says on to its session. That there is none is not told, so that nobody can
/// try ids.
async fn hear(front: &Front, visit: Visit) -> Result<(), Box<Answer>> {
    let (parts, body) = visit.request.into_parts();
    if is_protobuf(&parts) {
        return Err(Box::new(text(
            StatusCode::BAD_REQUEST,
            "The Protobuf encoding is not supported yet; connect with JSON.\n",
        )));
    }
    let settings = front.settings();
    let most =
        Most { bytes: settings.emulation.body_max, option: "emulation.max_request_body_size" };
    let body = body::read(body, most, (&visit.seat, &front.gate)).await?;
    let said: Envelope = serde_json::from_slice(&body).map_err(|error| {
        let said = format!("the body is not an object with session, node and data: {error}\n");
        Box::new(words(StatusCode::BAD_REQUEST, said))
    })?;
    if !said.node.is_empty() && said.node != front.common.uid {
        let gone = "there is no such node; it may have been restarted, so connect again\n";
        return Err(Box::new(text(StatusCode::NOT_FOUND, gone)));
    }
    let Ok(session) = Uuid::try_parse(&said.session) else { return Ok(()) };
    let Some(place) = front.common.speakers.find(session) else { return Ok(()) };
    // Invariant BOUNDED: what waits in the mailbox is drawn from the allowance, as is what waits in
    // the shard then.
    let draw = front.common.allowance.draw_later(said.data.len());
    let Ok(drawn) = tokio::time::timeout(settings.limits.publish_timeout, draw).await else {
        return Err(busy(front, "too much is waiting"));
    };
    if let Some(shard) = front.common.shards.get(usize::from(place.shard)) {
        let said = said.data.into_bytes();
        shard.post(Post::Mail(Mail::Said { session, slot: place.slot, said, drawn }));
    }
    Ok(())
}

fn no_content() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer =
        text(StatusCode::METHOD_NOT_ALLOWED, "this address is asked with another method\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    answer
}
