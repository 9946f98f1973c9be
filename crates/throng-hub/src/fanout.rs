//! A pass over the subscribers of one channel with the items that wait for them.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use crate::event::{Flight, Item};
use crate::filter::Filter;
use crate::filters::{Filters, Verdict, Verdicts};
use crate::publication::{ChannelName, DELTA, FORMS_MAX, PATCH};
use crate::roster::GONE;
use crate::subscription::{Member, SubFlags, Subscriptions};

/// Payload bytes that one pass carries at most (one item it carries whatever its size): what is
/// written together to one connection should fit the kernel's socket buffer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// A channel without work keeps no more room than this for the next time.
const SPARE_ITEMS_MAX: usize = 64;

/// Where deliveries go: the connections of one shard.
pub trait Sink {
    /// Hands `member` what `audience` says of `batch`.
    fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience);

    /// What moves of a member's subscription is another than before.
    fn changed(&mut self, _member: Member) {}

    /// A pass is through: everybody has had what this batch says.
    fn passed(&mut self, _batch: &Batch) {}

    /// These members come next, in this order; some may be gone. A sink that reads a record for
    /// each does well to touch them here: then the cache misses of a few deliveries overlap,
    /// instead of each being waited for between two writes.
    fn approach(&mut self, _members: &[Member]) {}
}

/// Which part of a batch a member gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audience {
    /// The first item that was queued after the member joined.
    pub from: usize,
    /// The member's subscription.
    pub flags: SubFlags,
    /// Its filter holds some of the items back: those that the batch's choice says.
    chosen: bool,
}

/// The items of one pass.
#[derive(Debug)]
pub struct Batch {
    channel: ChannelName,
    items: Vec<Item>,
    /// Items at or after this place are all joins and leaves.
    publications_end: usize,
    /// Whether there are joins or leaves among the items.
    announces: bool,
    /// The last bytes made for each form, without and with joins and leaves. One each is enough:
    /// in a pass `from` only grows.
    made: [[Option<Made>; 2]; FORMS_MAX],
    /// The same for forms that are not plain, each with whether joins and leaves are in it.
    others: Vec<(usize, bool, Made)>,
    /// There while a member with a filter is among those who get it.
    choice: Option<Box<Choice>>,
}

/// What filters say of a batch.
#[derive(Debug, Default)]
struct Choice {
    verdicts: Verdicts,
    /// Which items the member at hand gets.
    chosen: Verdict,
    /// The last bytes made for such a choice: form, whether with joins and leaves, and the choice.
    /// Of one choice only, since there may be as many as members.
    made: Option<(usize, bool, Verdict, Made)>,
}

#[derive(Debug)]
struct Made {
    from: usize,
    bytes: Bytes,
    tally: Tally,
}

/// Messages of one kind, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub messages: u32,
    pub bytes: usize,
}

/// What is in the bytes that an audience gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub publications: Amount,
    pub joins: Amount,
    pub leaves: Amount,
}

/// The same, where it is most often but one publication, whose bytes are all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents<'a> {
    Publication,
    Several(&'a Tally),
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }
}

/// Encodes one item of a channel, in the form of this number, at the end of the bytes given.
pub type Encode<'a> = dyn FnMut(usize, &ChannelName, &Item, &mut Vec<u8>) + 'a;

