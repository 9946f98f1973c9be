//! How long the kernel lets a listener's queue of connections become: what it really granted, which
//! `net.core.somaxconn` and the moment of `listen` decided together.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::fstat;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::FactError;

/// The kernel answers a question about sockets at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of one part of an answer: the kernel fills at most a page or two.
const PART_BYTES: usize = 32 * 1024;
/// Parts that are read: of one port's listeners there are few.
const PARTS_MAX: usize = 16;

// netlink(7), sock_diag(7).
const HEADER_BYTES: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const TCP: u8 = 6;
const LISTENING: u32 = 1 << 10;
/// Of a row, after the header: where a listener's queue and its bound are, and the inode.
const WAITING_AT: usize = 56;
const BACKLOG_AT: usize = 60;
const INODE_AT: usize = 68;

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
pub fn accept_queue(listener: &impl AsFd, address: SocketAddr) -> Result<AcceptQueue, FactError> {
    let path = Path::new("sock_diag");
    let unreadable = |error: io::Error| FactError::unreadable(path, error);
    let inode = fstat(listener).map_err(|error| unreadable(error.into()))?.st_ino;
    ask(address, inode)
        .map_err(unreadable)?
        .ok_or_else(|| FactError::unexpected(path, "row of the listener"))
}

fn ask(address: SocketAddr, inode: u64) -> io::Result<Option<AcceptQueue>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &request(address), SendFlags::empty())?;
    let mut part = vec![0; PART_BYTES];
    for _ in 0..PARTS_MAX {
        let (count, _) = recv(&socket, &mut part[..], RecvFlags::empty())?;
        match find(&part[..count], inode) {
            Found::Queue(queue) => return Ok(Some(queue)),
            Found::End => break,
            Found::MoreToCome => {}
        }
    }
    Ok(None)
}

/// All listeners on a port, of one family.
fn request(address: SocketAddr) -> [u8; 72] {
    let mut bytes = [0; 72];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    bytes[16] = u8::try_from(family.as_raw()).unwrap_or_default();
    bytes[17] = TCP;
    bytes[20..24].copy_from_slice(&LISTENING.to_ne_bytes());
    bytes[24..26].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// What one part of the answer holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Queue(AcceptQueue),
    End,
    MoreToCome,
}

/// Finds the row of a socket in one part of the kernel's answer.
fn find(part: &[u8], inode: u64) -> Found {
    let mut rest = part;
    while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(row) = rest.get(HEADER_BYTES..length) else { return Found::End };
        match kind {
            SOCK_DIAG_BY_FAMILY => {
                let numbers =
                    (u32_at(row, INODE_AT), u32_at(row, WAITING_AT), u32_at(row, BACKLOG_AT));
                if let (Some(row_inode), Some(waiting), Some(backlog)) = numbers
                    && u64::from(row_inode) == inode
                {
                    return Found::Queue(AcceptQueue { waiting, backlog });
                }
            }
            DONE | ERROR => return Found::End,
            _ => {}
        }
        // Rows begin at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Found::MoreToCome
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn row(inode: u32, waiting: u32, backlog: u32) -> Vec<u8> {
        let mut row = vec![0; HEADER_BYTES + 72];
        row[0..4].copy_from_slice(&88_u32.to_ne_bytes());
        row[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for (at, number) in [(WAITING_AT, waiting), (BACKLOG_AT, backlog), (INODE_AT, inode)] {
            row[HEADER_BYTES + at..][..4].copy_from_slice(&number.to_ne_bytes());
        }
        row
    }

    fn end(kind: u16) -> Vec<u8> {
        let mut end = vec![0; 20];
        end[0..4].copy_from_slice(&20_u32.to_ne_bytes());
        end[4..6].copy_from_slice(&kind.to_ne_bytes());
        end
    }

    #[test]
    fn a_listeners_row_is_found_by_its_inode() {
        let part = [row(7, 1, 128), row(8, 2, 4096), end(DONE)].concat();
        assert_eq!(find(&part, 8), Found::Queue(AcceptQueue { waiting: 2, backlog: 4096 }));
        assert_eq!(find(&part, 9), Found::End);
        assert_eq!(find(&row(7, 1, 128), 9), Found::MoreToCome);
        assert_eq!(find(&end(ERROR), 7), Found::End);
    }

    #[test]
    fn a_part_that_breaks_off_or_lies_about_its_length_ends_the_search() {
        let whole = row(7, 1, 128);
        for end in 0..whole.len() {
            assert!(!matches!(find(&whole[..end], 7), Found::Queue(_)), "{end}");
        }
        for length in [0, 3, 15, u32::MAX] {
            let mut wrong = whole.clone();
            wrong[0..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(find(&wrong, 7), Found::End, "{length}");
        }
    }

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
}
