//! What a network namespace has lost and refused since it began: `TcpExt` of `/proc/PID/net/netstat`.

use std::path::Path;

use crate::tree::Tree;

use super::FactError;

/// Counters that only grow; two readings tell whether it happens now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpLosses {
    /// Connections that came while an accept queue was full.
    pub listen_overflows: u64,
    /// Connections that were not taken by a listener, for this or another reason.
    pub listen_drops: u64,
    /// Requests beyond the SYN queue, answered by cookies, or dropped.
    pub syn_queue_cookies: u64,
    pub syn_queue_drops: u64,
    /// How often TCP had to save memory, and for how long.
    pub memory_pressures: u64,
    pub memory_pressure_ms: u64,
    /// Connections that were reset for lack of memory.
    pub aborted_on_memory: u64,
    /// Received data that was thrown away to save memory.
    pub pruned: u64,
    /// Connections in TIME_WAIT that were forgotten early, as there were too many.
    pub time_wait_overflows: u64,
}

impl TcpLosses {
    /// What came to these since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let gap = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            listen_overflows: gap(self.listen_overflows, earlier.listen_overflows),
            listen_drops: gap(self.listen_drops, earlier.listen_drops),
            syn_queue_cookies: gap(self.syn_queue_cookies, earlier.syn_queue_cookies),
            syn_queue_drops: gap(self.syn_queue_drops, earlier.syn_queue_drops),
            memory_pressures: gap(self.memory_pressures, earlier.memory_pressures),
            memory_pressure_ms: gap(self.memory_pressure_ms, earlier.memory_pressure_ms),
            aborted_on_memory: gap(self.aborted_on_memory, earlier.aborted_on_memory),
            pruned: gap(self.pruned, earlier.pruned),
            time_wait_overflows: gap(self.time_wait_overflows, earlier.time_wait_overflows),
        }
    }
}

/// Reads the losses of the network namespace in which a process is.
///
/// # Errors
/// When the process is gone, or the kernel does not count.
pub fn tcp_losses(tree: &Tree, pid: u32) -> Result<TcpLosses, FactError> {
    let path = format!("{pid}/net/netstat");
    let text = tree.read_proc(&path)?;
    let path = format!("/proc/{path}");
    parse_tcp_losses(&text).ok_or_else(|| FactError::unexpected(Path::new(&path), "TcpExt"))
}

/// Finds the counters in the text of `netstat`; one that an older kernel lacks is zero.
#[must_use]
pub fn parse_tcp_losses(text: &str) -> Option<TcpLosses> {
    // A line of names, then a line of values.
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let named = |wanted: &str| {
        let place = names.split_ascii_whitespace().position(|name| name == wanted)?;
        values.split_ascii_whitespace().nth(place)?.parse::<u64>().ok()
    };
    let value = |wanted: &str| named(wanted).unwrap_or_default();
    Some(TcpLosses {
        listen_overflows: named("ListenOverflows")?,
        listen_drops: value("ListenDrops"),
        syn_queue_cookies: value("TCPReqQFullDoCookies"),
        syn_queue_drops: value("TCPReqQFullDrop"),
        memory_pressures: value("TCPMemoryPressures"),
        memory_pressure_ms: value("TCPMemoryPressuresChrono"),
        aborted_on_memory: value("TCPAbortOnMemory"),
        pruned: value("PruneCalled"),
        time_wait_overflows: value("TCPTimeWaitOverflow"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "TcpExt: SyncookiesSent PruneCalled ListenOverflows ListenDrops TCPReqQFullDrop\n\
                        TcpExt: 1 2 188 190 5\n\
                        IpExt: InNoRoutes ListenOverflows\nIpExt: 0 7\n";

    #[test]
    fn values_stand_below_their_names() {
        let losses = parse_tcp_losses(TEXT).unwrap();
        assert_eq!((losses.listen_overflows, losses.listen_drops), (188, 190));
        assert_eq!((losses.pruned, losses.syn_queue_drops), (2, 5));
        assert_eq!(losses.memory_pressures, 0);
    }

    #[test]
    fn a_table_without_values_is_no_table() {
        assert_eq!(parse_tcp_losses("TcpExt: ListenOverflows\n"), None);
        assert_eq!(parse_tcp_losses("TcpExt: ListenOverflows\nTcpExt:\n"), None);
        assert_eq!(parse_tcp_losses("TcpExt: ListenOverflows\nTcpExt: many\n"), None);
        assert_eq!(parse_tcp_losses(""), None);
    }

    #[test]
    fn only_what_is_new_counts() {
        let now = parse_tcp_losses(TEXT).unwrap();
        let then = TcpLosses { listen_overflows: 100, pruned: 9, ..TcpLosses::default() };
        let new = now.since(&then);
        assert_eq!((new.listen_overflows, new.listen_drops, new.pruned), (88, 190, 0));
    }

    #[test]
    fn this_kernel_counts() {
        assert!(tcp_losses(&Tree::live(), std::process::id()).is_ok());
    }
}
