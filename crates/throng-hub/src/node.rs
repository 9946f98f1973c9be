//! The partitions of all channels: the one order of events in each of them.

mod maps;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::broker::{Broker, BrokerEvent, Op, Open, Outcome, Read, Step};
use crate::done::Done;
use crate::event::{Event, Item, Mailbox};
use crate::joining::{Met, meet};
use crate::map::{Maps, Room};
use crate::nearness::Nearest;
use crate::partition::{Given, Joiner, Partition, Question, Waiting};
use crate::pattern::Pattern;
use crate::publication::{ChannelName, ClientInfo, Position};
use crate::random::Random;
use crate::registry::{Stands, further};
use crate::request::{
    Answer, Audience, HistoryQuery, HubError, Now, Publish, Recover, ReplyTo, Request, Retention,
    Subscribe, Subscribed, Unsubscribe,
};

/// Names looked at for those near to one that has no subscribers.
const NEAR_SCAN_MAX: usize = 100_000;

/// Times that the broker is asked again for a subscription, where others that wait with it have
/// moved the channel on past what it read. One is enough unless publications get lost.
const TRIES_AGAIN_MAX: u8 = 2;

/// What a node is made of.
#[derive(Debug)]
pub struct NodeSetup {
    /// `ReplyTo::mailbox` is an index in here.
    pub mailboxes: Vec<Arc<dyn Mailbox>>,
    pub broker: Arc<dyn Broker>,
    /// Locks; a few times as many as threads that call.
    pub partitions: usize,
    /// Decides how names are hashed: a secret, so that nobody can choose names that collide.
    pub seed: u64,
}

/// Who listens to what on this node.
///
/// Every channel belongs to one partition, whose lock is held for memory work only. Whatever
/// happens to the channel happens under it, and is put into the mailboxes under it, so the order
/// in each mailbox is the order of the channel.
#[derive(Debug)]
pub struct Node {
    mailboxes: Vec<Arc<dyn Mailbox>>,
    broker: Arc<dyn Broker>,
    hasher: FixedState,
    /// Lock order: one of these, then the broker's, then a mailbox's. Never two of these.
    partitions: Box<[Mutex<Partition>]>,
    /// What all maps together take.
    room: Arc<Room>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Channels with subscribers.
    pub channels: usize,
    pub subscriptions: usize,
}

impl Node {
    pub fn new(setup: NodeSetup) -> Self {
        let mut random = Random::new(setup.seed);
        let hasher = FixedState::with_seed(random.next());
        let count = setup.partitions.max(1);
        let room = Arc::<Room>::default();
        let partition = |index| {
            let mut partition = Partition::new(index, count, &hasher);
            partition.maps = Maps::new(count, &hasher, Arc::clone(&room), random.next());
            Mutex::new(partition)
        };
        let partitions = (0..count).map(partition).collect();
        Self { mailboxes: setup.mailboxes, broker: setup.broker, hasher, partitions, room }
    }

