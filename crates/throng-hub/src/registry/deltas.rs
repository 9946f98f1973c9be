//! Who takes patches can read each one that it gets, whoever joins, leaves, recovers, moves to another
//! process or is passed by meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Audience, Batch, Join, Member, Queued, Registry, Sink, SubFlags, Theirs};
use crate::event::{Flight, Item};
use crate::publication::{ChannelName, DELTA, Epoch, PATCH, Position, Publication};
use crate::request::Now;
use crate::state::{Fields, Writer};

const EPOCH: Epoch = Epoch(*b"abcdefgh");
const MEMBERS: u32 = 5;

/// What a member has read last, and how it got it.
#[derive(Debug, Default)]
struct Readers {
    last: HashMap<Member, String>,
    patches: usize,
    whole: usize,
}

impl Sink for Readers {
    fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
        let mut encode = |form: usize, _: &ChannelName, item: &Item, out: &mut Vec<u8>| {
            let Item::Publication(flight) = item else { return };
            let data = String::from_utf8(flight.publication.data.to_vec()).unwrap();
            let said = match &flight.base {
                Some(base) if form & PATCH != 0 => {
                    format!("{}>{data};", String::from_utf8(base.data.to_vec()).unwrap())
                }
                _ => format!("{data};"),
            };
            assert!(form & DELTA != 0);
            out.extend_from_slice(said.as_bytes());
        };
        let bytes = batch.bytes(member as usize % 2, audience, &mut encode);
        for said in std::str::from_utf8(bytes).unwrap().split_terminator(';') {
            let (base, data) = said.split_once('>').map_or((None, said), |(b, d)| (Some(b), d));
            if let Some(base) = base {
                assert_eq!(self.last.get(&member).map(String::as_str), Some(base), "of {data}");
                self.patches += 1;
            } else {
                self.whole += 1;
            }
            self.last.insert(member, data.to_owned());
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Whether it follows the position, and how much it recovers: none, or the last.
    Join(Member, bool, bool),
    Leave(Member),
    /// With the flag or without it.
    Publish(bool),
    /// It has no place in the stream.
    Stray,
    /// One is lost on its way.
    Lose,
    Forget,
    FanOut(usize),
    /// Told ahead, while it goes on.
    Ahead,
    Move,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = 0..MEMBERS;
    let step = prop_oneof![
        6 => (member.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(member, follows, recovers)| Step::Join(member, follows, recovers)),
        2 => member.prop_map(Step::Leave),
        10 => prop::bool::weighted(0.8).prop_map(Step::Publish),
        1 => Just(Step::Stray),
        1 => Just(Step::Lose),
        1 => Just(Step::Forget),
        8 => (1_usize..4).prop_map(Step::FanOut),
        1 => Just(Step::Ahead),
        1 => Just(Step::Move),
    ];
    prop::collection::vec(step, 0..120)
}

#[derive(Debug, Default)]
struct World {
    registry: Registry,
    readers: Readers,
    latest: Option<Arc<Publication>>,
    top: u64,
    strays: u32,
    /// What went ahead: all that is told at once, as the copies of a restart are.
    ahead: Vec<Vec<u8>>,
}

impl World {
    fn name() -> ChannelName {
        "news".into()
    }

    fn place(&self) -> Position {
        Position { offset: self.top, epoch: EPOCH }
    }

