//! What may be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::doctor::DoctorArgs;

/// A push server: holds the crowd of WebSocket connections and delivers what is published.
#[derive(Debug, Parser)]
#[command(name = "throng", version = throng_server::version(), arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// How a server on this machine is
    Status(StatusArgs),
    /// Who is connected, who is slow, who was closed and why
    Who(WhoArgs),
    /// Why a client cannot connect: walks through every step of connecting
    Probe(ProbeArgs),
    /// What your application is asked, and what it answers
    Backend {
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// Hand every connection to a new process, of this program or a newer one: nobody notices
    Restart(RestartArgs),
    /// Close the clients at a pace, before this machine goes
    Drain(DrainArgs),
    /// Apply a changed configuration to a running server: tokens, channels, backends, origins, proxies
    Reload(ReloadArgs),
    /// Publish to a channel, and see whom it reaches
    Publish(PublishArgs),
    /// Publish to several channels at once
    Broadcast(BroadcastArgs),
    /// Listen to a channel and print what arrives
    Subscribe(SubscribeArgs),
    /// Who is in a channel
    Presence(ChannelArgs),
    /// What a channel keeps
    History(HistoryArgs),
    /// The node: clients, channels, memory
    Info(PlainArgs),
    /// Channels that have subscribers
    Channels(ChannelsArgs),
    /// Disconnect a user
    Disconnect(DisconnectArgs),
    /// Make a token for a user, as your application would
    #[command(alias = "gentoken")]
    Token(TokenArgs),
    /// What an error or close code means, and what to do
    Explain(ExplainArgs),
    /// Print an OpenAPI document of the server API
    Openapi,
    /// Start, check and print configurations
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    #[command(hide = true)]
    Genconfig(InitArgs),
    #[command(hide = true)]
    Checkconfig(CheckArgs),
    #[command(hide = true, alias = "configdoc")]
    Defaultconfig,
    #[command(hide = true)]
    Defaultenv,
    #[command(hide = true)]
    Version,
    #[command(hide = true)]
    Gensubtoken(SubTokenArgs),
    #[command(hide = true, alias = "checksubtoken")]
    Checktoken(CheckTokenArgs),
    /// What limits a process, who set it, and how to lift it; without a PID, the whole machine
    Doctor(DoctorArgs),
    /// A crowd of clients against any WebSocket server
    Load(LoadArgs),
    #[command(hide = true)]
    LoadBare(LoadBareArgs),
    /// Starts a program that is to be nobody's child; for `throng restart`
    #[command(hide = true)]
    Orphan(OrphanArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Ask it as the server would: the request, the answer, and what becomes of the client
    Try(TryArgs),
}

/// What a backend is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Who is this client?
    Connect,
    /// May it stay connected?
    Refresh,
    /// May it subscribe to the channel?
    Subscribe,
    /// May it publish this in the channel?
    Publish,
    /// What is the answer to this remote call?
    Rpc,
    /// May it stay subscribed?
    SubRefresh,
}

#[derive(Debug, Args)]
pub(crate) struct TryArgs {
    #[arg(value_enum)]
    pub(crate) question: Question,
    /// The cookies that the client sends
    #[arg(long)]
    pub(crate) cookie: Option<String>,
    /// Where the client is
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) addr: IpAddr,
    /// Another header that the client sends; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The client's user, for all questions but connect, which asks for it
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// For subscribe, publish and sub_refresh
    #[arg(long)]
    pub(crate) channel: Option<String>,
    /// JSON, for connect, subscribe, publish and rpc
    #[arg(long, value_name = "JSON")]
    pub(crate) data: Option<String>,
    /// For rpc
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// The server's configuration [default: throng.toml, then config.toml, if there]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a first configuration with keys of its own
    Init(InitArgs),
    /// Find every problem in a configuration
    Check(CheckArgs),
    /// Print every option with its default
    Default,
    /// Turn a configuration of Centrifugo into one of throng, with comments
    Import(ImportArgs),
    /// Print a JSON Schema of the configuration, for editors
    Schema,
}

