//! The protocol in Protobuf, as far as a crowd speaks it: two commands, and what of a reply or push is
//! looked at.

/// The subprotocol that asks for it.
pub(crate) const HEADER: &str = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";
/// An empty command answers an empty reply, which is a ping.
pub(super) const PONG: &[u8] = &[0];

/// A reply, a push, or an empty message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) id: u64,
    pub(super) error: Option<Notice<'a>>,
    /// Seconds between pings, of a connect reply.
    pub(super) ping: Option<u64>,
    pub(super) unsubscribed: Option<Notice<'a>>,
    pub(super) disconnected: Option<Notice<'a>>,
}

/// A code, and its words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notice<'a> {
    pub(super) code: u64,
    pub(super) words: &'a [u8],
}

/// The command that connects, with its length before it.
pub(super) fn connect(token: &str) -> Vec<u8> {
    let mut request = Vec::new();
    if !token.is_empty() {
        put_bytes(1, token.as_bytes(), &mut request);
    }
    put_bytes(4, b"throng-load", &mut request);
    command(1, 4, &request)
}

/// The command that subscribes.
pub(super) fn subscribe(channel: &str) -> Vec<u8> {
    let mut request = Vec::new();
    put_bytes(1, channel.as_bytes(), &mut request);
    command(2, 5, &request)
}

fn command(id: u8, number: u8, request: &[u8]) -> Vec<u8> {
    let mut command = vec![1 << 3, id];
    put_bytes(number, request, &mut command);
    let mut out = Vec::new();
    put_varint(command.len(), &mut out);
    out.extend(command);
    out
}

/// The first message of a frame, and what follows it; `None` where that is none.
pub(super) fn message(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = varint(frame)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

/// What a message says; `None` where it is not one.
pub(super) fn read(message: &[u8]) -> Option<Said<'_>> {
    let mut said = Said::default();
    each(message, &mut |field| {
        match field {
            (1, Value::Number(id)) => said.id = id,
            (2, Value::Bytes(error)) => said.error = Some(notice(error, (1, 2))?),
            (4, Value::Bytes(push)) => each(push, &mut |field| {
                match field {
                    (7, Value::Bytes(it)) => said.unsubscribed = Some(notice(it, (2, 3))?),
                    (11, Value::Bytes(it)) => said.disconnected = Some(notice(it, (1, 2))?),
                    _ => {}
                }
                Some(())
            })?,
            (5, Value::Bytes(connected)) => {
                said.ping = Some(0);
                each(connected, &mut |field| {
                    if let (7, Value::Number(ping)) = field {
                        said.ping = Some(ping);
                    }
                    Some(())
                })?;
            }
            _ => {}
        }
        Some(())
    })?;
    Some(said)
}

fn notice(bytes: &[u8], (code_at, words_at): (u64, u64)) -> Option<Notice<'_>> {
    let mut notice = Notice::default();
    each(bytes, &mut |field| {
        match field {
            (at, Value::Number(code)) if at == code_at => notice.code = code,
            (at, Value::Bytes(words)) if at == words_at => notice.words = words,
            _ => {}
        }
        Some(())
    })?;
    Some(notice)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Goes through the fields of a message; none of its own are of the fixed widths.
fn each<'a>(mut bytes: &'a [u8], f: &mut dyn FnMut((u64, Value<'a>)) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes)?;
        let value = match key & 7 {
            0 => {
                let (number, rest) = varint(rest)?;
                bytes = rest;
                Value::Number(number)
            }
            2 => {
                let (value, rest) = message(rest)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        f((key >> 3, value))?;
    }
    Some(())
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

fn put_varint(mut number: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    put_varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_the_protocol_says() {
        assert_eq!(connect(""), b"\x11\x08\x01\x22\x0d\x22\x0bthrong-load");
        let with_token = connect(&"t".repeat(200));
        assert_eq!(with_token[..7], [0xdd, 0x01, 8, 1, 0x22, 0xd8, 0x01]);
        assert_eq!(subscribe("news"), b"\x0a\x08\x02\x2a\x06\x0a\x04news");
    }

    #[test]
    fn replies_and_pushes_are_read() {
        let frame = b"\x07\x08\x01\x2a\x03\x38\x99\x01\x00";
        let (first, rest) = message(frame).unwrap();
        let connected = Said { id: 1, ping: Some(153), ..Said::default() };
        assert_eq!((read(first).unwrap(), rest), (connected, &[0][..]));
        assert_eq!(message(rest), Some((&[][..], &[][..])));
        let error = read(b"\x08\x02\x12\x06\x08\x67\x12\x02no").unwrap().error.unwrap();
        assert_eq!((error.code, error.words), (103, &b"no"[..]));
        let gone = read(b"\x22\x0a\x5a\x08\x08\xb9\x17\x12\x03bye").unwrap();
        let gone = gone.disconnected.unwrap();
        assert_eq!((gone.code, gone.words), (3001, &b"bye"[..]));
        for bad in [&b"\x08"[..], b"\x12\x05no", b"\x0d\x01\x02\x03\x04", &[0xff; 12]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(message(b"\x05no"), None);
    }
}
