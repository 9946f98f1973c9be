//! The server over real sockets: what it answers, what it refuses, and who is not touched by it.
#![allow(clippy::unwrap_used, clippy::panic_in_result_fn, reason = "a test fails by panicking")]

mod address;
mod api;
mod backend;
mod bad_input;
mod client;
mod conformance;
mod deflate;
mod limits;
mod order;
mod protobuf;
mod server;
mod storms;
mod streams;
