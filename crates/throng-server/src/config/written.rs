//! Gathers what flags, environment and file say, option by option, and judges what is not known or
//! not supported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::backends::of_json;
use super::options::{self, Kind, Spec, Status};
use super::problem::{Place, Problem, ProblemKind};
use super::tree::{Node, Syntax, SyntaxError, Value};
use super::verdict::{Verdict, gate, verdict};
use super::{Sources, read};

/// Prefixes of the environment, the stronger last.
const PREFIXES: [&str; 2] = ["CENTRIFUGO_", "THRONG_"];
/// The list whose elements have options of their own.
pub(super) const NAMESPACES: &str = "channel.namespaces";
/// The list of named backends.
pub(super) const PROXIES: &str = "proxies";
/// The list of namespaces of remote calls.
pub(super) const RPC_NAMESPACES: &str = "rpc.namespaces";
/// Variables that are the command line's, not the server's.
const OF_THE_COMMAND: [&str; 3] = [
    "THRONG_URL",
    crate::restart::manager::HANDOFF_VARIABLE,
    crate::restart::manager::KEEPER_VARIABLE,
];

/// A value and who gave it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub node: Node,
    pub place: Place,
}

/// What becomes of `${THRONG_VAR_X}` in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Variables {
    /// The variable's value stands there.
    #[default]
    Filled,
    AsWritten,
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By path; options of a namespace are at `channel.namespaces.NAME.OPTION`.
    pub given: BTreeMap<String, Given>,
    /// Names of namespaces, and where each is written.
    pub namespaces: BTreeMap<String, Place>,
    /// Names of `proxies`; their options are at `proxies.NAME.OPTION`.
    pub proxies: BTreeSet<String>,
    /// Names of `rpc.namespaces`; their options are at `rpc.namespaces.NAME.OPTION`.
    pub rpc_namespaces: BTreeSet<String>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    pub file: Option<PathBuf>,
    /// For `${THRONG_VAR_X}` in a file.
    env: HashMap<String, String>,
    variables: Variables,
}

impl Written {
    /// Gathers all sources, the stronger over the weaker.
    pub(super) fn gather(sources: Sources, variables: Variables) -> Self {
        let env = sources.env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut written = Self { env, variables, ..Self::default() };
        match sources.file {
            Some(file) => written.read_file(file),
            None if sources.dev => {}
            None => {
                let found = super::FILE_NAMES.iter().map(PathBuf::from).find(|file| file.is_file());
                found.into_iter().for_each(|file| written.read_file(file));
            }
        }
        written.read_env();
        for (path, value) in sources.flags {
            let given = Given { node: Node::text(&value), place: Place::Flag };
            if options::options().spec(&path).is_some() {
                written.given.insert(path, given);
            } else {
                written.unknown(&path, given.place);
            }
        }
        written.read_proxies();
        written.read_rpc_namespaces();
        written.judge();
        written
    }

    /// Gives a value that nobody else gave.
    pub(super) fn or_give(&mut self, path: &str, value: &str) {
        let given = Given { node: Node::text(value), place: Place::Default };
        self.given.entry(path.to_owned()).or_insert(given);
    }

