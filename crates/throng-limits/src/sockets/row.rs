//! One TCP or UDP socket as the kernel lists it, however it was asked.

use std::net::SocketAddr;

use super::state::State;

/// One line of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub state: State,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub timer: Timer,
    /// Bytes that wait to be read; of a listener, connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes that wait for the peer; of a listener, how many connections may wait. The text of
    /// `/proc/net/tcp` has zero there.
    pub send_queue: u32,
    pub uid: u32,
    /// Zero where no process holds it any more.
    pub inode: u32,
}

/// What the kernel waits for on a socket's behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    None,
    /// The peer has not acknowledged what was sent.
    Retransmit,
    /// `SO_KEEPALIVE` is on, and nothing else is waited for.
    KeepAlive,
    TimeWait,
    /// The peer's window is full.
    Probe,
    Other(u8),
}

impl Timer {
    /// As in `tr` of `/proc/net/tcp` and in `idiag_timer`.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Retransmit,
            2 => Self::KeepAlive,
            3 => Self::TimeWait,
            4 => Self::Probe,
            other => Self::Other(other),
        }
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Retransmit => 1,
            Self::KeepAlive => 2,
            Self::TimeWait => 3,
            Self::Probe => 4,
            Self::Other(other) => other,
        }
    }
}
