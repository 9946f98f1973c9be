//! What a configuration sets, option by option: what has changed since, and which of it a running
//! server can take.

use std::collections::BTreeMap;
use std::fmt;

use super::import::toml_of;
use super::options::{Kind, Spec, options};
use super::read;
use super::tree::{Node, Value};
use super::written::{NAMESPACES, PROXIES, RPC_NAMESPACES, Written};

/// Options that a running server takes. What is captured when it starts is not among them: listeners,
/// limits, paths, transports, the log's file.
const LIVE: [&str; 13] = [
    "client.allowed_origins",
    "client.token.",
    "client.subscription_token.",
    "client.proxy.",
    "channel.",
    "shared_poll.",
    "proxies.",
    "rpc.",
    "http_api.key",
    "trusted_proxies",
    "client_address_header",
    "log.level",
    "grpc_api.key",
];

/// The options that a configuration sets to something else than their defaults. Values may be
/// secrets and are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Said(BTreeMap<String, String>);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Said {
    pub(super) fn of(written: &Written) -> Self {
        let mut said = BTreeMap::new();
        for (path, given) in &written.given {
            let Some(spec) = options().spec(path) else { continue };
            let value = canonical(spec.kind, &given.node.value);
            if value != default(spec) {
                said.insert(path.clone(), value);
            }
        }
        let lists = [
            (NAMESPACES, written.namespaces.keys().collect::<Vec<_>>()),
            (PROXIES, written.proxies.iter().collect()),
            (RPC_NAMESPACES, written.rpc_namespaces.iter().collect()),
        ];
        for (list, names) in lists {
            said.extend(names.into_iter().map(|name| (format!("{list}.{name}"), String::new())));
        }
        Self(said)
    }

    /// The options that mean something else in `newer`.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let all = self.0.keys().chain(newer.0.keys().filter(|path| !self.0.contains_key(*path)));
        let mut changed: Vec<String> =
            all.filter(|path| self.0.get(*path) != newer.0.get(*path)).cloned().collect();
        changed.sort();
        // A list's element that came or went is one change, whatever options it has.
        let elements: Vec<String> = (changed.iter())
            .filter(|path| self.0.get(*path).or(newer.0.get(*path)).is_some_and(String::is_empty))
            .map(|path| format!("{path}."))
            .collect();
        changed.retain(|path| !elements.iter().any(|element| path.starts_with(element.as_str())));
        changed
    }

    /// Whether a running server takes this option.
    #[must_use]
    pub fn is_live(path: &str) -> bool {
        LIVE.iter().any(|live| path == *live || (live.ends_with('.') && path.starts_with(live)))
    }

    /// Takes over what a running server takes of `newer`.
    pub(crate) fn take_live(&mut self, newer: &Self) {
        self.0.retain(|path, _| !Self::is_live(path));
        let live = newer.0.iter().filter(|(path, _)| Self::is_live(path));
        self.0.extend(live.map(|(path, value)| (path.clone(), value.clone())));
    }
}

/// A value in one way of writing it.
fn canonical(kind: Kind, value: &Value) -> String {
    let known = match kind {
        Kind::Bool => read::as_bool(value).map(|value| value.to_string()),
        Kind::Int => read::as_int(value).map(|value| value.to_string()),
        Kind::Duration => read::as_duration(value).ok().map(|value| format!("{value:?}")),
        _ => toml_of(kind, value),
    };
    // What is wrong is a problem of its own; here it only has to differ.
    known.unwrap_or_else(|| format!("{value:?}"))
}

fn default(spec: &Spec) -> String {
    let written = match (spec.kind, spec.default) {
        (Kind::Bool, "") => "false",
        (Kind::Int | Kind::Bytes | Kind::Duration, "") => "0",
        (_, default) => default,
    };
    canonical(spec.kind, &Node::text(written).value)
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    fn said(name: &str, text: &str) -> Said {
        let file = std::env::temp_dir().join(format!("throng-said-{}-{name}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let loaded = load(Sources { file: Some(file.clone()), ..Sources::default() });
        std::fs::remove_file(&file).unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        loaded.said
    }

    #[test]
    fn another_way_to_write_the_same_is_no_change() {
        let one =
            said("a.toml", "[client]\nping_interval = \"60s\"\nallowed_origins = [\"a\", \"b\"]\n");
        let other =
            said("b.yaml", "client: {ping_interval: 1m, allowed_origins: a b, pong_timeout: 8s}");
        assert_eq!(one.changes(&other), Vec::<String>::new());
    }

    #[test]
    fn changes_are_named_by_their_paths_and_an_element_once() {
        let one = said(
            "c.toml",
            "[http_server]\nport = 1\n[[channel.namespaces]]\nname = \"gone\"\npresence = true\n",
        );
        let other = said(
            "d.toml",
            "[http_server]\nport = 2\n[[channel.namespaces]]\nname = \"new\"\njoin_leave = true\n\
             [client.token]\nhmac_secret_key = \"k\"\n",
        );
        let changes = one.changes(&other);
        assert_eq!(
            changes,
            [
                "channel.namespaces.gone",
                "channel.namespaces.new",
                "client.token.hmac_secret_key",
                "http_server.port"
            ]
        );
        let live: Vec<bool> = changes.iter().map(|path| Said::is_live(path)).collect();
        assert_eq!(live, [true, true, true, false]);
        // What was not taken is still a change at the next look.
        let mut taken = one;
        taken.take_live(&other);
        assert_eq!(taken.changes(&other), ["http_server.port"]);
        assert!(!format!("{taken:?}").contains("\"k\""));
    }

    #[test]
    fn names_that_only_begin_alike_are_not_live() {
        assert!(!Said::is_live("client.tokens"));
        assert!(!Said::is_live("http_api.keys"));
        assert!(!Said::is_live("client.allowed_origins_x"));
        assert!(Said::is_live("client.subscription_token.enabled"));
    }
}
