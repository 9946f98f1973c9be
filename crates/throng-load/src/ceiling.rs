//! How many clients this process can be, before it tries.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use throng_limits::facts::limits::{UNLIMITED, own_descriptors};
use throng_limits::raise::raise_open_files;

use crate::crowd::Sources;
use crate::failure::Failure;
use crate::target::Target;

/// Descriptors for everything that is not a client: the poll, the publisher, the neighbour, the
/// lines to the bare loop, `/proc` while it is read.
const DESCRIPTORS_KEPT: u64 = 32;
/// Of each of many source addresses only so many ports are used: bind(2) looks for a free one by
/// trying every second, so that at half of the range each try becomes thousands.
const SHARED_PERCENT: u32 = 25;
/// Of the only source address nearly all are: connect(2) looks more cleverly.
const ALONE_PERCENT: u32 = 90;
/// What Linux takes ports from when nobody changed it.
const PORTS_DEFAULT: (u32, u32) = (32_768, 60_999);

/// What this process may open, and what that allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The limit on open files, after raising it.
    pub descriptors_limit: u64,
    /// What it was.
    pub descriptors_limit_was: u64,
    /// How many are open already or kept for other things than clients.
    pub descriptors_taken: u64,
    /// How many ports of one source address are used.
    pub ports_per_address: u32,
    /// How many source addresses are used.
    pub source_addresses: u32,
    /// How many clients fit.
    pub clients_max: u64,
}

impl Ceiling {
    /// Raises the own limit and counts what is left towards this target.
    pub(crate) fn find(target: &Target, clients: u32) -> Result<Self, Failure> {
        let unknown = |error: &dyn std::fmt::Display| {
            Failure::new("the load cannot find its own ceiling", error, "is /proc mounted?")
        };
        let raised = raise_open_files().map_err(|error| unknown(&error))?;
        let open = own_descriptors().map_err(|error| unknown(&error))?;
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let (low, high) = range.ok().as_deref().and_then(parse_range).unwrap_or(PORTS_DEFAULT);
        let percent = if has_many_sources(target) { SHARED_PERCENT } else { ALONE_PERCENT };
        let ports = (high + 1).saturating_sub(low) * percent / 100;
        Ok(Self::reckon(raised.is.soft, open, ports, (target, clients)).was(raised.was.soft))
    }

    fn was(self, descriptors_limit_was: u64) -> Self {
        Self { descriptors_limit_was, ..self }
    }

    fn reckon(limit: u64, open: u64, ports: u32, (target, clients): (&Target, u32)) -> Self {
        let descriptors_taken = open + DESCRIPTORS_KEPT;
        let free =
            if limit == UNLIMITED { UNLIMITED } else { limit.saturating_sub(descriptors_taken) };
        let (source_addresses, clients_max) = if has_many_sources(target) {
            (clients.div_ceil(ports.max(1)).max(1), free)
        } else {
            (1, free.min(u64::from(ports)))
        };
        Self {
            descriptors_limit: limit,
            descriptors_limit_was: limit,
            descriptors_taken,
            ports_per_address: ports,
            source_addresses,
            clients_max,
        }
    }

    /// Refuses a crowd that does not fit.
    pub(crate) fn admit(&self, clients: u32) -> Result<(), Failure> {
        if u64::from(clients) <= self.clients_max {
            return Ok(());
        }
        let Self { descriptors_limit, descriptors_taken, ports_per_address, clients_max, .. } =
            self;
        let what = format!("this process cannot be {clients} clients");
        if *clients_max == u64::from(*ports_per_address) {
            return Err(Failure::new(
                what,
                format!("its one source address has {ports_per_address} ports for one server"),
                format!("measure with --clients {clients_max}, or from several addresses at once"),
            ));
        }
        Err(Failure::new(
            what,
            format!(
                "its limit on open files is {descriptors_limit}, of which {descriptors_taken} are \
                 taken"
            ),
            format!(
                "measure with --clients {clients_max}, or raise the hard limit (ulimit -Hn) first, \
                 or run several loads at once"
            ),
        ))
    }

    /// From where the clients connect; `third` tells two crowds on one machine apart.
    pub(crate) fn sources(&self, target: &Target, third: u8) -> Sources {
        if has_many_sources(target) {
            Sources::Loopback { third, each: self.ports_per_address }
        } else {
            Sources::Routed
        }
    }
}

impl std::fmt::Display for Ceiling {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { descriptors_limit, descriptors_limit_was, descriptors_taken, .. } = self;
        write!(
            out,
            "room for {} clients: limit on open files {descriptors_limit}",
            self.clients_max
        )?;
        if descriptors_limit != descriptors_limit_was {
            write!(out, " (raised from {descriptors_limit_was})")?;
        }
        let Self { ports_per_address, source_addresses, .. } = self;
        write!(
            out,
            ", {descriptors_taken} taken; {source_addresses} source address{} of \
             {ports_per_address} ports",
            if *source_addresses == 1 { "" } else { "es" },
        )
    }
}

/// All of 127.0.0.0/8 is this machine, so loopback has as many source addresses as one likes.
fn has_many_sources(target: &Target) -> bool {
    matches!(target.address.ip(), IpAddr::V4(address) if address.is_loopback())
}

fn parse_range(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(limit: u64, url: &str, clients: u32) -> String {
        let target = Target::websocket(url).unwrap();
        let ceiling = Ceiling::reckon(limit, 10, 19_000, (&target, clients)).was(1024);
        match ceiling.admit(clients) {
            Ok(()) => ceiling.to_string(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn says_what_there_is_room_for() {
        assert_eq!(
            refused(20_000, "ws://127.0.0.1:1/", 19_500),
            "room for 19958 clients: limit on open files 20000 (raised from 1024), 42 taken; \
             2 source addresses of 19000 ports"
        );
    }

    #[test]
    fn a_crowd_that_needs_more_descriptors_is_refused_with_what_fits() {
        let refused = refused(1024, "ws://127.0.0.1:1/", 3000);
        assert!(refused.contains("limit on open files is 1024"), "{refused}");
        assert!(refused.contains("--clients 982"), "{refused}");
    }

    #[test]
    fn one_source_address_is_a_ceiling_away_from_loopback() {
        let refused = refused(1 << 20, "ws://192.0.2.1:1/", 30_000);
        assert!(refused.contains("19000 ports"), "{refused}");
        assert!(refused.contains("--clients 19000"), "{refused}");
    }

    #[test]
    fn reads_the_range_of_ports() {
        assert_eq!(parse_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(parse_range("none"), None);
    }
}
