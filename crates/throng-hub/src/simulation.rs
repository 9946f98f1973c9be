//! Clients that come and go in simulated shards, and count what they get: no gap, nothing twice,
//! in order, whatever the broker's habits are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use proptest::prelude::{ProptestConfig, any, proptest};
use uuid::Uuid;

use crate::broker::Broker;
use crate::event::{Event, Item, Mailbox};
use crate::late::{Habits, Late};
use crate::memory::Memory;
use crate::node::{Counts, Node, NodeSetup};
use crate::publication::{ChannelName, Position};
use crate::random::Random;
use crate::registry::{Audience, Batch, Join, Member, Queued, Registry, Sink, SubFlags};
use crate::request::{
    Answer, HubError, Now, Publish, Recover, Recovery, RecoveryMode, ReplyTo, Request, Retention,
    Subscribe, Subscribed, Unsubscribe,
};

const KEEP: Retention = Retention { size: 100_000, ttl_ms: 1 << 40, meta_ttl_ms: 1 << 40 };
const CHANNELS: [&str; 3] = ["a", "b", "c"];
const SHARDS: u16 = 2;
const CLIENTS: usize = 6;

#[derive(Debug, Default)]
struct Letters(Mutex<Vec<Event>>);

impl Mailbox for Letters {
    fn put(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// What a client has, in one channel.
#[derive(Default)]
struct Client {
    /// Grows with each connection, so that old answers are known.
    life: u64,
    state: State,
    seen: Option<Position>,
    got: usize,
    /// It saw more than the node it came to had: it had to start over.
    ahead: usize,
    /// It was not recovered otherwise.
    lost: usize,
    refused: usize,
}

#[derive(Default, PartialEq, Eq, Clone, Copy, Debug)]
enum State {
    #[default]
    Away,
    Asking,
    Here,
}

impl Client {
    fn take(&mut self, place: Position) {
        assert_eq!(self.state, State::Here);
        let seen = self.seen.expect("who is here knows where");
        assert_eq!((place.offset, place.epoch), (seen.offset + 1, seen.epoch), "no gap, no repeat");
        self.seen = Some(place);
        self.got += 1;
    }

    fn subscribed(&mut self, subscribed: Subscribed) {
        self.state = State::Here;
        let position = subscribed.position.expect("a position was asked for");
        match (subscribed.recovery, self.seen) {
            (Recovery::Recovered(list), Some(_)) => {
                for one in list {
                    self.take(Position { offset: one.offset, epoch: one.epoch.unwrap() });
                }
                assert_eq!(self.seen, Some(position), "recovered up to the position");
            }
            (Recovery::NotRecovered, Some(seen)) if seen.offset > position.offset => {
                self.ahead += 1;
            }
            (Recovery::NotRecovered, Some(_)) => self.lost += 1,
            (Recovery::NotAsked, None) => {}
            (recovery, seen) => panic!("{recovery:?} for {seen:?}"),
        }
        self.seen = Some(position);
    }
}

/// One shard; a client's place in the list is its member.
struct Shard {
    index: u16,
    registry: Registry,
    letters: Arc<Letters>,
    clients: Vec<Client>,
    random: Random,
}

struct Crowd<'a>(&'a mut [Client]);

impl Sink for Crowd<'_> {
    fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
        for item in &batch.items()[audience.from..] {
            let Item::Publication(flight) = item else { continue };
            let (offset, epoch) = (flight.publication.offset, flight.publication.epoch.unwrap());
            self.0[member as usize].take(Position { offset, epoch });
        }
    }
}

fn channel_of(member: usize) -> ChannelName {
    CHANNELS[member % CHANNELS.len()].into()
}

impl Shard {
    fn new(index: u16, letters: Arc<Letters>, seed: u64) -> Self {
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        Self { index, registry: Registry::new(), letters, clients, random: Random::new(seed) }
    }

    fn chance(&mut self, below: usize) -> usize {
        usize::try_from(self.random.next() % below as u64).unwrap()
    }

    fn call(&self, member: usize, request: Request, node: &Node, now: Now) {
        let slot = u32::try_from(member).unwrap();
        let number = self.clients[member].life;
        node.call(request, ReplyTo { mailbox: self.index, slot, number, ticket: 0 }, now);
    }

    fn client_id(&self, member: usize) -> Uuid {
        Uuid::from_u128(u128::from(self.index) << 64 | member as u128)
    }

