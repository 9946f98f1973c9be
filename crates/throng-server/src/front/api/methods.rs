//! The methods of the server API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use throng_hub::publication::ChannelName;
use throng_hub::request::{
    Answer, Audience, HistoryQuery, HubError, Publish as HubPublish, Published, Request, Since,
};
use throng_wire::dialect::payload;
use uuid::Uuid;

use super::call::{
    ApiError, Batch, Binary, Call, Channel, Channels, Disconnect, History, Info, Payload, Publish,
    Refresh, SharedPollPublish, Subscribe, Unsubscribe,
};
use super::{logged, maps};
use crate::codes::{Disconnect as Why, ErrorCode};
use crate::config::{ChannelError, ChannelOptions, DataFormat};
use crate::desk::Part;
use crate::front::Front;
use crate::keyed::Keyed;
use crate::metrics::Of;
use crate::polls::{self, KEY_BYTES_MAX, watch};
use crate::session::{Order, Target, error_code, retention};
use crate::sessions::Mail;
use crate::shard::Post;
use crate::token::Grant;

/// How long a question to the node or the shards may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Payload bytes of one page of history.
pub(super) const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Commands of one batch, and channels of one broadcast.
pub(super) const MANY_MAX: usize = 10_000;

/// What a method returns: the result object, or what went wrong.
pub(super) type Result = std::result::Result<Vec<u8>, ApiError>;

pub(super) const METHODS: [&str; 21] = [
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "rpc",
    "batch",
    "map_publish",
    "map_remove",
    "map_read_state",
    "map_read_stream",
    "map_stats",
    "map_clear",
    "shared_poll_publish",
];

/// Whether there is such a method.
pub(super) fn is_known(method: &str) -> bool {
    METHODS.contains(&method)
}

/// The place of a method among all of them; that of what is none is behind the last.
pub(super) fn place(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len())
}

/// Runs one call.
pub(super) async fn run(front: &Front, call: Call<'_>) -> Result {
    let (meters, place) = (&front.common.meters, place(call.method));
    let began_us = meters.clock.us();
    let result = run_any(front, call).await;
    meters.front.called(place, meters.clock.us().saturating_sub(began_us));
    if let Err(error) = &result {
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        meters.front.rare.count(Of::ApiError, place, error.code.code);
    }
    result
}

async fn run_any(front: &Front, call: Call<'_>) -> Result {
    match call.method {
        "batch" => batch(front, call.params, call.binary).await,
        "publish" => publish(front, parse(call.params)?).await,
        "broadcast" => broadcast(front, parse(call.params)?, call.audience).await,
        _ => run_rare(front, call).await,
    }
}

