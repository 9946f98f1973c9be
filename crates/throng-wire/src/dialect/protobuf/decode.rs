//! Commands out of Protobuf.
//!
//! As everywhere in proto3, unknown fields are ignored, of a number or text that comes twice the
//! last counts, and a message that comes twice is the two merged.

use std::borrow::Cow;

use super::fields::{Field, Fields, varint};
use crate::dialect::{
    Command, ConnectRequest, FilterNode, HistoryRequest, KeyRequest, KeyedItem, Malformed, Request,
    StreamPosition, SubRefreshRequest, SubscribeRequest, TrackBatch,
};

/// Takes a command with its length from the front of `frame`: the command, and the size of both.
pub(in crate::dialect) fn command(frame: &[u8]) -> Result<(Command<'_>, usize), Malformed> {
    let wrong = |reason: &str| Malformed { at: 0, reason: reason.to_owned() };
    let Some((len, head)) = varint(frame) else {
        return Err(wrong("the length of a command was expected"));
    };
    let end = usize::try_from(len).ok().and_then(|len| head.checked_add(len));
    let Some((message, end)) = end.and_then(|end| Some((frame.get(head..end)?, end))) else {
        return Err(wrong("a command is longer than its frame"));
    };
    Ok((read_command(Fields::of(message, head))?, end))
}

/// The requests that a command may hold; of several the first in this order counts.
#[derive(Default)]
struct Held<'a> {
    connect: Option<ConnectRequest<'a>>,
    subscribe: Option<SubscribeRequest<'a>>,
    unsubscribe: Option<Cow<'a, str>>,
    publish: Option<KeyRequest<'a>>,
    presence: Option<Cow<'a, str>>,
    presence_stats: Option<Cow<'a, str>>,
    history: Option<HistoryRequest<'a>>,
    rpc: Option<(Cow<'a, str>, Cow<'a, [u8]>)>,
    send: Option<Cow<'a, [u8]>>,
    refresh: Option<Cow<'a, str>>,
    sub_refresh: Option<SubRefreshRequest<'a>>,
}

fn read_command<'a>(mut fields: Fields<'a>) -> Result<Command<'a>, Malformed> {
    let mut id = 0;
    let mut held = Held::default();
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            id = field.short()?;
        } else {
            held.read(&field).map_err(|wrong| within(&field, wrong))?;
        }
    }
    let request = match held.first() {
        Some(request @ Request::Send { .. }) => request,
        // Without an id only `send` is a command.
        _ if id == 0 => Request::Pong,
        Some(request) => request,
        None => Request::Unknown,
    };
    Ok(Command { id, request })
}

/// What is wrong in a request is told with the request's name.
fn within(field: &Field<'_>, wrong: Malformed) -> Malformed {
    let name = match field.number {
        4 => "connect",
        5 => "subscribe",
        6 => "unsubscribe",
        7 => "publish",
        8 => "presence",
        9 => "presence_stats",
        10 => "history",
        12 => "send",
        13 => "rpc",
        14 => "refresh",
        15 => "sub_refresh",
        _ => return wrong,
    };
    Malformed { reason: format!("{name}: {}", wrong.reason), ..wrong }
}

impl<'a> Held<'a> {
    fn read(&mut self, field: &Field<'a>) -> Result<(), Malformed> {
        match field.number {
            4 => connect(field, self.connect.get_or_insert_default()),
            5 => subscribe(field, self.subscribe.get_or_insert_default()),
            6 => channel(field, self.unsubscribe.get_or_insert_default()),
            7 => {
                let into = self.publish.get_or_insert_default();
                each(field, |field| match field.number {
                    1 => set(&mut into.channel, field.text()),
                    2 => set(&mut into.data, field.payload()),
                    3 => set(&mut into.kind, field.short().map(u32::cast_signed)),
                    4 => set(&mut into.key, field.text()),
                    5 => set(&mut into.removed, field.flag()),
                    _ => Ok(()),
                })
            }
            8 => channel(field, self.presence.get_or_insert_default()),
            9 => channel(field, self.presence_stats.get_or_insert_default()),
            10 => history(field, self.history.get_or_insert_default()),
            12 => {
                let data = self.send.get_or_insert_default();
                each(field, |field| match field.number {
                    1 => set(data, field.payload()),
                    _ => Ok(()),
                })
            }
            13 => {
                let (method, data) = self.rpc.get_or_insert_default();
                each(field, |field| match field.number {
                    1 => set(data, field.payload()),
                    2 => set(method, field.text()),
                    _ => Ok(()),
                })
            }
            14 => {
                let token = self.refresh.get_or_insert_default();
                each(field, |field| match field.number {
                    1 => set(token, field.text()),
                    _ => Ok(()),
                })
            }
            15 => sub_refresh(field, self.sub_refresh.get_or_insert_default()),
            _ => Ok(()),
        }
    }

