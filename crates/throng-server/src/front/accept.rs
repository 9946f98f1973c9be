//! The listeners, and the one place that sees the kernel refuse a descriptor.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::gate::{Visitor, reset};
use super::{Door, Front, drive, grpc, refuse};
use crate::log::line;

/// Connections that the kernel completes for us and keeps until we accept them. It takes less
/// where net.core.somaxconn says so.
pub(crate) const BACKLOG: i32 = 4096;
/// Bytes that the kernel holds unsent for one connection before its socket counts as full. With
/// the default, a stalled client swallows megabytes of kernel memory before any limit of ours is
/// seen.
const NOT_SENT_LOWAT_BYTES: u32 = 16 * 1024;
/// Connections that are accepted before those that were have their turn.
const IN_A_ROW_MAX: usize = 64;
/// How long those who come are let gather where the ones before were refused. Meanwhile their
/// requests arrive, so that each of them costs no more than being accepted and told; and the API's
/// answer comes only so much later.
const GATHER: Duration = Duration::from_millis(2);
/// How long accepting pauses when no descriptor or memory is to be had: the listener stays
/// readable meanwhile, so without a pause the loop would spin.
const SCARCITY_PAUSE: Duration = Duration::from_millis(100);

/// Opens a listener. Its options are inherited by what it accepts, so that no connection pays a
/// system call for them.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` is every address, the IPv4 ones too.
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    set_not_sent_lowat(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn set_not_sent_lowat(socket: &Socket) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(NOT_SENT_LOWAT_BYTES)
}

/// The address that an option names; empty is every address of the machine.
///
/// # Errors
/// When it is no address and no name of one.
pub(crate) fn address_of(address: &str, port: u16) -> io::Result<SocketAddr> {
    if address.is_empty() {
        return Ok(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)));
    }
    (address, port).to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// A listener that is waited on without accepting: a place is made only for who is there.
pub(crate) type Listener = AsyncFd<Arc<std::net::TcpListener>>;

/// Makes a listener one that can be waited on.
///
/// # Errors
/// When the event queue is full.
#[expect(
    deprecated,
    reason = "the constructors that replace it are unsafe, for types that do not keep their \
              descriptor; std's listener does, and is owned here until it is taken off the queue"
)]
pub(crate) fn watched(listener: Arc<std::net::TcpListener>) -> io::Result<Listener> {
    Listener::with_interest(listener, Interest::READABLE)
}

/// Accepts until told to stop.
pub(crate) async fn accept(
    front: Arc<Front>,
    listener: Listener,
    door: Door,
    mut stop: watch::Receiver<bool>,
) {
    let mut spare = Spare::open();
    let mut refusing = false;
    loop {
        let mut ready = tokio::select! {
            // It fails only with the runtime.
            ready = listener.readable() => match ready { Ok(ready) => ready, Err(_) => return },
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if std::mem::take(&mut refusing) {
            tokio::time::sleep(GATHER).await;
        }
        // While everything is frozen, who comes waits with the kernel; afterwards it is the other
        // process that accepts, if there is one.
        if front.common.pause.enter().await.is_err() {
            return;
        }
        for _ in 0..IN_A_ROW_MAX {
            let visitor = match front.gate.try_enter() {
                Some(visitor) => Some(visitor),
                None if !is_waiting(listener.get_ref()) => {
                    ready.clear_ready();
                    break;
                }
                None => tokio::select! {
                    visitor = front.gate.enter() => visitor,
                    _ = stop.wait_for(|stop| *stop) => return,
                },
            };
            match next(listener.get_ref(), visitor, &mut spare) {
                Ok((socket, peer, Some(visitor))) => {
                    refusing |= receive(&front, socket, peer, door, visitor);
                }
                Ok((socket, _, None)) => turn_away(&front, &socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(error) if is_scarcity(&error) => {
                    scarce(&front, listener.get_ref(), &mut spare, &error).await;
                }
                // The client went away between its connecting and our accepting, or its network
                // failed (accept(2)); the next one is not touched by it.
                Err(_) => {}
            }
            spare.reopen();
        }
        // Those who were accepted have their turn.
        tokio::task::yield_now().await;
    }
}

/// Sees to whoever was accepted. Whether it was one of those who are refused.
fn receive(
    front: &Arc<Front>,
    socket: std::net::TcpStream,
    peer: SocketAddr,
    door: Door,
    visitor: Visitor,
) -> bool {
    visitor.busy();
    // How clients are refused is a matter of HTTP/1.1; gRPC says it as a status.
    let is_refusing = door.speaks_http1() && refuse::turns_away(front);
    let waiting = if is_refusing {
        refuse::at_once(front, socket, peer, door, &visitor)
    } else {
        Some(socket)
    };
    // An event queue that is full takes nobody; the client is told so by the end of its connection.
    let Some(Ok(socket)) = waiting.map(TcpStream::from_std) else { return is_refusing };
    let front = Arc::clone(front);
    if is_refusing {
        tokio::spawn(refuse::receive(front, socket, peer, door, visitor));
    } else {
        visitor.is_served();
        if door.speaks_http1() {
            tokio::spawn(drive(front, socket, peer, door, visitor));
        } else {
            tokio::spawn(grpc::drive(front, socket, peer, (door, visitor)));
        }
    }
    is_refusing
}

/// The next connection, on its visitor's permit or on the spare descriptor.
fn next(
    listener: &std::net::TcpListener,
    visitor: Option<Visitor>,
    spare: &mut Spare,
) -> io::Result<(std::net::TcpStream, SocketAddr, Option<Visitor>)> {
    // Invariant PAY-FIRST: accepting opens a descriptor.
    if visitor.is_none() {
        spare.close();
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket.into(), peer, visitor))
}

/// Whether somebody waits to be accepted.
fn is_waiting(listener: &std::net::TcpListener) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    // What cannot be polled is tried.
    poll(&mut polled, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// What is left when the budget was wrong, because someone lowered the limit or the machine has
/// no files left: whoever waits is reset rather than left hanging.
async fn scarce(
    front: &Front,
    listener: &std::net::TcpListener,
    spare: &mut Spare,
    error: &io::Error,
) {
    line!(
        front.common.log,
        Error,
        "accept.paused",
        "no connection can be accepted now, those who come are reset: {}; raise the limit of this process (prlimit --pid {} --nofile=N works at once)",
        error,
        std::process::id()
    );
    if spare.close()
        && let Ok((socket, ..)) = next(listener, None, spare)
    {
        turn_away(front, &socket);
        return;
    }
    tokio::time::sleep(SCARCITY_PAUSE).await;
}

fn turn_away(front: &Front, socket: &std::net::TcpStream) {
    let so_far = front.gate.reset.fetch_add(1, Ordering::Relaxed) + 1;
    if front.gate.may_say_reset() {
        line!(
            front.common.log,
            Warn,
            "front.full",
            "connections are reset: as many requests are being answered as there is room for";
            reset = so_far
        );
    }
    reset(socket);
}

/// A descriptor that is held for nothing but to be given up for somebody who is turned away.
struct Spare(Option<File>);

impl Spare {
    fn open() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Whether there was one to give up.
    fn close(&mut self) -> bool {
        self.0.take().is_some()
    }

    fn reopen(&mut self) {
        if self.0.is_none() {
            *self = Self::open();
        }
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: not this connection's fault, and not over with the next try.
fn is_scarcity(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
            .iter()
            .any(|errno| errno.raw_os_error() == code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_inherits_the_listeners_options() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), NOT_SENT_LOWAT_BYTES);
        drop(client);
    }
}
