//! Replies and pushes into Protobuf, appended: fields in the order of their numbers, zero values
//! left out.

use super::fields::put_varint;
use crate::dialect::{
    ClientInfo, ConnectResult, Envelope, Payload, Publication, Push, RefreshResult, Reply, Shape,
    SubscribeResult, payload,
};

pub(in crate::dialect) fn put_reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let m = &mut Message { out };
    m.number(1, id);
    match reply {
        Reply::Error { code, message, temporary } => m.message(2, |m| {
            m.number(1, *code);
            m.text(2, message);
            m.flag(3, *temporary);
        }),
        Reply::Connect(result) => m.message(5, |m| connect_result(m, result)),
        Reply::Subscribe(result) => m.message(6, |m| subscribe_result(m, result)),
        Reply::Unsubscribe => m.message(7, |_| {}),
        Reply::Publish => m.message(8, |_| {}),
        Reply::Presence(clients) => m.message(9, |m| {
            for info in *clients {
                m.entry(1, &info.client, |m| client_info(m, info));
            }
        }),
        Reply::PresenceStats { num_clients, num_users } => m.message(10, |m| {
            m.number(1, *num_clients);
            m.number(2, *num_users);
        }),
        Reply::History { publications, epoch, offset } => m.message(11, |m| {
            for each in *publications {
                m.message(1, |m| publication(m, each));
            }
            m.text(2, epoch);
            m.number(3, *offset);
        }),
        Reply::Rpc { data } => m.message(13, |m| m.payload(1, *data)),
        Reply::Refresh(result) => m.message(14, |m| refresh_result(m, result)),
        Reply::SubRefresh { expires, ttl, items } => m.message(15, |m| {
            m.flag(1, *expires);
            m.number(2, *ttl);
            for each in *items {
                m.message(3, |m| publication(m, each));
            }
        }),
    }
}

pub(in crate::dialect) fn put_push(envelope: Envelope, push: &Push<'_>, out: &mut Vec<u8>) {
    let m = &mut Message { out };
    match (envelope, push) {
        // A ping is a message without fields.
        (_, Push::Ping) => {}
        (Envelope::Reply, push) => m.message(4, |m| put_bare(m, push)),
        (Envelope::Bare, push) => put_bare(m, push),
    }
}

fn put_bare(m: &mut Message<'_>, push: &Push<'_>) {
    match push {
        Push::Publication { channel, publication: p } => {
            m.text(2, channel);
            m.message(4, |m| publication(m, p));
        }
        Push::Join { channel, info } => {
            m.text(2, channel);
            m.message(5, |m| m.message(1, |m| client_info(m, info)));
        }
        Push::Leave { channel, info } => {
            m.text(2, channel);
            m.message(6, |m| m.message(1, |m| client_info(m, info)));
        }
        Push::Unsubscribe { channel, code, reason } => {
            m.text(2, channel);
            m.message(7, |m| {
                m.number(2, *code);
                m.text(3, reason);
            });
        }
        Push::Message { data } => m.message(8, |m| m.payload(1, Some(data))),
        Push::Subscribe { channel, result } => {
            m.text(2, channel);
            m.message(9, |m| subscribe_push(m, result));
        }
        Push::Connect(result) => m.message(10, |m| connect_push(m, result)),
        Push::Disconnect { code, reason, reconnect } => m.message(11, |m| {
            m.number(1, *code);
            m.text(2, reason);
            m.flag(3, *reconnect);
        }),
        Push::Refresh { expires, ttl } => m.message(12, |m| {
            m.flag(1, *expires);
            m.number(2, *ttl);
        }),
        Push::Ping => {}
    }
}

fn connect_result(m: &mut Message<'_>, result: &ConnectResult<'_>) {
    m.text(1, result.client);
    m.text(2, result.version);
    m.flag(3, result.expires);
    m.number(4, result.ttl);
    m.payload(5, result.data);
    for (channel, sub) in result.subs {
        m.entry(6, channel, |m| subscribe_result(m, sub));
    }
    m.number(7, result.ping);
    m.flag(8, result.pong);
    m.text(9, result.session);
    m.text(10, result.node);
    m.number(11, result.time.cast_unsigned());
}