async fn run_rare(front: &Front, call: Call<'_>) -> Result {
    match call.method {
        "subscribe" => subscribe(front, parse(call.params)?).await,
        "unsubscribe" => unsubscribe(front, parse(call.params)?).await,
        "disconnect" => disconnect(front, parse(call.params)?).await,
        "refresh" => refresh(front, parse(call.params)?).await,
        "presence" => presence(front, parse(call.params)?, call.binary).await,
        "presence_stats" => presence_stats(front, parse(call.params)?).await,
        "history" => history(front, parse(call.params)?, call.binary).await,
        "history_remove" => history_remove(front, parse(call.params)?).await,
        "channels" => channels(front, parse(call.params)?).await,
        "info" => info(front).await,
        "shared_poll_publish" => shared_poll_publish(front, parse(call.params)?).await,
        // Apart, so that what every request holds does not grow by it.
        method if method.starts_with("map_") => Box::pin(maps::run(front, call)).await,
        "rpc" => Err(ApiError::new(
            ErrorCode::METHOD_NOT_FOUND,
            "no rpc method is defined on the server",
        )),
        _ => Err(ApiError::new(ErrorCode::METHOD_NOT_FOUND, "there is no such method")),
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(
    params: &'a RawValue,
) -> std::result::Result<T, ApiError> {
    if !params.get().starts_with('{') {
        return Err(bad("the parameters are not an object"));
    }
    serde_json::from_str(params.get()).map_err(|error| bad(format!("the parameters: {error}")))
}

pub(super) fn bad(because: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BAD_REQUEST, because)
}

/// The options of a channel that a call names.
pub(super) fn options(
    front: &Front,
    channel: &str,
) -> std::result::Result<Arc<ChannelOptions>, ApiError> {
    let settings = front.settings();
    let resolved = settings.channel.resolve(channel);
    resolved.map(|resolved| Arc::clone(resolved.options)).map_err(|error| {
        let code = match error {
            ChannelError::UnknownNamespace => ErrorCode::UNKNOWN_CHANNEL,
            _ => ErrorCode::BAD_REQUEST,
        };
        let shown: String = channel.chars().filter(|each| !each.is_control()).take(80).collect();
        ApiError::new(code, format!("{shown}: {error}"))
    })
}

async fn publish(front: &Front, publish: Publish) -> Result {
    let published = publish_to(front, &publish.channel, &publish, None).await?;
    Ok(position(published))
}

async fn broadcast(front: &Front, publish: Publish, asks_audience: bool) -> Result {
    if publish.channels.is_empty() || publish.channels.len() > MANY_MAX {
        return Err(bad(format!("channels must be 1 to {MANY_MAX}")));
    }
    let data = payload(&publish)?;
    let mut out = b"{\"responses\":[".to_vec();
    for (index, channel) in publish.channels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // One bad channel is its own error; the others are published to.
        match logged(front, publish_to(front, channel, &publish, Some(data.clone())).await) {
            Ok(published) => {
                out.extend_from_slice(b"{\"result\":");
                out.extend_from_slice(&position(published));
                if asks_audience {
                    put_audience(front, channel, &mut out).await;
                }
                out.push(b'}');
            }
            Err(error) => {
                out.extend_from_slice(format!("{{\"error\":{}}}", error.body()).as_bytes())
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// The payload of a publication.
fn payload(publish: &Publish) -> std::result::Result<Bytes, ApiError> {
    given(publish.data.as_deref(), &publish.b64data, "data")?
        .ok_or_else(|| bad("data or b64data is missing"))
}

async fn publish_to(
    front: &Front,
    channel: &str,
    publish: &Publish,
    data: Option<Bytes>,
) -> std::result::Result<Published, ApiError> {
    let options = options(front, channel)?;
    if options.map.is_some() {
        return Err(bad("the channel is a map: map_publish publishes to it, with a key"));
    }
    if options.poll.is_some() {
        return Err(ApiError::new(
            ErrorCode::NOT_AVAILABLE,
            format!(
                "{channel}: nobody is subscribed to publications there: its subscription_type is \
                 shared_poll, whose keys are published with shared_poll_publish"
            ),
        ));
    }
    let data = match data {
        Some(data) => data,
        None => payload(publish)?,
    };
    let format = options.publication_data_format;
    if format != DataFormat::NotEmpty {
        format.check(&data).map_err(bad)?;
    }
    let drawn = draw(front, data.len()).await?;
    let request = Request::Publish(HubPublish {
        channel: ChannelName::from(channel),
        data,
        info: None,
        tags: publish.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        draw: Some(Arc::new(drawn)),
        skip_history: publish.skip_history,
        delta: publish.delta || options.delta_publish,
        idempotency_key: (!publish.idempotency_key.is_empty())
            .then(|| publish.idempotency_key.as_str().into()),
        version: publish.version,
        version_epoch: publish.version_epoch.as_str().into(),
        retention: retention(&options),
    });
    front.common.published.fetch_add(1, Ordering::Relaxed);
    match ask(front, request).await? {
        Answer::Published(result) => result.map_err(hub),
        other => Err(unexpected(&other)),
    }
}

/// Invariant BOUNDED: a publication draws its bytes before it enters its channel.
pub(super) async fn draw(
    front: &Front,
    bytes: usize,
) -> std::result::Result<crate::allowance::Drawn, ApiError> {
    let allowance = &front.common.allowance;
    if let Some(drawn) = allowance.draw(bytes) {
        return Ok(drawn);
    }
    let patience = front.settings().limits.publish_timeout;
    tokio::time::timeout(patience, allowance.draw_later(bytes)).await.map_err(|_| {
        ApiError::new(
            ErrorCode::TOO_MANY_REQUESTS,
            "what waits for slow clients fills limits.buffer_bytes, and none of it left within \
             limits.publish_timeout",
        )
    })
}

async fn shared_poll_publish(front: &Front, call: SharedPollPublish) -> Result {
    let SharedPollPublish { channel, key, data, b64data, version, epoch } = call;
    let options = options(front, &channel)?;
    let Some(poll) = &options.poll else {
        let because = format!("{channel}: its subscription_type is not shared_poll");
        return Err(bad(because));
    };
    if !watch::is_key(&key) {
        return Err(bad(format!("key: 1 to {KEY_BYTES_MAX} bytes, and no zero among them")));
    }
    if version == 0 {
        return Err(bad("version: 1 or more, from the same numbers as the poll's"));
    }
    if !poll.publish_enabled {
        let because = format!("{channel}: shared_poll.publish_enabled is off");
        return Err(ApiError::new(ErrorCode::NOT_AVAILABLE, because));
    }
    let data = given(data.as_deref(), &b64data, "data")?;
    let data = data.ok_or_else(|| bad("data or b64data is missing"))?;
    // Held until it is in the mailboxes, where each draws its own.
    let _drawn = draw(front, data.len()).await?;
    polls::publish(&front.common, &channel.into(), (&key, version, data), &epoch);
    Ok(b"{}".to_vec())
}

fn position(published: Published) -> Vec<u8> {
    match published.position {
        Some(position) if position.offset > 0 => {
            format!("{{\"offset\":{},\"epoch\":\"{}\"}}", position.offset, position.epoch.as_str())
        }
        Some(position) => format!("{{\"epoch\":\"{}\"}}", position.epoch.as_str()),
        None => "{}".to_owned(),
    }
    .into_bytes()
}

/// Asks the node and waits for its answer.
pub(super) async fn ask(front: &Front, request: Request) -> std::result::Result<Answer, ApiError> {
    let desk = &front.common.desk;
    let (to, answer) = desk.ask();
    front.common.node.call(request, to, front.clock.now());
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => {
            desk.forget(to);
            Err(ApiError::new(ErrorCode::INTERNAL, "the node did not answer in time"))
        }
    }
}

pub(super) fn hub(error: HubError) -> ApiError {
    let because = match error {
        HubError::MapFull(full) => full.to_string(),
        error => format!("{error:?}"),
    };
    ApiError::new(error_code(error), because)
}

pub(super) fn unexpected(answer: &Answer) -> ApiError {
    ApiError::new(
        ErrorCode::INTERNAL,
        format!("the node gave another answer than was asked for: {answer:?}"),
    )
}

/// Who the publication of these parameters reached, for callers who ask.
pub(super) async fn put_audience_of(front: &Front, params: &RawValue, out: &mut Vec<u8>) {
    if let Ok(Channel { channel }) = parse(params) {
        put_audience(front, &channel, out).await;
    }
}

/// Who is in a channel, as a member of the object that `out` is in the middle of.
async fn put_audience(front: &Front, channel: &str, out: &mut Vec<u8>) {
    let channel = ChannelName::from(channel);
    let asked = ask(front, Request::Audience { channel: ChannelName::clone(&channel) }).await;
    // The publication is made; that nobody can say whom it reached does not change its answer.
    let Ok(Answer::Audience(Audience { subscribers, near })) = asked else { return };
    let users = users(front, Some(channel)).await.unwrap_or_default();
    let near: Vec<_> = near
        .iter()
        .map(|(channel, subscribers)| json!({"channel": &**channel, "subscribers": subscribers}))
        .collect();
    let audience = json!({"subscribers": subscribers, "users": users, "near": near});
    out.extend_from_slice(format!(",\"audience\":{audience}").as_bytes());
}

/// How many users are in a channel, or on this node.
async fn users(
    front: &Front,
    channel: Option<ChannelName>,
) -> std::result::Result<usize, ApiError> {
    let parts = ask_shards(front, |ask| Mail::Census { channel: channel.clone(), ask }).await?;
    let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
    for part in parts {
        if let Part::Users(users) = part {
            names.extend(users);
        }
    }
    Ok(names.len())
}

/// Sends mail to every shard and waits until all have answered.
async fn ask_shards(
    front: &Front,
    mail: impl Fn(u64) -> Mail,
) -> std::result::Result<Vec<Part>, ApiError> {
    let shards = &front.common.shards;
    let (ask, parts) = front.common.desk.collect(shards.len());
    for shard in shards {
        shard.post(Post::Mail(mail(ask)));
    }
    match tokio::time::timeout(PATIENCE, parts).await {
        Ok(Ok(parts)) => Ok(parts),
        _ => Err(ApiError::new(ErrorCode::INTERNAL, "a shard did not answer in time")),
    }
}

/// Sends an order to a user's connections and waits until it is carried out.
async fn order(front: &Front, target: Target, order: Order) -> Result {
    let (target, order) = (Arc::new(target), Arc::new(order));
    ask_shards(front, |ask| Mail::Order {
        target: Arc::clone(&target),
        order: Arc::clone(&order),
        ask,
    })
    .await?;
    Ok(b"{}".to_vec())
}

/// Whom a call is for. An id that is none is nobody's.
fn target(user: &str, client: &str, session: &str) -> Target {
    let id = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap_or(Uuid::nil()));
    let (client, session) = (id(client), id(session));
    Target { user: user.into(), client, session, ..Target::default() }
}

/// A payload in one of its two forms; where there are both, base64 is the one that counts.
pub(super) fn given(
    json: Option<&RawValue>,
    base64: &str,
    field: &str,
) -> std::result::Result<Option<Bytes>, ApiError> {
    if base64.is_empty() {
        return Ok(json.map(|json| Bytes::copy_from_slice(json.get().as_bytes())));
    }
    let bytes = STANDARD.decode(base64).map_err(|error| bad(format!("b64{field}: {error}")))?;
    Ok(Some(payload::sealed(&bytes).into_owned().into()))
}

async fn subscribe(front: &Front, call: Subscribe) -> Result {
    let options = options(front, &call.channel)?;
    if options.map.is_some() {
        return Err(bad("the channel is a map, to which clients subscribe by themselves"));
    }
    if options.poll.is_some() {
        let because = "its subscription_type is shared_poll, to which clients subscribe themselves";
        return Err(bad(format!("{}: {because}", call.channel)));
    }
    let grant = Grant {
        info: given(call.info.as_deref(), &call.b64info, "info")?,
        data: given(call.data.as_deref(), &call.b64data, "data")?,
        overrides: call.overrides.0,
    };
    let what = Order::Subscribe {
        channel: call.channel.as_str().into(),
        grant,
        expire_at: (call.expire_at > 0).then_some(call.expire_at),
        recover_since: call
            .recover_since
            .map(|Keyed(since)| (since.epoch.into_boxed_str(), since.offset)),
    };
    order(front, target(&call.user, &call.client, &call.session), what).await
}

async fn unsubscribe(front: &Front, call: Unsubscribe) -> Result {
    if !call.channel.is_empty() {
        options(front, &call.channel)?;
    }
    let what = Order::Unsubscribe { channel: call.channel.as_str().into() };
    order(front, target(&call.user, &call.client, &call.session), what).await
}

async fn disconnect(front: &Front, call: Disconnect) -> Result {
    let why = match call.disconnect.map(|Keyed(code)| code) {
        None => Why::FORCE_DISCONNECT,
        Some(code) if (3000..=4999).contains(&code.code) => Why::custom(code.code, &code.reason),
        Some(code) => {
            return Err(bad(format!("disconnect.code is {}, and must be 3000 to 4999", code.code)));
        }
    };
    let mut target = target(&call.user, &call.client, &call.session);
    target.spared = call.whitelist.iter().filter_map(|id| id.parse().ok()).collect();
    front.common.switchboard.forget(&call.user);
    order(front, target, Order::Disconnect(why)).await
}

async fn refresh(front: &Front, call: Refresh) -> Result {
    if call.expired {
        front.common.switchboard.forget(&call.user);
    }
    let what = Order::Refresh {
        expired: call.expired,
        expire_at: (call.expire_at > 0).then_some(call.expire_at),
        info: given(call.info.as_deref(), "", "info")?,
    };
    order(front, target(&call.user, &call.client, &call.session), what).await
}

/// A channel whose presence may be asked for.
fn with_presence(front: &Front, channel: &str) -> std::result::Result<ChannelName, ApiError> {
    if options(front, channel)?.presence {
        return Ok(channel.into());
    }
    Err(ApiError::new(ErrorCode::NOT_AVAILABLE, format!("{channel}: presence is off")))
}

async fn presence(front: &Front, call: Channel, binary: Binary) -> Result {
    let channel = with_presence(front, &call.channel)?;
    match ask(front, Request::Presence { channel }).await? {
        Answer::Presence(Ok(list)) => {
            let presence: std::collections::BTreeMap<String, Info<'_>> =
                list.iter().map(|info| (info.client.to_string(), Info::of(info, binary))).collect();
            encode(&json_object("presence", &presence))
        }
        Answer::Presence(Err(error)) => Err(hub(error)),
        other => Err(unexpected(&other)),
    }
}

fn json_object<T: serde::Serialize>(key: &'static str, value: T) -> impl serde::Serialize {
    std::collections::BTreeMap::from([(key, value)])
}

fn encode(value: &impl serde::Serialize) -> Result {
    serde_json::to_vec(value)
        .map_err(|error| ApiError::new(ErrorCode::INTERNAL, format!("the answer: {error}")))
}

async fn presence_stats(front: &Front, call: Channel) -> Result {
    let channel = with_presence(front, &call.channel)?;
    match ask(front, Request::PresenceStats { channel }).await? {
        Answer::PresenceStats(Ok(stats)) => {
            encode(&json!({"num_clients": stats.clients, "num_users": stats.users}))
        }
        Answer::PresenceStats(Err(error)) => Err(hub(error)),
        other => Err(unexpected(&other)),
    }
}

#[derive(serde::Serialize)]
struct HistoryAnswer<'a> {
    publications: Vec<Kept<'a>>,
    epoch: &'a str,
    offset: u64,
}

#[derive(serde::Serialize)]
struct Kept<'a> {
    data: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    tags: std::collections::BTreeMap<&'a str, &'a str>,
}

