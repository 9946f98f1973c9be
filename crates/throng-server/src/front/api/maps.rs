//! The methods of the server API for channels that are maps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::Serialize;
use throng_hub::map::{
    Ask, Call, ChangesQuery, KeyMode, MapAnswer, Page, Removal, Rules, StateQuery, Suppressed,
    Write, Written,
};
use throng_hub::publication::{ChannelName, Publication};
use throng_hub::request::{Answer, Request};

use super::call::{
    ApiError, Binary, Channel, MapPublish, MapReadState, MapReadStream, MapRemove, Payload,
};
use super::methods::{self, HISTORY_BYTES_MAX, Result, bad, given, hub, parse};
use crate::codes::ErrorCode;
use crate::config::DataFormat;
use crate::front::Front;
use crate::session::wrong_key;

/// A value or a change in an answer.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_nought")]
    score: i64,
    #[serde(skip_serializing_if = "is_off")]
    removed: bool,
    #[serde(skip_serializing_if = "is_nought")]
    time: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_nought(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_off(value: &bool) -> bool {
    !*value
}

/// A page in an answer.
#[derive(Debug, Serialize)]
struct Entries<'a> {
    entries: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    epoch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cursor: &'a str,
}

/// What became of a write.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    epoch: &'a str,
    #[serde(skip_serializing_if = "is_off")]
    suppressed: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    suppress_reason: &'a str,
}

/// A channel that a call names, with what its map keeps.
struct Named {
    channel: ChannelName,
    rules: Rules,
    format: DataFormat,
}

fn named(front: &Front, channel: &str) -> std::result::Result<Named, ApiError> {
    let options = methods::options(front, channel)?;
    let Some(map) = &options.map else {
        return Err(bad("the channel is no map: subscription_type is \"stream\""));
    };
    let (channel, rules) = (ChannelName::from(channel), map.rules);
    Ok(Named { channel, rules, format: options.publication_data_format })
}

fn named_key(front: &Front, channel: &str, key: &str) -> std::result::Result<Named, ApiError> {
    let named = named(front, channel)?;
    wrong_key(key).map_or(Ok(named), |because| Err(bad(because)))
}

async fn ask(
    front: &Front,
    Named { channel, rules, .. }: Named,
    ask: Ask,
) -> std::result::Result<MapAnswer, ApiError> {
    let call = Call { channel, rules, ask, quiet: false };
    match methods::ask(front, Request::Map(Box::new(call))).await? {
        Answer::Map(answer) => Ok(answer),
        other => Err(methods::unexpected(&other)),
    }
}

/// Runs one call.
pub(super) async fn run(front: &Front, call: super::call::Call<'_>) -> Result {
    match call.method {
        "map_publish" => publish(front, parse(call.params)?).await,
        "map_remove" => remove(front, parse(call.params)?).await,
        "map_read_state" => read_state(front, parse(call.params)?, call.binary).await,
        "map_read_stream" => read_stream(front, parse(call.params)?, call.binary).await,
        "map_stats" => stats(front, parse(call.params)?).await,
        "map_clear" => clear(front, parse(call.params)?).await,
        _ => Err(ApiError::new(ErrorCode::METHOD_NOT_FOUND, "there is no such method")),
    }
}

async fn publish(front: &Front, call: MapPublish) -> Result {
    let named = named_key(front, &call.channel, &call.key)?;
    let data = given(call.data.as_deref(), &call.b64data, "data")?;
    if let Some(data) = data.as_ref().filter(|_| named.format != DataFormat::NotEmpty) {
        named.format.check(data).map_err(bad)?;
    }
    let mode = match call.key_mode.as_str() {
        "" => KeyMode::Always,
        "if_new" => KeyMode::IfNew,
        "if_exists" => KeyMode::IfExists,
        _ => return Err(bad("key_mode is none of \"\", \"if_new\" and \"if_exists\"")),
    };
    let data: Bytes = data.unwrap_or_default();
    let drawn = methods::draw(front, data.len()).await?;
    front.common.published.fetch_add(1, Ordering::Relaxed);
    let write = Write {
        key: call.key.into(),
        data,
        tags: call.tags.into_iter().collect(),
        score: call.score,
        mode,
        idempotency_key: text(&call.idempotency_key),
        version: call.version,
        version_epoch: call.version_epoch.into(),
        draw: Some(Arc::new(drawn)),
        ..Write::default()
    };
    let recoverable = named.rules.recoverable;
    written(ask(front, named, Ask::Publish(write)).await?, recoverable)
}

