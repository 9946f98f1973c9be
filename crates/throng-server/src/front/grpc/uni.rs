//! Clients over gRPC that only listen: `CentrifugoUniStream.Consume`.
//!
//! Their sessions live in shards like all others. A stream of HTTP/2 is no socket, so a shard has
//! one end of a pair of sockets, on which it says Protobuf behind lengths, and a [`Bridge`] carries
//! that from the other end into the stream. What is slow there fills the pair, and is seen by the
//! shard as by any other client. At a restart the shard's end moves and the bridge does not: such
//! clients are closed at a pace, and come back.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use hyper::body::{Frame, Incoming};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use socket2::SockRef;
use throng_limits::{Lane, Permit};
use throng_wire::dialect;
use throng_wire::framing::Framing;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

use super::Calls;
use crate::front::Front;
use crate::front::address::{ClientAddress, ToldBy};
use crate::front::refuse;
use crate::front::upgrade::{arrived, for_backends, is_wanted};
use crate::grpc::frame::HEAD;
use crate::grpc::status::{Code, Status};
use crate::grpc::unistream;
use crate::rng::secret_uuid;
use crate::session::{Kind, Open};
use crate::shard::{Adopt, Post};

/// Bytes that the kernel takes for a client of which the bridge has taken nothing: about as many as
/// a socket holds unsent.
const PAIR_BYTES: usize = 16 * 1024;
/// Bytes that are carried at once.
const CARRIED_BYTES: usize = 16 * 1024;

/// Lets a client in, or says why not.
pub(super) async fn consume(
    calls: &Arc<Calls>,
    request: Request<Incoming>,
) -> Result<Bridge, Status> {
    let (head, body) = request.into_parts();
    let front = &calls.front;
    let settings = front.settings();
    let Some(rpc) = unistream().called(head.uri.path()) else {
        let what = "there is no such method; there is \
                    /centrifugal.centrifugo.unistream.CentrifugoUniStream/Consume";
        return Err(Status::new(Code::Unimplemented, what));
    };
    let Some(options) = &settings.uni_grpc else { return Err(unavailable("switched off")) };
    let message = super::message(body, options.message_max).await?;
    let wrong = |what: String| Status::new(Code::InvalidArgument, what);
    let connect = unistream()
        .to_json(rpc.request, &message)
        .map_err(|why| wrong(format!("the connect request {why}")))?;
    if let Err(malformed) = dialect::connect_request(&connect) {
        return Err(wrong(format!("the connect request is not readable: {malformed}")));
    }
    let address = calls.from.of_request(&settings.proxies, &head.headers);
    match enter(calls, &head.headers, (address, connect.into())).await {
        Ok(bridge) => {
            calls.holds_client.notify_one();
            Ok(bridge)
        }
        Err(words) => {
            refuse::remember(front, address.ip, 503, words);
            Err(unavailable(words))
        }
    }
}

/// Who is told so comes back.
fn unavailable(words: &str) -> Status {
    Status::new(Code::Unavailable, words)
}

/// Gives the client to a shard; the error is why it is not let in.
async fn enter(
    calls: &Calls,
    headers: &HeaderMap,
    (address, connect): (ClientAddress, Bytes),
) -> Result<Bridge, &'static str> {
    let front = &calls.front;
    is_wanted(front)?;
    let held = match (address.told_by, calls.seat.take_address()) {
        // Counted since the connection was accepted.
        (ToldBy::Socket | ToldBy::ProxyProtocol, Some(held)) => Ok(Some(held)),
        // One more client of a connection, or one whose connection is a proxy's.
        _ => front.admit_address(address.ip),
    };
    let held = held.map_err(|of| refuse::too_many(front, address.ip, of))?;
    // Invariant PAY-FIRST: two descriptors are opened for it.
    let full = || {
        front.gate.refused.fetch_add(1, Ordering::Relaxed);
        refuse::say_full(front);
        refuse::FULL
    };
    let permit = front.clients.try_client().ok_or_else(full)?;
    let bridges = front.clients.try_take(Lane::Bridges).ok_or_else(full)?;
    let session = secret_uuid().map_err(|_| "the system has no randomness")?;
    let (near, far) = pair().map_err(|_| refuse::FULL)?;
    // Who comes while everything moves finds the process that serves with the next connection.
    let Ok(_pass) = front.common.pause.enter().await else { return Err("the server is stopping") };
    arrived(front, address.ip, calls.peer);
    let headers = for_backends(headers, &front.settings().backends.grpc_metadata);
    let open = Open {
        kind: Kind::Unidirectional,
        native_ping: false,
        user: None,
        session: Some(session),
        connect: Some(connect),
        address,
        headers,
        no_cookie: None,
        head: None,
    };
    let adopt = Adopt {
        socket: far.into(),
        permit,
        address: held,
        head: Bytes::new(),
        framing: Framing::Lengths,
        deflate: None,
        read_ahead: Bytes::new(),
        number: front.number(),
        open,
    };
    let shard = front.next_shard();
    if let Some(mailbox) = front.common.shards.get(shard) {
        mailbox.post(Post::Adopt(Box::new(adopt)));
    }
    Ok(Bridge::over(near, bridges, front))
}