    fn first(self) -> Option<Request<'a>> {
        let Self {
            connect,
            subscribe,
            unsubscribe,
            publish,
            presence,
            presence_stats,
            history,
            rpc,
            send,
            refresh,
            sub_refresh,
        } = self;
        // Once, and not after each part of a connect that comes in a thousand of them.
        let connect = connect.map(|mut connect| {
            last_of_each_key(&mut connect.subs);
            last_of_each_key(&mut connect.headers);
            Request::Connect(connect)
        });
        connect
            .or(subscribe.map(Request::Subscribe))
            .or(unsubscribe.map(|channel| Request::Unsubscribe { channel }))
            .or(publish.map(KeyRequest::request))
            .or(presence.map(|channel| Request::Presence { channel }))
            .or(presence_stats.map(|channel| Request::PresenceStats { channel }))
            .or(history.map(Request::History))
            .or(rpc.map(|(method, data)| Request::Rpc { method, data }))
            .or(send.map(|data| Request::Send { data }))
            .or(refresh.map(|token| Request::Refresh { token }))
            .or(sub_refresh.map(Request::SubRefresh))
    }
}

/// Reads the fields of the message that this field holds.
fn each<'a>(
    field: &Field<'a>,
    mut read: impl FnMut(&Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        read(&field)?;
    }
    Ok(())
}

fn set<T>(into: &mut T, value: Result<T, Malformed>) -> Result<(), Malformed> {
    *into = value?;
    Ok(())
}

/// A request that names a channel and nothing else.
fn channel<'a>(field: &Field<'a>, into: &mut Cow<'a, str>) -> Result<(), Malformed> {
    each(field, |field| match field.number {
        1 => set(into, field.text()),
        _ => Ok(()),
    })
}

fn connect<'a>(field: &Field<'a>, into: &mut ConnectRequest<'a>) -> Result<(), Malformed> {
    each(field, |field| match field.number {
        1 => set(&mut into.token, field.text()),
        2 => set(&mut into.data, field.payload().map(Some)),
        3 => {
            let mut key = Cow::Borrowed("");
            let mut sub = SubscribeRequest::default();
            each(field, |field| match field.number {
                1 => set(&mut key, field.text()),
                2 => subscribe(field, &mut sub),
                _ => Ok(()),
            })?;
            into.subs.push((key, sub));
            Ok(())
        }
        4 => set(&mut into.name, field.text()),
        5 => set(&mut into.version, field.text()),
        6 => {
            let (mut key, mut value) = (Cow::Borrowed(""), Cow::Borrowed(""));
            each(field, |field| match field.number {
                1 => set(&mut key, field.text()),
                2 => set(&mut value, field.text()),
                _ => Ok(()),
            })?;
            into.headers.push((key, value));
            Ok(())
        }
        _ => Ok(()),
    })
}

/// Makes entries a map, sorted by key; of equal keys the last counts.
fn last_of_each_key<'a, T>(entries: &mut Vec<(Cow<'a, str>, T)>) {
    entries.reverse();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.dedup_by(|(later, _), (kept, _)| later == kept);
}

