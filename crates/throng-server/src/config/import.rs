//! A configuration of Centrifugo as one of throng: the same options, in TOML, each with what it
//! means, and what has no counterpart here beside its reason.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Sources;
use super::backends::of_json;
use super::duration::show_duration;
use super::options::{Kind, Spec, Status, options};
use super::problem::{Problem, ProblemKind};
use super::read;
use super::tree::{Node, Value};
use super::verdict::{Verdict, verdict};
use super::written::{Given, NAMESPACES, PROXIES, RPC_NAMESPACES, Variables, Written};

/// A configuration that was taken over.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The file, in TOML. It may hold secrets: write it with mode 0600.
    pub text: String,
    /// How many options it sets.
    pub taken: usize,
    /// Options that are not supported and would change who receives a message, what survives, or
    /// what is encrypted or checked. They stand in the text as comments.
    pub missing: Vec<Problem>,
    /// Other options that have no effect here, in the text as comments too.
    pub without_effect: Vec<Problem>,
    /// Keys that nobody knows, left out.
    pub unknown: Vec<Problem>,
    /// Why nothing was taken over: the file is not there, or is no configuration.
    pub problems: Vec<Problem>,
}

/// Takes a configuration over. References such as `${CENTRIFUGO_VAR_X}` stay references.
pub fn import(sources: Sources) -> Imported {
    let written = Written::gather(sources, Variables::AsWritten);
    let unreadable = |kind| matches!(kind, ProblemKind::Unreadable | ProblemKind::Syntax);
    let (judged, problems): (Vec<Problem>, Vec<Problem>) = (written.problems.iter())
        .chain(&written.warnings)
        .cloned()
        .partition(|problem| matches!(problem.kind, ProblemKind::Unsupported));
    let (unknown, problems): (Vec<Problem>, Vec<Problem>) =
        problems.into_iter().partition(|problem| problem.kind == ProblemKind::Unknown);
    if problems.iter().any(|problem| unreadable(problem.kind)) {
        let nothing = Vec::new;
        return Imported {
            text: String::new(),
            taken: 0,
            missing: nothing(),
            without_effect: nothing(),
            unknown,
            problems,
        };
    }
    let (missing, without_effect): (Vec<Problem>, Vec<Problem>) =
        judged.into_iter().partition(|problem| {
            let spec = options().spec(&problem.path);
            matches!(spec.map(|spec| spec.status), Some(Status::Judged(name))
                if matches!(verdict(name), Some(Verdict::Stops(_))))
        });
    let mut page = Page::default();
    page.lay_out(&written, &missing, &without_effect);
    let text = page.text(&written, &unknown);
    Imported { text, taken: page.taken, missing, without_effect, unknown, problems }
}

/// The file in the making.
#[derive(Default)]
struct Page {
    /// By section, which may be the element of a list, in the order of the table.
    sections: Vec<(Section, Vec<String>)>,
    taken: usize,
}

/// What stands in front of a group of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Section {
    /// `[a.b]`; empty: the top.
    Table(String),
    /// `[[list]]` and its name.
    Element(&'static str, String),
}

/// Lists whose elements have names and options, in the order in which they stand in the file.
const LISTS: [&str; 3] = [PROXIES, RPC_NAMESPACES, NAMESPACES];

impl Page {
    fn lay_out(&mut self, written: &Written, missing: &[Problem], without_effect: &[Problem]) {
        let reasons: BTreeMap<&str, (&str, &str)> = (missing.iter().map(|p| (p, "NOT SUPPORTED")))
            .chain(without_effect.iter().map(|p| (p, "No effect here")))
            .map(|(problem, how)| (problem.path.as_str(), (how, problem.what.as_str())))
            .collect();
        let mut all: Vec<(&String, &Given, &Spec)> = (written.given.iter())
            .filter_map(|(path, given)| Some((path, given, options().spec(path)?)))
            .collect();
        all.sort_by_key(|(path, _, spec)| (list_of(path).is_some(), spec.place));
        // Elements first in the order of their names, so that one without options is there too.
        let names = |list: &str| -> Vec<String> {
            match list {
                PROXIES => written.proxies.iter().cloned().collect(),
                RPC_NAMESPACES => written.rpc_namespaces.iter().cloned().collect(),
                _ => written.namespaces.keys().cloned().collect(),
            }
        };
        for (path, given, spec) in all.iter().filter(|(path, ..)| list_of(path).is_none()) {
            let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
            self.row(
                Section::Table(section.to_owned()),
                name,
                (given, spec),
                reasons.get(path.as_str()),
            );
        }
        for list in LISTS {
            for name in names(list) {
                let section = Section::Element(list, name.clone());
                self.sections.push((section.clone(), vec![format!("name = {name:?}\n")]));
                let prefix = format!("{list}.{name}.");
                for (path, given, spec) in &all {
                    if let Some(option) = path.strip_prefix(&prefix) {
                        self.row(
                            section.clone(),
                            option,
                            (given, spec),
                            reasons.get(path.as_str()),
                        );
                    }
                }
            }
        }
    }

