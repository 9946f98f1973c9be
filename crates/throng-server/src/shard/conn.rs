//! The record of one connection.

use std::io;
use std::net::{Shutdown, SocketAddr};

use bytes::Bytes;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::SendFlags;
use throng_limits::budget::Permit;
use throng_wire::framing::Framing;

use crate::addresses::Held;
use throng_wire::websocket::{Decoder, Deflated, Event, Limits as MessageLimits, Role, Window};

use super::outbox::{Flushed, Outbox};
use crate::codes::Disconnect;

/// One connection: its socket's side and, while it is established, its session.
#[derive(Debug)]
pub(super) struct Conn<S> {
    pub(super) link: Link,
    /// Gone as soon as the connection is closing.
    pub(super) session: Option<S>,
}

/// What the shard needs of a connection to read, write and end it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: TcpStream,
    /// What kind of bytes this connection wants of a publication.
    pub(super) form: u8,
    /// What is said on it is wrapped so.
    pub(super) framing: Framing,
    /// With which window that may be compressed, where permessage-deflate was agreed on: all that an
    /// idle connection has of it.
    pub(super) deflate: Option<Window>,
    pub(super) state: State,
    pub(super) flags: Flags,
    /// Unique for life; the slot may be somebody else's tomorrow.
    pub(super) number: u64,
    pub(super) decoder: Decoder,
    /// There while the socket is full.
    pub(super) outbox: Option<Box<Outbox>>,
    /// Bytes read and not yet looked at: the rest of a turn, or what came behind a command whose
    /// answer is awaited.
    #[expect(clippy::box_collection, reason = "most have none: 8 bytes each instead of 24")]
    pub(super) stash: Option<Box<Vec<u8>>>,
    /// When the session wants to be woken.
    pub(super) wake_s: u32,
    /// When a half-received message, or a close, has taken too long; `NEVER` while there is none.
    pub(super) deadline_s: u32,
    /// What the decoder and the stash held when the allowance was last told.
    pub(super) accounted: u32,
    /// Given back when the socket is closed, not before: invariant PAY-FIRST.
    pub(super) _permit: Permit,
    pub(super) _address: Option<Box<Held>>,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// The close frame is on its way or written; what the peer still says is ignored.
    Closing,
    /// The socket failed or was given up; the record goes at the end of the turn.
    Dead,
}

/// What holds for a connection just now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// The socket may have more to read: no event will say so again.
    pub(super) const READABLE: u16 = 1;
    /// Reading has stopped until an answer comes.
    pub(super) const WAITING: u16 = 1 << 1;
    /// It is in the list of those who go on in the next turn.
    pub(super) const READY: u16 = 1 << 2;
    /// Nothing is written before the bytes that [`super::Out::release`] puts first.
    pub(super) const HELD: u16 = 1 << 3;
    /// The peer has sent its close frame, or its end of the stream.
    pub(super) const PEER_CLOSED: u16 = 1 << 4;
    /// The session has more of a message to go through.
    pub(super) const MORE: u16 = 1 << 5;
    /// The peer will send nothing more.
    pub(super) const READ_CLOSED: u16 = 1 << 6;
    /// Closed as slow: what does not leave at once is not waited for.
    pub(super) const HURRIED: u16 = 1 << 7;
    /// The peer broke the protocol. RFC 6455 7.1.7: nothing that it says is processed any more,
    /// its close frame included.
    pub(super) const FAILED: u16 = 1 << 8;
    /// The peer's close frame has been answered with ours.
    pub(super) const ANSWERED: u16 = 1 << 9;
    /// Another process holds a duplicate of the socket.
    pub(super) const COPIED: u16 = 1 << 10;
    /// Nothing of it was read or written since it came from another process, which may take it
    /// back: see [`super::Crowd::touch`].
    pub(super) const UNTOUCHED: u16 = 1 << 11;
    /// Another process has been told of it, and of what it was then.
    pub(super) const TOLD: u16 = 1 << 12;
    /// It is in the list of those that another process is still to be told of, or told again.
    pub(super) const BEHIND: u16 = 1 << 13;
    /// What goes with the connection to another process. The numbers above are part of the state's
    /// format: none is ever given another meaning.
    pub(super) const MOVED: u16 = Self::READABLE
        | Self::WAITING
        | Self::HELD
        | Self::PEER_CLOSED
        | Self::MORE
        | Self::READ_CLOSED
        | Self::HURRIED
        | Self::FAILED
        | Self::ANSWERED;

    /// Those of `bits` that go with a connection.
    pub(super) fn moved(bits: u16) -> Self {
        Self(bits & Self::MOVED)
    }

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    /// Whether another process knows all of it.
    pub(super) fn is_told(self) -> bool {
        self.0 & (Self::TOLD | Self::BEHIND) == Self::TOLD
    }

    pub(super) fn set(&mut self, flag: u16) {
        self.0 |= flag;
    }

    pub(super) fn clear(&mut self, flag: u16) {
        self.0 &= !flag;
    }
}

/// Who is at the other end.
pub type Peer = SocketAddr;

/// Whether the process before this one still has duplicates of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witnessed {
    Yes,
    No,
}

/// Whether a socket is written to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Write,
    /// Everything is frozen: what is said waits in the outbox.
    Queue,
}

