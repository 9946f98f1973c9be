//! The server over real sockets: what it answers, what it refuses, and who is not touched by it.

mod api;
mod bad_input;
mod client;
mod limits;
mod order;
mod server;
