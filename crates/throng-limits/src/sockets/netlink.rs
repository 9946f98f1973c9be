//! Asks the kernel for its sockets over `NETLINK_SOCK_DIAG`: the dialogue, not what is said in it.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// The kernel fills at most 32 KiB per datagram of a dump (`netlink_recvmsg`), whatever is offered.
const DATAGRAM_BYTES: usize = 64 << 10;
/// A dump is made while we read; only a kernel that is stuck lets us wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// BOUNDED: datagrams of one dump; 250 sockets each, so a hundred million sockets.
const DATAGRAMS_MAX: u32 = 400_000;

const HEADER_BYTES: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x1 | 0x300;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;

/// An open line to the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Line {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Line {
    /// Opens a line in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let (family, protocol) = (AddressFamily::NETLINK, Some(netlink::SOCK_DIAG));
        let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Self { fd, buffer: vec![0; DATAGRAM_BYTES], sequence: 0 })
    }

    /// Sends a request for many sockets, and gives each answer to `each`, until it has enough. A
    /// line whose dump was broken off is of no more use.
    pub(crate) fn dump(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.sequence += 1;
        let message = framed(request, self.sequence)?;
        send(&self.fd, &message, SendFlags::empty())?;
        for _ in 0..DATAGRAMS_MAX {
            let (_, length) = match recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            let datagram = self.buffer.get(..length).ok_or_else(|| garbled("a datagram"))?;
            if read_datagram(datagram, self.sequence, &mut each)?.is_break() {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel's list of sockets has no end"))
    }
}

/// Takes a datagram apart. Breaks at the end of the dump, or when `each` has enough.
fn read_datagram(
    mut datagram: &[u8],
    sequence: u32,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // BOUNDED: every round takes at least a header away.
    while !datagram.is_empty() {
        let (header, body, rest) = next(datagram).ok_or_else(|| garbled("a message"))?;
        datagram = rest;
        if header.sequence != sequence {
            continue;
        }
        match header.kind {
            DONE | ERROR => {
                // Both begin with a number: zero, or an error as the kernel counts them.
                let code = word(body, 0).map_or(0, u32::cast_signed);
                if code < 0 {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                return Ok(ControlFlow::Break(()));
            }
            BY_FAMILY if each(body).is_break() => return Ok(ControlFlow::Break(())),
            _ => {}
        }
    }
    Ok(ControlFlow::Continue(()))
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message of a datagram, and what follows it.
fn next(datagram: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(word(datagram, 0)?).ok()?;
    let body = datagram.get(HEADER_BYTES..length)?;
    let header = Header { kind: half(datagram, 4)?, sequence: word(datagram, 8)? };
    // The last message may lack its padding.
    let rest = datagram.get(aligned(length)..).unwrap_or_default();
    Some((header, body, rest))
}

fn framed(request: &[u8], sequence: u32) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEADER_BYTES + request.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the request is too long"))?;
    let mut message = Vec::with_capacity(HEADER_BYTES + request.len());
    message.extend(length.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(request);
    Ok(message)
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel sent {what} that is cut short"))
}

/// The attributes behind a message's fixed part, each with its type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Two bytes in the machine's order.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Four bytes in the machine's order.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// Netlink aligns everything to four bytes.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests;