    fn come(&mut self, member: usize, node: &Node, now: Now) {
        if self.clients[member].state != State::Away {
            return;
        }
        self.clients[member].state = State::Asking;
        let recover = self.clients[member].seen.map(|seen| Recover {
            epoch: seen.epoch.into(),
            offset: seen.offset,
            mode: RecoveryMode::Stream,
            limit: usize::MAX,
            bytes_max: usize::MAX,
        });
        let subscribe = Subscribe {
            channel: channel_of(member),
            client: self.client_id(member),
            info: None,
            presence: false,
            announce: false,
            positioned: true,
            recover,
            retention: KEEP,
        };
        self.call(member, Request::Subscribe(subscribe), node, now);
    }

    fn go(&mut self, member: usize, node: &Node, now: Now) {
        match self.clients[member].state {
            State::Away => return,
            State::Asking => {}
            State::Here => {
                let left = self.registry.leave(u32::try_from(member).unwrap(), &channel_of(member));
                assert!(left.is_some());
            }
        }
        let unsubscribe = Unsubscribe {
            channel: channel_of(member),
            client: self.client_id(member),
            presence: false,
            announce: false,
            info: None,
        };
        self.call(member, Request::Unsubscribe(unsubscribe), node, now);
        self.clients[member].state = State::Away;
        self.clients[member].life += 1;
    }

    /// Who follows the position is sent away, to come back and recover.
    fn unsettle(&mut self, channel: &str, node: &Node, now: Now) {
        for member in self.registry.positioned_members(channel).collect::<Vec<_>>() {
            self.go(member as usize, node, now);
        }
    }

    fn read_letters(&mut self, node: &Node, now: Now) {
        let events = std::mem::take(&mut *self.letters.0.lock());
        for event in events {
            match event {
                Event::Channel { channel, item } => {
                    if self.registry.queue(&channel, item) == Queued::Gap {
                        self.unsettle(&channel, node, now);
                    }
                }
                Event::Insufficient { channel } => {
                    self.registry.lose(&channel);
                    self.unsettle(&channel, node, now);
                }
                Event::Answer { to, answer: Answer::Subscribed { channel, result } } => {
                    self.answered(to, &channel, result);
                }
                Event::Answer { answer, .. } => panic!("{answer:?}"),
            }
        }
    }

    fn answered(
        &mut self,
        to: ReplyTo,
        channel: &ChannelName,
        result: Result<Subscribed, HubError>,
    ) {
        let client = &mut self.clients[to.slot as usize];
        if client.life == to.number {
            let Ok(subscribed) = result else {
                client.state = State::Away;
                client.refused += 1;
                return;
            };
            let position = subscribed.position;
            client.subscribed(subscribed);
            let join = Join { flags: SubFlags::POSITIONED, position, ..Join::default() };
            self.registry.join(to.slot, channel, join).unwrap();
        }
    }

    fn turn(&mut self, node: &Node, now: Now) {
        self.read_letters(node, now);
        let deliveries = self.chance(5);
        self.registry.fan_out(&mut Crowd(&mut self.clients), deliveries);
    }

    /// Clients come and go, mostly come.
    fn unrest(&mut self, node: &Node, now: Now) {
        let member = self.chance(CLIENTS);
        match self.chance(3) {
            0 => self.go(member, node, now),
            _ => self.come(member, node, now),
        }
    }

    fn is_quiet(&self) -> bool {
        self.letters.0.lock().is_empty()
            && !self.registry.has_work()
            && self.clients.iter().all(|client| client.state == State::Here)
    }
}

fn node_with(broker: Arc<dyn Broker>, seed: u64) -> (Node, Arc<Letters>, Vec<Shard>) {
    let letters: Vec<Arc<Letters>> = (0..=SHARDS).map(|_| Arc::default()).collect();
    let mailboxes = letters.iter().map(|one| Arc::clone(one) as Arc<dyn Mailbox>).collect();
    let node = Node::new(NodeSetup { mailboxes, broker, partitions: 4, seed });
    let shards = (0..SHARDS)
        .map(|at| Shard::new(at, Arc::clone(&letters[usize::from(at)]), seed + u64::from(at)))
        .collect();
    (node, Arc::clone(&letters[usize::from(SHARDS)]), shards)
}

fn publish(channel: usize, node: &Node, now: Now) {
    let publish = Publish {
        channel: CHANNELS[channel].into(),
        data: "x".into(),
        info: None,
        tags: Box::default(),
        draw: None,
        skip_history: false,
        delta: false,
        idempotency_key: None,
        version: 0,
        version_epoch: "".into(),
        retention: KEEP,
    };
    let to = ReplyTo { mailbox: SHARDS, slot: 0, number: 0, ticket: 0 };
    node.call(Request::Publish(publish), to, now);
}

