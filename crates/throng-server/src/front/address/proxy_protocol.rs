//! The PROXY protocol's header, versions 1 and 2: for whom a proxy has opened a connection.
//!
//! Read from the front of a connection as its bytes arrive. What follows belongs to HTTP, so a
//! reader is told exactly where the header ends. (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::ProxyProtocol;

/// Of version 1, with its line break (2.1: "a 108-byte buffer is always enough").
const V1_BYTES_MAX: usize = 107;
/// Of version 2, before its length counts.
const V2_FIXED_BYTES: usize = 16;
/// Of version 2 behind that: the addresses and what a proxy adds, such as a certificate's name.
const V2_REST_BYTES_MAX: usize = 4096;
/// No header is longer.
pub(super) const HEADER_BYTES_MAX: usize = V2_FIXED_BYTES + V2_REST_BYTES_MAX;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// For whom the connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduced {
    Client(IpAddr),
    /// The proxy asks for itself (LOCAL), or does not know for whom (UNKNOWN).
    Itself,
}

/// A header and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) introduced: Introduced,
    pub(super) bytes: usize,
}

/// Why there is no header to be had from these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// They do not begin as one.
    Missing,
    /// They begin as one of the version that is not on.
    OtherVersion,
    /// They begin as one and do not go on as one.
    Malformed,
    TooLong,
}

impl Wrong {
    /// As a part of a sentence: a connection was closed, because ...
    pub(super) fn because(self) -> &'static str {
        match self {
            Self::Missing => "it does not begin with a PROXY header",
            Self::OtherVersion => "its PROXY header has the other version",
            Self::Malformed => "its PROXY header is malformed",
            Self::TooLong => "its PROXY header is too long",
        }
    }
}

/// Reads a header from the first bytes of a connection; none while more of them are needed.
///
/// # Errors
/// As soon as no further byte could make it a header that is `on`.
pub(super) fn read(on: ProxyProtocol, input: &[u8]) -> Result<Option<Header>, Wrong> {
    let begins = |begin: &[u8]| {
        let common = begin.len().min(input.len());
        begin[..common] == input[..common]
    };
    let (v1, v2) = (begins(V1_BEGIN), begins(V2_BEGIN));
    match on {
        ProxyProtocol::V1 | ProxyProtocol::Either if v1 => read_v1(input),
        ProxyProtocol::V2 | ProxyProtocol::Either if v2 => read_v2(input),
        // So short, it may be the begin of something else.
        _ if (v1 || v2) && input.len() > 4 => Err(Wrong::OtherVersion),
        _ => Err(Wrong::Missing),
    }
}

/// Which version's header these bytes begin as, where they can be nothing else.
pub(super) fn version(input: &[u8]) -> Option<ProxyProtocol> {
    // What reads HTTP skips empty lines in front of a request, and these are part of version 2's.
    let v2 = V2_BEGIN.strip_prefix(b"\r\n\r\n").is_some_and(|begin| input.starts_with(begin));
    if input.starts_with(V1_BEGIN) {
        Some(ProxyProtocol::V1)
    } else if v2 || input.starts_with(V2_BEGIN) {
        Some(ProxyProtocol::V2)
    } else {
        None
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n`
fn read_v1(input: &[u8]) -> Result<Option<Header>, Wrong> {
    let line = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if input.len() >= V1_BYTES_MAX { Err(Wrong::TooLong) } else { Ok(None) };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(Wrong::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Wrong::Malformed)?;
    let introduced = v1_words(line).ok_or(Wrong::Malformed)?;
    Ok(Some(Header { introduced, bytes: end + 1 }))
}

fn v1_words(line: &str) -> Option<Introduced> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    // 2.1: whatever follows UNKNOWN is ignored.
    if family == "UNKNOWN" {
        return Some(Introduced::Itself);
    }
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, _) = (address()?, address()?);
    for _ in 0..2 {
        let port = words.next()?;
        // `parse` takes a sign.
        let _: u16 = port.parse().ok().filter(|_| port.as_bytes()[0].is_ascii_digit())?;
    }
    words.next().is_none().then(|| Introduced::Client(source.to_canonical()))
}

/// Twelve bytes of signature, version and command, family, a length, and so many bytes.
fn read_v2(input: &[u8]) -> Result<Option<Header>, Wrong> {
    // 2.2: "the receiver must drop" another version or command; as soon as it is seen.
    let command = match input.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Wrong::Malformed),
    };
    let Some(&[family, high, low]) = input.get(13..V2_FIXED_BYTES) else { return Ok(None) };
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    if rest_bytes > V2_REST_BYTES_MAX {
        return Err(Wrong::TooLong);
    }
    let bytes = V2_FIXED_BYTES + rest_bytes;
    let Some(rest) = input.get(V2_FIXED_BYTES..bytes) else { return Ok(None) };
    let introduced = match (command, family) {
        // 2.2: with LOCAL everything else is skipped.
        (Command::Local, _) => Introduced::Itself,
        // A proxy that heard its client over a Unix socket, or that does not say.
        (Command::Proxy, 0x00 | 0x31 | 0x32) => Introduced::Itself,
        // Source, destination, two ports; the additions behind them are not looked at.
        (Command::Proxy, 0x11) => {
            let address: [u8; 4] = front(rest, 12)?;
            Introduced::Client(Ipv4Addr::from(address).into())
        }
        (Command::Proxy, 0x21) => {
            let address: [u8; 16] = front(rest, 36)?;
            Introduced::Client(IpAddr::from(address).to_canonical())
        }
        // Datagrams have no connections, and other families no meaning.
        _ => return Err(Wrong::Malformed),
    };
    Ok(Some(Header { introduced, bytes }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// The proxy's own connection, such as a health check.
    Local,
    Proxy,
}

/// The first bytes of a block that must be so long.
fn front<const N: usize>(block: &[u8], block_bytes: usize) -> Result<[u8; N], Wrong> {
    let all_there = block.len() >= block_bytes;
    block.first_chunk().copied().filter(|_| all_there).ok_or(Wrong::Malformed)
}

#[cfg(test)]
mod tests;
