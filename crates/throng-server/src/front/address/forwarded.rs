//! Reads who a client is from what trusted proxies wrote into a request's head.
//!
//! A chain of addresses is read from the right, where the nearest proxy wrote: what stands further
//! left was heard by somebody, too, but the first address that is not a trusted proxy's is the first
//! that anybody could have sent from, and whatever is left of it may be its invention.
//!
//! Invariant NO-GUESS: an entry that is no address ends the walk, and the client is then the last
//! trusted hop before it. To look further left would be to believe what a stranger wrote; to refuse
//! the request would let a stranger's header decide whether others get in.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use http::{HeaderMap, HeaderValue};

use crate::config::AddressHeader;

/// Proxies one behind the other. Longer chains are somebody's joke.
const HOPS_MAX: usize = 32;

/// The client's address, as the trusted proxies tell it; `peer` is one of them. None: they do not
/// tell, so it is the peer itself.
pub(super) fn client(
    header: AddressHeader,
    headers: &HeaderMap,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let lines = headers.get_all(header.name()).iter().map(HeaderValue::as_bytes);
    let mut walk = Walk { last: peer, hops: 0, is_trusted };
    if header == AddressHeader::XRealIp {
        let mut lines = lines;
        // A proxy sets it anew. When there are two, one of them is the client's.
        let only = lines.next()?;
        let only = lines.next().is_none().then(|| std::str::from_utf8(only).ok())??;
        return address(only);
    }
    // RFC 9110 5.3: several lines are one list, in their order.
    for line in lines.rev() {
        // What is no text is no address either, and the entries beside it are what they are.
        let line = String::from_utf8_lossy(line);
        let goes_on = match header {
            AddressHeader::Forwarded => walk.along(Elements(Some(&line))),
            _ => walk.along(line.rsplit(',').map(address)),
        };
        if !goes_on {
            break;
        }
    }
    (walk.hops > 0).then_some(walk.last)
}

/// A walk from hop to hop, away from us.
struct Walk<F> {
    /// The farthest that a trusted hop has told.
    last: IpAddr,
    hops: usize,
    is_trusted: F,
}

impl<F: Fn(IpAddr) -> bool> Walk<F> {
    /// Whether it goes on with the next line.
    fn along(&mut self, hops: impl Iterator<Item = Option<IpAddr>>) -> bool {
        for hop in hops {
            let Some(address) = hop else { return false };
            self.hops += 1;
            self.last = address;
            if !(self.is_trusted)(address) || self.hops == HOPS_MAX {
                return false;
            }
        }
        true
    }
}

/// One entry: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = if let Some(bare) = bare {
        bare.parse::<Ipv6Addr>().ok()?.into()
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else if text.starts_with('[') {
        (*text.parse::<SocketAddrV6>().ok()?.ip()).into()
    } else {
        (*text.parse::<SocketAddrV4>().ok()?.ip()).into()
    };
    let address = address.to_canonical();
    // Nobody has this one.
    (!address.is_unspecified()).then_some(address)
}

/// The elements of a `Forwarded` line from its right: the `for` of each; none where it is missing,
/// `unknown`, an obfuscated name, or no address.
///
/// An element begins behind the rightmost comma from which on there is nothing but one element, so
/// that no quote which a stranger leaves open can swallow what a proxy appended. A comma within a
/// proxy's quotes is none of those: what is behind it ends with a quote that was never opened.
struct Elements<'a>(Option<&'a str>);

impl Iterator for Elements<'_> {
    type Item = Option<IpAddr>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.0.take()?;
            let commas = line.rmatch_indices(',').map(|(at, _)| Some(at));
            let found = commas.chain([None]).find_map(|comma| {
                let element = element(&line[comma.map_or(0, |at| at + 1)..])?;
                Some((element, comma))
            });
            // Nothing here can be read, and so nothing further left.
            let Some((element, comma)) = found else { return Some(None) };
            self.0 = comma.map(|at| &line[..at]);
            match element {
                // RFC 9110 5.6.1: empty elements do not count.
                Element::Empty => {}
                Element::For(address) => return Some(address),
            }
        }
    }
}

enum Element {
    Empty,
    For(Option<IpAddr>),
}

/// RFC 7239 4: `for=...;by=...;...`, if the text is that and nothing more.
fn element(text: &str) -> Option<Element> {
    let mut rest = text;
    let (mut found, mut is_empty) = (None, true);
    loop {
        skip_space(&mut rest);
        let name = token(&mut rest);
        // Between two semicolons there may be nothing.
        if !name.is_empty() {
            is_empty = false;
            rest = rest.strip_prefix('=')?;
            let value = value(&mut rest)?;
            if name.eq_ignore_ascii_case("for") {
                // RFC 7239 4: each parameter occurs once.
                if found.is_some() {
                    return None;
                }
                found = Some(address(&value));
            }
        }
        skip_space(&mut rest);
        match rest.strip_prefix(';') {
            Some(after) => rest = after,
            None if rest.is_empty() => break,
            None => return None,
        }
    }
    Some(if is_empty { Element::Empty } else { Element::For(found.flatten()) })
}

/// A token, or a quoted text without its quotes.
fn value(rest: &mut &str) -> Option<String> {
    let Some(quoted) = rest.strip_prefix('"') else {
        // Proxies forget the quotes that IPv6 and ports need.
        let end = rest
            .find(|c: char| !is_token(c) && !matches!(c, ':' | '[' | ']'))
            .unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        *rest = after;
        return (!value.is_empty()).then(|| value.to_owned());
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &quoted[at + 1..];
                return Some(value);
            }
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn token<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
    let (token, after) = rest.split_at(end);
    *rest = after;
    token
}

/// RFC 9110 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn skip_space(rest: &mut &str) {
    *rest = rest.trim_start_matches([' ', '\t']);
}

/// The header with which a request says that it came through a proxy, where it has one.
pub(super) fn carried(headers: &HeaderMap) -> Option<AddressHeader> {
    let all = [AddressHeader::XForwardedFor, AddressHeader::XRealIp, AddressHeader::Forwarded];
    all.into_iter().find(|header| headers.contains_key(header.name()))
}

/// Whether a request says that it came through a proxy.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    carried(headers).is_some()
}

#[cfg(test)]
mod tests;
