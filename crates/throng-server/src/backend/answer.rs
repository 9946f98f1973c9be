//! What a backend answers: the envelope, what is in it, and what a status means.

use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use throng_wire::dialect::payload;

use super::line::Arrived;
use crate::codes::Disconnect;
use crate::config::{Backend, Transformed};
use crate::polls::Item;
use crate::token::{BASE64, Grant, Override, one_line, or_default, seconds};

/// A backend's answer, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Said(Box<Said>),
    /// An answer without a result: it has nothing to say about this client.
    Nothing,
    Error {
        code: u32,
        message: Box<str>,
        temporary: bool,
    },
    Disconnect(Disconnect),
    /// None came, or none that can be used; the log says why.
    Failed,
}

/// A result; what does not belong to the question is left empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) user: String,
    /// Unix seconds; none: never.
    pub(crate) expire_at: Option<i64>,
    pub(crate) expired: bool,
    pub(crate) grant: Grant,
    pub(crate) channels: Vec<String>,
    pub(crate) subs: Vec<(String, SaidSub)>,
    pub(crate) meta: Option<Bytes>,
    pub(crate) skip_history: bool,
    pub(crate) delta: bool,
    /// Sorted by key.
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) idempotency_key: String,
    pub(crate) version: u64,
    pub(crate) version_epoch: String,
    /// Of a shared poll.
    pub(crate) items: Vec<Item>,
    pub(crate) epoch: String,
    /// The key of a map; empty: the one that was asked about.
    pub(crate) key: String,
    pub(crate) score: i64,
    pub(crate) mode: SaidMode,
}

/// When a key of a map is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum SaidMode {
    #[default]
    #[serde(rename = "")]
    Always,
    #[serde(rename = "if_new")]
    IfNew,
    #[serde(rename = "if_exists")]
    IfExists,
}

/// A subscription that comes with a connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SaidSub {
    pub(crate) grant: Grant,
    /// Unix seconds.
    pub(crate) expire_at: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Envelope {
    #[serde(deserialize_with = "or_default")]
    result: Option<Written>,
    error: Option<WrittenError>,
    disconnect: Option<WrittenClose>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenError {
    code: i64,
    #[serde(deserialize_with = "or_default")]
    message: String,
    #[serde(deserialize_with = "or_default")]
    temporary: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenClose {
    code: i64,
    #[serde(deserialize_with = "or_default")]
    reason: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "seconds")]
    expire_at: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    expired: bool,
    info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64info: String,
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    overrides: Override,
    #[serde(deserialize_with = "or_default")]
    channels: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    subs: BTreeMap<String, WrittenSub>,
    meta: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    skip_history: bool,
    #[serde(deserialize_with = "or_default")]
    delta: bool,
    #[serde(deserialize_with = "or_default")]
    tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    idempotency_key: String,
    #[serde(deserialize_with = "or_default")]
    version: u64,
    #[serde(deserialize_with = "or_default")]
    version_epoch: String,
    #[serde(deserialize_with = "or_default")]
    items: Vec<WrittenItem>,
    #[serde(deserialize_with = "or_default")]
    epoch: String,
    #[serde(deserialize_with = "or_default")]
    key: String,
    #[serde(deserialize_with = "or_default")]
    score: i64,
    #[serde(deserialize_with = "or_default")]
    key_mode: SaidMode,
}

/// An item of a shared poll. What it was before (`prev_data`) is of use where changes are sent as
/// deltas only.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenItem {
    #[serde(deserialize_with = "or_default")]
    key: String,
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    #[serde(deserialize_with = "or_default")]
    version: u64,
    #[serde(deserialize_with = "or_default")]
    removed: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenSub {
    #[serde(deserialize_with = "seconds")]
    expire_at: Option<i64>,
    info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64info: String,
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    #[serde(rename = "override", deserialize_with = "or_default")]
    overrides: Override,
}

/// Reads an answer; the error is for the log, and quotes nothing of it.
pub(super) fn read(arrived: &Arrived, backend: &Backend) -> Result<Answer, String> {
    let Arrived { status, body, .. } = arrived;
    if *status == 200 {
        return understand(body);
    }
    match backend.transforms.iter().find(|each| each.status == *status) {
        Some(transform) => Ok(transformed(&transform.to)),
        None if matches!(status, 301 | 302 | 303 | 307 | 308) => {
            Err(format!("answered {status}, a redirect, which is not followed"))
        }
        None => Err(format!("answered {status}")),
    }
}

