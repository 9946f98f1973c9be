//! What applications allow themselves: nginx, HAProxy and Redis, read from their configuration; and
//! which of them stand in front of a process.

mod haproxy;
mod redis;

use std::path::Path;

use super::facts::{Cap, Facts, Front, Step, Takes};
use super::machine::pids;
use crate::facts::Identity;
use crate::facts::nginx::{CONNECTIONS_DEFAULT, Config, Files};
use crate::origin::quote;
use crate::tree::{Tree, printable};

/// Where packages put configurations.
const NGINX: &str = "/etc/nginx/nginx.conf";
/// Proxies that are looked at.
const PROXIES_MAX: usize = 64;
/// BOUNDED: servers behind one proxy that are remembered.
const TARGETS_MAX: usize = 1024;

/// A proxy that runs, as far as it decides how many get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `nginx` or `haproxy`.
    pub name: &'static str,
    /// Who read the configuration.
    pub master: u32,
    /// Who take connections.
    pub workers: Vec<u32>,
    pub option: &'static str,
    /// What one worker may have; none where the configuration does not say, and it is worked out
    /// from the limit on open files.
    pub limit: Option<u64>,
    /// Thousandths of it that a user takes.
    pub cost_milli: u64,
    /// File and line.
    pub at: String,
    pub apply: String,
    /// As in [`Cap`].
    pub steps: Vec<Step>,
    pub takes: Takes,
    /// Ports of the servers behind it.
    pub targets: Vec<u16>,
}

impl Proxy {
    /// Users of all workers together.
    #[must_use]
    pub fn users(&self) -> Option<u64> {
        let workers = u64::try_from(self.workers.len().max(1)).unwrap_or(u64::MAX);
        Some(self.limit?.saturating_mul(1000) / self.cost_milli.max(1) * workers)
    }
}

/// The caps of a process, and the proxies in front of it.
pub(super) fn add(tree: &Tree, facts: &mut Facts) {
    let pid = facts.who.pid;
    let program = facts.who.program().to_owned();
    let ports: Vec<u16> = facts.open.listeners.iter().map(|each| each.port).collect();
    let is_proxy = matches!(program.as_str(), "nginx" | "haproxy");
    // Only what listens can have somebody in front.
    if is_proxy || !ports.is_empty() {
        for proxy in proxies(tree) {
            if proxy.master == pid || proxy.workers.contains(&pid) {
                facts.caps.extend(own(&proxy, facts));
            } else if let Some(users) = proxy.users()
                && proxy.targets.iter().any(|port| ports.contains(port))
            {
                facts.fronts.push(Front {
                    name: proxy.name.to_owned(),
                    pid: proxy.master,
                    users,
                    by: format!("{} {}", proxy.option, proxy.limit.unwrap_or(0)),
                    at: proxy.at.clone(),
                });
            }
        }
    }
    if program == "redis-server" {
        facts.caps.push(redis::cap(tree, facts));
    }
}

fn own(proxy: &Proxy, facts: &Facts) -> Option<Cap> {
    // The master takes nobody.
    if !proxy.workers.contains(&facts.who.pid) {
        return None;
    }
    let there_are = facts.connections();
    let limit = proxy.limit?;
    let mut used = there_are;
    if proxy.name == "nginx" {
        used += facts.open.outbound;
        // Its listeners and the channel to its master take a place each, too: with only theirs left
        // it takes nobody.
        let kept = u64::try_from(facts.open.listeners.len()).unwrap_or(0) + 1;
        used = if there_are > 0 && used + kept >= limit { limit } else { used };
    }
    Some(Cap {
        option: proxy.option.to_owned(),
        limit,
        used,
        cost_milli: proxy.cost_milli,
        there_are,
        at: proxy.at.clone(),
        apply: proxy.apply.clone(),
        at_most: false,
        steps: proxy.steps.clone(),
        takes: proxy.takes,
    })
}

/// The proxies of the machine.
#[must_use]
pub fn proxies(tree: &Tree) -> Vec<Proxy> {
    let running: Vec<Identity> = pids(tree)
        .into_iter()
        .filter(|pid| {
            let comm = tree.read_proc(&format!("{pid}/comm")).unwrap_or_default();
            matches!(comm.trim(), "nginx" | "haproxy")
        })
        .take(PROXIES_MAX * 16)
        .filter_map(|pid| Identity::read(tree, pid).ok())
        .collect();
    let is_child = |one: &Identity| running.iter().any(|other| other.pid == one.parent);
    let masters = running.iter().filter(|one| !is_child(one)).take(PROXIES_MAX);
    masters
        .filter_map(|master| {
            let children = running.iter().filter(|one| one.parent == master.pid);
            // Who shuts down says so, and takes nobody.
            let children = children.filter(|one| {
                !one.arguments
                    .first()
                    .is_some_and(|title| title.contains("shutting down") || title.contains("cache"))
            });
            let mut workers: Vec<u32> = children.map(|one| one.pid).collect();
            if workers.is_empty() {
                workers.push(master.pid);
            }
            match master.program() {
                "nginx" => nginx(tree, master, workers),
                _ => haproxy::proxy(tree, master, workers),
            }
        })
        .collect()
}

