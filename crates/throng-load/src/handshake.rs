//! The client's half of the upgrade from HTTP to WebSocket.

use throng_wire::websocket::accept_key;

use crate::message::quoted;
use crate::target::Target;

/// No server needs more for the head of an answer to an upgrade.
const HEAD_MAX: usize = 8 * 1024;
/// As much of a refusal's body as a person wants to read.
const BODY_SHOWN_MAX: usize = 200;
/// As much of a server's name for itself.
const NAME_SHOWN_MAX: usize = 40;

/// One upgrade, prepared once and used by every client of a crowd.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    pub(crate) request: Vec<u8>,
    accept: String,
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server answered the upgrade with another status than 101.
    #[error("{} answered {status}{}", named(.server), shown(.body))]
    Status {
        status: u16,
        body: String,
        /// What it calls itself, `nginx/1.22.1` for one; empty when it does not say.
        server: String,
    },
    /// What came is no HTTP/1.1.
    #[error("the server does not speak HTTP: {0}")]
    NotHttp(String),
    /// The server did not prove that it understood.
    #[error("the server's Sec-WebSocket-Accept is {found}, not {expected}")]
    WrongAccept { expected: String, found: String },
}

impl Refusal {
    /// The HTTP status, where there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::NotHttp(_) | Self::WrongAccept { .. } => None,
        }
    }
}

/// An HTTP/1.1 response head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) status: u16,
    fields: &'a str,
    /// How many bytes it took, with the empty line.
    pub(crate) size: usize,
}

impl Upgrade {
    /// `key` is the Sec-WebSocket-Key, `headers` are further lines, each ended by CR LF.
    pub(crate) fn new(target: &Target, key: &str, headers: &str) -> Self {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n",
            target.path,
            target.authority(),
        );
        Self { request: request.into_bytes(), accept: accept_key(key) }
    }

    /// Checks the answer; how many bytes it took, or `None` while it is not all there.
    pub(crate) fn check(&self, answer: &[u8]) -> Result<Option<usize>, Refusal> {
        let Some(head) = Head::with_status(answer, 101)? else { return Ok(None) };
        let found = head.field("sec-websocket-accept").unwrap_or("missing");
        if found != self.accept {
            let expected = self.accept.clone();
            return Err(Refusal::WrongAccept { expected, found: found.to_owned() });
        }
        Ok(Some(head.size))
    }
}

impl<'a> Head<'a> {
    pub(crate) fn parse(answer: &'a [u8]) -> Result<Option<Self>, Refusal> {
        let not_http = || Refusal::NotHttp(beginning(answer));
        if !answer.starts_with(b"HTTP/1.") && !b"HTTP/1.".starts_with(answer) {
            return Err(not_http());
        }
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if answer.len() > HEAD_MAX { Err(not_http()) } else { Ok(None) };
        };
        let head = std::str::from_utf8(&answer[..end]).map_err(|_| not_http())?;
        let (first, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Some(Self { status: status.ok_or_else(not_http)?, fields, size: end + 4 }))
    }

    /// The same, where another status is a refusal.
    pub(crate) fn with_status(answer: &'a [u8], wanted: u16) -> Result<Option<Self>, Refusal> {
        let Some(head) = Self::parse(answer)? else { return Ok(None) };
        if head.status == wanted {
            return Ok(Some(head));
        }
        let body = &answer[head.size..];
        let body = String::from_utf8_lossy(&body[..body.len().min(BODY_SHOWN_MAX)]);
        let server = head.field("server").unwrap_or_default();
        let server = server.chars().filter(|c| !c.is_control()).take(NAME_SHOWN_MAX).collect();
        let body = body.trim().to_owned();
        Err(Refusal::Status { status: head.status, body, server })
    }

    /// The value of a header field; `name` in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn named(server: &str) -> &str {
    if server.is_empty() { "the server" } else { server }
}

/// Of a page only what it is called: the rest is no words for a terminal.
fn shown(body: &str) -> String {
    match body {
        "" => String::new(),
        page if page.starts_with('<') => {
            let title = page.split_once("<title>").and_then(|(_, rest)| rest.split_once('<'));
            title.map_or_else(
                || " with a page".to_owned(),
                |(title, _)| format!(" with the page {:?}", title.trim()),
            )
        }
        words => format!(": {words}"),
    }
}

fn beginning(answer: &[u8]) -> String {
    let some = &answer[..answer.len().min(40)];
    format!("{:?}", String::from_utf8_lossy(some))
}

/// The request of a client that only hears events, with its connect request in the address.
pub(crate) fn events_request(target: &Target, token: &str, channel: &str) -> Vec<u8> {
    let (token, channel) = (quoted(token), quoted(channel));
    let connect = format!("{{\"token\":{token},\"subs\":{{{channel}:{{}}}}}}");
    let connect: String = connect.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let separator = if target.path.contains('?') { '&' } else { '?' };
    format!(
        "GET {}{separator}cf_connect={connect} HTTP/1.1\r\nHost: {}\r\n\
         Accept: text/event-stream\r\n\r\n",
        target.path,
        target.authority(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
