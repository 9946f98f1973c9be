//! The answering side, in the server.

use std::collections::VecDeque;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use throng_limits::Lane;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::answer::{
    Backend, BackendFailure, Cache, Clients, Closed, Closes, Left, Published, Question, Search,
    Shard, Slow, Status, Tokens, Turned, TurnedAway, Who,
};
use super::place;
use crate::backend::Metered;
use crate::clock::Clock;
use crate::codes;
use crate::desk::Part;
use crate::front::{Front, health};
use crate::log::line;
use crate::notary::Counted;
use crate::reload;
use crate::restart::Wish as RestartWish;
use crate::restart::orders::{Order, Orders, STEPS_MAX};
use crate::ring::{Close, Refused};
use crate::sessions::{Mail, Seen, Wish};
use crate::shard::Post;

/// Those who may ask at once.
const ASKERS_MAX: usize = 8;
/// A question longer than this is none.
const QUESTION_BYTES_MAX: u64 = 4096;
/// A conversation takes no longer, whoever is slow.
const DEADLINE: Duration = Duration::from_secs(5);
/// What the shards have to answer; one that is stuck is told of in the status itself.
const SHARD_PATIENCE: Duration = Duration::from_secs(2);
/// Clients, closes and refusals of one answer.
const LIMIT_MAX: usize = 1000;
/// The slowest clients that a status names.
const WORST: usize = 5;
/// Seconds over which publishing is averaged.
const RATE_SECONDS: usize = 10;

/// How often a socket is tried again that could not be had: a disk that is full has room one day.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The open socket; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    /// Where it is, once it is.
    path: Arc<Mutex<Option<PathBuf>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Control {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // A file that is left is swept by the next start.
        self.path.lock().take().map(fs::remove_file);
    }
}

/// Opens the control socket. Without one the server serves all the same, and tries again.
pub(crate) fn open(front: &Arc<Front>, orders: Orders) -> Control {
    let first = bind();
    let path = Arc::new(Mutex::new(first.as_ref().ok().map(|(path, _)| path.clone())));
    let rate = Arc::<Rate>::default();
    let (own, there, sampled) = (Arc::clone(front), Arc::clone(&path), Arc::clone(&rate));
    let listen = async move {
        let listener = match first {
            Ok((_, listener)) => listener,
            Err(why) => until_bound(&own, &there, why).await,
        };
        accept(own, rate, orders, listener).await;
    };
    let tasks = [tokio::spawn(listen), tokio::spawn(sample(Arc::clone(front), sampled))];
    Control { path, tasks }
}

async fn until_bound(front: &Front, path: &Mutex<Option<PathBuf>>, why: String) -> UnixListener {
    line!(
        front.common.log,
        Warn,
        "control",
        "there is no control socket, so throng status, who and restart do not find this server; \
         it is tried again: {}",
        why
    );
    loop {
        tokio::time::sleep(TRY_EVERY).await;
        if let Ok((at, listener)) = bind() {
            line!(front.common.log, Info, "control", "there is a control socket now");
            *path.lock() = Some(at);
            return listener;
        }
    }
}

fn bind() -> Result<(PathBuf, UnixListener), String> {
    let directory = place::own_directory()?;
    place::sweep(&directory);
    let path = directory.join(format!("{}.sock", std::process::id()));
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() {
        return Err(format!("{}: another server of this process listens there", path.display()));
    }
    // It has its mode before it has its name.
    let nameless = directory.join(format!(".{}.new", std::process::id()));
    fs::remove_file(&nameless).ok(); // left by a process of this number that was killed
    let listener = UnixListener::bind(&nameless).map_err(said)?;
    fs::set_permissions(&nameless, fs::Permissions::from_mode(0o600)).map_err(said)?;
    fs::rename(&nameless, &path).map_err(said)?;
    Ok((path, listener))
}

