//! How a session speaks: replies, pushes, and the frames of what a channel says.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use throng_hub::event::Item;
use throng_hub::publication::{ChannelName, ClientInfo, DELTA, FORMS_MAX, PATCH, Publication};
use throng_wire::dialect::{
    self, Encoding, Envelope, Push, Reply, Shape, SubscribeResult, payload,
};
use throng_wire::fossil;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Deflater, Effort, Window};

use super::{Cx, Kind, Session};
use crate::codes::ErrorCode;
use crate::control::Transport;
use crate::metrics::{Frame, Of};

/// The forms of publications: as replies in each framing, and as bare pushes in those of
/// unidirectional transports. Their numbers are in what a restart hands over, so that new ones come
/// last.
const FORMS: [(Framing, Envelope); 9] = [
    (Framing::WebSocket, Envelope::Reply),
    (Framing::WebSocket, Envelope::Bare),
    (Framing::Sse, Envelope::Reply),
    (Framing::Sse, Envelope::Bare),
    (Framing::Lines, Envelope::Reply),
    (Framing::Lines, Envelope::Bare),
    (Framing::Binary, Envelope::Reply),
    (Framing::Lengths, Envelope::Reply),
    (Framing::Lengths, Envelope::Bare),
];
const _: () = assert!(FORMS.len() <= FORMS_MAX);
/// The transports whose clients want each form.
const SPOKEN: [Transport; FORMS.len()] = [
    Transport::Websocket,
    Transport::UniWebsocket,
    Transport::Sse,
    Transport::UniSse,
    Transport::HttpStream,
    Transport::UniHttpStream,
    Transport::Websocket,
    Transport::HttpStream,
    Transport::UniGrpc,
];

/// Of a form's number, its place in the list.
const PLAIN: usize = 0x0f;
/// In a form's number: that it is compressed. There is one for all connections that agreed on the
/// usual window; the few with a smaller one are sent publications as they are.
const DEFLATED: u8 = 0x20;

/// What a form is wrapped in.
pub(crate) fn envelope_of(form: u8) -> Option<(Framing, Envelope)> {
    FORMS.get(usize::from(form) & PLAIN).copied()
}

/// The transport whose clients want this form.
pub(crate) fn transport_of(form: u8) -> Option<Transport> {
    SPOKEN.get(usize::from(form) & PLAIN).copied()
}

/// Whether this form is compressed.
pub(crate) fn is_deflated(form: u8) -> bool {
    form & DEFLATED != 0
}

/// The form that a connection with this window wants of a plain form.
pub(super) fn form_over(form: u8, window: Option<Window>) -> u8 {
    if window == Some(Window::Usual) { form | DEFLATED } else { form }
}

/// The form of publications that a connection of this framing wants. No unidirectional WebSocket
/// speaks Protobuf.
pub(super) fn form_of(framing: Framing, envelope: Envelope) -> u8 {
    match (framing, envelope) {
        (Framing::WebSocket, Envelope::Reply) => 0,
        (Framing::WebSocket, Envelope::Bare) => 1,
        (Framing::Sse, Envelope::Reply) => 2,
        (Framing::Sse, Envelope::Bare) => 3,
        (Framing::Lines, Envelope::Reply) => 4,
        (Framing::Lines, Envelope::Bare) => 5,
        (Framing::Binary, _) => 6,
        (Framing::Lengths, Envelope::Reply) => 7,
        (Framing::Lengths, Envelope::Bare) => 8,
    }
}

impl Session {
    /// Answers a command.
    pub(super) fn reply(&self, cx: &mut Cx<'_, '_>, id: u32, reply: &Reply<'_>) {
        let mut payload = Vec::with_capacity(128);
        dialect::put_reply(cx.out.framing.encoding(), id, reply, &mut payload);
        let method = cx.command.method;
        if let Reply::Error { code, .. } = reply {
            cx.meter.rare.count(Of::ReplyError, method as u8, *code);
        }
        let frame = Frame::of_reply(reply).unwrap_or(method);
        cx.meter.sent(self.transport(cx), frame, payload.len());
        cx.out.message(&payload);
    }

    /// Answers a command with an error.
    pub(super) fn error(&self, cx: &mut Cx<'_, '_>, id: u32, error: ErrorCode) {
        let ErrorCode { code, message, temporary } = error;
        self.reply(cx, id, &Reply::Error { code, message, temporary });
    }

