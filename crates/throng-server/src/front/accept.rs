//! The listeners, and the one place that sees the kernel refuse a descriptor.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Door, Front, drive};
use crate::log::line;

/// Connections that the kernel completes for us and keeps until we accept them. It takes less
/// where net.core.somaxconn says so.
const BACKLOG: i32 = 4096;
/// Bytes that the kernel holds unsent for one connection before its socket counts as full. With
/// the default, a stalled client swallows megabytes of kernel memory before any limit of ours is
/// seen.
const NOT_SENT_LOWAT_BYTES: u32 = 16 * 1024;
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

/// Accepts until told to stop.
pub(crate) async fn accept(
    front: Arc<Front>,
    listener: TcpListener,
    door: Door,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        // Invariant PAY-FIRST: accepting opens a descriptor.
        let visitor = tokio::select! {
            visitor = visitor(&front) => visitor,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        // The semaphore is never closed.
        let Some(visitor) = visitor else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                tokio::spawn(drive(Arc::clone(&front), socket, peer, door, visitor));
            }
            Err(error) if is_scarcity(&error) => {
                line!(
                    front.common.log,
                    Error,
                    "accept.paused",
                    "no connection can be accepted now: {}; accepting pauses",
                    error
                );
                tokio::time::sleep(SCARCITY_PAUSE).await;
            }
            // The client went away between its connecting and our accepting, or its network
            // failed (accept(2)); the next one is not touched by it.
            Err(_) => {}
        }
    }
}

/// A permit for one more HTTP connection; waits while there is none.
async fn visitor(front: &Front) -> Option<OwnedSemaphorePermit> {
    if front.visitors.available_permits() == 0 {
        line!(
            front.common.log,
            Warn,
            "visitors.full",
            "as many HTTP connections are open as there is room for; the next ones wait"
        );
    }
    Arc::clone(&front.visitors).acquire_owned().await.ok()
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
