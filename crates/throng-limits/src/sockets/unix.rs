//! Sockets that are no TCP: Unix, netlink and packet, asked by `sock_diag` or read as text.

use std::fmt::Write;

use super::netlink::{attributes, word};

/// BOUNDED: bytes of one path; `sun_path` has 108.
const PATH_BYTES_MAX: usize = 108;

/// A family that `sock_diag` knows, and where its answers have the inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    number: u8,
    protocol: u8,
    request_bytes: usize,
    /// Of the mask of what to show, or of states for Unix sockets.
    wanted: &'static [(usize, u32)],
    inode_at: usize,
}

/// `unix_diag_req`: all states; the name, the peer and the lengths of the queues are shown.
pub(crate) const UNIX: Family = Family {
    name: "unix",
    number: 1,
    protocol: 0,
    request_bytes: 24,
    wanted: &[(4, u32::MAX), (12, 0x1 | 0x4 | 0x10)],
    inode_at: 4,
};
/// `netlink_diag_req`, of all protocols.
pub(crate) const NETLINK: Family = Family {
    name: "netlink",
    number: 16,
    protocol: u8::MAX,
    request_bytes: 20,
    wanted: &[],
    inode_at: 16,
};
/// `packet_diag_req`.
pub(crate) const PACKET: Family =
    Family { name: "packet", number: 17, protocol: 0, request_bytes: 20, wanted: &[], inode_at: 4 };

impl Family {
    pub(crate) fn question(&self) -> Vec<u8> {
        let mut request = vec![0; self.request_bytes];
        request[0] = self.number;
        request[1] = self.protocol;
        for (at, mask) in self.wanted {
            request[*at..*at + 4].copy_from_slice(&mask.to_ne_bytes());
        }
        request
    }

    pub(crate) fn inode(&self, message: &[u8]) -> Option<u32> {
        word(message, self.inode_at)
    }
}

/// A socket of the Unix family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixRow {
    pub inode: u32,
    /// It accepts connections.
    pub listens: bool,
    /// The path, or `@` and the abstract name; empty where it has none. A stranger's text.
    pub path: String,
    /// The inode of the other end; zero where it has none, or only the kernel's text was read.
    pub peer: u32,
    /// Of a listener: connections that wait to be accepted, and how many may.
    pub waiting: u32,
    pub backlog: Option<u32>,
}

/// A message of `unix_diag` as a row.
pub(crate) fn row(message: &[u8]) -> Option<UnixRow> {
    /// `TCP_LISTEN`, which Unix sockets borrow.
    const LISTENS: u8 = 10;
    const FIXED_BYTES: usize = 16;
    let mut row = UnixRow {
        inode: UNIX.inode(message)?,
        listens: *message.get(2)? == LISTENS,
        ..UnixRow::default()
    };
    for (kind, value) in attributes(message.get(FIXED_BYTES..)?) {
        match kind {
            0 => row.path = path(value),
            2 => row.peer = word(value, 0)?,
            4 if row.listens => {
                row.waiting = word(value, 0)?;
                row.backlog = word(value, 4);
            }
            _ => {}
        }
    }
    Some(row)
}

/// An abstract name begins with a zero byte, which is written `@`, as everywhere.
fn path(name: &[u8]) -> String {
    let name = name.get(..PATH_BYTES_MAX).unwrap_or(name);
    match name.strip_prefix(&[0]) {
        Some(abstract_name) => format!("@{}", String::from_utf8_lossy(abstract_name)),
        None => String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default())
            .into_owned(),
    }
}

/// The sockets in the text of `/proc/PID/net/unix`; lines that are not understood are passed over.
pub fn rows(text: &str) -> impl Iterator<Item = UnixRow> {
    text.lines().skip(1).filter_map(text_row)
}

fn text_row(line: &str) -> Option<UnixRow> {
    /// `__SO_ACCEPTCON`
    const ACCEPTS: u32 = 1 << 16;
    // Num: RefCount Protocol Flags Type St Inode Path; the path may hold spaces.
    let mut rest = line;
    let mut column = || {
        rest = rest.trim_start_matches(' ');
        let end = rest.find(' ').unwrap_or(rest.len());
        let (column, behind) = rest.split_at(end);
        rest = behind;
        column
    };
    let columns: [&str; 7] = std::array::from_fn(|_| column());
    let flags = u32::from_str_radix(columns[3], 16).ok()?;
    Some(UnixRow {
        inode: columns[6].parse().ok()?,
        listens: flags & ACCEPTS != 0,
        path: rest.strip_prefix(' ').unwrap_or_default().to_owned(),
        ..UnixRow::default()
    })
}

/// Rows as a captured tree keeps them: the kernel's own text has no peers and no queues.
#[must_use]
pub fn kept(rows: &[UnixRow]) -> String {
    let mut text = String::from("inode listens peer waiting backlog path\n");
    for row in rows {
        let backlog = row.backlog.map_or(-1, i64::from);
        let listens = u8::from(row.listens);
        let path: String = row.path.replace(['\n', '\r'], "\u{fffd}");
        // Writing to a string does not fail.
        writeln!(text, "{} {listens} {} {} {backlog} {path}", row.inode, row.peer, row.waiting)
            .ok();
    }
    text
}

/// What [`kept`] wrote.
pub fn kept_rows(text: &str) -> impl Iterator<Item = UnixRow> {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.splitn(6, ' ');
        Some(UnixRow {
            inode: columns.next()?.parse().ok()?,
            listens: columns.next()? == "1",
            peer: columns.next()?.parse().ok()?,
            waiting: columns.next()?.parse().ok()?,
            backlog: u32::try_from(columns.next()?.parse::<i64>().ok()?).ok(),
            path: columns.next()?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests;
