//! How long the kernel lets a listener's queue of connections become: what it really granted, which
//! `net.core.somaxconn` and the moment of `listen` decided together.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::fs::fstat;

use super::inet::{self, FAMILIES, Question, TCP};
use super::netlink::Line;
use super::state::State;

/// A listener's queue of connections that are not accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many wait now.
    pub waiting: u32,
    /// How many may.
    pub backlog: u32,
}

/// Asks the kernel for a listener's queue.
///
/// # Errors
/// When the kernel does not answer such questions, or does not know the socket.
pub fn accept_queue(listener: &impl AsFd, address: SocketAddr) -> io::Result<AcceptQueue> {
    let inode = u32::try_from(fstat(listener)?.st_ino).map_err(io::Error::other)?;
    let [v4, v6] = FAMILIES;
    let question = Question {
        family: if address.is_ipv4() { v4 } else { v6 },
        states: State::Listen.bit(),
        local_ports: &[address.port()],
        ..Question::all(TCP)
    };
    let mut queue = None;
    Line::open()?.dump(&question.encode(), |message| match inet::row(message) {
        Some(row) if row.inode == inode => {
            queue = Some(AcceptQueue { waiting: row.receive_queue, backlog: row.send_queue });
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    queue.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn this_kernel_says_what_it_granted_and_who_waits() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no `::1`.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            let _waiting = TcpStream::connect(address).unwrap();
            let queue = accept_queue(&listener, address).unwrap();
            assert!(queue.backlog >= 1 && queue.waiting == 1, "{queue:?}");
            // rustix's listen is another call on the same socket, which shortens its queue.
            rustix::net::listen(&listener, 5).unwrap();
            assert_eq!(accept_queue(&listener, address).unwrap().backlog, 5);
        }
    }

    #[test]
    fn what_does_not_listen_has_no_queue() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let error = accept_queue(&socket, address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
