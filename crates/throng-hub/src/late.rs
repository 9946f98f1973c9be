//! A broker for tests that answers late and out of turn, as a remote one does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::broker::{Broker, BrokerEvent, Op, Open, Outcome, Read, Released, Step};
use crate::event::Item;
use crate::memory::Memory;
use crate::publication::{ChannelName, ClientInfo};
use crate::random::Random;
use crate::request::{
    HistoryPage, HistoryQuery, HubError, Now, PresenceStats, Publish, Recover, Retention,
    Subscribed,
};

/// A broker in memory behind a slow line. Questions wait until `turn` comes to them, each
/// channel's in their order; answers wait for another `turn`, in any order; publications come in
/// their order, some with an offset more than once. What it promises to hold, it holds.
#[derive(Debug)]
pub struct Late {
    inner: Memory,
    line: Mutex<Line>,
    habits: Habits,
}

/// What goes wrong on the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// One in so many publications with an offset is released again; 0 is none.
    pub repeats: u64,
    /// One in so many turns loses what is under way in a channel, and says so; 0 is none.
    pub losses: u64,
}

#[derive(Debug)]
struct Line {
    random: Random,
    /// Sorted, so that a seed always gives the same run.
    lanes: BTreeMap<ChannelName, Lane>,
    answers: Vec<(Op, Outcome)>,
}

/// One channel.
#[derive(Debug, Default)]
struct Lane {
    followed: bool,
    asked: VecDeque<Asked>,
    released: VecDeque<Item>,
    lost: bool,
}

#[derive(Debug)]
enum Asked {
    Publish(Op, Box<Publish>),
    Subscribe(Op, Box<Opening>),
    Unsubscribe,
    History(Op, HistoryQuery, Retention),
    RemoveHistory(Op),
    Presence(Op),
    PresenceStats(Op),
    Announce(Item),
}

#[derive(Debug)]
struct Opening {
    recover: Option<Recover>,
    positioned: bool,
    retention: Retention,
}

impl Late {
    pub fn new(seed: u64, habits: Habits) -> Self {
        let line = Line { random: Random::new(seed), lanes: BTreeMap::new(), answers: Vec::new() };
        Self { inner: Memory::new(1, seed), line: Mutex::new(line), habits }
    }

    /// Goes one step of its own; what it returns is for `Node::deliver`.
    pub fn turn(&self, now: Now) -> Option<BrokerEvent> {
        let mut line = self.line.lock();
        match line.random.next() % 3 {
            0 => line.answer(),
            1 => line.release(self.habits),
            _ => {
                line.work(&self.inner, now);
                None
            }
        }
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        let line = self.line.lock();
        let quiet = |lane: &Lane| lane.asked.is_empty() && lane.released.is_empty() && !lane.lost;
        line.answers.is_empty() && line.lanes.values().all(quiet)
    }

    fn ask<T>(&self, channel: &ChannelName, asked: Asked) -> Step<T> {
        let mut line = self.line.lock();
        line.lanes.entry(ChannelName::clone(channel)).or_default().asked.push_back(asked);
        Step::Later
    }
}

