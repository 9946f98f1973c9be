//! Notices a proxy that nobody declared, or that writes elsewhere than was declared: whoever is behind
//! it looks like one client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use parking_lot::Mutex;

use super::forwarded;
use super::{ClientAddress, ToldBy};
use crate::config::{AddressHeader, Network, Proxies};
use crate::log::{Log, line, thousands};

/// Connections from one address before it is called a proxy. A developer with a forged header in
/// hand does not reach it.
const CONNECTIONS_MIN: u64 = 20;
/// Clients from one address, without a forwarding header, before it is asked whether it is a proxy:
/// less than what a stock nginx lets through, more than a developer's windows.
const CLIENTS_MIN: u64 = 200;
/// Said again when there are so many times as many.
const GROWTH: u64 = 10;
/// Addresses that are counted at a time: more proxies than this in front of one process are seen one
/// after the other.
const PEERS_MAX: usize = 16;

/// Who carries forwarding headers without being declared, or none and is so many that it may be a
/// proxy.
#[derive(Debug, Default)]
pub(crate) struct Undeclared(Mutex<Vec<Peer>>);

#[derive(Debug)]
struct Peer {
    ip: IpAddr,
    brings: Brings,
    connections: u64,
    /// Say it when there are so many.
    next: u64,
}

/// What comes with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brings {
    /// A header that says for whom.
    Header,
    /// A client, and nothing that says whose.
    Client,
}

impl Undeclared {
    /// Takes note of a connection by its first request, and says it when it is time.
    pub(crate) fn note(
        &self,
        from: ClientAddress,
        headers: &HeaderMap,
        proxies: &Proxies,
        log: &Log,
    ) {
        let is_trusted = proxies.trusts(from.ip);
        // From the open internet it is no proxy of ours but somebody's joke.
        if from.told_by != ToldBy::Socket || !is_trusted && !is_near(from.ip) {
            return;
        }
        let Some(header) = forwarded::carried(headers) else {
            self.note_client(from.ip, headers, proxies, log);
            return;
        };
        if is_trusted && proxies.header.is_none_or(|wanted| headers.contains_key(wanted.name())) {
            return;
        }
        if let Some(connections) = self.count(from.ip, Brings::Header) {
            let advice = Advice { ip: from.ip, connections, header, proxies };
            line!(log, Warn, "proxy.undeclared", "{}", advice);
        }
    }

    /// Many clients at one address, and no word of a proxy: that may be one that says nothing.
    fn note_client(&self, ip: IpAddr, headers: &HeaderMap, proxies: &Proxies, log: &Log) {
        let Some(header) = proxies.header else { return };
        // The server API is used by one's own machines, as often as they like.
        if !headers.contains_key(http::header::UPGRADE) {
            return;
        }
        if let Some(clients) = self.count(ip, Brings::Client) {
            line!(log, Info, "proxy.silent", "{}", Silent { ip, clients, header, proxies });
        }
    }

    /// How many there are, when that is to be said.
    fn count(&self, ip: IpAddr, brings: Brings) -> Option<u64> {
        let mut peers = self.0.lock();
        let at = match peers.iter().position(|peer| peer.ip == ip && peer.brings == brings) {
            Some(at) => at,
            None => {
                if peers.len() == PEERS_MAX {
                    // The least of them makes room. Space-saving: who really comes often stays.
                    let least = peers.iter().enumerate().min_by_key(|(_, peer)| peer.connections);
                    let least = least.map(|(at, _)| at)?;
                    peers.swap_remove(least);
                }
                let next = match brings {
                    Brings::Header => CONNECTIONS_MIN,
                    Brings::Client => CLIENTS_MIN,
                };
                peers.push(Peer { ip, brings, connections: 0, next });
                peers.len() - 1
            }
        };
        let peer = &mut peers[at];
        peer.connections += 1;
        (peer.connections == peer.next).then(|| {
            peer.next = match brings {
                Brings::Header => peer.next.saturating_mul(GROWTH),
                // It may be no proxy at all: once is enough.
                Brings::Client => u64::MAX,
            };
            peer.connections
        })
    }
}

/// The line, with the line to add.
struct Advice<'a> {
    ip: IpAddr,
    connections: u64,
    header: AddressHeader,
    proxies: &'a Proxies,
}

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, network) = (self.ip, Network::only(self.ip));
        let connections = thousands(self.connections);
        write!(f, "{connections} connections from {ip} carry {}, but ", self.header.name())?;
        if let Some(wanted) = self.proxies.header.filter(|_| self.proxies.trusts(ip)) {
            let wanted = wanted.name();
            return write!(
                f,
                "no {wanted}, which is what client_address_header names, so login checks see {ip} for \
                 everyone; let the proxy set {wanted}, or name the header that it sets"
            );
        }
        let seen = format!("so login checks see {ip} for everyone; if that is your nginx:");
        if self.proxies.trusted.is_empty() {
            write!(f, "trusted_proxies is empty, {seen} trusted_proxies = [\"{network}\"]")?;
        } else {
            write!(
                f,
                "trusted_proxies is without it, {seen} add \"{network}\" to trusted_proxies"
            )?;
        }
        if self.proxies.header != Some(self.header) {
            let name = self.header.name().to_ascii_lowercase();
            write!(f, " and client_address_header = \"{name}\"")?;
        }
        Ok(())
    }
}

/// The line for a proxy that does not say for whom it asks, with the lines to add.
struct Silent<'a> {
    ip: IpAddr,
    clients: u64,
    header: AddressHeader,
    proxies: &'a Proxies,
}

