//! Where a URL leads: host, port, path and the address behind them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::failure::Failure;

/// A server and a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As written, without brackets.
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
    /// What the host resolved to.
    pub address: SocketAddr,
}

impl Target {
    /// Reads a `ws://` URL and resolves its host.
    ///
    /// # Errors
    /// When it is no such URL, or the host has no address.
    pub fn websocket(url: &str) -> Result<Self, Failure> {
        Self::parse(url, "ws")
    }

    /// Reads a `wss://` URL and resolves its host.
    ///
    /// # Errors
    /// When it is no such URL, or the host has no address.
    pub fn secure_websocket(url: &str) -> Result<Self, Failure> {
        Self::parse(url, "wss")
    }

    /// Reads an `http://` URL and resolves its host.
    ///
    /// # Errors
    /// When it is no such URL, or the host has no address.
    pub fn http(url: &str) -> Result<Self, Failure> {
        Self::parse(url, "http")
    }

    /// Reads the URL of a crowd, `ws://` or, of server-sent events, `http://`. Returns besides whether
    /// it is the latter.
    ///
    /// # Errors
    /// When it is neither, or the host has no address.
    pub fn of_crowd(url: &str) -> Result<(Self, bool), Failure> {
        let is_http = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let target = if is_http { Self::http(url) } else { Self::websocket(url) };
        target.map(|target| (target, is_http))
    }

    /// Another path on the same server.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The value of the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    fn parse(url: &str, scheme: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::new(
                format!("cannot use the URL {url}"),
                why,
                format!("write it as {scheme}://HOST:PORT/PATH"),
            )
        };
        let Some((given, rest)) = url.split_once("://") else {
            return Err(bad("it names no scheme"));
        };
        if given.eq_ignore_ascii_case(&format!("{scheme}s")) {
            return Err(Failure::new(
                format!("cannot use the URL {url}"),
                "connections with TLS are not measured yet",
                format!("measure the server behind the TLS, with {scheme}://"),
            ));
        }
        if !given.eq_ignore_ascii_case(scheme) {
            return Err(bad(&format!("its scheme is not {scheme}")));
        }
        let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let (host, port) = host_and_port(authority, if scheme == "wss" { 443 } else { 80 })
            .ok_or_else(|| bad("its host or port is wrong"))?;
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let address = resolve(host, port)?;
        Ok(Self { host: host.to_owned(), port, path, address })
    }
}

fn host_and_port(authority: &str, usual: u16) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(usual), |port| port.parse().ok())?;
    (!host.is_empty()).then_some((host, port))
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let unresolved =
        |why: String| Failure::new(format!("cannot find the host {host}"), why, "check its name");
    let mut addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?.collect();
    // 127.0.0.0/8 has 16 million source addresses, ::1 is alone: with it 28,000 clients would be all.
    addresses.sort_by_key(|address| match address.ip() {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    });
    addresses.first().copied().ok_or_else(|| unresolved("it has no address".to_owned()))
}

#[cfg(test)]
mod tests;
