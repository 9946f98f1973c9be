//! The connection to a backend that speaks gRPC: one for all calls, which share it.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use throng_limits::Lane;
use tokio::sync::Mutex;

use super::line::{ANSWER_BYTES_MAX, Arrived, Broken, Line};
use super::{Ask, Call, Kind, dial};
use crate::grpc::{frame, proxy, status};
use crate::token::BASE64;

/// How long a connection without a call is kept: less than what balancers between forget.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How long the kernel tries to reach a backend that does not answer at all before the connection is
/// over: pings would tell sooner, but servers of gRPC take frequent ones for an attack.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Bytes of answers that may be on their way: of one, and of all together.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Connections that one call tries: one may have been closed by the backend meanwhile, and the next.
const TRIES_MAX: usize = 3;

/// The connection, where there is one. Who finds none makes it, and others wait for it, each no
/// longer than its call may take.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Option<Connected>>);

#[derive(Debug)]
struct Connected {
    sender: Sender,
    used: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

impl Line {
    /// Asks over gRPC. What comes back is what a backend over HTTP would have answered.
    pub(super) async fn exchange_grpc(&self, call: &Call) -> Result<Arrived, String> {
        let request = self.request_grpc(call)?;
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            let sender = self.sender().await?;
            match send(sender, request.clone()).await {
                Ok(message) => return arrived(call.kind, &message),
                Err(Broken::Failed(why)) => return Err(why),
                Err(Broken::Unsent(why)) => last = why,
                // Asking twice does no harm.
                Err(Broken::Unanswered(why)) if call.kind.only_asks() => last = why,
                Err(Broken::Unanswered(why)) => return Err(why),
            }
        }
        Err(last)
    }

    async fn sender(&self) -> Result<Sender, String> {
        let mut shared = self.shared.0.lock().await;
        if let Some(connected) = &mut *shared
            && !connected.sender.is_closed()
        {
            connected.used = Instant::now();
            return Ok(connected.sender.clone());
        }
        let sender = self.connect_grpc().await?;
        *shared = Some(Connected { sender: sender.clone(), used: Instant::now() });
        Ok(sender)
    }

    async fn connect_grpc(&self) -> Result<Sender, String> {
        // Invariant PAY-FIRST: a connection to a backend is a descriptor like any other.
        let permit = self.budget.try_take(Lane::Upstream).ok_or_else(super::line::no_descriptor)?;
        let endpoint = &self.backend.endpoint;
        let socket = dial(&endpoint.host, endpoint.port, &self.budget).await?;
        // Without it a backend that vanished is tried for minutes.
        SockRef::from(&socket).set_tcp_user_timeout(Some(SILENCE_MAX)).ok();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| "answered what is not HTTP/2".to_owned())?;
        // It ends with its senders, or with its peer; the calls that use it hear of errors.
        tokio::spawn(async move {
            drop(connection.await);
            drop(permit);
        });
        Ok(sender)
    }

    /// Lets go of the connection if it was not used for a while.
    pub(super) fn tidy_grpc(&self) {
        if let Ok(mut shared) = self.shared.0.try_lock() {
            let is_old = |connected: &mut Connected| connected.used.elapsed() >= IDLE_TIME;
            shared.take_if(is_old);
        }
    }

    /// The request of a call, with all of its metadata.
    fn request_grpc(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let mut request = self.shown_grpc(call)?;
        *request.body_mut() = Full::new(frame::framed(&message(call.kind, &call.ask)?));
        Ok(request)
    }

    /// The same, with its message in JSON.
    pub(super) fn shown_grpc(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let endpoint = &self.backend.endpoint;
        let cannot = |error: &dyn std::fmt::Display| format!("cannot be asked: {error}");
        let rpc = proxy().call(call.kind.name()).ok_or("cannot be asked over gRPC")?;
        let uri = format!(
            "http://{}:{}/{}/{}",
            endpoint.host,
            endpoint.port,
            proxy().service(),
            rpc.name
        );
        let uri: Uri = uri.parse().map_err(|error| cannot(&error))?;
        let mut request = Request::post(uri)
            .version(http::Version::HTTP_2)
            .body(Full::new(super::line::body(&call.ask)?))
            .map_err(|error| cannot(&error))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let millis = format!("{}m", self.backend.timeout.as_millis().clamp(1, 99_999_999));
        headers.insert("grpc-timeout", HeaderValue::try_from(millis).map_err(|e| cannot(&e))?);
        for (name, value) in &call.headers {
            // Those are the protocol's.
            if !name.as_str().starts_with("grpc-") {
                headers.append(name.clone(), value.clone());
            }
        }
        for (name, value) in &self.backend.static_metadata {
            headers.insert(name.clone(), value.clone());
        }
        super::line::put_address(call, headers);
        Ok(request)
    }
}

