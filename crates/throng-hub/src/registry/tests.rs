use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use uuid::Uuid;

use super::{
    AlreadySubscribed, Amount, Audience, Batch, Channel, Contents, Join, Member, Queued, Registry,
    Sink, SubFlags, Subscription, Tally,
};
use crate::event::{Flight, Item};
use crate::publication::{ChannelName, ClientInfo, Epoch, Position, Publication};
use crate::registry::Theirs;
use crate::request::{Draw, Now};
use crate::roster::GONE;
use crate::state::{Fields, Writer};
use crate::subscription::Subscriptions;

const EPOCH: Epoch = Epoch(*b"abcdefgh");

/// Every delivery as text: the member and the bytes it got.
#[derive(Default)]
struct Log(Vec<(Member, String)>);

impl Sink for Log {
    fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
        let mut encode =
            |_: usize, _: &ChannelName, item: &Item, bytes: &mut Vec<u8>| write(item, bytes);
        let form = if member.is_multiple_of(2) { 0 } else { 0x20 };
        let bytes = batch.bytes(form, audience, &mut encode);
        if !bytes.is_empty() {
            self.0.push((member, String::from_utf8(bytes.to_vec()).unwrap()));
        }
    }
}

fn write(item: &Item, bytes: &mut Vec<u8>) {
    match item {
        Item::Publication(flight) => bytes.extend_from_slice(&flight.publication.data),
        Item::Join(info) => bytes.extend_from_slice(format!("+{}", info.user).as_bytes()),
        Item::Leave(info) => bytes.extend_from_slice(format!("-{}", info.user).as_bytes()),
    }
    bytes.push(b' ');
}

fn name(text: &str) -> ChannelName {
    text.into()
}

fn said(text: &str) -> Item {
    let data = Bytes::copy_from_slice(text.as_bytes());
    Item::Publication(Flight {
        publication: Arc::new(Publication::new(data, None, 0)),
        draw: None,
        base: None,
        came_us: 0,
    })
}

fn placed(offset: u64, epoch: Epoch) -> Item {
    let mut publication = Publication::new(format!("{offset}").into(), None, 0);
    publication.offset = offset;
    publication.epoch = Some(epoch);
    Item::Publication(Flight {
        publication: Arc::new(publication),
        draw: None,
        base: None,
        came_us: 0,
    })
}

fn joined(user: &str) -> Item {
    let client = Uuid::nil();
    Item::Join(Arc::new(ClientInfo { user: user.into(), client, conn_info: None, chan_info: None }))
}

fn with(flags: SubFlags) -> Join {
    Join { flags, ..Join::default() }
}

fn drain(registry: &mut Registry) -> Vec<(Member, String)> {
    let mut log = Log::default();
    while registry.fan_out(&mut log, 3) {}
    log.0
}

#[test]
fn costs_what_it_says() {
    let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
    let subscriptions = size_of::<Subscriptions>() + allocated(3 * size_of::<Subscription>());
    let lists = 3 * size_of::<Member>();
    assert_eq!((subscriptions + lists) / 3, 38, "per subscription, of three, in shared channels");
    // A table entry is a place and a control byte at 7/8 of the room, filled by half to whole.
    let names = (size_of::<u32>() + 1) * 8 / 7 * 4 / 3;
    let own_channel =
        size_of::<Option<Channel>>() + names + allocated(16 + "private:1234567".len());
    assert_eq!(own_channel, 110, "more for a channel of one's own");
}

#[test]
fn who_stays_gets_all_and_who_joins_gets_nothing_from_before() {
    let mut registry = Registry::new();
    let news = name("news");
    registry.join(1, &news, Join::default()).unwrap();
    assert_eq!(registry.join(1, &news, Join::default()), Err(AlreadySubscribed));
    assert_eq!(registry.queue("news", said("a")), Queued::Queued);
    registry.join(2, &news, Join::default()).unwrap();
    registry.queue("news", said("b"));
    registry.join(3, &news, Join::default()).unwrap();
    assert_eq!(drain(&mut registry), [(1, "a b ".into()), (2, "b ".into())]);
    assert_eq!(registry.queued_bytes(), 0);
    assert_eq!(registry.queue("sport", said("c")), Queued::NoSubscribers);
}

