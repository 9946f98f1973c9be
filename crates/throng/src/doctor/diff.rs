//! What changed between two copies: which edit helped.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use throng_limits::Tree;
use throng_limits::doctor::words::{grouped, limit};
use throng_limits::doctor::{Ask, Report};

use super::capture::SUBJECT;
use super::screen::labelled;
use super::{ended, examined};
use crate::failure::Failure;

pub(super) fn run(
    before: &Path,
    after: &Path,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (before, after) = (copied(before)?, copied(after)?);
    let changes = changes(&before, &after);
    if as_json {
        let changes: Vec<_> = changes
            .iter()
            .map(|change| json!({"what": change.what, "before": change.before, "after": change.after}))
            .collect();
        let value = json!({
            "version": super::json::VERSION, "kind": "diff",
            "severity_before": before.severity.name(), "severity_after": after.severity.name(),
            "changes": changes,
        });
        writeln!(out, "{}", crate::text::json(&value)?)?;
        return ended(after.severity);
    }
    writeln!(
        out,
        "{}",
        labelled("before", &format!("{} {}", before.severity.word(), before.verdict)).join("\n")
    )?;
    writeln!(
        out,
        "{}",
        labelled("after", &format!("{} {}", after.severity.word(), after.verdict)).join("\n")
    )?;
    if changes.is_empty() {
        writeln!(out, "nothing that the doctor looks at has changed")?;
    }
    for change in &changes {
        let text = format!("{}: {} -> {}", change.what, change.before, change.after);
        writeln!(out, "{}", labelled("changed", &text).join("\n"))?;
    }
    ended(after.severity)
}

/// Something that is not as it was.
struct Change {
    what: String,
    before: String,
    after: String,
}

fn copied(dir: &Path) -> Result<Report, Failure> {
    let tree = Tree::at(dir.join("proc"), dir.join("root"));
    let pid = tree.read_proc(SUBJECT).ok().and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid else {
        let dir = dir.display();
        return Err(Failure::could_not_run(format!(
            "{dir} is no copy: make one by throng doctor PID --capture {dir}"
        )));
    };
    examined(&tree, pid, &Ask::default())
}

/// A sentence without its numbers: the same thing, whatever it comes to.
fn shape(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit() && *letter != ',').collect()
}

fn changes(before: &Report, after: &Report) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, was: String, is: String| {
        if was != is {
            changes.push(Change { what: what.to_owned(), before: was, after: is });
        }
    };
    let soft_and_hard = |report: &Report| {
        format!("{} (hard {})", limit(report.limit.soft), limit(report.limit.hard))
    };
    compare(
        "process",
        format!("{} ({})", before.name, before.pid),
        format!("{} ({})", after.name, after.pid),
    );
    compare("limit on open files", soft_and_hard(before), soft_and_hard(after));
    // The numbers in it have a line of their own.
    if shape(&before.why) != shape(&after.why) {
        compare("where it comes from", before.why.clone(), after.why.clone());
    }
    let used = |report: &Report| report.used.map_or_else(|| "unknown".to_owned(), limit);
    compare("descriptors in use", used(before), used(after));
    compare("connections", grouped(before.connections), grouped(after.connections));
    for rung in &before.ladder.rungs {
        let same = after
            .ladder
            .rungs
            .iter()
            .find(|each| each.resource == rung.resource && each.of == rung.of);
        let name = format!("{} {}", rung.resource.words(), rung.of);
        let is = same.map_or_else(|| "gone".to_owned(), |each| limit(each.limit));
        compare(&format!("limit of {}", name.trim_end()), limit(rung.limit), is);
    }
    let found = |report: &Report| -> Vec<String> {
        report.findings.iter().map(|finding| finding.what.clone()).collect()
    };
    let (was, is) = (found(before), found(after));
    let same = |what: &String, others: &[String]| {
        others.iter().find(|other| shape(other) == shape(what)).cloned()
    };
    for what in &was {
        compare("finding", what.clone(), same(what, &is).unwrap_or_else(|| "gone".to_owned()));
    }
    for what in is.iter().filter(|what| same(what, &was).is_none()) {
        compare("finding", "none".to_owned(), what.clone());
    }
    changes
}
