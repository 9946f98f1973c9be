//! How often a node did what: numbers that only grow.

use crate::event::Item;
use crate::state::Within;

/// Items of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Items {
    pub publications: u64,
    pub joins: u64,
    pub leaves: u64,
}

/// How often a node did what since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Given to the broker, those that it did not take among them.
    pub sent: Items,
    /// Come from the broker.
    pub received: Items,
    pub subscribed: u64,
    pub unsubscribed: u64,
    /// Subscriptions that asked for what they had missed.
    pub recoveries: u64,
    pub presence: u64,
    pub presence_stats: u64,
    pub presence_added: u64,
    pub presence_removed: u64,
    pub history: u64,
    pub history_removed: u64,
}

impl Items {
    pub(crate) fn count(&mut self, item: &Item) {
        match item {
            Item::Publication(_) => self.publications += 1,
            Item::Join(_) => self.joins += 1,
            Item::Leave(_) => self.leaves += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        let Self { publications, joins, leaves } = other;
        self.publications += publications;
        self.joins += joins;
        self.leaves += leaves;
    }
}

impl Done {
    /// Adds what another part of the node did.
    pub fn add(&mut self, other: &Self) {
        let Self {
            sent,
            received,
            subscribed,
            unsubscribed,
            recoveries,
            presence,
            presence_stats,
            presence_added,
            presence_removed,
            history,
            history_removed,
        } = other;
        self.sent.add(sent);
        self.received.add(received);
        self.subscribed += subscribed;
        self.unsubscribed += unsubscribed;
        self.recoveries += recoveries;
        self.presence += presence;
        self.presence_stats += presence_stats;
        self.presence_added += presence_added;
        self.presence_removed += presence_removed;
        self.history += history;
        self.history_removed += history_removed;
    }
}

crate::record!("how many items", Items { 1 publications, 2 joins, 3 leaves });
crate::record!("what a node did", Done {
    1 sent as Within,
    2 received as Within,
    3 subscribed,
    4 unsubscribed,
    5 recoveries,
    6 presence,
    7 presence_stats,
    8 presence_added,
    9 presence_removed,
    10 history,
    11 history_removed,
});
