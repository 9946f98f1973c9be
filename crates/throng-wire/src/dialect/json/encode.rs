//! Replies and pushes into JSON text, appended byte by byte: no tree, no formatting machinery.
//!
//! Fields come in the order of their protocol numbers, and zero values are left out but where
//! the protocol says otherwise.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::dialect::{
    ClientInfo, ConnectResult, Encoding, Envelope, Payload, Publication, Push, RefreshResult,
    Reply, Shape, SubscribeResult, payload,
};

pub(in crate::dialect) fn put_reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    object(out, |o| {
        o.number("id", id);
        match reply {
            Reply::Error { code, message, temporary } => o.object("error", |o| {
                o.number_always("code", *code);
                o.text_always("message", message);
                o.flag("temporary", *temporary);
            }),
            Reply::Connect(result) => o.object("connect", |o| connect_result(o, result)),
            Reply::Subscribe(result) => o.object("subscribe", |o| subscribe_result(o, result)),
            Reply::Unsubscribe => o.object("unsubscribe", |_| {}),
            Reply::Publish => o.object("publish", |_| {}),
            Reply::Presence(clients) => o.object("presence", |o| presence(o, clients)),
            Reply::PresenceStats { num_clients, num_users } => o.object("presence_stats", |o| {
                o.number_always("num_clients", *num_clients);
                o.number_always("num_users", *num_users);
            }),
            Reply::History { publications, epoch, offset } => o.object("history", |o| {
                o.array("publications", publications, publication);
                o.text_always("epoch", epoch);
                o.number_always("offset", *offset);
            }),
            Reply::Rpc { data } => o.object("rpc", |o| o.payload("data", *data)),
            Reply::Refresh(result) => o.object("refresh", |o| refresh_result(o, result)),
            Reply::SubRefresh { expires, ttl, items } => o.object("sub_refresh", |o| {
                o.flag("expires", *expires);
                o.number("ttl", *ttl);
                if !items.is_empty() {
                    o.array("items", items, publication);
                }
            }),
        }
    });
}

pub(in crate::dialect) fn put_push(envelope: Envelope, push: &Push<'_>, out: &mut Vec<u8>) {
    if let Push::Ping = push {
        return out.extend_from_slice(Encoding::Json.ping());
    }
    object(out, |o| match envelope {
        Envelope::Reply => o.object("push", |o| put_bare(o, push)),
        Envelope::Bare => put_bare(o, push),
    });
}

fn put_bare(o: &mut Object<'_>, push: &Push<'_>) {
    match push {
        Push::Publication { channel, publication: p } => {
            o.text("channel", channel);
            o.object("pub", |o| publication(o, p));
        }
        Push::Join { channel, info } => {
            o.text("channel", channel);
            o.object("join", |o| o.object("info", |o| client_info(o, info)));
        }
        Push::Leave { channel, info } => {
            o.text("channel", channel);
            o.object("leave", |o| o.object("info", |o| client_info(o, info)));
        }
        Push::Unsubscribe { channel, code, reason } => {
            o.text("channel", channel);
            o.object("unsubscribe", |o| {
                o.number("code", *code);
                o.text("reason", reason);
            });
        }
        Push::Message { data } => o.object("message", |o| o.payload("data", Some(data))),
        Push::Subscribe { channel, result } => {
            o.text("channel", channel);
            o.object("subscribe", |o| subscribe_push(o, result));
        }
        Push::Connect(result) => o.object("connect", |o| connect_push(o, result)),
        Push::Disconnect { code, reason, reconnect } => o.object("disconnect", |o| {
            o.number_always("code", *code);
            o.text_always("reason", reason);
            o.flag("reconnect", *reconnect);
        }),
        Push::Refresh { expires, ttl } => o.object("refresh", |o| {
            o.flag("expires", *expires);
            o.number("ttl", *ttl);
        }),
        // It has no field, so within an envelope it is one without fields too.
        Push::Ping => {}
    }
}

