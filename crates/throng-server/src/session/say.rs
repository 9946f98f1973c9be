//! How a session speaks: replies, pushes, and the frames of what a channel says.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use throng_hub::event::Item;
use throng_hub::publication::{ChannelName, ClientInfo, Publication};
use throng_wire::dialect::{self, Encoding, Envelope, Push, Reply, SubscribeResult};
use throng_wire::websocket::{Opcode, put_frame};

use super::{Cx, Kind, Session};
use crate::codes::ErrorCode;

/// Publications as replies in JSON, in WebSocket text frames.
pub(crate) const FORM_JSON: u8 = 0;
/// Publications as bare pushes in JSON, in WebSocket text frames.
pub(crate) const FORM_JSON_UNI: u8 = 1;

impl Session {
    /// Answers a command.
    pub(super) fn reply(&self, cx: &mut Cx<'_, '_>, id: u32, reply: &Reply<'_>) {
        let mut payload = Vec::with_capacity(128);
        dialect::put_reply(Encoding::Json, id, reply, &mut payload);
        cx.out.frame(Opcode::Text, &payload);
    }

    /// Answers a command with an error.
    pub(super) fn error(&self, cx: &mut Cx<'_, '_>, id: u32, error: ErrorCode) {
        let ErrorCode { code, message, temporary } = error;
        self.reply(cx, id, &Reply::Error { code, message, temporary });
    }

    /// Says something unasked.
    pub(super) fn push(&self, cx: &mut Cx<'_, '_>, push: &Push<'_>) {
        let mut payload = Vec::with_capacity(128);
        dialect::put_push(Encoding::Json, self.envelope(), push, &mut payload);
        cx.out.frame(Opcode::Text, &payload);
    }

    pub(super) fn envelope(&self) -> Envelope {
        match self.kind {
            Kind::Bidirectional => Envelope::Reply,
            Kind::Unidirectional => Envelope::Bare,
        }
    }
}

/// Appends the frame of one item in one form.
pub(crate) fn encode_item(form: u8, channel: &ChannelName, item: &Item, out: &mut Vec<u8>) {
    let envelope = if form == FORM_JSON_UNI { Envelope::Bare } else { Envelope::Reply };
    let mut payload = Vec::with_capacity(160);
    match item {
        Item::Publication(flight) => {
            let publication = publication(&flight.publication);
            let push = Push::Publication { channel, publication };
            dialect::put_push(Encoding::Json, envelope, &push, &mut payload);
        }
        Item::Join(info) => {
            let push = Push::Join { channel, info: client_info(info) };
            dialect::put_push(Encoding::Json, envelope, &push, &mut payload);
        }
        Item::Leave(info) => {
            let push = Push::Leave { channel, info: client_info(info) };
            dialect::put_push(Encoding::Json, envelope, &push, &mut payload);
        }
    }
    put_frame(Opcode::Text, &payload, out);
}

/// A publication as the wire has it.
pub(crate) fn publication(publication: &Publication) -> dialect::Publication<'_> {
    // Who subscribed to an empty stream learns its epoch from the first publication.
    let epoch = publication.epoch.as_ref().filter(|_| publication.offset == 1);
    dialect::Publication {
        data: &publication.data,
        info: publication.info.as_deref().map(client_info),
        offset: publication.offset,
        tags: &publication.tags,
        time: 0,
        epoch: epoch.map_or("", |epoch| epoch.as_str()),
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
    pub(super) data: Option<Bytes>,
    /// Seconds; none: it does not expire.
    pub(super) ttl: Option<u32>,
}

impl Outcome {
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
            delta: false,
        }
    }
}
