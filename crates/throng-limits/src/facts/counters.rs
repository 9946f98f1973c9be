//! What the kernel counts and allows in the network: queues, ports, memory, conntrack.

use super::netstat::{TcpLosses, tcp_losses};
use super::sockstat::{tcp_memory, tcp_sockets};
use crate::sockets::Namespace;
use crate::tree::Tree;

/// Bytes of a page, in which TCP's memory is counted, on every architecture throng is built for.
pub const PAGE_BYTES: u64 = 4096;

/// What holds in one network namespace; what could not be read is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub somaxconn: Option<u64>,
    pub syn_backlog: Option<u64>,
    pub syn_cookies: Option<u64>,
    pub ports: Option<PortRange>,
    pub tcp_memory: Option<TcpMemory>,
    pub conntrack: Option<Conntrack>,
    /// Closed connections that still send: `net.ipv4.tcp_max_orphans`.
    pub orphans: Option<Quota>,
    /// Connections in TIME_WAIT: `net.ipv4.tcp_max_tw_buckets`.
    pub time_wait: Option<Quota>,
    /// Machines of the local network whose addresses are known: `gc_thresh3` of IPv4.
    pub neighbours: Option<Quota>,
    pub lost: TcpLosses,
}

/// `net.ipv4.ip_local_port_range`, less what is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
    pub reserved: u64,
}

/// Memory of all TCP sockets, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpMemory {
    pub used: u64,
    /// From here on buffers shrink.
    pub pressure: u64,
    /// From here on sockets die.
    pub max: u64,
    /// TCP sockets there are.
    pub sockets: u64,
    pub orphans: u64,
}

/// How many there are of something, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub count: u64,
    pub max: u64,
}

/// The table of connections that the firewall follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    pub count: u64,
    pub max: u64,
}

impl PortRange {
    /// Ports that one source has for one target.
    #[must_use]
    pub fn size(self) -> u64 {
        let all = u64::from(self.last.saturating_sub(self.first)) + 1;
        all.saturating_sub(self.reserved)
    }
}

impl Network {
    /// Reads what holds where a process is.
    #[must_use]
    pub fn read(tree: &Tree, pid: u32, namespace: &Namespace) -> Self {
        let text = |name: &str| namespace.setting(tree, name).ok();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let reserved = text("ipv4/ip_local_reserved_ports").unwrap_or_default();
        let ports = text("ipv4/ip_local_port_range");
        let memory = tcp_memory(tree).ok().zip(tcp_sockets(tree, pid).ok());
        let count = number("netfilter/nf_conntrack_count");
        let quota = |count: Option<u64>, name: &str| {
            let (count, max) = count.zip(number(name))?;
            Some(Quota { count, max })
        };
        let sockets = memory.as_ref().map(|(_, sockets)| sockets);
        // A heading, and a line for each.
        let arp = tree.read_proc(&format!("{pid}/net/arp")).ok();
        let neighbours = arp.and_then(|text| u64::try_from(text.lines().skip(1).count()).ok());
        Self {
            somaxconn: number("core/somaxconn"),
            syn_backlog: number("ipv4/tcp_max_syn_backlog"),
            syn_cookies: number("ipv4/tcp_syncookies"),
            ports: ports.and_then(|range| parse_ports(&range, &reserved)),
            tcp_memory: memory.as_ref().map(|(limits, sockets)| TcpMemory {
                used: sockets.memory_pages,
                pressure: limits.pressure,
                max: limits.high,
                sockets: sockets.allocated,
                orphans: sockets.orphans,
            }),
            conntrack: count
                .zip(number("netfilter/nf_conntrack_max"))
                .map(|(count, max)| Conntrack { count, max }),
            orphans: quota(sockets.map(|all| all.orphans), "ipv4/tcp_max_orphans"),
            time_wait: quota(sockets.map(|all| all.time_wait), "ipv4/tcp_max_tw_buckets"),
            neighbours: quota(neighbours, "ipv4/neigh/default/gc_thresh3"),
            lost: tcp_losses(tree, pid).unwrap_or_default(),
        }
    }
}

/// Finds the range in the texts of `ip_local_port_range` and `ip_local_reserved_ports`.
#[must_use]
pub fn parse_ports(range: &str, reserved: &str) -> Option<PortRange> {
    let mut numbers = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let reserved = reserved.trim().split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        let (from, to) = (from.max(first), to.min(last));
        Some(if from <= to { u64::from(to - from) + 1 } else { 0 })
    });
    Some(PortRange { first, last, reserved: reserved.sum() })
}

#[cfg(test)]
mod tests;
