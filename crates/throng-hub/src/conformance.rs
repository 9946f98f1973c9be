//! What every broker must do, as a suite that a broker's own tests run.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::broker::{Broker, BrokerEvent, Op, Open, Outcome, Read, Released, Step};
use crate::event::{Flight, Item};
use crate::publication::{ChannelName, ClientInfo, Position, Publication};
use crate::request::{
    HistoryPage, HistoryQuery, HubError, Now, PresenceStats, Publish, Published, Recover, Recovery,
    RecoveryMode, Retention, Since, Subscribed,
};

/// A broker on the bench, with nothing in it yet.
pub trait Rig {
    fn broker(&self) -> &dyn Broker;

    /// Waits until the broker has no more to say, and returns what it said, in order.
    fn said(&mut self) -> Vec<BrokerEvent>;

    /// The time now; a broker with a clock of its own gives that.
    fn now(&self) -> Now {
        Now::default()
    }
}

/// One thing that every broker must do.
pub type Check = fn(&mut Bench);

/// All of them, with their names.
pub const CHECKS: &[(&str, Check)] = &[
    ("offsets count from one, in order", offsets_count_from_one),
    ("what is released is readable", what_is_released_is_readable),
    ("a channel that keeps nothing gives no position", keeps_nothing),
    ("a position is there before the first publication", position_before_the_first),
    ("a returning subscriber gets what it missed", recovers),
    ("who needs only the latest gets that", recovers_the_latest),
    ("history goes both ways", history_goes_both_ways),
    ("a removed history keeps its position", removed_history_keeps_its_position),
    ("a repeated key is not published", repeated_key),
    ("an old version is not delivered", old_version),
    ("only followed channels are heard", only_followed_channels_are_heard),
    ("presence lists who is there", presence_lists),
    ("joins and leaves are told", joins_are_told),
];

/// Runs all checks, each with a broker of its own.
///
/// # Panics
///
/// At the first check that fails.
pub fn conformance(make: &dyn Fn() -> Box<dyn Rig>) {
    for (name, check) in CHECKS {
        let mut bench =
            Bench { name, rig: make(), next_op: 0, heard: Vec::new(), ends: Vec::new() };
        check(&mut bench);
        bench.settle();
        assert!(bench.ends.is_empty(), "{name}: each question is answered once");
    }
}

/// A broker under test, and what it said.
#[expect(missing_debug_implementations, reason = "a rig need not have one")]
pub struct Bench {
    name: &'static str,
    rig: Box<dyn Rig>,
    next_op: u64,
    heard: Vec<(ChannelName, Item)>,
    ends: Vec<(Op, Outcome)>,
}

const KEEP: Retention = Retention { size: 5, ttl_ms: 600_000, meta_ttl_ms: 600_000 };

fn news() -> ChannelName {
    "news".into()
}

fn text(data: &'static str) -> Publish {
    Publish {
        channel: news(),
        data: Bytes::from_static(data.as_bytes()),
        info: None,
        tags: Box::default(),
        draw: None,
        skip_history: false,
        delta: false,
        idempotency_key: None,
        version: 0,
        version_epoch: "".into(),
        retention: KEEP,
    }
}

fn info(client: u128, user: &str) -> Arc<ClientInfo> {
    let client = Uuid::from_u128(client);
    Arc::new(ClientInfo { user: user.into(), client, conn_info: None, chan_info: None })
}

fn texts(publications: &[Arc<Publication>]) -> Vec<String> {
    let text = |one: &Arc<Publication>| String::from_utf8_lossy(&one.data).into_owned();
    publications.iter().map(text).collect()
}

impl Bench {
    fn settle(&mut self) {
        for event in self.rig.said() {
            match event {
                BrokerEvent::Item { channel, item } => self.heard.push((channel, item)),
                BrokerEvent::Done { op, outcome } => self.ends.push((op, outcome)),
                BrokerEvent::Lost { channel } => panic!("{}: lost {channel}", self.name),
            }
        }
    }

    fn op(&mut self) -> Op {
        self.next_op += 1;
        Op(self.next_op)
    }

    fn end(&mut self, op: Op) -> Outcome {
        self.settle();
        let at = self.ends.iter().position(|(other, _)| *other == op);
        self.ends.swap_remove(at.expect("a question is answered")).1
    }

