//! One process, or several of which the worst is the verdict.

use std::cmp::Reverse;
use std::io::Write;

use throng_limits::Tree;
use throng_limits::doctor::words::{grouped, limit};
use throng_limits::doctor::{Ask, Report, Severity};
use throng_limits::sockets::holders_of_port;

use super::screen::{labelled, screen};
use super::style::Style;
use super::{DoctorArgs, chain, ended, examined, json};
use crate::failure::Failure;
use crate::table::{Align, table};

/// Rows of the table on a short screen.
const ROWS: usize = 8;
/// BOUNDED: processes that are examined; a machine with more workers than this shows the fullest.
const EXAMINED_MAX: usize = 256;

pub(super) fn run(
    args: &DoctorArgs,
    tree: &Tree,
    pids: &[u32],
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if args.port.is_some() {
        return along(args, tree, pids, style, out);
    }
    let reports = examine(tree, pids, &Ask { need: args.need, each: args.all, ..Ask::default() })?;
    let worst = &reports[0];
    if args.json {
        let value =
            if args.pid.is_some() { json::process(worst) } else { json::processes(&reports) };
        writeln!(out, "{}", crate::text::json(&value)?)?;
        return ended(worst.severity);
    }
    if reports.len() > 1 {
        writeln!(out, "{}", listed(&reports, style))?;
    }
    write!(out, "{}", screen(worst, style))?;
    ended(worst.severity)
}

/// Who listens on a port and who stands behind: which of them binds first.
fn along(
    args: &DoctorArgs,
    tree: &Tree,
    pids: &[u32],
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let hops = chain::follow(tree, pids, args.need)?;
    let judged = args.need.and_then(|need| chain::judged(&hops, need));
    let mut reports: Vec<&Report> = hops.iter().flat_map(|hop| &hop.reports).collect();
    let narrowest = chain::narrowest(&hops).and_then(|hop| hop.reports.first()).map(|one| one.pid);
    // Equally bad: the one that binds first.
    reports.sort_by_key(|report| (Reverse(report.severity), Some(report.pid) != narrowest));
    let Some(worst) = reports.first() else {
        return Err(Failure::could_not_run("no process to look at"));
    };
    let short = judged.as_ref().is_some_and(|(fits, _)| !fits);
    let severity = if short { worst.severity.max(Severity::Tight) } else { worst.severity };
    if args.json {
        let value = json::along(&hops, &reports, severity, judged.as_ref().map(|(fits, _)| *fits));
        writeln!(out, "{}", crate::text::json(&value)?)?;
        return ended(severity);
    }
    if hops.len() > 1 {
        writeln!(out, "{}", labelled("chain", &chain::words(&hops)).join("\n"))?;
        if let Some((_, text)) = &judged {
            writeln!(out, "{}", labelled("need", text).join("\n"))?;
        }
        writeln!(out)?;
    } else if reports.len() > 1 {
        let all: Vec<Report> = reports.iter().map(|&report| report.clone()).collect();
        writeln!(out, "{}", listed(&all, style))?;
    }
    write!(out, "{}", screen(worst, style))?;
    ended(severity)
}

/// The diagnoses of some processes, the worst first. Who left meanwhile is left out.
pub(super) fn examine(tree: &Tree, pids: &[u32], ask: &Ask) -> Result<Vec<Report>, Failure> {
    let mut reports = Vec::new();
    let mut failed = None;
    for pid in pids.iter().take(EXAMINED_MAX) {
        match examined(tree, *pid, ask) {
            Ok(report) => reports.push(report),
            Err(failure) => failed = Some(failure),
        }
    }
    if let Some(failure) = failed.filter(|_| reports.is_empty()) {
        return Err(failure);
    }
    reports.sort_by_key(|report| {
        // Equally bad: who has listeners or connections is what one asked for.
        let serves = !report.open.listeners.is_empty() || report.connections > 0;
        (Reverse(report.severity), !serves, report.more.unwrap_or(u64::MAX), report.pid)
    });
    if reports.is_empty() {
        Err(Failure::could_not_run("no process to look at"))
    } else {
        Ok(reports)
    }
}

/// Who listens on a port, and the sentence for when nobody does.
pub(super) fn on_port(tree: &Tree, port: u16) -> (Vec<u32>, String) {
    let holders = holders_of_port(tree, port);
    let mut pids: Vec<u32> = holders.found.iter().map(|holder| holder.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let missing = if holders.listeners > 0 {
        format!(
            "somebody listens on port {port}, and whose it is cannot be seen: sudo throng doctor --port {port}"
        )
    } else {
        format!("nobody listens on TCP port {port}")
    };
    (pids, missing)
}

fn listed(reports: &[Report], style: Style) -> String {
    let columns = [
        ("", Align::Left),
        ("pid", Align::Right),
        ("process", Align::Left),
        ("open", Align::Right),
        ("limit", Align::Right),
        ("connections", Align::Right),
        ("room for", Align::Right),
    ];
    let most = if style.all { reports.len() } else { ROWS };
    let rows: Vec<Vec<String>> = reports.iter().take(most).map(row).collect();
    let mut text = table(&columns, &rows);
    if reports.len() > most {
        text.push_str(&style.dim(&format!("and {} more: --all\n", reports.len() - most)));
    }
    text
}

fn row(report: &Report) -> Vec<String> {
    let or_unknown = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), grouped);
    vec![
        report.severity.word().to_owned(),
        report.pid.to_string(),
        report.name.clone(),
        report.used.map_or_else(|| "?".to_owned(), limit),
        limit(report.limit.soft),
        grouped(report.connections),
        or_unknown(report.more),
    ]
}
