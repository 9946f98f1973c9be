//! docs/compatibility.md, the table of its tests and the code, held together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::codes;
use crate::config::{Fate, fates, quiet_and_read};

/// The words of the second column.
const WORKS: &str = "works";
const DIFFERS: &str = "differs";
const NOT_YET: &str = "not yet";

struct Row {
    what: String,
    verdict: String,
    note: String,
}

impl Row {
    /// What stands in backticks in its first cell.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.what.split('`').skip(1).step_by(2)
    }

    /// Its first cell without marks, as the table of tests calls it.
    fn key(&self) -> String {
        self.what.replace('`', "")
    }

    fn is_there(&self) -> bool {
        self.verdict != NOT_YET
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/compatibility.md")).unwrap()
}

/// The rows below a heading; of the whole page where there is none.
fn rows(heading: &str) -> Vec<Row> {
    let page = page();
    let at = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let level = heading.split(' ').next().unwrap_or_default();
    let mut rows = Vec::new();
    for line in page[at..].trim_start_matches('\n').lines().skip(1) {
        if line.starts_with('#') && line.split(' ').next().unwrap_or_default().len() <= level.len()
        {
            break;
        }
        rows.extend(row(line));
    }
    assert!(!rows.is_empty(), "no rows below {heading}");
    rows
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.splitn(3, " |").map(str::trim).collect();
    let [what, verdict, note] = cells[..] else { return None };
    let is_head = what.is_empty() || verdict.is_empty() || verdict.starts_with('-');
    (!is_head).then(|| Row {
        what: what.to_owned(),
        verdict: verdict.to_owned(),
        note: note.trim_end_matches('|').trim().to_owned(),
    })
}

fn all() -> Vec<Row> {
    page().lines().filter_map(row).collect()
}

/// By the first cell of a row: its tests, as file and name.
fn tests() -> BTreeMap<String, Vec<(String, String)>> {
    let table = std::fs::read_to_string(root().join("tests/compatibility.tsv")).unwrap();
    let mut tests = BTreeMap::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (what, named) = line.split_once('\t').unwrap_or_else(|| panic!("no tab in {line:?}"));
        let named = named
            .split("; ")
            .map(|one| {
                let (file, name) = one.split_once(" > ").unwrap_or_else(|| panic!("{what}: {one}"));
                (file.to_owned(), name.to_owned())
            })
            .collect();
        assert!(tests.insert(what.to_owned(), named).is_none(), "{what} is there twice");
    }
    tests
}

/// Whether a file of tests has one of this name.
fn has_test(text: &str, file: &str, name: &str) -> bool {
    if Path::new(file).extension().is_some_and(|extension| extension == "rs") {
        return text.contains(&format!("fn {name}("));
    }
    ["'", "`", "\""].iter().any(|quote| text.contains(&format!("it({quote}{name}{quote}")))
}

#[test]
fn every_row_has_a_verdict_and_what_is_there_has_tests() {
    let tests = tests();
    let mut keys = BTreeSet::new();
    for row in all() {
        let key = row.key();
        assert!(
            [WORKS, DIFFERS, NOT_YET].contains(&&*row.verdict),
            "{key}: {:?} is no verdict",
            row.verdict
        );
        assert!(row.verdict != DIFFERS || !row.note.is_empty(), "{key} differs, and how?");
        assert!(keys.insert(key.clone()), "{key} is there twice");
        assert!(!row.is_there() || tests.contains_key(&key), "{key} {}: no test", row.verdict);
    }
    for what in tests.keys() {
        assert!(keys.contains(what), "{what} has tests and no row");
    }
    // What is not there yet may name the tests that are to come.
    let there: BTreeSet<String> = all().iter().filter(|row| row.is_there()).map(Row::key).collect();
    for (what, named) in tests.iter().filter(|(what, _)| there.contains(*what)) {
        for (file, name) in named {
            let text = std::fs::read_to_string(root().join(file))
                .unwrap_or_else(|error| panic!("{what}: {file}: {error}"));
            assert!(has_test(&text, file, name), "{what}: {file} has no test {name:?}");
        }
    }
}

