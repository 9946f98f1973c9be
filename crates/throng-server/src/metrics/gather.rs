//! Reads everything that is to be seen when somebody asks, and writes the page.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use throng_limits::Lane;

use super::cells::{Cell, Sum};
use super::family as f;
use super::frame::{Frame, LIBRARIES, METHODS};
use super::meter::{Meter, TRANSPORTS};
use super::process::Kernel;
use super::rare::{Key, OTHER, Of};
use super::text::{CONTENT_TYPE, Page, Unit};
use super::{moving, reason};
use crate::clock::Clock;
use crate::config::Names;
use crate::control::Transport;
use crate::desk::Part;
use crate::front::{Answer, Front, api_method, http_method, http_path};
use crate::handoff::pause::Moved;
use crate::sessions::{Common, Mail};
use crate::shard::Post;

/// What such a request is called between two processes of a restart; no method of the API has a
/// slash in it.
pub(crate) const METHOD: &str = "/metrics";

/// What the shards have to answer; those that are stuck are told of on the page itself.
const PATIENCE: Duration = Duration::from_millis(500);
/// Shards are asked again only when the last answers are older than a millisecond for so many
/// clients: what they have to go through grows with the crowd, so that whoever asks without end does
/// not keep them busy with it.
const CLIENTS_PER_MS: u64 = 10;

const ALL_TRANSPORTS: [Transport; TRANSPORTS] = [
    Transport::Websocket,
    Transport::UniWebsocket,
    Transport::Sse,
    Transport::UniSse,
    Transport::HttpStream,
    Transport::UniHttpStream,
];

/// What shards have to look for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    at_ms: Option<u64>,
    users: Option<u64>,
    slow: Option<Slow>,
}

/// Clients for which something waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) clients: u64,
    pub(crate) bytes: u64,
    pub(crate) largest: u64,
}

/// Answers a request for the page.
pub(crate) async fn answer(front: &Front, method: &Method) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        let mut answer =
            crate::front::text(StatusCode::METHOD_NOT_ALLOWED, "metrics are asked for with GET\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    // Who asks over a connection from before a restart asks the process that serves now.
    if let Some(Err(Moved(outlet))) = front.common.pause.try_enter() {
        let reply = outlet.call(METHOD, Default::default(), b"").await.ok();
        return told_by_another(reply);
    }
    page_of(front).await
}

/// The same, of a request that came to the process before this one.
pub(crate) async fn passed(front: &Front) -> Answer {
    page_of(front).await
}

fn told_by_another(reply: Option<(u16, Vec<u8>)>) -> Answer {
    let mut answer = match reply {
        Some((200, page)) => in_words(page),
        _ => crate::front::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server was restarted; ask again over a new connection\n",
        ),
    };
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

async fn page_of(front: &Front) -> Answer {
    let names = front.settings().prometheus.names;
    in_words(page(front, names).await.into_bytes())
}