    /// Says something unasked.
    pub(super) fn push(&self, cx: &mut Cx<'_, '_>, push: &Push<'_>) {
        let mut payload = Vec::with_capacity(128);
        let encoding = cx.out.framing.encoding();
        dialect::put_push(encoding, self.envelope(), push, &mut payload);
        cx.meter.sent(self.transport(cx), Frame::of_push(push), payload.len());
        cx.out.message(&payload);
    }

    pub(super) fn envelope(&self) -> Envelope {
        self.kind.envelope()
    }
}

impl Kind {
    /// The transport that it is, in this framing.
    pub(crate) fn over(self, framing: Framing) -> Transport {
        match (framing, self) {
            (Framing::WebSocket | Framing::Binary, Self::Bidirectional) => Transport::Websocket,
            (Framing::WebSocket | Framing::Binary, Self::Unidirectional) => Transport::UniWebsocket,
            (Framing::Sse, Self::Bidirectional) => Transport::Sse,
            (Framing::Sse, Self::Unidirectional) => Transport::UniSse,
            (Framing::Lines | Framing::Lengths, Self::Bidirectional) => Transport::HttpStream,
            (Framing::Lines, Self::Unidirectional) => Transport::UniHttpStream,
            (Framing::Lengths, Self::Unidirectional) => Transport::UniGrpc,
        }
    }

    /// What surrounds what it is told unasked.
    pub(crate) fn envelope(self) -> Envelope {
        match self {
            Self::Bidirectional => Envelope::Reply,
            Self::Unidirectional => Envelope::Bare,
        }
    }
}

/// Appends one item in one form.
pub(crate) fn encode_item(form: usize, channel: &ChannelName, item: &Item, out: &mut Vec<u8>) {
    let Some((framing, payload)) = in_form(form, channel, item) else { return };
    framing.put(&payload, out);
}

/// Appends one item in one form that is compressed.
pub(crate) fn encode_deflated(
    form: usize,
    (channel, item): (&ChannelName, &Item),
    (deflater, effort): (&mut Deflater, Effort),
    out: &mut Vec<u8>,
) {
    let Some((framing, payload)) = in_form(form, channel, item) else { return };
    framing.put_deflated(&payload, (deflater, effort, Window::Usual), out);
}

#[cfg(test)]
thread_local! {
    /// How many items were encoded in this thread.
    pub(crate) static ENCODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn in_form(form: usize, channel: &ChannelName, item: &Item) -> Option<(Framing, Vec<u8>)> {
    #[cfg(test)]
    ENCODED.set(ENCODED.get() + 1);
    // A bug of ours, were it missing: a session says only what `form_of` says.
    let &(framing, envelope) = FORMS.get(form & PLAIN)?;
    let encoding = framing.encoding();
    let mut payload = Vec::with_capacity(160);
    match item {
        Item::Publication(flight) => {
            let said = &flight.publication;
            let publication = match (form & DELTA, &flight.base) {
                (0, _) => publication(said),
                (_, Some(base)) if form & PATCH != 0 => patched(encoding, base, said),
                _ => whole(said),
            };
            let push = Push::Publication { channel, publication };
            dialect::put_push(encoding, envelope, &push, &mut payload);
        }
        Item::Join(info) => {
            let push = Push::Join { channel, info: client_info(info) };
            dialect::put_push(encoding, envelope, &push, &mut payload);
        }
        Item::Leave(info) => {
            let push = Push::Leave { channel, info: client_info(info) };
            dialect::put_push(encoding, envelope, &push, &mut payload);
        }
    }
    Some((framing, payload))
}

/// A publication as the wire has it.
pub(crate) fn publication(publication: &Publication) -> dialect::Publication<'_> {
    // Who subscribed to an empty stream learns its epoch from the first publication.
    let epoch = publication.epoch.as_ref().filter(|_| publication.offset == 1);
    if let Some(keyed) = &publication.keyed {
        return dialect::Publication {
            data: &publication.data,
            info: publication.info.as_deref().map(client_info),
            offset: if keyed.hides_offset { 0 } else { publication.offset },
            tags: &publication.tags,
            key: &keyed.key,
            removed: keyed.removed,
            score: keyed.score,
            ..dialect::Publication::default()
        };
    }
    dialect::Publication {
        data: &publication.data,
        shape: Shape::Plain,
        info: publication.info.as_deref().map(client_info),
        offset: publication.offset,
        tags: &publication.tags,
        time: 0,
        epoch: epoch.map_or("", |epoch| epoch.as_str()),
        ..dialect::Publication::default()
    }
}