    fn row(
        &mut self,
        section: Section,
        name: &str,
        (given, spec): (&Given, &Spec),
        reason: Option<&(&str, &str)>,
    ) {
        let Some(value) = toml_of(spec.kind, &given.node.value) else { return };
        let row = match (reason, spec.status) {
            (Some((how, what)), _) => {
                let what = what.strip_prefix("not supported yet; ").unwrap_or(what);
                format!("# {how}: {what}.\n# {name} = {value}\n")
            }
            // Asks for nothing more than its default, so it says nothing.
            (None, Status::Judged(_)) => return,
            (None, _) => {
                self.taken += 1;
                let doc =
                    if spec.doc.is_empty() { String::new() } else { format!("# {}\n", spec.doc) };
                format!("{doc}{name} = {value}\n")
            }
        };
        match self.sections.iter_mut().find(|(known, _)| *known == section) {
            Some((_, rows)) => rows.push(row),
            None => self.sections.push((section, vec![row])),
        }
    }

    fn text(&self, written: &Written, unknown: &[Problem]) -> String {
        let from = match &written.file {
            Some(file) => file.display().to_string(),
            None => "the environment".to_owned(),
        };
        let mut text = format!(
            "# throng's configuration, taken over from {from}.\n\
             # `throng config check -c FILE` checks it; what is not written here has its default.\n"
        );
        let mut sections: Vec<_> = self.sections.iter().collect();
        // By name, which puts what has no section first, as TOML wants it; lists come last.
        sections.sort_by_key(|(section, _)| match section {
            Section::Table(name) => (0, name.as_str()),
            Section::Element(..) => (1, ""),
        });
        for (section, rows) in sections {
            // Writing to a text cannot fail.
            match section {
                Section::Table(name) if name.is_empty() => text.push('\n'),
                Section::Table(name) => _ = write!(text, "\n[{name}]\n"),
                Section::Element(list, _) => _ = write!(text, "\n[[{list}]]\n"),
            }
            text.extend(rows.iter().map(String::as_str));
        }
        if !unknown.is_empty() {
            text.push_str("\n# Not known here and left out:\n");
            for problem in unknown {
                _ = writeln!(text, "# {problem}");
            }
        }
        text
    }
}

/// The list that an option's path goes through.
fn list_of(path: &str) -> Option<&'static str> {
    LISTS.into_iter().find(|list| path.strip_prefix(list).is_some_and(|rest| rest.starts_with('.')))
}

/// A value in TOML, as its option's kind wants it; as it was where it is not of that kind, for the
/// check to name it. None: null, which is nothing.
pub(super) fn toml_of(kind: Kind, value: &Value) -> Option<String> {
    let of_kind = match kind {
        Kind::Bool => read::as_bool(value).map(|value| value.to_string()),
        Kind::Int => read::as_int(value).map(|value| value.to_string()),
        Kind::Duration => match value {
            // A bare number is nanoseconds, which nobody should have to read.
            Value::Int(_) => {
                read::as_duration(value).ok().map(|it| format!("{:?}", show_duration(it)))
            }
            _ => None,
        },
        Kind::Texts => read::as_texts(value).map(|texts| {
            let all: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", all.join(", "))
        }),
        Kind::Map | Kind::List | Kind::Namespaces => {
            return of_json(value.clone()).as_ref().and_then(literal);
        }
        Kind::Text | Kind::Bytes => None,
    };
    of_kind.or_else(|| literal(value))
}