async fn accept(front: Arc<Front>, rate: Arc<Rate>, orders: Orders, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (front, rate) = (Arc::clone(&front), Arc::clone(&rate));
                tokio::spawn(converse((front, rate, orders.clone()), stream, permit));
            }
            // No descriptor just now, or the asker went away.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse(
    (front, rate, orders): (Arc<Front>, Arc<Rate>, Orders),
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
) {
    // The mode of the socket keeps others out already; this holds whatever became of the mode.
    if !stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), place::own_uid())) {
        return;
    }
    // Invariant PAY-FIRST: who cannot be paid for is open already, one of those that are the
    // process's own, and is answered all the same: what is short is a thing to ask about.
    let _paid = front.clients.try_take(Lane::Files);
    let talk = async {
        let (reader, mut writer) = stream.into_split();
        let mut question = Vec::new();
        let mut lines = BufReader::new(reader.take(QUESTION_BYTES_MAX));
        tokio::time::timeout(DEADLINE, lines.read_until(b'\n', &mut question)).await??;
        let answer = match serde_json::from_slice(&question) {
            Ok(Question::Reload) => encode(&Box::pin(reload::reload(&front)).await),
            Ok(Question::Status) => encode(&status(&front, &rate).await),
            Ok(Question::Who(search)) => match who(&front, search).await {
                Ok(who) => encode(&who),
                Err(why) => json!({"error": why}),
            },
            Ok(Question::Restart(wish)) => restart(&orders, wish, &mut writer).await,
            Ok(Question::Drain { over_ms }) => {
                drain(&orders, over_ms.map(Duration::from_millis), &mut writer).await
            }
            Err(error) => json!({"error": format!("the question is not readable: {error}")}),
        };
        say(&mut writer, &answer).await
    };
    // An asker that is gone or too slow has no answer; the next one has.
    if let Err(error) = talk.await {
        line!(front.common.log, Debug, "control.asker", "an asker went away: {}", error);
    }
}

/// One line to the asker, who has not much time to take it.
async fn say(writer: &mut OwnedWriteHalf, said: &Value) -> std::io::Result<()> {
    let mut bytes = said.to_string().into_bytes();
    bytes.push(b'\n');
    tokio::time::timeout(DEADLINE, writer.write_all(&bytes)).await?
}

async fn restart(orders: &Orders, wish: RestartWish, writer: &mut OwnedWriteHalf) -> Value {
    let (steps, news) = mpsc::channel(STEPS_MAX);
    let (outcome, done) = oneshot::channel();
    obeyed(orders, Order::Restart { wish, steps, outcome }, (news, done), writer).await
}

async fn drain(orders: &Orders, over: Option<Duration>, writer: &mut OwnedWriteHalf) -> Value {
    let (steps, news) = mpsc::channel(STEPS_MAX);
    let (drained, done) = oneshot::channel();
    obeyed(orders, Order::Drain { over, steps, drained }, (news, done), writer).await
}

/// Gives an order, and tells of every step until it is carried out.
async fn obeyed<S: serde::Serialize, T: serde::Serialize>(
    orders: &Orders,
    order: Order,
    (mut news, done): (mpsc::Receiver<S>, oneshot::Receiver<T>),
    writer: &mut OwnedWriteHalf,
) -> Value {
    if let Err(why) = orders.give(order) {
        return json!({"error": why});
    }
    while let Some(step) = news.recv().await {
        // Who asked may be gone; it is carried out all the same.
        say(writer, &json!({"step": step})).await.ok();
    }
    match done.await {
        Ok(done) => encode(&done),
        Err(_) => json!({"error": "the server ended before it was done"}),
    }
}

/// Whether a user is answered by a process of another.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

fn encode(answer: &impl serde::Serialize) -> Value {
    match serde_json::to_value(answer) {
        Ok(answer) => json!({"answer": answer}),
        Err(error) => json!({"error": format!("a bug: {error}")}),
    }
}

