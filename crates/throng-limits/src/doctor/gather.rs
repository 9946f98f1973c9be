//! Reads the facts of one process. Whatever cannot be read is left out, and said.

use super::advice::wanted_limit;
use super::caps;
use super::facts::{Caller, Facts, Kernel, Listener, Open, Route, Select, Silence, WrittenFile};
use super::finding::{OriginReport, Unseen};
use super::logs;
use super::words::counted;
use crate::descriptors::{self, Descriptors, Written};
use crate::facts::identity::Rights;
use crate::facts::limits::parse_open_files;
use crate::facts::{Cgroup, FactError, Identity, Network, OpenFiles, kernel, waiting};
use crate::growth::{Sample, Trend};
use crate::origin::Origin;
use crate::sockets::{self, Namespace, Owned, Place, Sockets, State};
use crate::tree::{Tree, printable};

const EPOLL_WATCHES: &str = "sys/fs/epoll/max_user_watches";
const NOT_IN_COPY: &str = "the copy does not say; one that is made now does";
/// Watches are counted where a process has a tenth as many descriptors as it may watch.
const WATCHES_SHARE: u64 = 10;

/// What is asked about a process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// Connections that are wanted.
    pub need: Option<u64>,
    /// How it went in the last looks, where it is watched.
    pub trend: Option<Trend>,
    /// Connections that accept queues of its network lost since the first look.
    pub lost_lately: Option<u64>,
    /// Whether every descriptor is looked at, also where they can be counted.
    pub each: bool,
}

/// Reads everything that a diagnosis of a process rests on.
///
/// # Errors
/// When the process is not there, or has no limits, as a kernel thread's memory has none.
pub fn gather(tree: &Tree, pid: u32, ask: &Ask) -> Result<Facts, FactError> {
    let who = Identity::read(tree, pid)?;
    let path = format!("{pid}/limits");
    let limit = parse_open_files(&tree.read_proc(&path)?);
    let limit = limit.ok_or_else(|| {
        FactError::unexpected(format!("/proc/{path}").as_ref(), "row Max open files")
    })?;
    let mut unseen = Vec::new();
    let namespace = Namespace::of(tree, pid);
    let open = open(tree, &who, limit, ask.each, &mut unseen);
    let select = select(tree, &who);
    let mut facts = Facts {
        kernel: kernel(tree),
        network: Network::read(tree, pid, &namespace),
        cgroup: Cgroup::read(tree, pid),
        caller: caller(tree),
        now_s: tree.now_s(),
        need: ask.need,
        trend: ask.trend.clone(),
        lost_lately: ask.lost_lately,
        origin: OriginReport::default(),
        caps: Vec::new(),
        fronts: Vec::new(),
        open,
        select,
        limit,
        who,
        unseen,
    };
    caps::add(tree, &mut facts);
    match Origin::read(tree, pid) {
        Ok(origin) => facts.origin = origin.report(wanted_limit(&facts), None),
        Err(error) => facts.unseen.push(missing("who set its limit", &error)),
    }
    if tree.is_live() && !facts.who.is_zombie && tree.read_proc(&path).is_err() {
        facts.unseen.push(Unseen {
            what: "all of it".to_owned(),
            why: "the process ended while it was looked at".to_owned(),
            root_sees: false,
        });
    }
    Ok(facts)
}

/// One look at what a process has open, for a trend; `at_ms` is when.
#[must_use]
pub fn sample(tree: &Tree, pid: u32, at_ms: u64) -> Option<Sample> {
    let (found, sockets) = sockets::open_and_sockets(tree, pid, u64::MAX);
    let Ok(found) = found else {
        let open = descriptors::count(tree, pid).ok()?;
        return Some(Sample { at_ms, open, ..Sample::default() });
    };
    let owned = sockets.owned;
    Some(Sample {
        at_ms,
        open: found.count(),
        kinds: Some(found.kinds),
        states: owned.as_ref().map(|owned| owned.tcp),
        unhashed: owned.as_ref().map(Owned::unhashed_in_all),
    })
}