    fn read_file(&mut self, file: PathBuf) {
        let unreadable = |kind, line, what| Problem {
            kind,
            place: Place::File(file.clone(), line),
            path: String::new(),
            value: None,
            what,
        };
        self.file = Some(file.clone());
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot be read: {error}; give another with -c FILE");
                self.problems.push(unreadable(ProblemKind::Unreadable, 0, what));
                return;
            }
        };
        match parse(&file, &text) {
            Ok(Node { value: Value::Table(rows), .. }) => {
                self.section(&Scope::of_file(file.clone()), "", rows);
            }
            Ok(_) => {
                let what = "has no options; write `name = value` lines".to_owned();
                self.problems.push(unreadable(ProblemKind::Syntax, 1, what));
            }
            Err(errors) => {
                let said = |e: SyntaxError| unreadable(ProblemKind::Syntax, e.line, e.what);
                self.problems.extend(errors.into_iter().map(said));
            }
        }
    }

    /// Takes a table of the file in; `rel` is its path within the scope.
    fn section(&mut self, scope: &Scope, rel: &str, rows: Vec<(String, Node)>) {
        for (key, node) in rows {
            let rel = if rel.is_empty() { key } else { format!("{rel}.{key}") };
            let path = format!("{}{rel}", scope.prefix);
            let place = scope.place(node.line);
            match (scope.spec(&rel), node.value) {
                (_, Value::Null) => {}
                (Some(Spec { kind: Kind::Namespaces, .. }), value) => {
                    self.namespaces(value, &place);
                }
                (Some(_), value) => self.give(path, Node { line: node.line, value }, place),
                (None, Value::Table(rows)) if scope.is_section(&rel) => {
                    self.section(scope, &rel, rows);
                }
                (None, value) if scope.is_section(&rel) => {
                    let first = scope.first_below(&rel);
                    let what =
                        format!("is a group of options, not a value; meant is perhaps {first}");
                    self.problem(&path, Some(value.to_string()), place, what);
                }
                (None, Value::Table(_)) => {
                    let sections = options::options().sections();
                    let near = options::nearest(&path, sections.iter()).map(str::to_owned);
                    self.say_unknown(&path, place, near);
                }
                (None, _) => self.unknown(&path, place),
            }
        }
    }

    fn give(&mut self, path: String, mut node: Node, place: Place) {
        if self.variables == Variables::Filled
            && let Err(missing) = substitute(&mut node, &self.env)
        {
            let what = format!("{missing} is not set in the environment; set it");
            self.problem(&path, None, place.clone(), what);
        }
        if let Some(Given { place: Place::File(_, line), .. }) = self.given.get(&path)
            && matches!(place, Place::File(..))
        {
            let what = format!("is given twice, first on line {line}; keep one");
            self.problem(&path, None, place.clone(), what);
        }
        self.given.insert(path, Given { node, place });
    }

    fn namespaces(&mut self, value: Value, place: &Place) {
        let Value::List(list) = value else {
            let what = "is not a list of namespaces; write [[channel.namespaces]] and name = \"…\"";
            return self.problem(NAMESPACES, None, place.clone(), what.to_owned());
        };
        for node in list {
            let place = match place {
                Place::File(file, _) => Place::File(file.clone(), node.line),
                other => other.clone(),
            };
            let Value::Table(mut rows) = node.value else {
                let what = "is not a namespace: each has a name and options".to_owned();
                self.problem(NAMESPACES, Some(node.value.to_string()), place, what);
                continue;
            };
            let named = rows.iter().position(|(key, _)| key == "name").map(|at| rows.remove(at));
            match named.map(|(_, node)| (node.value, node.line)) {
                Some((Value::Text(name), line)) => {
                    let place = match place {
                        Place::File(file, _) => Place::File(file, line),
                        other => other,
                    };
                    self.namespace(name, &place, rows);
                }
                Some((other, _)) => {
                    let what = "a namespace's name is a text; put it in quotes".to_owned();
                    self.problem(NAMESPACES, Some(other.to_string()), place, what);
                }
                None => {
                    let what = "a namespace without a name; add name = \"…\"".to_owned();
                    self.problem(NAMESPACES, None, place, what);
                }
            }
        }
    }

    fn namespace(&mut self, name: String, place: &Place, rows: Vec<(String, Node)>) {
        if !is_namespace(&name) {
            let what = NO_NAME.to_owned();
            self.problem(NAMESPACES, Some(format!("{name:?}")), place.clone(), what);
            return;
        }
        if self.namespaces.contains_key(&name) {
            let what = "the namespace is there twice; keep one".to_owned();
            self.problem(NAMESPACES, Some(format!("{name:?}")), place.clone(), what);
            return;
        }
        let scope = Scope::of_namespace(&name, place);
        self.namespaces.insert(name, place.clone());
        self.section(&scope, "", rows);
    }

    fn read_env(&mut self) {
        let mut names: Vec<String> = self.env.keys().cloned().collect();
        // Sorted, and the stronger prefix after the weaker.
        names.sort_by_key(|name| (name.starts_with(PREFIXES[1]), name.clone()));
        let in_env = |suffix: &str| {
            PREFIXES.iter().rev().find_map(|prefix| {
                let name = format!("{prefix}{suffix}");
                self.env.get(&name).map(|value| (name.clone(), value.clone()))
            })
        };
        if let Some((name, value)) = in_env("CHANNEL_NAMESPACES") {
            self.namespaces_of_env(&name, &value);
        }
        let paths = self.env_paths();
        for name in names {
            let Some(suffix) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
                continue;
            };
            if suffix.starts_with("VAR_")
                || suffix == "CHANNEL_NAMESPACES"
                || OF_THE_COMMAND.contains(&name.as_str())
                || of_a_container(suffix)
            {
                continue;
            }
            match paths.get(suffix) {
                Some(path) => {
                    let node = Node::text(&self.env[&name]);
                    self.given.insert(path.clone(), Given { node, place: Place::Env(name) });
                }
                None => self.unknown_env(&name, suffix, &paths),
            }
        }
    }

    fn namespaces_of_env(&mut self, name: &str, value: &str) {
        let place = Place::Env(name.to_owned());
        if value.trim_start().starts_with('[') {
            match Syntax::Json.parse(value) {
                Ok(node) => {
                    self.namespaces.clear();
                    self.given.retain(|path, _| !path.starts_with("channel.namespaces."));
                    self.namespaces(node.value, &place);
                }
                Err(errors) => {
                    let what = format!("not a JSON list: {}", errors[0].what);
                    self.problem(NAMESPACES, None, place, what);
                }
            }
            return;
        }
        for namespace in value.split_whitespace() {
            if !self.namespaces.contains_key(namespace) {
                self.namespace(namespace.to_owned(), &place, Vec::new());
            }
        }
    }

    /// Every variable's name, without its prefix, and the option that it sets.
    fn env_paths(&self) -> HashMap<String, String> {
        let known = options::options();
        let mut paths: HashMap<String, String> =
            known.all.keys().map(|path| (env_name(path), path.clone())).collect();
        for namespace in self.namespaces.keys() {
            for option in known.channel.keys() {
                let path = format!("{NAMESPACES}.{namespace}.{option}");
                paths.insert(env_name(&path), path);
            }
        }
        paths
    }

    fn unknown(&mut self, path: &str, place: Place) {
        let known = options::options();
        let in_namespace = path.strip_prefix("channel.namespaces.").and_then(|rest| {
            let (namespace, option) = rest.split_once('.')?;
            let near = options::nearest(option, known.channel.keys())?;
            Some(format!("{NAMESPACES}.{namespace}.{near}"))
        });
        let near =
            in_namespace.or_else(|| options::nearest(path, known.all.keys()).map(str::to_owned));
        self.say_unknown(path, place, near);
    }

    fn say_unknown(&mut self, path: &str, place: Place, near: Option<String>) {
        let what = match near {
            Some(near) => format!("not a known option; did you mean {near}?"),
            None => "not a known option; it has no effect".to_owned(),
        };
        let path = path.to_owned();
        self.warnings.push(Problem { kind: ProblemKind::Unknown, place, path, value: None, what });
    }

    fn unknown_env(&mut self, name: &str, suffix: &str, paths: &HashMap<String, String>) {
        let mut sorted: Vec<&String> = paths.keys().collect();
        sorted.sort();
        let what = match options::nearest(suffix, sorted.into_iter()) {
            Some(near) => format!("sets no known option; did you mean THRONG_{near}?"),
            None => "sets no known option".to_owned(),
        };
        self.warnings.push(Problem {
            kind: ProblemKind::Unknown,
            place: Place::Env(name.to_owned()),
            path: suffix.to_owned(),
            value: None,
            what,
        });
    }

    fn problem(&mut self, path: &str, value: Option<String>, place: Place, what: String) {
        let kind = ProblemKind::Invalid;
        self.problems.push(Problem { kind, place, path: path.to_owned(), value, what });
    }

    /// Takes the list of named backends apart.
    fn read_proxies(&mut self) {
        for (name, place, rows) in self.elements(PROXIES) {
            if name == "default" || !self.proxies.insert(name.clone()) {
                let what = "each has a name of its own, and \"default\" is taken".to_owned();
                self.problem(PROXIES, Some(format!("{name:?}")), place, what);
                continue;
            }
            self.section(&Scope::of_proxy(&name, &place), "", rows);
        }
    }

    /// Takes the list of namespaces of remote calls apart.
    fn read_rpc_namespaces(&mut self) {
        for (name, place, rows) in self.elements(RPC_NAMESPACES) {
            if !is_namespace(&name) {
                self.problem(RPC_NAMESPACES, Some(format!("{name:?}")), place, NO_NAME.to_owned());
            } else if self.rpc_namespaces.insert(name.clone()) {
                self.section(&Scope::of_rpc_namespace(&name, &place), "", rows);
            } else {
                let what = "the namespace is there twice; keep one".to_owned();
                self.problem(RPC_NAMESPACES, Some(format!("{name:?}")), place, what);
            }
        }
    }

    /// The elements of a list, with their names, places and options; who has none is a problem.
    fn elements(&mut self, path: &str) -> Vec<Element> {
        let Some(Given { node, place }) = self.given.remove(path) else { return Vec::new() };
        let list = match of_json(node.value) {
            None => return Vec::new(),
            Some(Value::List(list)) => list,
            Some(other) => {
                let what = format!("is not a list; write [[{path}]] and name = \"…\"");
                self.problem(path, Some(other.to_string()), place, what);
                return Vec::new();
            }
        };
        let mut elements = Vec::new();
        for node in list {
            let place = match &place {
                Place::File(file, _) => Place::File(file.clone(), node.line),
                other => other.clone(),
            };
            let named = match node.value {
                Value::Table(mut rows) => {
                    let at = rows.iter().position(|(key, _)| key == "name");
                    match at.map(|at| rows.remove(at).1.value) {
                        Some(Value::Text(name)) => Some((name, rows)),
                        _ => None,
                    }
                }
                _ => None,
            };
            match named {
                Some((name, rows)) => elements.push((name, place, rows)),
                None => {
                    let what = "each has a name; add name = \"…\"".to_owned();
                    self.problem(path, None, place, what);
                }
            }
        }
        elements
    }

    /// Stops or warns where something is asked for that is not there.
    fn judge(&mut self) {
        let known = options::options();
        let mut judged: Vec<(usize, Problem, bool)> = Vec::new();
        for (path, given) in &self.given {
            let Some(spec) = known.spec(path) else { continue };
            let Status::Judged(name) = spec.status else { continue };
            let gate_open = gate(path).is_none_or(|gate| self.is_on(gate));
            if !gate_open || !asks(spec, &given.node.value) {
                continue;
            }
            let (stops, what) = match verdict(name) {
                Some(Verdict::Stops(what)) => (true, what),
                Some(Verdict::Warns(what)) => (false, what),
                None => continue,
            };
            let shown = matches!(spec.kind, Kind::Text | Kind::Bool | Kind::Int | Kind::Duration)
                && !read::is_secret(path);
            let problem = Problem {
                kind: ProblemKind::Unsupported,
                place: given.place.clone(),
                path: path.clone(),
                value: shown.then(|| given.node.value.to_string()),
                what: what.to_owned(),
            };
            judged.push((spec.place, problem, stops));
        }
        judged.sort_by_key(|(place, ..)| *place);
        for (_, problem, stops) in judged {
            if stops { &mut self.problems } else { &mut self.warnings }.push(problem);
        }
    }

    fn is_on(&self, path: &str) -> bool {
        self.given.get(path).is_some_and(|given| read::as_bool(&given.node.value) == Some(true))
    }
}

