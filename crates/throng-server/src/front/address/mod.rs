//! The client's real address: who stands behind a connection, or behind the proxy that made it.
//!
//! Invariant NO-GUESS: a proxy's word counts only where the configuration names that proxy, in the
//! one header and the one protocol that it names. Everybody else is who their socket says.

mod forwarded;
mod proxy_protocol;
mod undeclared;

use std::io;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::proxy_protocol::{HEADER_BYTES_MAX, Introduced, Wrong};
use crate::config::{Network, Proxies, ProxyProtocol};
use crate::log::{Log, line};

pub(crate) use forwarded::is_forwarded;
pub(crate) use undeclared::{Undeclared, is_near};

/// Bytes that are looked at together: a PROXY header with some additions.
const LOOK_BYTES: usize = 536;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// Never an IPv4 address in IPv6's clothes.
    pub(crate) ip: IpAddr,
    pub(crate) told_by: ToldBy,
}

/// Who says where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToldBy {
    /// The kernel.
    Socket,
    /// A trusted proxy, in front of the connection.
    ProxyProtocol,
    /// A trusted proxy, in the request's head.
    Header,
}

impl ClientAddress {
    /// As the socket has it.
    pub(crate) fn of_socket(peer: SocketAddr) -> Self {
        Self { ip: peer.ip().to_canonical(), told_by: ToldBy::Socket }
    }

    /// Who asks with this request, on a connection from here.
    pub(crate) fn of_request(self, proxies: &Proxies, headers: &HeaderMap) -> Self {
        let is_trusted = |address| proxies.trusts(address);
        let Some(header) = proxies.header.filter(|_| is_trusted(self.ip)) else { return self };
        match forwarded::client(header, headers, self.ip, is_trusted) {
            Some(ip) => Self { ip, told_by: ToldBy::Header },
            None => self,
        }
    }
}

/// Reads the PROXY header off a new connection, if it must have one, and nothing behind it. None:
/// the connection is to be closed, and why is in the log.
pub(crate) async fn introduce(
    listener: Listener<'_>,
    socket: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Option<ClientAddress> {
    let own = ClientAddress::of_socket(peer);
    if listener.protocol == ProxyProtocol::Off {
        return Some(own);
    }
    if !listener.proxies.trusts(own.ip) {
        listener.refuse_stranger(own.ip);
        return None;
    }
    match timeout_at(deadline, read_header(listener.protocol, socket)).await {
        Ok(Ok(Introduced::Client(ip))) => {
            Some(ClientAddress { ip, told_by: ToldBy::ProxyProtocol })
        }
        Ok(Ok(Introduced::Itself)) => Some(own),
        Ok(Err(NoHeader::Wrong(wrong))) => listener.refuse_proxy(own.ip, wrong.because()),
        Err(_) => listener.refuse_proxy(own.ip, "its PROXY header did not come in time"),
        // A check of whether the port is open, or a client that went away: nobody is waiting.
        Ok(Err(NoHeader::Gone)) => None,
    }
}

/// What a listener wants of those who connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener<'a> {
    pub(crate) protocol: ProxyProtocol,
    /// The option that says so.
    pub(crate) option: &'static str,
    pub(crate) proxies: &'a Proxies,
    pub(crate) log: &'a Log,
}

impl Listener<'_> {
    fn refuse_stranger(&self, ip: IpAddr) {
        line!(
            self.log,
            Warn,
            "proxy_protocol.stranger",
            "a connection from {} was closed: it is not one of trusted_proxies, and {} = \"{}\" lets \
             in nobody else; if it is your proxy, add \"{}\" to trusted_proxies",
            ip,
            self.option,
            self.protocol.name(),
            Network::only(ip)
        );
    }

    /// Says it where what came instead of a request is a PROXY header that nobody wants.
    pub(super) fn no_request(&self, from: ClientAddress, input: &[u8]) {
        let Some(version) = proxy_protocol::version(input) else { return };
        // Behind a header that was wanted, another one is the client's own.
        if self.protocol != ProxyProtocol::Off {
            return;
        }
        line!(
            self.log,
            Warn,
            "proxy_protocol.off",
            "a connection from {} was closed: it begins with a PROXY header, and {} is \"off\"; if it \
             is your proxy: {} = \"{}\" and trusted_proxies = [\"{}\"]",
            from.ip,
            self.option,
            self.option,
            version.name(),
            Network::only(from.ip)
        );
    }

    fn refuse_proxy<T>(&self, ip: IpAddr, because: &str) -> Option<T> {
        line!(
            self.log,
            Warn,
            "proxy_protocol.header",
            "a connection from {} was closed: {}, and {} = \"{}\"; let the proxy send one (HAProxy: \
             send-proxy is v1, send-proxy-v2 is v2), or set the option to \"off\"",
            ip,
            because,
            self.option,
            self.protocol.name()
        );
        None
    }
}

/// Why a connection has no PROXY header.
enum NoHeader {
    Wrong(Wrong),
    Gone,
}

impl From<io::Error> for NoHeader {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Takes the header's bytes out of the socket. What is behind them stays there: bytes are looked at
/// before they are taken, and only those of the header are taken.
async fn read_header(
    protocol: ProxyProtocol,
    socket: &mut TcpStream,
) -> Result<Introduced, NoHeader> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    loop {
        let had = bytes.len();
        bytes.resize((had + LOOK_BYTES).min(HEADER_BYTES_MAX), 0);
        let seen = socket.peek(&mut bytes[had..]).await?;
        if seen == 0 {
            return Err(NoHeader::Gone);
        }
        bytes.truncate(had + seen);
        let header = proxy_protocol::read(protocol, &bytes).map_err(NoHeader::Wrong)?;
        // All that is there belongs to a header that goes on.
        let end = header.map_or(bytes.len(), |header| header.bytes);
        socket.read_exact(&mut bytes[had..end]).await?;
        if let Some(header) = header {
            return Ok(header.introduced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn an_ipv4_client_of_a_listener_for_all_addresses_is_an_ipv4_client() {
        let from = ClientAddress::of_socket("[::ffff:127.0.0.1]:4711".parse().unwrap());
        assert_eq!(from.ip, IpAddr::from([127, 0, 0, 1]));
        let mut proxies = Settings::development().proxies;
        proxies.trusted = vec!["127.0.0.1".parse().unwrap()];
        let headers = [("x-forwarded-for".parse().unwrap(), "::ffff:203.0.113.7".parse().unwrap())];
        let client = from.of_request(&proxies, &headers.into_iter().collect());
        let ip = IpAddr::from([203, 0, 113, 7]);
        assert_eq!(client, ClientAddress { ip, told_by: ToldBy::Header });
    }
}
