//! A shard: one thread with its own event loop, and the connections that live in it.
//!
//! A shard owns its connections: there is no lock, task, timer or read buffer per connection.
//! What a connection means is left to a [`Handler`]; the shard reads frames, writes bytes, keeps
//! deadlines, and gives every part of its work a bounded slice of a turn.

mod board;
#[cfg(test)]
pub(crate) mod by_hand;
mod closing;
mod conn;
mod conns;
mod crowd;
mod freeze;
mod mailbox;
mod outbox;
mod reading;
mod record;
mod sweep;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_hub::request::Now;
use throng_hub::state::{Corrupt, Fields, Writer};
use throng_limits::budget::Permit;
use throng_wire::framing::Framing;

use crate::addresses::Held;
use throng_wire::websocket::{Limits as MessageLimits, Window};

use crate::allowance::Allowance;
use crate::codes::Disconnect;
use crate::log::Log;

pub use board::{Boarded, Boarding, LoadOrder, Manifest, NotAboard, Reserved, Unloadable};
pub use conn::Peer;
pub use crowd::{Crowd, Out, Touch, Witness};
pub use freeze::{BATCH_MAX, CopyOrder, Courier, Parcel, Stop, StopOrder, Tally};
pub use mailbox::{Mailbox, Post};
pub(crate) use record::{Address, Deflating, Wrapped};
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

    /// Bytes of the allowance that a session holds, beside what waits at its socket.
    fn held(&self, _session: &Self::Session) -> usize {
        0
    }

    /// The same, of all sessions of the shard.
    fn held_by_all(&self) -> usize {
        0
    }

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
    fn closed(&mut self, gone: Gone, session: Self::Session, why: &Disconnect);

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

    /// Whether a session waits for nothing, so that it may be told of while it is served: then what
    /// was told can be taken back.
    fn is_at_rest(&self, _session: &Self::Session) -> bool {
        false
    }

    /// Writes down what the sessions in these slots share, as far as it was not written before, for
    /// another process to go on with; the last time, all that is left of it. Before any session.
    fn put_shared(&mut self, _slots: &[u32], _is_last: bool, _out: &mut Writer) {}

    /// What was written before is known to nobody.
    fn forget_told(&mut self) {}

    /// Writes a session down.
    fn put_session(&mut self, _conn: ConnRef, _session: &Self::Session, _out: &mut Writer) {}

    /// Takes in what a shard of another process, by its number, wrote with [`Handler::put_shared`].
    /// The sessions that follow are of that shard.
    ///
    /// # Errors
    /// When it cannot be read.
    fn take_shared(&mut self, _shard: usize, _fields: Fields<'_>) -> Result<(), Corrupt> {
        Ok(())
    }

    /// So many sessions of another process will come, all in all: the time to make room is now.
    fn expect(&mut self, _sessions: usize) {}

    /// A session of another process.
    ///
    /// # Errors
    /// When it cannot be read, or sessions of this handler cannot move.
    fn take_session(
        &mut self,
        (_conn, _framing): (ConnRef, Framing),
        fields: Fields<'_>,
    ) -> Result<Self::Session, Corrupt> {
        Err(fields.corrupt("sessions of this kind cannot move"))
    }

    /// A session that was taken in has gone in the other process, or is to be taken in anew.
    fn drop_session(
        &mut self,
        (_conn, _framing): (ConnRef, Framing),
        _session: Self::Session,
        _now: Now,
    ) {
    }

    /// Another process served these sessions for a while and died: what clients know of streams is
    /// newer than what is known here.
    fn begin_anew(&mut self, _crowd: &mut Crowd<Self::Session>) {}

    /// All sessions that came from another process are here.
    ///
    /// # Errors
    /// When they do not fit together.
    fn settle_in(&mut self, _crowd: &mut Crowd<Self::Session>) -> Result<(), Corrupt> {
        Ok(())
    }
}

/// A connection that is closing or gone.
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    pub conn: ConnRef,
    pub framing: Framing,
    pub now: Now,
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
    /// A message's size as it travels, in bytes.
    pub message: MessageLimits,
    /// That of one that came compressed, when it is inflated.
    pub inflated_max: usize,
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
    /// With which window it may be compressed, where permessage-deflate was agreed on.
    pub deflate: Option<Window>,
    /// Bytes that were read after the request's head; behind a response's they mean nothing.
    pub read_ahead: Bytes,
    pub number: u64,
    pub open: O,
}