async fn status(front: &Front, rate: &Rate) -> Status {
    let now = front.clock.now();
    let second = u64::from(Clock::second_of(now));
    let common = &front.common;
    let mut reasons = health::State::of(front).reasons();
    let metered = common.switchboard.metered();
    let connect = front.settings().backends.connect;
    let connect = connect.and_then(|id| metered.get(usize::from(id.0)));
    reasons.extend(connect.and_then(Metered::reason));
    let seen = look(front, Wish { slow: true, limit: WORST, ..Wish::default() }).await;
    let total = common.published.load(Ordering::Relaxed);
    let closed = common.ring.closed_by_code(now).into_iter().map(|(code, often)| Closed {
        code,
        name: name_of(code),
        last_10_min: often.lately,
        since_start: often.total,
    });
    let refused = common.ring.refused_by_reason(now).into_iter().map(|(reason, often)| Turned {
        reason: reason.into_owned(),
        last_10_min: often.lately,
        since_start: often.total,
    });
    let shards = common.shards.iter().enumerate().map(|(number, shard)| Shard {
        shard: number as u64,
        silent_s: second.saturating_sub(shard.last_beat()),
    });
    Status {
        healthy: reasons.is_empty(),
        reasons,
        pid: std::process::id(),
        name: front.settings().node_name.clone(),
        version: crate::version().to_owned(),
        uptime_s: now.mono_ms / 1000,
        clients: Clients {
            open: front.clients.open(),
            ceiling: front.clients.ceiling(),
            connection_limit: front.settings().client.connection_limit as u64,
            descriptors: throng_limits::facts::OpenFiles::own().soft,
        },
        slow: seen.map(|seen| Slow {
            clients: seen.count,
            waiting_bytes: seen.waiting_bytes,
            worst: seen.clients.into_iter().map(|(_, client)| client).collect(),
        }),
        published: Published { since_start: total, per_second: rate.per_second() },
        closed: closed.collect(),
        refused: refused.collect(),
        shards: shards.collect(),
        log_lines_dropped: common.log.dropped(),
        backends: metered.into_iter().map(backend).collect(),
        tokens: front.settings().checks_signatures().then(|| tokens(common.notary.counted())),
        cache: common.switchboard.cached().map(|cached| Cache {
            hits: cached.hits,
            misses: cached.misses,
            kept: cached.kept as u64,
            bytes: cached.bytes as u64,
        }),
    }
}

fn tokens(counted: Counted) -> Tokens {
    let Counted { genuine, forged, unknown, gone, waiting, fetches, fetches_failed } = counted;
    Tokens { genuine, forged, unknown, gone, waiting: waiting as u64, fetches, fetches_failed }
}

fn backend(metered: Metered) -> Backend {
    let (p50_ms, p99_ms) = metered.times.unzip();
    Backend {
        option: metered.option,
        endpoint: metered.endpoint,
        calls: metered.calls,
        failed: metered.failed,
        refused: metered.refused,
        p50_ms,
        p99_ms,
        under_way: metered.under_way as u64,
        waiting: metered.waiting as u64,
        max_in_flight: metered.max_in_flight as u64,
        last_failure: metered
            .trouble
            .map(|trouble| BackendFailure { ago_s: trouble.ago.as_secs(), why: trouble.why }),
        failing: metered.failing,
    }
}

async fn who(front: &Front, search: Search) -> Result<Who, String> {
    let limit = search.limit.clamp(1, LIMIT_MAX);
    let address = match search.address.as_deref().map(str::parse::<IpAddr>) {
        Some(Err(_)) => {
            return Err("the address to look for must be one, such as 192.0.2.7".to_owned());
        }
        Some(Ok(address)) => Some(address),
        None => None,
    };
    // In which channels somebody was is not remembered.
    let remembers = search.channel.is_none();
    let closes = front.common.ring.closes(if remembers { limit } else { 0 }, |close| {
        search.user.as_ref().is_none_or(|user| *close.user == **user)
            && address.is_none_or(|address| close.address == Some(address))
            && (!search.slow || close.code == codes::Disconnect::SLOW.code)
    });
    let of_strangers = remembers && search.user.is_none() && !search.slow;
    let refusals = front.common.ring.refusals(if of_strangers { limit } else { 0 }, |refused| {
        address.is_none_or(|address| refused.address == Some(address))
    });
    let wish = Wish {
        user: search.user.as_deref().map(Arc::from),
        channel: search.channel.as_deref().map(Into::into),
        address,
        slow: search.slow,
        limit,
        back: closes.iter().map(|close| Arc::clone(&close.user)).collect(),
    };
    let seen = look(front, wish)
        .await
        .ok_or("a shard does not answer; throng status says which".to_owned())?;
    let now = (Clock::second_of(front.clock.now()), front.clock.now().unix_ms / 1000);
    let left = closes.iter().enumerate().map(|(at, close)| {
        let newest = seen.newest.get(at).copied().unwrap_or(0);
        let again = closes[..at].iter().any(|later| later.user == close.user);
        left(close, newest > close.number || again, now)
    });
    Ok(Who {
        count: seen.count,
        closes: Closes {
            left: left.collect(),
            turned_away: refusals.iter().map(|refused| turned_away(refused, now)).collect(),
        },
        clients: seen.clients.into_iter().map(|(_, client)| client).collect(),
    })
}

