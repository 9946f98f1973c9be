//! The bare loop to compare with: accept, and write the same frame to every socket.
//!
//! It runs in processes of its own, one for the loop and one for its crowd, so that neither takes
//! descriptors from the crowd of the server under test, and its processor time can be told apart.

mod follower;
mod rival;
mod server;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub(crate) use rival::Rival;

use crate::failure::Failure;
use crate::fanout::{Fanout, Round, Volley};
use crate::link::Link;
use crate::ramp::Ramp;

/// What the bare loop came to, and how the server compares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bare {
    /// The bytes of one frame on the wire, as the server writes them.
    pub frame_bytes: usize,
    pub ramp: Ramp,
    /// Bytes of the bare process per connection.
    pub memory_per_connection: f64,
    /// Rounds in turn with the server's.
    pub fanout: Vec<Fanout>,
    /// Processor time of the bare process while both crowds were idle, in percent of one core.
    pub idle_core_percent: Option<f64>,
    pub ratios: Vec<Ratio>,
    /// The server's idle processor time by the bare loop's.
    pub idle_ratio: Option<f64>,
}

/// The server's processor time per delivery by the bare loop's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub in_flight: u32,
    /// Of the medians.
    pub ratio: f64,
    /// Of the rounds that stood next to each other, the least and the most.
    pub least: f64,
    pub most: f64,
}

/// The parts that a process of the bare loop can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The loop.
    Serve,
    /// Its crowd.
    Crowd,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Crowd => "crowd",
        }
    }
}

/// What the load tells the bare crowd, as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    Begin(Beginning),
    Ramp { to: u32 },
    Round(Volley),
    Leave,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Beginning {
    to: SocketAddr,
    control: SocketAddr,
    server_pid: u32,
    run: u32,
    channel: String,
    frame_bytes: usize,
    concurrent: u32,
    rate: u32,
    patience_ms: u64,
}

/// What the bare crowd answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Answer {
    Ramp(Ramp),
    Round(Round),
    Done,
    Failed(Failure),
}

/// Plays one part of the bare loop, for the load that listens at `address`, until that ends.
///
/// # Errors
/// When the load cannot be reached, or its lines are not understood.
pub fn help(role: &str, address: &str) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new("the bare loop could not start", why, "this command is for `throng load` only")
    };
    let address: SocketAddr = address.parse().map_err(|error| failed(&error))?;
    let link = Link::connect(address).map_err(|error| failed(&error))?;
    match role {
        _ if role == Role::Serve.name() => server::serve(link).map_err(|error| failed(&error)),
        _ if role == Role::Crowd.name() => follower::follow(link),
        _ => Err(failed(&format_args!("there is no part called {role}"))),
    }
}

/// Compares rounds in turn.
pub(crate) fn ratio(server: &Fanout, bare: &Fanout) -> Option<Ratio> {
    let pairs: Vec<f64> = server
        .rounds
        .iter()
        .zip(&bare.rounds)
        .filter_map(|(server, bare)| Some(server.server_cpu_us? / bare.server_cpu_us?))
        .collect();
    Some(Ratio {
        in_flight: server.in_flight,
        ratio: server.median.server_cpu_us? / bare.median.server_cpu_us?,
        least: pairs.iter().copied().reduce(f64::min)?,
        most: pairs.iter().copied().reduce(f64::max)?,
    })
}

#[cfg(test)]
mod tests;
