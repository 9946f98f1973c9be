//! What a load is asked to do.

use std::path::PathBuf;
use std::time::Duration;

/// The choices of one run; the texts are the help of the command.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server: ws://HOST:PORT/PATH, or http://HOST:PORT/PATH for server-sent events (uni_sse)
    pub url: String,
    /// How many clients to connect
    pub clients: u32,
    /// The channel that every client subscribes to
    pub channel: String,
    /// How many clients begin to connect per second; 0: as fast as they get in
    pub rate: u32,
    /// How many clients may be between their first packet and being subscribed
    pub concurrent: u32,
    /// How long to hold the crowd idle and measure that; 0: not at all
    pub hold: Duration,
    /// How many publications one round of fan-out has; 0: publish nothing
    pub messages: u32,
    /// How many bytes of data a publication has
    pub size: u32,
    /// How many publications may be under way at once; above 1 both ways are measured
    pub in_flight: u32,
    /// How many rounds of fan-out; the median counts
    pub rounds: u32,
    /// The URL of the server API [default: /api on the same host]
    pub api: Option<String>,
    /// The key of the server API
    pub api_key: Option<String>,
    /// The pid of the server, to measure its memory and processor time
    pub pid: Option<u32>,
    /// Alternate with a bare accept-and-write loop, and give the ratios
    pub bare: bool,
    /// Measure how long one more client waits for answers during a burst of publications
    pub neighbour: bool,
    /// The connection token that every client presents
    pub token: Option<String>,
    /// Measure memory at this many clients too, and give the slope from there
    pub slope_from: Option<u32>,
    /// Upgrade and hold, without saying anything: for servers of another protocol
    pub upgrade_only: bool,
    /// How long one client may take to get in, and a round to go on without any delivery
    pub timeout: Duration,
    /// Which encoding of the protocol the clients speak
    pub encoding: Encoding,
    /// Offer permessage-deflate
    pub compressed: bool,
    /// How the bare loop is started
    pub helper: Helper,
}

/// Which encoding of the protocol the clients of a crowd speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Json,
    Protobuf,
    /// Every second client speaks Protobuf.
    Mixed,
}

/// How the processes of the bare loop are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helper {
    /// This program (or another) with these arguments, a role and an address after them; it is to
    /// call [`crate::bare::help`] with those two.
    Process { program: Option<PathBuf>, arguments: Vec<String> },
    /// As threads of this process, whose use is then not told apart from the load's: for tests.
    Threads,
}

impl Options {
    /// The defaults, towards a server.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            clients: 1000,
            channel: "load".to_owned(),
            rate: 0,
            concurrent: 100,
            hold: Duration::ZERO,
            messages: 20,
            size: 100,
            in_flight: 1,
            rounds: 5,
            api: None,
            api_key: None,
            pid: None,
            bare: false,
            neighbour: false,
            token: None,
            slope_from: None,
            upgrade_only: false,
            encoding: Encoding::Json,
            compressed: false,
            timeout: Duration::from_secs(10),
            helper: Helper::Process { program: None, arguments: vec!["load-bare".to_owned()] },
        }
    }
}