async fn history(front: &Front, call: History, binary: Binary) -> Result {
    let retention = with_history(front, &call.channel)?;
    let since = call
        .since
        .map(|Keyed(since)| Since { offset: since.offset, epoch: since.epoch.into_boxed_str() });
    let query = HistoryQuery {
        limit: usize::try_from(call.limit).ok(),
        since,
        reverse: call.reverse,
        bytes_max: HISTORY_BYTES_MAX,
    };
    let channel = ChannelName::from(call.channel);
    match ask(front, Request::History { channel, query, retention }).await? {
        Answer::History(Ok(page)) => {
            let publications = page.publications.iter().map(|each| {
                let (data, b64data) = binary.apart(Payload::of(&each.data));
                let tags = each.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                let info = each.info.as_deref().map(|info| Info::of(info, binary));
                Kept { data, b64data, info, offset: each.offset, tags: tags.collect() }
            });
            encode(&HistoryAnswer {
                publications: publications.collect(),
                epoch: page.position.epoch.as_str(),
                offset: page.position.offset,
            })
        }
        // A reverse read without a place to start is the caller's error, but Centrifugo's API
        // answers it with 100, and backends look for that.
        Answer::History(Err(HubError::BadSince)) => {
            Err(ApiError::new(ErrorCode::INTERNAL, "since.offset is 0 in a reverse read"))
        }
        Answer::History(Err(error)) => Err(hub(error)),
        other => Err(unexpected(&other)),
    }
}

