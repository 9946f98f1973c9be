//! What a node is asked, as data: a request names who gets the answer by numbers, so that it can
//! be written down, sent to another process and answered there.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::map::{self, Entered, Full, MapAnswer};
use crate::publication::{ChannelName, ClientInfo, Epoch, Position, Publication};

/// The time of a request, passed in by whoever has a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never jumps; its zero is arbitrary.
    pub mono_ms: u64,
    /// Unix time in milliseconds.
    pub unix_ms: i64,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// Index of the mailbox in the node's list: a shard's, or the front's.
    pub mailbox: u16,
    /// Where the asker was last seen in that mailbox's slab; a hint.
    pub slot: u32,
    /// The asker's number, unique for life: an answer to one that is gone is dropped.
    pub number: u64,
    /// The asker's own number for this question.
    pub ticket: u32,
}

/// What a channel keeps and for how long; resolved from the namespace by the asker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Publications kept; 0 keeps no stream.
    pub size: u32,
    /// How long each is kept, in milliseconds; 0 keeps no stream.
    pub ttl_ms: u64,
    /// How long the position outlives the last use, in milliseconds.
    pub meta_ttl_ms: u64,
}

impl Retention {
    /// Whether the channel has a stream at all.
    pub fn keeps(&self) -> bool {
        self.size > 0 && self.ttl_ms > 0
    }
}

/// A question to the node.
#[derive(Debug)]
pub enum Request {
    Publish(Publish),
    /// From shards only: the answer opens the subscription in mailbox order.
    Subscribe(Subscribe),
    /// From shards only; has no answer. Once for each subscribe that was answered with `Ok`, or
    /// while one still waits: its answer, if it is on the way already, means nothing then.
    Unsubscribe(Unsubscribe),
    Presence {
        channel: ChannelName,
    },
    PresenceStats {
        channel: ChannelName,
    },
    History {
        channel: ChannelName,
        query: HistoryQuery,
        retention: Retention,
    },
    RemoveHistory {
        channel: ChannelName,
    },
    /// About a channel that is a map.
    Map(Box<map::Call>),
    /// Channels with subscribers; `None` is all of them, else a glob (`*`, `?`, `[a-z]`).
    Channels {
        pattern: Option<Box<str>>,
    },
    /// The channel's subscribers, and, when it has none, the names nearest to it that have some.
    Audience {
        channel: ChannelName,
    },
}

#[derive(Debug)]
pub struct Publish {
    pub channel: ChannelName,
    pub data: Bytes,
    pub info: Option<Arc<ClientInfo>>,
    /// Sorted by key.
    pub tags: Box<[(String, String)]>,
    /// What the publication holds of the byte budget until every shard has written or queued it.
    pub draw: Option<Draw>,
    /// Deliver without keeping it.
    pub skip_history: bool,
    /// Who takes patches gets one, if it has the publication before.
    pub delta: bool,
    pub idempotency_key: Option<Box<str>>,
    /// 0: none. A version not above the channel's last (of the same version epoch) is dropped.
    pub version: u64,
    pub version_epoch: Box<str>,
    pub retention: Retention,
}

/// A claim on a byte budget, given back when it is dropped; what it is, the hub need not know.
pub type Draw = Arc<dyn std::any::Any + Send + Sync>;

#[derive(Debug)]
pub struct Subscribe {
    pub channel: ChannelName,
    pub client: Uuid,
    /// Needed for presence and for join and leave; `None` where neither is on.
    pub info: Option<Arc<ClientInfo>>,
    /// Enter the channel's presence.
    pub presence: bool,
    /// Tell the channel of the join, and of the leave later.
    pub announce: bool,
    /// Whether the answer carries the stream's position.
    pub positioned: bool,
    pub recover: Option<Recover>,
    pub retention: Retention,
}

/// What a returning subscriber missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recover {
    /// As the client says it: may be empty (adopt the stream's) or nothing that is an epoch.
    pub epoch: Box<str>,
    /// The last publication seen.
    pub offset: u64,
    pub mode: RecoveryMode,
    /// Publications at most; more missed is not recovered.
    pub limit: usize,
    /// Payload bytes at most; more missed is not recovered, so that the reply fits an outbox.
    pub bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Every publication missed.
    Stream,
    /// Only the latest.
    Cache,
}

#[derive(Debug)]
pub struct Unsubscribe {
    pub channel: ChannelName,
    pub client: Uuid,
    /// As it subscribed: leave presence, tell the channel.
    pub presence: bool,
    pub announce: bool,
    pub info: Option<Arc<ClientInfo>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// `None`: all; `Some(0)`: the position only.
    pub limit: Option<usize>,
    pub since: Option<Since>,
    pub reverse: bool,
    /// Payload bytes at most in the page (at least one publication is given).
    pub bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    pub offset: u64,
    /// Empty: any.
    pub epoch: Box<str>,
}

/// What the node answers.
#[derive(Debug)]
pub enum Answer {
    Published(Result<Published, HubError>),
    Subscribed {
        channel: ChannelName,
        result: Result<Subscribed, HubError>,
    },
    Presence(Result<Vec<Arc<ClientInfo>>, HubError>),
    PresenceStats(Result<PresenceStats, HubError>),
    History(Result<HistoryPage, HubError>),
    HistoryRemoved(Result<(), HubError>),
    /// Sorted by name.
    Channels(Vec<(ChannelName, u32)>),
    Audience(Audience),
    Map(MapAnswer),
    /// To [`map::Ask::Enter`].
    Entered {
        channel: ChannelName,
        result: Result<Entered, HubError>,
    },
}

impl Answer {
    /// Whether a subscription begins with it; none for an answer to another question.
    pub fn seats(&self) -> Option<bool> {
        match self {
            Self::Subscribed { result, .. } => Some(result.is_ok()),
            Self::Entered { result, .. } => Some(matches!(result, Ok(Entered::Live { .. }))),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Where it stands in the stream; `None` in a channel that keeps none.
    pub position: Option<Position>,
}

#[derive(Debug)]
pub struct Subscribed {
    /// Present when asked for: the stream's top as of this event's place in the mailbox.
    pub position: Option<Position>,
    pub recovery: Recovery,
}

#[derive(Debug)]
pub enum Recovery {
    NotAsked,
    /// In offset order, may be empty.
    Recovered(Vec<Arc<Publication>>),
    NotRecovered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    pub clients: u32,
    pub users: u32,
}

#[derive(Debug)]
pub struct HistoryPage {
    pub publications: Vec<Arc<Publication>>,
    pub position: Position,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    pub subscribers: u32,
    /// At most three, nearest first, with their subscribers.
    pub near: Vec<(ChannelName, u32)>,
}

/// Why the node could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubError {
    /// The position asked for belongs to another epoch.
    UnrecoverablePosition,
    /// A reverse read needs a place to start from.
    BadSince,
    /// The broker failed or did not answer; temporary.
    Broker,
    /// Too much is waiting for the broker already; temporary.
    Overloaded,
    /// A map has no room for another value.
    MapFull(Full),
}

impl From<Epoch> for Box<str> {
    fn from(epoch: Epoch) -> Self {
        epoch.as_str().into()
    }
}
