//! The sockets that are listened on: opened, or taken over from the process before.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::Settings;
use crate::front::Door;
use crate::front::accept::{address_of, listen};
use crate::serve::ServeError;

/// The sockets that are listened on.
pub(crate) struct Listeners {
    public: Arc<TcpListener>,
    internal: Option<Arc<TcpListener>>,
    /// Those of gRPC.
    others: Vec<(Door, Arc<TcpListener>)>,
    pub(crate) address: SocketAddr,
    pub(crate) internal_address: Option<SocketAddr>,
}

/// A port that was wanted and taken, and by whom.
pub(crate) type Taken = (u16, String);

impl Listeners {
    /// Opens what the configuration names. With `any_port`, another port where that is taken.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(crate) fn open(
        settings: &Settings,
        any_port: bool,
    ) -> Result<(Self, Option<Taken>), ServeError> {
        let http = &settings.http;
        let (public, taken) = match open(&http.address, http.port) {
            Err(ServeError::Listen { error, holder, .. })
                if any_port && error.kind() == io::ErrorKind::AddrInUse =>
            {
                let next = (1..=100)
                    .find_map(|step| open(&http.address, http.port.checked_add(step)?).ok());
                let other = match next {
                    Some(listener) => listener,
                    None => open(&http.address, 0)?,
                };
                (other, Some((http.port, holder.unwrap_or_default())))
            }
            other => (other?, None),
        };
        let internal = internal_of(settings).map(|(address, port)| open(address, port));
        let others = others_of(settings).map(|(door, address, port)| {
            open(address, port).map(|listener| (door, listener)).map_err(|e| of_option(e, door))
        });
        let others = others.collect::<Result<_, _>>()?;
        Ok((Self::of(public, internal.transpose()?, others)?, taken))
    }

    /// Takes over from another process what the configuration still names, and opens the rest; what
    /// it names no more is closed here.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(crate) fn inherit(
        inherited: Vec<(Door, TcpListener)>,
        settings: &Settings,
        any_port: bool,
    ) -> Result<Self, ServeError> {
        let (mut public, mut internal, mut kept) = (None, None, Vec::new());
        for (door, listener) in inherited {
            match door {
                Door::Both | Door::Public => public = Some(listener),
                Door::Internal => internal = Some(listener),
                other => kept.push((other, listener)),
            }
        }
        let http = &settings.http;
        let public = public.filter(|one| any_port || is_at(one, &http.address, http.port));
        let public = public.map_or_else(|| open(&http.address, http.port), Ok)?;
        let internal = internal_of(settings).map(|(address, port)| {
            internal.filter(|one| is_at(one, address, port)).map_or_else(|| open(address, port), Ok)
        });
        let others = others_of(settings).map(|(door, address, port)| {
            let same = |(of, one): &(Door, TcpListener)| *of == door && is_at(one, address, port);
            match kept.iter().position(same) {
                Some(at) => Ok(kept.swap_remove(at)),
                None => open(address, port).map(|new| (door, new)).map_err(|e| of_option(e, door)),
            }
        });
        let others = others.collect::<Result<_, _>>()?;
        Self::of(public, internal.transpose()?, others)
    }

    fn of(
        public: TcpListener,
        internal: Option<TcpListener>,
        others: Vec<(Door, TcpListener)>,
    ) -> Result<Self, ServeError> {
        let local = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| ServeError::Start { what: "a listener", error })
        };
        let address = local(&public)?;
        let internal_address = internal.as_ref().map(local).transpose()?;
        let (public, internal) = (Arc::new(public), internal.map(Arc::new));
        let others = others.into_iter().map(|(door, one)| (door, Arc::new(one))).collect();
        Ok(Self { public, internal, others, address, internal_address })
    }

    /// The one that clients connect to.
    pub(crate) fn public(&self) -> &TcpListener {
        &self.public
    }

    /// Every listener with what is behind it.
    pub(crate) fn doors(&self) -> Vec<(Door, Arc<TcpListener>)> {
        let door = if self.internal.is_some() { Door::Public } else { Door::Both };
        let mut doors = vec![(door, Arc::clone(&self.public))];
        doors.extend(self.internal.iter().map(|one| (Door::Internal, Arc::clone(one))));
        doors.extend(self.others.iter().cloned());
        doors
    }
}

