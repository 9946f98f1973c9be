//! Listeners, shards, sessions, authentication and the server API.
#![deny(unsafe_code)]

pub mod addresses;
pub mod allowance;
pub mod authorities;
pub mod backend;
pub mod clock;
pub mod codes;
#[cfg(test)]
mod compatibility;
pub mod config;
pub mod control;
mod desk;
mod front;
mod grpc;
mod handoff;
mod keyed;
mod listeners;
pub mod log;
mod metrics;
mod notary;
mod notes;
mod origin;
mod pid_file;
mod polls;
pub mod reload;
pub mod restart;
mod ring;
pub mod rng;
mod room;
mod serve;
mod session;
mod sessions;
pub mod shard;
mod shutdown;
mod speakers;
pub mod token;
mod users;
mod version;
mod watch;

pub use front::{PROBE_HEADER, SEEN_HEADER, openapi};
pub use serve::{ServeError, ServeOptions, Started, TookOver, serve, serve_until};
pub use version::version;
