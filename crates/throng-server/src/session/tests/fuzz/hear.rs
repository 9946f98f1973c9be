//! What random clients hear, whatever it is wrapped in, as the JSON that it says.

use serde_json::{Map, Value};
use throng_wire::framing::Framing;
use throng_wire::websocket::{Decoder, Event as Frame, Limits, Role};

/// The messages of what was said; a ping of WebSocket's own is none.
pub(super) fn messages(framing: Framing, said: Vec<u8>) -> Vec<Value> {
    let json = |text: &[u8]| {
        serde_json::from_slice(text)
            .unwrap_or_else(|_| panic!("it says {}", String::from_utf8_lossy(text)))
    };
    match framing {
        Framing::WebSocket | Framing::Binary => frames(said),
        Framing::Sse => {
            let said = String::from_utf8(said).unwrap();
            let events = said.split_terminator("\n\n");
            events.map(|event| json(event.strip_prefix("data: ").unwrap().as_bytes())).collect()
        }
        Framing::Lines => {
            assert!(said.is_empty() || said.ends_with(b"\n"));
            said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(json).collect()
        }
        Framing::Lengths => lengths(&said),
    }
}

fn frames(mut said: Vec<u8>) -> Vec<Value> {
    let mut decoder = Decoder::new();
    let mut heard = Vec::new();
    let mut input = said.as_mut_slice();
    while !input.is_empty() {
        let step = decoder.next(input, Role::Client, Limits { message_max: 1 << 26 }).unwrap();
        match step.event {
            Some(Frame::Text(text)) => heard.push(serde_json::from_str(text).unwrap()),
            Some(Frame::Binary(bytes)) => heard.extend(lengths(bytes)),
            Some(Frame::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
        let consumed = step.consumed;
        input = &mut input[consumed..];
    }
    heard
}

/// What a field of a message is.
enum Kind {
    Number,
    Text,
    Bytes,
    Message(&'static [(u64, &'static str, Self)]),
    /// Messages, one after the other.
    Each(&'static [(u64, &'static str, Self)]),
    /// Messages by name.
    Map(&'static [(u64, &'static str, Self)]),
    /// Texts by name.
    Texts,
}

type Fields = &'static [(u64, &'static str, Kind)];

const INFO: Fields = &[
    (1, "user", Kind::Text),
    (2, "client", Kind::Text),
    (3, "conn_info", Kind::Bytes),
    (4, "chan_info", Kind::Bytes),
];
const PUBLICATION: Fields = &[
    (4, "data", Kind::Bytes),
    (5, "info", Kind::Message(INFO)),
    (6, "offset", Kind::Number),
    (7, "tags", Kind::Texts),
    (14, "epoch", Kind::Text),
];
const SUBSCRIBED: Fields = &[
    (1, "expires", Kind::Number),
    (2, "ttl", Kind::Number),
    (3, "recoverable", Kind::Number),
    (6, "epoch", Kind::Text),
    (7, "publications", Kind::Each(PUBLICATION)),
    (8, "recovered", Kind::Number),
    (9, "offset", Kind::Number),
    (10, "positioned", Kind::Number),
    (11, "data", Kind::Bytes),
    (12, "was_recovering", Kind::Number),
];
const CONNECTED: Fields = &[
    (1, "client", Kind::Text),
    (2, "version", Kind::Text),
    (3, "expires", Kind::Number),
    (4, "ttl", Kind::Number),
    (5, "data", Kind::Bytes),
    (6, "subs", Kind::Map(SUBSCRIBED)),
    (7, "ping", Kind::Number),
    (8, "pong", Kind::Number),
    (9, "session", Kind::Text),
    (10, "node", Kind::Text),
    (11, "time", Kind::Number),
];
const PUSH: Fields = &[
    (2, "channel", Kind::Text),
    (4, "pub", Kind::Message(PUBLICATION)),
    (5, "join", Kind::Message(&[(1, "info", Kind::Message(INFO))])),
    (6, "leave", Kind::Message(&[(1, "info", Kind::Message(INFO))])),
    (7, "unsubscribe", Kind::Message(&[(2, "code", Kind::Number), (3, "reason", Kind::Text)])),
    (
        9,
        "subscribe",
        Kind::Message(&[
            (1, "recoverable", Kind::Number),
            (4, "epoch", Kind::Text),
            (5, "offset", Kind::Number),
            (6, "positioned", Kind::Number),
            (7, "data", Kind::Bytes),
        ]),
    ),
    (12, "refresh", Kind::Message(&[(1, "expires", Kind::Number), (2, "ttl", Kind::Number)])),
];
const REPLY: Fields = &[
    (1, "id", Kind::Number),
    (
        2,
        "error",
        Kind::Message(&[
            (1, "code", Kind::Number),
            (2, "message", Kind::Text),
            (3, "temporary", Kind::Number),
        ]),
    ),
    (4, "push", Kind::Message(PUSH)),
    (5, "connect", Kind::Message(CONNECTED)),
    (6, "subscribe", Kind::Message(SUBSCRIBED)),
    (7, "unsubscribe", Kind::Message(&[])),
    (8, "publish", Kind::Message(&[])),
    (9, "presence", Kind::Message(&[(1, "presence", Kind::Map(INFO))])),
    (
        10,
        "presence_stats",
        Kind::Message(&[(1, "num_clients", Kind::Number), (2, "num_users", Kind::Number)]),
    ),
    (
        11,
        "history",
        Kind::Message(&[
            (1, "publications", Kind::Each(PUBLICATION)),
            (2, "epoch", Kind::Text),
            (3, "offset", Kind::Number),
        ]),
    ),
    (13, "rpc", Kind::Message(&[(1, "data", Kind::Bytes)])),
    (
        14,
        "refresh",
        Kind::Message(&[
            (1, "client", Kind::Text),
            (2, "version", Kind::Text),
            (3, "expires", Kind::Number),
            (4, "ttl", Kind::Number),
        ]),
    ),
    (15, "sub_refresh", Kind::Message(&[(1, "expires", Kind::Number), (2, "ttl", Kind::Number)])),
];

