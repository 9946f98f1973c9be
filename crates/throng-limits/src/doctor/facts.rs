//! Everything a diagnosis rests on, as values: no check reads anything itself.

use super::finding::{OriginReport, Unseen};
use crate::facts::identity::Rights;
use crate::facts::kernel::FileNumbers;
use crate::facts::{Cgroup, Identity, Network, OpenFiles};
use crate::growth::Trend;
pub use crate::sockets::UnixListener;

/// A process, what holds for it, and who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub who: Identity,
    pub limit: OpenFiles,
    pub now_s: i64,
    pub kernel: Kernel,
    pub network: Network,
    pub cgroup: Cgroup,
    pub open: Open,
    pub origin: OriginReport,
    /// What its configuration allows.
    pub caps: Vec<Cap>,
    /// Who stands in front of it.
    pub fronts: Vec<Front>,
    pub select: Select,
    pub caller: Caller,
    /// Connections that are wanted.
    pub need: Option<u64>,
    /// How it went in the last looks, where it is watched.
    pub trend: Option<Trend>,
    /// Connections that accept queues of its network lost since the first look.
    pub lost_lately: Option<u64>,
    pub unseen: Vec<Unseen>,
}

/// What the kernel allows everybody together; what could not be read is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernel {
    pub nr_open: Option<u64>,
    pub files: Option<FileNumbers>,
    pub threads_max: Option<u64>,
    pub pid_max: Option<u64>,
    pub threads: Option<u64>,
    pub epoll_watches_max: Option<u64>,
    pub inotify_instances_max: Option<u64>,
}

/// What a process has open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Open {
    /// Descriptors; none where not even their number can be seen.
    pub count: Option<u64>,
    /// Of these, the ones below the limit: `RLIMIT_NOFILE` bounds the number of a descriptor, not
    /// how many there are.
    pub below_limit: Option<u64>,
    /// By what they are, most first.
    pub kinds: Vec<(String, u64)>,
    /// Sockets behind its listeners that were counted, and not looked at one by one.
    pub crowd: u64,
    /// TCP sockets by state, as netstat calls them, most first.
    pub states: Vec<(String, u64)>,
    pub listeners: Vec<Listener>,
    /// Its listeners of the Unix family.
    pub unix_listeners: Vec<UnixListener>,
    /// Established connections that came to one of its listeners.
    pub inbound: u64,
    /// Established connections that it made.
    pub outbound: u64,
    /// From whom the inbound ones come, most first.
    pub peers: Vec<(String, u64)>,
    /// Ports taken by (source address, target), most first.
    pub routes: Vec<Route>,
    /// Ports of its network that somebody has bound, and that are connected to nothing.
    pub bound: u64,
    /// Sockets that the peer has closed and the process has not.
    pub close_wait: u64,
    /// To whom those belong, most first.
    pub close_wait_peers: Vec<(String, u64)>,
    /// Sockets of no table: created, or shut down, and never closed.
    pub unhashed: u64,
    /// Files that nobody can open any more, with their names.
    pub deleted: u64,
    pub deleted_names: Vec<String>,
    /// Connections that wait for the third packet of their handshake.
    pub half_open: u64,
    pub inotify: u64,
    pub epoll_watched: u64,
    /// Files that it writes to, and what room they have.
    pub files: Vec<WrittenFile>,
    /// Whether its network is another than that of whoever asks.
    pub elsewhere: bool,
    /// How silent the inbound connections are.
    pub silence: Option<Silence>,
}

/// A listener of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port.
    pub at: String,
    pub port: u16,
    pub inode: u64,
    /// Connections that wait to be accepted.
    pub waiting: u64,
    /// How many may wait; none where the kernel's text does not say.
    pub backlog: Option<u64>,
    pub at_file: String,
}

/// A file that the process writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// As the process sees it.
    pub name: String,
    pub number: u32,
    /// Bytes that come back when it is emptied.
    pub taken: u64,
    /// Bytes that the process may still write where it lies.
    pub free: u64,
    /// Bytes that the file system has in all.
    pub of: u64,
    pub appends: bool,
    /// Whether it is a log, by all that can be seen: only written, and either the output of the
    /// program or a file that is named like one and appended to.
    pub is_log: bool,
    /// Bytes a second by which it grew since the last look, where it is watched.
    pub per_second: Option<u64>,
}

/// Connections from one source to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub from: String,
    pub to: String,
    pub used: u64,
}

/// How silent connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Connections in which nothing moved for a minute.
    pub idle: u64,
    /// Connections in which nothing moved for ten minutes.
    pub long: u64,
    /// Connections that have something to acknowledge and do not.
    pub lost: u64,
    pub of: u64,
}

/// What an application's own configuration allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// The option, such as `worker_connections`.
    pub option: String,
    pub limit: u64,
    pub used: u64,
    /// Thousandths of it that one user takes.
    pub cost_milli: u64,
    pub there_are: u64,
    /// File and line, such as `/etc/nginx/nginx.conf:9`, or the command that says it.
    pub at: String,
    /// It may be less: what it was told cannot be seen.
    pub at_most: bool,
    /// What makes the edits count, as it is typed; `{N}` stands for the number.
    pub apply: String,
    /// The edits of its files, as they are typed. None where they depend on how it was set up.
    pub steps: Vec<Step>,
    pub takes: Takes,
}

/// An edit of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As it is typed; `{N}` stands for the number.
    pub command: String,
    /// What it changes is this now: it is not needed where this is enough.
    pub now: u64,
}

/// What an application takes of descriptors, when its cap is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takes {
    /// For one more of its cap.
    pub each: u64,
    /// Besides.
    pub kept: u64,
    /// It begins as root, and raises its own hard limit.
    pub raises_hard: bool,
}

