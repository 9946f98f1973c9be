//! `POST /emulation`, where those speak who have a response instead of a WebSocket, and the address
//! that a page may ask for before it connects.

use std::borrow::Cow;
use std::fmt::Display;

use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use throng_wire::dialect::{self, Encoding};
use uuid::Uuid;

use super::api::{Asks, passed_on};
use super::body::{self, Most};
use super::cors::Page;
use super::stream::is_protobuf;
use super::upgrade::busy;
use super::{Answer, Front, Visit, text, words};
use crate::handoff::pause::Moved;
use crate::sessions::Mail;
use crate::shard::Post;

/// What such requests are called between two processes of a restart; no method of the API has a
/// slash in it.
const METHOD_JSON: &str = "/emulation";
const METHOD_PROTOBUF: &str = "/emulation/protobuf";

/// The encoding of such a request, if this is what one is called.
pub(crate) fn called(method: &str) -> Option<Encoding> {
    match method {
        METHOD_JSON => Some(Encoding::Json),
        METHOD_PROTOBUF => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// What a client says, and by which stream it hears.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    session: Cow<'a, str>,
    /// The node that its session is on; empty: this one.
    #[serde(default)]
    node: Cow<'a, str>,
    /// Commands, as they stand on a WebSocket.
    data: Cow<'a, str>,
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
    let (encoding, method) = if is_protobuf(&parts) {
        (Encoding::Protobuf, METHOD_PROTOBUF)
    } else {
        (Encoding::Json, METHOD_JSON)
    };
    let settings = front.settings();
    let most =
        Most { bytes: settings.emulation.body_max, option: "emulation.max_request_body_size" };
    let body = body::read(body, most, (&visit.seat, &front.gate)).await?;
    match front.common.pause.enter().await {
        Ok(_pass) => speak(front, encoding, &body).await,
        // What has no body is the answer to what was taken.
        Err(Moved(outlet)) => {
            let reply = outlet.call(method, Asks::default(), &body).await.ok();
            match passed_on(reply) {
                answer if answer.status() == StatusCode::NO_CONTENT => Ok(()),
                answer => Err(Box::new(answer)),
            }
        }
    }
}

/// The same, of a request that came to the process before this one.
pub(crate) async fn passed(front: &Front, encoding: Encoding, body: &[u8]) -> Answer {
    speak(front, encoding, body).await.err().map_or_else(no_content, |refused| *refused)
}

async fn speak(front: &Front, encoding: Encoding, body: &[u8]) -> Result<(), Box<Answer>> {
    let settings = front.settings();
    let wrong = |why: &dyn Display| {
        let said = format!("the body does not hold session, node and data: {why}\n");
        Box::new(words(StatusCode::BAD_REQUEST, said))
    };
    let (node, session, data) = match encoding {
        Encoding::Json => {
            let Envelope { session, node, data } =
                serde_json::from_slice(body).map_err(|error| wrong(&error))?;
            (node, session, data.into_owned().into_bytes())
        }
        Encoding::Protobuf => {
            let said = dialect::emulated(body).map_err(|malformed| wrong(&malformed))?;
            (said.node, said.session, said.data.to_vec())
        }
    };
    if !node.is_empty() && node != front.common.uid() {
        let gone = "there is no such node; it may have been restarted, so connect again\n";
        return Err(Box::new(text(StatusCode::NOT_FOUND, gone)));
    }
    let Ok(session) = Uuid::try_parse(&session) else { return Ok(()) };
    let Some(place) = front.common.speakers.find(session) else { return Ok(()) };
    // Invariant BOUNDED: what waits in the mailbox is drawn from the allowance, as is what waits in
    // the shard then.
    let draw = front.common.allowance.draw_later(data.len());
    let Ok(drawn) = tokio::time::timeout(settings.limits.publish_timeout, draw).await else {
        return Err(busy(front, "too much is waiting"));
    };
    if let Some(shard) = front.common.shards.get(usize::from(place.shard)) {
        shard.post(Post::Mail(Mail::Said { session, slot: place.slot, said: data, drawn }));
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