/// The server. Options may also be given as in a file, such as --client.insecure or
/// --http_api.key=KEY.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration: TOML, YAML or JSON [default: throng.toml, then config.toml, if there]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Development: everything is allowed to everybody, on 127.0.0.1 only
    #[arg(long)]
    pub(crate) dev: bool,
    /// Whether a parent that stays is put before the server, for managers that know it by the
    /// number of one process
    #[arg(long, value_enum, default_value_t = Keeper::Auto)]
    pub(crate) keeper: Keeper,
    /// Look at the configuration, say who this program is, and end; for `throng restart`
    #[arg(long, hide = true)]
    pub(crate) prove: bool,
    #[command(flatten)]
    pub(crate) options: OptionFlags,
}

/// When a keeper is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Keeper {
    /// Where the manager needs it: supervisord, runit, s6, a container, systemd without notify
    Auto,
    Always,
    Never,
}

/// Options of the configuration that are flags too; their names are Centrifugo's.
#[derive(Debug, Default)]
pub(crate) struct OptionFlags(pub(crate) Vec<(String, String)>);

const FLAGS: &[(&str, bool)] = &[
    ("http_server.address", false),
    ("http_server.port", false),
    ("http_server.internal_address", false),
    ("http_server.internal_port", false),
    ("engine.type", false),
    ("broker.enabled", true),
    ("broker.type", false),
    ("presence_manager.enabled", true),
    ("presence_manager.type", false),
    ("map_broker.type", false),
    ("log.level", false),
    ("log.file", false),
    ("pid_file", false),
    ("node.name", false),
    ("debug.enabled", true),
    ("admin.enabled", true),
    ("admin.external", true),
    ("admin.insecure", true),
    ("prometheus.enabled", true),
    ("swagger.enabled", true),
    ("health.enabled", true),
    ("uni_websocket.enabled", true),
    ("uni_sse.enabled", true),
    ("uni_http_stream.enabled", true),
    ("sse.enabled", true),
    ("http_stream.enabled", true),
    ("init.enabled", true),
    ("client.insecure", true),
    ("client.allowed_origins", false),
    ("client.connection_limit", false),
    ("http_api.insecure", true),
    ("http_api.external", true),
    ("http_api.key", false),
    ("grpc_api.enabled", true),
    ("grpc_api.port", false),
    ("uni_grpc.enabled", true),
    ("uni_grpc.port", false),
    ("limits.clients", false),
    ("limits.buffer_bytes", false),
    ("limits.shards", false),
    ("shutdown.spread", false),
    ("shutdown.timeout", false),
];

