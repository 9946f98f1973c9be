//! The messages of the client protocol, as values that borrow from the frame they came in or
//! from the state they describe. Each encoding turns these into bytes and back; `data` and
//! `info` payloads stay opaque bytes throughout.

use std::borrow::Cow;

/// A payload that the server relays and never looks into: JSON text, or what
/// [`payload::sealed`](super::payload::sealed) makes of other bytes.
pub type Payload<'a> = &'a [u8];

/// A payload as a command brings it: borrowed from the frame, if it did not have to be sealed.
pub type Given<'a> = Cow<'a, [u8]>;

/// One command of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Command<'a> {
    /// Chosen by the client, echoed in the reply; 0 for what has no reply.
    pub id: u32,
    /// What is asked.
    pub request: Request<'a>,
}

/// What a command asks. Where a command names several, the first in this order wins.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    Connect(ConnectRequest<'a>),
    Subscribe(SubscribeRequest<'a>),
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    Publish {
        channel: Cow<'a, str>,
        data: Given<'a>,
    },
    /// A publish that names a key, or a type of subscription that has keys.
    PublishKey(KeyRequest<'a>),
    Presence {
        channel: Cow<'a, str>,
    },
    PresenceStats {
        channel: Cow<'a, str>,
    },
    History(HistoryRequest<'a>),
    Rpc {
        method: Cow<'a, str>,
        data: Given<'a>,
    },
    Send {
        data: Given<'a>,
    },
    Refresh {
        token: Cow<'a, str>,
    },
    SubRefresh(SubRefreshRequest<'a>),
    /// Id 0 and nothing else: the answer to a ping.
    Pong,
    /// An id and nothing that is known here.
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectRequest<'a> {
    pub token: Cow<'a, str>,
    pub data: Option<Given<'a>>,
    /// Positions from which server-side subscriptions recover, by channel.
    pub subs: Vec<(Cow<'a, str>, SubscribeRequest<'a>)>,
    pub name: Cow<'a, str>,
    pub version: Cow<'a, str>,
    /// Headers that the client says it would have sent; untrusted.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscribeRequest<'a> {
    pub channel: Cow<'a, str>,
    pub token: Cow<'a, str>,
    pub recover: bool,
    pub epoch: Cow<'a, str>,
    pub offset: u64,
    pub data: Option<Given<'a>>,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    pub delta: Cow<'a, str>,
    /// A tags filter as it came, for [`filter`](super::filter) to read.
    pub tags_filter: Option<&'a [u8]>,
    /// Bit 1: numeric channel ids wanted; bit 2: an unrecoverable position is an error.
    pub flag: i64,
    /// 0 for a stream subscription; the others are other kinds of subscription.
    pub kind: i32,
    /// Of a map: 2 reads keys, 1 reads changes, 0 wants what comes.
    pub phase: i32,
    /// Of a map: behind which key to read on.
    pub cursor: Cow<'a, str>,
    /// Of a map: how much a page has.
    pub limit: i32,
    /// Of a map: the smallest score first.
    pub asc: bool,
}

/// What is to become of one key of a channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyRequest<'a> {
    pub channel: Cow<'a, str>,
    pub data: Given<'a>,
    /// The type of subscription that is meant.
    pub kind: i32,
    pub key: Cow<'a, str>,
    /// The key is to go.
    pub removed: bool,
}

/// A node of a tags filter: a test of one tag, or, with `op`, what joins the nodes below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FilterNode<'a> {
    /// Empty for a test.
    pub op: Cow<'a, str>,
    pub key: Cow<'a, str>,
    pub cmp: Cow<'a, str>,
    pub val: Cow<'a, str>,
    pub vals: Vec<Cow<'a, str>>,
    pub nodes: Vec<Self>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubRefreshRequest<'a> {
    pub channel: Cow<'a, str>,
    pub token: Cow<'a, str>,
    /// 0 renews the subscription's right, 1 tracks keys of a shared poll, 2 untracks some.
    pub kind: i32,
    /// With kind 1: keys, each lot with the application's word that this user may track them.
    pub track: Vec<TrackBatch<'a>>,
    /// Keys that the client wants no more.
    pub untrack: Vec<Cow<'a, str>>,
}

/// Keys of a shared poll that one signature covers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackBatch<'a> {
    pub signature: Cow<'a, str>,
    /// In the order in which they were signed.
    pub items: Vec<KeyedItem<'a>>,
}

/// A key, and what the client has of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyedItem<'a> {
    pub key: Cow<'a, str>,
    /// 0: nothing.
    pub version: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryRequest<'a> {
    pub channel: Cow<'a, str>,
    /// 0: the position only; -1: as many as the server gives.
    pub limit: i32,
    pub since: Option<StreamPosition<'a>>,
    pub reverse: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamPosition<'a> {
    pub offset: u64,
    pub epoch: Cow<'a, str>,
}

