//! Commands out of JSON text.
//!
//! Strings and payloads are borrowed from the frame where they hold no escapes. Everywhere null
//! is the same as absent, unknown fields are ignored, and only objects are taken for objects.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde_json::value::RawValue;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::value::{Text, entries, maybe_payload, or_default, payload, text};
use crate::dialect::{
    Command, ConnectRequest, FilterNode, HistoryRequest, KeyRequest, KeyedItem, Malformed, Payload,
    Request, StreamPosition, SubRefreshRequest, SubscribeRequest, TrackBatch,
};

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
    match field {
        Field::Connect => take(map, "connect", |from: Connect<'a>| Request::Connect(from.into())),
        Field::Subscribe => {
            take(map, "subscribe", |from: Subscribe<'a>| Request::Subscribe(from.into()))
        }
        Field::Unsubscribe => take(map, "unsubscribe", |Channel { channel }: Channel<'a>| {
            Request::Unsubscribe { channel }
        }),
        Field::Publish => take(map, "publish", |from: Publish<'a>| {
            let Publish { channel, data, kind, key, removed } = from;
            KeyRequest { channel, data: data.into(), kind, key, removed }.request()
        }),
        Field::Presence => {
            take(map, "presence", |Channel { channel }: Channel<'a>| Request::Presence { channel })
        }
        Field::PresenceStats => take(map, "presence_stats", |Channel { channel }: Channel<'a>| {
            Request::PresenceStats { channel }
        }),
        Field::History => take(map, "history", |from: History<'a>| Request::History(from.into())),
        Field::Rpc => take(map, "rpc", |Rpc { method, data }: Rpc<'a>| Request::Rpc {
            method,
            data: data.into(),
        }),
        Field::Send => {
            take(map, "send", |Send { data }: Send<'a>| Request::Send { data: data.into() })
        }
        Field::Refresh => {
            take(map, "refresh", |Refresh { token }: Refresh<'a>| Request::Refresh { token })
        }
        Field::SubRefresh => {
            take(map, "sub_refresh", |from: SubRefresh<'a>| Request::SubRefresh(from.into()))
        }
        Field::Id | Field::Other => map.next_value::<IgnoredAny>().map(|_| None),
    }
}

/// Takes the value of a request's field. What is wrong in it is told with the field's name.
fn take<'de, T: Deserialize<'de>, R, A: MapAccess<'de>>(
    map: &mut A,
    name: &str,
    into: impl FnOnce(T) -> R,
) -> Result<Option<R>, A::Error> {
    match map.next_value::<Option<Object<T>>>() {
        Ok(value) => Ok(value.map(|Object(value)| into(value))),
        Err(error) => Err(A::Error::custom(format_args!("{name}: {error}"))),
    }
}

/// Of several requests in one command the one of the lowest rank counts.
const fn rank(request: &Request<'_>) -> u8 {
    match request {
        Request::Connect(_) => 0,
        Request::Subscribe(_) => 1,
        Request::Unsubscribe { .. } => 2,
        Request::Publish { .. } | Request::PublishKey(_) => 3,
        Request::Presence { .. } => 4,
        Request::PresenceStats { .. } => 5,
        Request::History(_) => 6,
        Request::Rpc { .. } => 7,
        Request::Send { .. } => 8,
        Request::Refresh { .. } => 9,
        Request::SubRefresh(_) => 10,
        Request::Pong | Request::Unknown => 11,
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
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
        let data = data.map(Cow::Borrowed);
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
    #[serde(borrow)]
    tf: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    flag: i64,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: i32,
    #[serde(deserialize_with = "or_default")]
    phase: i32,
    #[serde(borrow, deserialize_with = "text")]
    cursor: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    limit: i32,
    #[serde(deserialize_with = "or_default")]
    asc: bool,
}

impl<'a> From<Subscribe<'a>> for SubscribeRequest<'a> {
    fn from(from: Subscribe<'a>) -> Self {
        Self {
            channel: from.channel,
            token: from.token,
            recover: from.recover,
            epoch: from.epoch,
            offset: from.offset,
            data: from.data.map(Cow::Borrowed),
            positioned: from.positioned,
            recoverable: from.recoverable,
            join_leave: from.join_leave,
            delta: from.delta,
            tags_filter: from.tf.map(|raw| raw.get().as_bytes()),
            flag: from.flag,
            kind: from.kind,
            phase: from.phase,
            cursor: from.cursor,
            limit: from.limit,
            asc: from.asc,
        }
    }
}

/// Reads a tags filter. The parser's own limit keeps it from nesting too deep.
pub(in crate::dialect) fn filter(raw: &[u8]) -> Result<FilterNode<'_>, Malformed> {
    object::<Filter<'_>>(raw).map(|(Object(filter), _)| filter.into())
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Filter<'a> {
    #[serde(borrow, deserialize_with = "text")]
    op: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    key: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    cmp: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    val: Cow<'a, str>,
    #[serde(borrow)]
    vals: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    nodes: Option<Vec<Object<Self>>>,
}

impl<'a> From<Filter<'a>> for FilterNode<'a> {
    fn from(from: Filter<'a>) -> Self {
        let Filter { op, key, cmp, val, vals, nodes } = from;
        let vals = vals.unwrap_or_default().into_iter().map(|Text(text)| text).collect();
        let nodes = nodes.unwrap_or_default().into_iter().map(|Object(node)| node.into()).collect();
        Self { op, key, cmp, val, vals, nodes }
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
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: i32,
    #[serde(borrow, deserialize_with = "text")]
    key: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    removed: bool,
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
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: i32,
    #[serde(borrow, deserialize_with = "or_default")]
    track: Vec<Object<Track<'a>>>,
    #[serde(borrow, deserialize_with = "or_default")]
    untrack: Vec<Text<'a>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Track<'a> {
    #[serde(borrow, deserialize_with = "text")]
    signature: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "or_default")]
    items: Vec<Object<Item<'a>>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, deserialize_with = "text")]
    key: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    version: u64,
}

impl<'a> From<SubRefresh<'a>> for SubRefreshRequest<'a> {
    fn from(from: SubRefresh<'a>) -> Self {
        let SubRefresh { channel, token, kind, track, untrack } = from;
        let item = |Object(Item { key, version }): Object<Item<'a>>| KeyedItem { key, version };
        let batch = |Object(Track { signature, items }): Object<Track<'a>>| {
            let items = items.into_iter().map(item).collect();
            TrackBatch { signature, items }
        };
        let track = track.into_iter().map(batch).collect();
        let untrack = untrack.into_iter().map(|Text(key)| key).collect();
        Self { channel, token, kind, track, untrack }
    }
}
