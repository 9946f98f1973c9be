//! Questions and answers, as they stand on the socket and in `--json`.

use serde::{Deserialize, Serialize};

use crate::restart::Wish;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    Status,
    /// Answered with [`Reloaded`](crate::reload::Reloaded).
    Reload,
    Who(Search),
    /// Answered with steps, and an outcome.
    Restart(Wish),
    /// Answered with steps, and what came of it. None: over `shutdown.spread`.
    Drain {
        over_ms: Option<u64>,
    },
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStep {
    /// Clients that are still there.
    pub left: u64,
}

/// What came of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub closed: u64,
    /// Clients that did not take their close in time.
    pub left: u64,
    pub took_s: u64,
}

/// Who is looked for; all that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Search {
    pub user: Option<String>,
    pub channel: Option<String>,
    pub address: Option<String>,
    /// Only clients with bytes waiting, and those that were closed for it.
    pub slow: bool,
    /// At most so many of each list.
    pub limit: usize,
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub healthy: bool,
    /// Why not.
    pub reasons: Vec<String>,
    pub pid: u32,
    pub name: String,
    pub version: String,
    pub uptime_s: u64,
    pub clients: Clients,
    /// Absent when a shard did not answer in time.
    pub slow: Option<Slow>,
    pub published: Published,
    pub closed: Vec<Closed>,
    pub refused: Vec<Turned>,
    pub shards: Vec<Shard>,
    pub log_lines_dropped: u64,
    /// Those of the application that are asked.
    pub backends: Vec<Backend>,
    /// Of connect answers, where `cache_ttl` is set.
    pub cache: Option<Cache>,
    /// Of tokens signed with a private key, where they are accepted.
    #[serde(default)]
    pub tokens: Option<Tokens>,
}

/// What became of the tokens whose signatures were looked at beside the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub genuine: u64,
    pub forged: u64,
    /// Could not be looked at: their key was not to be had, or too many waited.
    pub unknown: u64,
    /// Passed over, because their client had gone.
    pub gone: u64,
    pub waiting: u64,
    /// Sets of keys that were asked for, and those of them that did not come.
    pub fetches: u64,
    pub fetches_failed: u64,
}

/// How the calls of one backend go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// The option behind it, such as `client.proxy.connect`.
    pub option: String,
    pub endpoint: String,
    pub calls: u64,
    /// Without an answer, or with one that cannot be used.
    pub failed: u64,
    /// Answered with an error or a disconnect.
    pub refused: u64,
    /// Half of the last calls took no longer.
    pub p50_ms: Option<f64>,
    /// All but a hundredth of them.
    pub p99_ms: Option<f64>,
    pub under_way: u64,
    pub waiting: u64,
    pub max_in_flight: u64,
    pub last_failure: Option<BackendFailure>,
    /// Every recent call failed.
    pub failing: bool,
}

/// A call that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendFailure {
    pub ago_s: u64,
    pub why: String,
}

/// What the cache of connect answers did, and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    pub hits: u64,
    pub misses: u64,
    pub kept: u64,
    pub bytes: u64,
}

/// How many clients are held, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    pub open: u64,
    /// So many fit.
    pub ceiling: u64,
    /// `client.connection_limit`; 0 is none.
    pub connection_limit: u64,
    /// The limit of descriptors.
    pub descriptors: u64,
}

/// Clients for whom bytes are waiting now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    pub clients: u64,
    pub waiting_bytes: u64,
    /// Those with the most.
    pub worst: Vec<Client>,
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub since_start: u64,
    /// Over the last seconds.
    pub per_second: f64,
}

/// How many connections ended with a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub code: u16,
    pub name: String,
    pub last_10_min: u64,
    pub since_start: u64,
}

/// How many visitors were refused for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    pub reason: String,
    pub last_10_min: u64,
    pub since_start: u64,
}

/// A shard's heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub shard: u64,
    /// Seconds since its last sign of life.
    pub silent_s: u64,
}

/// A connection, and what is known of its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Empty for an anonymous one, and before it has connected.
    pub user: String,
    pub client: String,
    pub transport: Transport,
    /// Whether its connect command has been accepted.
    pub connected: bool,
    pub since_unix_s: i64,
    pub for_s: u32,
    pub channel_count: u64,
    /// The first few.
    pub channels: Vec<String>,
    pub waiting_bytes: u64,
    pub address: Option<String>,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Websocket,
    UniWebsocket,
    Sse,
    UniSse,
    HttpStream,
    UniHttpStream,
    UniGrpc,
}

impl Transport {
    /// As the configuration and backends name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::UniWebsocket => "uni_websocket",
            Self::Sse => "sse",
            Self::UniSse => "uni_sse",
            Self::HttpStream => "http_stream",
            Self::UniHttpStream => "uni_http_stream",
            Self::UniGrpc => "uni_grpc",
        }
    }
}

/// Who is here, and who was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// How many fit.
    pub count: u64,
    pub clients: Vec<Client>,
    pub closes: Closes,
}

/// Who went or was sent away, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closes {
    pub left: Vec<Left>,
    pub turned_away: Vec<TurnedAway>,
}

/// A client that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub at_unix_s: i64,
    pub ago_s: u32,
    pub user: String,
    pub client: String,
    /// How long it was connected.
    pub stayed_s: u32,
    pub code: u16,
    pub reason: String,
    /// The code in a sentence.
    pub why: String,
    /// What is known beside it, as that no cookie came.
    pub note: Option<String>,
    /// Whether its user has come back; absent where nobody can know, as of an anonymous one.
    pub came_back: Option<bool>,
    pub address: Option<String>,
}

/// A visitor that did not become a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAway {
    pub at_unix_s: i64,
    pub ago_s: u32,
    /// The HTTP status.
    pub status: u16,
    pub reason: String,
    pub address: Option<String>,
}