/// What the kernel allows everybody together.
#[must_use]
pub fn kernel(tree: &Tree) -> Kernel {
    let text = |name: &str| tree.read_proc(name).ok();
    let number = |name: &str| number(tree, name);
    let threads = text("loadavg").and_then(|load| {
        // proc(5): the fourth field is running/existing threads.
        load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
    });
    Kernel {
        nr_open: number("sys/fs/nr_open"),
        files: text("sys/fs/file-nr").and_then(|text| kernel::parse_file_numbers(&text)),
        threads_max: number("sys/kernel/threads-max"),
        pid_max: number("sys/kernel/pid_max"),
        threads,
        epoll_watches_max: number(EPOLL_WATCHES),
        inotify_instances_max: number("sys/fs/inotify/max_user_instances"),
    }
}

/// A number of the kernel's.
fn number(tree: &Tree, name: &str) -> Option<u64> {
    tree.read_proc(name).ok()?.trim().parse().ok()
}

/// Who asks: this process, or the one that made the copy.
#[must_use]
pub fn caller(tree: &Tree) -> Caller {
    let status = tree.read_proc("self/status").unwrap_or_default();
    let own = Identity::parse(0, &status);
    let limit = tree.read_proc("self/limits").ok();
    Caller {
        uid: own.as_ref().map_or(0, |own| own.user.effective),
        rights: own.map_or(Rights(0), |own| own.effective),
        limit: limit.as_deref().and_then(parse_open_files),
        is_live: tree.is_live(),
    }
}

fn missing(what: &str, error: &FactError) -> Unseen {
    Unseen {
        what: what.to_owned(),
        why: printable(&error.to_string()),
        root_sees: error.is_denied(),
    }
}

/// What a process has open, as far as it can be seen.
fn open(
    tree: &Tree,
    who: &Identity,
    limit: OpenFiles,
    each: bool,
    unseen: &mut Vec<Unseen>,
) -> Open {
    let pid = who.pid;
    let (found, sockets) = if each {
        let found = descriptors::descriptors(tree, pid);
        let sockets = sockets::sockets(tree, pid, found.as_ref().ok());
        (found, sockets)
    } else {
        sockets::open_and_sockets(tree, pid, limit.soft)
    };
    let found = match found {
        Ok(found) => Some(found),
        Err(error) => {
            unseen.push(missing("what its descriptors are", &error));
            None
        }
    };
    unseen.extend(sockets.unseen.iter().cloned());
    let mut open = Open::default();
    match &found {
        Some(found) => {
            held(tree, pid, limit, found, &mut open);
            let written = descriptors::written(tree, pid, found);
            let elsewhere = "on a disk of another machine, which may not answer";
            let many = if tree.is_live() { "so many are not asked" } else { NOT_IN_COPY };
            for (count, why) in [(written.unknown, many), (written.remote, elsewhere)] {
                if count > 0 {
                    let files = counted(u64::try_from(count).unwrap_or(u64::MAX), "file");
                    let what = format!("what room is left for {files}");
                    unseen.push(Unseen { what, why: why.to_owned(), root_sees: false });
                }
            }
            open.files = with_room(who, written.files);
        }
        None => match descriptors::count(tree, pid) {
            Ok(count) => open.count = Some(count),
            Err(error) => unseen.push(missing("how many descriptors it has", &error)),
        },
    }
    connected(pid, &sockets, found.is_some(), &mut open);
    open
}

