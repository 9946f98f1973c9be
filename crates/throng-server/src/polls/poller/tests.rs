//! The poller by hand, and against a model of an application and its clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use throng_hub::request::Now;
use throng_hub::state::{Fields, Writer};

use super::*;
use crate::rng::Rng;

const LIMIT: usize = 3;

fn rules(versioned: bool) -> Rules {
    Rules { interval_ms: 1000, batch: 2, versioned, keep_ms: 100 }
}

fn poller() -> Poller {
    Poller::new(Allowance::new(1 << 20))
}

fn name() -> ChannelName {
    "c".into()
}

fn turn(poller: &mut Poller, now_ms: u64, versioned: bool) -> Vec<Ask> {
    poller.turn(now_ms, LIMIT, &mut |_| Some(rules(versioned)))
}

fn subscribe(poller: &mut Poller, now_ms: u64, versioned: bool) -> Arc<str> {
    poller.subscribe(now_ms, (&name(), 0), &rules(versioned), || "firstone".into())
}

fn track(poller: &mut Poller, now_ms: u64, key: &str, version: u64) -> Tracked {
    poller.track(now_ms, (&name(), 0), (key, version), (1000, &mut 1000)).unwrap()
}

fn answer(
    poller: &mut Poller,
    now_ms: u64,
    call: u64,
    items: Vec<Item>,
    versioned: bool,
) -> Outcome {
    let items = Items { epoch: String::new(), items };
    poller.answered(now_ms, call, Some(items), &rules(versioned))
}

fn item(key: &str, version: u64, data: &'static str) -> Item {
    let data = (!data.is_empty()).then(|| Bytes::from_static(data.as_bytes()));
    Item { key: key.to_owned(), data, version, removed: false }
}

fn keys(ask: &Ask) -> Vec<(&str, u64)> {
    ask.keys.iter().map(|(key, version)| (&**key, *version)).collect()
}

#[test]
fn new_keys_are_asked_for_at_once_and_together_while_a_call_is_under_way() {
    let mut poller = poller();
    subscribe(&mut poller, 0, false);
    track(&mut poller, 0, "a", 0);
    let first = turn(&mut poller, 0, false);
    assert_eq!(keys(&first[0]), [("a", 0)]);
    for key in ["b", "c", "d", "b"] {
        track(&mut poller, 1, key, 0);
    }
    assert_eq!(turn(&mut poller, 2, false), []);
    let outcome = answer(&mut poller, 3, first[0].call, vec![item("a", 0, "1")], false);
    assert!(outcome.urgent);
    let second = turn(&mut poller, 4, false);
    assert_eq!(second.len(), 1);
    assert_eq!(keys(&second[0]), [("b", 0), ("c", 0)]);
    answer(&mut poller, 5, second[0].call, Vec::new(), false);
    assert_eq!(keys(&turn(&mut poller, 6, false)[0]), [("d", 0)]);
}

#[test]
fn a_round_is_spread_over_its_interval() {
    let mut poller = poller();
    subscribe(&mut poller, 0, true);
    for key in ["a", "b", "c", "d", "e"] {
        // Who has something already is in no hurry.
        track(&mut poller, 0, key, 7);
    }
    assert_eq!(turn(&mut poller, 0, true), []);
    assert_eq!(poller.next_due(LIMIT), Some(1000));
    let mut at = Vec::new();
    for now_ms in 1000..2000 {
        for ask in turn(&mut poller, now_ms, true) {
            at.push((now_ms, ask.keys.len()));
            answer(&mut poller, now_ms, ask.call, Vec::new(), true);
        }
    }
    assert_eq!(at, [(1000, 2), (1333, 2), (1666, 1)]);
}

