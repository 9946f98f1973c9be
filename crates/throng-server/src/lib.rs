//! Listeners, shards, sessions, authentication and the server API.
#![deny(unsafe_code)]

pub mod allowance;
pub mod clock;
pub mod codes;
pub mod config;
mod desk;
pub mod log;
mod notes;
pub mod rng;
mod session;
mod sessions;
pub mod shard;
pub mod token;
mod users;
