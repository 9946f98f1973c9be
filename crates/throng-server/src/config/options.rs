//! The one table of known options: their paths, kinds and defaults, and what becomes of them here.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Bool,
    Duration,
    /// A list of texts.
    Texts,
    /// Bytes, with a unit if one likes; throng's own.
    Bytes,
    Map,
    /// A list of tables that is not looked into.
    List,
    /// `channel.namespaces`.
    Namespaces,
}

/// What becomes of an option here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Supported,
    /// Does nothing without another option, which is the one that is judged.
    Quiet,
    /// Judged by the sentence of this name.
    Judged(&'static str),
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub kind: Kind,
    /// As it is written; empty: none, zero, false.
    pub default: &'static str,
    pub status: Status,
    /// For a comment beside it; may be empty.
    pub doc: &'static str,
    /// Its place in the table.
    pub place: usize,
}

/// The table, and the options of a namespace by their own names.
#[derive(Debug)]
pub(super) struct Options {
    pub all: BTreeMap<String, Spec>,
    pub channel: BTreeMap<String, Spec>,
    /// Of one of the `proxies`.
    pub proxy: BTreeMap<String, Spec>,
    /// Of one of the `rpc.namespaces`.
    pub rpc: BTreeMap<String, Spec>,
}

/// Read once from the text beside this file.
pub(super) fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| read(include_str!("options.tsv")))
}

impl Options {
    /// The option at a path, those of a namespace included.
    pub(super) fn spec(&self, path: &str) -> Option<&Spec> {
        let lists = [
            ("channel.namespaces.", &self.channel),
            ("proxies.", &self.proxy),
            ("rpc.namespaces.", &self.rpc),
        ];
        for (list, options) in lists {
            if let Some(rest) = path.strip_prefix(list) {
                return options.iter().find_map(|(name, spec)| {
                    rest.strip_suffix(name.as_str())?.strip_suffix('.').map(|_| spec)
                });
            }
        }
        self.all.get(path)
    }

    /// Whether options stand below this path.
    #[cfg(test)]
    pub(super) fn is_section(&self, path: &str) -> bool {
        below(&self.all, path)
    }

    /// Every name that options stand below, for a group whose name is misspelt.
    pub(super) fn sections(&self) -> Vec<String> {
        let dots = |path: &str| path.match_indices('.').map(|(at, _)| at).collect::<Vec<_>>();
        let mut sections: Vec<String> = self
            .all
            .keys()
            .flat_map(|path| dots(path).into_iter().map(|at| path[..at].to_owned()))
            .collect();
        sections.sort();
        sections.dedup();
        sections
    }
}

/// Whether options of the table stand below this path.
pub(super) fn below(options: &BTreeMap<String, Spec>, path: &str) -> bool {
    let begin = format!("{path}.");
    options.range(begin.clone()..).next().is_some_and(|(name, _)| name.starts_with(&begin))
}

/// Name, kind, default, status, doc.
type Row = [&'static str; 5];

fn read(table: &'static str) -> Options {
    let mut groups: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    let mut section = "";
    for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        groups.entry(section).or_default().push([cell(), cell(), cell(), cell(), cell()]);
    }
    let expanded = |group: &str| {
        let mut options = BTreeMap::new();
        expand(&groups, group, "", &mut options);
        options
    };
    Options {
        all: expanded("options"),
        channel: expanded("channel"),
        proxy: expanded("proxy"),
        rpc: expanded("rpc_namespace"),
    }
}

fn expand(
    groups: &BTreeMap<&str, Vec<Row>>,
    group: &str,
    prefix: &str,
    options: &mut BTreeMap<String, Spec>,
) {
    for &[name, kind, default, status, doc] in groups.get(group).into_iter().flatten() {
        let path = format!("{prefix}{name}");
        if let Some(inner) = kind.strip_prefix('@') {
            expand(groups, inner, &format!("{path}."), options);
            continue;
        }
        let place = options.len();
        let status = match status {
            "yes" => Status::Supported,
            "quiet" => Status::Quiet,
            name => Status::Judged(name),
        };
        options.insert(path, Spec { kind: self::kind(kind), default, status, doc, place });
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "text" => Kind::Text,
        "int" => Kind::Int,
        "bool" => Kind::Bool,
        "duration" => Kind::Duration,
        "texts" => Kind::Texts,
        "bytes" => Kind::Bytes,
        "map" => Kind::Map,
        "namespaces" => Kind::Namespaces,
        _ => Kind::List,
    }
}

/// The known name nearest to an unknown one, where one is near enough to be meant.
pub(super) fn nearest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a String> + Clone,
) -> Option<&'a str> {
    let joined = joined_name(name);
    // Older files are flat: `token_hmac_secret_key` is `client.token.hmac_secret_key` now.
    let tail = format!("_{joined}");
    let of_old = known
        .clone()
        .filter(|path| joined_name(path).ends_with(&tail))
        .min_by_key(|path| (path.starts_with("grpc"), path.len()));
    let close_enough = (joined.len() / 4).clamp(1, 4);
    let misspelt = known
        .map(|path| (distance(&joined, &joined_name(path)), path))
        .min_by_key(|(distance, path)| (*distance, path.len()))
        .filter(|(distance, _)| *distance <= close_enough)
        .map(|(_, path)| path);
    misspelt.or(of_old).map(String::as_str)
}

/// As the environment writes it, in small letters: dots and underscores are easily confused.
fn joined_name(path: &str) -> String {
    path.replace(['.', '-'], "_").to_lowercase()
}

/// How many letters to change, add, drop or swap with a neighbour to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        // 780 of Centrifugo 6.9, and throng's own.
        assert_eq!(options().all.len(), 780 + 13 + 12 + 9 + 1);
        let spec = &options().all["client.proxy.connect.http.tls.enabled"];
        assert_eq!((spec.kind, spec.status), (Kind::Bool, Status::Quiet));
        assert_eq!(options().all["http_server.tls.enabled"].status, Status::Judged("tls"));
        assert_eq!(options().all["client.ping_interval"].default, "25s");
    }

    #[test]
    fn options_of_a_namespace_are_found_by_their_full_path() {
        let options = options();
        assert!(options.spec("channel.namespaces.news.history_ttl").is_some());
        assert!(options.spec("channel.namespaces.a.b.map.key_ttl").is_some());
        assert!(options.spec("channel.namespaces.news.ttl").is_none());
        assert!(options.is_section("client.token") && !options.is_section("client.tok"));
    }

    #[test]
    fn a_misspelt_or_old_name_finds_its_option() {
        let near = |name| nearest(name, options().all.keys());
        assert_eq!(near("client.ping_intervall"), Some("client.ping_interval"));
        assert_eq!(near("client.allowed_orgins"), Some("client.allowed_origins"));
        assert_eq!(near("token_hmac_secret_key"), Some("client.token.hmac_secret_key"));
        assert_eq!(near("api_key"), Some("http_api.key"));
        assert_eq!(near("allowed_origins"), Some("client.allowed_origins"));
        assert_eq!(near("something_else_entirely"), None);
    }
}
