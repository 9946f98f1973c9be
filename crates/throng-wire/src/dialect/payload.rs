//! What travels through the server as a payload, whatever encoding it came in: JSON text as it
//! was, or a mark and any bytes.
//!
//! Clients of both encodings share channels. JSON text is the same payload in both. Bytes that are
//! no JSON come only from a client that speaks Protobuf, or from a backend as base64; to embed them
//! would break the JSON that carries them, so they are marked once, where they come in.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// How deep a payload may nest: subscribers have to read it too, and the parsers of some of them
/// recurse.
const DEPTH_MAX: usize = 128;

/// The mark: no JSON text begins with it (RFC 8259 2).
const MARK: u8 = 0;

/// These bytes as a payload.
pub fn sealed(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_empty() || is_json(bytes) {
        return Cow::Borrowed(bytes);
    }
    let mut marked = Vec::with_capacity(1 + bytes.len());
    marked.push(MARK);
    marked.extend_from_slice(bytes);
    Cow::Owned(marked)
}

/// The bytes of a payload that is no JSON; `None` for JSON text.
pub fn binary(payload: &[u8]) -> Option<&[u8]> {
    payload.strip_prefix(&[MARK])
}

/// The bytes of a payload, as they came in.
pub fn bytes(payload: &[u8]) -> &[u8] {
    binary(payload).unwrap_or(payload)
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok() && !is_too_deep(bytes)
}

/// Whether this valid JSON text nests deeper than [`DEPTH_MAX`].
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    // Every level takes an opening and a closing byte.
    if json.len() <= 2 * DEPTH_MAX {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next()
                    && *byte != b'"'
                {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_itself_and_anything_else_is_marked() {
        for json in ["{}", " [1, 2]\n", "null", "\"ж\"", ""] {
            assert!(matches!(sealed(json.as_bytes()), Cow::Borrowed(_)), "{json}");
            assert_eq!(binary(&sealed(json.as_bytes())), None);
            assert_eq!(bytes(&sealed(json.as_bytes())), json.as_bytes());
        }
        let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
        for other in [&b"\0"[..], b"{", b"\"\xff\"", b"{} {}", b"\0{}", &deep] {
            assert_eq!(binary(&sealed(other)), Some(other));
            assert_eq!(bytes(&sealed(other)), other);
        }
    }
}