/// The same for who takes patches.
fn whole(said: &Publication) -> dialect::Publication<'_> {
    dialect::Publication { shape: Shape::Whole, ..publication(said) }
}

/// The same for who has `base`, the publication before it: a patch of that, where it is shorter.
fn patched<'a>(
    encoding: Encoding,
    base: &Publication,
    said: &'a Publication,
) -> dialect::Publication<'a> {
    let (from, to) = (&base.data, &said.data);
    let is_text = payload::binary(from).is_none() && payload::binary(to).is_none();
    // Who speaks JSON has other bytes than these for a payload that is none.
    if encoding == Encoding::Json && !is_text {
        return whole(said);
    }
    let make = || fossil::patch(payload::bytes(from), payload::bytes(to));
    match said.patch(make) {
        Some(patch) => dialect::Publication { data: patch, shape: Shape::Patch, ..whole(said) },
        None => whole(said),
    }
}

/// A client's info as the wire has it.
pub(crate) fn client_info(info: &ClientInfo) -> dialect::ClientInfo<'_> {
    dialect::ClientInfo {
        user: &info.user,
        client: Cow::Owned(info.client.to_string()),
        conn_info: info.conn_info.as_deref(),
        chan_info: info.chan_info.as_deref(),
    }
}

/// The publications of a recovery, kept while a reply borrows from them.
pub(super) fn publications(list: &[Arc<Publication>]) -> Vec<dialect::Publication<'_>> {
    list.iter().map(|each| publication(each)).collect()
}

/// The same for a subscriber who takes patches: the first whole, those after it as patches where
/// they may be.
fn patches(encoding: Encoding, list: &[Arc<Publication>]) -> Vec<dialect::Publication<'_>> {
    let before = std::iter::once(None).chain(list.iter().map(Some));
    let each = before.zip(list).map(|(before, said)| match before {
        Some(base) if said.delta && said.follows(base) => patched(encoding, base, said),
        _ => whole(said),
    });
    each.collect()
}

/// A subscription's reply, with what it borrows from kept alive.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) channel: ChannelName,
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    pub(super) was_recovering: bool,
    pub(super) recovered: bool,
    pub(super) epoch: Option<throng_hub::publication::Epoch>,
    pub(super) offset: u64,
    pub(super) publications: Vec<Arc<Publication>>,
    /// It takes patches.
    pub(super) delta: bool,
    pub(super) data: Option<Bytes>,
    /// Seconds; none: it does not expire.
    pub(super) ttl: Option<u32>,
}

impl Outcome {
    /// What was recovered, as this subscriber gets it.
    pub(super) fn publications(&self, encoding: Encoding) -> Vec<dialect::Publication<'_>> {
        match self.delta {
            true => patches(encoding, &self.publications),
            false => publications(&self.publications),
        }
    }

    pub(super) fn result<'a>(
        &'a self,
        publications: &'a [dialect::Publication<'a>],
    ) -> SubscribeResult<'a> {
        SubscribeResult {
            expires: self.ttl.is_some(),
            ttl: self.ttl.unwrap_or(0),
            recoverable: self.recoverable,
            epoch: self.epoch.as_ref().map_or("", |epoch| epoch.as_str()),
            publications,
            recovered: self.recovered,
            offset: self.offset,
            positioned: self.positioned,
            data: self.data.as_deref(),
            was_recovering: self.was_recovering,
            delta: self.delta,
            ..SubscribeResult::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_framing_and_envelope_has_a_form_of_its_own() {
        for (at, (framing, envelope)) in FORMS.into_iter().enumerate() {
            assert_eq!(usize::from(form_of(framing, envelope)), at);
            let kinds = [Kind::Bidirectional, Kind::Unidirectional];
            let kind = kinds.into_iter().find(|kind| kind.envelope() == envelope).unwrap();
            assert_eq!(SPOKEN[at], kind.over(framing));
            let form = form_of(framing, envelope);
            assert_eq!([form_over(form, None), form_over(form, Some(Window::Small))], [form; 2]);
            let deflated = form_over(form, Some(Window::Usual));
            assert!(is_deflated(deflated) && !is_deflated(form));
            assert_eq!(transport_of(deflated), Some(SPOKEN[at]));
        }
    }
}