fn literal(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Text(text) => quoted(text),
        Value::List(list) => {
            let all: Vec<String> =
                list.iter().filter_map(|Node { value, .. }| literal(value)).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Table(rows) => {
            let all: Vec<String> = (rows.iter())
                .filter_map(|(key, node)| {
                    Some(format!("{} = {}", quoted(key), literal(&node.value)?))
                })
                .collect();
            format!("{{ {} }}", all.join(", "))
        }
    })
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for each in text.chars() {
        match each {
            '"' | '\\' => out.extend(['\\', each]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() => _ = write!(out, "\\u{:04X}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    /// A file of this name, for as long as the test needs it.
    struct File(std::path::PathBuf);

    impl File {
        fn of(name: &str, text: &str) -> Self {
            let file =
                std::env::temp_dir().join(format!("throng-import-{}-{name}", std::process::id()));
            std::fs::write(&file, text).unwrap();
            Self(file)
        }

        fn sources(&self) -> Sources {
            Sources { file: Some(self.0.clone()), ..Sources::default() }
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).ok();
        }
    }

    const YAML: &str = r#"
client:
  allowed_origins: ["https://example.com"]
  ping_interval: 30s
  token: {hmac_secret_key: "k\"ey", hmac_previous_secret_key: null}
  proxy:
    connect: {enabled: true, endpoint: "http://app/connect", timeout: 2000000000}
http_api: {key: "${CENTRIFUGO_VAR_KEY}"}
pid_file: ""
rpc:
  namespaces: [{name: shop, proxy_enabled: true, proxy_name: till}]
proxies:
  - {name: till, endpoint: "http://till/rpc", http: {static_headers: {"X-Till": "1"}}}
channel:
  without_namespace: {history_size: 10, history_ttl: 1m}
  namespaces:
    - {name: chat, presence: true, allowed_delta_types: [fossil]}
    - {name: plain}
engine: {type: redis, redis: {address: "redis://r:6379"}}
admin: {enabled: true}
clint: {x: 1}
"#;

    #[test]
    fn what_is_taken_over_means_the_same() {
        let file = File::of("a.yaml", YAML);
        let imported = import(file.sources());
        assert!(imported.problems.is_empty(), "{:?}", imported.problems);
        let paths = |list: &[Problem]| list.iter().map(|p| p.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&imported.missing), ["engine.type"]);
        assert!(paths(&imported.without_effect).contains(&"admin.enabled".to_owned()));
        assert_eq!(paths(&imported.unknown), ["clint"]);
        let text = &imported.text;
        assert!(text.contains("key = \"${CENTRIFUGO_VAR_KEY}\"\n"), "{text}");
        assert!(text.contains("timeout = \"2s\"\n"), "{text}");
        assert!(text.contains("# NOT SUPPORTED: two nodes"), "{text}");
        assert!(text.contains("# type = \"redis\"\n"), "{text}");
        assert!(text.contains("[[channel.namespaces]]\nname = \"plain\"\n"), "{text}");

        // Both files mean the same settings, but for what the first could not have.
        let env = vec![("CENTRIFUGO_VAR_KEY".to_owned(), "secret".to_owned())];
        let without = YAML.replace("engine:", "#engine:");
        let source = File::of("b.yaml", &without);
        let of = |sources: Sources| {
            let loaded = load(Sources { env: env.clone(), ..sources });
            format!("{:#?}", loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.problems)))
        };
        let target = File::of("c.toml", text);
        assert_eq!(of(target.sources()), of(source.sources()));
    }

    #[test]
    fn the_environment_is_taken_over_too() {
        let none = File::of("d.json", "{}");
        let env = [
            ("CENTRIFUGO_CLIENT_ALLOWED_ORIGINS", "https://a https://b"),
            ("CENTRIFUGO_CHANNEL_NAMESPACES", "one two"),
            ("CENTRIFUGO_CHANNEL_NAMESPACES_ONE_PRESENCE", "true"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let text = import(Sources { env, ..none.sources() }).text;
        assert!(text.contains("allowed_origins = [\"https://a\", \"https://b\"]\n"), "{text}");
        assert!(text.contains("name = \"one\"\n") && text.contains("presence = true\n"), "{text}");
        assert!(text.contains("name = \"two\"\n"), "{text}");
    }

    #[test]
    fn nothing_comes_of_a_file_that_is_none() {
        let file = File::of("e.json", "{\"a\": ");
        let imported = import(file.sources());
        assert_eq!((imported.taken, imported.text.as_str()), (0, ""));
        assert_eq!(imported.problems[0].kind, ProblemKind::Syntax);
        let gone = Sources { file: Some("/nowhere/at-all.json".into()), ..Sources::default() };
        assert_eq!(import(gone).problems[0].kind, ProblemKind::Unreadable);
    }

    #[test]
    fn every_value_is_toml_again() {
        let nodes = [
            Value::Text("a\"b\\c\n\u{1}ä".to_owned()),
            Value::Float(1.0),
            Value::List(vec![Node { line: 0, value: Value::Bool(true) }]),
            Value::Table(vec![("a b".to_owned(), Node { line: 0, value: Value::Int(-1) })]),
        ];
        for node in nodes {
            let text = format!("x = {}\n", literal(&node).unwrap());
            let parsed = super::super::tree::Syntax::Toml.parse(&text).unwrap();
            let Value::Table(rows) = parsed.value else { panic!("{text}") };
            assert_eq!(rows[0].1.value.to_string(), node.to_string());
        }
    }
}