    /// Asks; the answer comes as `Event::Answer` in the mailbox of `to`.
    pub fn call(&self, request: Request, to: ReplyTo, now: Now) {
        match request {
            Request::Publish(publish) => self.publish(publish, to, now),
            Request::Subscribe(subscribe) => self.subscribe(subscribe, to, now),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, to, now),
            Request::Presence { channel } => self.presence(&channel, to, now),
            Request::PresenceStats { channel } => self.presence_stats(&channel, to, now),
            Request::History { channel, query, retention } => {
                self.history((&channel, &query, retention), to, now);
            }
            Request::RemoveHistory { channel } => self.remove_history(&channel, to, now),
            Request::Map(call) => self.map(*call, to, now),
            Request::Channels { pattern } => {
                self.answer(to, Answer::Channels(self.channels(pattern.as_deref())));
            }
            Request::Audience { channel } => {
                self.answer(to, Answer::Audience(self.audience(&channel)));
            }
        }
    }

    /// What the broker says. For one channel by one thread at a time.
    pub fn deliver(&self, event: BrokerEvent, now: Now) {
        match event {
            BrokerEvent::Item { channel, item } => {
                self.spread(&mut self.lock(&channel), &channel, item);
            }
            BrokerEvent::Lost { channel } => self.lose(&mut self.lock(&channel), &channel),
            BrokerEvent::Done { op, outcome } => self.answered(op, outcome, now),
        }
    }

    /// Once a second: ends what waited too long, and lets the broker forget what is over.
    pub fn sweep(&self, now: Now) {
        self.broker.sweep(now);
        for partition in &self.partitions {
            let mut partition = partition.lock();
            while let Some(waiting) = partition.take_overdue(now.mono_ms) {
                self.fail(&mut partition, waiting, now);
            }
            partition.forget_refused(now.mono_ms);
            partition.shrink();
            self.sweep_maps(partition, now);
        }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for partition in &self.partitions {
            let partition = partition.lock();
            counts.channels += partition.channel_count();
            counts.subscriptions += partition.subscription_count();
        }
        counts
    }

    /// How often what was done.
    pub fn done(&self) -> Done {
        let mut done = Done::default();
        for partition in &self.partitions {
            done.add(&partition.lock().done);
        }
        done
    }

    /// Whether a question waits for the broker. Its answer could not find its way to another
    /// process; a broker in memory has answered before anybody can ask this.
    pub fn is_waiting(&self) -> bool {
        self.partitions.iter().any(|partition| partition.lock().is_waiting())
    }

    /// Makes room for so many channels, before there is any hurry.
    pub fn expect(&self, channels: usize) {
        let each = channels.div_ceil(self.partitions.len());
        self.partitions.iter().for_each(|partition| partition.lock().expect(each));
    }

    /// A mailbox brings subscriptions of a channel from another process, where the channel stood at
    /// `top`; returns the channel's shared name.
    pub fn seat(
        &self,
        channel: &ChannelName,
        mailbox: u16,
        count: u32,
        top: Option<Position>,
    ) -> ChannelName {
        self.lock(channel).take_seats(channel, (mailbox, count), top)
    }

    /// A mailbox has a subscription less of those that it brought.
    pub fn unseat(&self, channel: &ChannelName, mailbox: u16) {
        self.lock(channel).give_seat(channel, mailbox);
    }

    /// Where these channels stand, by the last word of those who brought them.
    pub fn stand(&self, stands: &[Stands]) {
        let mut last: HashMap<&ChannelName, Option<Position>, FixedState> = HashMap::default();
        for (channel, position) in stands {
            let known = last.entry(channel).or_default();
            *known = further(*known, *position);
        }
        for (channel, position) in last {
            self.lock(channel).stand(channel, position);
        }
    }

    /// A client that comes from another process is no more in a channel's presence.
    pub fn withdraw(&self, channel: &ChannelName, client: Uuid, now: Now) {
        let partition = self.lock(channel);
        self.broker.leave(channel, client, now);
        drop(partition);
    }

    /// A client that comes from another process is in a channel's presence.
    pub fn enter(&self, channel: &ChannelName, info: &Arc<ClientInfo>, now: Now) {
        let partition = self.lock(channel);
        self.broker.enter(channel, info, now);
        drop(partition);
    }

    fn publish(&self, publish: Publish, to: ReplyTo, now: Now) {
        let mut partition = self.lock(&publish.channel);
        partition.done.sent.publications += 1;
        let Some(op) = partition.op() else {
            return self.answer(to, Answer::Published(Err(HubError::Overloaded)));
        };
        let channel = ChannelName::clone(&publish.channel);
        match self.broker.publish(op, publish, now) {
            Step::Done(result) => {
                let result = result.map(|released| {
                    if let Some(flight) = released.flight {
                        self.spread(&mut partition, &channel, Item::Publication(flight));
                    }
                    released.published
                });
                self.answer(to, Answer::Published(result));
            }
            Step::Later => partition.wait(op, waiting(to, now, Question::Publish)),
        }
    }

    fn subscribe(&self, mut subscribe: Subscribe, to: ReplyTo, now: Now) {
        let mut partition = self.lock(&subscribe.channel);
        partition.done.subscribed += 1;
        partition.done.recoveries += u64::from(subscribe.recover.is_some());
        partition.take_refused(&subscribe.channel, subscribe.client, to.mailbox);
        let Some(op) = partition.op() else {
            let joiner = Joiner { subscribe, tries: 0 };
            return self.refuse(&mut partition, (to, joiner), HubError::Overloaded, now);
        };
        subscribe.channel = partition.take_seat(&subscribe.channel, to.mailbox);
        self.open(&mut partition, (to, op, Joiner { subscribe, tries: 0 }), now);
    }

    /// Asks the broker for a subscription whose seat is taken.
    fn open(&self, partition: &mut Partition, (to, op, joiner): (ReplyTo, Op, Joiner), now: Now) {
        let subscribe = &joiner.subscribe;
        let open = Open {
            channel: &subscribe.channel,
            recover: subscribe.recover.as_ref(),
            positioned: subscribe.positioned,
            retention: subscribe.retention,
        };
        match self.broker.subscribe(op, open, now) {
            Step::Done(result) => self.opened(partition, (to, op, joiner), result, now),
            Step::Later => {
                partition.wait(op, waiting(to, now, Question::Subscribe(Box::new(joiner))));
            }
        }
    }

    /// The broker has answered a subscribe.
    fn opened(
        &self,
        partition: &mut Partition,
        (to, op, mut joiner): (ReplyTo, Op, Joiner),
        result: Result<Subscribed, HubError>,
        now: Now,
    ) {
        let channel = ChannelName::clone(&joiner.subscribe.channel);
        let read = match result {
            Ok(read) => read,
            Err(error) => {
                self.leave_seat(partition, &channel, to.mailbox, now);
                return self.refuse(partition, (to, joiner), error, now);
            }
        };
        let stale = partition.joining(&channel).is_some_and(|joining| joining.is_stale(op));
        let recover = joiner.subscribe.recover.as_ref();
        let met = (!stale).then(|| meet_in(partition, &channel, read, recover));
        if met.as_ref().is_none_or(|met| met.gap)
            && joiner.tries < TRIES_AGAIN_MAX
            && let Some(op) = partition.op()
        {
            joiner.tries += 1;
            return self.open(partition, (to, op, joiner), now);
        }
        match met {
            Some(met) => self.seated(partition, (to, joiner.subscribe), met, now),
            None => {
                self.leave_seat(partition, &channel, to.mailbox, now);
                self.refuse(partition, (to, joiner), HubError::Broker, now);
            }
        }
    }

    /// Answers a subscribe that has no seat, or none any more.
    fn refuse(
        &self,
        partition: &mut Partition,
        (to, joiner): (ReplyTo, Joiner),
        error: HubError,
        now: Now,
    ) {
        partition.refuse(&joiner.subscribe, to.mailbox, now.mono_ms);
        let channel = joiner.subscribe.channel;
        self.answer(to, Answer::Subscribed { channel, result: Err(error) });
    }

    /// A subscription has its place in the channel: it and the others are told.
    fn seated(
        &self,
        partition: &mut Partition,
        (to, subscribe): (ReplyTo, Subscribe),
        met: Met,
        now: Now,
    ) {
        let channel = subscribe.channel;
        let mut subscribed = met.subscribed;
        if !subscribe.positioned {
            subscribed.position = None;
        }
        let info = subscribe.info;
        if let Some(info) = info.as_ref().filter(|_| subscribe.presence) {
            partition.done.presence_added += 1;
            self.broker.enter(&channel, info, now);
        }
        let answered = ChannelName::clone(&channel);
        self.answer(to, Answer::Subscribed { channel: answered, result: Ok(subscribed) });
        if let Some(info) = info.filter(|_| subscribe.announce) {
            self.announce(partition, &channel, Item::Join(info));
        }
        if met.torn {
            self.lose(partition, &channel);
        }
    }

    fn unsubscribe(&self, unsubscribe: &Unsubscribe, to: ReplyTo, now: Now) {
        let channel = &unsubscribe.channel;
        let mut partition = self.lock(channel);
        if partition.take_refused(channel, unsubscribe.client, to.mailbox) {
            return;
        }
        if partition.take_joining(channel, unsubscribe.client, to.mailbox).is_some() {
            // It never was there for anybody else.
            partition.end_joining(channel);
            self.leave_seat(&mut partition, channel, to.mailbox, now);
            return;
        }
        if self.leave_seat(&mut partition, channel, to.mailbox, now) == Given::NoSeat {
            return;
        }
        partition.done.unsubscribed += 1;
        if unsubscribe.presence {
            partition.done.presence_removed += 1;
            self.broker.leave(channel, unsubscribe.client, now);
        }
        if let Some(info) = unsubscribe.info.as_ref().filter(|_| unsubscribe.announce) {
            self.announce(&mut partition, channel, Item::Leave(Arc::clone(info)));
        }
    }

    fn history(
        &self,
        (channel, query, retention): (&ChannelName, &HistoryQuery, Retention),
        to: ReplyTo,
        now: Now,
    ) {
        let mut partition = self.lock(channel);
        partition.done.history += 1;
        let step = match partition.op() {
            Some(op) => match self.broker.history(op, Read { channel, query, retention }, now) {
                Step::Done(result) => result,
                Step::Later => return partition.wait(op, waiting(to, now, Question::History)),
            },
            None => Err(HubError::Overloaded),
        };
        self.answer(to, Answer::History(step));
    }

    fn remove_history(&self, channel: &ChannelName, to: ReplyTo, now: Now) {
        let mut partition = self.lock(channel);
        partition.done.history_removed += 1;
        let result = match partition.op() {
            Some(op) => match self.broker.remove_history(op, channel, now) {
                Step::Done(result) => result,
                Step::Later => {
                    return partition.wait(op, waiting(to, now, Question::RemoveHistory));
                }
            },
            None => Err(HubError::Overloaded),
        };
        self.answer(to, Answer::HistoryRemoved(result));
    }

    fn presence(&self, channel: &ChannelName, to: ReplyTo, now: Now) {
        let mut partition = self.lock(channel);
        partition.done.presence += 1;
        let result = match partition.op() {
            Some(op) => match self.broker.presence(op, channel, now) {
                Step::Done(result) => result,
                Step::Later => return partition.wait(op, waiting(to, now, Question::Presence)),
            },
            None => Err(HubError::Overloaded),
        };
        self.answer(to, Answer::Presence(result));
    }

    fn presence_stats(&self, channel: &ChannelName, to: ReplyTo, now: Now) {
        let mut partition = self.lock(channel);
        partition.done.presence_stats += 1;
        let result = match partition.op() {
            Some(op) => match self.broker.presence_stats(op, channel, now) {
                Step::Done(result) => result,
                Step::Later => {
                    return partition.wait(op, waiting(to, now, Question::PresenceStats));
                }
            },
            None => Err(HubError::Overloaded),
        };
        self.answer(to, Answer::PresenceStats(result));
    }

    fn channels(&self, pattern: Option<&str>) -> Vec<(ChannelName, u32)> {
        let pattern = pattern.map(Pattern::new);
        let mut found = Vec::new();
        for partition in &self.partitions {
            let shared = |(name, count)| (ChannelName::clone(name), count);
            let all: Vec<_> = partition.lock().audiences().map(shared).collect();
            // Without the lock: how long a match takes, the asker decides.
            let matches = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
            found.extend(all.into_iter().filter(|(name, _)| matches(name)));
        }
        found.sort_unstable();
        found
    }

    fn audience(&self, channel: &ChannelName) -> Audience {
        let subscribers = self.lock(channel).audience(channel);
        if subscribers > 0 {
            return Audience { subscribers, near: Vec::new() };
        }
        let mut nearest = Nearest::new(channel);
        let share = NEAR_SCAN_MAX.div_ceil(self.partitions.len());
        for partition in &self.partitions {
            let partition = partition.lock();
            for (name, count) in partition.audiences().take(share) {
                nearest.look_at(name, count);
            }
        }
        Audience { subscribers, near: nearest.found() }
    }

    fn answered(&self, op: Op, outcome: Outcome, now: Now) {
        let index = usize::try_from(op.0 % self.partitions.len() as u64).unwrap_or_default();
        let mut partition = self.partitions[index].lock();
        // Too late, or the asker is gone: nobody waits.
        let Some(waiting) = partition.take_waiting(op) else { return };
        let to = waiting.to;
        let answer = match (waiting.question, outcome) {
            (Question::Subscribe(joiner), Outcome::Subscribed(result)) => {
                let channel = ChannelName::clone(&joiner.subscribe.channel);
                self.opened(&mut partition, (to, op, *joiner), result, now);
                return partition.end_joining(&channel);
            }
            (Question::Publish, Outcome::Published(result)) => Answer::Published(result),
            (Question::History, Outcome::History(result)) => Answer::History(result),
            (Question::RemoveHistory, Outcome::HistoryRemoved(result)) => {
                Answer::HistoryRemoved(result)
            }
            (Question::Presence, Outcome::Presence(result)) => Answer::Presence(result),
            (Question::PresenceStats, Outcome::PresenceStats(result)) => {
                Answer::PresenceStats(result)
            }
            (question, _) => {
                debug_assert!(false, "the outcome is that of the question");
                return self.fail(&mut partition, Waiting { question, ..waiting }, now);
            }
        };
        self.answer(to, answer);
    }

    /// Ends a wait without an answer of the broker.
    fn fail(&self, partition: &mut Partition, waiting: Waiting, now: Now) {
        let error = HubError::Broker;
        let answer = match waiting.question {
            Question::Subscribe(joiner) => {
                let to = waiting.to;
                partition.end_joining(&joiner.subscribe.channel);
                self.leave_seat(partition, &joiner.subscribe.channel, to.mailbox, now);
                return self.refuse(partition, (to, *joiner), error, now);
            }
            Question::Publish => Answer::Published(Err(error)),
            Question::History => Answer::History(Err(error)),
            Question::RemoveHistory => Answer::HistoryRemoved(Err(error)),
            Question::Presence => Answer::Presence(Err(error)),
            Question::PresenceStats => Answer::PresenceStats(Err(error)),
        };
        self.answer(waiting.to, answer);
    }

    fn leave_seat(
        &self,
        partition: &mut Partition,
        channel: &ChannelName,
        mailbox: u16,
        now: Now,
    ) -> Given {
        let given = partition.give_seat(channel, mailbox);
        if given == Given::LastSeat {
            self.broker.unsubscribe(channel, now);
        }
        given
    }

    fn announce(&self, partition: &mut Partition, channel: &ChannelName, item: Item) {
        partition.done.sent.count(&item);
        if let Some(item) = self.broker.announce(channel, item) {
            self.spread(partition, channel, item);
        }
    }

    /// Puts an item into the mailboxes of all who have subscribers.
    fn spread(&self, partition: &mut Partition, channel: &str, item: Item) {
        partition.done.received.count(&item);
        // Before what follows: who joins may need one that all others had.
        if let Item::Publication(flight) = &item
            && let Some(joining) = partition.joining(channel)
        {
            joining.arrive(&flight.publication);
        }
        let Some((name, entry)) = partition.channel(channel) else { return };
        if !entry.follow(&item) {
            return;
        }
        for mailbox in entry.seats.mailboxes() {
            let channel = ChannelName::clone(name);
            self.put(mailbox, Event::Channel { channel, item: item.clone() });
        }
    }

    /// Tells all who follow the channel to recover.
    fn lose(&self, partition: &mut Partition, channel: &str) {
        partition.lose(channel);
        let Some((name, entry)) = partition.channel(channel) else { return };
        for mailbox in entry.seats.mailboxes() {
            self.put(mailbox, Event::Insufficient { channel: ChannelName::clone(name) });
        }
    }

    fn answer(&self, to: ReplyTo, answer: Answer) {
        self.put(to.mailbox, Event::Answer { to, answer });
    }

    fn put(&self, mailbox: u16, event: Event) {
        match self.mailboxes.get(usize::from(mailbox)) {
            Some(mailbox) => mailbox.put(event),
            None => debug_assert!(false, "a reply goes to a mailbox of this node"),
        }
    }

    fn lock(&self, channel: &str) -> MutexGuard<'_, Partition> {
        let hash = self.hasher.hash_one(channel);
        // The low half of the hash: the table inside uses the rest.
        self.partitions[(hash & 0xffff_ffff) as usize % self.partitions.len()].lock()
    }
}

/// Brings what the broker read to where the channel stands here, or the other way round.
fn meet_in(
    partition: &mut Partition,
    channel: &str,
    read: Subscribed,
    recover: Option<&Recover>,
) -> Met {
    let first = partition.nobody_is_seated(channel);
    let Some((_, entry)) = partition.channel(channel) else {
        debug_assert!(false, "who subscribes has a seat");
        return Met { subscribed: read, gap: false, torn: false };
    };
    let known = entry.top.as_deref().copied();
    // Where nobody has a place yet, the channel begins at what was read, if that is further.
    let begins = match (known, read.position) {
        (Some(top), Some(read)) => first && (top.epoch != read.epoch || top.offset < read.offset),
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if begins {
        entry.top = read.position.map(Box::new);
    }
    let top = if begins { read.position } else { known };
    meet(top, read, partition.joining(channel).map(|joining| &*joining), recover)
}

fn waiting(to: ReplyTo, now: Now, question: Question) -> Waiting {
    Waiting { to, since_ms: now.mono_ms, question }
}

#[cfg(test)]
mod tests;