impl Batch {
    fn new(channel: &ChannelName) -> Self {
        Self {
            channel: ChannelName::clone(channel),
            items: Vec::new(),
            publications_end: 0,
            announces: false,
            made: [const { [const { None }; 2] }; FORMS_MAX],
            others: Vec::new(),
            choice: None,
        }
    }

    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The bytes for this audience in `form` (less than `FORMS_MAX`; what the audience's flags add
    /// is added here): its items one after the other, without joins and leaves for who did not
    /// ask. Made once per batch and form; those of a publication once per node (invariant
    /// ENCODE-ONCE). Empty: nothing to send.
    pub fn bytes(&mut self, form: usize, audience: Audience, encode: &mut Encode<'_>) -> &Bytes {
        self.counted(form, audience, encode).0
    }

    /// The same, and what is in them.
    pub fn counted(
        &mut self,
        form: usize,
        audience: Audience,
        encode: &mut Encode<'_>,
    ) -> (&Bytes, Contents<'_>) {
        let from = audience.from.min(self.items.len());
        let items = &self.items[from..];
        let form = form | audience.form();
        if let [item @ Item::Publication(flight)] = items {
            let bytes = once(&self.channel, (item, flight), form, encode);
            return (bytes, Contents::Publication);
        }
        let announced = self.announces && audience.flags.contains(SubFlags::JOIN_LEAVE);
        let channel = &self.channel;
        if let Some(choice) = self.choice.as_mut().filter(|_| audience.chosen) {
            let made = choice.made(channel, (items, from), (form, announced), encode);
            return (&made.bytes, Contents::Several(&made.tally));
        }
        let mut make = || {
            let (bytes, tally) = concat(channel, (items, &[]), (form, announced), encode);
            Made { from, bytes, tally }
        };
        let Some(made) = self.made.get_mut(form) else {
            let made = other(&mut self.others, (form, announced, from), &mut make);
            return (&made.bytes, Contents::Several(&made.tally));
        };
        let made = &mut made[usize::from(announced)];
        if made.as_ref().is_none_or(|made| made.from != from) {
            *made = None;
        }
        let made = made.get_or_insert_with(make);
        (&made.bytes, Contents::Several(&made.tally))
    }

    fn push(&mut self, item: Item) {
        match item {
            Item::Publication(_) => self.publications_end = self.items.len() + 1,
            Item::Join(_) | Item::Leave(_) => self.announces = true,
        }
        self.items.push(item);
    }

    /// Gives back what the items hold.
    fn clear(&mut self) {
        self.items.clear();
        self.items.shrink_to(SPARE_ITEMS_MAX);
        self.publications_end = 0;
        self.announces = false;
        self.made = [const { [const { None }; 2] }; FORMS_MAX];
        self.others = Vec::new();
        self.choice = None;
    }

    /// What a filter leaves of the items from `from` on; how many publications it holds back.
    fn choose(&mut self, filter: (u64, &Filter), from: usize) -> (Left, usize) {
        let choice = self.choice.get_or_insert_default();
        choice.chosen = choice.verdicts.of(filter, &self.items);
        let items = self.items.iter().zip(&*choice.chosen).skip(from);
        let publications = items.filter(|(item, _)| matches!(item, Item::Publication(_)));
        let (mut passing, mut held) = (0, 0);
        for (_, passes) in publications {
            *(if *passes { &mut passing } else { &mut held }) += 1;
        }
        let left = match (passing, held) {
            (_, 0) => Left::All,
            (0, _) => Left::Announced,
            _ => Left::Some,
        };
        (left, held)
    }
}

/// What a filter leaves of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    Some,
    /// None, but joins and leaves if there are any.
    Announced,
}

impl Choice {
    fn made(
        &mut self,
        channel: &ChannelName,
        (items, from): (&[Item], usize),
        (form, announced): (usize, bool),
        encode: &mut Encode<'_>,
    ) -> &Made {
        let Self { verdicts: _, chosen, made } = self;
        let is_it = |made: &(usize, bool, Verdict, Made)| {
            (made.0, made.1, &made.2, made.3.from) == (form, announced, &*chosen, from)
        };
        if !made.as_ref().is_some_and(is_it) {
            *made = None;
        }
        let make = || {
            let only = chosen.get(from..).unwrap_or_default();
            let (bytes, tally) = concat(channel, (items, only), (form, announced), encode);
            (form, announced, Verdict::clone(chosen), Made { from, bytes, tally })
        };
        &made.get_or_insert_with(make).3
    }
}

impl Audience {
    /// What its flags add to the number of a form.
    fn form(self) -> usize {
        if !self.flags.contains(SubFlags::DELTA) {
            return 0;
        }
        if self.flags.contains(SubFlags::BASED) { DELTA | PATCH } else { DELTA }
    }
}

