//! What random clients say: commands with whatever fields, in both encodings, whole and spoilt.

use throng_wire::dialect::Encoding;

use crate::rng::Rng;

/// A field: its name in JSON, its number in Protobuf, and what it says.
type Field = (&'static str, u32, Val);

#[derive(Debug, Clone)]
enum Val {
    Num(i64),
    Bool(bool),
    Text(String),
    /// JSON as it stands; bytes in Protobuf.
    Raw(String),
    Message(Vec<Field>),
    /// Messages by name.
    Map(Vec<(String, Self)>),
}

/// What there is to be named in a world.
pub(super) struct Names {
    pub(super) channels: Vec<String>,
    /// Tokens of connections, good and bad.
    pub(super) tokens: Vec<String>,
    /// Tokens of subscriptions, each for a channel, good and bad.
    pub(super) sub_tokens: Vec<(String, String)>,
    /// Of streams that somebody was told of.
    pub(super) epochs: Vec<String>,
}

/// One of them.
pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.below(u32::try_from(from.len()).unwrap()) as usize]
}

/// True once in `n` times.
pub(super) fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.below(n) == 0
}

/// A frame of commands.
pub(super) fn frame(rng: &mut Rng, encoding: Encoding, names: &Names, id: &mut u32) -> Vec<u8> {
    let count = match rng.below(40) {
        0 => 200 + rng.below(400),
        1..=4 => 2 + rng.below(30),
        _ => 1,
    };
    let mut out = Vec::new();
    for at in 0..count {
        *id = id.wrapping_add(1);
        let said = match rng.below(400) {
            0 => 0,
            1 => u32::MAX,
            2 => id.wrapping_sub(1),
            _ => *id,
        };
        let fields = command(rng, names, said);
        put(encoding, &fields, at > 0, &mut out);
    }
    out
}

/// A frame whose first command is a connect command.
pub(super) fn connect_frame(rng: &mut Rng, encoding: Encoding, names: &Names) -> Vec<u8> {
    let mut out = Vec::new();
    let fields = vec![
        ("id", 1, Val::Num(1 + i64::from(rng.below(3)))),
        ("connect", 4, Val::Message(connect(rng, names))),
    ];
    put(encoding, &fields, false, &mut out);
    out
}

/// A connect request alone, as unidirectional clients begin.
pub(super) fn connect_request(rng: &mut Rng, names: &Names) -> Vec<u8> {
    let mut out = Vec::new();
    json(&Val::Message(connect(rng, names)), &mut out);
    out
}

/// The answer to a ping.
pub(super) fn pong(encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => b"{}".to_vec(),
        Encoding::Protobuf => vec![0],
    }
}