fn connect_result(o: &mut Object<'_>, result: &ConnectResult<'_>) {
    o.text("client", result.client);
    o.text("version", result.version);
    o.flag("expires", result.expires);
    o.number("ttl", result.ttl);
    o.payload("data", result.data);
    connect_subs(o, result.subs);
    connect_tail(o, result);
}

/// The connect push says the same as the connect result, in another order.
fn connect_push(o: &mut Object<'_>, result: &ConnectResult<'_>) {
    o.text("client", result.client);
    o.text("version", result.version);
    o.payload("data", result.data);
    connect_subs(o, result.subs);
    o.flag("expires", result.expires);
    o.number("ttl", result.ttl);
    connect_tail(o, result);
}

fn connect_subs(o: &mut Object<'_>, subs: &[(&str, SubscribeResult<'_>)]) {
    if !subs.is_empty() {
        o.object("subs", |o| {
            for (channel, result) in subs {
                o.entry(channel, |o| subscribe_result(o, result));
            }
        });
    }
}

fn connect_tail(o: &mut Object<'_>, result: &ConnectResult<'_>) {
    o.number("ping", result.ping);
    o.flag("pong", result.pong);
    o.text("session", result.session);
    o.text("node", result.node);
    o.signed("time", result.time);
}

fn subscribe_result(o: &mut Object<'_>, result: &SubscribeResult<'_>) {
    o.flag("expires", result.expires);
    o.number("ttl", result.ttl);
    o.flag("recoverable", result.recoverable);
    o.text("epoch", result.epoch);
    if !result.publications.is_empty() {
        o.array("publications", result.publications, publication);
    }
    o.flag("recovered", result.recovered);
    o.number("offset", result.offset);
    o.flag("positioned", result.positioned);
    o.payload("data", result.data);
    o.flag("was_recovering", result.was_recovering);
    o.flag("delta", result.delta);
    o.signed("type", result.kind.into());
    o.signed("phase", result.phase.into());
    o.text("cursor", result.cursor);
    if !result.state.is_empty() {
        o.array("state", result.state, publication);
    }
}

fn subscribe_push(o: &mut Object<'_>, result: &SubscribeResult<'_>) {
    o.flag("recoverable", result.recoverable);
    o.text("epoch", result.epoch);
    o.number("offset", result.offset);
    o.flag("positioned", result.positioned);
    o.payload("data", result.data);
}

fn refresh_result(o: &mut Object<'_>, result: &RefreshResult<'_>) {
    o.text("client", result.client);
    o.text("version", result.version);
    o.flag("expires", result.expires);
    o.number("ttl", result.ttl);
}

fn presence(o: &mut Object<'_>, clients: &[ClientInfo<'_>]) {
    o.object("presence", |o| {
        for info in clients {
            o.entry(&info.client, |o| client_info(o, info));
        }
    });
}

fn client_info(o: &mut Object<'_>, info: &ClientInfo<'_>) {
    o.text_always("user", info.user);
    o.text_always("client", &info.client);
    o.payload("conn_info", info.conn_info);
    o.payload("chan_info", info.chan_info);
}

fn publication(o: &mut Object<'_>, publication: &Publication<'_>) {
    match publication.shape {
        Shape::Plain => o.payload("data", Some(publication.data)),
        Shape::Whole => whole(o, publication.data),
        Shape::Patch => {
            // Never anything else, see `Shape`; what a client cannot read it must not get.
            o.text("data", std::str::from_utf8(publication.data).unwrap_or_default());
        }
    }
    if let Some(info) = &publication.info {
        o.object("info", |o| client_info(o, info));
    }
    o.number("offset", publication.offset);
    if !publication.tags.is_empty() {
        o.object("tags", |o| {
            for (key, value) in publication.tags {
                o.entry_key(key);
                put_text(value, o.out);
            }
        });
    }
    o.flag("delta", publication.shape == Shape::Patch);
    o.signed("time", publication.time);
    o.text("key", publication.key);
    o.flag("removed", publication.removed);
    o.signed("score", publication.score);
    o.text("epoch", publication.epoch);
    o.number("version", publication.version);
}