fn in_words(page: Vec<u8>) -> Answer {
    let mut answer = Answer::new(Full::new(page.into()));
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// The whole page.
pub(super) async fn page(front: &Front, names: Names) -> String {
    let seen = seen(front).await;
    let kernel = kernel(front).await;
    let common = &*front.common;
    let mut page = Page::new(names);
    let mut rare = BTreeMap::new();
    common.meters.all().for_each(|meter| meter.rare.add_to(&mut rare));
    common.meters.front.rare.add_to(&mut rare);
    let page_mut = &mut page;
    put_node(front, &seen, &rare, page_mut);
    put_clients(common, &rare, page_mut);
    put_transports(common, &rare, page_mut);
    put_calls(common, &rare, page_mut);
    put_room(front, &kernel, page_mut);
    put_waiting(common, &seen, page_mut);
    put_shards(front, page_mut);
    put_process(&kernel, page_mut);
    page.end()
}

/// What the shards see; what they do not tell in time is none.
async fn seen(front: &Front) -> Seen {
    let now_ms = front.clock.now().mono_ms;
    let mut seen = front.common.meters.seen.lock().await;
    let is_new = |at_ms: u64| now_ms < at_ms.saturating_add(front.clients.open() / CLIENTS_PER_MS);
    if seen.at_ms.is_some_and(is_new) {
        return *seen;
    }
    let users =
        tokio::time::timeout(PATIENCE, ask(front, |ask| Mail::Census { channel: None, ask }));
    let slow = tokio::time::timeout(PATIENCE, ask(front, |ask| Mail::Weigh { ask }));
    let (users, slow) = tokio::join!(users, slow);
    let users = users.ok().flatten().map(|parts| {
        let mut names: HashSet<Arc<str>> = HashSet::new();
        for part in parts {
            if let Part::Users(users) = part {
                names.extend(users);
            }
        }
        names.len() as u64
    });
    let slow = slow.ok().flatten().map(|parts| {
        let mut all = Slow::default();
        for part in parts {
            if let Part::Weighed(Slow { clients, bytes, largest }) = part {
                all.clients += clients;
                all.bytes += bytes;
                all.largest = all.largest.max(largest);
            }
        }
        all
    });
    *seen = Seen { at_ms: Some(front.clock.now().mono_ms), users, slow };
    *seen
}

async fn ask(front: &Front, mail: impl Fn(u64) -> Mail) -> Option<Vec<Part>> {
    let common = &front.common;
    let _pass = common.pause.enter().await.ok()?;
    let (ask, parts) = common.desk.collect(common.shards.len());
    let _given_up = GiveUp { common, ask };
    for shard in &common.shards {
        shard.post(Post::Mail(mail(ask)));
    }
    parts.await.ok()
}

/// Nobody waits any more, however it ended.
struct GiveUp<'a> {
    common: &'a Common,
    ask: u64,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.common.desk.give_up(self.ask);
    }
}

/// What the kernel says, unless there is no descriptor to ask with.
async fn kernel(front: &Front) -> Kernel {
    let Some(paid) = front.clients.try_take(Lane::Files) else { return Kernel::default() };
    let doors = front.doors.get().cloned().unwrap_or_default();
    let unix_ms = front.clock.now().unix_ms;
    let read = tokio::task::spawn_blocking(move || Kernel::read(&paid, &doors, unix_ms));
    read.await.unwrap_or_default()
}

