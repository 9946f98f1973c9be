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
use super::text::{CONTENT_TYPE, Label, Page, Unit};
use super::{moving, reason};
use crate::clock::Clock;
use crate::config::Names;
use crate::control::Transport;
use crate::desk::Part;
use crate::front::{Answer, Front, api_method, http_method, http_path};
use crate::handoff::pause::Moved;
use crate::polls::{Counted, ITEMS, PUBLICATIONS, TRIGGERS};
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
    Transport::UniGrpc,
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
    page.whole(&[("version", crate::version::version())], 1);
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
    page.single(&f::TAGS_FILTER_DROPPED, sum(common, |meter| meter.withheld.get()));
    page.single(&f::CONNECTION_LIMIT, front.gate.refused.load(Ordering::Relaxed));
    let settings = front.settings();
    page.family(&f::HTTP_REQUESTS);
    put_rare(page, ["path", "method", "status"], (rare, Of::Request), |key| {
        let (method, status) = (key.code / 1000, key.code % 1000);
        let path = http_path(&settings, key.label);
        if key.code == OTHER {
            ["other", "other", "other"].map(str::to_owned)
        } else {
            [path.to_owned(), http_method(method).to_owned(), status.to_string()]
        }
    });
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
    put_rare(page, ["method", "code"], (rare, Of::ReplyError), |key| {
        let method = Frame::ALL.get(usize::from(key.label)).copied().unwrap_or_default();
        [method.name().to_owned(), code(key.code)]
    });
    for (family, of_what) in
        [(&f::SERVER_DISCONNECTS, Of::Disconnect), (&f::SERVER_UNSUBSCRIBES, Of::Unsubscribe)]
    {
        page.family(family);
        put_rare(page, ["code"], (rare, of_what), |key| [code(key.code)]);
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
    put_rare(page, ["transport", "code"], (rare, Of::Close), |key| {
        let transport = ALL_TRANSPORTS.get(usize::from(key.label));
        [transport.map_or("other", |one| one.name()).to_owned(), code(key.code)]
    });
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
    put_rare(page, ["protocol", "method", "error"], (rare, Of::ApiError), |key| {
        ["http".to_owned(), api_method(usize::from(key.label)).to_owned(), code(key.code)]
    });
    // A backend that was not asked for anything of a kind has no numbers of it.
    let mut asked: BTreeMap<(&str, String), (Sum, u64, u64)> = BTreeMap::new();
    common.switchboard.calls(&mut |option, kind, calls| {
        let mut times = Sum::default();
        calls.times.add_to(&mut times);
        let (failed, under_way) = (calls.failed.get(), calls.under_way.get());
        if times.count() + under_way == 0 {
            return;
        }
        let name = option.strip_prefix("proxies.").unwrap_or("default");
        let all = asked.entry((kind.name(), name.to_owned())).or_default();
        calls.times.add_to(&mut all.0);
        all.1 += failed;
        all.2 += under_way;
    });
    fn labels<'l>((kind, name): &'l (&'static str, String)) -> [Label<'l>; 3] {
        [("protocol", "http"), ("type", kind), ("name", name)]
    }
    page.family(&f::PROXY_DURATION);
    for (of, (times, ..)) in &asked {
        page.spread(&labels(of), times, Unit::Micros);
    }
    page.family(&f::PROXY_ERRORS);
    for (of, (_, failed, _)) in &asked {
        page.whole(&labels(of), *failed);
    }
    page.family(&f::PROXY_INFLIGHT);
    for (of, (_, _, under_way)) in &asked {
        page.whole(&labels(of), *under_way);
    }
    put_polls(common, page);
}

fn put_polls(common: &Common, page: &mut Page) {
    let polls = &common.polls;
    let (channels, keys, bytes) = polls.poller().sizes();
    page.single(&f::POLL_CHANNELS, channels as u64);
    page.single(&f::POLL_KEYS, keys as u64);
    page.single(&f::POLL_BYTES, bytes as u64);
    page.single(&f::POLL_TRACKINGS, polls.trackings() as u64);
    let Counted { items, errors, durations, published } = &polls.counted;
    page.family(&f::POLL_DURATION);
    for (trigger, spread) in TRIGGERS.into_iter().zip(durations) {
        let mut times = Sum::default();
        spread.add_to(&mut times);
        page.spread(&[("trigger", trigger)], &times, Unit::Micros);
    }
    let counters = [
        (&f::POLL_ERRORS, "trigger", &TRIGGERS[..], &errors[..]),
        (&f::POLL_ITEMS, "result", &ITEMS[..], &items[..]),
        (&f::POLL_PUBLISHED, "result", &PUBLICATIONS[..], &published[..]),
    ];
    for (family, label, names, cells) in counters {
        page.family(family);
        for (name, cell) in names.iter().zip(cells) {
            page.whole(&[(label, name)], cell.get());
        }
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
        Lane::Bridges => "bridges",
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
    type Read = fn(Slow) -> u64;
    let numbers: [(&f::Family, Read); 3] = [
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

/// Counts of what happened seldom, together where they have the same labels here: another version
/// may have told them apart.
fn put_rare<const N: usize>(
    page: &mut Page,
    labels: [&'static str; N],
    (rare, of): (&BTreeMap<Key, u64>, Of),
    values: impl Fn(&Key) -> [String; N],
) {
    let mut counts: BTreeMap<[String; N], u64> = BTreeMap::new();
    for (key, count) in rare.iter().filter(|(key, _)| key.of == of) {
        *counts.entry(values(key)).or_default() += count;
    }
    for (values, count) in counts {
        let mut at = 0;
        let pairs = labels.map(|label| {
            at += 1;
            (label, values[at - 1].as_str())
        });
        page.whole(&pairs, count);
    }
}

fn code(code: u32) -> String {
    if code == OTHER { "other".to_owned() } else { code.to_string() }
}