/// An element of a list: its name, where it stands, and its options.
type Element = (String, Place, Vec<(String, Node)>);

/// What is said about a name that is none.
const NO_NAME: &str = "not a namespace's name: two or more of a-z, A-Z, 0-9, `-`, `_` and `.`";

fn is_namespace(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() >= 2 && name.chars().all(good)
}

/// Where a table of the file stands: in the file itself, or in a namespace.
struct Scope {
    file: Option<PathBuf>,
    place: Place,
    prefix: String,
    table: &'static BTreeMap<String, Spec>,
}

impl Scope {
    fn of_file(file: PathBuf) -> Self {
        Self {
            file: Some(file),
            place: Place::Default,
            prefix: String::new(),
            table: &options::options().all,
        }
    }

    fn of_namespace(name: &str, place: &Place) -> Self {
        Self::of_element(&format!("{NAMESPACES}.{name}."), place, &options::options().channel)
    }

    fn of_proxy(name: &str, place: &Place) -> Self {
        Self::of_element(&format!("{PROXIES}.{name}."), place, &options::options().proxy)
    }

    fn of_rpc_namespace(name: &str, place: &Place) -> Self {
        let prefix = format!("{RPC_NAMESPACES}.{name}.");
        Self::of_element(&prefix, place, &options::options().rpc)
    }

