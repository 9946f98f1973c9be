//! How many connections one address may have, and how many may come from it in a second.
//!
//! An address is an IPv4 address or an IPv6 /64, which is what one household or machine has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::PerAddress;

/// Addresses that are remembered: some MiB. While more come in one
/// second, the newest are let in uncounted, since a table that grows with its attackers is the
/// attack.
const REMEMBERED_MAX: usize = 65_536;
/// What came before this is no part of a rate.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The connections of each address, clients or not.
#[derive(Debug, Clone)]
pub struct Addresses {
    limits: PerAddress,
    table: Arc<Mutex<Table>>,
}

/// One connection's part of its address; dropping it gives it back.
#[derive(Debug)]
pub struct Held {
    table: Arc<Mutex<Table>>,
    place: Place,
}

/// What an address has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// `limits.per_address.connections`.
    Connections,
    /// `limits.per_address.rate`.
    Arrivals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    V4([u8; 4]),
    /// The first 64 bits.
    V6([u8; 8]),
}

#[derive(Debug, Default)]
struct Table {
    places: HashMap<Place, Entry>,
    cleaned: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    open: u32,
    tokens: f64,
    at: Instant,
}

impl Addresses {
    pub fn new(limits: PerAddress) -> Self {
        Self { limits, table: Arc::default() }
    }

    /// Counts one more connection of an address; none is held for one that is exempt.
    ///
    /// # Errors
    /// When the address has as many as it may, or more come than may.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Option<Box<Held>>, TooMany> {
        let PerAddress { connections, rate, exempt_private } = self.limits;
        let address = address.to_canonical();
        if (connections == 0 && rate == 0) || (exempt_private && is_private(address)) {
            return Ok(None);
        }
        let place = Place::of(address);
        let mut table = self.table.lock();
        if !table.has_room_for(place, now) {
            return Ok(None);
        }
        let rate = f64::from(rate);
        let entry = table.places.entry(place).or_insert(Entry { open: 0, tokens: rate, at: now });
        if connections > 0 && entry.open >= connections {
            return Err(TooMany::Connections);
        }
        if rate > 0.0 {
            let passed = now.saturating_duration_since(entry.at).as_secs_f64();
            entry.tokens = (entry.tokens + passed * rate).min(rate);
            entry.at = now;
            if entry.tokens < 1.0 {
                return Err(TooMany::Arrivals);
            }
            entry.tokens -= 1.0;
        }
        entry.open += 1;
        drop(table);
        Ok(Some(Box::new(Held { table: Arc::clone(&self.table), place })))
    }
}

impl Place {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Table {
    /// Whether this place is in the table, or may be added. Forgets, once a second at most, those
    /// that have no connections and whose arrivals are long past.
    fn has_room_for(&mut self, place: Place, now: Instant) -> bool {
        if self.places.len() < REMEMBERED_MAX || self.places.contains_key(&place) {
            return true;
        }
        if self.cleaned.is_none_or(|at| now.saturating_duration_since(at) >= RATE_WINDOW) {
            self.cleaned = Some(now);
            self.places.retain(|_, entry| {
                entry.open > 0 || now.saturating_duration_since(entry.at) < RATE_WINDOW
            });
        }
        self.places.len() < REMEMBERED_MAX
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.table.lock().places.get_mut(&self.place) {
            entry.open -= 1;
        }
    }
}

/// Loopback, link-local, and those that RFC 1918 and RFC 4193 keep for private networks: proxies
/// and one's own machines.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: u32, rate: u32) -> Addresses {
        Addresses::new(PerAddress { connections, rate, exempt_private: true })
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_no_more_than_it_may_and_another_is_not_touched() {
        let (addresses, now) = (addresses(2, 0), Instant::now());
        let one = addresses.admit(at("192.0.2.1"), now).unwrap();
        // The same address, as a listener on `::` sees it.
        let _two = addresses.admit(at("::ffff:192.0.2.1"), now).unwrap();
        assert_eq!(addresses.admit(at("192.0.2.1"), now).unwrap_err(), TooMany::Connections);
        assert!(addresses.admit(at("192.0.2.2"), now).is_ok());
        drop(one);
        assert!(addresses.admit(at("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn a_household_of_ipv6_is_one_address() {
        let (addresses, now) = (addresses(1, 0), Instant::now());
        let _one = addresses.admit(at("2001:db8:1:2::1"), now).unwrap();
        assert!(addresses.admit(at("2001:db8:1:2:ffff::9"), now).is_err());
        assert!(addresses.admit(at("2001:db8:1:3::1"), now).is_ok());
    }

    #[test]
    fn arrivals_refill_with_time() {
        let (addresses, start) = (addresses(0, 10), Instant::now());
        let count =
            |now| (0..100).filter(|_| addresses.admit(at("192.0.2.1"), now).is_ok()).count();
        assert_eq!(count(start), 10);
        assert_eq!(addresses.admit(at("192.0.2.1"), start).unwrap_err(), TooMany::Arrivals);
        assert_eq!(count(start + Duration::from_millis(500)), 5);
    }

    #[test]
    fn private_networks_are_exempt_unless_told_otherwise() {
        let now = Instant::now();
        let exempt = addresses(1, 1);
        let strict = Addresses::new(PerAddress { exempt_private: false, ..exempt.limits });
        for address in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1", "fe80::1"] {
            for _ in 0..3 {
                assert!(exempt.admit(at(address), now).unwrap().is_none());
            }
            let _held = strict.admit(at(address), now).unwrap();
            assert!(strict.admit(at(address), now).is_err());
        }
    }

    #[test]
    fn the_table_does_not_grow_with_those_who_come() {
        let (addresses, now) = (addresses(1, 1), Instant::now());
        let come = |first: u32, now| {
            for number in 0..100_000_u32 {
                let address = IpAddr::from((first + number).to_be_bytes());
                drop(addresses.admit(address, now).unwrap());
            }
        };
        come(0x2000_0000, now);
        assert_eq!(addresses.table.lock().places.len(), REMEMBERED_MAX);
        come(0x3000_0000, now + Duration::from_secs(2));
        assert_eq!(addresses.table.lock().places.len(), REMEMBERED_MAX);
    }
}
