//! The machine on one screen: who is fullest, what TCP is doing, which limits hold.

use std::io::Write;

use throng_limits::Tree;
use throng_limits::doctor::Severity;
use throng_limits::doctor::machine::{Machine, Row};
use throng_limits::doctor::words::{grouped, limit};

use super::screen::labelled;
use super::style::Style;
use super::{DoctorArgs, ended, json};
use crate::failure::Failure;
use crate::table::{Align, table};

/// Processes on a short screen.
const ROWS: usize = 12;

pub(super) fn run(
    args: &DoctorArgs,
    tree: &Tree,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let machine = Machine::read(tree);
    if machine.processes.is_empty() {
        return Err(Failure::could_not_run("no process can be seen: is /proc mounted?"));
    }
    if args.json {
        writeln!(out, "{}", crate::text::json(&json::machine(&machine))?)?;
    } else {
        write!(out, "{}", shown(&machine, style))?;
    }
    ended(machine.severity())
}

fn shown(machine: &Machine, style: Style) -> String {
    let mut lines = labelled(machine.severity().word(), &verdict(machine));
    let word = machine.severity().word();
    lines[0] = lines[0].replacen(word, &style.word(machine.severity()), 1);
    let states: Vec<String> = machine
        .states
        .iter()
        .map(|(state, number)| format!("{} {state}", grouped(*number)))
        .collect();
    let states = if states.is_empty() { "no sockets".to_owned() } else { states.join(", ") };
    lines.extend(labelled("TCP", &states));
    lines.extend(labelled("limits", &limits(machine)));
    lines.push(String::new());
    let most = if style.all { machine.processes.len() } else { ROWS };
    lines.extend(ranked(machine, most).lines().map(str::to_owned));
    if machine.processes.len() > most {
        let more = machine.processes.len() - most;
        lines.push(style.dim(&format!("and {} more: --all", grouped(more as u64))));
    }
    for each in &machine.unseen {
        let hint = if each.root_sees { "; root sees more: sudo throng doctor" } else { "" };
        lines.extend(labelled("unseen", &format!("{}: {}{hint}", each.what, each.why)));
    }
    lines.join("\n") + "\n"
}

fn verdict(machine: &Machine) -> String {
    let bad = machine.processes.iter().filter(|row| row.severity() >= Severity::Tight).count();
    let processes = grouped(machine.processes.len() as u64);
    match machine.processes.first() {
        Some(row) if bad > 0 => format!(
            "{} of {processes} processes {} near the limit on open files: throng doctor {}",
            grouped(bad as u64),
            if bad == 1 { "is" } else { "are" },
            row.pid
        ),
        _ => format!("none of {processes} processes is near its limit on open files"),
    }
}

fn limits(machine: &Machine) -> String {
    let mut parts = Vec::new();
    if let Some(own) = machine.caller.limit {
        parts.push(format!("this shell {} (hard {})", limit(own.soft), limit(own.hard)));
    }
    if let Some(nr_open) = machine.kernel.nr_open {
        parts.push(format!("one process fs.nr_open {}", limit(nr_open)));
    }
    if let Some(files) = machine.kernel.files {
        parts.push(format!(
            "the machine {} of fs.file-max {}",
            grouped(files.open),
            limit(files.max)
        ));
    }
    parts.join("; ")
}

fn ranked(machine: &Machine, most: usize) -> String {
    let columns = [
        ("", Align::Left),
        ("pid", Align::Right),
        ("process", Align::Left),
        ("open", Align::Right),
        ("limit", Align::Right),
        ("hard", Align::Right),
        ("left", Align::Right),
        ("full", Align::Right),
    ];
    let rows: Vec<Vec<String>> = machine.processes.iter().take(most).map(row).collect();
    table(&columns, &rows)
}

fn row(row: &Row) -> Vec<String> {
    let or_unknown = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), grouped);
    let full = row.full_milli().map_or_else(|| "?".to_owned(), |full| format!("{} %", full / 10));
    vec![
        row.severity().word().to_owned(),
        row.pid.to_string(),
        super::screen::cut(&row.name, 30),
        or_unknown(row.open),
        limit(row.limit.soft),
        limit(row.limit.hard),
        or_unknown(row.left()),
        full,
    ]
}

/// Whether the machine has anything near its limit.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_fits_on_one_screen() {
        let machine = Machine::read(&Tree::live());
        let text = shown(&machine, Style { colour: false, all: false });
        assert!(text.lines().count() <= 23, "{text}");
        assert!(text.contains("LISTEN") || text.contains("TCP"), "{text}");
        assert!(text.contains("this shell"), "{text}");
    }
}
