//! A call's parts: what comes in, and what an error looks like.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use throng_wire::dialect::payload;

use super::whole::whole;
use crate::codes::ErrorCode;
use crate::keyed::Keyed;

/// One call.
#[derive(Debug, Clone, Copy)]
pub(in crate::front) struct Call<'a> {
    pub(in crate::front) method: &'a str,
    pub(in crate::front) params: &'a RawValue,
    /// Whether the caller wants to know whom its publications reached.
    pub(in crate::front) audience: bool,
    pub(in crate::front) binary: Binary,
}

/// Where payloads that are no JSON stand in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::front) enum Binary {
    /// In their fields, as base64: callers of HTTP know which they are.
    InPlace,
    /// As base64, in fields of their own with `b64` before the name.
    Beside,
}

/// Why a call failed: what the caller is told, and what the log is.
#[derive(Debug)]
pub(in crate::front) struct ApiError {
    pub(in crate::front) code: ErrorCode,
    pub(in crate::front) because: String,
}

impl ApiError {
    pub(in crate::front) fn new(code: ErrorCode, because: impl Into<String>) -> Self {
        Self { code, because: because.into() }
    }

    /// The error object.
    pub(super) fn body(&self) -> String {
        let ErrorCode { code, message, .. } = self.code;
        format!("{{\"code\":{code},\"message\":\"{message}\"}}")
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Legacy<'a> {
    #[serde(borrow)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
}

/// The fields of `publish`, which has a channel, and of `broadcast`, which has several.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channels: Vec<String>,
    pub(super) data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) delta: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "whole")]
    pub(super) version: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) version_epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SharedPollPublish {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    pub(super) data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "whole")]
    pub(super) version: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    pub(super) info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64info: String,
    pub(super) data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "whole")]
    pub(super) expire_at: i64,
    pub(super) recover_since: Option<Keyed<Position>>,
    #[serde(rename = "override", deserialize_with = "or_default")]
    pub(super) overrides: Keyed<crate::token::Override>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Unsubscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Disconnect {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) whitelist: Vec<String>,
    pub(super) disconnect: Option<Keyed<Code>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Code {
    #[serde(deserialize_with = "whole")]
    pub(super) code: u16,
    #[serde(deserialize_with = "or_default")]
    pub(super) reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "whole")]
    pub(super) expire_at: i64,
    pub(super) info: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channel {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channels {
    #[serde(deserialize_with = "or_default")]
    pub(super) pattern: String,
}

#[derive(Debug, Default, Deserialize, Clone)]
#[serde(default)]
pub(super) struct Position {
    #[serde(deserialize_with = "whole")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "whole")]
    pub(super) limit: i32,
    pub(super) since: Option<Keyed<Position>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MapPublish {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    pub(super) data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    /// Accepted, and not used: subscribers get the value in any case.
    #[serde(rename = "stream_data")]
    pub(super) _stream_data: Option<Box<RawValue>>,
    #[serde(rename = "b64stream_data", deserialize_with = "or_default")]
    pub(super) _b64stream_data: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
    /// Accepted: subscribers get every value in full.
    #[serde(rename = "delta", deserialize_with = "or_default")]
    pub(super) _delta: bool,
    #[serde(deserialize_with = "whole")]
    pub(super) version: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) version_epoch: String,
    #[serde(deserialize_with = "whole")]
    pub(super) score: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) key_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MapRemove {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MapReadState {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) cursor: String,
    #[serde(deserialize_with = "whole")]
    pub(super) limit: i32,
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    /// Accepted: the order is that of the keys.
    #[serde(rename = "asc", deserialize_with = "or_default")]
    pub(super) _asc: bool,
    #[serde(deserialize_with = "whole")]
    pub(super) revision_offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) revision_epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MapReadStream {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "whole")]
    pub(super) since_offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) since_epoch: String,
    #[serde(deserialize_with = "whole")]
    pub(super) limit: i32,
    #[serde(deserialize_with = "or_default")]
    pub(super) reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch<'a> {
    #[serde(borrow)]
    pub(super) commands: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    /// Accepted; the commands are run in order, which is also a way of running them in parallel.
    #[serde(rename = "parallel", deserialize_with = "or_default")]
    pub(super) _parallel: bool,
}

/// Null is the same as absent, as it is on the client's side.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(value).map(Option::unwrap_or_default)
}

/// A client's info in an answer.
#[derive(Debug, Serialize)]
pub(super) struct Info<'a> {
    pub(super) user: &'a str,
    pub(super) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conn_info: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chan_info: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64conn_info: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64chan_info: Option<Payload<'a>>,
}

impl<'a> Info<'a> {
    pub(super) fn of(info: &'a throng_hub::publication::ClientInfo, binary: Binary) -> Self {
        let payload = |payload: Option<&'a [u8]>| payload.and_then(Payload::of);
        let (conn_info, b64conn_info) = binary.apart(payload(info.conn_info.as_deref()));
        let (chan_info, b64chan_info) = binary.apart(payload(info.chan_info.as_deref()));
        let (user, client) = (&*info.user, info.client.to_string());
        Self { user, client, conn_info, chan_info, b64conn_info, b64chan_info }
    }
}

impl Binary {
    /// A payload, and one that stands beside.
    pub(super) fn apart(
        self,
        payload: Option<Payload<'_>>,
    ) -> (Option<Payload<'_>>, Option<Payload<'_>>) {
        match payload {
            Some(Payload::Binary(_)) if self == Self::Beside => (None, payload),
            payload => (payload, None),
        }
    }
}

/// A payload in an answer: JSON as it is, other bytes as a string of base64.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    Json(&'a RawValue),
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// An empty one is none.
    pub(super) fn of(payload: &'a [u8]) -> Option<Self> {
        match payload::binary(payload) {
            Some(bytes) => Some(Self::Binary(bytes)),
            None => serde_json::from_slice(payload).ok().map(Self::Json),
        }
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(serializer),
            Self::Binary(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
        }
    }
}