#[test]
fn what_is_in_the_bytes_is_told_with_them() {
    #[derive(Default)]
    struct Counted(Vec<(Member, Option<Tally>)>, usize);
    impl Sink for Counted {
        fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
            let mut encode =
                |_: usize, _: &ChannelName, item: &Item, bytes: &mut Vec<u8>| write(item, bytes);
            let (bytes, contents) = batch.counted(0, audience, &mut encode);
            let tally = match contents {
                Contents::Publication => None,
                Contents::Several(tally) => Some(*tally),
            };
            let all = tally.map(|t| t.publications.bytes + t.joins.bytes + t.leaves.bytes);
            assert_eq!(all.unwrap_or(bytes.len()), bytes.len());
            self.0.push((member, tally));
        }
        fn passed(&mut self, batch: &Batch) {
            self.1 += batch.items().len();
        }
    }
    let mut registry = Registry::new();
    let news = name("news");
    registry.join(1, &news, with(SubFlags::JOIN_LEAVE)).unwrap();
    registry.join(2, &news, Join::default()).unwrap();
    let mut counted = Counted::default();
    registry.queue("news", said("alone"));
    while registry.fan_out(&mut counted, 1) {}
    assert_eq!((&counted.0[..], counted.1), (&[(1, None), (2, None)][..], 1));
    for item in [said("ab"), joined("ann"), said("c")] {
        registry.queue("news", item);
    }
    let mut counted = Counted::default();
    while registry.fan_out(&mut counted, 1) {}
    let amount = |messages, bytes| Amount { messages, bytes };
    let deaf = Tally { publications: amount(2, 5), ..Tally::default() };
    let all = Tally { joins: amount(1, 5), ..deaf };
    assert_eq!((&counted.0[..], counted.1), (&[(1, Some(all)), (2, Some(deaf))][..], 3));
}

#[test]
fn a_publication_is_encoded_once_for_all() {
    struct Count(usize);
    impl Sink for Count {
        fn deliver(&mut self, _: Member, batch: &mut Batch, audience: Audience) {
            let mut encode = |_: usize, _: &ChannelName, item: &Item, bytes: &mut Vec<u8>| {
                self.0 += 1;
                write(item, bytes);
            };
            batch.bytes(1, audience, &mut encode);
        }
    }
    let mut count = Count(0);
    let items = [said("a"), said("b")];
    // Two shards; in each a member of both items, and one of the second only.
    for _ in 0..2 {
        let mut registry = Registry::new();
        registry.join(0, &name("news"), Join::default()).unwrap();
        registry.queue("news", items[0].clone());
        registry.join(1, &name("news"), Join::default()).unwrap();
        registry.queue("news", items[1].clone());
        while registry.fan_out(&mut count, 1) {}
    }
    assert_eq!(count.0, 2);
}

#[test]
fn joins_are_for_those_who_asked() {
    let mut registry = Registry::new();
    let news = name("news");
    registry.join(1, &news, with(SubFlags::JOIN_LEAVE)).unwrap();
    registry.join(2, &news, Join::default()).unwrap();
    registry.queue("news", joined("ann"));
    assert_eq!(drain(&mut registry), [(1, "+ann ".into())]);
    registry.queue("news", said("a"));
    registry.queue("news", joined("bob"));
    assert_eq!(drain(&mut registry), [(1, "a +bob ".into()), (2, "a ".into())]);
}

#[test]
fn a_gap_is_not_passed_over() {
    let mut registry = Registry::new();
    let news = name("news");
    let at = |offset| Some(Position { offset, epoch: EPOCH });
    let positioned = |offset| Join { position: at(offset), ..with(SubFlags::POSITIONED) };
    registry.join(1, &news, positioned(4)).unwrap();
    registry.join(2, &news, Join::default()).unwrap();
    assert_eq!(registry.queue("news", placed(4, EPOCH)), Queued::Duplicate);
    assert_eq!(registry.queue("news", placed(5, EPOCH)), Queued::Queued);
    assert_eq!(drain(&mut registry), [(1, "5 ".into()), (2, "5 ".into())]);
    assert_eq!(registry.queue("news", placed(7, EPOCH)), Queued::Gap);
    assert_eq!(registry.positioned_members("news").collect::<Vec<_>>(), [1]);
    assert_eq!(registry.queue("news", placed(8, EPOCH)), Queued::Queued);
    assert_eq!(drain(&mut registry), [(2, "7 8 ".into())]);
    assert!(registry.leave(1, "news").is_some());
    registry.join(1, &news, positioned(8)).unwrap();
    assert_eq!(registry.queue("news", placed(1, Epoch(*b"anotherx"))), Queued::Gap);
    assert_eq!(drain(&mut registry), [(2, "1 ".into())]);
}