/// The same bytes with some of them other ones.
pub(super) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        let len = u32::try_from(bytes.len()).unwrap();
        let at = rng.below(len.max(1)) as usize;
        match rng.below(6) {
            0 if len > 0 => bytes[at] ^= 1 << rng.below(8),
            1 if len > 0 => bytes[at] = (rng.next_u64() & 0xff) as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(bytes.len()), *pick(rng, b"\n\"{}[],:\0\xff0-")),
            4 if len > 0 => {
                let end = (at + rng.below(64) as usize).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let end = (at + rng.below(16) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

/// Bytes that mean nothing.
pub(super) fn noise(rng: &mut Rng) -> Vec<u8> {
    let len = if once_in(rng, 8) { 70_000 } else { rng.below(60) };
    (0..len).map(|_| (rng.next_u64() & 0xff) as u8).collect()
}

fn command(rng: &mut Rng, names: &Names, id: u32) -> Vec<Field> {
    let mut fields = vec![("id", 1, Val::Num(i64::from(id)))];
    let mut asked = vec![request(rng, names)];
    if once_in(rng, 40) {
        asked.push(request(rng, names));
    }
    for (name, tag, mut of) in asked {
        spoil(rng, &mut of);
        fields.push((name, tag, Val::Message(of)));
    }
    if once_in(rng, 12) {
        spoil(rng, &mut fields);
    }
    fields
}

fn request(rng: &mut Rng, names: &Names) -> (&'static str, u32, Vec<Field>) {
    let channel = pick(rng, &names.channels).clone();
    let channel = if once_in(rng, 300) { String::new() } else { channel };
    let channel = ("channel", 1, Val::Text(channel));
    match rng.below(30) {
        0 if once_in(rng, 8) => ("connect", 4, connect(rng, names)),
        1..=7 => {
            let mut of = subscription(rng, names);
            let token = sub_token(rng, names);
            let channel = match &token {
                Some((of, _)) if !once_in(rng, 10) => ("channel", 1, Val::Text(of.clone())),
                _ => channel,
            };
            of.insert(0, channel);
            of.extend(token.map(|(_, token)| ("token", 2, Val::Text(token))));
            ("subscribe", 5, of)
        }
        8..=10 => ("unsubscribe", 6, vec![channel]),
        11..=15 => ("publish", 7, vec![channel, ("data", 2, payload(rng))]),
        16 | 17 => ("presence", 8, vec![channel]),
        18 | 19 => ("presence_stats", 9, vec![channel]),
        20 | 21 => {
            let limit = *pick(rng, &[-1, 0, 1, 3, 1000, i64::from(i32::MIN)]);
            let mut of = vec![channel, ("limit", 7, Val::Num(limit))];
            if once_in(rng, 2) {
                of.push(("since", 8, Val::Message(position(rng, names, 1, 2))));
            }
            of.push(("reverse", 9, Val::Bool(once_in(rng, 2))));
            ("history", 10, of)
        }
        22..=24 => {
            let method = *pick(rng, &["ping", "sum", "math:add", "off:x", "no:x", "", ":"]);
            (
                "rpc",
                13,
                vec![("data", 1, payload(rng)), ("method", 2, Val::Text(method.to_owned()))],
            )
        }
        25 if once_in(rng, 30) => ("send", 12, vec![("data", 1, payload(rng))]),
        26 if once_in(rng, 2) => {
            ("refresh", 14, vec![("token", 1, Val::Text(pick(rng, &names.tokens).clone()))])
        }
        28 => {
            let (channel, token) = sub_token(rng, names).unwrap_or_default();
            let of = vec![("channel", 1, Val::Text(channel)), ("token", 2, Val::Text(token))];
            ("sub_refresh", 15, of)
        }
        _ if once_in(rng, 200) => ("ping", 11, Vec::new()),
        _ => ("presence", 8, vec![channel]),
    }
}

fn connect(rng: &mut Rng, names: &Names) -> Vec<Field> {
    let mut of = Vec::new();
    if !once_in(rng, 3) {
        of.push(("token", 1, Val::Text(pick(rng, &names.tokens).clone())));
    }
    if once_in(rng, 4) {
        of.push(("data", 2, payload(rng)));
    }
    if once_in(rng, 3) {
        let subs = (0..rng.below(4))
            .map(|_| (pick(rng, &names.channels).clone(), Val::Message(subscription(rng, names))))
            .collect();
        of.push(("subs", 3, Val::Map(subs)));
    }
    of.push(("name", 4, Val::Text("fuzz".to_owned())));
    if once_in(rng, 4) {
        let headers = vec![("Authorization".to_owned(), Val::Text("x\r\ny".to_owned()))];
        of.push(("headers", 6, Val::Map(headers)));
    }
    if once_in(rng, 12) {
        spoil(rng, &mut of);
    }
    of
}

/// How one subscribes, but for the channel.
fn subscription(rng: &mut Rng, names: &Names) -> Vec<Field> {
    let mut of = Vec::new();
    if once_in(rng, 2) {
        of.push(("recover", 3, Val::Bool(true)));
        of.extend(position(rng, names, 7, 6));
    }
    for (name, tag) in [("positioned", 9), ("recoverable", 10), ("join_leave", 11)] {
        if once_in(rng, 2) {
            of.push((name, tag, Val::Bool(true)));
        }
    }
    if once_in(rng, 3) {
        let kind = if once_in(rng, 8) { "other" } else { "fossil" };
        of.push(("delta", 12, Val::Text(kind.to_owned())));
    }
    if once_in(rng, 10) {
        of.push(("flag", 14, Val::Num(*pick(rng, &[2, 1, 3, -1]))));
    }
    if once_in(rng, 20) {
        of.push(("data", 8, payload(rng)));
    }
    of
}

/// A place in a stream.
fn position(rng: &mut Rng, names: &Names, offset: u32, epoch: u32) -> Vec<Field> {
    let at = *pick(rng, &[0, 0, 1, 2, 3, 5, 8, i64::MAX]);
    let mut of = *pick(rng, &["", "", "AbCdEfGh", "much longer than an epoch ever is"]);
    if once_in(rng, 2) && !names.epochs.is_empty() {
        of = pick(rng, &names.epochs).as_str();
    }
    vec![("offset", offset, Val::Num(at)), ("epoch", epoch, Val::Text(of.to_owned()))]
}

fn sub_token(rng: &mut Rng, names: &Names) -> Option<(String, String)> {
    once_in(rng, 3).then(|| pick(rng, &names.sub_tokens).clone())
}

fn payload(rng: &mut Rng) -> Val {
    Val::Raw(match rng.below(12) {
        0 => format!("\"{}\"", "x".repeat(rng.below(40_000) as usize)),
        1 => "null".to_owned(),
        2 => String::new(),
        3 => "{\"a\":[1,2,{\"b\":\"\u{2028}\"}]}".to_owned(),
        4 => "[".repeat(200) + &"]".repeat(200),
        _ => rng.below(1000).to_string(),
    })
}

/// Takes a field away, doubles one, makes another kind of one, adds one, or changes their order.
fn spoil(rng: &mut Rng, fields: &mut Vec<Field>) {
    if !once_in(rng, 80) {
        return;
    }
    let at = rng.below(u32::try_from(fields.len()).unwrap().max(1)) as usize;
    match rng.below(5) {
        0 if at < fields.len() => drop(fields.remove(at)),
        1 if at < fields.len() => fields.push(fields[at].clone()),
        2 if at < fields.len() => {
            let other = [
                Val::Num(-1),
                Val::Bool(true),
                Val::Text("x".to_owned()),
                Val::Raw("[{}]".to_owned()),
                Val::Message(Vec::new()),
            ];
            fields[at].2 = pick(rng, &other).clone();
        }
        3 => fields.push(("later", 60, Val::Message(vec![("x", 1, Val::Num(1))]))),
        _ => fields.reverse(),
    }
}

fn put(encoding: Encoding, fields: &[Field], follows: bool, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => {
            if follows {
                out.push(b'\n');
            }
            json(&Val::Message(fields.to_vec()), out);
        }
        Encoding::Protobuf => {
            let mut message = Vec::new();
            for field in fields {
                protobuf(field, &mut message);
            }
            varint(message.len() as u64, out);
            out.extend_from_slice(&message);
        }
    }
}

fn json(val: &Val, out: &mut Vec<u8>) {
    let text = |text: &str| serde_json::to_vec(text).unwrap();
    match val {
        Val::Num(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Val::Bool(yes) => out.extend_from_slice(yes.to_string().as_bytes()),
        Val::Text(said) => out.extend_from_slice(&text(said)),
        Val::Raw(raw) if raw.is_empty() => out.extend_from_slice(b"null"),
        Val::Raw(raw) => out.extend_from_slice(raw.as_bytes()),
        Val::Message(fields) => {
            out.push(b'{');
            for (at, (name, _, val)) in fields.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                json(val, out);
            }
            out.push(b'}');
        }
        Val::Map(entries) => {
            out.push(b'{');
            for (at, (name, val)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&text(name));
                out.push(b':');
                json(val, out);
            }
            out.push(b'}');
        }
    }
}

fn protobuf((_, tag, val): &Field, out: &mut Vec<u8>) {
    const NUMBER: u64 = 0;
    const BYTES: u64 = 2;
    let key = |kind: u64, out: &mut Vec<u8>| varint(u64::from(*tag) << 3 | kind, out);
    let bytes = |bytes: &[u8], out: &mut Vec<u8>| {
        key(BYTES, out);
        varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    match val {
        Val::Num(number) => {
            key(NUMBER, out);
            varint(number.cast_unsigned(), out);
        }
        Val::Bool(yes) => {
            key(NUMBER, out);
            varint(u64::from(*yes), out);
        }
        Val::Text(text) | Val::Raw(text) => bytes(text.as_bytes(), out),
        Val::Message(fields) => {
            let mut message = Vec::new();
            for field in fields {
                protobuf(field, &mut message);
            }
            bytes(&message, out);
        }
        Val::Map(entries) => {
            for (name, val) in entries {
                let mut entry = Vec::new();
                protobuf(&("", 1, Val::Text(name.clone())), &mut entry);
                protobuf(&("", 2, val.clone()), &mut entry);
                bytes(&entry, out);
            }
        }
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}