/// What a channel keeps, if it keeps anything.
fn with_history(
    front: &Front,
    channel: &str,
) -> std::result::Result<throng_hub::request::Retention, ApiError> {
    let options = options(front, channel)?;
    let retention = retention(&options);
    if retention.keeps() {
        return Ok(retention);
    }
    Err(ApiError::new(
        ErrorCode::NOT_AVAILABLE,
        format!("{channel}: history_size or history_ttl is zero"),
    ))
}

async fn history_remove(front: &Front, call: Channel) -> Result {
    with_history(front, &call.channel)?;
    match ask(front, Request::RemoveHistory { channel: call.channel.into() }).await? {
        Answer::HistoryRemoved(Ok(())) => Ok(b"{}".to_vec()),
        Answer::HistoryRemoved(Err(error)) => Err(hub(error)),
        other => Err(unexpected(&other)),
    }
}

async fn channels(front: &Front, call: Channels) -> Result {
    let pattern = (!call.pattern.is_empty()).then(|| call.pattern.into_boxed_str());
    match ask(front, Request::Channels { pattern }).await? {
        Answer::Channels(list) => {
            let channels: std::collections::BTreeMap<&str, _> =
                list.iter().map(|(name, count)| (&**name, json!({"num_clients": count}))).collect();
            encode(&json_object("channels", channels))
        }
        other => Err(unexpected(&other)),
    }
}

