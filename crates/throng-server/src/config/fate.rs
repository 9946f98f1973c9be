//! What becomes of each option, for the tests of what the documentation says of it.

use std::collections::BTreeSet;

use super::options::{Kind, Spec, Status, options};
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
const OWN: [&str; 10] = [
    "limits.",
    "trusted_proxies",
    "client_address_header",
    "http_server.proxy_protocol",
    "http_server.internal_proxy_protocol",
    "http_server.keep_alive_timeout",
    "http_server.header_timeout",
    "grpc_api.insecure",
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

/// Those of the quiet options that are looked at where everything is on that they may belong to.
pub(crate) fn quiet_and_read() -> BTreeSet<String> {
    let quiet = |is_endpoint: bool| {
        let all = options().all.iter();
        all.filter(move |(path, spec)| {
            spec.status == Status::Quiet && path.ends_with(".endpoint") == is_endpoint
        })
    };
    // Without its endpoint a backend is not looked at any further.
    let mut read = BTreeSet::new();
    // What only some kinds of channels have is read where there may be some.
    for kind in ["map", "shared_poll"] {
        read.extend(read_of(quiet(true), kind));
        read.extend(read_of(quiet(false), kind));
    }
    // Taken apart before they are read.
    read.extend(["proxies".to_owned(), "rpc.namespaces".to_owned()]);
    read
}

fn read_of<'a>(
    paths: impl Iterator<Item = (&'a String, &'a Spec)>,
    subscription_type: &str,
) -> BTreeSet<String> {
    let sources = Sources { dev: true, ..Sources::default() };
    let mut written = written::Written::gather(sources, written::Variables::Filled);
    let mut give = |path: &str, value: Value| {
        let node = Node { line: 0, value };
        written.given.insert(path.to_owned(), written::Given { node, place: Place::Flag });
    };
    for (path, spec) in &options().all {
        let is_switch = spec.kind == Kind::Bool && path.ends_with("enabled");
        if is_switch && spec.status != Status::Judged("subscribe_proxy") {
            give(path, Value::Bool(true));
        } else if path.ends_with(".endpoint") {
            give(path, Value::Text("http://application".to_owned()));
        }
    }
    let subscription_type = Value::Text(subscription_type.to_owned());
    give("channel.without_namespace.subscription_type", subscription_type);
    for (path, spec) in paths.filter(|(path, _)| !path.ends_with("enabled")) {
        // A value that is wrong for every kind: whoever reads the option stumbles over it.
        let (table, list) = (Value::Table(Vec::new()), Value::List(Vec::new()));
        give(path, if spec.kind == Kind::Map { list } else { table });
    }
    let (_, problems, _) = meaning::mean(written, false, 0);
    problems.into_iter().map(|problem| problem.path).collect()
}
