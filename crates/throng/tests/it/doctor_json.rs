//! The JSON of `throng doctor`, whole: who reads it by program finds every field where it was, and in
//! the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Dir;

/// A run that was captured, written out below a directory.
fn copy(dir: &Dir, name: &str, change: impl Fn(String) -> String) -> PathBuf {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../throng-limits/tests/trees/captured");
    let text = change(fs::read_to_string(runs.join(format!("{name}.txt"))).unwrap());
    let (to, mut file) = (dir.0.join(name), PathBuf::new());
    let pid = text.split(" of process ").nth(1).unwrap().split(':').next().unwrap();
    let mut kept = String::new();
    for line in text.lines().skip(1).chain(["== proc/doctor-pid"]) {
        if let Some(path) = line.strip_prefix("== ") {
            write(&file, &kept);
            (file, kept) = (to.join(path), String::new());
        } else if let Some(line) = line.strip_prefix("    ") {
            kept.push_str(&(line.replace("{0}", "\0") + "\n").replace("{NOEOL}\n", ""));
        }
    }
    write(&file, &format!("{pid}\n"));
    to
}

fn write(file: &Path, text: &str) {
    let Some(above) = file.parent() else { return };
    fs::create_dir_all(above).unwrap();
    fs::write(file, text).unwrap();
}

fn told(dir: &Dir, arguments: &[&str]) -> Value {
    let ran = dir.throng(&[&["doctor", "--json"], arguments].concat());
    assert!(ran.status < 2, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// Compares with the documents that are kept; `THRONG_BLESS=1` writes them anew, to be read before
/// they are committed.
#[test]
fn every_document_is_what_it_was() {
    let (dir, later) = (Dir::new(), Dir::new());
    let run = |name| copy(&dir, name, |text| text);
    let nginx = run("nginx-stock");
    let tornado = run("supervisord-tornado");
    let raised = copy(&later, "supervisord-tornado", |text| {
        let row = |soft: &str| format!("Max open files            {soft:<21}20000");
        assert!(text.contains(&row("1024")));
        text.replace(&row("1024"), &row("4096"))
    });
    let of =
        |at: &Path| [at.join("proc").display().to_string(), at.join("root").display().to_string()];
    let ([proc, root], [tornado_proc, tornado_root]) = (of(&nginx), of(&tornado));
    let [before, after] = [&tornado, &raised].map(|at| at.display().to_string());
    let documents = [
        ("process", told(&dir, &["6", "--need", "1500", "--proc", &proc, "--root", &root])),
        ("crowd", told(&dir, &["7", "--proc", &tornado_proc, "--root", &tornado_root])),
        (
            "processes",
            told(&dir, &["--port", "80", "--need", "9", "--proc", &proc, "--root", &root]),
        ),
        ("machine", told(&dir, &["--proc", &proc, "--root", &root])),
        ("diff", told(&dir, &["--diff", &before, &after])),
    ];
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/doctor_json");
    let documented = documented();
    for (name, document) in documents {
        let file = kept.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        if std::env::var_os("THRONG_BLESS").is_some() {
            fs::create_dir_all(&kept).unwrap();
            fs::write(&file, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&file).unwrap(), "{name}");
        let mut names = BTreeSet::new();
        fields(&document, &mut names);
        let missing: Vec<_> = names.difference(&documented).collect();
        assert!(
            missing.is_empty(),
            "{name} has fields that docs/doctor.md does not name: {missing:?}"
        );
    }
}

/// The names of all fields, however deep.
fn fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                fields(value, names);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, names)),
        _ => {}
    }
}

/// Every word between backticks in the part of docs/doctor.md that is about JSON.
fn documented() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor.md");
    let page = fs::read_to_string(page).unwrap();
    let part = page.split("\n## JSON\n").nth(1).unwrap();
    part.split('`').skip(1).step_by(2).map(|word| word.trim_end_matches("[]").to_owned()).collect()
}