/// Reads the body of an answer with the status 200.
pub(crate) fn understand(body: &[u8]) -> Result<Answer, String> {
    // A list would pass for an object whose fields are missing.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err("answered a JSON list".to_owned());
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            let (line, column) = (error.line(), error.column());
            format!("answered JSON that is not what was asked for, at line {line}, column {column}")
        } else {
            "answered what is not JSON".to_owned()
        }
    })?;
    match envelope {
        Envelope { result: None, error: None, disconnect: None } => Ok(Answer::Nothing),
        Envelope { result: Some(result), error: None, disconnect: None } => {
            said(result).map(|said| Answer::Said(Box::new(said)))
        }
        Envelope { result: None, error: Some(error), disconnect: None } => {
            let code = u32::try_from(error.code).ok().filter(|code| (400..=1999).contains(code));
            let code = code.ok_or_else(|| {
                format!("answered error {}, and codes go from 400 to 1999", error.code)
            })?;
            let (message, temporary) = (error.message.into(), error.temporary);
            Ok(Answer::Error { code, message, temporary })
        }
        Envelope { result: None, error: None, disconnect: Some(close) } => {
            let code = u16::try_from(close.code).ok().filter(|code| (4000..=4999).contains(code));
            let code = code.ok_or_else(|| {
                format!("answered disconnect {}, and codes go from 4000 to 4999", close.code)
            })?;
            Ok(Answer::Disconnect(Disconnect::custom(code, &close.reason)))
        }
        _ => Err("answered more than one of result, error and disconnect".to_owned()),
    }
}

fn transformed(to: &Transformed) -> Answer {
    match to {
        Transformed::Error { code, message, temporary } => {
            Answer::Error { code: *code, message: message.as_str().into(), temporary: *temporary }
        }
        Transformed::Disconnect { code, reason } => {
            Answer::Disconnect(Disconnect::custom(*code, reason))
        }
    }
}

fn said(written: Written) -> Result<Said, String> {
    let mut subs = Vec::with_capacity(written.subs.len());
    for (channel, sub) in written.subs {
        let info = payload(sub.info, &sub.b64info, "b64info")?;
        let data = payload(sub.data, &sub.b64data, "b64data")?;
        let grant = Grant { info, data, overrides: sub.overrides };
        subs.push((channel, SaidSub { grant, expire_at: right_ends(sub.expire_at) }));
    }
    let grant = Grant {
        info: payload(written.info, &written.b64info, "b64info")?,
        data: payload(written.data, &written.b64data, "b64data")?,
        overrides: written.overrides,
    };
    let item = |WrittenItem { key, data, b64data, version, removed }| {
        let data = payload(data, &b64data, "b64data")?;
        Ok(Item { key, data, version, removed })
    };
    let items: Result<Vec<Item>, String> = written.items.into_iter().map(item).collect();
    let items = items?;
    Ok(Said {
        user: written.user,
        expire_at: right_ends(written.expire_at),
        expired: written.expired,
        grant,
        channels: written.channels,
        subs,
        meta: written.meta.as_deref().map(one_line),
        skip_history: written.skip_history,
        delta: written.delta,
        tags: written.tags.into_iter().collect(),
        idempotency_key: written.idempotency_key,
        version: written.version,
        version_epoch: written.version_epoch,
        key: written.key,
        score: written.score,
        mode: written.key_mode,
        items,
        epoch: written.epoch,
    })
}

/// Zero or less is for ever.
fn right_ends(expire_at: Option<i64>) -> Option<i64> {
    expire_at.filter(|at| *at > 0)
}

fn payload(json: Option<Box<RawValue>>, base64: &str, name: &str) -> Result<Option<Bytes>, String> {
    if base64.is_empty() {
        return Ok(json.as_deref().map(one_line));
    }
    let bytes =
        BASE64.decode(base64).map_err(|_| format!("answered a {name} that is not base64"))?;
    Ok(Some(payload::sealed(&bytes).into_owned().into()))
}
