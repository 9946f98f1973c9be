//! HAProxy: `maxconn`, for the process and for each of its frontends.

use std::path::Path;

use super::super::facts::{Step, Takes};
use super::{Inside, Proxy, TARGETS_MAX, after, edited, port_of, told};
use crate::facts::Identity;
use crate::facts::nginx::Files;
use crate::origin::quote;
use crate::tree::{Tree, printable};

/// Where packages put it.
const FILE: &str = "/etc/haproxy/haproxy.cfg";
/// BOUNDED: lines with `maxconn` that are edited.
const LINES_MAX: usize = 64;
/// A connection has two sides, and HAProxy counts both; listeners, checks and pipes come besides.
/// It sets its own limits when it starts, as root also above the hard one.
const TAKES: Takes = Takes { each: 2, kept: 256, raises_hard: true };

pub(super) fn proxy(tree: &Tree, master: &Identity, workers: Vec<u32>) -> Option<Proxy> {
    let words = told(master);
    let file = after(&words, "-f").unwrap_or_else(|| FILE.to_owned());
    let inside = Inside::of(tree, master.pid);
    let text = inside.read(Path::new(&file))?;
    let config = parse(&text);
    let lowest = config.maxconn.iter().min_by_key(|(limit, _)| *limit);
    let at = lowest.map_or_else(|| file.clone(), |(_, line)| format!("{file}:{line}"));
    let steps = config.maxconn.iter().take(LINES_MAX).map(|(now, line)| Step {
        command: edited(&format!("{line}s/maxconn  *[0-9]*/maxconn {{N}}/"), &file),
        now: *now,
    });
    Some(Proxy {
        name: "haproxy",
        master: master.pid,
        workers,
        option: "maxconn",
        limit: lowest.map(|(limit, _)| *limit),
        cost_milli: 1000,
        at: printable(&at),
        apply: apply(tree, master, &words, &file),
        steps: steps.collect(),
        takes: TAKES,
        targets: config.targets,
    })
}

/// What makes it read its configuration again. Those who are connected stay with the old process
/// until they leave.
fn apply(tree: &Tree, master: &Identity, words: &[String], file: &str) -> String {
    let has_master = words.iter().any(|word| matches!(word.as_str(), "-W" | "-Ws"));
    let cgroup = tree.read_proc(&format!("{}/cgroup", master.pid)).unwrap_or_default();
    let unit = cgroup.lines().find_map(|line| {
        let unit = line.rsplit('/').next()?.strip_suffix(".service")?;
        Some(quote(&printable(unit)))
    });
    match unit {
        Some(unit) => format!("sudo systemctl reload {unit}"),
        None if has_master => format!("sudo kill -USR2 {}", master.pid),
        None => {
            format!("sudo haproxy -D -f {} -sf {}", quote(&printable(file)), master.pid)
        }
    }
}

/// What a configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Config {
    /// The process's and its frontends', each with its line.
    maxconn: Vec<(u64, usize)>,
    targets: Vec<u16>,
}

/// Finds caps and servers in the text of a `haproxy.cfg`.
fn parse(text: &str) -> Config {
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
    let mut config = Config::default();
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, ..] if SECTIONS.contains(name) => section = name,
            ["maxconn", number, ..]
                if matches!(section, "global" | "defaults" | "frontend" | "listen") =>
            {
                config.maxconn.extend(number.parse::<u64>().ok().map(|number| (number, at + 1)));
            }
            ["server", _, address, ..] if config.targets.len() < TARGETS_MAX => {
                config.targets.extend(port_of(address));
            }
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caps_of_the_process_and_its_frontends_are_found_with_their_lines() {
        let text = "global\n  maxconn 4000 # all\n\ndefaults\n  maxconn 3000\nbackend push\n  \
                    fullconn 10\n  maxconn 5\n  server a 127.0.0.1:8888 check\n  server b [::1]:8889\n";
        let config = parse(text);
        assert_eq!(config.maxconn, [(4000, 2), (3000, 5)]);
        assert_eq!(config.targets, [8888, 8889]);
        assert_eq!(parse("maxconn 3\nglobal\n maxconn many\n"), Config::default());
    }

    /// A machine with a HAProxy of this command line and control group.
    fn found(command: &str, cgroup: &str) -> Proxy {
        let name =
            format!("throng-haproxy-{}-{}", std::process::id(), command.len() + cgroup.len());
        let dir = std::env::temp_dir().join(name);
        let write = |path: &str, text: &str| {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/7/status", "Name:\thaproxy\nPPid:\t1\nUid:\t0\t0\t0\t0\n");
        write("proc/7/cmdline", &command.replace(' ', "\0"));
        write("proc/7/cgroup", cgroup);
        write("root/etc/h.cfg", "global\n maxconn 100\nfrontend a\n maxconn 90000\n");
        let tree = Tree::at(dir.join("proc"), dir.join("root"));
        let master = Identity::read(&tree, 7).unwrap();
        let proxy = proxy(&tree, &master, vec![8]).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        proxy
    }

    #[test]
    fn each_line_is_edited_and_it_is_told_to_read_them_as_it_was_started() {
        let unit = found("haproxy -Ws -f /etc/h.cfg", "0::/system.slice/haproxy.service\n");
        assert_eq!((unit.limit, unit.at.as_str()), (Some(100), "/etc/h.cfg:2"));
        assert_eq!(unit.apply, "sudo systemctl reload haproxy");
        let commands: Vec<_> = unit.steps.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "sudo sed -i '2s/maxconn  *[0-9]*/maxconn {N}/' /etc/h.cfg",
                "sudo sed -i '4s/maxconn  *[0-9]*/maxconn {N}/' /etc/h.cfg",
            ]
        );
        assert_eq!(unit.steps[1].now, 90_000);
        let master = found("haproxy -W -f /etc/h.cfg", "0::/\n");
        assert_eq!(master.apply, "sudo kill -USR2 7");
        let alone = found("haproxy -D -f /etc/h.cfg", "0::/\n");
        assert_eq!(alone.apply, "sudo haproxy -D -f /etc/h.cfg -sf 7");
    }
}