#[test]
fn what_is_the_same_is_no_news_and_versions_rise() {
    let mut poller = poller();
    subscribe(&mut poller, 0, false);
    track(&mut poller, 0, "a", 0);
    let mut told = Vec::new();
    for (round, data) in ["1", "1", "2", "1"].into_iter().enumerate() {
        let now_ms = 1000 * round as u64;
        for ask in turn(&mut poller, now_ms, false) {
            let outcome = answer(&mut poller, now_ms, ask.call, vec![item("a", 0, data)], false);
            told.extend(outcome.news.into_iter().map(|news| match news {
                News::Update { update: Update::New { version, data }, .. } => (version, data),
                other => panic!("{other:?}"),
            }));
        }
    }
    let said: Vec<_> = told.iter().map(|(version, data)| (*version, &**data)).collect();
    assert_eq!(said, [(1, &b"1"[..]), (2, b"2"), (3, b"1")]);
    // A client that comes later has it at once; one that has the newest hears nothing.
    assert_eq!(track(&mut poller, 5000, "a", 2).have, Some((3, Bytes::from_static(b"1"))));
    assert_eq!(track(&mut poller, 5000, "a", 3).have, None);
}

#[test]
fn who_is_behind_and_finds_nothing_at_hand_has_it_asked_for() {
    let mut poller = poller();
    subscribe(&mut poller, 0, true);
    track(&mut poller, 0, "a", 0);
    let ask = turn(&mut poller, 0, true).remove(0);
    answer(&mut poller, 0, ask.call, vec![item("a", 5, "five")], true);
    // No room in the reply.
    let late = poller.track(10, (&name(), 1), ("a", 3), (1000, &mut 0)).unwrap();
    assert!(late.behind && late.have.is_none());
    let ask = turn(&mut poller, 11, true).remove(0);
    // Were it told that 5 is known, the application might leave the data out.
    assert_eq!(keys(&ask), [("a", 0)]);
    let outcome = answer(&mut poller, 12, ask.call, vec![item("a", 5, "five")], true);
    let [News::Update { shards, update, .. }] = &outcome.news[..] else { panic!("{outcome:?}") };
    assert_eq!(shards, &[0, 1]);
    assert_eq!(update, &Update::Again { version: 5, data: Bytes::from_static(b"five") });
    assert_eq!(outcome.counts.unchanged, 1);
}

#[test]
fn versions_that_go_back_and_items_nobody_asked_for_are_passed_over() {
    let mut poller = poller();
    subscribe(&mut poller, 0, true);
    track(&mut poller, 0, "a", 0);
    let ask = turn(&mut poller, 0, true).remove(0);
    let wild = vec![
        item("a", 5, "five"),
        item("a", 6, "twice"),
        item("b", 1, "unasked"),
        item("", 1, "no key"),
        Item { key: "z".into(), removed: true, ..Item::default() },
    ];
    let outcome = answer(&mut poller, 0, ask.call, wild, true);
    assert_eq!(outcome.news.len(), 1);
    assert_eq!(outcome.counts, Counts { changed: 1, unasked: 4, ..Counts::default() });
    // The same answer again is none.
    assert_eq!(answer(&mut poller, 0, ask.call, vec![item("a", 9, "x")], true), Outcome::default());
    for (bad, stale, unusable) in
        [(item("a", 4, "old"), 1, 0), (item("a", 0, "no version"), 0, 1), (item("a", 7, ""), 0, 1)]
    {
        let now_ms = poller.next_due(LIMIT).unwrap();
        let ask = turn(&mut poller, now_ms, true).remove(0);
        assert_eq!(keys(&ask), [("a", 5)]);
        let outcome = answer(&mut poller, now_ms, ask.call, vec![bad], true);
        assert_eq!(outcome.news, []);
        assert_eq!(outcome.counts, Counts { stale, unusable, ..Counts::default() });
    }
}

#[test]
fn a_removed_key_is_told_once_and_forgotten() {
    let mut poller = poller();
    subscribe(&mut poller, 0, false);
    track(&mut poller, 0, "a", 0);
    let ask = turn(&mut poller, 0, false).remove(0);
    let removed = || vec![Item { key: "a".into(), removed: true, ..Item::default() }];
    let outcome = answer(&mut poller, 0, ask.call, removed(), false);
    assert!(matches!(&outcome.news[..], [News::Update { update: Update::Removed, .. }]));
    assert_eq!(poller.sizes(), (1, 0, 0));
    // It may come again, and is new then.
    track(&mut poller, 1, "a", 0);
    assert_eq!(turn(&mut poller, 1, false).len(), 1);
}

