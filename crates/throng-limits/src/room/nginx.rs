//! How many clients an nginx in front has room for, and how it gets more.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::Tree;
use crate::facts::kernel;
use crate::facts::listener::listening;
use crate::facts::nginx::{Below, CONNECTIONS_DEFAULT, Config, Said};
use crate::facts::{OpenFiles, process, read_at_most, shown};
use crate::number::thousands;
use crate::origin::lineage;

/// What a client costs nginx: its own connection, and the one to the server behind.
const PER_CLIENT: u64 = 2;
/// What to set where nothing stands in the way: a large machine's crowd, for some 15 MB of memory
/// in each worker.
const CONNECTIONS_WANTED: u64 = 32_768;
const FILES_WANTED: u64 = 65_536;
/// Descriptors of a worker that are no connections: listeners, logs, cached files.
const FILES_KEPT: u64 = 256;
/// Processes that are looked at: an nginx has a worker a core, and while it is reloaded some more.
const PROCESSES_MAX: usize = 1024;
/// Where packages put it.
const CONFIG_DEFAULT: &str = "/etc/nginx/nginx.conf";
const PREFIX_DEFAULT: &str = "/usr/share/nginx";

/// An nginx that runs, as far as it decides how many get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nginx {
    pub pid: u32,
    pub config: Config,
    /// Workers that take new connections.
    pub workers: u64,
    /// The limit on open files that its workers have now.
    pub limit: OpenFiles,
    /// Descriptors that its fullest worker has open.
    pub fullest: u64,
    /// The highest limit that it could give them.
    pub reach: u64,
    /// How it is told to read its configuration again.
    pub reload: String,
}

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Such as `/etc/nginx/nginx.conf:8, instead of what is there`.
    pub place: String,
    pub text: String,
}

impl Nginx {
    /// The nginx of this machine that listens at an address; none when somebody else does.
    #[must_use]
    pub fn at(address: SocketAddr) -> Option<Self> {
        let proc = Path::new("/proc");
        let running = running(proc);
        let masters: Vec<&Process> = running.iter().filter(|one| one.is_master()).collect();
        let holders = if masters.is_empty() { None } else { listening(address) }?;
        // Of another user's process it cannot be seen where it listens; if there is only one, it is
        // the one.
        let only = masters.first().filter(|_| masters.len() == 1 && holders.is_empty());
        let master = masters.iter().find(|one| holders.contains(&one.pid)).or(only)?;
        Self::read(proc, master, &running)
    }

    /// The nginx of this machine that passes on to one of these ports; the one with the least room,
    /// where several do.
    #[must_use]
    pub fn in_front_of(ports: &[u16]) -> Option<Self> {
        let proc = Path::new("/proc");
        let running = running(proc);
        let masters = running.iter().filter(|one| one.is_master());
        let all = masters.filter_map(|master| Self::read(proc, master, &running));
        all.filter(|nginx| ports.iter().any(|port| nginx.config.passes_to(*port)))
            .min_by_key(Self::clients)
    }

    fn read(proc: &Path, master: &Process, running: &[Process]) -> Option<Self> {
        let pid = master.pid;
        let tree = Tree::at(proc, "/");
        let parent = |one: &Process| lineage(&tree, one.pid).get(1).map(|parent| parent.pid);
        let is_its = |one: &&Process| one.is_worker() && parent(one) == Some(pid);
        let workers: Vec<u32> = running.iter().filter(is_its).map(|one| one.pid).collect();
        let told = Told::of(&master.title);
        // A container's nginx has its files below a root of its own.
        let root = proc.join(pid.to_string()).join("root");
        let config = Config::read(&told.config, &Below(root))
            .or_else(|| Config::read(&told.config, &Below("/".into())))?;
        let limit = OpenFiles::of(*workers.first().unwrap_or(&pid)).ok()?;
        let fullest = workers.iter().filter_map(|worker| process::descriptors(*worker).ok()).max();
        let reach = if lineage(&tree, pid).first().is_some_and(|it| it.raises) {
            kernel::nr_open(proc).unwrap_or(limit.hard)
        } else {
            OpenFiles::of(pid).ok()?.hard
        };
        Some(Self {
            pid,
            config,
            workers: workers.len() as u64,
            limit,
            fullest: fullest.unwrap_or(0),
            reach,
            reload: told.reload,
        })
    }