/// The question as a message. A payload is bytes there, so that none needs base64 unless it is asked
/// for.
fn message(kind: Kind, ask: &Ask) -> Result<Vec<u8>, String> {
    let rpc = proxy().call(kind.name()).ok_or("cannot be asked over gRPC")?;
    let mut ask = ask.clone();
    let bytes = match ask.b64data.take_if(|_| ask.encoding == "json") {
        Some(base64) => base64::Engine::decode(&BASE64, &*base64).unwrap_or_default(),
        None => Vec::new(),
    };
    let json = super::line::body(&ask)?;
    let mut message = proxy()
        .to_protobuf(rpc.request, &json)
        .map_err(|wrong| format!("cannot be asked: a bug: the question {wrong}"))?;
    if !bytes.is_empty() {
        proxy().put_bytes(rpc.request, "data", &bytes, &mut message);
    }
    Ok(message)
}

/// An answer's message as the body of an HTTP answer.
fn arrived(kind: Kind, message: &[u8]) -> Result<Arrived, String> {
    let rpc = proxy().call(kind.name()).ok_or("cannot be asked over gRPC")?;
    let body = proxy()
        .to_json(rpc.response, message)
        .map_err(|wrong| format!("answered a message that {wrong}"))?;
    Ok(Arrived { status: 200, headers: http::HeaderMap::new(), body: body.into() })
}

async fn send(mut sender: Sender, request: Request<Full<Bytes>>) -> Result<Bytes, Broken> {
    let hung_up = || "hung up without an answer".to_owned();
    if sender.ready().await.is_err() {
        return Err(Broken::Unsent(hung_up()));
    }
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(refused) if refused.message().is_some() => return Err(Broken::Unsent(hung_up())),
        Err(refused) if refused.error().is_parse() => {
            return Err(Broken::Failed("answered what is not HTTP/2".to_owned()));
        }
        Err(_) => return Err(Broken::Unanswered(hung_up())),
    };
    read(response).await.map_err(Broken::Failed)
}

async fn read(response: http::Response<Incoming>) -> Result<Bytes, String> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(format!("answered {}, and no call of gRPC is", head.status.as_u16()));
    }
    let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(format!("answered more than {ANSWER_BYTES_MAX} bytes"));
        }
        Err(_) => return Err("hung up in the middle of its answer".to_owned()),
    };
    let ended = body.trailers().and_then(status::read).or_else(|| status::read(&head.headers));
    match ended {
        Some((0, _)) => {}
        Some((code, message)) => return Err(format!("answered {}", failure(code, &message))),
        None => return Err("answered without a status of gRPC".to_owned()),
    }
    let mut bytes = BytesMut::from(&*body.to_bytes());
    match frame::take(&mut bytes, ANSWER_BYTES_MAX) {
        Ok(Some(message)) if bytes.is_empty() => Ok(message),
        Ok(_) => Err("answered something else than one message".to_owned()),
        Err(_) => Err("answered a compressed message, which was not asked for".to_owned()),
    }
}

/// A status of gRPC that is not OK (grpc/doc/statuscodes.md).
pub(super) fn failure(code: u16, message: &str) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = NAMES.get(usize::from(code)).copied().unwrap_or("an unknown status");
    if message.is_empty() {
        format!("{name} ({code})")
    } else {
        format!("{name} ({code}): {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_bytes_unless_base64_is_asked_for() {
        let user = std::sync::Arc::from("ann");
        let ask = |data: &[u8]| {
            Ask::rpc(&user, "m", Some(data)).said_by(
                "c".to_owned(),
                "websocket",
                throng_wire::dialect::Encoding::Json,
            )
        };
        let read = |ask: &Ask| {
            let rpc = proxy().call("rpc").unwrap();
            let json = proxy().to_json(rpc.request, &message(Kind::Rpc, ask).unwrap()).unwrap();
            String::from_utf8(json).unwrap()
        };
        let head = r#"{"client":"c","transport":"websocket","protocol":"json","encoding":"#;
        let sent = read(&ask(b"{\"a\":1}"));
        assert_eq!(sent, format!(r#"{head}"json","user":"ann","method":"m","data":{{"a":1}}}}"#));
        // Read back, what is no JSON is base64 again.
        let sent = read(&ask(b"\0\x01"));
        assert_eq!(sent, format!(r#"{head}"json","user":"ann","method":"m","b64data":"AQ=="}}"#));
        let sent = read(&ask(b"1").in_base64());
        assert_eq!(sent, format!(r#"{head}"binary","user":"ann","method":"m","b64data":"MQ=="}}"#));
    }

    #[test]
    fn every_kind_of_question_has_its_call() {
        for kind in Kind::ALL {
            assert!(proxy().call(kind.name()).is_some(), "{}", kind.name());
            assert!(arrived(kind, b"").is_ok());
        }
    }

    #[test]
    fn a_failure_is_named() {
        assert_eq!(failure(14, "gone"), "UNAVAILABLE (14): gone");
        assert_eq!(failure(99, ""), "an unknown status (99)");
    }
}