/// Two sockets that are connected to each other; a shard gets the second.
fn pair() -> std::io::Result<(UnixStream, OwnedFd)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // What cannot be set holds more, and is a client of more memory.
    SockRef::from(&far).set_send_buffer_size(PAIR_BYTES).ok();
    Ok((UnixStream::from_std(near.into())?, far))
}

/// Carries what a shard says into a stream.
pub(super) struct Bridge {
    socket: UnixStream,
    /// Read and not understood yet: less than a length.
    begun: BytesMut,
    /// Of the message that is being carried, what has not come.
    left: u64,
    is_over: bool,
    front: Arc<Front>,
    _permit: Permit,
}

impl Bridge {
    fn over(socket: UnixStream, permit: Permit, front: &Arc<Front>) -> Self {
        front.gate.bridged.fetch_add(1, Ordering::Relaxed);
        let (begun, front) = (BytesMut::new(), Arc::clone(front));
        Self { socket, begun, left: 0, is_over: false, front, _permit: permit }
    }

    /// What goes into the stream next.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut buffer = [0; CARRIED_BYTES];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            let come = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read));
            let is_end = come.is_err() || read.filled().is_empty();
            if is_end {
                self.is_over = true;
                return Poll::Ready(Some(Frame::trailers(self.end().trailers())));
            }
            let Ok(carried) = self.carry(read.filled()) else {
                self.is_over = true;
                let status = Status::new(Code::Internal, "a bug: a message without a length");
                return Poll::Ready(Some(Frame::trailers(status.trailers())));
            };
            if !carried.is_empty() {
                return Poll::Ready(Some(Frame::data(carried)));
            }
        }
    }

    /// A session says farewell before it ends; whoever hears none comes back.
    fn end(&self) -> Status {
        if self.left == 0 && self.begun.is_empty() { Status::OK } else { unavailable("cut off") }
    }

    /// Puts gRPC's heads in the place of lengths.
    fn carry(&mut self, come: &[u8]) -> Result<Bytes, TooLong> {
        let mut out = BytesMut::with_capacity(come.len() + 16 * HEAD);
        self.begun.extend_from_slice(come);
        while !self.begun.is_empty() {
            if self.left == 0 {
                let Some((len, size)) = length(&self.begun)? else { break };
                self.begun.advance(size);
                out.put_u8(0);
                out.put_u32(len);
                self.left = len.into();
            }
            let more = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.begun.len());
            out.put_slice(&self.begun[..more]);
            self.begun.advance(more);
            self.left -= more as u64;
        }
        if self.begun.is_empty() {
            // Nothing is kept for one that is quiet.
            self.begun = BytesMut::new();
        }
        Ok(out.freeze())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.front.gate.bridged.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A length that no message has.
struct TooLong;

/// A message's length and how many bytes say it; none: not all of them are there.
fn length(bytes: &[u8]) -> Result<Option<(u32, usize)>, TooLong> {
    let mut len = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return u32::try_from(len).map(|len| Some((len, at + 1))).map_err(|_| TooLong);
        }
        // Five groups of seven bits are more than 32.
        if at == 4 {
            return Err(TooLong);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_whole_or_waited_for() {
        let read = |bytes: &[u8]| length(bytes).ok();
        assert_eq!(read(b"\0"), Some(Some((0, 1))));
        assert_eq!(read(b"\x80\x01x"), Some(Some((128, 2))));
        assert_eq!(read(b"\x80"), Some(None));
        assert_eq!(read(b""), Some(None));
        assert_eq!(read(b"\xff\xff\xff\xff\x0f"), Some(Some((u32::MAX, 5))));
        assert_eq!(read(b"\xff\xff\xff\xff\x1f"), None);
        assert_eq!(read(&[0xff; 10]), None);
    }
}