async fn info(front: &Front) -> Result {
    let counts = front.common.node.counts();
    let pid = std::process::id();
    let cpu = throng_limits::facts::cpu_time(pid).map_or(0.0, |time| time.as_secs_f64());
    let rss = throng_limits::facts::memory(pid).map_or(0, |memory| memory.resident);
    let node = json!({
        "uid": front.common.uid(),
        "name": node_name(front),
        "version": crate::version::said(),
        "num_clients": front.common.clients.load(Ordering::Relaxed),
        "num_users": users(front, None).await?,
        "num_subs": counts.subscriptions,
        "num_channels": counts.channels,
        "uptime": front.clock.now().mono_ms / 1000,
        "process": {"cpu": cpu, "rss": rss},
    });
    encode(&json!({"nodes": [node]}))
}

/// The node's name; without one, the machine's and the port.
fn node_name(front: &Front) -> String {
    let settings = front.settings();
    if !settings.node_name.is_empty() {
        return settings.node_name.clone();
    }
    let machine = rustix::system::uname();
    format!("{}_{}", machine.nodename().to_string_lossy(), settings.http.port)
}

async fn batch(front: &Front, params: &RawValue, binary: Binary) -> Result {
    let batch: Batch<'_> = parse(params)?;
    if batch.commands.len() > MANY_MAX {
        return Err(bad(format!(
            "{} commands; a batch has at most {MANY_MAX}",
            batch.commands.len()
        )));
    }
    let mut out = b"{\"replies\":[".to_vec();
    for (index, command) in batch.commands.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let named = command.iter().find(|(_, params)| params.get() != "null");
        let result = match named {
            Some((method, _)) if method == "batch" => Err(bad("a batch in a batch")),
            Some((method, params)) => {
                // A batch is no level deeper than its commands: the recursion ends here.
                Box::pin(run(front, Call { method, params, audience: false, binary }))
                    .await
                    .map(|result| (method, result))
            }
            None => Err(bad("a command names no method")),
        };
        match logged(front, result) {
            Ok((method, result)) => {
                out.extend_from_slice(format!("{{\"{method}\":").as_bytes());
                out.extend_from_slice(&result);
                out.push(b'}');
            }
            Err(error) => {
                out.extend_from_slice(format!("{{\"error\":{}}}", error.body()).as_bytes())
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}