#[test]
fn another_epoch_begins_anew_and_late_answers_of_the_old_one_are_dropped() {
    let mut poller = poller();
    assert_eq!(&*subscribe(&mut poller, 0, true), "");
    for key in ["a", "b", "c"] {
        track(&mut poller, 0, key, 0);
    }
    let first = turn(&mut poller, 0, true).remove(0);
    let said = |epoch: &str, items| Some(Items { epoch: epoch.to_owned(), items });
    let outcome =
        poller.answered(0, first.call, said("e1", vec![item("a", 900, "x")]), &rules(true));
    let [News::Reset { shards, epoch, .. }, News::Update { .. }] = &outcome.news[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((&shards[..], &**epoch), (&[0][..], "e1"));
    // Two calls are under way when the application is started anew.
    let urgent = turn(&mut poller, 1, true).remove(0);
    let round = turn(&mut poller, 1000, true).remove(0);
    let items = vec![item(&urgent.keys[0].0, 1, "new")];
    let outcome = poller.answered(1001, urgent.call, said("e2", items), &rules(true));
    assert!(matches!(&outcome.news[0], News::Reset { epoch, .. } if **epoch == *"e2"));
    for late in ["e1", ""] {
        let mut copy = vec![item("a", 901, "old")];
        copy.extend(round.keys.iter().map(|(key, _)| item(key, 902, "old")));
        let outcome = poller.answered(1002, round.call, said(late, copy), &rules(true));
        assert_eq!(outcome.news, [], "{late}");
    }
    assert_eq!(&*subscribe(&mut poller, 1003, true), "e2");
    // An answer that says nothing of it changes nothing.
    track(&mut poller, 1003, "a", 0);
    let ask = turn(&mut poller, 1004, true).remove(0);
    let outcome =
        poller.answered(1005, ask.call, said("", vec![item("a", 1, "new")]), &rules(true));
    assert!(matches!(&outcome.news[..], [News::Update { .. }]), "{outcome:?}");
}

#[test]
fn a_backend_that_fails_is_left_in_peace_for_longer_and_longer() {
    let mut poller = poller();
    subscribe(&mut poller, 0, false);
    track(&mut poller, 0, "a", 0);
    let mut at = Vec::new();
    let mut now_ms = 0;
    while now_ms < 400_000 {
        for ask in turn(&mut poller, now_ms, false) {
            at.push(now_ms);
            poller.answered(now_ms, ask.call, None, &rules(false));
        }
        now_ms = poller.next_due(LIMIT).unwrap();
    }
    let gaps: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[0], 500);
    assert!(gaps.iter().all(|gap| *gap <= PAUSE_MAX_MS), "{gaps:?}");
    assert!(at.len() < 25, "{at:?}");
    // One answer, and all is as before.
    let ask = turn(&mut poller, now_ms, false).remove(0);
    answer(&mut poller, now_ms, ask.call, vec![item("a", 0, "1")], false);
    track(&mut poller, now_ms + 1, "b", 0);
    assert!(poller.next_due(LIMIT).unwrap() <= now_ms + PAUSE_MAX_MS);
}

#[test]
fn what_is_published_is_told_and_the_next_round_passes_it() {
    let mut poller = poller();
    subscribe(&mut poller, 0, true);
    track(&mut poller, 0, "a", 3);
    let publish = |poller: &mut Poller, key, version, epoch| {
        poller.publish(&name(), (key, version, Bytes::from_static(b"p")), epoch)
    };
    assert!(matches!(publish(&mut poller, "a", 4, ""), Published::Told(news) if news.len() == 1));
    assert_eq!(publish(&mut poller, "a", 4, ""), Published::Stale(Vec::new()));
    assert_eq!(publish(&mut poller, "b", 4, ""), Published::Unwanted(Vec::new()));
    assert_eq!(turn(&mut poller, 1000, true), []);
    assert_eq!(keys(&turn(&mut poller, 2000, true)[0]), [("a", 4)]);
    // Another epoch, even of a key that nobody has.
    let Published::Unwanted(news) = publish(&mut poller, "b", 1, "e") else { panic!() };
    assert!(matches!(&news[..], [News::Reset { .. }]));
    assert!(matches!(publish(&mut poller, "a", 1, "e"), Published::Told(_)));
}