    /// Connections that one worker may have, to clients and to servers.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections_set().min(self.limit.soft)
    }

    /// Clients that fit into one worker.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.connections() / PER_CLIENT
    }

    /// Whether one of its workers has no place for another client, or almost none.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // Listeners and logs are descriptors too, so that the fullest shows more than it may have.
        self.fullest + self.fullest / 16 >= self.connections()
    }

    fn connections_set(&self) -> u64 {
        self.config.connections.as_ref().map_or(CONNECTIONS_DEFAULT, |said| said.value)
    }

    /// What to write to have room for more; nothing when it may not have more descriptors than now.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let files = FILES_WANTED.min(self.reach);
        let connections = CONNECTIONS_WANTED.min(files.saturating_sub(FILES_KEPT));
        if connections <= self.connections() {
            return Vec::new();
        }
        let Config { connections: set, files: set_files, events, file, .. } = &self.config;
        let begin = events.as_ref().map_or(file, |said| &said.file);
        let mut changes = Vec::new();
        if self.connections_set() < connections {
            let place = place(set.as_ref(), &format!("{}, within events", shown(begin)));
            changes.push(Change { place, text: format!("worker_connections {connections};") });
        }
        if self.limit.soft < connections + FILES_KEPT {
            let place = place(set_files.as_ref(), &format!("{}, above events", shown(begin)));
            changes.push(Change { place, text: format!("worker_rlimit_nofile {files};") });
        }
        changes
    }

    /// The changes in one sentence.
    #[must_use]
    pub fn fix(&self) -> String {
        let changes: Vec<String> = self
            .changes()
            .into_iter()
            .map(|Change { place, text }| format!("set {text} ({place})"))
            .collect();
        if changes.is_empty() {
            let hard = thousands(self.reach);
            return format!(
                "nginx may have {hard} descriptors, and not more: raise the hard limit of what \
                 starts it (systemctl edit nginx, [Service], LimitNOFILE={FILES_WANTED}), and \
                 restart it"
            );
        }
        format!("{}, then run: {}", changes.join(" and "), self.reload)
    }
}

/// Why no more than so many get through, as the beginning of a sentence.
impl fmt::Display for Nginx {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, clients) = (self.pid, thousands(self.clients()));
        if self.limit.soft < self.connections_set() {
            let soft = thousands(self.limit.soft);
            write!(out, "nginx, pid {pid}, may have {soft} descriptors in each worker")?;
        } else {
            write!(out, "nginx, pid {pid}, has worker_connections {}", self.connections_set())?;
            match &self.config.connections {
                Some(said) => write!(out, " ({}:{})", shown(&said.file), said.line)?,
                None => out.write_str(" (nobody set it)")?,
            }
        }
        let each = if self.workers == 1 {
            "its one worker".to_owned()
        } else {
            format!("each of its {} workers", self.workers)
        };
        write!(out, ", which is {clients} clients for {each}: a client costs it two")
    }
}

/// What to change in an nginx that cannot be seen from here, as a package sets it up.
#[must_use]
pub fn usual_changes() -> Vec<Change> {
    let file = CONFIG_DEFAULT;
    vec![
        Change {
            place: format!("{file}, within events"),
            text: format!("worker_connections {CONNECTIONS_WANTED};"),
        },
        Change {
            place: format!("{file}, above events"),
            text: format!("worker_rlimit_nofile {FILES_WANTED};"),
        },
    ]
}

fn place<T>(set: Option<&Said<T>>, otherwise: &str) -> String {
    set.map_or_else(
        || otherwise.to_owned(),
        |said| format!("{}:{}, in place of the line there", shown(&said.file), said.line),
    )
}

/// A process of some nginx.
#[derive(Debug)]
struct Process {
    pid: u32,
    /// How it calls itself: nginx says there what it is, and how it was started.
    title: String,
}

impl Process {
    fn is_master(&self) -> bool {
        self.title.starts_with("nginx: master process")
    }

    /// One that is shutting down says so, and takes nobody.
    fn is_worker(&self) -> bool {
        self.title == "nginx: worker process"
    }
}

/// All processes of all nginxes.
fn running(proc: &Path) -> Vec<Process> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let title = read_at_most(&entry.path().join("cmdline")).ok()?;
        let title = title.replace(char::is_control, " ").trim().to_owned();
        title.starts_with("nginx: ").then_some(Process { pid, title })
    });
    all.take(PROCESSES_MAX).collect()
}

/// What nginx was told when it was started.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    config: PathBuf,
    reload: String,
}

impl Told {
    /// From `nginx: master process /usr/sbin/nginx -p PREFIX -c FILE -g ...`.
    fn of(title: &str) -> Self {
        let words = title.strip_prefix("nginx: master process").unwrap_or(title);
        let mut words = words.split_whitespace();
        let program = words.next().unwrap_or("nginx").to_owned();
        let words: Vec<&str> = words.collect();
        let after = |flag| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        let (prefix, file) = (after("-p"), after("-c"));
        let file_at = Path::new(prefix.unwrap_or(PREFIX_DEFAULT));
        let config = file.map_or_else(|| CONFIG_DEFAULT.into(), |file| file_at.join(file));
        let mut reload = if program.ends_with("nginx") { program } else { "nginx".to_owned() };
        for (flag, value) in [("-p", prefix), ("-c", file)] {
            if let Some(value) = value {
                reload.push_str(&format!(" {flag} {value}"));
            }
        }
        reload.push_str(" -s reload");
        Self { config, reload }
    }
}

#[cfg(test)]
mod tests;
