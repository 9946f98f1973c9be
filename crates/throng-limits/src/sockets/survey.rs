//! Finds a process's sockets in the kernel's tables, and sums them up.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::descriptors::{Descriptors, Holding};
use crate::doctor::Unseen;
use crate::tree::printable;

use super::crowd::Behind;
use super::inet::{FAMILIES, FILTER_PORTS_MAX, MPTCP, Question, RAW, TCP, UDP};
use super::row::{Row, Timer};
use super::silence::{Silence, Spoken, silence};
use super::source::Source;
use super::state::State;
use super::unix::{self, UnixRow};
use super::{
    LISTENERS_MAX, Listener, Owned, PortUse, SAMPLE_MAX, SHOWN_MAX, UnixListener, Upstream,
    missing_table,
};

/// BOUNDED: sockets whose protocol is asked for, to leave out tables. When more are unknown, every
/// table is read.
const NAMED_MAX: usize = 1024;
/// BOUNDED: pairs of source and target whose ports are counted; the busiest come early.
const PORT_PAIRS_MAX: usize = 1 << 16;
/// BOUNDED: paths of Unix sockets that are remembered, as another process's end has the path.
const PATHS_MAX: usize = 1 << 16;

/// The search for one process's sockets.
pub(super) struct Survey<'a> {
    open: &'a Descriptors,
    /// Ascending, each once.
    inodes: Vec<u32>,
    found: Vec<bool>,
    /// Ports at which the namespace listens, ascending.
    listening: Vec<u16>,
    listeners: Vec<Listener>,
    /// The families of the process's own listeners.
    families: Vec<u8>,
    peers: Vec<IpAddr>,
    close_wait: Vec<IpAddr>,
    outbound: Vec<(IpAddr, SocketAddr)>,
    ports: HashMap<(IpAddr, SocketAddr), u32>,
    upstreams: Vec<Upstream>,
    established_inbound: u32,
    owned: Owned,
}

impl<'a> Survey<'a> {
    pub(super) fn new(open: &'a Descriptors) -> Self {
        let mut inodes: Vec<u32> = open.sockets.iter().map(|holding| holding.inode).collect();
        inodes.dedup();
        let duplicates = open.sockets.len() - inodes.len();
        if !open.crowd.is_empty() {
            inodes.extend(&open.crowd);
            inodes.sort_unstable();
        }
        let owned = Owned {
            sockets: counted(inodes.len()),
            duplicates: counted(duplicates),
            ..Owned::default()
        };
        Self {
            open,
            found: vec![false; inodes.len()],
            inodes,
            listening: Vec::new(),
            listeners: Vec::new(),
            families: Vec::new(),
            peers: Vec::new(),
            close_wait: Vec::new(),
            outbound: Vec::new(),
            ports: HashMap::new(),
            upstreams: Vec::new(),
            established_inbound: 0,
            owned,
        }
    }

    pub(super) fn inodes(&self) -> &[u32] {
        &self.inodes
    }

