//! What a node says to a mailbox, in the one order of each channel.

use std::fmt;
use std::sync::Arc;

use crate::publication::{ChannelName, ClientInfo, Publication};
use crate::request::{Answer, Draw, ReplyTo};

/// A queue that the node puts events into: a shard's, or the front's.
///
/// `put` is called while a partition is locked, so it does memory work only: it appends, and wakes
/// the reader if that sleeps. It never waits and never calls back into the node.
pub trait Mailbox: Send + Sync + fmt::Debug {
    fn put(&self, event: Event);
}

/// One event.
#[derive(Debug)]
pub enum Event {
    /// For the channel's subscribers in this shard.
    Channel { channel: ChannelName, item: Item },
    /// For one asker.
    Answer { to: ReplyTo, answer: Answer },
    /// Publications of this channel may have been lost: who follows its position must recover.
    Insufficient { channel: ChannelName },
}

/// What a channel's subscribers are told.
#[derive(Debug, Clone)]
pub enum Item {
    Publication(Flight),
    Join(Arc<ClientInfo>),
    Leave(Arc<ClientInfo>),
}

/// A publication on its way, with what it draws from the byte budget until it has arrived in
/// every outbox or socket.
#[derive(Debug, Clone)]
pub struct Flight {
    pub publication: Arc<Publication>,
    pub draw: Option<Draw>,
    /// The publication before it in the stream, where who has that is to get a patch of it: the
    /// history may have dropped it by the time somebody wants the patch.
    pub base: Option<Arc<Publication>>,
    /// When it came into a mailbox, by the mailbox's own clock; 0 until then.
    pub came_us: u64,
}
