//! Commands out of JSON text.
//!
//! Strings and payloads are borrowed from the frame where they hold no escapes. Everywhere null
//! is the same as absent, unknown fields are ignored, and only objects are taken for objects.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::dialect::{
    Command, ConnectRequest, HistoryRequest, Malformed, Payload, Request, StreamPosition,
    SubscribeRequest,
};

/// How deep a payload may nest: subscribers have to read it too, and the parsers of some of them
/// recurse. The other parts of a command nest four deep.
const DEPTH_MAX: usize = 128;

/// Takes a command from the front of `frame`: the command, and its size with the whitespace
/// around it.
pub(in crate::dialect) fn command(frame: &[u8]) -> Result<(Command<'_>, usize), Malformed> {
    let (Object(command), size) = object::<Command<'_>>(frame)?;
    Ok((command, size))
}

/// Takes a connect request that is all of `frame`.
pub(in crate::dialect) fn connect_request(frame: &[u8]) -> Result<ConnectRequest<'_>, Malformed> {
    let (Object(connect), size) = object::<Connect<'_>>(frame)?;
    if size < frame.len() {
        return Err(Malformed { at: size, reason: "something follows the object".into() });
    }
    Ok(connect.into())
}

fn object<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<(Object<T>, usize), Malformed> {
    let mut objects = serde_json::Deserializer::from_slice(frame).into_iter::<Object<T>>();
    match objects.next() {
        Some(Ok(object)) => {
            let end = objects.byte_offset();
            let rest = frame.get(end..).unwrap_or_default();
            Ok((object, end + rest.len() - rest.trim_ascii_start().len()))
        }
        Some(Err(error)) => Err(malformed(frame, &error)),
        None => Err(Malformed { at: frame.len(), reason: "an object was expected".into() }),
    }
}

fn malformed(frame: &[u8], error: &serde_json::Error) -> Malformed {
    let lines_before = error.line().saturating_sub(1);
    let line = frame.split_inclusive(|&byte| byte == b'\n').take(lines_before);
    let at = line.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
    let mut reason = error.to_string();
    // The position within this object would be mistaken for one within the frame.
    if let Some(end) = reason.rfind(" at line ") {
        reason.truncate(end);
    }
    Malformed { at: at.min(frame.len()), reason }
}

/// What must be an object. Without it a derived structure would take an array for one.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CommandVisitor(PhantomData))
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Other,
}

struct CommandVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for CommandVisitor<'a> {
    type Value = Command<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut id = 0;
        let mut first: Option<Request<'a>> = None;
        while let Some(field) = map.next_key::<Field>()? {
            if let Field::Id = field {
                id = map.next_value::<Option<u32>>()?.unwrap_or_default();
            } else if let Some(request) = request(&field, &mut map)?
                && first.as_ref().is_none_or(|first| rank(&request) <= rank(first))
            {
                first = Some(request);
            }
        }
        let request = match first {
            Some(request @ Request::Send { .. }) => request,
            // Without an id only `send` is a command.
            _ if id == 0 => Request::Pong,
            Some(request) => request,
            None => Request::Unknown,
        };
        Ok(Command { id, request })
    }
}

fn request<'de: 'a, 'a, A: MapAccess<'de>>(
    field: &Field,
    map: &mut A,
) -> Result<Option<Request<'a>>, A::Error> {
    Ok(match field {
        Field::Connect => {
            value::<Connect<'a>, A>(map)?.map(|connect| Request::Connect(connect.into()))
        }
        Field::Subscribe => {
            value::<Subscribe<'a>, A>(map)?.map(|subscribe| Request::Subscribe(subscribe.into()))
        }
        Field::Unsubscribe => value::<Channel<'a>, A>(map)?
            .map(|Channel { channel }| Request::Unsubscribe { channel }),
        Field::Publish => value::<Publish<'a>, A>(map)?
            .map(|Publish { channel, data }| Request::Publish { channel, data }),
        Field::Presence => {
            value::<Channel<'a>, A>(map)?.map(|Channel { channel }| Request::Presence { channel })
        }
        Field::PresenceStats => value::<Channel<'a>, A>(map)?
            .map(|Channel { channel }| Request::PresenceStats { channel }),
        Field::History => {
            value::<History<'a>, A>(map)?.map(|history| Request::History(history.into()))
        }
        Field::Rpc => {
            value::<Rpc<'a>, A>(map)?.map(|Rpc { method, data }| Request::Rpc { method, data })
        }
        Field::Send => value::<Send<'a>, A>(map)?.map(|Send { data }| Request::Send { data }),
        Field::Refresh => {
            value::<Refresh<'a>, A>(map)?.map(|Refresh { token }| Request::Refresh { token })
        }
        Field::SubRefresh => value::<SubRefresh<'a>, A>(map)?
            .map(|SubRefresh { channel, token }| Request::SubRefresh { channel, token }),
        Field::Id | Field::Other => {
            map.next_value::<IgnoredAny>()?;
            None
        }
    })
}

fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    Ok(map.next_value::<Option<Object<T>>>()?.map(|Object(value)| value))
}

