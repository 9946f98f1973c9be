//! Sessions with a clock that is turned by hand, and without sockets.

mod backends;
mod bench;
mod commands;
mod connecting;
mod counting;
mod deltas;
mod filters;
mod fuzz;
mod maps;
mod orders;
mod polls;
mod recovery;
mod tokens;
mod waiting;
