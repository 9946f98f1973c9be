//! What applications allow themselves: nginx, HAProxy and Redis, read from their configuration; and
//! which of them stand in front of a process.

use std::path::Path;

use super::facts::{Cap, Facts, Front};
use super::machine::pids;
use crate::facts::Identity;
use crate::facts::nginx::{CONNECTIONS_DEFAULT, Config, Files};
use crate::origin::quote;
use crate::tree::{Tree, printable};

/// Where packages put configurations.
const NGINX: &str = "/etc/nginx/nginx.conf";
const HAPROXY: &str = "/etc/haproxy/haproxy.cfg";
const REDIS: &str = "/etc/redis/redis.conf";
/// What Redis allows when nobody says, and what it keeps for itself.
const REDIS_CLIENTS: u64 = 10_000;
const REDIS_KEPT: u64 = 32;
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
    pub steps: Vec<String>,
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
        facts.caps.push(redis(tree, facts));
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
        steps: proxy.steps.clone(),
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
                _ => haproxy(tree, master, workers),
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
    let mut apply = "nginx".to_owned();
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
        targets,
    })
}

fn haproxy(tree: &Tree, master: &Identity, workers: Vec<u32>) -> Option<Proxy> {
    let words = told(master);
    let file = after(&words, "-f").unwrap_or_else(|| HAPROXY.to_owned());
    let inside = Inside::of(tree, master.pid);
    let text = inside.read(Path::new(&file))?;
    let config = parse_haproxy(&text);
    let at = config.maxconn.map_or_else(|| file.clone(), |(_, line)| format!("{file}:{line}"));
    Some(Proxy {
        name: "haproxy",
        master: master.pid,
        workers,
        option: "maxconn",
        limit: config.maxconn.map(|(limit, _)| limit),
        cost_milli: 1000,
        at: printable(&at),
        apply: "systemctl reload haproxy".to_owned(),
        steps: Vec::new(),
        targets: config.targets,
    })
}

/// The edits that let an nginx have `N` connections a worker, and the descriptors for them. From
/// below: a line that is put on top moves the others.
fn nginx_steps(config: &Config) -> Vec<String> {
    let edits = match (&config.connections, &config.events) {
        (Some(said), _) => vec![(
            said.file.clone(),
            format!("{}s/worker_connections[^;]*;/worker_connections N;/", said.line),
        )],
        (None, Some(events)) => {
            vec![(events.file.clone(), format!("{}s/{{/{{ worker_connections N;/", events.line))]
        }
        (None, None) => return Vec::new(),
    };
    let files = config.files.as_ref().map_or_else(
        || (config.file.clone(), "1i worker_rlimit_nofile N;".to_owned()),
        |said| {
            let edit = "s/worker_rlimit_nofile[^;]*;/worker_rlimit_nofile N;/";
            (said.file.clone(), format!("{}{edit}", said.line))
        },
    );
    let edits = edits.into_iter().chain([files]);
    edits
        .map(|(file, edit)| {
            // It is another process that names the file: nothing of it reaches a shell as a command.
            format!("sudo sed -i '{edit}' {}", quote(&printable(&file.display().to_string())))
        })
        .collect()
}

/// What a configuration of HAProxy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Haproxy {
    /// The lowest of the process's and its frontends', and its line.
    pub maxconn: Option<(u64, usize)>,
    pub targets: Vec<u16>,
}

/// Finds caps and servers in the text of a `haproxy.cfg`.
#[must_use]
pub fn parse_haproxy(text: &str) -> Haproxy {
    const SECTIONS: [&str; 12] = [
        "global",
        "defaults",
        "frontend",
        "backend",
        "listen",
        "peers",
        "resolvers",
        "userlist",
        "mailers",
        "program",
        "cache",
        "ring",
    ];
    let mut config = Haproxy::default();
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, ..] if SECTIONS.contains(name) => section = name,
            ["maxconn", number, ..]
                if matches!(section, "global" | "defaults" | "frontend" | "listen") =>
            {
                if let Ok(number) = number.parse::<u64>()
                    && config.maxconn.is_none_or(|(lowest, _)| number < lowest)
                {
                    config.maxconn = Some((number, at + 1));
                }
            }
            ["server", _, address, ..] if config.targets.len() < TARGETS_MAX => {
                config.targets.extend(port_of(address));
            }
            _ => {}
        }
    }
    config
}

fn redis(tree: &Tree, facts: &Facts) -> Cap {
    let file = facts.who.arguments.get(1).filter(|path| path.ends_with(".conf"));
    let file = file.cloned().unwrap_or_else(|| REDIS.to_owned());
    let text = Inside::of(tree, facts.who.pid).read(Path::new(&file)).unwrap_or_default();
    let said = parse_redis(&text);
    let wanted = said.map_or(REDIS_CLIENTS, |(clients, _)| clients);
    // It takes less, and says so in its log, where the limit on open files allows no more.
    let limit = wanted.min(facts.limit.soft.saturating_sub(REDIS_KEPT));
    Cap {
        option: "maxclients".to_owned(),
        limit,
        used: facts.connections(),
        cost_milli: 1000,
        there_are: facts.connections(),
        at: printable(&said.map_or_else(
            || format!("{file} (unset: {REDIS_CLIENTS})"),
            |(_, line)| format!("{file}:{line}"),
        )),
        apply: "redis-cli config set maxclients N raises it without a restart".to_owned(),
        steps: Vec::new(),
    }
}

/// Finds `maxclients` and its line in the text of a `redis.conf`; the last one counts.
#[must_use]
pub fn parse_redis(text: &str) -> Option<(u64, usize)> {
    let said = text.lines().enumerate().filter_map(|(at, line)| {
        let mut words = line.split_whitespace();
        let is_it = words.next()?.eq_ignore_ascii_case("maxclients");
        is_it.then(|| Some((words.next()?.trim_matches('"').parse().ok()?, at + 1)))?
    });
    said.last()
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
