//! Who listens on a TCP port.

use std::fs;

/// LISTEN in the `st` column of /proc/net/tcp.
const LISTEN: &str = "0A";

/// The process that listens on a port of this machine, such as `nginx (pid 71)`; none when there
/// is none, or when it is another user's and cannot be seen.
pub fn listener_holder(port: u16) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|descriptor| {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            target.to_str().and_then(socket_inode).is_some_and(|inode| inodes.contains(&inode))
        });
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

/// The inodes of sockets that listen on a port, from the text of /proc/net/tcp or tcp6.
pub fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let ending = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|row| {
            // proc(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            let mut columns = row.split_whitespace();
            let local = columns.nth(1)?;
            let state = columns.nth(1)?;
            let inode = columns.nth(5)?;
            (local.ends_with(&ending) && state == LISTEN).then(|| inode.parse().ok())?
        })
        .collect()
}

/// The inode in `socket:[123]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 88 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn only_the_listening_socket_of_the_port_counts() {
        assert_eq!(listening_inodes(TABLE, 8000), [4711]);
        assert_eq!(listening_inodes(TABLE, 22), [88]);
        assert_eq!(listening_inodes(TABLE, 80), []);
    }

    #[test]
    fn a_listener_of_our_own_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = listener_holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    }
}
