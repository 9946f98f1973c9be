//! Publishes through the server's HTTP API, one request after another on a connection that is
//! kept, so that the order of publications is the order in which they were sent.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::failure::Failure;
use crate::handshake::Head;
use crate::target::Target;

/// A server that holds a crowd may be slow to accept; one that takes longer does not accept.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The answer to a publish is a few dozen bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// Where the API is, and the key to it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) target: Target,
    /// Empty for none.
    pub(crate) key: String,
}

#[derive(Debug)]
pub(crate) struct ApiPublisher {
    api: Api,
    /// To register the next connection, when the server closes this one.
    registration: Option<(Registry, Token)>,
    stream: Option<TcpStream>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// Whether a request waits for its answer.
    asked: bool,
}

/// A whole HTTP response.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    size: usize,
    last: bool,
}

impl ApiPublisher {
    pub(crate) fn new(api: Api) -> Self {
        let (inbox, outbox) = (Vec::new(), Vec::new());
        Self { api, registration: None, stream: None, inbox, outbox, asked: false }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Failure> {
        let registry = registry.try_clone().map_err(|error| self.unreachable(&error))?;
        self.registration = Some((registry, token));
        self.connect()
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.asked
    }

    pub(crate) fn publish(&mut self, body: &str) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.connect()?;
        }
        let Api { target, key } = &self.api;
        let key = if key.is_empty() { String::new() } else { format!("X-API-Key: {key}\r\n") };
        let request = format!(
            "POST {}/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{key}\
             Content-Length: {}\r\n\r\n{body}",
            target.path.trim_end_matches('/'),
            target.authority(),
            body.len(),
        );
        self.outbox.extend_from_slice(request.as_bytes());
        self.asked = true;
        self.flush()
    }

    pub(crate) fn on_event(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let mut some = [0; 4096];
        loop {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.read(&mut some) {
                Ok(0) if self.asked => {
                    return Err(self.unreachable(&"the connection ended before the answer"));
                }
                Ok(0) => self.stream = None,
                Ok(read) => {
                    self.inbox.extend_from_slice(&some[..read]);
                    self.take_answer()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
    }

    pub(crate) fn silence(&self) -> Option<Failure> {
        self.asked.then(|| self.unreachable(&"the API does not answer"))
    }

    fn connect(&mut self) -> Result<(), Failure> {
        let (registry, token) = self.registration.as_ref().expect("register() comes first");
        let opened =
            std::net::TcpStream::connect_timeout(&self.api.target.address, CONNECT_PATIENCE)
                .and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let mut stream = TcpStream::from_std(stream);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.register(&mut stream, *token, interest)?;
                    Ok(stream)
                });
        self.stream = Some(opened.map_err(|error| self.unreachable(&error))?);
        self.inbox.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while !self.outbox.is_empty() {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        Ok(())
    }

    fn take_answer(&mut self) -> Result<(), Failure> {
        let parsed = parse(&self.inbox).map_err(|why| self.unreachable(&why))?;
        let Some(answer) = parsed else { return Ok(()) };
        self.inbox.drain(..answer.size);
        self.asked = false;
        if answer.last {
            self.stream = None;
        }
        refusal(&answer).map_or(Ok(()), |(why, next)| Err(self.failure(&why, next)))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
        let next = "check --api, and the server's log".to_owned();
        self.failure(why, next)
    }

    fn failure(&self, why: &dyn std::fmt::Display, next: String) -> Failure {
        let Target { path, .. } = &self.api.target;
        let authority = self.api.target.authority();
        Failure::new(format!("cannot publish through http://{authority}{path}"), why, next)
    }
}

/// Why an answer is not the one to a publish that was done, and what to do.
fn refusal(answer: &Answer) -> Option<(String, String)> {
    let body = String::from_utf8_lossy(&answer.body);
    match answer.status {
        200 => {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let error = body.get("error")?;
            let code = error.get("code").map_or_else(String::new, ToString::to_string);
            Some((format!("the API answered {error}"), format!("throng explain {code}")))
        }
        401 => Some((
            "the API answered 401: the key is missing or wrong".to_owned(),
            "give --api-key, or --messages 0 to publish nothing".to_owned(),
        )),
        404 => Some((
            "the API answered 404".to_owned(),
            "give the URL of the API with --api, or --messages 0 to publish nothing".to_owned(),
        )),
        status => Some((
            format!("the API answered {status}: {:.200}", body.trim()),
            "see the server's log".to_owned(),
        )),
    }
}

/// Takes one response from the front of `bytes`; `None` while it is not all there.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let Some(head) = Head::parse(bytes).map_err(|refusal| refusal.to_string())? else {
        return Ok(None);
    };
    let rest = &bytes[head.size..];
    let last = head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let chunked = head.field("transfer-encoding").is_some();
    let body = if chunked { dechunk(rest)? } else { sized(&head, rest)? };
    if body.is_none() && bytes.len() > ANSWER_MAX {
        return Err("the answer is too long".to_owned());
    }
    Ok(body.map(|(body, size)| Answer { status: head.status, body, size: head.size + size, last }))
}

type Body = Option<(Vec<u8>, usize)>;

fn sized(head: &Head<'_>, rest: &[u8]) -> Result<Body, String> {
    let length = head.field("content-length").unwrap_or("0");
    let length: usize = length.parse().map_err(|_| format!("Content-Length is {length}"))?;
    Ok(rest.get(..length).map(|body| (body.to_vec(), length)))
}

// RFC 9112 7.1: size in hexadecimal, CR LF, the chunk, CR LF; a chunk of size 0 is the last.
fn dechunk(rest: &[u8]) -> Result<Body, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = rest[at..].windows(2).position(|window| window == b"\r\n") else {
            return Ok(None);
        };
        let size = String::from_utf8_lossy(&rest[at..at + line]);
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| format!("chunk {size}"))?;
        let start = at + line + 2;
        let Some(chunk) = rest.get(start..start + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        at = start + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
        if body.len() > ANSWER_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Some(Answer { status, body, size, last })) => {
                let body = String::from_utf8_lossy(&body);
                let after = &text[size..];
                format!("{status} {body:?} then {after:?}{}", if last { ", the last" } else { "" })
            }
            Ok(None) => "more".to_owned(),
            Err(why) => why,
        }
    }

    #[test]
    fn reads_sized_and_chunked_answers() {
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}HTTP"),
            r#"200 "{\"result\":{}}" then "HTTP""#
        );
        assert_eq!(
            read(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            ),
            r#"200 "abcde" then """#
        );
        assert_eq!(
            read("HTTP/1.1 401 No\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"),
            r#"401 "" then "", the last"#
        );
    }

    #[test]
    fn waits_for_the_rest() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"resu"), "more");
        assert_eq!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"), "more");
        assert_eq!(read("HTTP/1.1 2"), "more");
    }

    #[test]
    fn an_error_is_an_error_whatever_the_status() {
        let told = |status, body: &str| {
            let answer = Answer { status, body: body.into(), size: 0, last: false };
            refusal(&answer).map(|(why, next)| format!("{why} — {next}"))
        };
        assert_eq!(told(200, "{\"result\":{}}"), None);
        assert_eq!(
            told(200, r#"{"error":{"code":102,"message":"unknown channel"}}"#).unwrap(),
            r#"the API answered {"code":102,"message":"unknown channel"} — throng explain 102"#
        );
        assert!(told(401, "").unwrap().contains("--api-key"));
        assert!(told(500, "broken").unwrap().contains("500: broken"));
    }
}
