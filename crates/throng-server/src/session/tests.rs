//! Sessions with a clock that is turned by hand, and without sockets.

mod backends;
pub(super) mod bench;
mod commands;
mod connecting;
mod counting;
mod deltas;
mod filters;
mod fuzz;
mod orders;
mod polls;
mod recovery;
mod tokens;
mod waiting;
