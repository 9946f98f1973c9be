//! The playground of development mode: a few files inside the binary.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::{Answer, with_type};

/// What the page may load: itself, and nothing from elsewhere.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page calls the program, in its own source.
const COMMAND: &str = "content=\"throng\"";

/// The file at a path. `command` is how this program is called from any directory.
pub(super) fn page(path: &str, command: &str) -> Option<Answer> {
    let (kind, body): (_, &'static str) = match path {
        "/" => {
            let html = include_str!("../../ui/playground.html");
            let html = html.replacen(COMMAND, &format!("content=\"{}\"", escaped(command)), 1);
            return Some(with_policy("text/html; charset=utf-8", html.into()));
        }
        "/playground.css" => ("text/css; charset=utf-8", include_str!("../../ui/playground.css")),
        "/playground.js" => {
            ("text/javascript; charset=utf-8", include_str!("../../ui/playground.js"))
        }
        "/favicon.svg" => ("image/svg+xml", include_str!("../../ui/favicon.svg")),
        _ => return None,
    };
    Some(with_policy(kind, Bytes::from_static(body.as_bytes())))
}

fn with_policy(kind: &'static str, body: Bytes) -> Answer {
    let mut answer = with_type(StatusCode::OK, kind, body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Text inside an element or an attribute of HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}
