//! The states of a TCP socket, and how many there are in each.

use std::fmt;

/// A TCP state, numbered as the kernel numbers them (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    /// A connection request that waits for its third packet; it has no socket yet.
    Requested = 12,
    /// Bound to a port and neither connected nor listening: it takes the port away from others
    /// (Linux 6.8 tells).
    Bound = 13,
}

impl State {
    /// Every state, in the kernel's order.
    pub const ALL: [Self; 13] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Closed,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::Requested,
        Self::Bound,
    ];

    /// The state with the kernel's number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let place = usize::from(number).checked_sub(1)?;
        Self::ALL.get(place).copied()
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The bit of this state in the masks of `sock_diag`.
    #[must_use]
    pub fn bit(self) -> u32 {
        1 << self.number()
    }

    /// The word that `netstat` prints, which is what people search for.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived | Self::Requested => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Bound => "BOUND",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// How many sockets are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States([u32; State::ALL.len()]);

impl States {
    /// Counts one socket.
    pub fn add(&mut self, state: State) {
        let count = &mut self.0[usize::from(state.number()) - 1];
        *count = count.saturating_add(1);
    }

    /// How many are in a state.
    #[must_use]
    pub fn get(&self, state: State) -> u32 {
        self.0[usize::from(state.number()) - 1]
    }

    /// How many there are in all states together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The states that occur, those with the most sockets first.
    #[must_use]
    pub fn ranked(&self) -> Vec<(State, u32)> {
        let mut ranked: Vec<_> = State::ALL.map(|state| (state, self.get(state))).to_vec();
        ranked.retain(|(_, count)| *count > 0);
        // Stable: of equal ones the kernel's order.
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(State::from_number(1), Some(State::Established));
        assert_eq!(State::from_number(10), Some(State::Listen));
        assert_eq!(State::from_number(0), None);
        assert_eq!(State::from_number(14), None);
        for state in State::ALL {
            assert_eq!(State::from_number(state.number()), Some(state));
        }
    }

    #[test]
    fn the_commonest_state_comes_first() {
        let mut states = States::default();
        for state in [State::Listen, State::CloseWait, State::CloseWait] {
            states.add(state);
        }
        assert_eq!(states.total(), 3);
        assert_eq!(states.get(State::Established), 0);
        assert_eq!(states.ranked(), [(State::CloseWait, 2), (State::Listen, 1)]);
    }
}