    fn of_element(prefix: &str, place: &Place, table: &'static BTreeMap<String, Spec>) -> Self {
        let file = match place {
            Place::File(file, _) => Some(file.clone()),
            _ => None,
        };
        Self { file, place: place.clone(), prefix: prefix.to_owned(), table }
    }

    fn place(&self, line: usize) -> Place {
        match &self.file {
            Some(file) => Place::File(file.clone(), line),
            None => self.place.clone(),
        }
    }

    fn spec(&self, rel: &str) -> Option<&'static Spec> {
        self.table.get(rel)
    }

    /// The first option of a group, with its whole path.
    fn first_below(&self, rel: &str) -> String {
        let begin = format!("{rel}.");
        let below = self.table.iter().filter(|(name, _)| name.starts_with(&begin));
        let first = below.min_by_key(|(_, spec)| spec.place).map_or("", |(name, _)| name);
        format!("{}{first}", self.prefix)
    }

    fn is_section(&self, rel: &str) -> bool {
        options::below(self.table, rel)
    }
}

fn parse(file: &Path, text: &str) -> Result<Node, Vec<SyntaxError>> {
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str() {
        Some("toml") => Syntax::Toml.parse(text),
        Some("yaml" | "yml") => Syntax::Yaml.parse(text),
        Some("json") => Syntax::Json.parse(text),
        _ if text.trim_start().starts_with('{') => Syntax::Json.parse(text),
        _ => Syntax::Toml.parse(text).or_else(|errors| match Syntax::Yaml.parse(text) {
            Ok(node @ Node { value: Value::Table(_), .. }) => Ok(node),
            _ => Err(errors),
        }),
    }
}