#[test]
fn after_a_loss_the_next_to_join_says_the_position() {
    let mut registry = Registry::new();
    let news = name("news");
    let at = |offset| Some(Position { offset, epoch: EPOCH });
    let positioned = |offset| Join { position: at(offset), ..with(SubFlags::POSITIONED) };
    registry.join(1, &news, positioned(4)).unwrap();
    registry.join(2, &news, Join::default()).unwrap();
    registry.lose("news");
    registry.leave(1, "news");
    registry.join(1, &news, positioned(9)).unwrap();
    assert_eq!(registry.queue("news", placed(10, EPOCH)), Queued::Queued);
    assert_eq!(drain(&mut registry), [(2, "10 ".into()), (1, "10 ".into())]);
}

#[test]
fn a_position_is_not_kept_while_nobody_is_there() {
    let mut registry = Registry::new();
    let news = name("news");
    let join = |offset| Join {
        position: Some(Position { offset, epoch: EPOCH }),
        ..with(SubFlags::POSITIONED)
    };
    registry.join(1, &news, join(0)).unwrap();
    registry.queue("news", placed(1, EPOCH));
    registry.leave(1, "news");
    // The entry is still there, since its work is; publications 2 to 5 went by.
    registry.join(2, &news, join(5)).unwrap();
    assert_eq!(registry.queue("news", placed(6, EPOCH)), Queued::Queued);
    assert_eq!(drain(&mut registry), [(2, "6 ".into())]);
}

#[test]
fn a_crowd_does_not_hold_up_a_small_channel() {
    let mut registry = Registry::new();
    let (crowd, pair) = (name("crowd"), name("pair"));
    for member in 0..10_000 {
        registry.join(member, &crowd, Join::default()).unwrap();
    }
    registry.join(20_000, &pair, Join::default()).unwrap();
    registry.queue("crowd", said("a"));
    registry.queue("pair", said("b"));
    let mut log = Log::default();
    assert!(registry.fan_out(&mut log, 300));
    assert!(log.0.contains(&(20_000, "b ".into())));
}

#[test]
fn a_pass_carries_so_many_bytes_and_at_least_one_item() {
    let mut registry = Registry::new();
    registry.join(0, &name("news"), Join::default()).unwrap();
    for length in [100_000, 40_000, 20_000, 10_000] {
        registry.queue("news", said(&"x".repeat(length)));
    }
    let lengths: Vec<_> = drain(&mut registry).iter().map(|(_, text)| text.len()).collect();
    assert_eq!(lengths, [100_001, 60_002, 10_001]);
}

#[test]
fn a_publication_gives_its_draw_back_when_all_have_it() {
    let mut registry = Registry::new();
    let news = name("news");
    registry.join(1, &news, Join::default()).unwrap();
    registry.join(2, &news, Join::default()).unwrap();
    let draw = Arc::new(());
    for _ in 0..2 {
        let Item::Publication(mut flight) = said("a") else { panic!("a publication") };
        flight.draw = Some(Arc::clone(&draw) as Draw);
        registry.queue("news", Item::Publication(flight));
    }
    let mut log = Log::default();
    assert!(registry.fan_out(&mut log, 1));
    assert_eq!(Arc::strong_count(&draw), 3);
    assert!(!registry.fan_out(&mut log, 1));
    assert_eq!((Arc::strong_count(&draw), log.0.len()), (1, 2));
}

#[test]
fn nothing_is_left_when_everybody_left() {
    let mut registry = Registry::new();
    for member in 0..100 {
        for channel in ["a", "b", "c"] {
            registry.join(member, &name(channel), Join::default()).unwrap();
        }
        registry.join(member, &name(&format!("own:{member}")), Join::default()).unwrap();
    }
    registry.queue("a", said("x"));
    assert_eq!(registry.count(7), 4);
    for member in 0..100 {
        let mut left = 0;
        registry.leave_all(member, &mut |_, _| left += 1);
        assert_eq!(left, 4);
    }
    assert_eq!(drain(&mut registry), []);
    assert_eq!((registry.channel_count(), registry.subscription_count()), (0, 0));
    assert_eq!(registry.free.len(), registry.channels.len());
    assert_eq!(registry.queued_bytes(), 0);
}

/// One thing that happens to a registry.
#[derive(Debug, Clone)]
enum Act {
    Join(Member, usize, bool),
    Leave(Member, usize),
    LeaveAll(Member),
    Publish(usize, usize),
    Announce(usize),
    FanOut(usize),
}

const CHANNELS: [&str; 3] = ["a", "b", "c"];