fn subscribe<'a>(field: &Field<'a>, into: &mut SubscribeRequest<'a>) -> Result<(), Malformed> {
    each(field, |field| match field.number {
        1 => set(&mut into.channel, field.text()),
        2 => set(&mut into.token, field.text()),
        3 => set(&mut into.recover, field.flag()),
        6 => set(&mut into.epoch, field.text()),
        7 => set(&mut into.offset, field.number()),
        8 => set(&mut into.data, field.payload().map(Some)),
        9 => set(&mut into.positioned, field.flag()),
        10 => set(&mut into.recoverable, field.flag()),
        11 => set(&mut into.join_leave, field.flag()),
        12 => set(&mut into.delta, field.text()),
        13 => set(&mut into.tags_filter, field.bytes().map(Some)),
        14 => set(&mut into.flag, field.number().map(u64::cast_signed)),
        15 => set(&mut into.kind, field.short().map(u32::cast_signed)),
        16 => set(&mut into.phase, field.short().map(u32::cast_signed)),
        17 => set(&mut into.cursor, field.text()),
        18 => set(&mut into.limit, field.short().map(u32::cast_signed)),
        19 => set(&mut into.asc, field.flag()),
        _ => Ok(()),
    })
}

/// How deep a tags filter is read.
const FILTER_DEPTH_MAX: usize = 64;

/// Reads a tags filter.
pub(in crate::dialect) fn filter(raw: &[u8]) -> Result<FilterNode<'_>, Malformed> {
    filter_node(Fields::of(raw, 0), FILTER_DEPTH_MAX)
}

fn filter_node(mut fields: Fields<'_>, depth: usize) -> Result<FilterNode<'_>, Malformed> {
    let mut node = FilterNode::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => node.op = field.text()?,
            2 => node.key = field.text()?,
            3 => node.cmp = field.text()?,
            4 => node.val = field.text()?,
            5 => node.vals.push(field.text()?),
            6 if depth > 1 => node.nodes.push(filter_node(field.message()?, depth - 1)?),
            6 => return Err(Malformed { at: 0, reason: "it nests too deep".to_owned() }),
            _ => {}
        }
    }
    Ok(node)
}

fn sub_refresh<'a>(field: &Field<'a>, into: &mut SubRefreshRequest<'a>) -> Result<(), Malformed> {
    each(field, |field| match field.number {
        1 => set(&mut into.channel, field.text()),
        2 => set(&mut into.token, field.text()),
        3 => set(&mut into.kind, field.short().map(u32::cast_signed)),
        4 => {
            let mut batch = TrackBatch::default();
            each(field, |field| match field.number {
                1 => set(&mut batch.signature, field.text()),
                2 => {
                    let mut item = KeyedItem::default();
                    each(field, |field| match field.number {
                        1 => set(&mut item.key, field.text()),
                        2 => set(&mut item.version, field.number()),
                        _ => Ok(()),
                    })?;
                    batch.items.push(item);
                    Ok(())
                }
                _ => Ok(()),
            })?;
            into.track.push(batch);
            Ok(())
        }
        5 => {
            into.untrack.push(field.text()?);
            Ok(())
        }
        _ => Ok(()),
    })
}

fn history<'a>(field: &Field<'a>, into: &mut HistoryRequest<'a>) -> Result<(), Malformed> {
    each(field, |field| match field.number {
        1 => set(&mut into.channel, field.text()),
        7 => set(&mut into.limit, field.short().map(u32::cast_signed)),
        8 => {
            let StreamPosition { offset, epoch } = into.since.get_or_insert_default();
            each(field, |field| match field.number {
                1 => set(offset, field.number()),
                2 => set(epoch, field.text()),
                _ => Ok(()),
            })
        }
        9 => set(&mut into.reverse, field.flag()),
        _ => Ok(()),
    })
}

/// What a client says in a request of its own, since it hears by a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emulated<'a> {
    /// The node that its session is on; empty: this one.
    pub node: Cow<'a, str>,
    /// The session's secret.
    pub session: Cow<'a, str>,
    /// Commands, each behind its length.
    pub data: &'a [u8],
}

/// Reads the body of a request to `/emulation`.
///
/// # Errors
/// Where it is no such message.
pub fn emulated(body: &[u8]) -> Result<Emulated<'_>, Malformed> {
    let mut said = Emulated::default();
    let mut fields = Fields::of(body, 0);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => said.node = field.text()?,
            2 => said.session = field.text()?,
            3 => said.data = field.bytes()?,
            _ => {}
        }
    }
    Ok(said)
}
