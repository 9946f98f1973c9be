use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Counts, Node, NodeSetup};
use crate::broker::{Broker, BrokerEvent};
use crate::event::{Event, Item, Mailbox};
use crate::late::{Habits, Late};
use crate::memory::Memory;
use crate::partition::{WAIT_MS_MAX, WAITING_MAX};
use crate::publication::{ClientInfo, Position, Publication};
use crate::request::{
    Answer, HistoryQuery, HubError, Now, Publish, Recover, Recovery, RecoveryMode, ReplyTo,
    Request, Retention, Since, Subscribe, Subscribed, Unsubscribe,
};

const KEEP: Retention = Retention { size: 10, ttl_ms: 10_000, meta_ttl_ms: 100_000 };

#[derive(Debug, Default)]
struct Letters(Mutex<Vec<Event>>);

impl Mailbox for Letters {
    fn put(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// A node with two mailboxes and a hand-turned clock.
struct Bench {
    node: Node,
    letters: Vec<Arc<Letters>>,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::before(Arc::new(Memory::new(4, 7)))
    }

    fn before(broker: Arc<dyn Broker>) -> Self {
        let letters: Vec<Arc<Letters>> = vec![Arc::default(), Arc::default()];
        let mailboxes = letters.iter().map(|one| Arc::clone(one) as Arc<dyn Mailbox>).collect();
        let node = Node::new(NodeSetup { mailboxes, broker, partitions: 4, seed: 7 });
        Self { node, letters, now: Now { mono_ms: 0, unix_ms: 1_000 } }
    }

    fn call(&self, mailbox: u16, request: Request) {
        let to = ReplyTo { mailbox, slot: 0, number: 1, ticket: 0 };
        self.node.call(request, to, self.now);
    }

    fn take(&self, mailbox: u16) -> Vec<Event> {
        std::mem::take(&mut self.letters[usize::from(mailbox)].0.lock())
    }

    fn ask(&self, request: Request) -> Answer {
        self.call(0, request);
        match self.take(0).pop() {
            Some(Event::Answer { answer, .. }) => answer,
            other => panic!("no answer but {other:?}"),
        }
    }

    fn publish(&self, publish: Publish) -> Option<Position> {
        match self.ask(Request::Publish(publish)) {
            Answer::Published(result) => result.unwrap().position,
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&self, subscribe: Subscribe) -> Subscribed {
        match self.ask(Request::Subscribe(subscribe)) {
            Answer::Subscribed { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[expect(clippy::panic_in_result_fn, reason = "another answer is a failed test")]
    fn history(&self, query: HistoryQuery) -> Result<(Vec<u64>, Position), HubError> {
        let channel = "news".into();
        match self.ask(Request::History { channel, query, retention: KEEP }) {
            Answer::History(result) => {
                result.map(|page| (offsets(&page.publications), page.position))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset).collect()
}

fn publication(data: &'static str) -> Publish {
    Publish {
        channel: "news".into(),
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

fn subscription(client: u128) -> Subscribe {
    Subscribe {
        channel: "news".into(),
        client: Uuid::from_u128(client),
        info: None,
        presence: false,
        announce: false,
        positioned: true,
        recover: None,
        retention: KEEP,
    }
}

fn since(offset: u64, epoch: &str) -> Recover {
    let mode = RecoveryMode::Stream;
    Recover { epoch: epoch.into(), offset, mode, limit: 100, bytes_max: 1000 }
}

fn info(client: u128, user: &str) -> Arc<ClientInfo> {
    let client = Uuid::from_u128(client);
    Arc::new(ClientInfo { user: user.into(), client, conn_info: None, chan_info: None })
}

fn all() -> HistoryQuery {
    HistoryQuery { bytes_max: 1000, ..HistoryQuery::default() }
}

/// What a mailbox was told, in short.
fn told(events: &[Event]) -> Vec<String> {
    let tell = |event: &Event| match event {
        Event::Channel { item: Item::Publication(flight), .. } => {
            format!("pub {}", flight.publication.offset)
        }
        Event::Channel { item: Item::Join(info), .. } => format!("join {}", info.user),
        Event::Channel { item: Item::Leave(info), .. } => format!("leave {}", info.user),
        Event::Answer { answer: Answer::Subscribed { result, .. }, .. } => match result {
            Ok(subscribed) => {
                format!("subscribed {:?}", subscribed.position.map(|position| position.offset))
            }
            Err(error) => format!("refused {error:?}"),
        },
        Event::Answer { answer: Answer::Published(_), .. } => "published".to_owned(),
        Event::Answer { .. } => "answer".to_owned(),
        Event::Insufficient { .. } => "insufficient".to_owned(),
    };
    events.iter().map(tell).collect()
}

#[test]
fn a_publication_goes_to_the_mailboxes_that_have_subscribers() {
    let bench = Bench::new();
    bench.call(1, Request::Subscribe(subscription(1)));
    bench.call(0, Request::Publish(publication("a")));
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)", "pub 1"]);
    assert_eq!(told(&bench.take(0)), ["published"]);
    assert_eq!(bench.node.counts(), Counts { channels: 1, subscriptions: 1 });
}

#[test]
fn the_answer_comes_before_the_join_and_the_leave_goes_to_who_stays() {
    let bench = Bench::new();
    let ann =
        Subscribe { info: Some(info(1, "ann")), announce: true, presence: true, ..subscription(1) };
    bench.call(0, Request::Subscribe(ann));
    let bob =
        Subscribe { info: Some(info(2, "bob")), announce: true, presence: true, ..subscription(2) };
    bench.call(1, Request::Subscribe(bob));
    assert_eq!(told(&bench.take(0)), ["subscribed Some(0)", "join ann", "join bob"]);
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)", "join bob"]);
    let Answer::Presence(Ok(present)) = bench.ask(Request::Presence { channel: "news".into() })
    else {
        panic!("no presence");
    };
    assert_eq!(present, [info(1, "ann"), info(2, "bob")]);
    let gone = Unsubscribe {
        channel: "news".into(),
        client: Uuid::from_u128(1),
        presence: true,
        announce: true,
        info: Some(info(1, "ann")),
    };
    bench.call(0, Request::Unsubscribe(gone));
    assert_eq!(told(&bench.take(0)), Vec::<String>::new());
    assert_eq!(told(&bench.take(1)), ["leave ann"]);
    let stats = bench.ask(Request::PresenceStats { channel: "news".into() });
    let Answer::PresenceStats(Ok(stats)) = stats else { panic!("no stats") };
    assert_eq!((stats.clients, stats.users), (1, 1));
}

#[test]
fn a_returning_subscriber_gets_what_it_missed() {
    let bench = Bench::new();
    let Some(first) = bench.publish(publication("a")) else { panic!("no position") };
    for data in ["b", "c"] {
        bench.publish(publication(data));
    }
    let recover = |recover: Recover| match bench
        .subscribe(Subscribe { recover: Some(recover), ..subscription(1) })
    {
        Subscribed { position: Some(Position { offset: 3, .. }), recovery } => match recovery {
            Recovery::Recovered(list) => Some(offsets(&list)),
            _ => None,
        },
        other => panic!("{other:?}"),
    };
    let epoch = first.epoch.as_str();
    assert_eq!(recover(since(1, epoch)), Some(vec![2, 3]));
    assert_eq!(recover(since(0, "")), Some(vec![1, 2, 3]));
    assert_eq!(recover(since(3, epoch)), Some(vec![]));
    assert_eq!(recover(since(4, epoch)), None);
    assert_eq!(recover(since(1, "elsewhen")), None);
    assert_eq!(recover(Recover { limit: 1, ..since(1, epoch) }), None);
    assert_eq!(recover(Recover { bytes_max: 1, ..since(1, epoch) }), None);
    let cache = |offset| Recover { mode: RecoveryMode::Cache, ..since(offset, epoch) };
    assert_eq!(recover(cache(1)), Some(vec![3]));
    assert_eq!(recover(cache(3)), Some(vec![]));
    assert_eq!(recover(Recover { epoch: "elsewhen".into(), ..cache(3) }), Some(vec![3]));
}

#[test]
fn the_position_outlives_the_publications_until_its_own_end() {
    let mut bench = Bench::new();
    let first = bench.publish(publication("a"));
    bench.now.mono_ms = KEEP.ttl_ms;
    let (kept, position) = bench.history(all()).unwrap();
    assert_eq!((kept, Some(position)), (vec![], first));
    bench.now.mono_ms += KEEP.meta_ttl_ms;
    let second = bench.publish(publication("b"));
    assert_eq!(second.map(|second| second.offset), Some(1));
    assert_ne!(second, first);
}

#[test]
fn a_removed_history_keeps_its_position() {
    let bench = Bench::new();
    let first = bench.publish(publication("a"));
    let removed = bench.ask(Request::RemoveHistory { channel: "news".into() });
    assert!(matches!(removed, Answer::HistoryRemoved(Ok(()))));
    let (kept, position) = bench.history(all()).unwrap();
    assert_eq!((kept, Some(position)), (vec![], first));
}

#[test]
fn a_repeated_key_is_answered_and_not_published() {
    let mut bench = Bench::new();
    bench.call(1, Request::Subscribe(subscription(1)));
    let keyed = || Publish { idempotency_key: Some("k".into()), ..publication("a") };
    let first = bench.publish(keyed());
    bench.publish(publication("b"));
    assert_eq!(bench.publish(keyed()), first);
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)", "pub 1", "pub 2"]);
    bench.now.mono_ms += 5 * 60 * 1000;
    bench.publish(keyed());
    assert_eq!(told(&bench.take(1)), ["pub 3"]);
}

#[test]
fn an_old_version_is_answered_and_not_delivered() {
    let bench = Bench::new();
    let version =
        |version, epoch: &str| Publish { version, version_epoch: epoch.into(), ..publication("a") };
    let offset = |publish| bench.publish(publish).map(|position| position.offset);
    assert_eq!(offset(version(5, "x")), Some(1));
    assert_eq!(offset(version(5, "x")), Some(1));
    assert_eq!(offset(version(4, "x")), Some(1));
    assert_eq!(offset(version(6, "x")), Some(2));
    assert_eq!(offset(version(1, "y")), Some(3));
}

#[test]
fn a_channel_that_keeps_nothing_gives_no_position() {
    let bench = Bench::new();
    let fleeting = Publish { retention: Retention::default(), ..publication("a") };
    assert_eq!(bench.publish(fleeting), None);
    assert_eq!(bench.publish(Publish { skip_history: true, ..publication("a") }), None);
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let mut bench = Bench::new();
    bench.publish(publication("a"));
    let sub = Subscribe { info: Some(info(1, "ann")), presence: true, ..subscription(1) };
    bench.subscribe(sub);
    let gone = Unsubscribe {
        channel: "news".into(),
        client: Uuid::from_u128(1),
        presence: true,
        announce: false,
        info: None,
    };
    bench.call(0, Request::Unsubscribe(gone));
    assert_eq!(bench.node.counts(), Counts::default());
    bench.now.mono_ms += KEEP.meta_ttl_ms;
    for _ in 0..8 {
        bench.node.sweep(bench.now);
    }
    let (_, position) = bench.history(all()).unwrap();
    assert_eq!(position.offset, 0);
}

#[test]
fn history_says_what_it_cannot_do() {
    let bench = Bench::new();
    bench.publish(publication("a"));
    let from = |offset, epoch: &str, reverse| HistoryQuery {
        since: Some(Since { offset, epoch: epoch.into() }),
        reverse,
        ..all()
    };
    assert_eq!(bench.history(from(0, "other", false)), Err(HubError::UnrecoverablePosition));
    assert_eq!(bench.history(from(0, "", true)), Err(HubError::BadSince));
}

#[test]
fn channels_are_listed_in_order_and_a_misspelt_one_is_told_its_neighbours() {
    let bench = Bench::new();
    for name in ["chat:b", "chat:a", "news"] {
        bench.subscribe(Subscribe { channel: name.into(), ..subscription(1) });
    }
    let names = |pattern: Option<&str>| {
        let Answer::Channels(list) =
            bench.ask(Request::Channels { pattern: pattern.map(Into::into) })
        else {
            panic!("no list");
        };
        list.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["chat:a 1", "chat:b 1", "news 1"]);
    assert_eq!(names(Some("chat:*")), ["chat:a 1", "chat:b 1"]);
    let Answer::Audience(audience) = bench.ask(Request::Audience { channel: "chat:c".into() })
    else {
        panic!("no audience");
    };
    assert_eq!(audience.near, [("chat:a".into(), 1), ("chat:b".into(), 1)]);
}

/// A broker that says nothing until it is asked to.
fn silent() -> (Arc<Late>, Bench) {
    let late = Arc::new(Late::new(3, Habits::default()));
    let bench = Bench::before(Arc::clone(&late) as Arc<dyn Broker>);
    (late, bench)
}

fn hear_out(late: &Late, bench: &Bench) {
    while !late.is_quiet() {
        if let Some(event) = late.turn(bench.now) {
            bench.node.deliver(event, bench.now);
        }
    }
}

#[test]
fn who_waits_too_long_is_told_and_the_late_answer_is_dropped() {
    let (late, mut bench) = silent();
    bench.call(0, Request::Subscribe(subscription(1)));
    bench.call(0, Request::Publish(publication("a")));
    bench.call(0, Request::Presence { channel: "news".into() });
    assert_eq!(bench.node.counts().subscriptions, 1);
    bench.now.mono_ms = WAIT_MS_MAX - 1;
    bench.node.sweep(bench.now);
    assert!(bench.take(0).is_empty());
    bench.now.mono_ms = WAIT_MS_MAX;
    bench.node.sweep(bench.now);
    let events = bench.take(0);
    assert_eq!(told(&events), ["refused Broker", "published", "answer"]);
    let failed = |event: &Event| match event {
        Event::Answer { answer: Answer::Published(result), .. } => *result == Err(HubError::Broker),
        Event::Answer { answer: Answer::Presence(result), .. } => *result == Err(HubError::Broker),
        _ => true,
    };
    assert!(events.iter().all(failed));
    assert_eq!(bench.node.counts(), Counts::default());
    hear_out(&late, &bench);
    assert!(bench.take(0).is_empty());
}

#[test]
fn only_so_many_wait() {
    let (_late, bench) = silent();
    let refused = || {
        let overloaded = |event: &Event| {
            matches!(event, Event::Answer { answer: Answer::Published(Err(error)), .. }
                if *error == HubError::Overloaded)
        };
        bench.take(0).iter().filter(|event| overloaded(event)).count()
    };
    for _ in 0..WAITING_MAX / 4 {
        bench.call(0, Request::Publish(publication("a")));
    }
    assert_eq!(refused(), 0);
    bench.call(0, Request::Publish(publication("a")));
    assert_eq!(refused(), 1);
    bench.call(0, Request::Subscribe(subscription(1)));
    assert_eq!(told(&bench.take(0)), ["refused Overloaded"]);
    assert_eq!(bench.node.counts(), Counts::default());
}

#[test]
fn who_leaves_while_joining_was_never_there() {
    let (late, bench) = silent();
    let ann =
        Subscribe { info: Some(info(1, "ann")), announce: true, presence: true, ..subscription(1) };
    bench.call(0, Request::Subscribe(ann));
    let gone = Unsubscribe {
        channel: "news".into(),
        client: Uuid::from_u128(1),
        presence: true,
        announce: true,
        info: Some(info(1, "ann")),
    };
    bench.call(1, Request::Subscribe(subscription(2)));
    bench.call(0, Request::Unsubscribe(gone));
    hear_out(&late, &bench);
    assert!(bench.take(0).is_empty());
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)"]);
    assert_eq!(bench.node.counts(), Counts { channels: 1, subscriptions: 1 });
}

#[test]
fn joins_come_after_the_answer_behind_a_late_broker_too() {
    let (late, bench) = silent();
    let sub = Subscribe { info: Some(info(1, "ann")), announce: true, ..subscription(1) };
    bench.call(0, Request::Subscribe(sub));
    hear_out(&late, &bench);
    assert_eq!(told(&bench.take(0)), ["subscribed Some(0)", "join ann"]);
}

#[test]
fn a_loss_is_told_to_all_who_are_there() {
    let bench = Bench::new();
    bench.call(1, Request::Subscribe(subscription(1)));
    bench.node.deliver(BrokerEvent::Lost { channel: "news".into() }, bench.now);
    bench.node.deliver(BrokerEvent::Lost { channel: "sport".into() }, bench.now);
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)", "insufficient"]);
    assert!(bench.take(0).is_empty());
}

#[test]
fn who_is_unknown_leaves_without_a_word() {
    let bench = Bench::new();
    bench.call(1, Request::Subscribe(subscription(1)));
    let gone = Unsubscribe {
        channel: "news".into(),
        client: Uuid::from_u128(1),
        presence: false,
        announce: true,
        info: Some(info(1, "ann")),
    };
    bench.call(0, Request::Unsubscribe(gone));
    assert_eq!(bench.node.counts().subscriptions, 1);
    assert_eq!(told(&bench.take(1)), ["subscribed Some(0)"]);
}
