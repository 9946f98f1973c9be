//! How a call ended: gRPC's codes, and the headers that say them.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue};

/// How a call ended (grpc/doc/statuscodes.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    /// For people; empty where all went well.
    pub(crate) message: String,
}

/// The codes that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Status {
    pub(crate) const OK: Self = Self { code: Code::Ok, message: String::new() };

    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Puts it into headers or trailers.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(u16::from(self.code as u8)));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::try_from(percent_encoded(&self.message))
        {
            headers.insert("grpc-message", message);
        }
    }

    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.put(&mut trailers);
        trailers
    }
}

/// A message as a header has it: what is not printable ASCII, and `%`, is escaped
/// (PROTOCOL-HTTP2.md, Status-Message).
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a text is written to memory");
        }
    }
    out
}

/// What another server says its status is: its number, and its message made printable.
pub(crate) fn read(headers: &HeaderMap) -> Option<(u16, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    let shown = String::from_utf8_lossy(message);
    let shown = crate::front::percent_decoded(&shown.replace('+', "%2B"));
    let shown = String::from_utf8_lossy(&shown);
    Some((code, shown.chars().filter(|c| !c.is_control()).take(200).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_and_read() {
        let status = Status::new(Code::NotFound, "50% of ж\n+1");
        let trailers = status.trailers();
        assert_eq!(trailers["grpc-message"], "50%25 of %D0%B6%0A+1");
        assert_eq!(read(&trailers), Some((5, "50% of ж+1".to_owned())));
        assert_eq!(read(&Status::OK.trailers()), Some((0, String::new())));
        assert_eq!(read(&HeaderMap::new()), None);
    }
}