impl Line {
    /// A lane that has something of the kind, chosen by chance.
    fn pick(&mut self, has: impl Fn(&Lane) -> bool) -> Option<ChannelName> {
        let names: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| has(lane)).map(|(name, _)| name).collect();
        let at = usize::try_from(self.random.next()).unwrap_or_default();
        names.get(at.checked_rem(names.len())?).map(|name| ChannelName::clone(name))
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.next().is_multiple_of(one_in)
    }

    fn answer(&mut self) -> Option<BrokerEvent> {
        let at = usize::try_from(self.random.next()).unwrap_or_default();
        let at = at.checked_rem(self.answers.len())?;
        let (op, outcome) = self.answers.swap_remove(at);
        Some(BrokerEvent::Done { op, outcome })
    }

    fn release(&mut self, habits: Habits) -> Option<BrokerEvent> {
        let channel = self.pick(|lane| lane.lost || !lane.released.is_empty())?;
        let (loses, repeats) = (self.chance(habits.losses), self.chance(habits.repeats));
        let lane = self.lanes.get_mut(&channel)?;
        if loses {
            lane.released.clear();
            lane.lost = true;
        }
        if std::mem::take(&mut lane.lost) {
            return Some(BrokerEvent::Lost { channel });
        }
        let has_offset = |item: &Item| matches!(item, Item::Publication(flight) if flight.publication.offset > 0);
        let item = match repeats && lane.released.front().is_some_and(has_offset) {
            true => lane.released.front().cloned()?,
            false => lane.released.pop_front()?,
        };
        Some(BrokerEvent::Item { channel, item })
    }

    fn work(&mut self, inner: &Memory, now: Now) -> Option<()> {
        let channel = self.pick(|lane| !lane.asked.is_empty())?;
        let lane = self.lanes.get_mut(&channel)?;
        let (op, outcome) = match lane.asked.pop_front()? {
            Asked::Publish(op, publish) => {
                let released = done(inner.publish(op, *publish, now));
                let published = released.map(|Released { published, flight }| {
                    lane.put(flight.map(Item::Publication));
                    published
                });
                (op, Outcome::Published(published))
            }
            Asked::Subscribe(op, opening) => {
                lane.followed = true;
                let Opening { recover, positioned, retention } = *opening;
                let recover = recover.as_ref();
                let open = Open { channel: &channel, recover, positioned, retention };
                (op, Outcome::Subscribed(done(inner.subscribe(op, open, now))))
            }
            Asked::Unsubscribe => {
                *lane = Lane { asked: std::mem::take(&mut lane.asked), ..Lane::default() };
                inner.unsubscribe(&channel, now);
                return None;
            }
            Asked::History(op, query, retention) => {
                let read = Read { channel: &channel, query: &query, retention };
                (op, Outcome::History(done(inner.history(op, read, now))))
            }
            Asked::RemoveHistory(op) => {
                (op, Outcome::HistoryRemoved(done(inner.remove_history(op, &channel, now))))
            }
            Asked::Presence(op) => (op, Outcome::Presence(done(inner.presence(op, &channel, now)))),
            Asked::PresenceStats(op) => {
                (op, Outcome::PresenceStats(done(inner.presence_stats(op, &channel, now))))
            }
            Asked::Announce(item) => {
                lane.put(Some(item));
                return None;
            }
        };
        self.answers.push((op, outcome));
        None
    }
}

impl Lane {
    fn put(&mut self, item: Option<Item>) {
        self.released.extend(item.filter(|_| self.followed));
    }
}

/// The broker in memory is always done.
fn done<T>(step: Step<T>) -> Result<T, HubError> {
    match step {
        Step::Done(result) => result,
        Step::Later => Err(HubError::Broker),
    }
}

impl Broker for Late {
    fn publish(&self, op: Op, publish: Publish, _now: Now) -> Step<Released> {
        let channel = ChannelName::clone(&publish.channel);
        self.ask(&channel, Asked::Publish(op, Box::new(publish)))
    }

    fn subscribe(&self, op: Op, open: Open<'_>, _now: Now) -> Step<Subscribed> {
        let Open { channel, recover, positioned, retention } = open;
        let opening = Opening { recover: recover.cloned(), positioned, retention };
        self.ask(channel, Asked::Subscribe(op, Box::new(opening)))
    }

    fn unsubscribe(&self, channel: &ChannelName, _now: Now) {
        let _: Step<()> = self.ask(channel, Asked::Unsubscribe);
    }

    fn history(&self, op: Op, read: Read<'_>, _now: Now) -> Step<HistoryPage> {
        self.ask(read.channel, Asked::History(op, read.query.clone(), read.retention))
    }

    fn remove_history(&self, op: Op, channel: &ChannelName, _now: Now) -> Step<()> {
        self.ask(channel, Asked::RemoveHistory(op))
    }

    fn enter(&self, channel: &ChannelName, info: &Arc<ClientInfo>, now: Now) {
        self.inner.enter(channel, info, now);
    }

    fn leave(&self, channel: &ChannelName, client: Uuid, now: Now) {
        self.inner.leave(channel, client, now);
    }

    fn presence(&self, op: Op, channel: &ChannelName, _now: Now) -> Step<Vec<Arc<ClientInfo>>> {
        self.ask(channel, Asked::Presence(op))
    }

    fn presence_stats(&self, op: Op, channel: &ChannelName, _now: Now) -> Step<PresenceStats> {
        self.ask(channel, Asked::PresenceStats(op))
    }

    fn announce(&self, channel: &ChannelName, item: Item) -> Option<Item> {
        let _: Step<()> = self.ask(channel, Asked::Announce(item));
        None
    }

    fn sweep(&self, now: Now) {
        self.inner.sweep(now);
    }
}
