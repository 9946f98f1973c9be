//! What the kernel counts and allows in the network: queues, ports, memory, conntrack.

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
    pub lost: Lost,
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

/// The table of connections that the firewall follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    pub count: u64,
    pub max: u64,
}

/// What was turned away since the namespace began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    pub listen_overflows: u64,
    pub listen_drops: u64,
    pub syn_drops: u64,
    pub syn_cookies: u64,
    pub aborts_on_memory: u64,
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
    pub fn read(tree: &Tree, pid: u32) -> Self {
        let number =
            |name: &str| tree.read_proc(&format!("sys/net/{name}")).ok()?.trim().parse().ok();
        let text = |name: &str| tree.read_proc(name).ok();
        let reserved = text("sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
        let ports = text("sys/net/ipv4/ip_local_port_range");
        let memory = text("sys/net/ipv4/tcp_mem").zip(text(&format!("{pid}/net/sockstat")));
        let conntrack =
            number("netfilter/nf_conntrack_count").zip(number("netfilter/nf_conntrack_max"));
        Self {
            somaxconn: number("core/somaxconn"),
            syn_backlog: number("ipv4/tcp_max_syn_backlog"),
            syn_cookies: number("ipv4/tcp_syncookies"),
            ports: ports.and_then(|range| parse_ports(&range, &reserved)),
            tcp_memory: memory.and_then(|(limits, used)| parse_tcp_memory(&limits, &used)),
            conntrack: conntrack.map(|(count, max)| Conntrack { count, max }),
            lost: text(&format!("{pid}/net/netstat"))
                .map(|text| parse_lost(&text))
                .unwrap_or_default(),
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

/// Finds TCP's memory in the texts of `tcp_mem` and `sockstat`.
#[must_use]
pub fn parse_tcp_memory(limits: &str, sockstat: &str) -> Option<TcpMemory> {
    let mut limits = limits.split_whitespace().map(str::parse::<u64>);
    let pressure = limits.nth(1)?.ok()?;
    let max = limits.next()?.ok()?;
    let row = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let value = |name: &str| {
        let pair = words.chunks_exact(2).find(|pair| pair[0] == name)?;
        pair[1].parse::<u64>().ok()
    };
    let sockets = value("alloc").or_else(|| value("inuse"))?;
    Some(TcpMemory {
        used: value("mem")?,
        pressure,
        max,
        sockets,
        orphans: value("orphan").unwrap_or(0),
    })
}

/// Finds what was lost in the text of `net/netstat`: rows of names, each followed by its values.
#[must_use]
pub fn parse_lost(text: &str) -> Lost {
    let mut lost = Lost::default();
    let rows: Vec<&str> = text.lines().collect();
    for pair in rows.chunks_exact(2).filter(|pair| pair[0].starts_with("TcpExt:")) {
        let values = pair[1].split_whitespace();
        for (name, value) in pair[0].split_whitespace().zip(values).skip(1) {
            let value = value.parse().unwrap_or(0);
            match name {
                "ListenOverflows" => lost.listen_overflows = value,
                "ListenDrops" => lost.listen_drops = value,
                "TCPReqQFullDrop" => lost.syn_drops = value,
                "TCPReqQFullDoCookies" => lost.syn_cookies = value,
                "TCPAbortOnMemory" => lost.aborts_on_memory = value,
                _ => {}
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests;
