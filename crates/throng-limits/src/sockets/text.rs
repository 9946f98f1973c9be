//! Sockets as text: `/proc/PID/net/tcp` and its kin, read, and written for a captured tree.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::row::{Row, Timer};
use super::state::State;

/// The first line, as the kernel writes it.
const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// The sockets in the text of `tcp`, `tcp6`, `udp`, `udp6`, `raw` or `raw6`. Lines that are not
/// understood are passed over.
pub fn rows(text: &str) -> impl Iterator<Item = Row> {
    text.lines().skip(1).filter_map(row)
}

/// The same text for rows that were read in another way; of a listener, `tx_queue` is how many
/// connections may wait, which the kernel's own text does not say.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(HEADING);
    for (number, row) in rows.iter().enumerate() {
        // Writing to a string does not fail.
        writeln!(
            text,
            "{number:4}: {} {} {:02X} {:08X}:{:08X} {:02X}:00000000 00000000 {:5}        0 {}",
            Hexadecimal(row.local),
            Hexadecimal(row.peer),
            row.state.number(),
            row.send_queue,
            row.receive_queue,
            row.timer.number(),
            row.uid,
            row.inode,
        )
        .ok();
    }
    text
}

fn row(line: &str) -> Option<Row> {
    // proc(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = address(columns.next()?)?;
    let peer = address(columns.next()?)?;
    let state = State::from_number(u8::from_str_radix(columns.next()?, 16).ok()?)?;
    let (send, receive) = columns.next()?.split_once(':')?;
    let timer = u8::from_str_radix(columns.next()?.split_once(':')?.0, 16).ok()?;
    let uid = columns.nth(1)?.parse().ok()?;
    let inode = columns.nth(1)?.parse().ok()?;
    Some(Row {
        state,
        local,
        peer,
        timer: Timer::from_number(timer),
        receive_queue: u32::from_str_radix(receive, 16).ok()?,
        send_queue: u32::from_str_radix(send, 16).ok()?,
        uid,
        inode,
    })
}

/// `0100007F:1F40`: words of the address as the machine reads them, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = ip.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(words.as_flattened());
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

struct Hexadecimal(SocketAddr);

impl std::fmt::Display for Hexadecimal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.ip() {
            IpAddr::V4(ip) => write!(out, "{:08X}", u32::from_ne_bytes(ip.octets()))?,
            IpAddr::V6(ip) => {
                for word in ip.octets().as_chunks::<4>().0 {
                    write!(out, "{:08X}", u32::from_ne_bytes(*word))?;
                }
            }
        }
        write!(out, ":{:04X}", self.0.port())
    }
}

#[cfg(test)]
mod tests;
