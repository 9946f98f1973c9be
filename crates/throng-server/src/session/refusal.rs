//! The answer to a client whose response has not begun: a status instead of a push.

use http::StatusCode;
use throng_wire::framing::Framing;

use super::Session;
use crate::codes::{Disconnect, error_message};
use crate::config::Settings;

impl Session {
    /// The whole response to a client that is not let in, where it waits for one.
    pub(crate) fn refusal(
        &self,
        settings: &Settings,
        framing: Framing,
        why: &Disconnect,
    ) -> Option<Vec<u8>> {
        let extra = self.extra.as_ref()?;
        let head = extra.head.as_ref()?;
        let stream = match framing {
            Framing::Sse => &settings.uni_sse,
            _ => &settings.uni_http_stream,
        };
        let (code, said) = match error_message(extra.error) {
            Some(message) => (extra.error, message),
            None => (why.code.into(), &*why.reason),
        };
        let chosen = stream.refusals.iter().flatten().find(|refusal| refusal.code == code);
        let (status, body) = match chosen {
            Some(chosen) if chosen.body.is_empty() => (chosen.status, said),
            Some(chosen) => (chosen.status, chosen.body.as_str()),
            None => (500, "Internal Server Error"),
        };
        Some(response(head, status, body))
    }
}

/// A response with this status and body, and otherwise with what stands in the head of another:
/// who may read it, and that nobody keeps it.
fn response(head: &[u8], status: u16, body: &str) -> Vec<u8> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for line in head.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii_end) {
        if line.is_empty() {
            break;
        }
        if !line.starts_with(b"Content-Type:") {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(
        format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_heads_fields_and_says_its_own_content() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\
                     Access-Control-Allow-Origin: https://a\r\n\r\n\r\n";
        assert_eq!(
            String::from_utf8(response(head, 401, "log in")).unwrap(),
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nAccess-Control-Allow-Origin: \
             https://a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\r\nlog in"
        );
    }
}