/// Where the internal port is, if it is another than the public one.
fn internal_of(settings: &Settings) -> Option<(&str, u16)> {
    let http = &settings.http;
    let port = http.internal_port.filter(|port| *port != http.port)?;
    let own = &http.internal_address;
    Some((if own.is_empty() { &http.address } else { own }, port))
}

/// The ports of gRPC, where they are on.
fn others_of(settings: &Settings) -> impl Iterator<Item = (Door, &str, u16)> {
    let (api, uni) = (settings.grpc_api.as_ref(), settings.uni_grpc.as_ref());
    let api = api.map(|api| (Door::GrpcApi, api.address.as_str(), api.port));
    let uni = uni.map(|uni| (Door::UniGrpc, uni.address.as_str(), uni.port));
    api.into_iter().chain(uni)
}

/// Names the option of a port that cannot be had.
fn of_option(error: ServeError, door: Door) -> ServeError {
    match error {
        ServeError::Listen { address, error, holder, .. } => {
            let option = match door {
                Door::GrpcApi => "grpc_api.port",
                Door::UniGrpc => "uni_grpc.port",
                Door::Both | Door::Public | Door::Internal => "http_server.port",
            };
            ServeError::Listen { address, error, holder, option }
        }
        other => other,
    }
}

/// Whether a listener is what an address and a port name; port 0 is any.
fn is_at(listener: &TcpListener, address: &str, port: u16) -> bool {
    let (Ok(is), Ok(wanted)) = (listener.local_addr(), address_of(address, port)) else {
        return false;
    };
    let same_place =
        is.ip() == wanted.ip() || (is.ip().is_unspecified() && wanted.ip().is_unspecified());
    same_place && (port == 0 || is.port() == port)
}

fn open(address: &str, port: u16) -> Result<TcpListener, ServeError> {
    let opened = address_of(address, port).and_then(|at| match listen(at) {
        // A machine without IPv6 has no `::`.
        Err(_) if address.is_empty() && at.is_ipv6() && !has_ipv6() => {
            listen(SocketAddr::from(([0, 0, 0, 0], port)))
        }
        other => other,
    });
    opened.map_err(|error| {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let holder = in_use.then(|| {
            throng_limits::facts::listener_holder(port)
                .unwrap_or_else(|| "somebody who cannot be seen from here".to_owned())
        });
        let address =
            if address.is_empty() { format!("*:{port}") } else { format!("{address}:{port}") };
        ServeError::Listen { address, error, holder, option: "http_server.port" }
    })
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(port: u16, internal: Option<u16>) -> Settings {
        let mut settings = Settings::development();
        settings.http.address = "127.0.0.1".to_owned();
        settings.http.port = port;
        settings.http.internal_port = internal;
        settings
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn what_the_configuration_still_names_is_taken_over_and_the_rest_opened() {
        let old = open("127.0.0.1", 0).unwrap();
        let kept = port(&old);
        let again = old.try_clone().unwrap();
        let same =
            Listeners::inherit(vec![(Door::Both, old)], &settings(kept, None), false).unwrap();
        assert_eq!(same.address.port(), kept);
        // With an internal port now, and another public one.
        let free = port(&open("127.0.0.1", 0).unwrap());
        let other = settings(free, Some(port(&open("127.0.0.1", 0).unwrap())));
        let other = Listeners::inherit(vec![(Door::Both, again)], &other, false).unwrap();
        assert_eq!(other.address.port(), free);
        assert_eq!(other.doors().len(), 2);
        assert_eq!(other.doors()[0].0, Door::Public);
    }

    #[test]
    fn a_port_that_is_taken_is_said_with_its_holder() {
        let (old, held) = (open("127.0.0.1", 0).unwrap(), open("127.0.0.1", 0).unwrap());
        let wanted = settings(port(&held), None);
        let error = Listeners::inherit(vec![(Door::Both, old)], &wanted, false).err().unwrap();
        assert!(error.to_string().contains("holds it"), "{error}");
    }
}
