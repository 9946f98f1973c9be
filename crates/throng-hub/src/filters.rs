//! The filters of one channel's members, each kept once however many have it.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::Item;
use crate::filter::Filter;
use crate::subscription::Member;

/// Verdicts on single items that are remembered during a pass, over all filters: past it each
/// subscriber's filter is asked again.
const VERDICTS_MAX: usize = 1 << 20;

/// Whether each item of a batch passes; joins and leaves always do.
pub(crate) type Verdict = Arc<[bool]>;

/// Who has which filter. Numbers are not used twice.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    of: HashMap<Member, u64, FixedState>,
    list: HashMap<u64, (Arc<Filter>, u32), FixedState>,
    known: HashMap<Arc<Filter>, u64, FixedState>,
    next: u64,
}

impl Filters {
    pub(crate) fn add(&mut self, member: Member, filter: &Arc<Filter>) {
        let number = self.known.get(filter).copied().unwrap_or_else(|| {
            self.next += 1;
            self.known.insert(Arc::clone(filter), self.next);
            self.list.insert(self.next, (Arc::clone(filter), 0));
            self.next
        });
        if let Some((_, count)) = self.list.get_mut(&number) {
            *count += 1;
        }
        self.of.insert(member, number);
    }

    pub(crate) fn remove(&mut self, member: Member) {
        let Some(number) = self.of.remove(&member) else { return };
        let Some((filter, count)) = self.list.get_mut(&number) else { return };
        *count -= 1;
        if *count == 0 {
            self.known.remove(filter);
            self.list.remove(&number);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(crate) fn of(&self, member: Member) -> Option<(u64, &Arc<Filter>)> {
        let number = *self.of.get(&member)?;
        Some((number, &self.list.get(&number)?.0))
    }

    #[cfg(test)]
    pub(crate) fn distinct(&self) -> usize {
        self.list.len()
    }
}

/// What filters say of the items of one pass.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    by_filter: HashMap<u64, Verdict, FixedState>,
    /// How many times a filter was asked about an item.
    #[cfg(test)]
    pub(crate) asked: usize,
}

impl Verdicts {
    pub(crate) fn of(&mut self, (number, filter): (u64, &Filter), items: &[Item]) -> Verdict {
        if let Some(verdict) = self.by_filter.get(&number) {
            return Arc::clone(verdict);
        }
        let passes = |item: &Item| match item {
            Item::Publication(flight) => filter.passes(&flight.publication.tags),
            Item::Join(_) | Item::Leave(_) => true,
        };
        let verdict: Verdict = items.iter().map(passes).collect();
        #[cfg(test)]
        {
            self.asked += items.len();
        }
        if (self.by_filter.len() + 1).saturating_mul(items.len()) <= VERDICTS_MAX {
            self.by_filter.insert(number, Arc::clone(&verdict));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::event::Flight;
    use crate::filter::{Node, Test};
    use crate::publication::{ChannelName, ClientInfo, Publication};
    use crate::registry::{Audience, Batch, Join, Registry, Sink, SubFlags, Theirs};
    use crate::request::Now;
    use crate::state::{Fields, Writer};

    #[derive(Default)]
    struct Heard(BTreeMap<Member, String>);

    impl Sink for Heard {
        fn deliver(&mut self, member: Member, batch: &mut Batch, audience: Audience) {
            let mut encode = |_: usize, _: &ChannelName, item: &Item, out: &mut Vec<u8>| match item
            {
                Item::Publication(flight) => out.extend_from_slice(&flight.publication.data),
                Item::Join(_) => out.push(b'+'),
                Item::Leave(_) => out.push(b'-'),
            };
            let bytes = batch.bytes(0, audience, &mut encode);
            let heard = std::str::from_utf8(bytes).unwrap();
            self.0.entry(member).or_default().push_str(heard);
        }
    }

    fn wants(color: &str) -> Option<Arc<Filter>> {
        let test = Test::Is(color.into());
        Some(Arc::new(Filter::new(vec![Node::Test { key: "color".into(), test }]).unwrap()))
    }

    fn of(color: &str, data: &'static str) -> Item {
        let mut publication = Publication::new(Bytes::from_static(data.as_bytes()), None, 0);
        publication.tags = [("color".to_owned(), color.to_owned())].into();
        let publication = Arc::new(publication);
        Item::Publication(Flight { publication, draw: None, base: None, came_us: 0 })
    }

    fn joined() -> Item {
        let client = uuid::Uuid::nil();
        let info = ClientInfo { user: "u".into(), client, conn_info: None, chan_info: None };
        Item::Join(Arc::new(info))
    }

    fn crowd() -> (Registry, ChannelName) {
        let (mut registry, news) = (Registry::new(), ChannelName::from("news"));
        let member = |registry: &mut Registry, member, filter, flags| {
            registry.join(member, &news, Join { filter, flags, ..Join::default() }).unwrap();
        };
        member(&mut registry, 0, None, SubFlags::default());
        member(&mut registry, 1, wants("red"), SubFlags::default());
        member(&mut registry, 2, wants("blue"), SubFlags::JOIN_LEAVE);
        member(&mut registry, 3, wants("red"), SubFlags::default());
        (registry, news)
    }

    fn hear(registry: &mut Registry, items: Vec<Item>, places: usize) -> [String; 4] {
        for item in items {
            registry.queue("news", item);
        }
        let mut heard = Heard::default();
        while registry.fan_out(&mut heard, places) {}
        [0, 1, 2, 3].map(|member| heard.0.remove(&member).unwrap_or_default())
    }

    #[test]
    fn each_gets_what_its_filter_lets_through() {
        for places in [1, 2, 100] {
            let (mut registry, _) = crowd();
            assert_eq!(hear(&mut registry, vec![of("red", "r")], places), ["r", "r", "", "r"]);
            assert_eq!(registry.take_withheld(), 1);
            let several = vec![of("red", "r"), joined(), of("blue", "b"), of("green", "g")];
            assert_eq!(hear(&mut registry, several, places), ["rbg", "r", "+b", "r"]);
            assert_eq!(registry.take_withheld(), 6);
            assert_eq!(hear(&mut registry, vec![joined(), of("red", "r")], places)[2], "+");
            assert_eq!(
                hear(&mut registry, vec![of("blue", "b"), of("blue", "c")], places)[2],
                "bc"
            );
        }
    }

    #[test]
    fn equal_filters_are_one_and_are_asked_once_for_each_item() {
        let mut filters = Filters::default();
        for member in 0..1000 {
            filters.add(member, &wants(if member % 2 == 0 { "red" } else { "blue" }).unwrap());
        }
        assert_eq!(filters.distinct(), 2);
        let mut verdicts = Verdicts::default();
        let items = [of("red", "r"), of("blue", "b"), joined()];
        for member in 0..1000 {
            let (number, filter) = filters.of(member).unwrap();
            let verdict = verdicts.of((number, filter), &items);
            assert_eq!(*verdict, [member % 2 == 0, member % 2 == 1, true]);
        }
        assert_eq!(verdicts.asked, 2 * items.len());
        (0..1000).for_each(|member| filters.remove(member));
        assert!(filters.is_empty() && filters.distinct() == 0 && filters.known.is_empty());
    }

    #[test]
    fn filters_move_with_their_subscriptions() {
        let (mut registry, _) = crowd();
        let members = [0, 1, 2, 3];
        let mut out = Writer::new(Vec::new(), Now::default());
        registry.put_channels(&members, true, (1, 2), &mut out);
        let channels = out.into_bytes();
        let mut theirs = Theirs::default();
        let mut fields = Fields::new(&channels, 0, "channels", Now::default());
        while let Some(field) = fields.field().unwrap() {
            theirs.take(&field).unwrap();
        }
        let (mut next, user) = (Registry::new(), Arc::from("u"));
        for member in members {
            let mut out = Writer::new(Vec::new(), Now::default());
            registry.put_subscriptions(member, 1, &mut out);
            let bytes = out.into_bytes();
            let mut fields = Fields::new(&bytes, 0, "subscriptions", Now::default());
            let field = fields.field().unwrap().unwrap();
            let seat = &mut |name: &ChannelName, _| ChannelName::clone(name);
            next.take_subscription(member, &user, (&theirs, &field), seat).unwrap();
        }
        assert_eq!(
            hear(&mut next, vec![of("red", "r"), of("blue", "b")], 2),
            ["rb", "r", "b", "r"]
        );
        for member in members {
            next.leave(member, "news");
        }
        assert_eq!(next.channel_count(), 0);
    }
}
