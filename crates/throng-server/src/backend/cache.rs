//! Connect answers that are used again, so that a wave of reconnects is no wave on the backend.
//!
//! An answer belongs to everything that the backend saw but the connection's id, so nobody receives
//! what was answered about another. Who asks the same while a question is under way shares its
//! answer; only results are kept, and none beyond its own `expire_at`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use throng_hub::request::Now;
use tokio::sync::watch;

use super::{Answer, Call, Said};

/// Bytes of questions and answers that are kept.
const BYTES_MAX: usize = 32 << 20;
/// What an entry costs beside its question and the texts of its answer.
const ENTRY_BYTES: usize = 512;

/// A question, byte for byte: a hash could be made to collide, and would give a client another's
/// identity.
type Key = Arc<[u8]>;

/// The answers of one backend.
pub(super) struct Cache {
    ttl_ms: u64,
    stale_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Entry>,
    /// In the order in which they were kept, which is that in which they end.
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    flights: HashMap<Key, (u64, watch::Receiver<Option<Answer>>)>,
    last_number: u64,
    /// How often users were forgotten: what was asked before that is not kept after it.
    forgotten: u64,
    hits: u64,
    misses: u64,
}

/// What the cache did, and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cached {
    /// Answered from it, or with the answer of a call that was under way.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) kept: usize,
    pub(crate) bytes: usize,
}

struct Entry {
    number: u64,
    said: Arc<Said>,
    kept_ms: u64,
    bytes: usize,
}

/// What there is for a question.
pub(super) enum Found {
    Kept(Answer),
    /// It is asked already.
    Asked(watch::Receiver<Option<Answer>>),
    /// Nothing: it is to be asked.
    Ask(Flight),
}

/// A question that is under way.
pub(super) struct Flight {
    key: Key,
    number: u64,
    forgotten: u64,
    sender: watch::Sender<Option<Answer>>,
}

/// What the answer of a call is kept under; none where no credential came with it.
pub(super) fn key(call: &Call) -> Option<Key> {
    if !call.ask.has_payload() && !call.headers.iter().any(may_hold_a_credential) {
        return None;
    }
    let mut ask = call.ask.clone();
    ask.client = Box::default();
    let mut key = serde_json::to_vec(&ask).ok()?;
    // No part can be taken for another: JSON ends where it ends, and line breaks are in no header.
    key.push(b'\n');
    if let Some(address) = call.address {
        key.extend_from_slice(address.to_canonical().to_string().as_bytes());
    }
    for (name, value) in &call.headers {
        key.push(b'\n');
        key.extend_from_slice(name.as_str().as_bytes());
        key.push(b'\n');
        key.extend_from_slice(value.as_bytes());
    }
    Some(key.into())
}

/// Whether a header may say who somebody is. Of visitors who only have the same browser, each may be
/// given a name of its own by the backend, and must be asked about.
fn may_hold_a_credential((name, value): &(HeaderName, HeaderValue)) -> bool {
    const NEVER: [&str; 9] = [
        "accept",
        "accept-charset",
        "accept-language",
        "cache-control",
        "dnt",
        "origin",
        "pragma",
        "referer",
        "user-agent",
    ];
    let name = name.as_str();
    !value.as_bytes().trim_ascii().is_empty()
        && !NEVER.contains(&name)
        // Sec-WebSocket-Key is another for every connection anyway.
        && !name.starts_with("sec-")
}

impl Cache {
    pub(super) fn new(ttl: Duration, stale: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
        Self { ttl_ms: millis(ttl), stale_ms: millis(stale), state: Mutex::default() }
    }

    pub(super) fn find(&self, key: &Key, now: Now) -> Found {
        let mut state = self.state.lock();
        if let Some(said) = state.usable(key, self.ttl_ms, now) {
            state.hits += 1;
            return Found::Kept(Answer::Said(Box::new((*said).clone())));
        }
        if let Some((_, flight)) = state.flights.get(key) {
            // One whose task has ended without an answer is none.
            if flight.has_changed().is_ok() {
                let flight = flight.clone();
                state.hits += 1;
                return Found::Asked(flight);
            }
        }
        state.misses += 1;
        let (sender, receiver) = watch::channel(None);
        state.last_number += 1;
        let number = state.last_number;
        state.flights.insert(Arc::clone(key), (number, receiver));
        Found::Ask(Flight { key: Arc::clone(key), number, forgotten: state.forgotten, sender })
    }