#[test]
fn keys_and_data_have_their_bounds() {
    let mut poller = Poller::new(Allowance::new(SHARE * (KEY_BYTES + 1) * 3));
    subscribe(&mut poller, 0, true);
    for key in ["a", "b", "c"] {
        track(&mut poller, 0, key, 0);
    }
    let fourth = poller.track(0, (&name(), 0), ("d", 0), (1000, &mut 1000));
    assert_eq!(fourth, Err(Full::Bytes));
    let ask = turn(&mut poller, 0, true).remove(0);
    let large: &'static str = "x".repeat(700).leak();
    let items = vec![item("a", 1, large), item("b", 1, large)];
    assert_eq!(answer(&mut poller, 0, ask.call, items, true).news.len(), 2);
    // Both are told; only one of them is remembered.
    assert_eq!(poller.sizes(), (1, 3, 700));
    assert!(track(&mut poller, 1, "b", 0).behind);
}

#[test]
fn nothing_is_asked_for_a_namespace_that_is_no_more() {
    let mut poller = poller();
    subscribe(&mut poller, 0, true);
    track(&mut poller, 0, "a", 0);
    assert_eq!(poller.turn(0, LIMIT, &mut |_| None), []);
    assert_eq!(poller.next_due(LIMIT), Some(LOST_MS));
}

/// What an application, its network and some clients might do.
struct World {
    poller: Poller,
    allowance: Arc<Allowance>,
    rng: Rng,
    now_ms: u64,
    versioned: bool,
    /// What the application has.
    truth: BTreeMap<String, (u64, Bytes)>,
    /// What it had once: its versions go on from there.
    gone: BTreeMap<String, u64>,
    epoch: String,
    /// By client, whose shard is its number modulo three: the epoch it knows, and its keys.
    clients: Vec<Client>,
    /// Calls under way, and what was true when they arrived.
    calls: Vec<(Ask, Items)>,
    epochs: u64,
}

type Client = (Option<Arc<str>>, BTreeMap<String, Seen>);