impl fmt::Display for Silent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, header, proxies, .. } = self;
        let (clients, header) = (thousands(self.clients), *header);
        let name = header.name();
        write!(
            f,
            "{clients} clients have come from {ip} without {name}, so login checks see {ip} "
        )?;
        let value = match header {
            AddressHeader::XForwardedFor => Some("$proxy_add_x_forwarded_for"),
            AddressHeader::XRealIp => Some("$remote_addr"),
            // nginx has no variable that is right for IPv6 there.
            AddressHeader::Forwarded => None,
        };
        match value {
            // Beside the others: one in an inner block hides all those of the outer ones.
            Some(value) => write!(
                f,
                "for everyone; if that is your nginx, write beside its other proxy_set_header lines: \
                 proxy_set_header {name} {value};"
            )?,
            None => write!(f, "for everyone; if that is your proxy, let it set {name}")?,
        }
        let network = Network::only(*ip);
        if proxies.trusts(*ip) {
            Ok(())
        } else if proxies.trusted.is_empty() {
            write!(f, " and in throng's configuration: trusted_proxies = [\"{network}\"]")
        } else {
            write!(f, " and add \"{network}\" to trusted_proxies")
        }
    }
}

/// Whether it is this machine's, or of a private network, where one's own proxies are.
pub(crate) fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: between a provider's own machines, as in some clusters.
            let is_shared = a == 100 && b & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => {
            ip == Ipv6Addr::LOCALHOST || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn said(ip: &str, connections: u64, header: &str, trusted: &[&str]) -> String {
        let mut proxies = Settings::development().proxies;
        proxies.trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let headers: HeaderMap =
            [(header.parse().unwrap(), "6.6.6.6".parse().unwrap())].into_iter().collect();
        let header = forwarded::carried(&headers).unwrap();
        Advice { ip: ip.parse().unwrap(), connections, header, proxies: &proxies }.to_string()
    }

    #[test]
    fn it_is_said_with_the_line_to_add() {
        assert_eq!(
            said("127.0.0.1", 2000, "x-forwarded-for", &[]),
            "2,000 connections from 127.0.0.1 carry X-Forwarded-For, but trusted_proxies is empty, so \
             login checks see 127.0.0.1 for everyone; if that is your nginx: \
             trusted_proxies = [\"127.0.0.1/32\"]"
        );
        assert_eq!(
            said("fd00::7", 20, "x-real-ip", &["10.0.0.0/8"]),
            "20 connections from fd00::7 carry X-Real-IP, but trusted_proxies is without it, so login \
             checks see fd00::7 for everyone; if that is your nginx: add \"fd00::7/128\" to \
             trusted_proxies and client_address_header = \"x-real-ip\""
        );
    }

    #[test]
    fn a_declared_proxy_that_sets_another_header_is_told_of_too() {
        assert_eq!(
            said("10.0.0.7", 20, "x-real-ip", &["10.0.0.0/8"]),
            "20 connections from 10.0.0.7 carry X-Real-IP, but no X-Forwarded-For, which is what \
             client_address_header names, so login checks see 10.0.0.7 for everyone; let the proxy set \
             X-Forwarded-For, or name the header that it sets"
        );
    }

    #[test]
    fn it_is_said_when_the_crowd_has_grown_tenfold() {
        let undeclared = Undeclared::default();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let said: Vec<u64> =
            (0..2500).filter_map(|_| undeclared.count(ip, Brings::Header)).collect();
        assert_eq!(said, [20, 200, 2000]);
    }

    #[test]
    fn many_clients_at_one_address_and_no_header_is_said_once() {
        let undeclared = Undeclared::default();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let said: Vec<u64> =
            (0..2500).filter_map(|_| undeclared.count(ip, Brings::Client)).collect();
        assert_eq!(said, [200]);
        let mut proxies = Settings::development().proxies;
        let header = AddressHeader::XForwardedFor;
        let said = |proxies: &Proxies| Silent { ip, clients: 200, header, proxies }.to_string();
        assert_eq!(
            said(&proxies),
            "200 clients have come from 127.0.0.1 without X-Forwarded-For, so login checks see \
             127.0.0.1 for everyone; if that is your nginx, write beside its other \
             proxy_set_header lines: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; and in throng's \
             configuration: trusted_proxies = [\"127.0.0.1/32\"]"
        );
        proxies.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        assert!(said(&proxies).ends_with("$proxy_add_x_forwarded_for;"));
    }

    #[test]
    fn many_addresses_do_not_take_many_places() {
        let undeclared = Undeclared::default();
        let busy = IpAddr::from([10, 0, 0, 1]);
        for number in 0..10_000_u32 {
            let ip = IpAddr::from((0xc0a8_0000 | number).to_be_bytes());
            undeclared.count(ip, Brings::Header);
            if number % 100 == 0 {
                undeclared.count(busy, Brings::Header);
            }
        }
        let peers = undeclared.0.lock();
        assert_eq!(peers.len(), PEERS_MAX);
        assert!(peers.iter().any(|peer| peer.ip == busy && peer.connections > 20));
    }

    #[test]
    fn only_near_addresses_can_be_a_proxy_of_ours() {
        let near = |ip: &str| is_near(ip.parse().unwrap());
        for ip in
            ["127.0.0.9", "10.1.1.1", "172.18.0.2", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"]
        {
            assert!(near(ip), "{ip}");
        }
        for ip in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(!near(ip), "{ip}");
        }
    }
}