    /// A question is answered: its answer is kept if it may be, and told to all who asked it.
    pub(super) fn land(&self, flight: Flight, answer: Answer, now: Now) -> Answer {
        let Flight { key, number, forgotten, sender } = flight;
        let mut state = self.state.lock();
        if state.flights.get(&key).is_some_and(|(known, _)| *known == number) {
            state.flights.remove(&key);
        }
        let answer = match answer {
            Answer::Said(said) => {
                if state.forgotten == forgotten {
                    state.keep(key, Arc::new((*said).clone()), now);
                    state.shrink(self.ttl_ms.saturating_add(self.stale_ms), now);
                }
                Answer::Said(said)
            }
            Answer::Failed => {
                let stale = self.ttl_ms.saturating_add(self.stale_ms);
                let known = (self.stale_ms > 0).then(|| state.usable(&key, stale, now)).flatten();
                known.map_or(Answer::Failed, |said| Answer::Said(Box::new((*said).clone())))
            }
            // The backend has changed its mind.
            refusal => {
                state.remove(&key);
                refusal
            }
        };
        drop(state);
        sender.send_replace(Some(answer.clone()));
        answer
    }

    pub(super) fn counted(&self) -> Cached {
        let state = self.state.lock();
        let State { hits, misses, bytes, .. } = *state;
        Cached { hits, misses, kept: state.kept.len(), bytes }
    }

    /// Forgets what is known of a user, and what is being asked: the answer may be about it.
    pub(super) fn forget(&self, user: &str) {
        let mut state = self.state.lock();
        state.forgotten += 1;
        state.flights.clear();
        let of_user = |(_, entry): &(&Key, &Entry)| entry.said.user == user;
        let keys: Vec<Key> =
            state.kept.iter().filter(of_user).map(|(key, _)| Arc::clone(key)).collect();
        for key in keys {
            state.remove(&key);
        }
    }
}

impl State {
    /// What was said no longer ago than this, if its right has not ended.
    fn usable(&self, key: &Key, age_ms: u64, now: Now) -> Option<Arc<Said>> {
        let entry = self.kept.get(key)?;
        let young = now.mono_ms.saturating_sub(entry.kept_ms) < age_ms;
        let holds = entry.said.expire_at.is_none_or(|at| at > now.unix_ms / 1000);
        (young && holds).then(|| Arc::clone(&entry.said))
    }

    fn keep(&mut self, key: Key, said: Arc<Said>, now: Now) {
        self.remove(&key);
        let bytes = ENTRY_BYTES + 2 * key.len() + weight(&said);
        self.last_number += 1;
        let number = self.last_number;
        self.bytes += bytes;
        self.order.push_back((Arc::clone(&key), number));
        self.kept.insert(key, Entry { number, said, kept_ms: now.mono_ms, bytes });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.kept.remove(key) {
            self.bytes -= entry.bytes;
        }
    }

    /// Lets go of what is too old, and of the oldest where there is too much.
    fn shrink(&mut self, age_ms: u64, now: Now) {
        while let Some((key, number)) = self.order.front() {
            let entry = self.kept.get(key).filter(|entry| entry.number == *number);
            let old = entry.is_none_or(|entry| now.mono_ms.saturating_sub(entry.kept_ms) >= age_ms);
            if !old && self.bytes <= BYTES_MAX {
                return;
            }
            let is_kept = entry.is_some();
            if let Some((key, _)) = self.order.pop_front()
                && is_kept
            {
                self.remove(&key);
            }
        }
    }
}

/// Bytes of an answer's texts, about.
fn weight(said: &Said) -> usize {
    let grant = |grant: &crate::token::Grant| {
        grant.info.as_ref().map_or(0, |info| info.len())
            + grant.data.as_ref().map_or(0, |data| data.len())
    };
    said.user.len()
        + grant(&said.grant)
        + said.meta.as_ref().map_or(0, |meta| meta.len())
        + said.channels.iter().map(|channel| 24 + channel.len()).sum::<usize>()
        + said.subs.iter().map(|(name, sub)| 128 + name.len() + grant(&sub.grant)).sum::<usize>()
}