fn nginx(tree: &Tree, master: &Identity, workers: Vec<u32>) -> Option<Proxy> {
    let words = told(master);
    let after = |flag: &str| after(&words, flag);
    let prefix = after("-p").unwrap_or_else(|| "/usr/share/nginx".to_owned());
    let file = after("-c").map_or_else(|| NGINX.to_owned(), |file| joined(&prefix, &file));
    let inside = Inside::of(tree, master.pid);
    let config = Config::read(Path::new(&file), &inside)?;
    let (limit, at) = match &config.connections {
        Some(said) => (said.value, format!("{}:{}", said.file.display(), said.line)),
        None => (CONNECTIONS_DEFAULT, format!("{file} (unset: {CONNECTIONS_DEFAULT})")),
    };
    let mut targets: Vec<u16> =
        config.targets.iter().filter_map(|target| port_of(target)).collect();
    targets.dedup();
    targets.truncate(TARGETS_MAX);
    let mut apply = "sudo nginx".to_owned();
    for (flag, value) in [("-p", after("-p")), ("-c", after("-c"))] {
        apply.extend(value.map(|value| format!(" {flag} {}", quote(&printable(&value)))));
    }
    Some(Proxy {
        name: "nginx",
        master: master.pid,
        workers,
        option: "worker_connections",
        limit: Some(limit),
        cost_milli: if config.targets.is_empty() { 1000 } else { 2000 },
        at: printable(&at),
        apply: format!("{apply} -s reload"),
        steps: nginx_steps(&config),
        takes: Takes { each: 1, kept: 0, raises_hard: true },
        targets,
    })
}

/// The edits that let an nginx have `{N}` connections a worker, and the descriptors for them. From
/// below: a line that is put on top moves the others.
fn nginx_steps(config: &Config) -> Vec<Step> {
    let edits = match (&config.connections, &config.events) {
        (Some(said), _) => vec![(
            said.file.clone(),
            format!("{}s/worker_connections[^;]*;/worker_connections {{N}};/", said.line),
            said.value,
        )],
        (None, Some(events)) => {
            vec![(
                events.file.clone(),
                format!("{}s/{{/{{ worker_connections {{N}};/", events.line),
                CONNECTIONS_DEFAULT,
            )]
        }
        (None, None) => return Vec::new(),
    };
    let files = config.files.as_ref().map_or_else(
        || (config.file.clone(), "1i worker_rlimit_nofile {N};".to_owned(), 0),
        |said| {
            let edit = "s/worker_rlimit_nofile[^;]*;/worker_rlimit_nofile {N};/";
            (said.file.clone(), format!("{}{edit}", said.line), said.value)
        },
    );
    let edits = edits.into_iter().chain([files]);
    edits
        .map(|(file, edit, now)| Step { command: edited(&edit, &file.display().to_string()), now })
        .collect()
}

/// An edit of a file. It is another process that names the file: nothing of it reaches a shell as a
/// command.
fn edited(edit: &str, file: &str) -> String {
    format!("sudo sed -i '{edit}' {}", quote(&printable(file)))
}

/// What a program was told: its arguments, also where it has made one text of them.
fn told(who: &Identity) -> Vec<String> {
    who.arguments
        .iter()
        .flat_map(|argument| argument.split_whitespace())
        .map(str::to_owned)
        .collect()
}

fn after(words: &[String], flag: &str) -> Option<String> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).cloned()
}

fn joined(prefix: &str, file: &str) -> String {
    if file.starts_with('/') {
        file.to_owned()
    } else {
        format!("{}/{file}", prefix.trim_end_matches('/'))
    }
}

/// The port in `http://127.0.0.1:8888/path`, `127.0.0.1:8888` or `[::1]:8888`.
fn port_of(target: &str) -> Option<u16> {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    rest.split('/').next()?.rsplit_once(':')?.1.parse().ok()
}

/// The files that a process sees: the machine's, or its container's.
struct Inside<'a> {
    tree: &'a Tree,
    /// Set where its root is another.
    pid: Option<u32>,
}

impl<'a> Inside<'a> {
    fn of(tree: &'a Tree, pid: u32) -> Self {
        let mount = |pid: &str| tree.link_proc(&format!("{pid}/ns/mnt")).ok();
        let theirs = mount(&pid.to_string());
        let elsewhere = theirs.is_some() && theirs != mount("self");
        Self { tree, pid: elsewhere.then_some(pid) }
    }
}

impl Files for Inside<'_> {
    fn read(&self, path: &Path) -> Option<String> {
        let path = path.to_str()?;
        match self.pid {
            None => self.tree.read_root(path),
            Some(pid) => self.tree.read_proc(&format!("{pid}/root/{path}")),
        }
        .ok()
    }

    fn list(&self, directory: &Path) -> Vec<String> {
        let Some(path) = directory.to_str() else { return Vec::new() };
        match self.pid {
            None => self.tree.list_root(path),
            Some(pid) => self.tree.list_proc(&format!("{pid}/root/{path}")),
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
