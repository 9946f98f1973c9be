//! Opens sockets towards one server, from as many source addresses as it takes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Every source address of 127.0.x.0/24, without its first and last.
const ADDRESSES_PER_RANGE: u32 = 254;

/// Where to, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    to: SocketAddr,
    from: Sources,
}

/// Which source addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The one that the kernel chooses.
    Routed,
    /// 127.0.`third`.1 and up, `each` connections from one address.
    Loopback { third: u8, each: u32 },
}

impl Door {
    pub(crate) fn new(to: SocketAddr, from: Sources) -> Self {
        Self { to, from }
    }

    /// Begins to connect the client with this index.
    pub(crate) fn open(self, index: u32) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.to), kind, Some(Protocol::TCP))?;
        if let Some(source) = self.from.address(index) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.to.into()) {
            Ok(()) => {}
            // connect(2) of a socket that does not block: it goes on by itself.
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Publications go out one by one; none waits for the acknowledgement of the one before.
        socket.set_tcp_nodelay(true)?;
        Ok(TcpStream::from_std(socket.into()))
    }
}

/// Linux errno(3).
const EINPROGRESS: i32 = 115;

impl Sources {
    /// The source address of the client with this index.
    fn address(self, index: u32) -> Option<IpAddr> {
        let Self::Loopback { third, each } = self else { return None };
        let address = index / each.max(1);
        // Past the range of 254 addresses the next one is used.
        let third = third.wrapping_add(u8::try_from(address / ADDRESSES_PER_RANGE).ok()?);
        let last = u8::try_from(1 + address % ADDRESSES_PER_RANGE).ok()?;
        Some(IpAddr::V4(Ipv4Addr::new(127, 0, third, last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_filled_one_after_another() {
        let sources = Sources::Loopback { third: 0, each: 10 };
        let address = |index| sources.address(index).unwrap().to_string();
        assert_eq!(address(0), "127.0.0.1");
        assert_eq!(address(9), "127.0.0.1");
        assert_eq!(address(10), "127.0.0.2");
        assert_eq!(address(2539), "127.0.0.254");
        assert_eq!(address(2540), "127.0.1.1");
        assert_eq!(Sources::Routed.address(5), None);
    }

    #[test]
    fn connects_from_the_address_that_was_chosen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let door = Door::new(to, Sources::Loopback { third: 3, each: 1 });
        let _first = door.open(0).unwrap();
        let _second = door.open(1).unwrap();
        let mut peers: Vec<_> = (0..2).map(|_| listener.accept().unwrap().1.ip()).collect();
        peers.sort();
        assert_eq!(peers, ["127.0.3.1".parse::<IpAddr>().unwrap(), "127.0.3.2".parse().unwrap()]);
    }
}