impl<'a> KeyRequest<'a> {
    /// A plain publish, where it says nothing of keys.
    pub(super) fn request(self) -> Request<'a> {
        match self {
            Self { channel, data, kind: 0, key, removed: false } if key.is_empty() => {
                Request::Publish { channel, data }
            }
            keyed => Request::PublishKey(keyed),
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    Error { code: u32, message: &'a str, temporary: bool },
    Connect(ConnectResult<'a>),
    Subscribe(SubscribeResult<'a>),
    Unsubscribe,
    Publish,
    Presence(&'a [ClientInfo<'a>]),
    PresenceStats { num_clients: u32, num_users: u32 },
    History { publications: &'a [Publication<'a>], epoch: &'a str, offset: u64 },
    Rpc { data: Option<Payload<'a>> },
    Refresh(RefreshResult<'a>),
    SubRefresh { expires: bool, ttl: u32, items: &'a [Publication<'a>] },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectResult<'a> {
    pub client: &'a str,
    pub version: &'a str,
    pub expires: bool,
    /// Seconds.
    pub ttl: u32,
    pub data: Option<Payload<'a>>,
    /// Server-side subscriptions, by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between pings; 0 when the server sends none of its own.
    pub ping: u32,
    /// Whether the client must answer them.
    pub pong: bool,
    pub session: &'a str,
    pub node: &'a str,
    /// Unix milliseconds; 0 when not asked for.
    pub time: i64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscribeResult<'a> {
    pub expires: bool,
    /// Seconds.
    pub ttl: u32,
    pub recoverable: bool,
    pub epoch: &'a str,
    pub publications: &'a [Publication<'a>],
    pub recovered: bool,
    pub offset: u64,
    pub positioned: bool,
    pub data: Option<Payload<'a>>,
    pub was_recovering: bool,
    pub delta: bool,
    /// The type of the subscription, where it is not a stream's.
    pub kind: i32,
    /// Of a map, as in the request: 0 is there, 1 and 2 go on.
    pub phase: i32,
    /// Of a map: behind which key to read on; empty: there is none.
    pub cursor: &'a str,
    /// Of a map: keys with their values.
    pub state: &'a [Publication<'a>],
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RefreshResult<'a> {
    pub client: &'a str,
    pub version: &'a str,
    pub expires: bool,
    /// Seconds.
    pub ttl: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientInfo<'a> {
    pub user: &'a str,
    pub client: Cow<'a, str>,
    pub conn_info: Option<Payload<'a>>,
    pub chan_info: Option<Payload<'a>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Publication<'a> {
    pub data: Payload<'a>,
    /// How the data is written.
    pub shape: Shape,
    pub info: Option<ClientInfo<'a>>,
    pub offset: u64,
    /// Sorted by key.
    pub tags: &'a [(String, String)],
    /// Unix milliseconds; 0 when unknown.
    pub time: i64,
    /// In a map: whose value it is.
    pub key: &'a str,
    /// In a map: the key is gone.
    pub removed: bool,
    pub score: i64,
    /// Only with the first publication of a stream, so that who subscribed to an empty one
    /// learns it; empty otherwise.
    pub epoch: &'a str,
    /// Which state of its key it is; 0 where that is not numbered.
    pub version: u64,
}

/// How a publication's data is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// As what it is.
    #[default]
    Plain,
    /// For who takes patches: in JSON its text in a string, from which patches start.
    Whole,
    /// The same, and it is itself no payload but a patch, which is UTF-8 where it goes into JSON.
    Patch,
}

/// What the server says unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum Push<'a> {
    Publication {
        channel: &'a str,
        publication: Publication<'a>,
    },
    Join {
        channel: &'a str,
        info: ClientInfo<'a>,
    },
    Leave {
        channel: &'a str,
        info: ClientInfo<'a>,
    },
    Unsubscribe {
        channel: &'a str,
        code: u32,
        reason: &'a str,
    },
    Message {
        data: Payload<'a>,
    },
    Subscribe {
        channel: &'a str,
        result: SubscribeResult<'a>,
    },
    /// Unidirectional transports only: the first push.
    Connect(ConnectResult<'a>),
    /// Transports without a close frame, and unidirectional ones: the last push.
    Disconnect {
        code: u32,
        reason: &'a str,
        reconnect: bool,
    },
    Refresh {
        expires: bool,
        ttl: u32,
    },
    /// Unidirectional transports only: the ping, an empty object.
    Ping,
}

/// Which object a push is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// `{"push":…}`, one of the replies of a bidirectional transport.
    Reply,
    /// The push itself, on a unidirectional transport.
    Bare,
}
