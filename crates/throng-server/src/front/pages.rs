//! The playground of development mode: a few files inside the binary.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::{Answer, with_type};

/// What the page may load: itself, and nothing from elsewhere.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at a path.
pub(super) fn page(path: &str) -> Option<Answer> {
    let (kind, body): (_, &'static str) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("../../ui/playground.html")),
        "/playground.css" => ("text/css; charset=utf-8", include_str!("../../ui/playground.css")),
        "/playground.js" => {
            ("text/javascript; charset=utf-8", include_str!("../../ui/playground.js"))
        }
        "/favicon.svg" => ("image/svg+xml", include_str!("../../ui/favicon.svg")),
        _ => return None,
    };
    let mut answer = with_type(StatusCode::OK, kind, Bytes::from_static(body.as_bytes()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}
