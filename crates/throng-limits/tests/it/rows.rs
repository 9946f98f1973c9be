//! What is known to be true, row by row, and the tests that hold the doctor to it.
//!
//! `trees/ROWS.tsv` has a line for each row of the catalogue: its section, its number or its first
//! cell, what it is about, and then what proves it, each between tabs:
//!
//! | proof | is |
//! |---|---|
//! | `a_name_of_a_test` | a test of Rust, in any of the crates |
//! | `doctor.spec.js: its title` | a test that drives the real program |
//! | `tree NAME` | a machine composed by hand, whose first line names this row |
//! | `captured NAME` | a real run, whose first line names this row |
//! | `not ours: why` | the part of the row that is no part of the doctor |
//!
//! The sections are 1.2, who sets a limit and to what (its table by the numbers seen, its text by who);
//! 1.3, the causes; and 4.1, what was reproduced and measured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::captured::RUNS;
use crate::origin::names;
use crate::tree::{directory, read};

/// The rows that are no number.
const SETTERS: [&str; 14] = [
    "1024:4096",
    "1024:524288",
    "1024:1048576",
    "1048576:1048576",
    "1073741816",
    "N:524288",
    "N:N",
    "systemd",
    "pam_limits",
    "su",
    "supervisord",
    "others",
    "runtimes",
    "prlimit",
];

/// A row and its proofs.
struct Row {
    key: String,
    proofs: Vec<String>,
}

fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [section, row, what, proofs @ ..] = &fields[..] else { panic!("{line}") };
        assert!(!what.is_empty(), "{line}");
        let proofs = proofs.iter().map(|proof| (*proof).to_owned()).collect();
        Row { key: format!("{section}/{row}"), proofs }
    };
    read("ROWS", "tsv").lines().map(row).collect()
}

#[test]
fn every_row_is_there_once_and_has_a_proof() {
    let causes = (1..=40).map(|number| format!("1.3/{number}"));
    let measured = (1..=15).map(|number| format!("4.1/{number}"));
    let mut expected: Vec<String> = SETTERS.iter().map(|row| format!("1.2/{row}")).collect();
    expected.extend(causes.chain(measured));
    expected.push("4.1/matrix".to_owned());
    let rows = rows();
    let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, expected);
    for row in &rows {
        let ours = row.proofs.iter().filter(|proof| !proof.starts_with("not ours: "));
        assert!(ours.count() > 0, "{} has no proof", row.key);
    }
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    for source in sources(&root.join("crates")) {
        tests.extend(tests_in(&fs::read_to_string(source).unwrap()));
    }
    let mut wrong = Vec::new();
    for row in rows() {
        for proof in &row.proofs {
            let is_there = if let Some((file, title)) = proof.split_once(".spec.js: ") {
                let text = fs::read_to_string(root.join(format!("tests/js/{file}.spec.js")));
                text.unwrap_or_default().contains(&format!("it('{title}'"))
            } else if let Some(why) = proof.strip_prefix("not ours: ") {
                !why.is_empty()
            } else if let Some(name) = proof.strip_prefix("tree ") {
                names().iter().any(|known| known == name)
            } else if let Some(name) = proof.strip_prefix("captured ") {
                RUNS.iter().any(|(known, _)| *known == name)
            } else {
                tests.contains(proof.as_str())
            };
            if !is_there {
                wrong.push(format!("{}: {proof}", row.key));
            }
        }
    }
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
}

#[test]
fn every_tree_says_how_it_came_about_and_from_which_rows_and_these_name_it() {
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut says = |tree: String, rows: &str| {
        for row in rows.split(", ") {
            said.entry(row.to_owned()).or_default().insert(tree.clone());
        }
    };
    for name in names() {
        let text = read(&name, "tree");
        let first = text.lines().next().unwrap();
        let rest = first.strip_prefix("Composed by hand from ");
        // A row may be two numbers with a colon between them.
        let (rows, what) = rest.and_then(|rest| rest.split_once(": ")).unwrap_or_else(|| {
            panic!("{name}: from which rows was it composed? {first}");
        });
        assert!(!what.is_empty(), "{name}: what is it? {first}");
        says(format!("tree {name}"), rows);
    }
    for (name, _) in RUNS {
        let text = read(&format!("captured/{name}"), "txt");
        let first = text.lines().next().unwrap();
        let rest = first.strip_prefix("Captured from a run on ");
        let (on, what) =
            rest.and_then(|rest| rest.split_once(", of process ")).unwrap_or_else(|| {
                panic!("{name}: from which run was it captured, and of which process? {first}")
            });
        let (_, rows) = on.split_once(" for ").unwrap_or_else(|| panic!("{name}: which rows?"));
        assert!(what.contains(": "), "{name}: what ran? {first}");
        says(format!("captured {name}"), rows);
    }
    let is_tree = |proof: &&String| proof.starts_with("tree ") || proof.starts_with("captured ");
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows() {
        let trees: BTreeSet<String> = row.proofs.iter().filter(is_tree).cloned().collect();
        if !trees.is_empty() {
            named.insert(row.key, trees);
        }
    }
    assert_eq!(said, named, "the trees say the left, and ROWS.tsv the right");
}

/// The names of the tests in a source: the functions that follow an attribute of this name.
fn tests_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// All sources of Rust below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_tree_lies_where_it_is_looked_for() {
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = [".tree", ".origin.txt", ".files"];
        let is_known = known.iter().any(|ending| name.ends_with(ending));
        assert!(is_known || name == "captured" || name == "ROWS.tsv", "{name} is read by nobody");
    }
    let mut captured: Vec<String> = fs::read_dir(directory().join("captured"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".txt").map(str::to_owned))
        .filter(|name| !name.ends_with(".told"))
        .collect();
    captured.sort();
    assert_eq!(captured, RUNS.map(|(name, _)| name));
}