#[derive(Debug, Clone, Default)]
struct Seen {
    version: u64,
    data: Bytes,
    /// As the session has it.
    marked: u64,
    behind: bool,
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

impl World {
    fn new(seed: u64, versioned: bool) -> Self {
        let allowance = Allowance::new(1 << 16);
        Self {
            poller: Poller::new(Arc::clone(&allowance)),
            allowance,
            rng: Rng::new(seed),
            now_ms: 5,
            versioned,
            truth: BTreeMap::new(),
            gone: BTreeMap::new(),
            epoch: "e0".to_owned(),
            clients: vec![(None, BTreeMap::new()); 6],
            calls: Vec::new(),
            epochs: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.below(u32::try_from(end).unwrap()) as usize
    }

    fn shard(client: usize) -> u16 {
        u16::try_from(client % 3).unwrap()
    }

    fn step(&mut self) {
        let client = self.below(6);
        let key = KEYS[self.below(KEYS.len())].to_owned();
        match self.below(12) {
            0 | 1 => self.track(client, &key),
            2 => self.untrack(client, &key),
            3 => self.leave(client),
            4 | 5 => self.change(&key),
            6 | 7 => self.turn(),
            8 | 9 => self.answer(),
            10 => self.now_ms += self.rng.below(700) as u64,
            _ => self.rare(&key),
        }
    }

    fn rare(&mut self, key: &str) {
        match self.below(5) {
            0 => self.restart(),
            1 if self.versioned => {
                // The application is started anew and counts from one.
                self.epochs += 1;
                self.epoch = format!("e{}", self.epochs);
                for (version, _) in self.truth.values_mut() {
                    *version = 1;
                }
                self.gone.values_mut().for_each(|version| *version = 0);
            }
            2 if self.versioned => {
                self.change(key);
                let (version, data) = self.truth[key].clone();
                let epoch = self.epoch.clone();
                let told = self.poller.publish(&name(), (key, version, data), &epoch);
                let (Published::Told(news) | Published::Stale(news) | Published::Unwanted(news)) =
                    told;
                self.tell(news);
            }
            3 => {
                if let Some((version, _)) = self.truth.remove(key) {
                    self.gone.insert(key.to_owned(), version);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, key: &str) {
        let number = self.rng.next_u64() % 3;
        let last = self.gone.get(key).copied().unwrap_or_default();
        let (version, data) = self.truth.entry(key.to_owned()).or_insert((last, Bytes::new()));
        *version += 1;
        let said = if self.versioned {
            format!("{key}{version}{}", self.epoch)
        } else {
            format!("{number}")
        };
        *data = said.into();
    }

    fn subscribe(&mut self, client: usize) {
        if self.clients[client].0.is_some() {
            return;
        }
        self.epochs += 1;
        let made: Arc<str> = format!("made{}", self.epochs).into();
        let place = (&name(), Self::shard(client));
        let epoch = self.poller.subscribe(self.now_ms, place, &rules(self.versioned), || made);
        self.clients[client].0 = Some(epoch);
    }

    fn track(&mut self, client: usize, key: &str) {
        self.subscribe(client);
        let known = self.clients[client].1.get(key).cloned().unwrap_or_default();
        let place = (&name(), Self::shard(client));
        let mut room = self.rng.below(2) as usize * 100;
        let asked = (key, known.version);
        let tracked = self.poller.track(self.now_ms, place, asked, (1000, &mut room)).unwrap();
        let mut seen = Seen { marked: known.version, behind: tracked.behind, ..known };
        if let Some((version, data)) = tracked.have {
            assert!(version > seen.version);
            (seen.version, seen.marked, seen.data) = (version, version, data);
        }
        self.clients[client].1.insert(key.to_owned(), seen);
    }

    fn untrack(&mut self, client: usize, key: &str) {
        if self.clients[client].1.remove(key).is_some() {
            self.release(Self::shard(client), key);
        }
    }

    /// As a shard does when the last of its clients that track the key has gone.
    fn release(&mut self, shard: u16, key: &str) {
        let is_there =
            |(at, (_, keys)): (usize, &Client)| Self::shard(at) == shard && keys.contains_key(key);
        if !self.clients.iter().enumerate().any(is_there) {
            self.poller.untrack(self.now_ms, ("c", shard), key, 100);
        }
    }

    fn leave(&mut self, client: usize) {
        let keys: Vec<String> = self.clients[client].1.keys().cloned().collect();
        keys.iter().for_each(|key| self.untrack(client, key));
        self.clients[client].0 = None;
        let shard = Self::shard(client);
        let is_there =
            |(at, (epoch, _)): (usize, &Client)| Self::shard(at) == shard && epoch.is_some();
        if !self.clients.iter().enumerate().any(is_there) {
            self.poller.unsubscribe(self.now_ms, "c", shard, 100);
        }
    }

    fn turn(&mut self) {
        let versioned = self.versioned;
        for ask in turn(&mut self.poller, self.now_ms, versioned) {
            assert!(!ask.keys.is_empty() && ask.keys.len() <= 2);
            for (key, _) in &ask.keys {
                let under_way = self.calls.iter().flat_map(|(ask, _)| &ask.keys);
                assert!(!under_way.map(|(key, _)| key).any(|other| other == key), "twice");
            }
            let items = self.truth_for(&ask);
            self.calls.push((ask, items));
        }
        assert!(self.calls.len() <= LIMIT);
    }

    fn truth_for(&mut self, ask: &Ask) -> Items {
        let mut items = Vec::new();
        for (key, known) in &ask.keys {
            let key: String = (**key).into();
            match self.truth.get(&key) {
                Some((version, data)) => {
                    let leaves_out = self.versioned && *version == *known;
                    let data = (!leaves_out).then(|| data.clone());
                    items.push(Item { key, data, version: *version, removed: false });
                }
                None if *known > 0 || self.gone.contains_key(&key) => {
                    items.push(Item { key, removed: true, ..Item::default() })
                }
                None => {}
            }
        }
        Items { epoch: self.epoch.clone(), items }
    }

    fn answer(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let at = self.below(self.calls.len());
        let (ask, items) = self.calls.swap_remove(at);
        let answer = (self.below(5) > 0).then_some(items);
        self.take(ask.call, answer);
    }

    fn take(&mut self, call: u64, answer: Option<Items>) {
        let rules = rules(self.versioned);
        let outcome = self.poller.answered(self.now_ms, call, answer, &rules);
        self.tell(outcome.news);
    }

    fn tell(&mut self, news: Vec<News>) {
        for each in news {
            match each {
                News::Reset { shards, epoch, .. } => {
                    for client in 0..self.clients.len() {
                        let told = shards.contains(&Self::shard(client));
                        let (known, _) = &self.clients[client];
                        assert!(told || known.is_none(), "a subscriber is not told");
                        if known.is_some() && *known != Some(Arc::clone(&epoch)) {
                            // It subscribes again, and has nothing then.
                            let keys: Vec<String> =
                                self.clients[client].1.keys().cloned().collect();
                            self.leave(client);
                            keys.iter().for_each(|key| self.track(client, key));
                        }
                    }
                }
                News::Update { shards, key, update, .. } => self.update(&shards, &key, &update),
            }
        }
    }

    fn update(&mut self, shards: &[u16], key: &str, update: &Update) {
        for client in 0..self.clients.len() {
            let Some(seen) = self.clients[client].1.get_mut(key) else { continue };
            let (version, data) = match update {
                Update::Removed => {
                    self.clients[client].1.remove(key);
                    self.release(Self::shard(client), key);
                    continue;
                }
                Update::New { version, data } if seen.marked < *version => (*version, data),
                Update::Again { version, data } if seen.behind && seen.marked < *version => {
                    (*version, data)
                }
                _ => continue,
            };
            assert!(shards.contains(&Self::shard(client)), "a shard is not told");
            assert!(version > seen.version, "told {version} to who had {}", seen.version);
            (seen.version, seen.data, seen.behind) = (version, data.clone(), false);
        }
    }

    /// Everything goes to another process, whose clock shows something else.
    fn restart(&mut self) {
        let now = Now { mono_ms: self.now_ms, unix_ms: 0 };
        let mut out = Writer::new(Vec::new(), now);
        self.poller.put_fields(&mut out);
        let bytes = out.into_bytes();
        self.now_ms += 77;
        let now = Now { mono_ms: self.now_ms, unix_ms: 0 };
        self.allowance = Allowance::new(1 << 16);
        self.poller = Poller::new(Arc::clone(&self.allowance));
        // What the old process had asked comes to nothing.
        self.calls.clear();
        let before = self.rng.below(2) == 0;
        if before {
            self.seat();
        }
        self.poller.take_fields(Fields::new(&bytes, 0, "a test", now)).unwrap();
        if !before {
            self.seat();
        }
    }

    fn seat(&mut self) {
        for (client, (epoch, keys)) in self.clients.iter().enumerate() {
            let place = (&name(), Self::shard(client));
            if epoch.is_some() {
                self.poller.seat(self.now_ms, place);
            }
            for key in keys.keys() {
                self.poller.seat_key(self.now_ms, place, key, 1000).unwrap();
            }
        }
    }

    /// No more happens: everybody must have what is true.
    fn settle(&mut self, what: &str) {
        for _ in 0..1000 {
            for (ask, _) in std::mem::take(&mut self.calls) {
                let items = self.truth_for(&ask);
                self.take(ask.call, Some(items));
            }
            self.turn();
            self.now_ms += 100;
        }
        for (client, (_, keys)) in self.clients.iter().enumerate() {
            for (key, seen) in keys {
                let (version, data) = self.truth.get(key).cloned().unwrap_or_default();
                let known = if self.versioned { seen.version } else { version };
                assert_eq!((known, &seen.data), (version, &data), "{what}: client {client}, {key}");
            }
        }
    }
}

#[test]
fn everybody_ends_with_what_is_true_whatever_happened() {
    for seed in 0..400 {
        let versioned = seed % 2 == 0;
        let mut world = World::new(seed, versioned);
        for _ in 0..300 {
            world.step();
        }
        world.settle(&format!("seed {seed}"));
        for client in 0..6 {
            world.leave(client);
        }
        for _ in 0..10 {
            for (ask, _) in std::mem::take(&mut world.calls) {
                world.take(ask.call, None);
            }
            world.now_ms += 1000;
            world.turn();
        }
        let left = (world.poller.sizes(), world.poller.next_due(LIMIT), world.allowance.used());
        assert_eq!(left, ((0, 0, 0), None, 0), "seed {seed}");
    }
}