fn act() -> impl Strategy<Value = Act> {
    let member = || 0..12u32;
    let channel = || 0..CHANNELS.len();
    prop_oneof![
        6 => (member(), channel(), any::<bool>()).prop_map(|(m, c, j)| Act::Join(m, c, j)),
        4 => (member(), channel()).prop_map(|(m, c)| Act::Leave(m, c)),
        1 => member().prop_map(Act::LeaveAll),
        5 => (channel(), prop_oneof![9 => Just(1usize), 1 => Just(40_000)])
            .prop_map(|(c, size)| Act::Publish(c, size)),
        2 => channel().prop_map(Act::Announce),
        4 => (1..8usize).prop_map(Act::FanOut),
    ]
}

/// The registry beside the plainest model of it: for each subscription, what it is yet to get.
#[derive(Default)]
struct Model {
    registry: Registry,
    /// By channel and member: whether it wants joins, and the texts it must still get, in order.
    due: BTreeMap<(usize, Member), (bool, Vec<String>)>,
    next: usize,
}

impl Model {
    fn act(&mut self, act: &Act) {
        match *act {
            Act::Join(member, channel, wants) => {
                let flags = if wants { SubFlags::JOIN_LEAVE } else { SubFlags::default() };
                let joined = self.registry.join(member, &name(CHANNELS[channel]), with(flags));
                assert_eq!(joined.is_err(), self.due.contains_key(&(channel, member)));
                self.due.entry((channel, member)).or_insert_with(|| (wants, Vec::new()));
            }
            Act::Leave(member, channel) => {
                let left = self.registry.leave(member, CHANNELS[channel]).is_some();
                assert_eq!(left, self.due.remove(&(channel, member)).is_some());
            }
            Act::LeaveAll(member) => {
                let mut left = BTreeSet::new();
                self.registry.leave_all(member, &mut |name, _| {
                    left.insert(name.to_string());
                });
                let had = |(channel, one): &(usize, Member)| {
                    (*one == member).then(|| CHANNELS[*channel].to_owned())
                };
                assert_eq!(left, self.due.keys().filter_map(had).collect());
                self.due.retain(|(_, one), _| *one != member);
            }
            Act::Publish(channel, size) => {
                let text = format!("{}{}:{}", CHANNELS[channel], self.next, "x".repeat(size));
                self.queue(channel, said(&text), &text);
            }
            Act::Announce(channel) => {
                let user = format!("{}{}:", CHANNELS[channel], self.next);
                self.queue(channel, joined(&user), &format!("+{user}"));
            }
            Act::FanOut(deliveries) => self.fan_out(deliveries),
        }
    }

    fn queue(&mut self, channel: usize, item: Item, text: &str) {
        self.next += 1;
        let queued = self.registry.queue(CHANNELS[channel], item);
        let mut subscribers = 0;
        for ((to, _), (wants, due)) in &mut self.due {
            if *to == channel && (*wants || !text.starts_with('+')) {
                subscribers += 1;
                due.push(text.to_owned());
            }
        }
        assert_eq!(queued == Queued::Queued, subscribers > 0);
    }

    fn fan_out(&mut self, deliveries: usize) {
        let mut log = Log::default();
        self.registry.fan_out(&mut log, deliveries);
        assert!(log.0.len() <= deliveries);
        for (member, text) in &log.0 {
            let got: Vec<_> = text.split_terminator(' ').collect();
            let letter = &got[0].trim_start_matches('+')[..1];
            let channel = CHANNELS.iter().position(|one| *one == letter).unwrap();
            let (_, due) = self.due.get_mut(&(channel, *member)).expect("who left gets nothing");
            assert!(due.len() >= got.len(), "nothing twice, and nothing from before");
            assert!(due.drain(..got.len()).eq(got), "in order");
        }
    }

    /// Each list and each member's subscriptions say the same.
    fn check(&self) {
        let registry = &self.registry;
        let mut listed = 0;
        for (at, channel) in registry.channels.iter().enumerate() {
            let Some(channel) = channel else { continue };
            for (index, &member) in channel.roster.as_slice().iter().enumerate() {
                if member == GONE {
                    assert!(channel.work.is_some(), "tombstones go with the work");
                    continue;
                }
                listed += 1;
                let at = u32::try_from(at).unwrap();
                let subscription = registry.members[member as usize].find(at).unwrap();
                assert_eq!(subscription.index as usize, index);
            }
        }
        assert_eq!((listed, registry.subscription_count()), (self.due.len(), self.due.len()));
        for (channel, name) in CHANNELS.iter().enumerate() {
            let members: BTreeSet<_> = registry.members(name).collect();
            let model =
                self.due.keys().filter(|(one, _)| *one == channel).map(|(_, member)| *member);
            assert_eq!(members.len(), registry.member_count(name) as usize);
            assert_eq!(members, model.collect());
        }
    }
}

