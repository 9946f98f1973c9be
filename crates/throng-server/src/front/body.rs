//! The body of a client's request: bounded in bytes and in time.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use super::gate::{Gate, Seat};
use super::{Answer, text, words};

/// How long the body of a client's request may take: it is small, and sent with the head.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) bytes: usize,
    /// The option that says so.
    pub(super) option: &'static str,
}

/// Reads a body to its end. Whoever keeps it waiting counts as silent: anybody may begin a body, so
/// it must not hold a seat against those who say something.
pub(super) async fn read(
    body: Incoming,
    most: Most,
    (seat, gate): (&Seat, &Gate),
) -> Result<Bytes, Box<Answer>> {
    if body.size_hint().lower() > most.bytes as u64 {
        return Err(too_large(most));
    }
    let mut body = Limited::new(body, most.bytes);
    let mut read = Vec::new();
    let reading = async {
        loop {
            seat.silent();
            let frame = body.frame().await;
            seat.busy(gate);
            match frame {
                None => return Ok(()),
                Some(Ok(frame)) => {
                    // Trailers are nothing to us.
                    read.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                Some(Err(error)) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, reading).await {
        Ok(Ok(())) => Ok(read.into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Ok(Err(_)) => {
            Err(Box::new(text(StatusCode::BAD_REQUEST, "the request's body broke off\n")))
        }
        Err(_) => {
            Err(Box::new(text(StatusCode::REQUEST_TIMEOUT, "the request's body took over 10 s\n")))
        }
    }
}

fn too_large(most: Most) -> Box<Answer> {
    let said = format!("the request's body is larger than {} allows\n", most.option);
    Box::new(words(StatusCode::PAYLOAD_TOO_LARGE, said))
}