async fn remove(front: &Front, call: MapRemove) -> Result {
    let named = named_key(front, &call.channel, &call.key)?;
    let removal =
        Removal { key: call.key.into(), tags: None, idempotency_key: text(&call.idempotency_key) };
    let recoverable = named.rules.recoverable;
    written(ask(front, named, Ask::Remove(removal)).await?, recoverable)
}

async fn read_state(front: &Front, call: MapReadState, binary: Binary) -> Result {
    let named = named(front, &call.channel)?;
    let is_frozen = call.revision_offset > 0 || !call.revision_epoch.is_empty();
    let recoverable = named.rules.recoverable;
    let query = StateQuery {
        key: call.key.into(),
        cursor: call.cursor.into(),
        limit: usize::try_from(call.limit).ok(),
        frozen: is_frozen.then(|| {
            // Of a map whose offsets nobody is told, the epoch alone counts.
            let offset = if recoverable { call.revision_offset } else { u64::MAX };
            (offset, call.revision_epoch.into())
        }),
        bytes_max: HISTORY_BYTES_MAX,
    };
    page(ask(front, named, Ask::State(query)).await?, recoverable, binary)
}

async fn read_stream(front: &Front, call: MapReadStream, binary: Binary) -> Result {
    let named = named(front, &call.channel)?;
    let recoverable = named.rules.recoverable;
    let is_since = call.since_offset > 0 || !call.since_epoch.is_empty();
    if call.reverse && is_since && call.since_offset == 0 {
        return Err(ApiError::new(
            ErrorCode::BAD_REQUEST,
            "a reverse read needs a since_offset above 0",
        ));
    }
    let query = ChangesQuery {
        since: is_since.then(|| (call.since_offset, call.since_epoch.into())),
        // An ephemeral map has no changes that anybody could read.
        limit: if recoverable { usize::try_from(call.limit).ok() } else { Some(0) },
        reverse: call.reverse,
        bytes_max: HISTORY_BYTES_MAX,
    };
    page(ask(front, named, Ask::Changes(query)).await?, recoverable, binary)
}

async fn stats(front: &Front, call: Channel) -> Result {
    match ask(front, named(front, &call.channel)?, Ask::Count).await? {
        MapAnswer::Count(count) => Ok(format!("{{\"num_keys\":{count}}}").into_bytes()),
        other => Err(unexpected(other)),
    }
}

async fn clear(front: &Front, call: Channel) -> Result {
    match ask(front, named(front, &call.channel)?, Ask::Clear).await? {
        MapAnswer::Cleared => Ok(b"{}".to_vec()),
        other => Err(unexpected(other)),
    }
}

fn text(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn written(answer: MapAnswer, recoverable: bool) -> Result {
    let MapAnswer::Written(result) = answer else { return Err(unexpected(answer)) };
    let Written { position, suppressed } = result.map_err(hub)?;
    json(&Outcome {
        offset: if recoverable { position.offset } else { 0 },
        epoch: position.epoch.as_str(),
        suppressed: suppressed.is_some(),
        suppress_reason: suppressed.map_or("", Suppressed::as_str),
    })
}

fn page(answer: MapAnswer, recoverable: bool, binary: Binary) -> Result {
    let MapAnswer::Page(result) = answer else { return Err(unexpected(answer)) };
    let Page { publications, position, cursor } = result.map_err(hub)?;
    json(&Entries {
        entries: publications.iter().map(|publication| entry(publication, binary)).collect(),
        offset: if recoverable { position.offset } else { 0 },
        epoch: position.epoch.as_str(),
        cursor: cursor.as_deref().unwrap_or_default(),
    })
}

fn entry(publication: &Publication, binary: Binary) -> Entry<'_> {
    let (data, b64data) = binary.apart(Payload::of(&publication.data));
    let keyed = publication.keyed.as_deref();
    let hides = keyed.is_none_or(|keyed| keyed.hides_offset);
    Entry {
        key: keyed.map_or("", |keyed| &keyed.key),
        data,
        b64data,
        tags: publication.tags.iter().map(|(key, value)| (&**key, &**value)).collect(),
        offset: if hides { 0 } else { publication.offset },
        score: keyed.map_or(0, |keyed| keyed.score),
        removed: keyed.is_some_and(|keyed| keyed.removed),
        time: publication.time_ms,
    }
}

fn json(answer: &impl Serialize) -> Result {
    serde_json::to_vec(answer)
        .map_err(|error| ApiError::new(ErrorCode::INTERNAL, error.to_string()))
}

fn unexpected(answer: MapAnswer) -> ApiError {
    methods::unexpected(&Answer::Map(answer))
}
