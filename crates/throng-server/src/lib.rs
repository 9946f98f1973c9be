//! Listeners, shards, sessions, authentication and the server API.
#![deny(unsafe_code)]

pub mod config;