proptest! {
    #[test]
    fn everyone_gets_each_item_of_their_time_once_and_in_order(acts in vec(act(), 1..200)) {
        let mut model = Model::default();
        for act in &acts {
            model.act(act);
            model.check();
        }
        while model.registry.has_work() {
            model.fan_out(5);
        }
        model.check();
        assert!(model.due.values().all(|(_, due)| due.is_empty()), "nobody waits for anything");
        assert_eq!(model.registry.queued_bytes(), 0);
    }
}

#[test]
fn many_subscriptions_of_one_member_are_found_and_left() {
    let mut registry = Registry::new();
    let names: Vec<_> = (0..40).map(|at| name(&format!("c{at}"))).collect();
    for (at, channel) in names.iter().enumerate() {
        registry.join(5, channel, Join::default()).unwrap();
        assert_eq!(registry.count(5), at + 1);
    }
    registry.find_mut(5, "c33").unwrap().expires_s = 9;
    assert_eq!(registry.find(5, "c33").unwrap().expires_s, 9);
    for (at, channel) in names.iter().enumerate() {
        assert!(registry.leave(5, channel).is_some());
        assert_eq!(registry.subscriptions(5).count(), 39 - at);
    }
}

/// Tells another registry of these members: their channels, and then each with its subscriptions.
fn tell(
    (from, to, theirs): (&mut Registry, &mut Registry, &mut Theirs),
    members: &[Member],
    is_last: bool,
) {
    let mut out = Writer::new(Vec::new(), Now::default());
    from.put_channels(members, is_last, (1, 2), &mut out);
    let channels = out.into_bytes();
    let mut fields = Fields::new(&channels, 0, "channels", Now::default());
    while let Some(field) = fields.field().unwrap() {
        if field.tag == 1 {
            theirs.take(&field).unwrap()
        } else {
            theirs.take_moved(&field).unwrap()
        }
    }
    for member in members {
        to.leave_all(*member, &mut |_, _| {});
        let mut out = Writer::new(Vec::new(), Now::default());
        from.put_subscriptions(*member, 1, &mut out);
        let subscriptions = out.into_bytes();
        let mut fields = Fields::new(&subscriptions, 0, "subscriptions", Now::default());
        while let Some(field) = fields.field().unwrap() {
            to.take_subscription(*member, &"".into(), (theirs, &field), &mut |name, _| {
                ChannelName::clone(name)
            })
            .unwrap();
        }
    }
    if is_last {
        let stands: Vec<_> = theirs.take_stands().collect();
        to.stand(&stands);
    }
}

#[test]
fn who_was_told_ahead_follows_the_channel_from_where_it_stands_in_the_end() {
    let mut from = Registry::new();
    let (mut to, mut theirs) = (Registry::with_seed(3), Theirs::default());
    let at = |offset, epoch| Some(Position { offset, epoch });
    let join = |offset, epoch| Join { position: at(offset, epoch), ..with(SubFlags::POSITIONED) };
    let another = Epoch(*b"anotherx");
    for (member, channel) in [(1, "moves"), (1, "stays"), (2, "ends"), (3, "anew"), (4, "anew")] {
        from.join(member, &name(channel), join(4, EPOCH)).unwrap();
    }
    tell((&mut from, &mut to, &mut theirs), &[1, 2, 3, 4], false);
    assert_eq!(to.subscription_count(), 5);
    from.queue("moves", placed(5, EPOCH));
    from.queue("moves", placed(6, EPOCH));
    drain(&mut from);
    // In the place of one that ends there is another.
    from.leave_all(2, &mut |_, _| {});
    from.join(2, &name("comes"), join(9, EPOCH)).unwrap();
    // One is gone, and begins anew with somebody else.
    from.leave(3, "anew");
    from.leave(4, "anew");
    from.join(4, &name("anew"), join(1, another)).unwrap();
    tell((&mut from, &mut to, &mut theirs), &[4], false);
    from.queue("anew", placed(2, another));
    drain(&mut from);
    tell((&mut from, &mut to, &mut theirs), &[2, 3], true);
    for channel in ["moves", "stays", "ends", "comes", "anew"] {
        assert_eq!(to.position(channel), from.position(channel), "{channel}");
        assert_eq!(to.member_count(channel), from.member_count(channel), "{channel}");
    }
    assert_eq!(to.queue("moves", placed(7, EPOCH)), Queued::Queued);
    assert_eq!(to.queue("moves", placed(7, EPOCH)), Queued::Duplicate);
    assert_eq!(to.queue("anew", placed(3, another)), Queued::Queued);
}
