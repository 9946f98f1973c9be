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

/// How many forms of one publication are kept at most: encodings times envelopes times framings.
pub const FORMS_MAX: usize = 8;
/// Of them, those that most crowds want: [`Publication::form`]'s numbers of the two encodings on a
/// WebSocket. The others have room made for them when first wanted: a history is made of
/// publications, and each form is 40 bytes.
pub const FORMS_AT_HAND: [usize; 2] = [0, 6];

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
    /// In a map: the key, and what it says of it.
    pub keyed: Option<Box<Keyed>>,
    /// Invariant ENCODE-ONCE: each form's bytes, made when first wanted.
    pub(crate) forms: [OnceLock<Bytes>; FORMS_AT_HAND.len()],
    pub(crate) other_forms: OnceLock<Box<[OnceLock<Bytes>; FORMS_MAX]>>,
}

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
            keyed: None,
            forms: [const { OnceLock::new() }; FORMS_AT_HAND.len()],
            other_forms: OnceLock::new(),
        }
    }

    /// The bytes of one form (less than [`FORMS_MAX`]), encoded by `encode` if nobody wanted them
    /// before.
    pub fn form(&self, form: usize, encode: impl FnOnce() -> Bytes) -> &Bytes {
        if let Some(at) = FORMS_AT_HAND.iter().position(|at_hand| *at_hand == form) {
            return self.forms[at].get_or_init(encode);
        }
        self.other_forms.get_or_init(Box::default)[form].get_or_init(encode)
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
            for form in 0..FORMS_MAX {
                let bytes = publication.form(form, || {
                    assert_eq!(round, 0, "form {form} was made before");
                    Bytes::from(vec![u8::try_from(form).unwrap()])
                });
                assert_eq!(usize::from(bytes[0]), form);
            }
        }
    }
}
