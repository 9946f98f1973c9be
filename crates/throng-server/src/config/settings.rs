//! What a configuration means: checked, complete, without a question left open. The defaults are
//! Centrifugo's where it has the option.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::Regex;
use throng_wire::websocket::Effort;

use super::backends::{BackendId, Backends};
use super::grpc::{GrpcApi, UniGrpc};
use super::jwks::JwksEndpoint;
use super::maps::MapOptions;
use super::network::Network;
use super::poll::{PollOptions, SharedPoll};
use crate::codes::Disconnect;
use crate::log::Redacted;
use crate::session::Kind;
use crate::token::PublicKey;

/// Everything the server needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Development mode: insecure, loopback only, with the playground at `/`.
    pub dev: bool,
    pub http: Http,
    pub log: Log,
    pub client: Client,
    pub websocket: WebSocket,
    pub uni_websocket: UniWebSocket,
    pub sse: Stream,
    pub http_stream: Stream,
    pub uni_sse: Stream,
    pub uni_http_stream: Stream,
    pub emulation: Emulation,
    /// `init.enabled`: answer at `init_path`, for pages that warm a connection.
    pub init: bool,
    /// `init.handler_prefix`.
    pub init_path: String,
    pub channel: Channels,
    pub shared_poll: SharedPoll,
    pub http_api: HttpApi,
    /// `grpc_api`, when enabled.
    pub grpc_api: Option<GrpcApi>,
    /// `uni_grpc`, when enabled.
    pub uni_grpc: Option<UniGrpc>,
    /// Who is asked who may do what.
    pub backends: Backends,
    /// `health.enabled`: answer at `/health`.
    pub health: bool,
    /// `health.handler_prefix`.
    pub health_path: String,
    pub prometheus: Prometheus,
    /// `swagger.enabled`: a page about the server API.
    pub swagger: bool,
    /// `swagger.handler_prefix`.
    pub swagger_path: String,
    /// `rpc.ping`: the method that answers `{}`, when enabled.
    pub rpc_ping: Option<String>,
    /// `node.name`; empty means host name and port.
    pub node_name: String,
    pub pid_file: Option<PathBuf>,
    pub shutdown: Shutdown,
    pub limits: Limits,
    pub proxies: Proxies,
}

impl Settings {
    /// Whether there is a transport whose clients speak elsewhere than they are spoken to.
    pub fn emulates(&self) -> bool {
        self.sse.enabled || self.http_stream.enabled
    }

    /// How hard to try where permessage-deflate was agreed on.
    pub(crate) fn effort_of(&self, kind: Kind) -> Effort {
        let agreed = match kind {
            Kind::Bidirectional => self.websocket.compression,
            Kind::Unidirectional => self.uni_websocket.compression,
        };
        // It may have been switched off since.
        agreed.unwrap_or_default()
    }

    /// Whether some token may be signed with a private key.
    pub(crate) fn checks_signatures(&self) -> bool {
        let subscription = self.client.subscription_token.as_ref();
        self.client.token.has_public_key() || subscription.is_some_and(Token::has_public_key)
    }
}

#[derive(Debug, Clone)]
pub struct Http {
    /// `http_server.address`; empty: every address.
    pub address: String,
    /// `http_server.port`; 0: any free one.
    pub port: u16,
    /// `http_server.internal_address`; empty: as `address`.
    pub internal_address: String,
    /// `http_server.internal_port`: API, health and metrics leave the public port for this one.
    pub internal_port: Option<u16>,
    /// `http_server.keep_alive_timeout` (throng's own): how long an idle HTTP connection is kept.
    pub keep_alive_timeout: Duration,
    /// `http_server.header_timeout` (throng's own): how long a request's head may take.
    pub header_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub level: Level,
    /// `log.file`; none: stderr.
    pub file: Option<PathBuf>,
}

