//! Who listens on a TCP port, in a word.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use crate::sockets::holders_of_port;
use crate::tree::Tree;

/// LISTEN in the `st` column of /proc/net/tcp.
const LISTEN: &str = "0A";

/// The process that listens on a port of this machine, such as `nginx (pid 71)`; none when there
/// is none, or when it is another user's and cannot be seen.
pub fn listener_holder(port: u16) -> Option<String> {
    let tree = Tree::live();
    let pid = holders_of_port(&tree, port).found.first()?.pid;
    let name = tree.read_proc(&format!("{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// The processes that listen at an address of this machine, by its port: all that share the socket.
/// None where nobody does, or the address is another machine's; empty where they cannot be seen.
#[must_use]
pub fn listening(address: SocketAddr) -> Option<Vec<u32>> {
    if !is_ours(address.ip()) {
        return None;
    }
    let port = address.port();
    let inodes: Vec<u64> = tables().flat_map(|table| listening_inodes(&table, port)).collect();
    (!inodes.is_empty()).then(|| holders(inodes).collect())
}

/// The ports that a process listens on, as far as its descriptors can be seen.
#[must_use]
pub fn listening_ports(pid: u32) -> Vec<u16> {
    let held: Vec<u64> = socket_inodes(Path::new(&format!("/proc/{pid}/fd"))).collect();
    let all = tables().flat_map(|table| listeners(&table).collect::<Vec<_>>());
    let mut ports: Vec<u16> =
        all.filter(|(_, inode)| held.contains(inode)).map(|(port, _)| port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Whether an address is this machine's: only such a one can be bound.
fn is_ours(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

fn tables() -> impl Iterator<Item = String> {
    let paths = ["/proc/net/tcp", "/proc/net/tcp6"];
    paths.into_iter().filter_map(|path| fs::read_to_string(path).ok())
}

/// The processes that hold one of these sockets.
fn holders(inodes: Vec<u64>) -> impl Iterator<Item = u32> {
    // To look through everybody's descriptors for nothing takes a while on a large machine.
    let processes = (!inodes.is_empty()).then(|| fs::read_dir("/proc"));
    let processes = processes.into_iter().flatten().flatten().flatten();
    processes.filter_map(move |entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = socket_inodes(&entry.path().join("fd")).any(|inode| inodes.contains(&inode));
        holds.then_some(pid)
    })
}

/// The sockets in a directory of descriptors.
fn socket_inodes(directory: &Path) -> impl Iterator<Item = u64> {
    let descriptors = fs::read_dir(directory).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        target.to_str().and_then(socket_inode)
    })
}

/// The inodes of sockets that listen on a port, from the text of /proc/net/tcp or tcp6.
pub fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    listeners(table).filter(|(found, _)| *found == port).map(|(_, inode)| inode).collect()
}

/// The ports and inodes of sockets that listen.
fn listeners(table: &str) -> impl Iterator<Item = (u16, u64)> {
    table.lines().skip(1).filter_map(|row| {
        // proc(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        let mut columns = row.split_whitespace();
        let (_, port) = columns.nth(1)?.rsplit_once(':')?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some((u16::from_str_radix(port, 16).ok()?, inode))
    })
}

/// The inode in `socket:[123]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = listener_holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        let address = listener.local_addr().unwrap();
        assert_eq!(listening(address), Some(vec![std::process::id()]));
        assert!(listening_ports(std::process::id()).contains(&address.port()));
        // TEST-NET-1 is nobody's (RFC 5737).
        assert_eq!(listening(([192, 0, 2, 1], 80).into()), None);
    }
}
