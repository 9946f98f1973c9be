//! What a node asks of the broker behind it, and what the broker promises.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::{Flight, Item};
use crate::publication::{ChannelName, ClientInfo};
use crate::request::{
    HistoryPage, HistoryQuery, HubError, Now, PresenceStats, Publish, Published, Recover,
    Retention, Subscribed,
};

/// Keeps streams and presence, and carries publications between nodes.
///
/// The node calls it while it holds the lock of one of its partitions. So an implementation does
/// memory work only: it hands what must wait to a thread of its own, returns [`Step::Later`], and
/// says the end with [`BrokerEvent::Done`] through `Node::deliver`. It never calls `deliver`
/// from inside one of these calls, nor while it holds a lock that these calls take.
///
/// A publish has two steps. *Accepted*: it has its offset. *Released*: readers, subscribers and
/// the publisher may see it, in the order of the offsets. A broker in memory does both at once; a
/// log waits between them until the disk has it; a remote broker accepts elsewhere and releases
/// what comes back.
///
/// What it promises:
///
/// 1. **Order.** The publications of one channel and epoch are released in the order of their
///    offsets, each exactly one above the last, unless it says [`BrokerEvent::Lost`] or starts a
///    new epoch. `deliver` is called for one channel by one thread at a time.
/// 2. **At least once.** Between a `subscribe` that was answered and the `unsubscribe`, each
///    publication with an offset is released to the node at least once. Again is allowed (the node
///    drops what it had); late is allowed. What has no offset (no stream; joins and leaves) is
///    released once at most, since nobody could tell.
/// 3. **Following comes before reading.** The position and the publications that answer a
///    `subscribe` are read after it was called and after the channel is followed, so nothing
///    falls between the two. `subscribe` and `unsubscribe` of one channel take effect in the
///    order of the calls, and what an earlier following left on its way is not released in a
///    later one.
/// 4. **Readable before released.** What is released to subscribers is in the stream already.
/// 5. **One answer.** Each `Later` ends with one `Done` of its `Op`, in any order and after any
///    time; the node drops those that come too late. An error may hide a publish that happened.
/// 6. **Nothing silently.** What it may have lost (a connection broke, a buffer overflowed) it
///    says with `Lost` for each channel concerned, before anything newer of that channel.
pub trait Broker: Send + Sync + fmt::Debug {
    /// Accepts a publication; a repeated idempotency key is answered as the first time, an old
    /// version with the position as it is.
    fn publish(&self, op: Op, publish: Publish, now: Now) -> Step<Released>;

    /// Follows a channel, and reads where it is and what a returning subscriber missed. Called
    /// for every subscriber: the channel is followed from the first one until `unsubscribe`.
    fn subscribe(&self, op: Op, open: Open<'_>, now: Now) -> Step<Subscribed>;

    /// The last subscriber of this node left.
    fn unsubscribe(&self, channel: &ChannelName, now: Now);

    fn history(&self, op: Op, read: Read<'_>, now: Now) -> Step<HistoryPage>;

    /// Drops a stream's publications; the position stays.
    fn remove_history(&self, op: Op, channel: &ChannelName, now: Now) -> Step<()>;

    /// A client is in the channel from now on, until `leave` (or until this node is gone).
    fn enter(&self, channel: &ChannelName, info: &Arc<ClientInfo>, now: Now);

    fn leave(&self, channel: &ChannelName, client: Uuid, now: Now);

    /// Sorted by client.
    fn presence(&self, op: Op, channel: &ChannelName, now: Now) -> Step<Vec<Arc<ClientInfo>>>;

    fn presence_stats(&self, op: Op, channel: &ChannelName, now: Now) -> Step<PresenceStats>;

    /// Tells a channel of a join or leave. `Some`: this node does it at once; `None`: the broker
    /// will release it to all nodes, this one too.
    fn announce(&self, channel: &ChannelName, item: Item) -> Option<Item>;

    /// About once a second: forget what is over, a bounded share each time.
    fn sweep(&self, now: Now);
}

/// The number of one question to the broker, unique in the node's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op(pub u64);

/// How far the broker came with what it was asked.
#[derive(Debug)]
pub enum Step<T> {
    Done(Result<T, HubError>),
    /// The end comes as [`BrokerEvent::Done`].
    Later,
}

/// A publication that was accepted and released at once.
#[derive(Debug)]
pub struct Released {
    pub published: Published,
    /// `None`: not to be delivered (a repetition, an old version).
    pub flight: Option<Flight>,
}

/// A question for a channel's position.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    pub channel: &'a ChannelName,
    pub recover: Option<&'a Recover>,
    pub positioned: bool,
    pub retention: Retention,
}

/// A question for a channel's history.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    pub channel: &'a ChannelName,
    pub query: &'a HistoryQuery,
    pub retention: Retention,
}

/// What a broker tells the node.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A publication is released, or somebody joined or left, here or on another node.
    Item { channel: ChannelName, item: Item },
    /// The end of a question.
    Done { op: Op, outcome: Outcome },
    /// Publications of a followed channel may have been lost: its subscribers must recover.
    Lost { channel: ChannelName },
}

/// How a question ended.
#[derive(Debug)]
pub enum Outcome {
    /// Before or after the publication itself is released.
    Published(Result<Published, HubError>),
    Subscribed(Result<Subscribed, HubError>),
    History(Result<HistoryPage, HubError>),
    HistoryRemoved(Result<(), HubError>),
    Presence(Result<Vec<Arc<ClientInfo>>, HubError>),
    PresenceStats(Result<PresenceStats, HubError>),
}
