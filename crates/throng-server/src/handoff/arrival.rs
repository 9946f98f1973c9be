//! What still comes after the commit: connections that were upgraded in the old process, and answers
//! to the calls that it had made.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use throng_hub::request::Now;
use throng_hub::state::sealed::{self, Piece};
use throng_hub::state::{Part, Record, Within};
use throng_wire::framing::Framing;
use throng_wire::websocket::Window;

use super::LoadError;
use crate::backend::Answer;
use crate::front::Front;
use crate::session::Open;
use crate::shard::{Adopt, Deflating, Post, Wrapped};

/// A connection on its way into a shard, without its socket.
#[derive(Debug)]
struct Arrival {
    head: Bytes,
    read_ahead: Bytes,
    open: Open,
    framing: Framing,
    deflate: Option<Window>,
}
throng_hub::record!("a connection that has come", Arrival {
    1 head,
    2 read_ahead,
    3 open as Within,
    4 framing as Wrapped,
    5 deflate as Deflating,
});

#[derive(Debug)]
struct LateAnswer {
    number: u64,
    ticket: u32,
    answer: Answer,
}
throng_hub::record!("a late answer", LateAnswer { 1 number, 2 ticket, 3 answer as Within });

/// Writes down a connection that is about to move into a shard. Its permit and its part of its
/// address are given back here, and drawn there.
pub(crate) fn put(
    (head, framing, deflate): (Bytes, Framing, Option<Window>),
    read_ahead: Bytes,
    open: Open,
) -> Vec<u8> {
    let mut out = sealed::begin(Piece::Arrival, Now::default(), 256);
    Arrival { head, read_ahead, open, framing, deflate }.put_fields(&mut out);
    sealed::seal(out)
}

/// Gives a connection to one of the shards here.
pub(super) fn take(front: &Front, state: &[u8], socket: OwnedFd) -> Result<(), LoadError> {
    let Arrival { head, read_ahead, open, framing, deflate } =
        sealed::open(state, Piece::Arrival, Now::default(), Arrival::take_fields)
            .map_err(LoadError::Unreadable)?;
    let Some(permit) = front.clients.try_client() else {
        return Err(LoadError::NoDescriptor { clients: front.clients.ceiling() });
    };
    let address = front.addresses.take_over(open.address.ip);
    let shards = &front.common.shards;
    let shard = front.next_shard.fetch_add(1, Ordering::Relaxed) % shards.len().max(1);
    let number = front.number();
    let socket = socket.into();
    let adopt = Adopt { socket, permit, address, head, framing, deflate, read_ahead, number, open };
    if let Some(mailbox) = shards.get(shard) {
        mailbox.post(Post::Adopt(Box::new(adopt)));
    }
    Ok(())
}

/// Writes down an answer to a call that was made here for a connection that has moved.
pub(crate) fn put_answer(number: u64, ticket: u32, answer: &Answer) -> Vec<u8> {
    let mut out = sealed::begin(Piece::Answer, Now::default(), 256);
    number.put(1, &mut out);
    ticket.put(2, &mut out);
    out.record(3, |out| answer.put_fields(out));
    sealed::seal(out)
}

pub(super) fn take_answer(state: &[u8]) -> Result<(u64, u32, Answer), LoadError> {
    let LateAnswer { number, ticket, answer } =
        sealed::open(state, Piece::Answer, Now::default(), LateAnswer::take_fields)
            .map_err(LoadError::Unreadable)?;
    Ok((number, ticket, answer))
}