    fn publish(&mut self, publish: Publish) -> Option<Position> {
        let op = self.op();
        let channel = ChannelName::clone(&publish.channel);
        let result: Result<Published, _> =
            match self.rig.broker().publish(op, publish, self.rig.now()) {
                Step::Done(result) => result.map(|Released { published, flight }| {
                    self.heard.extend(flight.map(|flight| (channel, Item::Publication(flight))));
                    published
                }),
                Step::Later => match self.end(op) {
                    Outcome::Published(result) => result,
                    other => panic!("{}: {other:?}", self.name),
                },
            };
        result.expect("a publish succeeds").position
    }

    fn open(&mut self, recover: Option<Recover>) -> Subscribed {
        let op = self.op();
        let channel = &news();
        let open = Open { channel, recover: recover.as_ref(), positioned: true, retention: KEEP };
        let result = match self.rig.broker().subscribe(op, open, self.rig.now()) {
            Step::Done(result) => result,
            Step::Later => match self.end(op) {
                Outcome::Subscribed(result) => result,
                other => panic!("{}: {other:?}", self.name),
            },
        };
        result.expect("a subscribe succeeds")
    }

    fn recover(&mut self, recover: Recover) -> Option<Vec<String>> {
        match self.open(Some(recover)).recovery {
            Recovery::Recovered(list) => Some(texts(&list)),
            Recovery::NotRecovered => None,
            Recovery::NotAsked => panic!("{}: recovery was asked for", self.name),
        }
    }

    fn read(&mut self, query: &HistoryQuery) -> Result<HistoryPage, HubError> {
        let op = self.op();
        let channel = &news();
        let read = Read { channel, query, retention: KEEP };
        match self.rig.broker().history(op, read, self.rig.now()) {
            Step::Done(result) => result,
            Step::Later => match self.end(op) {
                Outcome::History(result) => result,
                _ => Err(HubError::Broker),
            },
        }
    }

    fn all(&mut self) -> HistoryPage {
        self.read(&all()).expect("a history without conditions is read")
    }

    fn remove_history(&mut self) {
        let op = self.op();
        match self.rig.broker().remove_history(op, &news(), self.rig.now()) {
            Step::Done(result) => result.expect("a history is removed"),
            Step::Later => match self.end(op) {
                Outcome::HistoryRemoved(result) => result.expect("a history is removed"),
                other => panic!("{}: {other:?}", self.name),
            },
        }
    }

    fn presence(&mut self) -> (Vec<Arc<ClientInfo>>, PresenceStats) {
        let (list, stats) = (self.op(), self.op());
        let clients = match self.rig.broker().presence(list, &news(), self.rig.now()) {
            Step::Done(result) => result,
            Step::Later => match self.end(list) {
                Outcome::Presence(result) => result,
                other => panic!("{}: {other:?}", self.name),
            },
        };
        let counts = match self.rig.broker().presence_stats(stats, &news(), self.rig.now()) {
            Step::Done(result) => result,
            Step::Later => match self.end(stats) {
                Outcome::PresenceStats(result) => result,
                other => panic!("{}: {other:?}", self.name),
            },
        };
        (clients.expect("presence is read"), counts.expect("presence is counted"))
    }

    fn announce(&mut self, item: Item) {
        let now_told = self.rig.broker().announce(&news(), item);
        self.heard.extend(now_told.map(|item| (news(), item)));
    }

    /// What was released since the last call, each once.
    fn heard(&mut self) -> Vec<String> {
        self.settle();
        let mut last = 0;
        let mut heard = Vec::new();
        for (_, item) in std::mem::take(&mut self.heard) {
            match item {
                Item::Publication(Flight { publication, .. }) => {
                    // Again is allowed; only what is new must be in order.
                    if publication.offset > last || publication.offset == 0 {
                        heard.extend(texts(std::slice::from_ref(&publication)));
                        last = last.max(publication.offset);
                    }
                }
                Item::Join(info) => heard.push(format!("+{}", info.user)),
                Item::Leave(info) => heard.push(format!("-{}", info.user)),
            }
        }
        heard
    }
}

fn all() -> HistoryQuery {
    HistoryQuery { bytes_max: 1 << 20, ..HistoryQuery::default() }
}

fn since(position: Position, offset: u64) -> Recover {
    let mode = RecoveryMode::Stream;
    Recover { epoch: position.epoch.into(), offset, mode, limit: 100, bytes_max: 1 << 20 }
}