/// Questions hold cookies: only their number shows.
impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("kept", &self.state.lock().kept.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ask, Kind};
    use super::*;
    use crate::config::BackendId;

    fn at(ms: u64) -> Now {
        Now { mono_ms: ms, unix_ms: i64::try_from(ms).unwrap() }
    }

    fn call(client: &str, cookie: &str, address: &str) -> Call {
        let cookie = HeaderValue::from_str(cookie).unwrap();
        Call {
            kind: Kind::Connect,
            backend: BackendId(0),
            ask: Ask { client: client.into(), ..Ask::default() },
            headers: Box::new([(HeaderName::from_static("cookie"), cookie)]),
            address: address.parse().ok(),
        }
    }

    fn said(user: &str, expire_at: Option<i64>) -> Answer {
        Answer::Said(Box::new(Said { user: user.to_owned(), expire_at, ..Said::default() }))
    }

    fn cache() -> Cache {
        Cache::new(Duration::from_secs(10), Duration::from_secs(20))
    }

    fn ask(cache: &Cache, key: &Key, now: u64) -> Flight {
        match cache.find(key, at(now)) {
            Found::Ask(flight) => flight,
            Found::Kept(answer) => panic!("{answer:?}"),
            Found::Asked(_) => panic!("asked already"),
        }
    }

    fn kept(cache: &Cache, key: &Key, now: u64) -> bool {
        matches!(cache.find(key, at(now)), Found::Kept(_))
    }

    #[test]
    fn a_key_is_all_that_the_backend_sees_but_the_connections_id() {
        let one = key(&call("a", "s=1", "1.2.3.4")).unwrap();
        assert_eq!(one, key(&call("b", "s=1", "::ffff:1.2.3.4")).unwrap());
        assert_ne!(one, key(&call("a", "s=2", "1.2.3.4")).unwrap());
        assert_ne!(one, key(&call("a", "s=1", "1.2.3.5")).unwrap());
        let mut named = call("a", "s=1", "1.2.3.4");
        named.ask.name = "js".into();
        assert_ne!(one, key(&named).unwrap());
        named.headers = Box::default();
        assert_eq!(key(&named), None, "without a credential nothing is kept");
        let with = |name: &'static str, value: &'static str| Call {
            headers: Box::new([(HeaderName::from_static(name), HeaderValue::from_static(value))]),
            ..call("a", "", "1.2.3.4")
        };
        for (name, value) in
            [("user-agent", "x"), ("origin", "x"), ("sec-gpc", "1"), ("cookie", "")]
        {
            assert_eq!(key(&with(name, value)), None, "{name}");
        }
        assert!(key(&with("authorization", "x")).is_some());
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_never_past_its_end() {
        let (cache, one) = (cache(), key(&call("a", "1", "")).unwrap());
        let flight = ask(&cache, &one, 0);
        assert!(matches!(cache.find(&one, at(0)), Found::Asked(_)), "asked once");
        cache.land(flight, said("ann", None), at(0));
        assert!(kept(&cache, &one, 9_999) && !kept(&cache, &one, 10_000));
        let two = key(&call("a", "2", "")).unwrap();
        let flight = ask(&cache, &two, 0);
        cache.land(flight, said("bob", Some(3)), at(0));
        assert!(kept(&cache, &two, 2_999));
        let flight = ask(&cache, &two, 3_000);
        assert_eq!(cache.land(flight, Answer::Failed, at(3_000)), Answer::Failed);
    }

    #[test]
    fn while_the_backend_fails_a_known_user_stays_known_for_a_while() {
        let (cache, one) = (cache(), key(&call("a", "1", "")).unwrap());
        let flight = ask(&cache, &one, 0);
        cache.land(flight, said("ann", None), at(0));
        let flight = ask(&cache, &one, 29_999);
        assert_eq!(cache.land(flight, Answer::Failed, at(29_999)), said("ann", None));
        let flight = ask(&cache, &one, 30_000);
        assert_eq!(cache.land(flight, Answer::Failed, at(30_000)), Answer::Failed);
        let flight = ask(&cache, &one, 30_000);
        cache.land(flight, said("ann", None), at(30_000));
        let flight = ask(&cache, &one, 40_000);
        cache.land(flight, Answer::Nothing, at(40_000));
        let flight = ask(&cache, &one, 40_001);
        assert_eq!(cache.land(flight, Answer::Failed, at(40_001)), Answer::Failed);
    }

    #[test]
    fn a_user_that_is_forgotten_is_asked_about_again() {
        let cache = cache();
        let [one, two] = ["1", "2"].map(|cookie| key(&call("a", cookie, "")).unwrap());
        for (key, user) in [(&one, "ann"), (&two, "bob")] {
            let flight = ask(&cache, key, 0);
            cache.land(flight, said(user, None), at(0));
        }
        let three = key(&call("a", "3", "")).unwrap();
        let early = ask(&cache, &three, 0);
        cache.forget("ann");
        assert!(!kept(&cache, &one, 1) && kept(&cache, &two, 1));
        // What was asked before it is neither shared nor kept after it.
        let late = ask(&cache, &three, 1);
        cache.land(early, said("ann", None), at(2));
        assert!(matches!(cache.find(&three, at(2)), Found::Asked(_)));
        cache.land(late, said("ann", None), at(3));
        assert!(kept(&cache, &three, 3));
    }

    #[test]
    fn it_is_bounded() {
        let cache = cache();
        let long = "x".repeat(60_000);
        for number in 0..1000 {
            let key = key(&call("a", &format!("{number}{long}"), "")).unwrap();
            let flight = ask(&cache, &key, 0);
            cache.land(flight, said("ann", None), at(0));
        }
        let state = cache.state.lock();
        assert!(state.bytes <= BYTES_MAX && state.kept.len() > 100);
        assert_eq!(state.order.len(), state.kept.len());
    }
}