impl Args for OptionFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        FLAGS.iter().fold(command, |command, (name, switch)| {
            let flag = Arg::new(*name).long(*name).action(ArgAction::Set).hide(true);
            let flag = if *switch {
                flag.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                flag
            };
            command.arg(match *name {
                "http_server.address" => flag
                    .short('a')
                    .hide(false)
                    .value_name("ADDRESS")
                    .help("Where to listen [default: every address]"),
                "http_server.port" => {
                    flag.short('p').hide(false).value_name("PORT").help("[default: 8000]")
                }
                _ => flag,
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OptionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS.iter().filter_map(|(name, _)| {
            let value: &String = matches.get_one(name)?;
            Some(((*name).to_owned(), value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Which server is meant, and with which right.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The server, such as `http://127.0.0.1:8000` [default: THRONG_URL, or the configuration's port
    /// on this machine]
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The server's configuration, for its port and keys
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The key of the server API [default: THRONG_HTTP_API_KEY, or the configuration's]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The server's pid, where several run
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Another program than the one at the path of the running one: to go back to an old version
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Prove the new process with everything, and stop before it would serve
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The server's pid, where several run
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// How long it takes, such as 60s [default: shutdown.spread]
    #[arg(long, value_name = "DURATION")]
    pub(crate) over: Option<String>,
    /// The server's pid, where several run
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// The server's pid, where several run
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    /// Only this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only clients for whom bytes are waiting, and those that were closed for it
    #[arg(long)]
    pub(crate) slow: bool,
    /// Only who is in this channel now
    #[arg(long)]
    pub(crate) channel: Option<String>,
    /// Only who comes from this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: Option<String>,
    /// So many at most, of those connected and of those gone
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// The server's pid, where several run
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// As the client has it, such as `wss://HOST/connection/websocket`; `HOST:PORT` will do
    pub(crate) url: String,
    /// The page that connects, such as `https://example.com`
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Option<String>,
    /// The token that the client connects with
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// The cookies that the page sends
    #[arg(long)]
    pub(crate) cookie: Option<String>,
    /// The certificate of your own authority, in PEM, beside those that this machine trusts
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Then stay connected and silent for so long; 65 finds the usual timeouts of proxies
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) hold: u64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Such as news, or chat:lobby in the namespace chat
    pub(crate) channel: String,
    /// JSON, such as '{"text":"hello"}' or '"hello"'
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BroadcastArgs {
    #[arg(required = true, value_name = "CHANNEL")]
    pub(crate) channels: Vec<String>,
    /// JSON, such as '{"text":"hello"}' or '"hello"'
    #[arg(required = true)]
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// Such as news, or chat:lobby in the namespace chat
    pub(crate) channel: String,
    /// A connection token [default: made with the configuration's key]
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Stop after so many publications
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// Its namespace needs presence = true
    pub(crate) channel: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Its namespace needs history_size and history_ttl
    pub(crate) channel: String,
    /// So many publications at most; 0: only where the channel stands
    #[arg(long, default_value_t = 10)]
    pub(crate) limit: u32,
    /// The oldest first
    #[arg(long)]
    pub(crate) oldest: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlainArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelsArgs {
    /// Only channels like this, such as 'chat:*'
    pub(crate) pattern: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    pub(crate) user: String,
    /// Only this connection of the user
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,
    /// The close code, 4000 to 4999 [default: 3503, the client does not come back]
    #[arg(long, requires = "reason")]
    pub(crate) code: Option<u16>,
    /// What the client is told
    #[arg(long, requires = "code")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct TokenArgs {
    /// The user's id in your application
    #[arg(short, long, required_unless_present = "check")]
    pub(crate) user: Option<String>,
    /// A subscription token for this channel, instead of a connection token
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,
    /// A signature for these keys of the channel, whose subscription_type is shared_poll
    #[arg(long, value_name = "KEY", num_args = 1.., requires = "channel", conflicts_with_all = ["private_key", "check"])]
    pub(crate) track: Vec<String>,
    /// How long it is valid, such as 1h or 30m, or in seconds; 0: for ever
    #[arg(short, long, default_value = "1h")]
    pub(crate) ttl: String,
    /// Sign with this private key (PEM) instead of the configuration's secret
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
    /// The algorithm of an RSA key: RS256, RS384 or RS512; others have but one
    #[arg(long, value_name = "ALG", requires = "private_key")]
    pub(crate) alg: Option<String>,
    /// Names the key, where the server fetches keys (jwks_public_endpoint)
    #[arg(long, value_name = "ID", requires = "private_key")]
    pub(crate) kid: Option<String>,
    /// Say whether the server would accept this token, and if not, why; - reads it from the input
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["user", "channel", "private_key"])]
    pub(crate) check: Option<String>,
    /// The server's configuration, for its key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// As Centrifugo has it: `throng token --channel CHANNEL`.
#[derive(Debug, Args)]
pub(crate) struct SubTokenArgs {
    /// The user's id in your application
    #[arg(short, long)]
    pub(crate) user: String,
    /// The channel that the user may subscribe to
    #[arg(short = 's', long, value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// How long it is valid, such as 1h or 3600; 0: for ever
    #[arg(short, long, default_value = "1h")]
    pub(crate) ttl: String,
    /// The server's configuration, for its key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl From<&SubTokenArgs> for TokenArgs {
    fn from(args: &SubTokenArgs) -> Self {
        let SubTokenArgs { user, channel, ttl, config } = args;
        Self {
            user: Some(user.clone()),
            channel: Some(channel.clone()),
            ttl: ttl.clone(),
            config: config.clone(),
            ..Self::default()
        }
    }
}

/// As Centrifugo has it: `throng token --check TOKEN`.
#[derive(Debug, Args)]
pub(crate) struct CheckTokenArgs {
    /// The token; - reads it from the input
    pub(crate) token: String,
    /// The server's configuration, for its key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl From<&CheckTokenArgs> for TokenArgs {
    fn from(args: &CheckTokenArgs) -> Self {
        let CheckTokenArgs { token, config } = args;
        let (check, config) = (Some(token.clone()), config.clone());
        Self { ttl: "0".to_owned(), check, config, ..Self::default() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// An error, close or HTTP status code; none: list all
    pub(crate) code: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where your pages come from, such as `https://example.com`
    #[arg(long, value_name = "URL")]
    pub(crate) origin: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "throng.toml")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Centrifugo's file: JSON, YAML or TOML
    pub(crate) file: PathBuf,
    /// The file to write, which must not be there [default: it is printed]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Take over the CENTRIFUGO_ variables of this environment, too
    #[arg(long)]
    pub(crate) env: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The file to check [default: throng.toml, then config.toml, if there]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server: `ws://HOST:PORT/PATH`, or `http://HOST:PORT/PATH` for server-sent events (`uni_sse`)
    pub(crate) url: String,
    /// How many clients to connect
    #[arg(long, default_value_t = 1000)]
    pub(crate) clients: u32,
    /// The channel that every client subscribes to
    #[arg(long, default_value = "load")]
    pub(crate) channel: String,
    /// How many clients begin to connect per second; 0: as fast as they get in
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u32,
    /// How many clients may be on their way in at once
    #[arg(long, default_value_t = 100)]
    pub(crate) concurrent: u32,
    /// How many seconds to hold the crowd idle and measure that
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) hold: u64,
    /// How many publications one round of fan-out has; 0: publish nothing
    #[arg(long, default_value_t = 20)]
    pub(crate) messages: u32,
    /// How many bytes of data a publication has
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) size: u32,
    /// How many publications may be under way at once; above 1 both ways are measured
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: u32,
    /// How many rounds of fan-out; the median counts
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    /// The URL of the server API [default: /api on the same host]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The key of the server API
    #[arg(long, env = "THRONG_HTTP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// The pid of the server, to measure its memory and processor time
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Alternate with a bare accept-and-write loop, and give the ratios
    #[arg(long)]
    pub(crate) bare: bool,
    /// Measure how long one more client waits for answers during a burst of publications
    #[arg(long)]
    pub(crate) neighbour: bool,
    /// The connection token that every client presents
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Measure memory at this many clients too, and give the slope from there
    #[arg(long, value_name = "CLIENTS")]
    pub(crate) slope_from: Option<u32>,
    /// Upgrade and hold, without saying anything: for servers of another protocol
    #[arg(long)]
    pub(crate) upgrade_only: bool,
    /// Which encoding of the protocol the clients speak; mixed: every second one Protobuf
    #[arg(long, value_enum, default_value_t = LoadEncoding::Json)]
    pub(crate) encoding: LoadEncoding,
    /// Offer permessage-deflate
    #[arg(long)]
    pub(crate) compressed: bool,
    /// How many seconds one client may take to get in
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a server starts its successor with.
#[derive(Debug, Args)]
pub(crate) struct OrphanArgs {
    pub(crate) program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// The encodings of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadEncoding {
    Json,
    Protobuf,
    Mixed,
}

/// What a load starts its own parts with.
#[derive(Debug, Args)]
pub(crate) struct LoadBareArgs {
    pub(crate) role: String,
    pub(crate) address: String,
}