/// The payload's JSON text, to the byte, in a string: the client reads it, and keeps it for patches.
fn whole(o: &mut Object<'_>, data: &[u8]) {
    match (payload::binary(data), std::str::from_utf8(data)) {
        (Some(bytes), _) => o.text("data", &format!("\"{}\"", STANDARD.encode(bytes))),
        (None, Ok(text)) if !text.is_empty() => o.text("data", text),
        // No text is no JSON; for who takes no patches the field is absent.
        _ => o.text("data", "null"),
    }
}

/// An object being written. Methods named after a kind of value leave its zero out; those with
/// `_always` do not.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fields(&mut Object { out, is_empty: true });
    out.push(b'}');
}

impl Object<'_> {
    /// Begins a field whose name needs no escapes.
    fn key(&mut self, name: &'static str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Begins an entry of a map, whose key may be anything.
    fn entry_key(&mut self, key: &str) {
        self.comma();
        put_text(key, self.out);
        self.out.push(b':');
    }

    fn comma(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }

    fn object(&mut self, name: &'static str, fields: impl FnOnce(&mut Object<'_>)) {
        self.key(name);
        object(self.out, fields);
    }

    fn entry(&mut self, key: &str, fields: impl FnOnce(&mut Object<'_>)) {
        self.entry_key(key);
        object(self.out, fields);
    }

    fn array<T>(&mut self, name: &'static str, items: &[T], item: impl Fn(&mut Object<'_>, &T)) {
        self.key(name);
        self.out.push(b'[');
        for (index, one) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            object(self.out, |o| item(o, one));
        }
        self.out.push(b']');
    }

    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.text_always(name, text);
        }
    }

    fn text_always(&mut self, name: &'static str, text: &str) {
        self.key(name);
        put_text(text, self.out);
    }

    fn number(&mut self, name: &'static str, number: impl Into<u64>) {
        let number = number.into();
        if number != 0 {
            self.number_always(name, number);
        }
    }

    fn number_always(&mut self, name: &'static str, number: impl Into<u64>) {
        self.key(name);
        put_number(number.into(), self.out);
    }

    fn signed(&mut self, name: &'static str, number: i64) {
        if number != 0 {
            self.key(name);
            if number < 0 {
                self.out.push(b'-');
            }
            put_number(number.unsigned_abs(), self.out);
        }
    }

    fn flag(&mut self, name: &'static str, flag: bool) {
        if flag {
            self.key(name);
            self.out.extend_from_slice(b"true");
        }
    }

    fn payload(&mut self, name: &'static str, payload: Option<Payload<'_>>) {
        // One without a value in it would leave the object without one too.
        if let Some(payload) = payload.filter(|p| !p.iter().all(u8::is_ascii_whitespace)) {
            self.key(name);
            put_payload(payload, self.out);
        }
    }
}

/// Appends JSON text as it is, but on one line: newlines separate messages. In valid JSON they
/// are whitespace, as strings hold them escaped. Other bytes become a string of base64.
fn put_payload(payload: &[u8], out: &mut Vec<u8>) {
    if let Some(bytes) = payload::binary(payload) {
        return put_text(&STANDARD.encode(bytes), out);
    }
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !any(payload, is_break) {
        return out.extend_from_slice(payload);
    }
    for line in payload.split(is_break) {
        out.extend_from_slice(line);
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    if any(rest, needs_escape) {
        while let Some(plain) = rest.iter().position(needs_escape) {
            let (before, after) = rest.split_at(plain);
            out.extend_from_slice(before);
            let Some((special, after)) = after.split_first() else { break };
            put_escape(*special, out);
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

// RFC 8259 7: quotation mark, backslash and what is below the space.
fn needs_escape(byte: &u8) -> bool {
    *byte < 0x20 || *byte == b'"' || *byte == b'\\'
}

fn put_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        b'"' | b'\\' => byte,
        _ => {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xF)]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    // As many digits as the largest number has.
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Whether any byte is such, in strides without an early exit, which the compiler makes wide.
fn any(bytes: &[u8], is: impl Fn(&u8) -> bool) -> bool {
    bytes.chunks(64).any(|chunk| chunk.iter().fold(false, |found, byte| found | is(byte)))
}
