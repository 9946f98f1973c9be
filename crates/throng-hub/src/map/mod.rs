//! Channels that are maps: each key has one value, whoever subscribes gets all of them, page by
//! page, and from then on every change.
//!
//! A map lives in the partition of its channel, under the same lock as the channel's subscribers,
//! so a change is in the map, in its list of changes and in the mailboxes in one order. What a map
//! keeps besides its values is a bounded list of the last changes, in which a subscriber that came
//! page by page, or comes back, finds what it has not seen.
//!
//! A page is frozen at the place where the first one was read: what changed since is left out of
//! later pages, since it comes with the changes.
//!
//! Invariant BOUNDED: keys and bytes of a map have a limit, and all maps of a node have one
//! together; a key that would pass it is refused, and nothing that is there is dropped for it.

mod changes;
mod moving;
mod store;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::publication::{ChannelName, ClientInfo, Epoch, Position, Publication};
use crate::request::{Draw, HubError, Retention};

pub use self::moving::Tags;
pub(crate) use self::moving::name_of;
pub(crate) use self::store::{Maps, Room, Told};

/// What a map keeps and for how long; resolved from the namespace by the asker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether a subscriber that was away may catch up; else it reads the map anew.
    pub recoverable: bool,
    /// How long a key lives after its last publication, in milliseconds; 0 is for ever.
    pub key_ttl_ms: u64,
    /// How many changes are kept, how long, and how long the map outlives its last use (0: for
    /// ever).
    pub changes: Retention,
    /// Keys that a map may have.
    pub keys_max: usize,
    /// Bytes that a map may have, with what surrounds the values.
    pub bytes_max: usize,
}

/// A question about a map.
#[derive(Debug)]
pub struct Call {
    pub channel: ChannelName,
    pub rules: Rules,
    pub ask: Ask,
    /// Nobody waits for the answer: there is none.
    pub quiet: bool,
}

/// What is asked of a map.
#[derive(Debug)]
pub enum Ask {
    Publish(Write),
    Remove(Removal),
    /// From shards only: page by page into the channel. Once it is answered with
    /// [`Entered::Live`] the subscription is there, as after a subscribe.
    Enter(Enter),
    /// Read without subscribing.
    State(StateQuery),
    Changes(ChangesQuery),
    /// How many keys there are.
    Count,
    /// Forgets everything; who follows the map reads it anew.
    Clear,
}

/// A value for a key.
#[derive(Debug, Default)]
pub struct Write {
    pub key: Box<str>,
    pub data: Bytes,
    pub info: Option<Arc<ClientInfo>>,
    /// Sorted by key.
    pub tags: Box<[(String, String)]>,
    /// Told with the value; the order of the keys does not depend on it.
    pub score: i64,
    pub mode: KeyMode,
    /// A write that comes to nothing because the key is there lets the key live on all the same.
    pub keeps_alive: bool,
    pub idempotency_key: Option<Box<str>>,
    /// 0: none. One not above the key's last is not written.
    pub version: u64,
    /// Versions are compared within one; an empty one is compared with any.
    pub version_epoch: Box<str>,
    pub draw: Option<Draw>,
}

/// When a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyMode {
    #[default]
    Always,
    /// Only where the key is not there.
    IfNew,
    /// Only where it is.
    IfExists,
}

/// The end of a key.
#[derive(Debug, Default)]
pub struct Removal {
    pub key: Box<str>,
    /// In place of the value's; sorted by key.
    pub tags: Option<Box<[(String, String)]>>,
    pub idempotency_key: Option<Box<str>>,
}

/// A step of a subscriber on its way into a map.
#[derive(Debug)]
pub struct Enter {
    pub client: Uuid,
    /// For presence, and for join and leave.
    pub info: Option<Arc<ClientInfo>>,
    pub presence: bool,
    pub announce: bool,
    pub way: Way,
    /// Keys or changes of one page.
    pub page: usize,
    /// Payload bytes of one answer; one key or change is given whatever its size.
    pub bytes_max: usize,
    /// Changes that the last step may bring.
    pub live_max: usize,
}

/// Where a subscriber is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Reading keys.
    State {
        /// The last key read; empty at the beginning.
        cursor: Box<str>,
        /// Where the map stood at the first page; none at the beginning.
        frozen: Option<Position>,
    },
    /// Reading changes after an offset.
    Changes {
        since: u64,
        epoch: Box<str>,
        /// Where the map stood when it began to; none at the beginning.
        start: Option<u64>,
    },
    /// It wants everything from here on, and what came after an offset.
    Live { since: u64, epoch: Box<str> },
}

/// Keys to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateQuery {
    /// This one alone; empty: all.
    pub key: Box<str>,
    /// The last key read; empty at the beginning.
    pub cursor: Box<str>,
    /// `None`: all; `Some(0)`: the position only.
    pub limit: Option<usize>,
    /// Only what is as old as this place; of another epoch it is an error.
    pub frozen: Option<(u64, Box<str>)>,
    /// Payload bytes; one key is given whatever its size.
    pub bytes_max: usize,
}

/// Changes to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangesQuery {
    /// After this offset of this epoch (empty: any).
    pub since: Option<(u64, Box<str>)>,
    /// `None`: all; `Some(0)`: the position only.
    pub limit: Option<usize>,
    pub reverse: bool,
    /// Payload bytes; one change is given whatever its size.
    pub bytes_max: usize,
}

/// What a map answers to a question that is no [`Ask::Enter`].
#[derive(Debug)]
pub enum MapAnswer {
    Written(Result<Written, HubError>),
    Page(Result<Page, HubError>),
    Count(usize),
    Cleared,
}

/// What became of a write or a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub position: Position,
    /// Nothing was changed, and why.
    pub suppressed: Option<Suppressed>,
}

/// Why a write or a removal changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppressed {
    Idempotency,
    Version,
    KeyExists,
    KeyNotFound,
}

impl Suppressed {
    /// As the server API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idempotency => "idempotency",
            Self::Version => "version",
            Self::KeyExists => "key_exists",
            Self::KeyNotFound => "key_not_found",
        }
    }
}

/// Values or changes, and where the map stands.
#[derive(Debug, Clone)]
pub struct Page {
    pub publications: Vec<Arc<Publication>>,
    pub position: Position,
    /// The last key of the page, where more follow.
    pub cursor: Option<Arc<str>>,
}

/// A subscriber's step is done.
#[derive(Debug)]
pub enum Entered {
    /// Keys; the way goes on behind the cursor, or, without one, with the changes since `frozen`.
    State { page: Vec<Arc<Publication>>, cursor: Option<Arc<str>>, frozen: Position },
    /// Changes; the way goes on behind `offset`.
    Changes { page: Vec<Arc<Publication>>, offset: u64, epoch: Epoch, start: u64 },
    /// It is there: the last keys, the changes that it has not seen, and where the map stands at
    /// this event's place in the mailbox.
    Live { state: Vec<Arc<Publication>>, changes: Vec<Arc<Publication>>, position: Position },
}

/// What a publication in a map says beside its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    pub key: Arc<str>,
    /// The key is gone.
    pub removed: bool,
    pub score: i64,
    /// Nobody can recover by the publication's offset, so nobody is told it.
    pub hides_offset: bool,
}

/// Why there is no room for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many keys as the map may have.
    Keys,
    /// As many bytes as the map may have.
    Bytes,
    /// As many bytes as all maps together may have.
    Node,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "the map has as many keys as map.max_keys allows",
            Self::Bytes => "the map has as many bytes as map.max_bytes allows",
            Self::Node => "all maps together have as many bytes as limits.map_bytes allows",
        })
    }
}