    fn next(&mut self, delta: bool) -> Flight {
        self.top += 1;
        let mut publication = Publication::new(Bytes::from(format!("{}", self.top)), None, 0);
        (publication.offset, publication.epoch, publication.delta) = (self.top, Some(EPOCH), delta);
        let publication = Arc::new(publication);
        let base = self.latest.replace(Arc::clone(&publication)).filter(|_| delta);
        Flight { publication, draw: None, base, came_us: 0 }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join(member, follows, recovers) => {
                let mut flags = SubFlags::DELTA;
                let latest = self.latest.clone().filter(|_| follows && recovers);
                if follows {
                    flags = flags.with(SubFlags::POSITIONED);
                }
                if latest.is_some() {
                    flags = flags.with(SubFlags::BASED);
                }
                let position = follows.then(|| self.place());
                let join = Join { flags, position, ..Join::default() };
                if self.registry.join(member, &Self::name(), join).is_ok() {
                    self.readers.last.remove(&member);
                    if let Some(latest) = latest {
                        let data = String::from_utf8(latest.data.to_vec()).unwrap();
                        self.readers.last.insert(member, data);
                    }
                }
            }
            Step::Leave(member) => drop(self.registry.leave(member, "news")),
            Step::Publish(delta) => {
                let flight = self.next(delta);
                if self.registry.queue("news", Item::Publication(flight)) == Queued::Gap {
                    self.unsettle();
                }
            }
            Step::Stray => {
                self.strays += 1;
                let data = Bytes::from(format!("stray{}", self.strays));
                let publication = Arc::new(Publication::new(data, None, 0));
                let flight = Flight { publication, draw: None, base: None, came_us: 0 };
                self.registry.queue("news", Item::Publication(flight));
            }
            Step::Lose => drop(self.next(true)),
            Step::Forget => self.latest = None,
            Step::FanOut(places) => {
                self.registry.fan_out(&mut self.readers, places);
            }
            Step::Ahead => self.write(false),
            Step::Move => self.turn(),
        }
    }

    /// Those who follow the position come back later.
    fn unsettle(&mut self) {
        for member in self.registry.positioned_members("news").collect::<Vec<_>>() {
            self.registry.leave(member, "news");
        }
    }

    fn write(&mut self, is_last: bool) {
        let members: Vec<Member> = (0..MEMBERS).collect();
        let mut out = Writer::new(Vec::new(), Now::default());
        self.registry.put_channels(&members, is_last, (1, 2), &mut out);
        self.ahead.push(out.into_bytes());
    }

    /// Another process goes on.
    fn turn(&mut self) {
        while self.registry.fan_out(&mut self.readers, 3) {}
        self.write(true);
        let mut theirs = Theirs::default();
        for piece in std::mem::take(&mut self.ahead) {
            let mut fields = Fields::new(&piece, 0, "channels", Now::default());
            while let Some(field) = fields.field().unwrap() {
                match field.tag {
                    1 => theirs.take(&field).unwrap(),
                    _ => theirs.take_moved(&field).unwrap(),
                }
            }
        }
        let mut next = Registry::new();
        let user = Arc::from("");
        for member in 0..MEMBERS {
            let mut out = Writer::new(Vec::new(), Now::default());
            self.registry.put_subscriptions(member, 1, &mut out);
            let bytes = out.into_bytes();
            let mut fields = Fields::new(&bytes, 0, "subscriptions", Now::default());
            while let Some(field) = fields.field().unwrap() {
                let seat = &mut |name: &ChannelName, _| ChannelName::clone(name);
                next.take_subscription(member, &user, (&theirs, &field), seat).unwrap();
            }
        }
        let strays: Vec<ChannelName> = theirs.strays().cloned().collect();
        let stands: Vec<_> = theirs.take_stands().collect();
        next.stand(&stands);
        next.stray(&strays);
        self.registry = next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_patch_is_of_what_its_reader_has(steps in steps()) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
        }
        while world.registry.fan_out(&mut world.readers, 3) {}
    }
}

#[test]
fn the_first_comes_whole_and_patches_follow_over_a_move() {
    let mut world = World::default();
    world.take(&Step::Join(0, true, false));
    world.take(&Step::Publish(true));
    world.take(&Step::Publish(true));
    world.take(&Step::FanOut(9));
    world.take(&Step::Publish(true));
    assert_eq!((world.readers.whole, world.readers.patches), (1, 1));
    world.take(&Step::Move);
    // One that recovers the last has what the next patch is of.
    world.take(&Step::Join(1, true, true));
    world.take(&Step::Publish(true));
    world.take(&Step::FanOut(9));
    assert_eq!((world.readers.whole, world.readers.patches), (1, 4));
    // What has no place in the stream comes whole, and so does the one after it.
    for step in [Step::Stray, Step::Publish(true), Step::Publish(true), Step::FanOut(9)] {
        world.take(&step);
    }
    assert_eq!((world.readers.whole, world.readers.patches), (5, 6));
    world.take(&Step::Publish(false));
    world.take(&Step::Publish(true));
    world.take(&Step::FanOut(9));
    assert_eq!((world.readers.whole, world.readers.patches), (7, 8));
}
