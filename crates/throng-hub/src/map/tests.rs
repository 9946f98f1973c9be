//! Maps against a simple model: a client that comes page by page and goes live has what the model
//! has, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::{ProptestConfig, any, proptest};
use uuid::Uuid;

use super::{
    Ask, Call, ChangesQuery, Enter, Entered, Full, KeyMode, MapAnswer, Page, Removal, Rules,
    StateQuery, Suppressed, Tags, Way, Write, Written,
};
use crate::event::{Event, Item, Mailbox};
use crate::memory::Memory;
use crate::node::{Node, NodeSetup};
use crate::publication::{ChannelName, Position, Publication};
use crate::random::Random;
use crate::request::{Answer, HubError, Now, ReplyTo, Request, Retention, Unsubscribe};
use crate::state::sealed::{self, Piece};

const TAGS: Tags = Tags { map: 1, key: 2 };

fn rules(recoverable: bool) -> Rules {
    Rules {
        recoverable,
        key_ttl_ms: 10_000,
        changes: Retention { size: 20, ttl_ms: 60_000, meta_ttl_ms: 100_000 },
        keys_max: 1_000_000,
        bytes_max: usize::MAX,
    }
}

#[derive(Debug, Default)]
struct Letters(Mutex<Vec<Event>>);

impl Mailbox for Letters {
    fn put(&self, event: Event) {
        self.0.lock().push(event);
    }
}

