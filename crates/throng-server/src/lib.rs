//! Listeners, shards, sessions, authentication and the server API.
#![deny(unsafe_code)]

pub mod codes;
pub mod config;
pub mod log;
pub mod token;
