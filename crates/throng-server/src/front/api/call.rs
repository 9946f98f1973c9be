//! A call's parts: what comes in, and what an error looks like.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codes::ErrorCode;

/// One call.
#[derive(Debug, Clone, Copy)]
pub(in crate::front) struct Call<'a> {
    pub(in crate::front) method: &'a str,
    pub(in crate::front) params: &'a RawValue,
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
    pub(super) channel: String,
    pub(super) channels: Vec<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: String,
    pub(super) skip_history: bool,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) idempotency_key: String,
    pub(super) version: u64,
    pub(super) version_epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe {
    pub(super) user: String,
    pub(super) channel: String,
    pub(super) client: String,
    pub(super) session: String,
    pub(super) info: Option<Box<RawValue>>,
    pub(super) b64info: String,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: String,
    pub(super) expire_at: i64,
    pub(super) recover_since: Option<Position>,
    #[serde(rename = "override")]
    pub(super) overrides: crate::token::Override,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Unsubscribe {
    pub(super) user: String,
    pub(super) channel: String,
    pub(super) client: String,
    pub(super) session: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Disconnect {
    pub(super) user: String,
    pub(super) client: String,
    pub(super) session: String,
    pub(super) whitelist: Vec<String>,
    pub(super) disconnect: Option<Code>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Code {
    pub(super) code: u16,
    pub(super) reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    pub(super) user: String,
    pub(super) client: String,
    pub(super) session: String,
    pub(super) expired: bool,
    pub(super) expire_at: i64,
    pub(super) info: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channel {
    pub(super) channel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channels {
    pub(super) pattern: String,
}

#[derive(Debug, Default, Deserialize, Clone)]
#[serde(default)]
pub(super) struct Position {
    pub(super) offset: u64,
    pub(super) epoch: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) channel: String,
    pub(super) limit: i32,
    pub(super) since: Option<Position>,
    pub(super) reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch<'a> {
    #[serde(borrow)]
    pub(super) commands: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    /// Accepted; the commands are run in order, which is also a way of running them in parallel.
    #[serde(rename = "parallel")]
    pub(super) _parallel: bool,
}

/// A client's info in an answer.
#[derive(Debug, Serialize)]
pub(super) struct Info<'a> {
    pub(super) user: &'a str,
    pub(super) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chan_info: Option<&'a RawValue>,
}

impl<'a> Info<'a> {
    pub(super) fn of(info: &'a throng_hub::publication::ClientInfo) -> Self {
        Self {
            user: &info.user,
            client: info.client.to_string(),
            conn_info: info.conn_info.as_ref().and_then(raw),
            chan_info: info.chan_info.as_ref().and_then(raw),
        }
    }
}

/// A payload in an answer. All of them are JSON: what is not is refused when it comes in.
pub(super) fn raw(bytes: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