struct Bench {
    node: Node,
    letters: Arc<Letters>,
    now: Now,
    rules: Rules,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let letters = Arc::<Letters>::default();
        let node = Self::node(&letters, 7);
        Self { node, letters, now: Now { mono_ms: 0, unix_ms: 1_000 }, rules }
    }

    fn node(letters: &Arc<Letters>, seed: u64) -> Node {
        let mailboxes = vec![Arc::clone(letters) as Arc<dyn Mailbox>];
        let broker = Arc::new(Memory::new(4, seed));
        Node::new(NodeSetup { mailboxes, broker, partitions: 4, seed })
    }

    fn call(&self, ask: Ask) {
        let call = Call { channel: "map".into(), rules: self.rules, ask, quiet: false };
        let to = ReplyTo { mailbox: 0, slot: 0, number: 1, ticket: 0 };
        self.node.call(Request::Map(Box::new(call)), to, self.now);
    }

    /// What was put into the mailbox since the last look.
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.letters.0.lock())
    }

    /// The answer, and leaves in the mailbox what is not it.
    fn ask(&self, ask: Ask) -> Answer {
        self.call(ask);
        let mut letters = self.letters.0.lock();
        let at = letters.iter().position(|event| matches!(event, Event::Answer { .. }));
        match at.map(|at| letters.remove(at)) {
            Some(Event::Answer { answer, .. }) => answer,
            other => panic!("no answer but {other:?}"),
        }
    }

    #[expect(clippy::panic_in_result_fn, reason = "another answer is a failed test")]
    fn written(&self, ask: Ask) -> Result<Written, HubError> {
        match self.ask(ask) {
            Answer::Map(MapAnswer::Written(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    #[expect(clippy::panic_in_result_fn, reason = "another answer is a failed test")]
    fn page(&self, ask: Ask) -> Result<Page, HubError> {
        match self.ask(ask) {
            Answer::Map(MapAnswer::Page(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    #[expect(clippy::panic_in_result_fn, reason = "another answer is a failed test")]
    fn enter(&self, way: Way, page: usize) -> Result<Entered, HubError> {
        match self.ask(Ask::Enter(enter(way, page))) {
            Answer::Entered { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap();
        self.node.sweep(self.now);
    }

    /// Another process goes on.
    fn move_on(&mut self, seed: u64) {
        assert!(self.take().is_empty(), "everything was read");
        let mut out = sealed::begin(Piece::Common, self.now, 1024);
        self.node.put_maps(TAGS, &mut out);
        let bytes = sealed::seal(out);
        let node = Self::node(&self.letters, seed);
        let loaded = sealed::open(&bytes, Piece::Common, self.now, |mut fields| {
            while let Some(field) = fields.field()? {
                match field.tag {
                    1 => node.take_map(&field)?,
                    _ => node.take_map_key(&field)?,
                }
            }
            Ok(())
        });
        loaded.unwrap();
        assert_eq!(node.map_bytes(), self.node.map_bytes(), "all room is accounted for");
        self.node = node;
    }
}

fn enter(way: Way, page: usize) -> Enter {
    Enter {
        client: Uuid::from_u128(1),
        info: None,
        presence: false,
        announce: false,
        way,
        page,
        bytes_max: 1 << 20,
        live_max: 1000,
    }
}

fn first() -> Way {
    Way::State { cursor: Box::default(), frozen: None }
}

fn write(key: &str, data: &str) -> Write {
    Write { key: key.into(), data: data.to_owned().into(), ..Write::default() }
}

fn removal(key: &str) -> Removal {
    Removal { key: key.into(), ..Removal::default() }
}

fn since(position: Position, offset: u64) -> Way {
    Way::Changes { since: offset, epoch: position.epoch.into(), start: None }
}

/// What a client has.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Picture(BTreeMap<String, String>);

impl Picture {
    fn take(&mut self, change: &Publication) {
        let keyed = change.keyed.as_ref().expect("what is in a map has a key");
        if keyed.removed {
            self.0.remove(&*keyed.key);
        } else {
            let data = String::from_utf8(change.data.to_vec()).unwrap();
            self.0.insert(keyed.key.to_string(), data);
        }
    }

    fn take_all(&mut self, changes: &[Arc<Publication>]) {
        changes.iter().for_each(|change| self.take(change));
    }
}

/// A client on its way, or there.
#[derive(Debug)]
enum Client {
    Away { last: Option<(Position, Picture)> },
    Going { way: Way, frozen: Position, picture: Picture, changes: Vec<Arc<Publication>> },
    There { picture: Picture, at: Position },
}

impl Client {
    /// Its next step.
    fn step(self, bench: &Bench, page: usize) -> Self {
        match self {
            Self::There { .. } => self,
            Self::Away { last: None } => {
                Self::stepped(bench.enter(first(), page), Picture::default(), Vec::new(), None)
            }
            Self::Away { last: Some((at, picture)) } if bench.rules.recoverable => {
                let way = Way::Changes { since: at.offset, epoch: at.epoch.into(), start: None };
                Self::stepped(bench.enter(way, page), picture, Vec::new(), Some(at))
            }
            Self::Away { last: Some(_) } => Self::Away { last: None },
            Self::Going { way, frozen, picture, changes } => {
                Self::stepped(bench.enter(way, page), picture, changes, Some(frozen))
            }
        }
    }

    fn stepped(
        entered: Result<Entered, HubError>,
        mut picture: Picture,
        mut changes: Vec<Arc<Publication>>,
        frozen: Option<Position>,
    ) -> Self {
        match entered {
            Err(HubError::UnrecoverablePosition) => Self::Away { last: None },
            Err(error) => panic!("{error:?}"),
            Ok(Entered::State { page, cursor, frozen: stands }) => {
                assert!(frozen.is_none_or(|frozen| frozen == stands), "frozen at the first page");
                picture.take_all(&page);
                let way = match cursor {
                    Some(cursor) => {
                        Way::State { cursor: cursor.as_ref().into(), frozen: Some(stands) }
                    }
                    None => since(stands, stands.offset),
                };
                Self::Going { way, frozen: stands, picture, changes }
            }
            Ok(Entered::Changes { page, offset, epoch, start }) => {
                changes.extend(page);
                let way = Way::Changes { since: offset, epoch: epoch.into(), start: Some(start) };
                let frozen = frozen.unwrap_or(Position { offset, epoch });
                Self::Going { way, frozen, picture, changes }
            }
            Ok(Entered::Live { state, changes: last, position }) => {
                picture.take_all(&state);
                picture.take_all(&changes);
                picture.take_all(&last);
                Self::There { picture, at: position }
            }
        }
    }

    /// Reads its mailbox.
    fn hear(&mut self, bench: &Bench) {
        for event in bench.take() {
            let Self::There { picture, at } = self else { continue };
            match event {
                Event::Channel { item: Item::Publication(flight), .. } => {
                    let change = flight.publication;
                    assert_eq!(change.offset, at.offset + 1, "no gap and no repeat");
                    at.offset = change.offset;
                    picture.take(&change);
                }
                Event::Insufficient { .. } => {
                    leave(bench);
                    *self = Self::Away { last: None };
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn leave(bench: &Bench) {
    let leave = Unsubscribe {
        channel: ChannelName::from("map"),
        client: Uuid::from_u128(1),
        presence: false,
        announce: false,
        info: None,
    };
    let to = ReplyTo { mailbox: 0, slot: 0, number: 1, ticket: 0 };
    bench.node.call(Request::Unsubscribe(leave), to, bench.now);
}

/// What the map should have: value and end.
#[derive(Default)]
struct Model(BTreeMap<String, (String, u64)>);

impl Model {
    fn now(&mut self, now: Now) {
        self.0.retain(|_, (_, end_ms)| *end_ms > now.mono_ms);
    }

    fn publish(&mut self, bench: &Bench, key: String, value: String, mode: KeyMode) {
        let known = self.0.contains_key(&key);
        let writes = match mode {
            KeyMode::Always => true,
            KeyMode::IfNew => !known,
            KeyMode::IfExists => known,
        };
        let write = Write { mode, ..write(&key, &value) };
        let written = bench.written(Ask::Publish(write)).unwrap();
        assert_eq!(written.suppressed.is_none(), writes, "{mode:?} where known: {known}");
        if writes {
            self.0.insert(key, (value, bench.now.mono_ms + bench.rules.key_ttl_ms));
        }
    }

    fn picture(&self) -> Picture {
        let values = self.0.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        Picture(values.collect())
    }
}

/// One client, and everything that may happen meanwhile.
fn run(seed: u64, recoverable: bool) {
    let mut random = Random::new(seed);
    let mut below = move |count: u64| random.next() % count;
    let mut bench = Bench::new(rules(recoverable));
    let (mut model, mut client) = (Model::default(), Client::Away { last: None });
    let mut arrivals = 0;
    for round in 0..400_u64 {
        let key = format!("k{:02}", below(30));
        model.now(bench.now);
        match below(14) {
            0..=4 => {
                let mode = match below(4) {
                    0 => KeyMode::IfNew,
                    1 => KeyMode::IfExists,
                    _ => KeyMode::Always,
                };
                model.publish(&bench, key, format!("{round}"), mode);
            }
            5 | 6 => {
                let written = bench.written(Ask::Remove(removal(&key))).unwrap();
                let was = model.0.remove(&key).is_some();
                assert_eq!(written.suppressed.is_none(), was);
            }
            7 => bench.pass(below(3_000)),
            8 if below(20) == 0 => {
                drop(bench.ask(Ask::Clear));
                model.0.clear();
            }
            9 if below(10) == 0 => {
                client.hear(&bench);
                // Whoever is there comes with its shard.
                let there = matches!(client, Client::There { .. });
                bench.move_on(seed ^ round);
                if let (true, Client::There { at, .. }) = (there, &client) {
                    bench.node.seat(&"map".into(), 0, 1, Some(*at));
                }
            }
            10 if below(6) == 0 => {
                client.hear(&bench);
                if let Client::There { at, picture } = client {
                    leave(&bench);
                    client = Client::Away { last: Some((at, picture)) };
                }
            }
            _ => {
                let page = 1 + usize::try_from(below(9)).unwrap();
                client = client.step(&bench, page);
                arrivals += usize::from(matches!(client, Client::There { .. }));
            }
        }
        // What is over in the model is over in the map one sweep later.
        bench.pass(0);
        model.now(bench.now);
        client.hear(&bench);
        if let Client::There { picture, .. } = &client {
            assert_eq!(*picture, model.picture(), "after {round} rounds");
        }
        let count = match bench.ask(Ask::Count) {
            Answer::Map(MapAnswer::Count(count)) => count,
            other => panic!("{other:?}"),
        };
        assert_eq!(count, model.0.len());
    }
    assert!(arrivals > 0, "it came at least once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn who_came_page_by_page_has_what_the_map_has(seed in any::<u64>()) {
        run(seed, true);
    }

    #[test]
    fn the_same_where_nothing_can_be_recovered(seed in any::<u64>()) {
        run(seed, false);
    }
}

#[test]
fn keys_come_in_the_order_of_their_bytes_and_pages_of_one_bring_all() {
    let bench = Bench::new(rules(true));
    for key in ["b", "a", "Z", "ab", "ä"] {
        bench.written(Ask::Publish(write(key, key))).unwrap();
    }
    let (mut cursor, mut keys) = (Box::<str>::default(), Vec::new());
    loop {
        let query = StateQuery { cursor, limit: Some(1), bytes_max: 1000, ..StateQuery::default() };
        let page = bench.page(Ask::State(query)).unwrap();
        keys.extend(
            page.publications.iter().map(|one| one.keyed.as_ref().unwrap().key.to_string()),
        );
        match page.cursor {
            Some(last) => cursor = last.as_ref().into(),
            None => break,
        }
    }
    assert_eq!(keys, ["Z", "a", "ab", "b", "ä"]);
}

#[test]
fn ten_thousand_keys_come_in_pages_bounded_by_bytes_too() {
    let mut bench = Bench::new(Rules { key_ttl_ms: 0, ..rules(false) });
    for at in 0..10_000 {
        bench.written(Ask::Publish(write(&format!("{at:05}"), &"x".repeat(100)))).unwrap();
    }
    bench.pass(61_000);
    let mut client = Client::Away { last: None };
    let mut steps = 0;
    while !matches!(client, Client::There { .. }) {
        client = client.step(&bench, 1_000);
        steps += 1;
    }
    let Client::There { picture, .. } = client else { unreachable!() };
    assert_eq!((picture.0.len(), steps), (10_000, 10));
    let query = StateQuery { limit: None, bytes_max: 1_000, ..StateQuery::default() };
    let page = bench.page(Ask::State(query)).unwrap();
    assert!((1..12).contains(&page.publications.len()) && page.cursor.is_some());
    let query = StateQuery { limit: None, bytes_max: 0, ..StateQuery::default() };
    assert_eq!(bench.page(Ask::State(query)).unwrap().publications.len(), 1);
}

#[test]
fn what_changes_nothing_says_why() {
    let mut bench = Bench::new(rules(true));
    let suppressed = |bench: &Bench, ask| bench.written(ask).unwrap().suppressed;
    let publish = |write| Ask::Publish(write);
    assert_eq!(suppressed(&bench, Ask::Remove(removal("a"))), Some(Suppressed::KeyNotFound));
    let if_exists = || Write { mode: KeyMode::IfExists, ..write("a", "1") };
    assert_eq!(suppressed(&bench, publish(if_exists())), Some(Suppressed::KeyNotFound));
    let versioned =
        |version, epoch: &str| Write { version, version_epoch: epoch.into(), ..write("a", "2") };
    assert_eq!(suppressed(&bench, publish(versioned(5, "x"))), None);
    assert_eq!(suppressed(&bench, publish(versioned(5, "x"))), Some(Suppressed::Version));
    assert_eq!(suppressed(&bench, publish(versioned(4, ""))), Some(Suppressed::Version));
    assert_eq!(suppressed(&bench, publish(versioned(1, "y"))), None, "another epoch begins anew");
    assert_eq!(suppressed(&bench, publish(write("a", "3"))), None, "without a version");
    assert_eq!(suppressed(&bench, publish(versioned(1, "y"))), Some(Suppressed::Version));
    let if_new = || Write { mode: KeyMode::IfNew, ..write("a", "4") };
    assert_eq!(suppressed(&bench, publish(if_new())), Some(Suppressed::KeyExists));
    let keyed = || Write { idempotency_key: Some("once".into()), ..write("b", "1") };
    let first = bench.written(publish(keyed())).unwrap();
    let again = bench.written(publish(keyed())).unwrap();
    assert_eq!((first.suppressed, again.suppressed), (None, Some(Suppressed::Idempotency)));
    assert_eq!(first.position, again.position);
    bench.take();
    bench.move_on(9);
    let again = bench.written(publish(keyed())).unwrap();
    assert_eq!(again.suppressed, Some(Suppressed::Idempotency), "another process knows it");
}

#[test]
fn a_key_lives_on_when_it_is_published_or_kept_alive() {
    let mut bench = Bench::new(rules(true));
    let alive = |bench: &Bench| matches!(bench.ask(Ask::Count), Answer::Map(MapAnswer::Count(1)));
    bench.written(Ask::Publish(write("a", "1"))).unwrap();
    bench.pass(9_000);
    bench.written(Ask::Publish(write("a", "2"))).unwrap();
    bench.pass(9_000);
    let keeping = |keeps_alive| Write { keeps_alive, mode: KeyMode::IfNew, ..write("a", "3") };
    bench.written(Ask::Publish(keeping(true))).unwrap();
    bench.pass(9_000);
    assert!(alive(&bench));
    bench.written(Ask::Publish(keeping(false))).unwrap();
    bench.pass(1_000);
    assert!(!alive(&bench));
    let page =
        bench.page(Ask::Changes(ChangesQuery { bytes_max: 1_000, ..ChangesQuery::default() }));
    let removed: Vec<_> = page
        .unwrap()
        .publications
        .iter()
        .map(|change| (change.offset, change.keyed.as_ref().unwrap().removed))
        .collect();
    assert_eq!(removed, [(1, false), (2, false), (3, true)], "the end is a change");
}

#[test]
fn a_map_takes_no_more_than_it_may() {
    let small = Rules { keys_max: 2, bytes_max: 5_000, key_ttl_ms: 0, ..rules(true) };
    let bench = Bench::new(small);
    let full = |full| Err(HubError::MapFull(full));
    bench.written(Ask::Publish(write("a", "1"))).unwrap();
    bench.written(Ask::Publish(write("b", "1"))).unwrap();
    assert_eq!(bench.written(Ask::Publish(write("c", "1"))), full(Full::Keys));
    bench.written(Ask::Publish(write("b", "2"))).unwrap();
    let large = "x".repeat(5_000);
    assert_eq!(bench.written(Ask::Publish(write("b", &large))), full(Full::Bytes));
    bench.node.limit_maps(bench.node.map_bytes() + 1_000);
    assert_eq!(bench.written(Ask::Publish(write("b", &large[..900]))), full(Full::Node));
    bench.written(Ask::Remove(removal("a"))).unwrap();
    drop(bench.ask(Ask::Clear));
    assert_eq!(bench.node.map_bytes(), 0);
}

#[test]
fn a_cursor_or_a_position_of_another_life_is_told() {
    let bench = Bench::new(rules(true));
    for at in 0..30 {
        bench.written(Ask::Publish(write(&format!("k{at}"), "1"))).unwrap();
    }
    let Ok(Entered::State { cursor: Some(cursor), frozen, .. }) = bench.enter(first(), 5) else {
        panic!("there is more than one page")
    };
    let told = |result: Result<Entered, HubError>| {
        assert_eq!(result.map(|_| ()).unwrap_err(), HubError::UnrecoverablePosition);
    };
    drop(bench.ask(Ask::Clear));
    let cursor: Box<str> = cursor.as_ref().into();
    told(bench.enter(Way::State { cursor, frozen: Some(frozen) }, 5));
    told(bench.enter(since(frozen, 30), 5));
    let of_no_epoch = |since| Way::Live { since, epoch: Box::default() };
    told(bench.enter(of_no_epoch(0), 5));
    for at in 0..30 {
        bench.written(Ask::Publish(write(&format!("k{at}"), "1"))).unwrap();
    }
    let position = bench.page(Ask::State(StateQuery::default())).unwrap().position;
    let live = |since| Way::Live { since, epoch: position.epoch.into() };
    told(bench.enter(live(31), 5));
    told(bench.enter(live(9), 5));
    assert!(matches!(bench.enter(live(10), 5), Ok(Entered::Live { changes, .. })
        if changes.len() == 20));
    let query = StateQuery { frozen: Some((0, "another".into())), ..StateQuery::default() };
    assert_eq!(bench.page(Ask::State(query)).unwrap_err(), HubError::UnrecoverablePosition);
}

#[test]
fn a_map_that_nobody_uses_is_forgotten_and_one_that_is_followed_is_not() {
    let mut bench = Bench::new(Rules { key_ttl_ms: 0, ..rules(true) });
    bench.written(Ask::Publish(write("a", "1"))).unwrap();
    assert!(matches!(bench.enter(first(), 5), Ok(Entered::Live { .. })));
    let counted = |bench: &Bench| match bench.ask(Ask::Count) {
        Answer::Map(MapAnswer::Count(count)) => count,
        other => panic!("{other:?}"),
    };
    (0..8).for_each(|_| bench.pass(100_000));
    assert_eq!(counted(&bench), 1);
    leave(&bench);
    (0..8).for_each(|_| bench.pass(100_000));
    assert_eq!((counted(&bench), bench.node.map_bytes()), (0, 0));
}

#[test]
fn who_follows_reads_anew_after_a_new_epoch() {
    let bench = Bench::new(rules(true));
    bench.written(Ask::Publish(write("a", "1"))).unwrap();
    let before = bench.page(Ask::State(StateQuery::default())).unwrap().position;
    bench.node.begin_maps_anew();
    let live = Way::Live { since: before.offset, epoch: before.epoch.into() };
    assert!(bench.enter(live, 5).is_err());
    let Ok(Entered::Live { state, .. }) = bench.enter(first(), 5) else { panic!("one page") };
    assert_eq!(state.len(), 1);
}