fn lengths(mut said: &[u8]) -> Vec<Value> {
    let mut heard = Vec::new();
    while !said.is_empty() {
        let len = usize::try_from(varint(&mut said)).unwrap();
        let (one, rest) = said.split_at(len);
        heard.push(Value::Object(message(one, REPLY)));
        said = rest;
    }
    heard
}

fn message(mut bytes: &[u8], fields: Fields) -> Map<String, Value> {
    let mut read = Map::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let (number, value) = match key & 7 {
            0 => (varint(&mut bytes), None),
            2 => {
                let len = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                (0, Some(value))
            }
            other => panic!("a field of kind {other}"),
        };
        let Some((_, name, kind)) = fields.iter().find(|(tag, ..)| *tag == key >> 3) else {
            continue;
        };
        field(&mut read, (name, kind), number, value.unwrap_or_default());
    }
    read
}

fn field(read: &mut Map<String, Value>, (name, kind): (&str, &Kind), number: u64, value: &[u8]) {
    let text = |bytes: &[u8]| Value::from(String::from_utf8(bytes.to_vec()).unwrap());
    let one = match kind {
        Kind::Number => number.into(),
        Kind::Text => text(value),
        Kind::Bytes => String::from_utf8_lossy(value).into(),
        Kind::Message(fields) => Value::Object(message(value, fields)),
        Kind::Each(fields) => {
            let list = read.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            return list.as_array_mut().unwrap().push(Value::Object(message(value, fields)));
        }
        Kind::Map(fields) => {
            let (key, value) = entry(value);
            let map = read.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let value = Value::Object(message(value, fields));
            map.as_object_mut().unwrap().insert(key, value);
            return;
        }
        Kind::Texts => {
            let (key, value) = entry(value);
            let map = read.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut().unwrap().insert(key, text(value));
            return;
        }
    };
    read.insert(name.to_owned(), one);
}

fn entry(mut bytes: &[u8]) -> (String, &[u8]) {
    let (mut key, mut value) = (String::new(), &bytes[..0]);
    while !bytes.is_empty() {
        let tag = varint(&mut bytes) >> 3;
        let len = usize::try_from(varint(&mut bytes)).unwrap();
        let (said, rest) = bytes.split_at(len);
        bytes = rest;
        match tag {
            1 => key = String::from_utf8(said.to_vec()).unwrap(),
            _ => value = said,
        }
    }
    (key, value)
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
