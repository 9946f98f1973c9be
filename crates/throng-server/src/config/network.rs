//! Networks, as they are written: an address, or an address and how many of its bits count.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Bits in front of an IPv4 address when it is written as an IPv6 one, `::ffff:a.b.c.d`.
const MAPPED_BITS: u32 = 96;

/// A network, or a single address. IPv4 is kept as IPv6 has it, so that one comparison serves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: u128,
    /// Of 128.
    bits: u32,
}

/// The text is no address and no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network; write for example \"127.0.0.1\" or \"10.0.0.0/8\"")]
pub struct NotANetwork;

impl Network {
    /// The network of this one address.
    pub fn only(address: IpAddr) -> Self {
        Self { first: mapped(address), bits: 128 }
    }

    /// Whether the address is in it; `::ffff:a.b.c.d` is `a.b.c.d`.
    pub fn contains(&self, address: IpAddr) -> bool {
        (mapped(address) ^ self.first) & mask(self.bits) == 0
    }

    /// Whether it is all of IPv4, or all of IPv6.
    pub fn is_everybody(&self) -> bool {
        self.bits == 0 || self.bits == MAPPED_BITS && is_mapped(self.first)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let (own, before) = if address.is_ipv4() { (32, MAPPED_BITS) } else { (128, 0) };
        let bits = match bits {
            None => own,
            // `parse` takes a sign.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= own).ok_or(NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
        };
        let bits = before + bits;
        Ok(Self { first: mapped(address) & mask(bits), bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before =
            if is_mapped(self.first) && self.bits >= MAPPED_BITS { MAPPED_BITS } else { 0 };
        let first = Ipv6Addr::from_bits(self.first);
        let first = if before > 0 { first.to_canonical() } else { first.into() };
        write!(f, "{first}/{}", self.bits - before)
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn is_mapped(bits: u128) -> bool {
    bits >> 32 == 0xffff
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_however_they_are_written() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3/8", "10.9.9.9"), "bits that do not count may be anything");
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("127.0.0.1", "::ffff:127.0.0.1") && holds("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "8.8.8.8") && holds("::/0", "2001:db8::1"));
        assert!(holds("::1", "::1") && !holds("::1", "127.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "/", "10/8", "10.0.0.0/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "a", "[::1]"]
        {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text:?}");
        }
    }

    #[test]
    fn it_is_shown_as_one_writes_it() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().is_everybody());
        assert!(!"10.0.0.0/8".parse::<Network>().unwrap().is_everybody());
    }
}
