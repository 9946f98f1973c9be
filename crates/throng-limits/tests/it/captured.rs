//! Real runs, captured: the whole diagnosis of each is what stands beside it.

use std::fmt::Write as _;
use std::fs;

use throng_limits::doctor::{Ask, Report, diagnose, gather};
use throng_limits::origin::Origin;

use crate::tree::{Machine, directory, read};

/// The runs, and what was asked.
pub(crate) const RUNS: [(&str, Option<u64>); 4] = [
    ("cron-reboot", None),
    ("nginx-stock", Some(1500)),
    ("su-namespace", None),
    ("supervisord-tornado", None),
];

/// As for the origins, `THRONG_BLESS=1` writes the texts anew.
#[test]
fn every_run_is_told_as_the_text_beside_it_says() {
    let mut wrong = Vec::new();
    for (name, need) in RUNS {
        let text = read(&format!("captured/{name}"), "txt");
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("Captured from a run on "), "{name}: {first}");
        let pid = first.split(" of process ").nth(1).unwrap().split(':').next().unwrap();
        let machine = Machine::unpack(&text);
        let (tree, pid) = (machine.tree(), pid.parse().unwrap());
        let report = diagnose(&gather(&tree, pid, &Ask { need, ..Ask::default() }).unwrap());
        let told = told(&report) + &Origin::read(&tree, pid).unwrap().tell(65_536);
        let beside = directory().join(format!("captured/{name}.told.txt"));
        if std::env::var_os("THRONG_BLESS").is_some() {
            fs::write(&beside, &told).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if told != expected {
            wrong.push(format!("== {name}\n-- expected\n{expected}-- told\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A report, as far as it is about the process; its origin is told besides.
fn told(report: &Report) -> String {
    let mut text =
        format!("{} {}\nwhy       {}\n", report.severity.word(), report.verdict, report.why);
    writeln!(text, "now       {} ({})", report.now.as_deref().unwrap_or("-"), report.now_note)
        .unwrap();
    for line in &report.for_good {
        writeln!(text, "for good  {line}").unwrap();
    }
    for rung in &report.ladder.rungs {
        let (name, of) = (rung.resource.words(), &rung.of);
        writeln!(text, "ladder    {name} {of}: {} of {}, {}", rung.used, rung.limit, rung.allows)
            .unwrap();
    }
    let open = &report.open;
    writeln!(
        text,
        "open      {:?} {:?} in {} out {}",
        open.kinds, open.states, open.inbound, open.outbound
    )
    .unwrap();
    for listener in &open.listeners {
        writeln!(text, "listens   {} {} of {:?}", listener.at, listener.waiting, listener.backlog)
            .unwrap();
    }
    for unseen in &report.unseen {
        writeln!(text, "unseen    {}: {}", unseen.what, unseen.why).unwrap();
    }
    text
}