fn other<'a>(
    others: &'a mut Vec<(usize, bool, Made)>,
    (form, announced, from): (usize, bool, usize),
    make: &mut dyn FnMut() -> Made,
) -> &'a Made {
    let known = others.iter().position(|one| (one.0, one.1) == (form, announced));
    let at = known.unwrap_or(others.len());
    match others.get_mut(at) {
        Some((.., made)) if made.from == from => {}
        Some((.., made)) => *made = make(),
        None => others.push((form, announced, make())),
    }
    &others[at].2
}

fn once<'a>(
    channel: &ChannelName,
    (item, flight): (&Item, &'a Flight),
    form: usize,
    encode: &mut Encode<'_>,
) -> &'a Bytes {
    // Without one to start from there is no patch.
    let form = if flight.base.is_none() { form & !PATCH } else { form };
    flight.publication.form(form, || {
        let mut bytes = Vec::new();
        encode(form, channel, item, &mut bytes);
        Bytes::from(bytes)
    })
}

fn concat(
    channel: &ChannelName,
    (items, only): (&[Item], &[bool]),
    (mut form, announced): (usize, bool),
    encode: &mut Encode<'_>,
) -> (Bytes, Tally) {
    let (mut bytes, mut tally) = (Vec::new(), Tally::default());
    // Where nothing is chosen there is all.
    for (_, item) in items.iter().enumerate().filter(|(at, _)| only.get(*at) != Some(&false)) {
        let before = bytes.len();
        let of = match item {
            Item::Publication(flight) => {
                bytes.extend_from_slice(once(channel, (item, flight), form, encode));
                // Who has got this one can take a patch of the next.
                if form & DELTA != 0 {
                    form |= PATCH;
                }
                &mut tally.publications
            }
            Item::Join(_) | Item::Leave(_) if !announced => continue,
            Item::Join(_) => {
                encode(form, channel, item, &mut bytes);
                &mut tally.joins
            }
            Item::Leave(_) => {
                encode(form, channel, item, &mut bytes);
                &mut tally.leaves
            }
        };
        of.add(bytes.len() - before);
    }
    (Bytes::from(bytes), tally)
}

/// What the payload of an item counts for.
pub(crate) fn weight(item: &Item) -> usize {
    match item {
        Item::Publication(flight) => flight.publication.data.len(),
        Item::Join(_) | Item::Leave(_) => 0,
    }
}

/// What a channel has to hand out, and how far it got.
pub(crate) struct Work {
    /// For later passes, each with the length of the list when it was queued.
    waiting: VecDeque<(Item, u32)>,
    batch: Batch,
    /// Of each item in the batch: members at this place of the list or later joined after it.
    ends: Vec<u32>,
    /// Payload bytes in the batch.
    bytes: usize,
    cursor: u32,
    /// The first item that the member at the cursor gets.
    from: usize,
    /// Places that were left since the list had work.
    pub(crate) holes: Vec<u32>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("waiting", &self.waiting.len())
            .field("batch", &self.batch.items.len())
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// Who a pass goes over.
pub(crate) struct Crowd<'a> {
    pub(crate) channel: u32,
    pub(crate) roster: &'a [Member],
    pub(crate) members: &'a mut [Subscriptions],
    /// Those of the members who have one.
    pub(crate) filters: Option<&'a Filters>,
    /// How many publications filters held back, ever.
    pub(crate) withheld: &'a mut u64,
}

impl Crowd<'_> {
    /// Touches the records of those who come next; see [`Sink::approach`].
    fn approach(&self, members: &[Member]) {
        let touched = members
            .iter()
            .filter_map(|&member| self.members.get(member as usize))
            .filter(|subscriptions| !subscriptions.as_slice().is_empty())
            .count();
        std::hint::black_box(touched);
    }
}

impl Work {
    pub(crate) fn new(channel: &ChannelName) -> Self {
        Self {
            waiting: VecDeque::new(),
            batch: Batch::new(channel),
            ends: Vec::new(),
            bytes: 0,
            cursor: 0,
            from: 0,
            holes: Vec::new(),
        }
    }