/// Whether the value asks for more than the default.
fn asks(spec: &Spec, value: &Value) -> bool {
    match spec.kind {
        Kind::Bool => read::as_bool(value) != Some(spec.default == "true"),
        Kind::Duration => read::as_duration(value).ok() != read::default_duration(spec),
        Kind::Int | Kind::Bytes => {
            read::as_int(value) != Some(spec.default.parse::<i64>().unwrap_or(0))
        }
        Kind::Text => {
            !matches!(value, Value::Text(text) if text.is_empty() || *text == spec.default)
        }
        Kind::Texts => read::as_texts(value).is_none_or(|texts| !texts.is_empty()),
        Kind::List | Kind::Map | Kind::Namespaces => match value {
            Value::List(list) => list.iter().any(is_switched_on),
            Value::Table(rows) => !rows.is_empty(),
            Value::Text(text) => !matches!(text.trim(), "" | "[]" | "{}"),
            _ => true,
        },
    }
}

/// An element of a list counts unless its own switch is off.
fn is_switched_on(node: &Node) -> bool {
    let Value::Table(rows) = &node.value else { return true };
    let switch = rows.iter().find(|(key, _)| key == "enabled" || key == "proxy_enabled");
    switch.is_some_and(|(_, node)| read::as_bool(&node.value) != Some(false))
}

/// Kubernetes tells each container of a service named `throng` where that is, in variables with the
/// same prefix: `THRONG_SERVICE_HOST`, `THRONG_PORT_8000_TCP_ADDR`.
fn of_a_container(suffix: &str) -> bool {
    suffix.starts_with("SERVICE_") || suffix == "PORT" || suffix.starts_with("PORT_")
}

/// `client.ping_interval` as `CLIENT_PING_INTERVAL`.
pub(super) fn env_name(path: &str) -> String {
    path.replace(['.', '-'], "_").to_uppercase()
}

/// Replaces `${THRONG_VAR_X}` in the texts of a value; the error is a variable that is not set.
fn substitute(node: &mut Node, env: &HashMap<String, String>) -> Result<(), String> {
    match &mut node.value {
        Value::Text(text) if text.contains("${") => {
            let mut done = String::new();
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                let Some(len) = rest[start..].find('}') else { break };
                let name = &rest[start + 2..start + len];
                done.push_str(&rest[..start]);
                if !PREFIXES.iter().any(|prefix| name.starts_with(&format!("{prefix}VAR_"))) {
                    done.push_str(&rest[start..=start + len]);
                } else {
                    done.push_str(env.get(name).ok_or_else(|| name.to_owned())?);
                }
                rest = &rest[start + len + 1..];
            }
            done.push_str(rest);
            *text = done;
            Ok(())
        }
        Value::List(list) => list.iter_mut().try_for_each(|node| substitute(node, env)),
        Value::Table(rows) => rows.iter_mut().try_for_each(|(_, node)| substitute(node, env)),
        _ => Ok(()),
    }
}