/// Whether an option is meant by a name, in which a star stands for anything.
fn covers(name: &str, path: &str) -> bool {
    let mut parts = name.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn every_option_stands_there_with_the_verdict_of_the_code() {
    const NAMESPACE: &str = "channel.without_namespace.";
    let (rows, read) = (rows("### Options"), quiet_and_read());
    let mut used = BTreeSet::new();
    for (path, fate, is_throngs) in fates() {
        let short = path.strip_prefix(NAMESPACE);
        let means = |name: &str| covers(name, &path) || short.is_some_and(|it| covers(name, it));
        let found = rows
            .iter()
            .flat_map(|row| row.names().map(move |name| (row, name)))
            .filter(|(_, name)| means(name))
            // A whole name before one with a star; of several the last.
            .max_by_key(|(_, name)| !name.contains('*'));
        let Some((row, name)) = found else {
            assert!(is_throngs, "{path} is not on the page");
            continue;
        };
        used.insert(name.to_owned());
        let key = row.key();
        let stops = row.note.starts_with("stops the start");
        match fate {
            Fate::Counts => assert!(row.is_there(), "{path} counts, and the page says: {key}"),
            Fate::Stops => {
                assert!(row.verdict == NOT_YET && stops, "{path} stops the start; not so: {key}");
            }
            Fate::HasNoEffect => assert!(
                row.verdict == DIFFERS && row.note.starts_with("has no effect"),
                "{path} has no effect; not so: {key}"
            ),
            Fate::IsMissing => {
                assert!(row.verdict == NOT_YET && !stops, "{path} is not there; not so: {key}");
            }
            // Only together with others, which are on here.
            Fate::Quiet => assert_eq!(read.contains(&path), row.is_there(), "{path}: {key}"),
        }
    }
    for name in rows.iter().flat_map(Row::names) {
        assert!(used.contains(name), "{name} is no option, or later rows have all of it");
    }
}

#[test]
fn every_method_of_the_api_stands_there_with_its_fields() {
    let rows = rows("## Server API");
    let document: serde_json::Value = crate::openapi().unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, operation) in paths {
        let row = rows
            .iter()
            .find(|row| row.names().any(|name| name == format!("/api{path}")))
            .unwrap_or_else(|| panic!("/api{path} is not on the page"));
        assert!(row.is_there(), "/api{path} is there");
        let schema = &operation["post"]["requestBody"]["content"]["application/json"]["schema"];
        let schema = match schema["$ref"].as_str() {
            Some(at) => document.pointer(at.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        for field in schema["properties"].as_object().into_iter().flat_map(|map| map.keys()) {
            let is_named = row.note.contains(&format!("`{field}`"))
                || rows.iter().any(|row| row.names().any(|name| name == field));
            assert!(is_named, "/api{path}: {field} is not on the page");
        }
    }
    for row in rows.iter().filter(|row| row.is_there()) {
        for method in row.names().filter_map(|name| name.strip_prefix("/api/")) {
            assert!(paths.contains_key(&format!("/{method}")), "/api/{method} is not there");
        }
    }
}

#[test]
fn every_code_stands_there() {
    let rows = rows("### Codes");
    let on_page: BTreeSet<String> = rows.iter().map(Row::key).collect();
    let ours = codes::all().into_iter().filter(|one| {
        use codes::Kind::{Disconnect, Error, Unsubscribe};
        matches!(one.kind, Error | Disconnect | Unsubscribe)
    });
    let ours: BTreeSet<String> = ours.map(|one| format!("{} {}", one.code, one.name)).collect();
    assert!(ours.is_subset(&on_page), "missing: {:?}", ours.difference(&on_page));
    let more: Vec<_> = on_page.difference(&ours).filter(|row| !row.contains(" to ")).collect();
    assert!(more.is_empty(), "not in the code: {more:?}");
}

#[test]
fn every_metric_of_centrifugos_stands_there() {
    let rows = rows("## Metrics");
    let ours: BTreeSet<String> = crate::metrics::centrifugos().collect();
    let there: BTreeSet<String> = rows
        .iter()
        .filter(|row| row.is_there())
        .flat_map(|row| row.names().filter(|name| name.starts_with("centrifugo_")))
        .map(str::to_owned)
        .collect();
    assert_eq!(there, ours);
}

/// The names that the source of a codec reads, by the structure that they are in, or writes.
fn read_fields() -> BTreeMap<&'static str, Vec<&'static str>> {
    const SOURCE: &str = include_str!("../../throng-wire/src/dialect/json/decode.rs");
    let mut structs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in SOURCE.lines() {
        if let Some(name) = line.strip_prefix("struct ") {
            current = name.split(['<', '(', ' ', '{', ';']).next().unwrap_or_default();
        } else if line.starts_with('}') {
            current = "";
        } else if let Some((_, renamed)) = line.trim().split_once("rename = \"") {
            structs.entry(current).or_default().push(renamed.split('"').next().unwrap_or_default());
        } else if let Some((field, _)) = line.trim().split_once(": ")
            && !current.is_empty()
            && !line.trim().starts_with('#')
            && field != "kind"
        {
            structs.entry(current).or_default().push(field);
        }
    }
    structs
}

/// A message's fields on the page, and whether they are there.
fn fields_of(message: &str) -> BTreeMap<String, bool> {
    let mut fields = BTreeMap::new();
    for row in rows("### Fields") {
        let (messages, _) = row.what.split_once(": ").unwrap_or_else(|| panic!("{}", row.what));
        if messages.split(", ").any(|one| one == message) {
            fields.extend(row.names().map(|name| (name.to_owned(), row.is_there())));
        }
    }
    assert!(!fields.is_empty(), "{message} is not on the page");
    fields
}

#[test]
fn every_field_of_a_command_stands_there() {
    let structs = read_fields();
    for (message, structure) in [
        ("ConnectRequest", "Connect"),
        ("SubscribeRequest", "Subscribe"),
        ("UnsubscribeRequest", "Channel"),
        ("PublishRequest", "Publish"),
        ("PresenceRequest", "Channel"),
        ("HistoryRequest", "History"),
        ("StreamPosition", "Since"),
        ("RPCRequest", "Rpc"),
        ("SendRequest", "Send"),
        ("RefreshRequest", "Refresh"),
        ("SubRefreshRequest", "SubRefresh"),
    ] {
        let read = structs.get(structure).unwrap_or_else(|| panic!("no struct {structure}"));
        let on_page = fields_of(message);
        for field in read {
            assert!(on_page.contains_key(*field), "{message}: {field} is not on the page");
        }
        let ignored = ["flag", "dict", "profile"];
        for (field, _) in on_page.iter().filter(|(_, is_there)| **is_there) {
            let is_read = read.contains(&&**field) || ignored.contains(&&**field);
            assert!(is_read, "{message}: {field} is not read");
        }
    }
}

#[test]
fn every_field_of_a_reply_stands_there() {
    const SOURCE: &str = include_str!("../../throng-wire/src/dialect/json/encode.rs");
    let written: BTreeSet<&str> = SOURCE
        .lines()
        .filter_map(|line| line.split_once("o.")?.1.split_once("(\"")?.1.split('"').next())
        .collect();
    assert!(written.len() > 40, "{written:?}");
    let mut on_page: BTreeSet<String> = BTreeSet::new();
    for row in rows("### Fields") {
        on_page.extend(row.names().map(str::to_owned));
    }
    for field in written {
        assert!(on_page.contains(field), "{field} is written and not on the page");
    }
}