/// The connect push says the same as the connect result, under other numbers.
fn connect_push(m: &mut Message<'_>, result: &ConnectResult<'_>) {
    m.text(1, result.client);
    m.text(2, result.version);
    m.payload(3, result.data);
    for (channel, sub) in result.subs {
        m.entry(4, channel, |m| subscribe_result(m, sub));
    }
    m.flag(5, result.expires);
    m.number(6, result.ttl);
    m.number(7, result.ping);
    m.flag(8, result.pong);
    m.text(9, result.session);
    m.text(10, result.node);
    m.number(11, result.time.cast_unsigned());
}

fn subscribe_result(m: &mut Message<'_>, result: &SubscribeResult<'_>) {
    m.flag(1, result.expires);
    m.number(2, result.ttl);
    m.flag(3, result.recoverable);
    m.text(6, result.epoch);
    for each in result.publications {
        m.message(7, |m| publication(m, each));
    }
    m.flag(8, result.recovered);
    m.number(9, result.offset);
    m.flag(10, result.positioned);
    m.payload(11, result.data);
    m.flag(12, result.was_recovering);
    m.flag(13, result.delta);
    m.signed(15, result.kind.into());
    m.signed(16, result.phase.into());
    m.text(17, result.cursor);
    for each in result.state {
        m.message(18, |m| publication(m, each));
    }
}

fn subscribe_push(m: &mut Message<'_>, result: &SubscribeResult<'_>) {
    m.flag(1, result.recoverable);
    m.text(4, result.epoch);
    m.number(5, result.offset);
    m.flag(6, result.positioned);
    m.payload(7, result.data);
}

fn refresh_result(m: &mut Message<'_>, result: &RefreshResult<'_>) {
    m.text(1, result.client);
    m.text(2, result.version);
    m.flag(3, result.expires);
    m.number(4, result.ttl);
}

fn client_info(m: &mut Message<'_>, info: &ClientInfo<'_>) {
    m.text(1, info.user);
    m.text(2, &info.client);
    m.payload(3, info.conn_info);
    m.payload(4, info.chan_info);
}

fn publication(m: &mut Message<'_>, publication: &Publication<'_>) {
    m.payload(4, Some(publication.data));
    if let Some(info) = &publication.info {
        m.message(5, |m| client_info(m, info));
    }
    m.number(6, publication.offset);
    for (key, value) in publication.tags {
        m.message(7, |m| {
            m.text(1, key);
            m.text(2, value);
        });
    }
    m.flag(8, publication.shape == Shape::Patch);
    m.number(9, publication.time.cast_unsigned());
    m.text(11, publication.key);
    m.flag(12, publication.removed);
    m.signed(13, publication.score);
    m.text(14, publication.epoch);
    m.number(16, publication.version);
}

/// A message being written. Zero values are left out; a message that is there is never zero.
struct Message<'o> {
    out: &'o mut Vec<u8>,
}

impl Message<'_> {
    fn tag(&mut self, number: u32, kind: u64) {
        put_varint(u64::from(number) << 3 | kind, self.out);
    }

    fn number(&mut self, number: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.tag(number, 0);
            put_varint(value, self.out);
        }
    }

    fn signed(&mut self, number: u32, value: i64) {
        self.number(number, value.cast_unsigned());
    }

    fn flag(&mut self, number: u32, flag: bool) {
        self.number(number, u64::from(flag));
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.tag(number, 2);
            put_varint(bytes.len() as u64, self.out);
            self.out.extend_from_slice(bytes);
        }
    }

    fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn payload(&mut self, number: u32, payload: Option<Payload<'_>>) {
        self.bytes(number, payload::bytes(payload.unwrap_or_default()));
    }

    fn message(&mut self, number: u32, fields: impl FnOnce(&mut Message<'_>)) {
        self.tag(number, 2);
        let start = self.out.len();
        fields(&mut Message { out: self.out });
        // The length stands before what it is the length of, so that is moved by as much as the
        // length takes.
        let len = self.out.len() - start;
        put_varint(len as u64, self.out);
        if let Some(tail) = self.out.get_mut(start..) {
            tail.rotate_left(len);
        }
    }

    /// An entry of a map whose values are messages.
    fn entry(&mut self, number: u32, key: &str, fields: impl FnOnce(&mut Message<'_>)) {
        self.message(number, |m| {
            m.text(1, key);
            m.message(2, fields);
        });
    }
}