fn offsets_count_from_one(bench: &mut Bench) {
    bench.open(None);
    let first = bench.publish(text("a")).expect("a position");
    let second = bench.publish(text("b")).expect("a position");
    assert_eq!((first.offset, second.offset), (1, 2));
    assert_eq!(first.epoch, second.epoch);
    assert_eq!(bench.heard(), ["a", "b"]);
}

fn what_is_released_is_readable(bench: &mut Bench) {
    bench.open(None);
    let position = bench.publish(text("a")).expect("a position");
    assert_eq!(bench.heard(), ["a"]);
    let page = bench.all();
    assert_eq!((texts(&page.publications), page.position), (vec!["a".to_owned()], position));
    assert_eq!(page.publications[0].offset, 1);
}

fn keeps_nothing(bench: &mut Bench) {
    bench.open(None);
    assert_eq!(bench.publish(Publish { retention: Retention::default(), ..text("a") }), None);
    assert_eq!(bench.publish(Publish { skip_history: true, ..text("b") }), None);
    assert_eq!(bench.heard(), ["a", "b"]);
    assert!(bench.all().publications.is_empty());
}

fn position_before_the_first(bench: &mut Bench) {
    let position = bench.open(None).position.expect("a position was asked for");
    assert_eq!(position.offset, 0);
    assert_eq!(bench.publish(text("a")).map(|first| first.epoch), Some(position.epoch));
}