fn put_node(front: &Front, seen: &Seen, rare: &BTreeMap<Key, u64>, page: &mut Page) {
    let common = &*front.common;
    let counts = common.node.counts();
    page.single(&f::NUM_CLIENTS, common.clients.load(Ordering::Relaxed) as u64);
    page.family(&f::NUM_USERS);
    if let Some(users) = seen.users {
        page.whole(&[], users);
    }
    page.single(&f::NUM_SUBSCRIPTIONS, counts.subscriptions as u64);
    page.single(&f::NUM_CHANNELS, counts.channels as u64);
    page.single(&f::NUM_NODES, 1);
    page.family(&f::BUILD);
    page.whole(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let done = moving::done(common);
    for (family, items) in [(&f::MESSAGES_SENT, done.sent), (&f::MESSAGES_RECEIVED, done.received)]
    {
        page.family(family);
        page.whole(&[("type", "publication")], items.publications);
        page.whole(&[("type", "join")], items.joins);
        page.whole(&[("type", "leave")], items.leaves);
    }
    let accepted = sum(common, |meter| meter.accepted.iter().flatten().map(Cell::get).sum());
    page.family(&f::ACTIONS);
    for (action, count) in [
        ("add_client", accepted),
        ("remove_client", sum(common, |meter| meter.left.get())),
        ("add_subscription", done.subscribed),
        ("remove_subscription", done.unsubscribed),
        ("add_presence", done.presence_added),
        ("remove_presence", done.presence_removed),
        ("presence", done.presence),
        ("presence_stats", done.presence_stats),
        ("history", done.history),
        ("history_recover", done.recoveries),
        ("history_remove", done.history_removed),
    ] {
        page.whole(&[("action", action)], count);
    }
    let mut fan_out = Sum::default();
    common.meters.all().for_each(|meter| meter.fan_out.add_to(&mut fan_out));
    page.family(&f::BROADCAST);
    page.spread(&[("type", "publication")], &fan_out, Unit::Micros);
    page.single(&f::CONNECTION_LIMIT, front.gate.refused.load(Ordering::Relaxed));
    page.family(&f::HTTP_REQUESTS);
    for (key, count) in of(rare, Of::Request) {
        let (method, status) = (key.code / 1000, key.code % 1000);
        let labels = if key.code == OTHER {
            [("path", "other"), ("method", "other"), ("status", "other")]
        } else {
            let path = http_path(front.settings(), key.label);
            [("path", path), ("method", http_method(method)), ("status", &status.to_string())]
        };
        page.whole(&labels, count);
    }
}

fn put_clients(common: &Common, rare: &BTreeMap<Key, u64>, page: &mut Page) {
    page.family(&f::CONNECTIONS_ACCEPTED);
    for transport in ALL_TRANSPORTS {
        for (at, library) in LIBRARIES.iter().enumerate() {
            let count = sum(common, |meter| meter.accepted[transport as usize][at].get());
            if count > 0 {
                let labels = [("transport", transport.name()), ("client_name", library)];
                page.whole(&labels, count);
            }
        }
    }
    page.family(&f::CONNECTIONS_INFLIGHT);
    for transport in ALL_TRANSPORTS {
        let clients = sum(common, |meter| meter.clients[transport as usize].get());
        page.whole(&[("transport", transport.name())], clients);
    }
    page.single(&f::SUBSCRIPTIONS_ACCEPTED, sum(common, |meter| meter.subscribed.get()));
    page.single(&f::SUBSCRIPTIONS_INFLIGHT, common.node.counts().subscriptions as u64);
    page.family(&f::COMMAND_DURATION);
    for frame in Frame::ALL.into_iter().take(METHODS) {
        let mut times = Sum::default();
        common.meters.all().for_each(|meter| meter.commands[frame as usize].add_to(&mut times));
        if times.count() > 0 {
            page.spread(&[("method", frame.name())], &times, Unit::Micros);
        }
    }
    page.family(&f::REPLY_ERRORS);
    for (key, count) in of(rare, Of::ReplyError) {
        let method = Frame::ALL.get(usize::from(key.label)).copied().unwrap_or_default();
        page.whole(&[("method", method.name()), ("code", &code(key.code))], count);
    }
    for (family, of_what) in
        [(&f::SERVER_DISCONNECTS, Of::Disconnect), (&f::SERVER_UNSUBSCRIBES, Of::Unsubscribe)]
    {
        page.family(family);
        for (key, count) in of(rare, of_what) {
            page.whole(&[("code", &code(key.code))], count);
        }
    }
    page.family(&f::RECOVER);
    for (is_recovered, by_publications) in ["no", "yes"].into_iter().enumerate() {
        for (some, has_some) in ["no", "yes"].into_iter().enumerate() {
            let count = sum(common, |meter| meter.recoveries[is_recovered][some].get());
            let labels = [("recovered", by_publications), ("has_recovered_publications", has_some)];
            page.whole(&labels, count);
        }
    }
    let mut recovered = Sum::default();
    common.meters.all().for_each(|meter| meter.recovered.add_to(&mut recovered));
    page.family(&f::RECOVERED_PUBLICATIONS);
    page.spread(&[], &recovered, Unit::Count);
    page.family(&f::PING_PONG);
    for transport in ALL_TRANSPORTS {
        let mut times = Sum::default();
        common.meters.all().for_each(|meter| meter.pings[transport as usize].add_to(&mut times));
        if times.count() > 0 {
            page.spread(&[("transport", transport.name())], &times, Unit::Micros);
        }
    }
}

fn put_transports(common: &Common, rare: &BTreeMap<Key, u64>, page: &mut Page) {
    type Read = fn(&Meter, usize, usize) -> u64;
    let families: [(&f::Family, Read); 4] = [
        (&f::TRANSPORT_SENT, |meter, at, frame| meter.sent[at][frame].messages.get()),
        (&f::TRANSPORT_SENT_SIZE, |meter, at, frame| meter.sent[at][frame].bytes.get()),
        (&f::TRANSPORT_RECEIVED, |meter, at, frame| meter.received[at][frame].messages.get()),
        (&f::TRANSPORT_RECEIVED_SIZE, |meter, at, frame| meter.received[at][frame].bytes.get()),
    ];
    for (family, read) in families {
        page.family(family);
        for transport in ALL_TRANSPORTS {
            for frame in Frame::ALL {
                let count = sum(common, |meter| read(meter, transport as usize, frame as usize));
                if count > 0 {
                    let labels = [("transport", transport.name()), ("frame_type", frame.name())];
                    page.whole(&labels, count);
                }
            }
        }
    }
    page.family(&f::OUTGOING_CLOSE);
    for (key, count) in of(rare, Of::Close) {
        let transport =
            ALL_TRANSPORTS.get(usize::from(key.label)).map_or("other", |one| one.name());
        page.whole(&[("transport", transport), ("code", &code(key.code))], count);
    }
}

fn put_calls(common: &Common, rare: &BTreeMap<Key, u64>, page: &mut Page) {
    page.family(&f::API_DURATION);
    for (at, spread) in common.meters.front.api.iter().enumerate() {
        let mut times = Sum::default();
        spread.add_to(&mut times);
        if times.count() > 0 {
            let labels = [("protocol", "http"), ("method", api_method(at))];
            page.spread(&labels, &times, Unit::Micros);
        }
    }
    page.family(&f::API_ERRORS);
    for (key, count) in of(rare, Of::ApiError) {
        let method = api_method(usize::from(key.label));
        let labels = [("protocol", "http"), ("method", method), ("error", &code(key.code))];
        page.whole(&labels, count);
    }
    // A backend that was not asked for anything of a kind has no numbers of it.
    let asked: Vec<_> = common
        .switchboard
        .calls()
        .map(|(option, kind, calls)| {
            let mut times = Sum::default();
            calls.times.add_to(&mut times);
            let name = option.strip_prefix("proxies.").unwrap_or("default");
            let labels = [("protocol", "http"), ("type", kind.name()), ("name", name)];
            (labels, times, calls.failed.get(), calls.under_way.get())
        })
        .filter(|(_, times, failed, under_way)| times.count() + failed + under_way > 0)
        .collect();
    page.family(&f::PROXY_DURATION);
    for (labels, times, ..) in &asked {
        page.spread(labels, times, Unit::Micros);
    }
    page.family(&f::PROXY_ERRORS);
    for (labels, _, failed, _) in &asked {
        page.whole(labels, *failed);
    }
    page.family(&f::PROXY_INFLIGHT);
    for (labels, _, _, under_way) in &asked {
        page.whole(labels, *under_way);
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Clients => "clients",
        Lane::Front => "front",
        Lane::Upstream => "upstream",
        Lane::Files => "files",
        Lane::Refusing => "refusing",
        Lane::Restart => "restart",
    }
}

/// How many more clients fit.
pub(crate) fn free(front: &Front) -> u64 {
    let limit = front.settings().client.connection_limit as u64;
    let most = front.clients.ceiling();
    let most = if limit > 0 { most.min(limit) } else { most };
    most.saturating_sub(front.clients.open())
}

fn put_room(front: &Front, kernel: &Kernel, page: &mut Page) {
    let (budget, meters) = (&front.clients, &front.common.meters);
    page.single(&f::CLIENTS_MAX, free(front) + budget.open());
    page.single(&f::BUDGET, budget.total());
    page.family(&f::BUDGET_USED);
    for lane in Lane::ALL {
        page.whole(&[("lane", lane_name(lane))], budget.used(lane));
    }
    page.family(&f::BUDGET_GUARANTEED);
    let guaranteed = budget.guaranteed();
    for lane in Lane::ALL {
        page.whole(&[("lane", lane_name(lane))], guaranteed.part(lane));
    }
    page.family(&f::FULL_IN);
    page.real(&[], meters.full_in_s(free(front)).unwrap_or(f64::INFINITY));
    page.family(&f::REFUSED);
    let mut refused: BTreeMap<&str, u64> = reason::labels().map(|label| (label, 0)).collect();
    for (words, often) in front.common.ring.refused_by_reason(front.clock.now()) {
        *refused.entry(reason::label(&words)).or_default() += often.total;
    }
    for (label, count) in refused {
        page.whole(&[("reason", label)], count);
    }
    page.single(&f::RESET, front.gate.reset.load(Ordering::Relaxed));
    page.family(&f::ACCEPT_QUEUE);
    for (listener, waiting, _) in &kernel.queues {
        page.whole(&[("listener", listener)], *waiting);
    }
    page.family(&f::ACCEPT_QUEUE_MAX);
    for (listener, _, most) in &kernel.queues {
        page.whole(&[("listener", listener)], *most);
    }
    page.family(&f::LISTEN_OVERFLOWS);
    if let Some(overflows) = kernel.overflows {
        page.whole(&[], overflows);
    }
}

fn put_waiting(common: &Common, seen: &Seen, page: &mut Page) {
    let numbers: [(&f::Family, fn(Slow) -> u64); 3] = [
        (&f::OUTBOXES, |slow| slow.clients),
        (&f::OUTBOX_BYTES, |slow| slow.bytes),
        (&f::OUTBOX_LARGEST, |slow| slow.largest),
    ];
    for (family, read) in numbers {
        page.family(family);
        if let Some(slow) = seen.slow {
            page.whole(&[], read(slow));
        }
    }
    page.single(&f::BUFFER_BYTES, common.allowance.used() as u64);
    page.single(&f::BUFFER_MAX, common.allowance.limit() as u64);
}

fn put_shards(front: &Front, page: &mut Page) {
    let common = &*front.common;
    let second = u64::from(Clock::second_of(front.clock.now()));
    page.family(&f::SHARD_SILENCE);
    for (number, shard) in common.shards.iter().enumerate() {
        let silence = second.saturating_sub(shard.last_beat());
        page.whole(&[("shard", &number.to_string())], silence);
    }
    page.family(&f::SHARD_CLIENTS);
    for (number, meter) in common.meters.shards.iter().enumerate() {
        let clients = meter.clients.iter().map(Cell::get).sum();
        page.whole(&[("shard", &number.to_string())], clients);
    }
    page.single(&f::PANICS, sum(common, |meter| meter.panics.get()));
    page.single(&f::RESETS, sum(common, |meter| meter.resets.get()));
    page.single(&f::LATE_ANSWERS, sum(common, |meter| meter.late_answers.get()));
    page.single(&f::LOG_DROPPED, moving::lines_lost(common));
    page.single(&f::RESTARTS, common.meters.restarts.get());
    page.family(&f::FROZEN);
    page.real(&[], Duration::from_millis(common.meters.frozen_ms.get()).as_secs_f64());
}

fn put_process(kernel: &Kernel, page: &mut Page) {
    let numbers = [
        (&f::CPU, kernel.cpu.map(|cpu| cpu.as_secs_f64())),
        (&f::RESIDENT, kernel.resident.map(real)),
        (&f::OPEN_FDS, kernel.open.map(real)),
        (&f::MAX_FDS, kernel.max.map(real)),
        (&f::START_TIME, kernel.started_s),
    ];
    for (family, number) in numbers {
        page.family(family);
        if let Some(number) = number {
            page.real(&[], number);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of bytes is exact up to 9 PB")]
fn real(number: u64) -> f64 {
    number as f64
}

fn sum(common: &Common, of: impl Fn(&Meter) -> u64) -> u64 {
    common.meters.all().map(of).sum()
}

fn of(rare: &BTreeMap<Key, u64>, of: Of) -> impl Iterator<Item = (&Key, u64)> {
    rare.iter().filter(move |(key, _)| key.of == of).map(|(key, count)| (key, *count))
}

fn code(code: u32) -> String {
    if code == OTHER { "other".to_owned() } else { code.to_string() }
}