/// How much is logged; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone)]
pub struct Client {
    /// `client.allowed_origins`: case-insensitive globs over the whole Origin; `*` is all of them.
    /// Empty: whatever carries an Origin is refused.
    pub allowed_origins: Vec<String>,
    pub token: Token,
    /// `client.subscription_token`, when enabled; else the connection's keys serve.
    pub subscription_token: Option<Token>,
    pub allow_anonymous_connect_without_token: bool,
    pub disallow_anonymous_connection_tokens: bool,
    /// Zero: no pings.
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    /// How often maps of who is subscribed are told again.
    pub presence_update_interval: Duration,
    pub expired_close_delay: Duration,
    pub expired_sub_close_delay: Duration,
    pub stale_close_delay: Duration,
    pub channel_limit: usize,
    /// Bytes waiting for one client before it is closed as slow (3008).
    pub queue_max_size: usize,
    pub channel_position_check_delay: Duration,
    /// 0: no limit but the descriptors'.
    pub connection_limit: usize,
    /// Connections of one user; 0: no limit.
    pub user_connection_limit: usize,
    /// New connections per second; 0: no limit.
    pub connection_rate_limit: usize,
    pub connect_include_server_time: bool,
    pub history_max_publication_limit: usize,
    pub recovery_max_publication_limit: usize,
    /// Everything is allowed to everybody.
    pub insecure: bool,
    pub insecure_skip_token_signature_verify: bool,
    /// The header whose value is the user's id; empty: none.
    pub user_id_http_header: String,
    pub personal_channel: Option<PersonalChannel>,
    /// `client.connect_code_to_unidirectional_disconnect`: the closes of unidirectional clients, by
    /// the codes of the errors that their connect ends with.
    pub uni_disconnects: Vec<(u32, Disconnect)>,
}

/// `client.subscribe_to_user_personal_channel`, when enabled.
#[derive(Debug, Clone)]
pub struct PersonalChannel {
    pub namespace: String,
    pub single_connection: bool,
}

#[derive(Clone, Default)]
pub struct Token {
    /// Where these options stand, such as `client.token`; for who reads a message about them.
    pub option: &'static str,
    pub hmac_secret_key: String,
    pub hmac_previous_secret_key: String,
    /// Unix seconds; 0: for ever.
    pub hmac_previous_secret_key_valid_until: i64,
    pub rsa_public_key: Option<Arc<PublicKey>>,
    pub ecdsa_public_key: Option<Arc<PublicKey>>,
    /// Where the keys are; then the others do not count.
    pub jwks_public_endpoint: Option<JwksEndpoint>,
    pub audience: String,
    pub audience_regex: Option<Regex>,
    pub issuer: String,
    pub issuer_regex: Option<Regex>,
    /// The claim with the user's id; empty: `sub`.
    pub user_id_claim: String,
}

#[derive(Debug, Clone)]
pub struct WebSocket {
    pub enabled: bool,
    /// `websocket.handler_prefix`.
    pub path: String,
    /// Bytes of one message, as it travels.
    pub message_size_limit: usize,
    /// permessage-deflate, for clients that offer it.
    pub compression: Option<Effort>,
    /// Bytes of a message that came compressed, when it is inflated.
    pub inflated_size_limit: usize,
}

#[derive(Debug, Clone)]
pub struct UniWebSocket {
    pub enabled: bool,
    pub path: String,
    pub message_size_limit: usize,
    pub compression: Option<Effort>,
    pub inflated_size_limit: usize,
    /// No disconnect push before the close frame.
    pub disable_disconnect_push: bool,
    /// The connection ends without a close frame.
    pub disable_closing_handshake: bool,
}

/// A transport that is one long HTTP response.
#[derive(Debug, Clone)]
pub struct Stream {
    pub enabled: bool,
    /// `….handler_prefix`.
    pub path: String,
    /// `….max_request_body_size`: bytes of the body of the request that opens one.
    pub body_max: usize,
    /// `….connect_code_to_http_response`, when enabled: who is not let in is answered with a status.
    pub refusals: Option<Vec<Refusal>>,
}

/// The answer to a connect that ends with an error or a close of this code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u32,
    /// From 400 to 599.
    pub status: u16,
    /// Empty: the error's message, or the close's reason.
    pub body: String,
}

