//! Redis: `maxclients`, which it cuts itself where its limit on open files does not allow so many.

use std::path::Path;

use super::super::facts::{Cap, Facts, Step, Takes};
use super::{Inside, after};
use crate::facts::nginx::Files;
use crate::tree::{Tree, printable};

/// Where packages put it.
const FILE: &str = "/etc/redis/redis.conf";
/// What it allows when nobody says.
const CLIENTS: u64 = 10_000;
/// Where it listens when nobody says.
const PORT: u16 = 6379;
/// It keeps some descriptors for itself (`CONFIG_MIN_RESERVED_FDS`), and runs as a user who may not
/// go above the hard limit.
const TAKES: Takes = Takes { each: 1, kept: 32, raises_hard: false };

pub(super) fn cap(tree: &Tree, facts: &Facts) -> Cap {
    let words = &facts.who.arguments;
    let port = facts.open.listeners.first().map_or(PORT, |listener| listener.port);
    let ask = format!("redis-cli -p {port} config");
    // What it was started with it has written over: its title names where it listens.
    let named = words.get(1).filter(|path| path.ends_with(".conf")).cloned();
    let file = named.clone().unwrap_or_else(|| FILE.to_owned());
    let text = Inside::of(tree, facts.who.pid).read(Path::new(&file)).unwrap_or_default();
    let config = parse(&text);
    let is_its = named.is_some() || (!text.is_empty() && config.port.unwrap_or(PORT) == port);
    let (said, at) = match (after(words, "--maxclients"), config.clients) {
        (Some(said), _) => (said.parse().ok(), "its command line".to_owned()),
        (None, Some((clients, line))) if is_its => (Some(clients), format!("{file}:{line}")),
        (None, None) if is_its => (None, format!("{file} (unset: {CLIENTS})")),
        _ => (None, format!("{ask} get maxclients")),
    };
    // It takes less, and says so in its log, where the limit on open files allows no more.
    let limit = said.unwrap_or(CLIENTS).min(facts.limit.soft.saturating_sub(TAKES.kept));
    Cap {
        option: "maxclients".to_owned(),
        limit,
        used: facts.connections(),
        cost_milli: 1000,
        there_are: facts.connections(),
        at: printable(&at),
        at_most: said.is_none() && !is_its,
        // Counts at once; then into the file that it was started with, whichever that is.
        steps: vec![Step { command: format!("{ask} set maxclients {{N}}"), now: limit }],
        apply: format!("{ask} rewrite"),
        takes: TAKES,
    }
}

/// What a configuration says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Config {
    /// With its line.
    clients: Option<(u64, usize)>,
    port: Option<u16>,
}

/// Finds the words that matter in the text of a `redis.conf`; the last of each counts.
fn parse(text: &str) -> Config {
    let mut config = Config::default();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("maxclients") {
            config.clients = value.parse().ok().map(|clients| (clients, at + 1)).or(config.clients);
        } else if name.eq_ignore_ascii_case("port") {
            config.port = value.parse().ok().or(config.port);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::super::super::facts::Listener;
    use super::*;

    #[test]
    fn the_last_maxclients_counts() {
        let config = parse("# maxclients 1\nmaxclients 100\nPort 7000\nMAXCLIENTS \"200\"\n");
        assert_eq!(config, Config { clients: Some((200, 4)), port: Some(7000) });
        assert_eq!(parse("maxclients\nmaxclients many\n"), Config::default());
    }

    fn redis(port: u16) -> Cap {
        let dir = std::env::temp_dir().join(format!("throng-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/etc/redis")).unwrap();
        std::fs::write(dir.join("root/etc/redis/redis.conf"), "port 6379\nmaxclients 500\n")
            .unwrap();
        let mut facts = Facts::example();
        facts.who.arguments = vec![format!("redis-server 127.0.0.1:{port}")];
        facts.limit.soft = 1024;
        facts.open.listeners = vec![Listener {
            at: format!("127.0.0.1:{port}"),
            port,
            inode: 1,
            waiting: 0,
            backlog: None,
            at_file: String::new(),
        }];
        let cap = cap(&Tree::at(dir.join("proc"), dir.join("root")), &facts);
        std::fs::remove_dir_all(&dir).unwrap();
        cap
    }

    #[test]
    fn the_packages_file_is_believed_where_it_names_the_port() {
        let its = redis(6379);
        assert_eq!((its.limit, its.at.as_str()), (500, "/etc/redis/redis.conf:2"));
        assert!(!its.at_most);
        assert_eq!(its.steps[0].command, "redis-cli -p 6379 config set maxclients {N}");
        assert_eq!(its.apply, "redis-cli -p 6379 config rewrite");
        let another = redis(6380);
        assert_eq!((another.limit, another.at_most), (1024 - 32, true));
        assert_eq!(another.at, "redis-cli -p 6380 config get maxclients");
    }
}
