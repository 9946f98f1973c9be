//! A key's new state on its way to clients, as the hub knows publications: so it is handed out in
//! slices, and encoded once per form.

use throng_hub::event::Item;
use throng_hub::publication::{ChannelName, Publication};
use throng_wire::dialect::{self, Push};

use super::poller::Update;
use super::watch;
use crate::session::envelope_of;

/// Where a stream's publication has its time, one of a key says whom it is for.
const FOR_ALL: i64 = 0;
const FOR_THOSE_BEHIND: i64 = 1;

/// An update as the hub sees it: the version stands where a stream has the offset, and a removal has
/// no payload, which no payload is (what is empty is sealed).
pub(crate) fn publication(update: &Update) -> Publication {
    let (version, data, whom) = match update {
        Update::New { version, data } => (*version, data.clone(), FOR_ALL),
        Update::Again { version, data } => (*version, data.clone(), FOR_THOSE_BEHIND),
        Update::Removed => (0, bytes::Bytes::new(), FOR_ALL),
    };
    let mut publication = Publication::new(data, None, whom);
    publication.offset = version;
    publication
}

/// What an update is for a client that tracks its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    Removed,
    /// For who has an older version than this.
    New(u64),
    /// For who is behind, and has an older version than this.
    Again(u64),
}

pub(crate) fn meant(publication: &Publication) -> Meant {
    match (publication.data.is_empty(), publication.time_ms) {
        (true, _) => Meant::Removed,
        (false, FOR_THOSE_BEHIND) => Meant::Again(publication.offset),
        (false, _) => Meant::New(publication.offset),
    }
}

/// A key's state as the wire has it.
pub(crate) fn on_wire<'a>(key: &'a str, version: u64, data: &'a [u8]) -> dialect::Publication<'a> {
    dialect::Publication {
        data,
        key,
        removed: data.is_empty(),
        version,
        ..dialect::Publication::default()
    }
}

/// Appends one update in one form; its channel is that of the key.
pub(crate) fn encode(form: u8, name: &ChannelName, item: &Item, out: &mut Vec<u8>) {
    let Some((framing, envelope)) = envelope_of(form) else { return };
    // Nobody joins or leaves a key.
    let Item::Publication(flight) = item else { return };
    let (channel, key) = watch::parts_of(name);
    let publication = on_wire(key, flight.publication.offset, &flight.publication.data);
    let mut payload = Vec::with_capacity(160);
    let push = Push::Publication { channel, publication };
    dialect::put_push(framing.encoding(), envelope, &push, &mut payload);
    framing.put(&payload, out);
}