    /// For another channel; everything of the last one is given back.
    pub(crate) fn reuse(&mut self, channel: &ChannelName) {
        self.batch.channel = ChannelName::clone(channel);
    }

    pub(crate) fn push(&mut self, item: Item, end: u32) {
        self.waiting.push_back((item, end));
    }

    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.ends.is_empty()
    }

    /// Goes on over at most `places` places of the list; returns how many it went over.
    pub(crate) fn advance(
        &mut self,
        crowd: &mut Crowd<'_>,
        sink: &mut dyn Sink,
        places: usize,
    ) -> usize {
        if self.ends.is_empty() {
            self.begin();
        }
        let Some(&end) = self.ends.last() else { return 0 };
        let first = self.cursor;
        let last = end.min(first.saturating_add(u32::try_from(places).unwrap_or(u32::MAX)));
        let roster = crowd.roster;
        let next = &roster[first as usize..last as usize];
        sink.approach(next);
        crowd.approach(next);
        for place in first..last {
            // `ends` never decreases and `place` is below its last, so this stops in time.
            while self.ends[self.from] <= place {
                self.from += 1;
            }
            let member = roster[place as usize];
            if member != GONE {
                self.deliver(crowd, member, sink);
            }
        }
        self.cursor = last;
        (last - first) as usize
    }

    fn deliver(&mut self, crowd: &mut Crowd<'_>, member: Member, sink: &mut dyn Sink) {
        let Some(subscription) = crowd.members[member as usize].find_mut(crowd.channel) else {
            debug_assert!(false, "a listed member has its subscription");
            return;
        };
        let flags = subscription.flags;
        let only_announced = self.from >= self.batch.publications_end;
        let deaf = only_announced && !flags.contains(SubFlags::JOIN_LEAVE);
        if deaf || flags.contains(SubFlags::LOST) {
            return;
        }
        let takes_first = flags.contains(SubFlags::DELTA) && !flags.contains(SubFlags::BASED);
        if takes_first && !only_announced {
            subscription.flags = flags.with(SubFlags::BASED);
            sink.changed(member);
        }
        let mut audience = Audience { from: self.from, flags, chosen: false };
        if flags.contains(SubFlags::FILTERED) && !only_announced {
            let Some((number, filter)) = crowd.filters.and_then(|filters| filters.of(member))
            else {
                debug_assert!(false, "who is filtered has a filter");
                return;
            };
            let (left, held) = self.batch.choose((number, filter), self.from);
            *crowd.withheld += held as u64;
            let hears = self.batch.announces && flags.contains(SubFlags::JOIN_LEAVE);
            if left == Left::Announced && !hears {
                return;
            }
            audience.chosen = left != Left::All;
        }
        sink.deliver(member, &mut self.batch, audience);
    }

    /// Ends the pass if it is through; returns the payload bytes handed out with it.
    pub(crate) fn end_pass(&mut self, sink: &mut dyn Sink) -> usize {
        if self.ends.last().is_none_or(|&end| self.cursor < end) {
            return 0;
        }
        sink.passed(&self.batch);
        self.end_batch()
    }

    /// Drops everything: nobody is left to get it. Returns its payload bytes.
    pub(crate) fn give_up(&mut self) -> usize {
        let waiting: usize = self.waiting.drain(..).map(|(item, _)| weight(&item)).sum();
        self.waiting.shrink_to(SPARE_ITEMS_MAX);
        waiting + self.end_batch()
    }

    fn begin(&mut self) {
        while let Some((item, _)) = self.waiting.front() {
            let added = weight(item);
            if !self.ends.is_empty() && self.bytes + added > BATCH_BYTES_MAX {
                break;
            }
            if let Some((item, end)) = self.waiting.pop_front() {
                self.bytes += added;
                self.batch.push(item);
                self.ends.push(end);
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(SPARE_ITEMS_MAX);
        }
    }

    fn end_batch(&mut self) -> usize {
        self.batch.clear();
        self.ends.clear();
        self.ends.shrink_to(SPARE_ITEMS_MAX);
        self.cursor = 0;
        self.from = 0;
        std::mem::take(&mut self.bytes)
    }
}