fn recovers(bench: &mut Bench) {
    let mut position = bench.open(None).position.expect("a position was asked for");
    for data in ["a", "b", "c", "d", "e", "f", "g"] {
        position = bench.publish(text(data)).expect("a position");
    }
    let check = |bench: &mut Bench, recover: Recover, wanted: Option<&[&str]>| {
        let got = bench.recover(recover.clone());
        let wanted = wanted.map(|list| list.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(got, wanted, "{recover:?}");
    };
    check(bench, since(position, 5), Some(&["f", "g"]));
    check(bench, since(position, 7), Some(&[]));
    check(bench, since(position, 2), Some(&["c", "d", "e", "f", "g"]));
    check(bench, since(position, 1), None);
    check(bench, since(position, 8), None);
    check(bench, Recover { epoch: "".into(), ..since(position, 6) }, Some(&["g"]));
    check(bench, Recover { epoch: "strange!".into(), ..since(position, 6) }, None);
    check(bench, Recover { limit: 1, ..since(position, 5) }, None);
    check(bench, Recover { bytes_max: 1, ..since(position, 5) }, None);
}

fn recovers_the_latest(bench: &mut Bench) {
    let empty = bench.open(None).position.expect("a position was asked for");
    let latest = |offset| Recover { mode: RecoveryMode::Cache, ..since(empty, offset) };
    assert_eq!(bench.recover(latest(0)), None);
    bench.publish(text("a"));
    bench.publish(text("b"));
    assert_eq!(bench.recover(latest(0)), Some(vec!["b".to_owned()]));
    assert_eq!(bench.recover(latest(2)), Some(vec![]));
}

fn history_goes_both_ways(bench: &mut Bench) {
    let mut position = None;
    for data in ["a", "b", "c", "d", "e", "f", "g"] {
        position = bench.publish(text(data));
    }
    let epoch: Box<str> = position.expect("a position").epoch.into();
    let mut check = |limit, since: Option<u64>, reverse, wanted: &str| {
        let since = since.map(|offset| Since { offset, epoch: epoch.clone() });
        let query = HistoryQuery { limit, since, reverse, ..all() };
        let page = bench.read(&query).expect("a history is read");
        assert_eq!(texts(&page.publications).concat(), wanted, "{query:?}");
        assert_eq!(Some(page.position), position);
    };
    check(None, None, false, "cdefg");
    check(Some(0), None, false, "");
    check(Some(2), None, false, "cd");
    check(Some(2), None, true, "gf");
    check(None, Some(5), false, "fg");
    check(None, Some(7), false, "");
    check(None, Some(0), false, "cdefg");
    check(Some(2), Some(6), true, "ed");
    check(None, Some(3), true, "");
    check(None, Some(2), true, "");
    let strange = Some(Since { offset: 5, epoch: "strange!".into() });
    let error = bench.read(&HistoryQuery { since: strange, ..all() }).map(|page| page.position);
    assert_eq!(error, Err(HubError::UnrecoverablePosition));
    let nowhere = Some(Since { offset: 0, epoch: "".into() });
    let query = HistoryQuery { since: nowhere, reverse: true, ..all() };
    assert_eq!(bench.read(&query).map(|page| page.position), Err(HubError::BadSince));
}

fn removed_history_keeps_its_position(bench: &mut Bench) {
    let position = bench.publish(text("a"));
    bench.remove_history();
    let page = bench.all();
    assert_eq!((page.publications.len(), Some(page.position)), (0, position));
    assert_eq!(bench.publish(text("b")).map(|second| second.offset), Some(2));
}

fn repeated_key(bench: &mut Bench) {
    bench.open(None);
    let keyed = || Publish { idempotency_key: Some("k".into()), ..text("a") };
    let first = bench.publish(keyed());
    assert_eq!(bench.publish(keyed()), first);
    let elsewhere = Publish { channel: "sport".into(), ..keyed() };
    assert_eq!(bench.publish(elsewhere).map(|position| position.offset), Some(1));
    bench.heard.retain(|(channel, _)| **channel == *news());
    assert_eq!(bench.heard(), ["a"]);
}

fn old_version(bench: &mut Bench) {
    bench.open(None);
    let version =
        |version, epoch: &str, data| Publish { version, version_epoch: epoch.into(), ..text(data) };
    let first = bench.publish(version(5, "x", "a"));
    assert_eq!(bench.publish(version(5, "x", "b")), first);
    assert_eq!(bench.publish(version(4, "x", "c")), first);
    bench.publish(version(6, "x", "d"));
    bench.publish(version(1, "y", "e"));
    assert_eq!(bench.heard(), ["a", "d", "e"]);
}

fn only_followed_channels_are_heard(bench: &mut Bench) {
    bench.open(None);
    let now = bench.rig.now();
    bench.rig.broker().unsubscribe(&news(), now);
    bench.settle();
    bench.publish(text("a"));
    bench.heard();
    let position = bench.open(None).position.expect("a position was asked for");
    assert_eq!(position.offset, 1);
    bench.publish(text("b"));
    assert_eq!(bench.heard(), ["b"]);
}

fn presence_lists(bench: &mut Bench) {
    let now = bench.rig.now();
    for (client, user) in [(2, "ann"), (1, "bob"), (3, "ann")] {
        bench.rig.broker().enter(&news(), &info(client, user), now);
    }
    bench.settle();
    let (clients, stats) = bench.presence();
    assert_eq!(clients, [info(1, "bob"), info(2, "ann"), info(3, "ann")]);
    assert_eq!(stats, PresenceStats { clients: 3, users: 2 });
    bench.rig.broker().leave(&news(), Uuid::from_u128(2), now);
    bench.settle();
    let (clients, stats) = bench.presence();
    assert_eq!(clients, [info(1, "bob"), info(3, "ann")]);
    assert_eq!(stats, PresenceStats { clients: 2, users: 2 });
}

fn joins_are_told(bench: &mut Bench) {
    bench.open(None);
    bench.announce(Item::Join(info(1, "ann")));
    bench.announce(Item::Leave(info(1, "ann")));
    assert_eq!(bench.heard(), ["+ann", "-ann"]);
}

#[cfg(test)]
mod tests {
    use super::{Broker, BrokerEvent, Now, Rig, conformance};
    use crate::late::{Habits, Late};
    use crate::memory::Memory;

    impl Rig for Memory {
        fn broker(&self) -> &dyn Broker {
            self
        }

        fn said(&mut self) -> Vec<BrokerEvent> {
            Vec::new()
        }
    }

    impl Rig for Late {
        fn broker(&self) -> &dyn Broker {
            self
        }

        fn said(&mut self) -> Vec<BrokerEvent> {
            let mut said = Vec::new();
            while !self.is_quiet() {
                said.extend(self.turn(Now::default()));
            }
            said
        }
    }

    #[test]
    fn the_broker_in_memory_conforms() {
        conformance(&|| Box::new(Memory::new(2, 7)));
    }

    #[test]
    fn the_late_broker_conforms() {
        for seed in 0..50 {
            let habits = Habits { repeats: 3, losses: 0 };
            conformance(&|| Box::new(Late::new(seed, habits)));
        }
    }
}