/// Of several requests in one command the one of the lowest rank counts.
const fn rank(request: &Request<'_>) -> u8 {
    match request {
        Request::Connect(_) => 0,
        Request::Subscribe(_) => 1,
        Request::Unsubscribe { .. } => 2,
        Request::Publish { .. } => 3,
        Request::Presence { .. } => 4,
        Request::PresenceStats { .. } => 5,
        Request::History(_) => 6,
        Request::Rpc { .. } => 7,
        Request::Send { .. } => 8,
        Request::Refresh { .. } => 9,
        Request::SubRefresh { .. } => 10,
        Request::Pong | Request::Unknown => 11,
    }
}

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Connect<'a> {
    #[serde(borrow, deserialize_with = "text")]
    token: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "maybe_payload")]
    data: Option<Payload<'a>>,
    #[serde(borrow, deserialize_with = "entries::<_, Object<Subscribe<'a>>>")]
    subs: Vec<(Cow<'a, str>, Object<Subscribe<'a>>)>,
    #[serde(borrow, deserialize_with = "text")]
    name: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    version: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "entries::<_, Text<'a>>")]
    headers: Vec<(Cow<'a, str>, Text<'a>)>,
}

impl<'a> From<Connect<'a>> for ConnectRequest<'a> {
    fn from(connect: Connect<'a>) -> Self {
        let Connect { token, data, subs, name, version, headers } = connect;
        let subs = subs.into_iter().map(|(channel, Object(sub))| (channel, sub.into())).collect();
        let headers = headers.into_iter().map(|(name, Text(value))| (name, value)).collect();
        Self { token, data, subs, name, version, headers }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Subscribe<'a> {
    #[serde(borrow, deserialize_with = "text")]
    channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    token: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    recover: bool,
    #[serde(borrow, deserialize_with = "text")]
    epoch: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    offset: u64,
    #[serde(borrow, deserialize_with = "maybe_payload")]
    data: Option<Payload<'a>>,
    #[serde(deserialize_with = "or_default")]
    positioned: bool,
    #[serde(deserialize_with = "or_default")]
    recoverable: bool,
    #[serde(deserialize_with = "or_default")]
    join_leave: bool,
    #[serde(borrow, deserialize_with = "text")]
    delta: Cow<'a, str>,
    tf: Option<IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    flag: i64,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: i32,
}

impl<'a> From<Subscribe<'a>> for SubscribeRequest<'a> {
    fn from(from: Subscribe<'a>) -> Self {
        Self {
            channel: from.channel,
            token: from.token,
            recover: from.recover,
            epoch: from.epoch,
            offset: from.offset,
            data: from.data,
            positioned: from.positioned,
            recoverable: from.recoverable,
            join_leave: from.join_leave,
            delta: from.delta,
            tags_filter: from.tf.is_some(),
            flag: from.flag,
            kind: from.kind,
        }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct History<'a> {
    #[serde(borrow, deserialize_with = "text")]
    channel: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    limit: i32,
    #[serde(borrow)]
    since: Option<Object<Since<'a>>>,
    #[serde(deserialize_with = "or_default")]
    reverse: bool,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Since<'a> {
    #[serde(deserialize_with = "or_default")]
    offset: u64,
    #[serde(borrow, deserialize_with = "text")]
    epoch: Cow<'a, str>,
}

impl<'a> From<History<'a>> for HistoryRequest<'a> {
    fn from(from: History<'a>) -> Self {
        let since =
            from.since.map(|Object(Since { offset, epoch })| StreamPosition { offset, epoch });
        Self { channel: from.channel, limit: from.limit, since, reverse: from.reverse }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Channel<'a> {
    #[serde(borrow, deserialize_with = "text")]
    channel: Cow<'a, str>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Publish<'a> {
    #[serde(borrow, deserialize_with = "text")]
    channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "payload")]
    data: Payload<'a>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Rpc<'a> {
    #[serde(borrow, deserialize_with = "text")]
    method: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "payload")]
    data: Payload<'a>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Send<'a> {
    #[serde(borrow, deserialize_with = "payload")]
    data: Payload<'a>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Refresh<'a> {
    #[serde(borrow, deserialize_with = "text")]
    token: Cow<'a, str>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct SubRefresh<'a> {
    #[serde(borrow, deserialize_with = "text")]
    channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    token: Cow<'a, str>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payload<'de>, D::Error> {
    maybe_payload(deserializer).map(Option::unwrap_or_default)
}

fn maybe_payload<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload<'de>>, D::Error> {
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    let Some(payload) = raw.map(|raw| raw.get().as_bytes()) else { return Ok(None) };
    if is_too_deep(payload) {
        return Err(D::Error::custom("payload nests too deep"));
    }
    Ok(Some(payload))
}

/// Whether this valid JSON text nests deeper than [`DEPTH_MAX`].
fn is_too_deep(json: &[u8]) -> bool {
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

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    Text::deserialize(deserializer).map(|Text(text)| text)
}

/// A string, borrowed where it can be.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

/// The entries of an object used as a map, sorted by key; of equal keys the last counts.
fn entries<'de, D, T>(deserializer: D) -> Result<Vec<(Cow<'de, str>, T)>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Entries<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = Vec<(Cow<'de, str>, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Text(key), value)) = map.next_entry::<Text<'de>, Option<T>>()? {
                if let Some(value) = value {
                    entries.push((key, value));
                }
            }
            entries.reverse();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|(later, _), (kept, _)| later == kept);
            Ok(entries)
        }
    }

    deserializer.deserialize_any(Entries(PhantomData))
}
