//! What travels in a channel: publications, and who is there.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use crate::map::Keyed;

/// A channel's name, shared by all who refer to it.
pub type ChannelName = Arc<str>;

/// Which life of a stream an offset belongs to: eight ASCII letters, chosen when the channel is
/// first seen and again whenever its offsets start anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 8]);

impl Epoch {
    /// Its eight letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a stream: that of the publication with this offset; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: Epoch,
}

/// Who published, joined, left or is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    pub user: Arc<str>,
    pub client: Uuid,
    pub conn_info: Option<Bytes>,
    pub chan_info: Option<Bytes>,
}

/// How many plain forms a publication has at most: encodings times envelopes times framings.
pub const FORMS_MAX: usize = 9;
/// Of them, those that most crowds want: [`Publication::form`]'s numbers of the two encodings on a
/// WebSocket. The others have room made for them when first wanted: a history is made of
/// publications, and each form is 40 bytes.
pub const FORMS_AT_HAND: [usize; 2] = [0, 6];
/// Set in the number of a form that is for subscribers who take patches.
pub const DELTA: usize = 0x10;
/// Set in the number of a form, beside [`DELTA`], that is for who has the publication before: a
/// patch of it, where that is shorter.
pub const PATCH: usize = 0x40;
/// Where the patch itself is kept, among the forms. No form has this number.
const BARE_PATCH: usize = usize::MAX;

/// A publication as it is sent to subscribers, recovered and listed.
pub struct Publication {
    /// The payload, opaque here.
    pub data: Bytes,
    /// The publishing client, when it was one.
    pub info: Option<Arc<ClientInfo>>,
    /// Its place in the stream, from 1; 0 in a channel that keeps no stream.
    pub offset: u64,
    /// The stream it is in, when there is one.
    pub epoch: Option<Epoch>,
    /// When it was published, Unix milliseconds.
    pub time_ms: i64,
    /// Sorted by key.
    pub tags: Box<[(String, String)]>,
    /// Who takes patches gets one of it, if it has the publication before in the stream.
    pub delta: bool,
    /// In a map: the key, and what it says of it.
    pub keyed: Option<Box<Keyed>>,
    /// Invariant ENCODE-ONCE: each form's bytes, made when first wanted.
    pub(crate) forms: [OnceLock<Bytes>; FORMS_AT_HAND.len()],
    pub(crate) other_forms: OnceLock<Box<OtherForm>>,
}

/// A form that few crowds want, and those after it, in the order in which they were wanted first.
pub(crate) struct OtherForm {
    form: usize,
    /// Made apart from the place: while one form is made another may be wanted, for it even.
    bytes: OnceLock<Bytes>,
    next: OnceLock<Box<Self>>,
}

// A history is made of these.
const _: () = assert!(size_of::<Publication>() <= 192);

impl Publication {
    /// A publication that has not been accepted into a stream yet.
    pub fn new(data: Bytes, info: Option<Arc<ClientInfo>>, time_ms: i64) -> Self {
        Self {
            data,
            info,
            offset: 0,
            epoch: None,
            time_ms,
            tags: Box::default(),
            delta: false,
            keyed: None,
            forms: [const { OnceLock::new() }; FORMS_AT_HAND.len()],
            other_forms: OnceLock::new(),
        }
    }

    /// The bytes of one form, encoded by `encode` if nobody wanted them before.
    pub fn form(&self, form: usize, encode: impl FnOnce() -> Bytes) -> &Bytes {
        match FORMS_AT_HAND.iter().position(|at_hand| *at_hand == form) {
            Some(at) => self.forms[at].get_or_init(encode),
            None => self.other_form(form, encode),
        }
    }

    /// What makes this publication of the one before it in the stream, made by `make` if nobody
    /// wanted it before; none where it is not worth its while.
    pub fn patch(&self, make: impl FnOnce() -> Option<Vec<u8>>) -> Option<&Bytes> {
        let patch = self.other_form(BARE_PATCH, || make().unwrap_or_default().into());
        Some(patch).filter(|patch| !patch.is_empty())
    }

    fn other_form(&self, form: usize, encode: impl FnOnce() -> Bytes) -> &Bytes {
        let new = || Box::new(OtherForm { form, bytes: OnceLock::new(), next: OnceLock::new() });
        let mut place = self.other_forms.get_or_init(new);
        while place.form != form {
            place = place.next.get_or_init(new);
        }
        place.bytes.get_or_init(encode)
    }

    /// Whether this is the publication that comes after `other` in its stream.
    pub fn follows(&self, other: &Self) -> bool {
        self.offset > 1 && self.offset - 1 == other.offset && self.epoch == other.epoch
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("offset", &self.offset)
            .field("epoch", &self.epoch)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_encoded_once() {
        let publication = Publication::new(Bytes::from_static(b"1"), None, 0);
        for round in 0..2 {
            // One form may be made of another.
            publication.form(DELTA | 1, || {
                assert_eq!(round, 0, "it was made before");
                publication.form(DELTA, || Bytes::from_static(&[0x10])).clone()
            });
            for form in (0..FORMS_MAX).chain([DELTA, DELTA | PATCH, DELTA | PATCH | 6, 0x20, 0x26])
            {
                let bytes = publication.form(form, || {
                    assert_eq!(round, 0, "form {form} was made before");
                    Bytes::from(vec![u8::try_from(form).unwrap()])
                });
                assert_eq!(usize::from(bytes[0]), form);
            }
            let patch = publication.patch(|| {
                assert_eq!(round, 0, "the patch was made before");
                None
            });
            assert_eq!(patch, None);
        }
    }
}
