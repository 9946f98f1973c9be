//! What becomes of each option, for the tests of what the documentation says of it.

use super::options::{Kind, Status, options};
use super::tree::{Node, Value};
use super::verdict::{Verdict, verdict};
use super::{Place, Sources, meaning, written};

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Counts,
    /// Nothing without another option.
    Quiet,
    Stops,
    IsMissing,
    HasNoEffect,
}

/// Options of throng alone have names that no table of Centrifugo's has.
const OWN: [&str; 9] = [
    "limits.",
    "trusted_proxies",
    "client_address_header",
    "http_server.proxy_protocol",
    "http_server.internal_proxy_protocol",
    "http_server.keep_alive_timeout",
    "http_server.header_timeout",
    "shutdown.spread",
    "prometheus.compat",
];

/// Every option by its path, what becomes of it, and whether it is throng's own.
pub(crate) fn fates() -> impl Iterator<Item = (String, Fate, bool)> {
    options().all.iter().map(|(path, spec)| {
        let fate = match spec.status {
            Status::Supported => Fate::Counts,
            Status::Quiet => Fate::Quiet,
            Status::Judged(name) => match verdict(name) {
                Some(Verdict::Stops(_)) => Fate::Stops,
                Some(Verdict::Warns(what)) if what.starts_with("has no effect") => {
                    Fate::HasNoEffect
                }
                Some(Verdict::Warns(_)) | None => Fate::IsMissing,
            },
        };
        (path.clone(), fate, OWN.iter().any(|own| path.starts_with(own)))
    })
}

/// Whether an option is looked at where everything is on that it may belong to.
pub(crate) fn is_read(path: &str) -> bool {
    let mut written = written::Written::gather(
        Sources { dev: true, ..Sources::default() },
        written::Variables::Filled,
    );
    let mut give = |path: &str, value: Value| {
        let node = Node { line: 0, value };
        written.given.insert(path.to_owned(), written::Given { node, place: Place::Flag });
    };
    for (switch, spec) in &options().all {
        let is_switch = spec.kind == Kind::Bool && switch.ends_with("enabled");
        if is_switch && spec.status != Status::Judged("subscribe_proxy") {
            give(switch, Value::Bool(true));
        } else if switch.ends_with(".endpoint") {
            give(switch, Value::Text("http://application".to_owned()));
        }
    }
    // A value that is wrong for every kind: whoever reads the option stumbles over it.
    let (table, list) = (Value::Table(Vec::new()), Value::List(Vec::new()));
    let kind = options().all.get(path).map(|spec| spec.kind);
    give(path, if kind == Some(Kind::Map) { list } else { table });
    if matches!(path, "proxies" | "rpc.namespaces") {
        // Taken apart before they are read.
        return true;
    }
    let (_, problems, _) = meaning::mean(written, false, 0);
    problems.iter().any(|problem| problem.path == path)
}
