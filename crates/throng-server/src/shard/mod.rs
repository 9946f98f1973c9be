//! A shard: one thread with its own event loop, and the connections that live in it.
//!
//! A shard owns its connections: there is no lock, task, timer or read buffer per connection.
//! What a connection means is left to a [`Handler`]; the shard reads frames, writes bytes, keeps
//! deadlines, and gives every part of its work a bounded slice of a turn.

mod closing;
mod conn;
mod crowd;
mod mailbox;
mod outbox;
mod reading;
mod sweep;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_hub::request::Now;
use throng_limits::budget::Permit;
use throng_wire::framing::Framing;

use crate::addresses::Held;
use throng_wire::websocket::Limits as MessageLimits;

use crate::allowance::Allowance;
use crate::codes::Disconnect;
use crate::log::Log;

pub use conn::Peer;
pub use crowd::{Crowd, Out};
pub use mailbox::{Mailbox, Post};
pub use turn::{EventLoop, Shard, event_loop};

/// A connection on this machine: where it is in its shard, and its number, unique for life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnRef {
    pub slot: u32,
    pub number: u64,
}

/// A message as it came in.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// A WebSocket ping; the shard has answered it already.
    Ping,
    /// A WebSocket pong.
    Pong(&'a [u8]),
}

/// What a handler made of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// All of it; the next may come.
    All,
    /// An answer is awaited: read nothing until [`Crowd::resume`].
    Waiting,
    /// The share of this turn is used up: call [`Handler::proceed`] in the next one.
    More,
}

/// When the shard calls [`Handler::wake`] next for a connection, in its seconds; `NEVER` is never.
pub type WakeAt = u32;
/// No wake-up.
pub const NEVER: WakeAt = u32::MAX;

/// What connections mean. One value per shard; it owns what its sessions share.
pub trait Handler: 'static {
    /// What one connection is, beside its socket.
    type Session;
    /// What a new connection comes with.
    type Open: Send;
    /// What other threads tell this shard.
    type Mail: Send;

    /// A connection has come; its request is answered already.
    fn open(&mut self, out: &mut Out<'_>, open: Self::Open) -> Self::Session;

    /// A whole message has come.
    fn message(
        &mut self,
        out: &mut Out<'_>,
        session: &mut Self::Session,
        message: Message<'_>,
    ) -> Taken;

    /// Goes on where [`Handler::message`] stopped with [`Taken::More`] or was resumed. Called once
    /// after [`Handler::open`], too, and where nothing was left over.
    fn proceed(&mut self, out: &mut Out<'_>, session: &mut Self::Session) -> Taken;

    /// The second that the session asked for has come. Returns the next.
    fn wake(&mut self, out: &mut Out<'_>, session: &mut Self::Session) -> WakeAt;

    /// Something from outside.
    fn mail(&mut self, crowd: &mut Crowd<Self::Session>, mail: Self::Mail);

    /// Once per turn after the mail: what must be done before the next slice.
    fn settle(&mut self, crowd: &mut Crowd<Self::Session>);

    /// Whether a fan-out waits.
    fn has_work(&self) -> bool;

    /// Delivers at most `deliveries` times.
    fn work(&mut self, crowd: &mut Crowd<Self::Session>, deliveries: usize);

    /// The connection is closing or gone: nothing more comes from it and nothing goes to it.
    fn closed(&mut self, conn: ConnRef, session: Self::Session, why: &Disconnect, now: Now);

    /// How the connection is told of its end, before the close frame; most say nothing more.
    fn farewell(
        &self,
        _session: &Self::Session,
        _why: &Disconnect,
        _framing: Framing,
        _out: &mut Vec<u8>,
    ) -> Farewell {
        Farewell::CloseFrame
    }

    /// Once a second, after the sweep was begun.
    fn tick(&mut self, crowd: &mut Crowd<Self::Session>);
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// With a close frame where there are such, else with the end of the stream.
    CloseFrame,
    /// Without one.
    Silent,
}

/// The bounds of a shard.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// A message's size, in bytes.
    pub message: MessageLimits,
    /// Bytes waiting for one client before it is slow.
    pub outbox_bytes_max: usize,
    /// How long a begun message may take to arrive.
    pub incomplete_message: Duration,
    /// How long a close may take.
    pub close: Duration,
}

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardSetup {
    pub bounds: Bounds,
    /// The node-wide allowance of bytes in flight.
    pub allowance: Arc<Allowance>,
    pub log: Log,
    /// Seeds the shard's generator of ids and jitter.
    pub seed: u64,
}

/// A connection on its way into a shard: taken apart in the front, whole again here.
#[derive(Debug)]
pub struct Adopt<O> {
    pub socket: std::net::TcpStream,
    pub permit: Permit,
    /// Its part of what its address may have.
    pub address: Option<Box<Held>>,
    /// The answer to its upgrade, or the head of its response, written by the shard.
    pub head: Bytes,
    /// What is said on it is wrapped so.
    pub framing: Framing,
    /// Bytes that were read after the request's head; behind a response's they mean nothing.
    pub read_ahead: Bytes,
    pub number: u64,
    pub open: O,
}