/// Where clients of a transport on which they only hear speak; it is on when one of those is.
#[derive(Debug, Clone)]
pub struct Emulation {
    /// `emulation.handler_prefix`.
    pub path: String,
    /// `emulation.max_request_body_size`.
    pub body_max: usize,
}

#[derive(Debug, Clone)]
pub struct Channels {
    pub without_namespace: Arc<ChannelOptions>,
    pub namespaces: BTreeMap<String, Arc<ChannelOptions>>,
    /// Bytes of a channel's name.
    pub max_length: usize,
    /// Each of these four may be empty, which turns the rule off.
    pub private_prefix: String,
    pub namespace_boundary: String,
    pub user_boundary: String,
    pub user_separator: String,
}

/// What a namespace's channels may do; names and defaults are Centrifugo's.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own in the file")]
pub struct ChannelOptions {
    pub presence: bool,
    pub join_leave: bool,
    pub force_push_join_leave: bool,
    pub history_size: u32,
    pub history_ttl: Duration,
    /// The namespace's, or the global one.
    pub history_meta_ttl: Duration,
    pub force_positioning: bool,
    pub allow_positioning: bool,
    pub force_recovery: bool,
    pub allow_recovery: bool,
    /// `force_recovery_mode = "cache"`.
    pub recovery_mode_cache: bool,
    pub auto_cache_recover: bool,
    /// `allowed_delta_types` names `fossil`.
    pub allow_fossil: bool,
    pub delta_publish: bool,
    pub allow_tags_filter: bool,
    pub allow_subscribe_for_client: bool,
    pub allow_subscribe_for_anonymous: bool,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_subscriber: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_presence_for_client: bool,
    pub allow_presence_for_subscriber: bool,
    pub allow_presence_for_anonymous: bool,
    pub allow_history_for_client: bool,
    pub allow_history_for_subscriber: bool,
    pub allow_history_for_anonymous: bool,
    pub allow_user_limited_channels: bool,
    /// Over the part behind the namespace's boundary.
    pub channel_regex: Option<Regex>,
    pub publication_data_format: DataFormat,
    /// `subscribe_proxy_enabled` and `_name`; the others likewise.
    pub subscribe_backend: Option<BackendId>,
    pub publish_backend: Option<BackendId>,
    pub sub_refresh_backend: Option<BackendId>,
    /// `subscription_type` and `map.…`; none for a stream.
    pub map: Option<Arc<MapOptions>>,
    /// `map_clients_presence_channel_prefix`; empty: none.
    pub map_clients_prefix: Box<str>,
    /// `map_users_presence_channel_prefix`; empty: none.
    pub map_users_prefix: Box<str>,
    /// `subscription_type = "shared_poll"`, and its options.
    pub poll: Option<PollOptions>,
}

/// What a publication's payload must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataFormat {
    /// Anything that is not empty.
    #[default]
    NotEmpty,
    Json,
    JsonObject,
    /// Anything, empty too.
    Binary,
}

#[derive(Clone)]
pub struct HttpApi {
    pub enabled: bool,
    /// `http_api.handler_prefix`.
    pub path: String,
    /// Empty: no key is right.
    pub key: String,
    /// No key is asked for.
    pub insecure: bool,
    /// Stay on the public port when there is an internal one.
    pub external: bool,
    /// `http_api.error_mode = "transport"`: errors as HTTP statuses.
    pub error_mode_transport: bool,
}

/// `prometheus`: what can be seen of the server.
#[derive(Debug, Clone)]
pub struct Prometheus {
    pub enabled: bool,
    /// `prometheus.handler_prefix`.
    pub path: String,
    /// `prometheus.compat` (throng's own): whose names are used where Centrifugo has a family, too.
    pub names: Names,
}

/// Whose names metrics have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// `throng_…`.
    #[default]
    Throng,
    /// `centrifugo_…`, for dashboards that were made for it.
    Centrifugo,
}