/// A proxy before this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    pub name: String,
    pub pid: u32,
    /// Users that it lets through, by what.
    pub users: u64,
    pub by: String,
    pub at: String,
}

/// Whether a process waits with `select()`, which knows no descriptor above 1023.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Select {
    #[default]
    Unknown,
    /// It does not even import it.
    No,
    /// It imports it, which proves little.
    Imported,
    /// It was seen waiting in it.
    Proven { at: String },
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub rights: Rights,
    /// What the shell has that the question was typed in.
    pub limit: Option<OpenFiles>,
    /// Whether the process runs on this machine, so that something can be done.
    pub is_live: bool,
}

/// A proxy costs two descriptors a user: one to the user, one to the application.
const PROXIES: [&str; 6] = ["nginx", "haproxy", "envoy", "traefik", "caddy", "squid"];
/// From so many connections on, their ratio tells what one costs.
const RATIO_FROM: u64 = 20;

impl Facts {
    /// Connections that there are.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.open.inbound
    }

    /// Thousandths of a descriptor that one connection costs.
    #[must_use]
    pub fn descriptors_milli(&self) -> u64 {
        if self.is_proxy() { 2000 } else { 1000 }
    }

    /// Whether every user is a connection to somewhere else too.
    #[must_use]
    pub fn is_proxy(&self) -> bool {
        let Open { inbound, outbound, .. } = self.open;
        if inbound >= RATIO_FROM {
            return outbound * 2 > inbound;
        }
        PROXIES.contains(&self.who.program())
    }

    /// A command as whoever asks has to type it: root needs no sudo, and a container has none.
    #[must_use]
    pub fn typed(&self, command: &str) -> String {
        if self.caller.uid == 0 { command.replace("sudo ", "") } else { command.to_owned() }
    }

    /// A command that asks about, or changes, the network that the process is in.
    #[must_use]
    pub fn in_network(&self, command: &str) -> String {
        if self.open.elsewhere {
            let command = command.strip_prefix("sudo ").unwrap_or(command);
            format!("sudo nsenter -t {} -n {command}", self.who.pid)
        } else {
            command.to_owned()
        }
    }

    /// Where the next descriptor stops: the soft limit, or `fs.nr_open` where that is lower.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.limit.soft.min(self.kernel.nr_open.unwrap_or(u64::MAX))
    }

    /// Descriptors in use, as far as the ceiling is concerned.
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        self.open.below_limit.or(self.open.count)
    }

    /// Whether the process may be given a limit by whoever asks, within its hard one.
    #[must_use]
    pub fn may_set(&self) -> bool {
        let Caller { uid, rights, .. } = self.caller;
        rights.raises_limits() || self.who.user.are_all(uid)
    }
}

#[cfg(test)]
impl Facts {
    /// The operator's Tornado: supervisord gave it 1024, and 1,017 users fill them.
    pub(super) fn example() -> Self {
        use crate::facts::identity::Ids;
        let ids = Ids { real: 1000, effective: 1000, saved: 1000 };
        let listener = Listener {
            at: "0.0.0.0:8888".to_owned(),
            port: 8888,
            inode: 7,
            waiting: 10,
            backlog: Some(128),
            at_file: "ss -tln sport = :8888".to_owned(),
        };
        Self {
            who: Identity {
                pid: 4121,
                parent: 812,
                comm: "python3".to_owned(),
                arguments: vec!["python3".to_owned(), "/srv/push.py".to_owned()],
                started_s: Some(1_700_000_000),
                user: ids,
                group: ids,
                threads: 1,
                effective: Rights(0),
                is_zombie: false,
            },
            limit: OpenFiles { soft: 1024, hard: 524_288 },
            now_s: 1_700_100_000,
            kernel: Kernel {
                nr_open: Some(1_048_576),
                files: Some(FileNumbers { open: 2_000, max: 9_223_372_036_854_775_807 }),
                threads_max: Some(30_000),
                pid_max: Some(32_768),
                threads: Some(300),
                epoll_watches_max: Some(400_000),
                inotify_instances_max: Some(128),
            },
            network: Network::default(),
            cgroup: Cgroup::default(),
            open: Open {
                count: Some(1024),
                below_limit: Some(1024),
                kinds: vec![("sockets".to_owned(), 1018), ("files".to_owned(), 6)],
                states: vec![("ESTABLISHED".to_owned(), 1017), ("LISTEN".to_owned(), 1)],
                listeners: vec![listener],
                inbound: 1017,
                peers: vec![("203.0.113.9".to_owned(), 5), ("203.0.113.10".to_owned(), 5)],
                ..Open::default()
            },
            origin: OriginReport {
                why: "supervisord (812) gave it 1024, minfds unset".to_owned(),
                permanent: vec!["minfds=65536 in /etc/supervisor/supervisord.conf".to_owned()],
                ..OriginReport::default()
            },
            caps: Vec::new(),
            fronts: Vec::new(),
            select: Select::No,
            caller: Caller {
                uid: 0,
                rights: Rights(u64::MAX),
                limit: Some(OpenFiles { soft: 65_535, hard: 65_535 }),
                is_live: true,
            },
            need: None,
            trend: None,
            lost_lately: None,
            unseen: Vec::new(),
        }
    }

    /// The same server with a few users.
    pub(super) fn quiet() -> Self {
        let mut facts = Self::example();
        facts.limit.soft = 20_000;
        facts.open.count = Some(107);
        facts.open.below_limit = Some(107);
        facts.open.inbound = 100;
        facts.open.states = vec![("ESTABLISHED".to_owned(), 100), ("LISTEN".to_owned(), 1)];
        for listener in &mut facts.open.listeners {
            listener.waiting = 0;
        }
        facts
    }
}