    /// The numbers of all descriptors that are sockets.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.open.sockets.iter().map(|holding| holding.number).collect()
    }

    /// Looks until every socket is found, or there is no table left.
    /// `behind` is what is behind the process's own listeners, where that is known already.
    pub(super) fn run(
        &mut self,
        source: &mut Source<'_>,
        behind: Option<Behind>,
        unseen: &mut Vec<Unseen>,
    ) {
        let mut tried = |what: &str, done: io::Result<()>| {
            if let Err(error) = done {
                unseen.push(missing_table(what, &error));
            }
        };
        tried("TCP", self.look_at_listeners(source));
        if !source.is_kernel() {
            self.listeners.iter_mut().for_each(Listener::forget_zero);
        }
        match behind {
            Some(behind) => behind.iter().for_each(|(row, family)| self.take_behind(row, *family)),
            None => tried("TCP", self.look_behind_own_listeners(source)),
        }
        let unknown = Unknown::of(self, source);
        if unknown.may_be("TCP") {
            tried("TCP", self.look_at_all_tcp(source));
        }
        if unknown.may_be("MPTCP") && source.is_kernel() {
            tried("MPTCP", self.look_at(source, MPTCP, Self::take));
        }
        if unknown.may_be("UDP") {
            let look = |survey: &mut Self, row: &Row, _| {
                survey.count(row.inode, |owned| &mut owned.udp);
            };
            tried("UDP", self.look_at(source, UDP, look));
        }
        if unknown.may_be("UNIX") {
            tried("Unix", self.look_at_unix(source));
        }
        if unknown.may_be("RAW") {
            let look = |survey: &mut Self, row: &Row, _| {
                survey.count(row.inode, |owned| &mut owned.raw);
            };
            tried("raw", self.look_at(source, RAW, look));
        }
        if unknown.may_be("NETLINK") {
            let look = |inode| self.count(inode, |owned| &mut owned.netlink);
            tried("netlink", source.inodes(&unix::NETLINK, look));
        }
        if unknown.may_be("PACKET") {
            let look = |inode| self.count(inode, |owned| &mut owned.packet);
            tried("packet", source.inodes(&unix::PACKET, look));
        }
        self.name_the_rest(source);
        self.owned.silence = self.silence_of(source, State::Established);
        self.owned.close_wait_silence = self.silence_of(source, State::CloseWait);
    }

    /// The result. Its order does not depend on the order of the tables.
    pub(super) fn finish(mut self) -> (Vec<Listener>, Owned) {
        self.listeners.sort_by_key(|listener| (listener.local, listener.inode));
        let mut owned = self.owned;
        let peers = ranked(self.peers);
        owned.peers_in_all = counted(peers.len());
        owned.peers = peers.into_iter().take(SHOWN_MAX).collect();
        owned.close_wait_peers = ranked(self.close_wait).into_iter().take(SHOWN_MAX).collect();
        owned.ports = port_use(&self.outbound, &self.ports);
        self.upstreams.extend(self.outbound.iter().map(|(_, target)| Upstream::Tcp(*target)));
        owned.upstreams = ranked(self.upstreams).into_iter().take(SHOWN_MAX).collect();
        owned.unix_listeners.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        (self.listeners, owned)
    }

    fn look_at_listeners(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let mut seen = 0;
        for family in FAMILIES {
            let question = Question { family, states: State::Listen.bit(), ..Question::all(TCP) };
            source.rows(question, |row| {
                seen += 1;
                if seen <= LISTENERS_MAX {
                    self.listening.push(row.local.port());
                    self.take(&row, family);
                }
            })?;
        }
        self.listening.sort_unstable();
        self.listening.dedup();
        Ok(())
    }

    fn look_behind_own_listeners(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let ports = self.own_ports();
        if ports.is_empty() || ports.len() > FILTER_PORTS_MAX {
            return Ok(());
        }
        for family in self.families.clone() {
            let question = Question::behind(family, &ports);
            source.rows(question, |row| self.take_behind(&row, family))?;
        }
        Ok(())
    }

    fn take_behind(&mut self, row: &Row, family: u8) {
        self.count_request(row);
        self.take(row, family);
    }

    /// The ports at which the process listens, ascending.
    fn own_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.listeners.iter().map(|own| own.local.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Counts a connection that is not there yet: it has no socket, and nobody holds it.
    fn count_request(&mut self, row: &Row) {
        if matches!(row.state, State::SynReceived | State::Requested) && row.inode == 0 {
            let behind = |own: &&mut Listener| own.local.port() == row.local.port();
            if let Some(listener) = self.listeners.iter_mut().find(behind) {
                listener.requested = listener.requested.saturating_add(1);
            }
        }
    }

    fn look_at_all_tcp(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        self.look_at(source, TCP, |survey, row, family| {
            // A TCP socket that is closed is in no table, unless it has a port.
            let is_bound = row.state == State::Closed;
            let state = if is_bound { State::Bound } else { row.state };
            let row = Row { state, ..*row };
            survey.take(&row, family);
            survey.count_port(&row);
        })
    }

    fn look_at(
        &mut self,
        source: &mut Source<'_>,
        protocol: u16,
        mut take: impl FnMut(&mut Self, &Row, u8),
    ) -> io::Result<()> {
        for family in FAMILIES {
            let question = Question { family, ..Question::all(protocol) };
            source.rows(question, |row| take(self, &row, family))?;
        }
        Ok(())
    }

    /// Marks a socket as found. False when it is not the process's, or was found before.
    fn find(&mut self, inode: u32) -> bool {
        match self.inodes.binary_search(&inode) {
            Ok(place) => !std::mem::replace(&mut self.found[place], true),
            Err(_) => false,
        }
    }

    fn count(&mut self, inode: u32, which: fn(&mut Owned) -> &mut u32) {
        if self.find(inode) {
            *which(&mut self.owned) += 1;
        }
    }

    /// Counts a TCP socket, if it is the process's.
    fn take(&mut self, row: &Row, family: u8) {
        if !self.find(row.inode) {
            return;
        }
        self.owned.tcp.add(row.state);
        match row.state {
            State::Listen => {
                let number = self.open.number_of(row.inode);
                self.listeners.push(Listener::of(row, number));
                if !self.families.contains(&family) {
                    self.families.push(family);
                }
                return;
            }
            State::CloseWait => self.close_wait.push(row.peer.ip()),
            State::Established if row.timer == Timer::None => self.owned.unwatched += 1,
            _ => {}
        }
        self.owned.unread_bytes += u64::from(row.receive_queue);
        self.owned.unsent_bytes += u64::from(row.send_queue);
        if self.listening.binary_search(&row.local.port()).is_ok() {
            self.owned.inbound += 1;
            self.established_inbound += u32::from(row.state == State::Established);
            self.peers.push(row.peer.ip());
        } else if row.peer.port() != 0 {
            self.owned.outbound += 1;
            self.outbound.push((row.local.ip(), row.peer));
        }
    }

    /// Counts the port that a connection takes, whoever made it.
    fn count_port(&mut self, row: &Row) {
        if row.state == State::Bound {
            self.owned.bound = self.owned.bound.saturating_add(1);
        }
        if row.peer.port() == 0 || self.listening.binary_search(&row.local.port()).is_ok() {
            return;
        }
        let pair = (row.local.ip(), row.peer);
        if let Some(count) = self.ports.get_mut(&pair) {
            *count += 1;
        } else if self.ports.len() < PORT_PAIRS_MAX {
            self.ports.insert(pair, 1);
        }
    }

    fn look_at_unix(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let mut paths: HashMap<u32, String> = HashMap::new();
        let mut connected = Vec::new();
        source.unix(|row| {
            if self.find(row.inode) {
                self.owned.unix += 1;
                if row.listens {
                    self.owned.unix_listeners.push(unix_listener(&row));
                } else if row.path.is_empty() && row.peer != 0 {
                    connected.push(row.peer);
                }
            }
            if !row.listens && !row.path.is_empty() && paths.len() < PATHS_MAX {
                paths.insert(row.inode, row.path);
            }
        })?;
        // Who accepted has the listener's path; who connected has none.
        let upstreams = connected.iter().filter_map(|peer| paths.get(peer));
        self.upstreams.extend(upstreams.map(|path| Upstream::Unix(printable(path))));
        Ok(())
    }

    fn missing(&self) -> impl Iterator<Item = Holding> {
        let missing = self.inodes.iter().zip(&self.found).filter(|(_, found)| !**found);
        missing.filter_map(|(inode, _)| {
            let number = self.open.number_of(*inode)?;
            Some(Holding { inode: *inode, number })
        })
    }

    /// Sockets that are in no table: each is closed by now, of a family we do not look into, or
    /// connected to nothing.
    fn name_the_rest(&mut self, source: &mut Source<'_>) {
        let mut unhashed = Vec::new();
        let mut others = Vec::new();
        let mut closed = 0;
        for holding in self.missing() {
            if !source.still_holds(holding) {
                closed += 1;
                continue;
            }
            let name = source.protocol_name(holding.number);
            let name = name.unwrap_or_else(|| "unknown".to_owned());
            if LOOKED_INTO.iter().any(|known| name.starts_with(known)) || name == "unknown" {
                unhashed.push(name);
            } else {
                others.push(name);
            }
        }
        self.owned.closed = closed;
        self.owned.unhashed = ranked(unhashed);
        self.owned.others = ranked(others);
    }

    fn silence_of(&self, source: &mut Source<'_>, state: State) -> Option<Silence> {
        let is_inbound = state == State::Established;
        let of = if is_inbound { self.established_inbound } else { self.owned.tcp.get(state) };
        let ports = self.own_ports();
        // What comes in is the crowd; a leak may be on either side.
        let local_ports = match &ports[..] {
            _ if !is_inbound => &[],
            [] => return None,
            many if many.len() > FILTER_PORTS_MAX => &[],
            few => few,
        };
        if of == 0 {
            return None;
        }
        let mut sample: Vec<Spoken> = Vec::new();
        for family in FAMILIES {
            let question = Question {
                family,
                states: state.bit(),
                local_ports,
                info: true,
                ..Question::all(TCP)
            };
            let left = SAMPLE_MAX - sample.len();
            let mine = |inode| self.inodes.binary_search(&inode).is_ok();
            if left > 0
                && let Ok(samples) = source.samples(question, left, mine)
            {
                sample.extend(samples.iter().map(|sample| sample.spoken));
            }
        }
        (!sample.is_empty()).then(|| silence(&sample, of))
    }
}