#[derive(Debug, Clone)]
pub struct Shutdown {
    /// `shutdown.timeout`: the end of it all.
    pub timeout: Duration,
    /// `shutdown.spread` (throng's own): clients are closed evenly over this time.
    pub spread: Duration,
}

/// `limits.per_address`: what one address may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerAddress {
    /// Connections at once, clients or not; 0: no limit.
    pub connections: u32,
    /// New connections in a second; 0: no limit.
    pub rate: u32,
    /// Loopback and private networks have no such limits.
    pub exempt_private: bool,
}

/// How a client is told that the server is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refuse {
    /// HTTP 503 instead of the handshake.
    #[default]
    Answer,
    /// The handshake, and a close with 3013: a page can read that.
    Close,
}

/// throng's own: what the node may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `limits.clients`: connections wanted; none: as many as fit.
    pub clients: Option<usize>,
    /// `limits.strict`: do not start when `clients` do not fit.
    pub strict: bool,
    /// `limits.refuse`: how a client is refused when none fits.
    pub refuse: Refuse,
    pub per_address: PerAddress,
    /// `limits.buffer_bytes`: what all clients together may have waiting, in bytes: unsent
    /// publications, half-received messages, recovery replies.
    pub buffer_bytes: usize,
    /// `limits.map_bytes`: what all maps together may have, in bytes.
    pub map_bytes: usize,
    /// `limits.shards`: threads that own connections.
    pub shards: usize,
    /// `limits.incomplete_message_timeout`: how long a begun message may take to arrive.
    pub incomplete_message_timeout: Duration,
    /// `limits.close_timeout`: how long a close may take before the connection is reset.
    pub close_timeout: Duration,
    /// `limits.publish_timeout`: how long an API publish waits for buffer space before error 111.
    pub publish_timeout: Duration,
}

/// throng's own: who stands in front, and how it tells whom it speaks for.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// `trusted_proxies`: whose word about a client's address counts.
    pub trusted: Vec<Network>,
    /// `client_address_header`: where they write it; none: nowhere.
    pub header: Option<AddressHeader>,
    /// `http_server.proxy_protocol`, on the public port.
    pub protocol: ProxyProtocol,
    /// `http_server.internal_proxy_protocol`, on the internal one.
    pub internal_protocol: ProxyProtocol,
}

impl Proxies {
    /// Whether this address is a proxy whose word counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// The header that says for whom a proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`, where each proxy appends whom it heard.
    XForwardedFor,
    /// `X-Real-IP`, one address.
    XRealIp,
    /// RFC 7239 `Forwarded`.
    Forwarded,
}

impl AddressHeader {
    /// As it is written in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::XRealIp => "X-Real-IP",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// What a connection must begin with. Never guessed: where it is off, no such header is looked for,
/// and where it is on, nobody gets in without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    #[default]
    Off,
    V1,
    V2,
    Either,
}

impl ProxyProtocol {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Either => "on",
        }
    }
}

/// Keys are left out: whoever shows settings shows no secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("hmac_secret_key", &Redacted(&self.hmac_secret_key))
            .field("hmac_previous_secret_key", &Redacted(&self.hmac_previous_secret_key))
            .field("valid_until", &self.hmac_previous_secret_key_valid_until)
            .field("rsa_public_key", &self.rsa_public_key)
            .field("ecdsa_public_key", &self.ecdsa_public_key)
            .field("jwks_public_endpoint", &self.jwks_public_endpoint)
            .field("audience", &self.audience)
            .field("audience_regex", &self.audience_regex)
            .field("issuer", &self.issuer)
            .field("issuer_regex", &self.issuer_regex)
            .field("user_id_claim", &self.user_id_claim)
            .finish()
    }
}

/// The key is left out: whoever shows settings shows no secret.
impl fmt::Debug for HttpApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpApi")
            .field("enabled", &self.enabled)
            .field("path", &self.path)
            .field("key", &Redacted(&self.key))
            .field("insecure", &self.insecure)
            .field("external", &self.external)
            .field("error_mode_transport", &self.error_mode_transport)
            .finish()
    }
}
