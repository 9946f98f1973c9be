//! TCP and UDP sockets in the words of `sock_diag`: what is asked, and what is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{attributes, word};
use super::row::{Row, Timer};
use super::silence::Spoken;
use super::state::State;

/// `IPPROTO_TCP`
pub(crate) const TCP: u16 = 6;
/// `IPPROTO_UDP`
pub(crate) const UDP: u16 = 17;
/// `IPPROTO_RAW`: raw sockets of all protocols.
pub(crate) const RAW: u16 = 255;
/// `IPPROTO_MPTCP`: what servers in Go listen with, among others.
pub(crate) const MPTCP: u16 = 262;

/// `AF_INET` and `AF_INET6`: a dump gives those of one family.
pub(crate) const FAMILIES: [u8; 2] = [V4, V6];
pub(crate) const V4: u8 = 2;
const V6: u8 = 10;

/// BOUNDED: ports in one filter. The kernel checks the program in quadratic time, and runs it for
/// every socket: past some dozen, looking at all is cheaper.
pub(crate) const FILTER_PORTS_MAX: usize = 32;

/// `INET_DIAG_REQ_BYTECODE`
const BYTECODE: u16 = 1;
/// `INET_DIAG_REQ_PROTOCOL`: a protocol that does not fit into a byte.
const PROTOCOL: u16 = 3;
/// `INET_DIAG_INFO`, and its bit in a request.
const INFO: u16 = 2;
const INFO_BIT: u8 = 1 << (INFO - 1);
/// `INET_DIAG_BC_JMP`
const JUMP: u8 = 1;
/// `INET_DIAG_BC_S_EQ` (Linux 4.16)
const LOCAL_PORT_IS: u8 = 11;

/// Bytes of `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) family: u8,
    pub(crate) protocol: u16,
    /// Bits of [`State`].
    pub(crate) states: u32,
    /// Only sockets with one of these local ports; all, when there are none.
    pub(crate) local_ports: &'a [u16],
    /// Whether the kernel's `tcp_info` is wanted, too.
    pub(crate) info: bool,
}

impl<'a> Question<'a> {
    /// What came to listeners of these ports. No process holds what is in TIME_WAIT.
    pub(crate) fn behind(family: u8, local_ports: &'a [u16]) -> Self {
        let states = !(State::Listen.bit() | State::TimeWait.bit() | State::Bound.bit());
        Question { family, states, local_ports, ..Question::all(TCP) }
    }

    /// Everything there is of a protocol, of the first family.
    pub(crate) fn all(protocol: u16) -> Self {
        Self { family: V4, protocol, states: u32::MAX, local_ports: &[], info: false }
    }

    /// The request: `struct inet_diag_req_v2`, and the rest as attributes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ext = if self.info { INFO_BIT } else { 0 };
        let protocol = u8::try_from(self.protocol).unwrap_or_default();
        let mut request = vec![self.family, protocol, ext, 0];
        request.extend(self.states.to_ne_bytes());
        // One port is compared before anything else is done with a socket; more take a program.
        let port = if let [port] = self.local_ports { *port } else { 0 };
        request.extend(port.to_be_bytes());
        request.extend([0; 46]);
        if protocol == 0 {
            attach(&mut request, PROTOCOL, &u32::from(self.protocol).to_ne_bytes());
        }
        if self.local_ports.len() > 1 {
            attach(&mut request, BYTECODE, &filter(self.local_ports));
        }
        request
    }
}

/// Appends an attribute; all of ours are multiples of four bytes, which is how they are aligned.
fn attach(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
}

/// A program that accepts a socket whose local port is one of these: empty for none.
///
/// Operations are four bytes: what, how far on when it holds, how far on when not. Whoever lands
/// exactly at the end is accepted, whoever lands behind it is not.
fn filter(ports: &[u16]) -> Vec<u8> {
    const TEST: u16 = 8;
    const LEAP: u16 = 4;
    let mut program = Vec::new();
    let Some((last, others)) = ports.split_last() else { return program };
    let mut ahead = u16::try_from(others.len()).unwrap_or(u16::MAX).saturating_mul(TEST + LEAP);
    for port in others {
        ahead = ahead.saturating_sub(TEST + LEAP);
        // It holds: the leap behind, which goes to the end. If not: the test behind that.
        push(&mut program, LOCAL_PORT_IS, 8, TEST + LEAP);
        push(&mut program, 0, 0, *port);
        push(&mut program, JUMP, 4, LEAP + ahead + TEST);
    }
    push(&mut program, LOCAL_PORT_IS, 8, TEST + LEAP);
    push(&mut program, 0, 0, *last);
    program
}

fn push(program: &mut Vec<u8>, code: u8, yes: u8, no: u16) {
    program.extend([code, yes]);
    program.extend(no.to_ne_bytes());
}

/// A message as a row; none when it is cut short, or of a kind we do not know.
pub(crate) fn row(message: &[u8]) -> Option<Row> {
    let fixed: &[u8; MESSAGE_BYTES] = message.first_chunk()?;
    Some(Row {
        state: State::from_number(fixed[1])?,
        local: address(fixed, 4, 8)?,
        peer: address(fixed, 6, 24)?,
        timer: Timer::from_number(fixed[2]),
        receive_queue: word(fixed, 56)?,
        send_queue: word(fixed, 60)?,
        uid: word(fixed, 64)?,
        inode: word(fixed, 68)?,
    })
}

/// When a socket last spoke and heard, from the `tcp_info` behind a message.
pub(crate) fn spoken(message: &[u8]) -> Option<Spoken> {
    let info = attributes(message.get(MESSAGE_BYTES..)?).find(|(kind, _)| *kind == INFO)?.1;
    // struct tcp_info: eight bytes of flags, then words, then longs.
    let received = info.get(128..136).and_then(|bytes| bytes.first_chunk());
    Some(Spoken {
        unacked: word(info, 24)?,
        sent_ms: word(info, 44)?,
        received_ms: word(info, 52)?,
        heard_ms: word(info, 56)?,
        bytes_received: received.map(|bytes| u64::from_ne_bytes(*bytes)),
    })
}

fn address(fixed: &[u8; MESSAGE_BYTES], port_at: usize, ip_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*fixed.get(port_at..)?.first_chunk()?);
    let ip = match fixed[0] {
        V4 => IpAddr::V4(Ipv4Addr::from(*fixed.get(ip_at..)?.first_chunk::<4>()?)),
        V6 => IpAddr::V6(Ipv6Addr::from(*fixed.get(ip_at..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    // A client of IPv4 at a listener of IPv6 is the same client.
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests;