/// Beginnings of the names of protocols whose tables are read.
const LOOKED_INTO: [&str; 7] = ["TCP", "MPTCP", "UDP", "UNIX", "RAW", "NETLINK", "PACKET"];

/// What the sockets may be that were not found yet.
struct Unknown {
    names: Vec<String>,
    /// Nobody knows: all tables have to be read.
    any: bool,
}

impl Unknown {
    fn of(survey: &Survey<'_>, source: &mut Source<'_>) -> Self {
        let missing: Vec<Holding> = survey.missing().take(NAMED_MAX + 1).collect();
        let mut names = Vec::new();
        let mut any = missing.len() > NAMED_MAX;
        for holding in missing.iter().take(NAMED_MAX) {
            match source.protocol_name(holding.number) {
                Some(name) if names.contains(&name) => {}
                Some(name) => names.push(name),
                None => any = true,
            }
        }
        Self { names, any }
    }

    /// The kernel's names begin alike for all that is in one table: TCP and TCPv6, UNIX-STREAM.
    fn may_be(&self, protocol: &str) -> bool {
        self.any || self.names.iter().any(|name| name.starts_with(protocol))
    }
}

fn unix_listener(row: &UnixRow) -> UnixListener {
    UnixListener {
        path: printable(&row.path),
        inode: row.inode,
        waiting: row.waiting,
        backlog: row.backlog,
    }
}

/// Where ports are used up: by this process's connections, and where most are gone.
fn port_use(
    outbound: &[(IpAddr, SocketAddr)],
    all: &HashMap<(IpAddr, SocketAddr), u32>,
) -> Vec<PortUse> {
    let own: HashMap<_, _> = ranked(outbound.to_vec()).into_iter().collect();
    let mut used: Vec<PortUse> = all
        .iter()
        .map(|(pair, all)| PortUse {
            source: pair.0,
            target: pair.1,
            own: own.get(pair).copied().unwrap_or_default(),
            all: *all,
        })
        .collect();
    used.sort_by_key(|used| (std::cmp::Reverse(used.all), used.source, used.target));
    used.truncate(SHOWN_MAX);
    used
}

/// Each different thing and how often it occurs, the commonest first.
fn ranked<T: Ord>(mut things: Vec<T>) -> Vec<(T, u32)> {
    things.sort_unstable();
    let mut ranked: Vec<(T, u32)> = Vec::new();
    for thing in things {
        match ranked.last_mut() {
            Some((last, count)) if *last == thing => *count += 1,
            _ => ranked.push((thing, 1)),
        }
    }
    // Stable: of equally common ones the lesser first.
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked
}

fn counted(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