fn left(close: &Close, came_back: bool, (second, unix_s): (u32, i64)) -> Left {
    let ago_s = second.saturating_sub(close.at_s);
    Left {
        at_unix_s: unix_s - i64::from(ago_s),
        ago_s,
        user: close.user.to_string(),
        client: close.client.to_string(),
        stayed_s: close.at_s.saturating_sub(close.since_s),
        code: close.code,
        reason: close.reason.to_string(),
        why: sentence(close.code),
        note: close.note.as_deref().map(str::to_owned),
        came_back: (!close.user.is_empty()).then_some(came_back),
        address: close.address.map(|address| address.to_string()),
    }
}

fn turned_away(refused: &Refused, (second, unix_s): (u32, i64)) -> TurnedAway {
    let ago_s = second.saturating_sub(refused.at_s);
    TurnedAway {
        at_unix_s: unix_s - i64::from(ago_s),
        ago_s,
        status: refused.status,
        reason: refused.reason.to_string(),
        address: refused.address.map(|address| address.to_string()),
    }
}

/// What a close code is called.
fn name_of(code: u16) -> String {
    let known = codes::explain(u32::from(code));
    known.first().map_or_else(|| "unknown".to_owned(), |one| one.name.to_owned())
}

/// The first sentence of what is known about a code.
fn sentence(code: u16) -> String {
    let known = codes::explain(u32::from(code));
    let text = known.first().map_or("", |one| one.text);
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    text[..end].to_owned()
}

/// Asks all shards; none when one of them does not answer.
async fn look(front: &Front, wish: Wish) -> Option<Seen> {
    let (limit, wish) = (wish.limit, Arc::new(wish));
    let shards = &front.common.shards;
    let pass = front.common.pause.enter().await.ok()?;
    let (ask, parts) = front.common.desk.collect(shards.len());
    for shard in shards {
        shard.post(Post::Mail(Mail::Look { wish: Arc::clone(&wish), ask }));
    }
    let Ok(Ok(parts)) = tokio::time::timeout(SHARD_PATIENCE, parts).await else {
        front.common.desk.give_up(ask);
        return None;
    };
    drop(pass);
    let mut all = Seen { newest: vec![0; wish.back.len()], ..Seen::default() };
    for part in parts {
        let Part::Seen(seen) = part else { continue };
        all.count += seen.count;
        all.waiting_bytes += seen.waiting_bytes;
        all.clients.extend(seen.clients);
        for (newest, here) in all.newest.iter_mut().zip(seen.newest) {
            *newest = here.max(*newest);
        }
    }
    all.clients.sort_by_key(|(by, _)| std::cmp::Reverse(*by));
    all.clients.truncate(limit);
    Some(all)
}

/// How much was published in each of the last seconds.
#[derive(Debug, Default)]
struct Rate(Mutex<VecDeque<(u64, u64)>>);

impl Rate {
    fn add(&self, mono_ms: u64, total: u64) {
        let mut samples = self.0.lock();
        if samples.len() > RATE_SECONDS {
            samples.pop_front();
        }
        samples.push_back((mono_ms, total));
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    fn per_second(&self) -> f64 {
        let samples = self.0.lock();
        match (samples.front(), samples.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after - before) as f64 * 1000.0 / (to - from) as f64
            }
            _ => 0.0,
        }
    }
}

async fn sample(front: Arc<Front>, rate: Arc<Rate>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        rate.add(front.clock.now().mono_ms, front.common.published.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_are_answered() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[test]
    fn publishing_is_averaged_over_the_last_seconds() {
        let rate = Rate::default();
        assert!(rate.per_second().abs() < f64::EPSILON);
        for second in 0..100 {
            rate.add(second * 1000, if second < 50 { 0 } else { (second - 50) * 200 });
        }
        assert!((rate.per_second() - 200.0).abs() < 0.01, "{}", rate.per_second());
    }

    #[test]
    fn a_close_is_one_sentence_that_names_the_option() {
        let why = sentence(3008);
        assert!(why.contains("`client.queue_max_size`") && why.ends_with('.'), "{why}");
        assert_eq!(sentence(999).find(". "), None);
        assert_eq!(name_of(3012), "no pong");
    }
}
