//! Who listens to what: channels, subscriptions, fan-out, history, presence, and the brokers
//! behind them.
//!
//! Nothing here knows a socket, a byte format or a clock: connections are numbers, payloads are
//! opaque bytes, and time is an argument.
//!
//! * [`request`] and [`event`]: what a node is asked and what it says, as data with ids.
//! * [`node`]: the partitions; the one order of events per channel.
//! * [`registry`]: the subscribers of one shard, and the fan-out to them in slices.
//! * [`map`]: channels that keep a value for each key.
//! * [`broker`]: what stands behind the node, and what it promises; [`memory`] is the one of a node
//!   that is alone.
//! * [`state`]: how all of it is written down for another process, and read there.
//!
//! A shard reads its mailbox in order. `Answer::Subscribed` with `Ok`: it joins the member with the
//! position of the answer, or, for one that is gone, unsubscribes unless it did so already. `Event::Channel`: it queues the
//! item; `Queued::Gap` means that the `positioned_members` must leave, be unsubscribed and come
//! back to recover. `Event::Insufficient` means the same, after `Registry::lose`. Between events it
//! calls `fan_out`.
#![forbid(unsafe_code)]

pub mod broker;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod done;
pub mod event;
pub mod fanout;
pub mod filter;
mod filters;
mod history;
mod idempotency;
mod joining;
#[cfg(any(test, feature = "conformance"))]
pub mod late;
pub mod map;
pub mod memory;
mod nearness;
pub mod node;
mod partition;
mod pattern;
mod presence;
pub mod publication;
mod random;
pub mod registry;
pub mod request;
mod roster;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod subscription;