fn held(tree: &Tree, pid: u32, limit: OpenFiles, found: &Descriptors, open: &mut Open) {
    open.count = Some(found.count());
    open.below_limit = Some(found.below(limit.soft));
    let kinds = found.kinds.ranked();
    open.kinds =
        kinds.into_iter().map(|(kind, count)| (kind.word().to_owned(), count.into())).collect();
    open.crowd = u64::try_from(found.crowd.len()).unwrap_or(u64::MAX);
    open.deleted = found.deleted.count.into();
    open.deleted_names = found.deleted.examples.iter().map(|(name, _)| name.clone()).collect();
    open.inotify = u64::try_from(found.inotifies.len()).unwrap_or(u64::MAX);
    // The kernel writes a line for each, which is half of the work of everything else: they are
    // read only where their limit may matter.
    let most = number(tree, EPOLL_WATCHES);
    if most.is_some_and(|most| found.count().saturating_mul(WATCHES_SHARE) >= most) {
        open.epoll_watched = descriptors::watches(tree, pid, found).by_epoll();
    }
}

/// The files it writes to, where there is a bound to that.
fn with_room(who: &Identity, written: Vec<Written>) -> Vec<WrittenFile> {
    let is_root = who.user.effective == 0;
    let files = written.into_iter().filter(|each| each.space.size > 0).map(|each| WrittenFile {
        is_log: logs::is_log(&each),
        taken: each.space.taken,
        free: if is_root { each.space.free_for_root } else { each.space.free },
        of: each.space.size,
        name: each.name,
        number: each.number,
        appends: each.appends,
        per_second: None,
    });
    files.collect()
}

fn connected(pid: u32, sockets: &Sockets, is_own: bool, open: &mut Open) {
    open.elsewhere = sockets.place == Place::Elsewhere;
    // Without its descriptors the listeners are everybody's in the namespace.
    if is_own {
        open.listeners = sockets.listeners.iter().map(|each| listener(pid, each)).collect();
        open.half_open = sockets.listeners.iter().map(|each| u64::from(each.requested)).sum();
    }
    let Some(owned) = &sockets.owned else { return };
    let named = |peers: &[(std::net::IpAddr, u32)]| -> Vec<(String, u64)> {
        peers.iter().map(|(address, count)| (address.to_string(), u64::from(*count))).collect()
    };
    let states = owned.tcp.ranked();
    open.states =
        states.into_iter().map(|(state, count)| (state.word().to_owned(), count.into())).collect();
    open.inbound = owned.inbound.into();
    open.outbound = owned.outbound.into();
    open.peers = named(&owned.peers);
    open.close_wait = owned.tcp.get(State::CloseWait).into();
    open.close_wait_peers = named(&owned.close_wait_peers);
    open.unhashed = owned.unhashed_in_all().into();
    open.routes = routes(owned);
    open.bound = owned.bound.into();
    open.unix_listeners.clone_from(&owned.unix_listeners);
    open.silence = owned.silence.map(|silence| Silence {
        idle: silence.share(silence.idle).into(),
        long: silence.share(silence.long).into(),
        lost: silence.share(silence.lost).into(),
        of: silence.of.into(),
    });
}

fn listener(pid: u32, each: &sockets::Listener) -> Listener {
    Listener {
        at: each.local.to_string(),
        port: each.local.port(),
        inode: each.inode.into(),
        waiting: each.waiting.into(),
        backlog: each.backlog.map(u64::from),
        at_file: if each.backlog.is_some() {
            format!("ss -tln sport = :{}", each.local.port())
        } else {
            format!("/proc/{pid}/net/tcp")
        },
    }
}

fn routes(owned: &Owned) -> Vec<Route> {
    let used = owned.ports.iter().map(|port| Route {
        from: port.source.to_string(),
        to: port.target.to_string(),
        used: port.all.into(),
    });
    used.collect()
}

fn select(tree: &Tree, who: &Identity) -> Select {
    if let Some(at) = waiting::in_select(tree, who.pid) {
        return Select::Proven { at };
    }
    // What an interpreter can do says nothing about the program that it runs.
    if who.is_interpreted() {
        return Select::Unknown;
    }
    let Some(imports) = waiting::imports(tree, who.pid) else { return Select::Unknown };
    match (imports.select, imports.poll) {
        (true, false) => Select::Proven {
            at: format!("/proc/{}/exe (imports select, and neither poll nor epoll)", who.pid),
        },
        (true, true) => Select::Imported,
        (false, _) => Select::No,
    }
}
