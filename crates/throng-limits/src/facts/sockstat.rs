//! How many TCP sockets there are and what they cost: `/proc/PID/net/sockstat`, and `tcp_mem`.

use std::path::Path;

use crate::tree::Tree;

use super::FactError;

/// The TCP sockets of one network namespace, and the memory of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpSockets {
    /// Established or listening, IPv4 and IPv6.
    pub in_use: u64,
    /// Held by no process any more, and not yet gone.
    pub orphans: u64,
    pub time_wait: u64,
    /// Of the whole machine, IPv4 and IPv6.
    pub allocated: u64,
    /// Of the whole machine, in pages.
    pub memory_pages: u64,
}

/// When TCP begins to save memory, in pages: `net.ipv4.tcp_mem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpMemory {
    /// Below this nothing is saved.
    pub low: u64,
    /// Above this all sockets save.
    pub pressure: u64,
    /// Above this connections are reset.
    pub high: u64,
}

/// Reads how many TCP sockets there are in the network namespace of a process.
///
/// # Errors
/// When the process is gone, or the kernel does not count.
pub fn tcp_sockets(tree: &Tree, pid: u32) -> Result<TcpSockets, FactError> {
    let path = format!("{pid}/net/sockstat");
    let text = tree.read_proc(&path)?;
    let path = format!("/proc/{path}");
    let mut sockets = parse_tcp_sockets(&text)
        .ok_or_else(|| FactError::unexpected(Path::new(&path), "line for TCP"))?;
    // A kernel may lack IPv6.
    let six = tree.read_proc(&format!("{pid}/net/sockstat6")).unwrap_or_default();
    sockets.in_use += value(&six, "TCP6:", "inuse").unwrap_or_default();
    Ok(sockets)
}

/// Reads when TCP begins to save memory.
///
/// # Errors
/// When it is not there, or not three numbers.
pub fn tcp_memory(tree: &Tree) -> Result<TcpMemory, FactError> {
    let path = "sys/net/ipv4/tcp_mem";
    let text = tree.read_proc(path)?;
    parse_tcp_memory(&text).ok_or_else(|| {
        FactError::unexpected(Path::new("/proc").join(path).as_path(), "three numbers")
    })
}

/// Finds the numbers in the text of `sockstat`.
#[must_use]
pub fn parse_tcp_sockets(text: &str) -> Option<TcpSockets> {
    let named = |name| value(text, "TCP:", name);
    Some(TcpSockets {
        in_use: named("inuse")?,
        orphans: named("orphan")?,
        time_wait: named("tw")?,
        allocated: named("alloc")?,
        memory_pages: named("mem")?,
    })
}

/// Finds the numbers in the text of `tcp_mem`.
#[must_use]
pub fn parse_tcp_memory(text: &str) -> Option<TcpMemory> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(TcpMemory { low: next()?, pressure: next()?, high: next()? })
}

/// The number behind a name, in the line that begins with a heading.
fn value(text: &str, heading: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(heading))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_behind_their_names() {
        let text =
            "sockets: used 198\nTCP: inuse 6 orphan 1 tw 3 alloc 20 mem 9\nUDP: inuse 2 mem 4\n";
        let sockets =
            TcpSockets { in_use: 6, orphans: 1, time_wait: 3, allocated: 20, memory_pages: 9 };
        assert_eq!(parse_tcp_sockets(text), Some(sockets));
        assert_eq!(parse_tcp_sockets("UDP: inuse 2 mem 4\n"), None);
        assert_eq!(parse_tcp_sockets("TCP: inuse\n"), None);
    }

    #[test]
    fn memory_is_three_numbers() {
        let memory = parse_tcp_memory("280995\t374661\t561990\n").unwrap();
        assert_eq!((memory.low, memory.pressure, memory.high), (280_995, 374_661, 561_990));
        assert_eq!(parse_tcp_memory("1 2"), None);
        assert_eq!(parse_tcp_memory("1 x 3"), None);
    }

    #[test]
    fn a_socket_of_ours_is_counted() {
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tree = Tree::live();
        assert!(tcp_sockets(&tree, std::process::id()).unwrap().in_use > 0);
        assert!(tcp_memory(&tree).unwrap().high > 0);
    }
}