/// In the end everybody is where the stream is.
fn check_tops(shards: &[Shard], published: &[u64]) {
    for shard in shards {
        for (member, client) in shard.clients.iter().enumerate() {
            let seen = client.seen.map(|seen| seen.offset);
            assert_eq!(seen, Some(published[member % CHANNELS.len()]));
        }
    }
}

#[test]
fn publishers_on_several_threads_and_clients_that_come_and_go() {
    const PUBLISHERS: usize = 3;
    const EACH: usize = 3_000;
    let now = Now::default();
    let (node, front, shards) = node_with(Arc::new(Memory::new(4, 5)), 5);
    let publishing = AtomicUsize::new(PUBLISHERS);
    let shards = std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (node, publishing) = (&node, &publishing);
            scope.spawn(move || {
                for at in 0..EACH {
                    publish((publisher + at) % CHANNELS.len(), node, now);
                    if at.is_multiple_of(50) {
                        std::thread::yield_now();
                    }
                }
                publishing.fetch_sub(1, Ordering::Release);
            });
        }
        let run = |mut shard: Shard| {
            while publishing.load(Ordering::Acquire) > 0 {
                shard.unrest(&node, now);
                shard.turn(&node, now);
            }
            while !shard.is_quiet() {
                (0..CLIENTS).for_each(|member| shard.come(member, &node, now));
                shard.turn(&node, now);
            }
            shard
        };
        let running: Vec<_> =
            shards.into_iter().map(|shard| scope.spawn(move || run(shard))).collect();
        running.into_iter().map(|shard| shard.join().unwrap()).collect::<Vec<_>>()
    });
    check_tops(&shards, &[(PUBLISHERS * EACH / CHANNELS.len()) as u64; 3]);
    let clients = || shards.iter().flat_map(|shard| &shard.clients);
    assert_eq!(clients().map(|client| client.lost + client.ahead).sum::<usize>(), 0);
    assert!(clients().map(|client| client.got).sum::<usize>() > EACH, "they were there");
    assert_eq!(front.0.lock().len(), PUBLISHERS * EACH);
}

/// How many were not recovered for want of publications.
fn run_late(seed: u64, habits: Habits, steps: usize) -> usize {
    let late = Arc::new(Late::new(seed, habits));
    let (node, front, mut shards) = node_with(Arc::clone(&late) as Arc<dyn Broker>, seed);
    let mut random = Random::new(seed);
    let now = Now::default();
    let mut published = [0; CHANNELS.len()];
    let pump = |node: &Node| {
        if let Some(event) = late.turn(now) {
            node.deliver(event, now);
        }
    };
    for _ in 0..steps {
        let shard = usize::try_from(random.next() % u64::from(SHARDS)).unwrap();
        match random.next() % 10 {
            0 | 1 => {
                let channel = usize::try_from(random.next() % 3).unwrap();
                publish(channel, &node, now);
                published[channel] += 1;
            }
            2 => shards[shard].unrest(&node, now),
            3 | 4 => shards[shard].turn(&node, now),
            _ => pump(&node),
        }
    }
    let mut rounds = 0;
    while !late.is_quiet() || !shards.iter().all(Shard::is_quiet) {
        for shard in &mut shards {
            (0..CLIENTS).for_each(|member| shard.come(member, &node, now));
            shard.turn(&node, now);
        }
        (0..10).for_each(|_| pump(&node));
        rounds += 1;
        assert!(rounds < 100_000, "it ends, once nobody publishes");
    }
    check_tops(&shards, &published);
    assert_eq!(front.0.lock().len() as u64, published.iter().sum(), "every publish is answered");
    let subscriptions = usize::from(SHARDS) * CLIENTS;
    assert_eq!(node.counts(), Counts { channels: CHANNELS.len(), subscriptions });
    shards.iter().flat_map(|shard| &shard.clients).map(|client| client.lost + client.refused).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_missed_behind_a_broker_that_is_late(seed in any::<u32>()) {
        assert_eq!(run_late(seed.into(), Habits { repeats: 4, losses: 0 }, 1_000), 0);
    }

    #[test]
    fn a_broker_that_loses_makes_them_recover(seed in any::<u32>()) {
        run_late(seed.into(), Habits { repeats: 4, losses: 20 }, 1_000);
    }
}
