//! Who listens to what: channels, subscriptions, fan-out, history, presence, and the brokers
//! behind them.
//!
//! Nothing here knows a socket, a byte format or a clock: connections are numbers, payloads are
//! opaque bytes, and time is an argument.
//!
//! * [`request`] and [`event`]: what a node is asked and what it says, as data with ids.
//! * [`node`]: the partitions; the one order of events per channel.
//! * [`registry`]: the subscribers of one shard, and the fan-out to them in slices.
#![forbid(unsafe_code)]

pub mod event;
pub mod fanout;
pub mod publication;
pub mod registry;
pub mod request;
mod roster;
pub mod subscription;