/// What became of bytes handed to a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket has them all.
    Written,
    /// Some or all wait in the outbox; so many bytes more than before.
    Queued(usize),
    /// The socket is broken.
    Failed,
}

impl Link {
    /// Forgets all that was said of it; its socket stays.
    pub(super) fn empty(&mut self) {
        let Self {
            socket: _,
            form,
            framing,
            deflate,
            state,
            flags,
            number: _,
            decoder,
            outbox,
            stash,
            wake_s,
            deadline_s,
            accounted,
            _permit: _,
            _address: address,
        } = self;
        (*form, *framing, *deflate, *state) = (0, Framing::WebSocket, None, State::Dead);
        (*flags, *decoder) = (Flags::default(), Decoder::new());
        (*outbox, *stash, *address) = (None, None, None);
        (*wake_s, *deadline_s, *accounted) = (super::NEVER, super::NEVER, 0);
    }

    /// Writes frames, or queues what the socket does not take; with [`Manner::Queue`] all of them.
    pub(super) fn send(
        &mut self,
        frames: &[u8],
        shared: impl FnOnce() -> Bytes,
        manner: Manner,
    ) -> Sent {
        if frames.is_empty() {
            return Sent::Written;
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.push(shared(), 0);
            return Sent::Queued(frames.len());
        }
        let written = if manner == Manner::Queue || self.flags.has(Flags::HELD) {
            0
        } else {
            match self.write(frames) {
                Ok(written) if written == frames.len() => return Sent::Written,
                Ok(written) => written,
                Err(_) => return Sent::Failed,
            }
        };
        let mut outbox = Box::<Outbox>::default();
        outbox.push(shared(), written);
        let queued = outbox.bytes();
        self.outbox = Some(outbox);
        Sent::Queued(queued)
    }

    /// One write; 0 when the socket is full.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        loop {
            // Without the C library between, whose send is a cancellation point with two
            // atomic operations on every call.
            match rustix::net::send(&self.socket, frames, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes on from the outbox. Returns the bytes that left it, also when the socket broke then.
    pub(super) fn flush(&mut self) -> (usize, io::Result<()>) {
        if self.flags.has(Flags::HELD) {
            return (0, Ok(()));
        }
        let Some(outbox) = &mut self.outbox else { return (0, Ok(())) };
        let before = outbox.bytes();
        let flushed = outbox.flush(&mut self.socket);
        let left = before - outbox.bytes();
        if matches!(flushed, Ok(Flushed::Empty)) {
            self.outbox = None;
        }
        (left, flushed.map(drop))
    }

    /// Whether nothing of it is under way: what most connections are at most times.
    pub(super) fn is_at_rest(&self) -> bool {
        self.state == State::Open
            && self.flags.bits() & Flags::MOVED == 0
            && self.outbox.is_none()
            && self.stash.is_none()
            && !self.decoder.is_partial()
    }

    /// Bytes waiting for the socket.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// All that the allowance was told of.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting_bytes() + self.accounted as usize
    }

    /// Whether its close is over when its socket is, with no close frame awaited.
    pub(super) fn is_deaf(&self) -> bool {
        self.framing.is_response() || self.flags.has(Flags::FAILED | Flags::HURRIED)
    }

    /// Goes through what a closing peer still says, for its close frame alone: breaking the
    /// protocol is no news any more.
    pub(super) fn hear_close(&mut self, mut input: &mut [u8], limits: MessageLimits) {
        if self.is_deaf() {
            return;
        }
        loop {
            let unread = self.deflate.map_or(Deflated::Refused, |_| Deflated::Unread);
            let Ok(step) = self.decoder.next_with(input, Role::Server, limits, unread) else {
                break;
            };
            let consumed = step.consumed;
            match step.event {
                None => break,
                Some(Event::Close(_)) => {
                    self.flags.set(Flags::PEER_CLOSED);
                    break;
                }
                Some(_) => input = &mut input[consumed..],
            }
        }
        self.decoder.release();
    }

    /// The next second in which the sweep has something to do here.
    pub(super) fn due_s(&self) -> u32 {
        self.wake_s.min(self.deadline_s)
    }

    /// The end of the connection, of which another process holds a duplicate: closing it here would
    /// say nothing to the peer.
    pub(super) fn end_copies(&self, witnessed: Witnessed) {
        // One that cannot be touched is left as it is for the other.
        if self.flags.has(Flags::UNTOUCHED) {
            return;
        }
        if witnessed == Witnessed::Yes || self.flags.has(Flags::COPIED) {
            // Fails only for a socket that is gone already.
            self.socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// Says that nothing more comes, and goes on reading: a socket closed with input unread is
    /// reset, and what it was still to send is lost.
    pub(super) fn end_writing(&self) {
        // Fails only for a socket that is gone already; its event tells.
        self.socket.shutdown(Shutdown::Write).ok();
    }

    /// Makes the kernel drop what it holds for this socket: closing it sends a reset.
    pub(super) fn reset(&self) {
        // Fails only for a socket that is gone already, which is what is wanted.
        socket2::SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO)).ok();
    }
}

/// A session that ended without the handler's doing, to be told at the end of the turn.
#[derive(Debug)]
pub(super) struct Fallen {
    pub(super) slot: u32,
    pub(super) number: u64,
    pub(super) why: Disconnect,
}
