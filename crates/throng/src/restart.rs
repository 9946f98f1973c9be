//! `throng restart`: hands every connection to a new process, and shows each step.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use throng_server::control::{self, Question};
use throng_server::restart::{Outcome, Process, Step, Wish};

use crate::args::RestartArgs;
use crate::failure::Failure;
use crate::status::unanswered;
use crate::text::{bytes, count, thousands, visible};

/// How long the new process may take to be found: it serves already.
const CHANGE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn run(args: &RestartArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = control::find(args.pid).map_err(unanswered)?;
    let binary = args.binary.as_deref().map(absolute).transpose()?;
    let question = Question::Restart(Wish { binary, dry_run: args.dry_run });
    // What a person watches goes to stderr, so that --json stays one document.
    let shows = !args.json || std::io::stderr().is_terminal();
    let mut steps = Vec::new();
    let mut step = |step: Step| {
        if shows {
            // A terminal that is gone does not stop the restart.
            writeln!(std::io::stderr(), "✓ {}", shown(&step)).ok();
        }
        steps.push(step);
    };
    let outcome: Outcome = control::follow(&server, &question, &mut step).map_err(unanswered)?;
    if let (true, false, Some(to)) = (outcome.done, outcome.dry_run, &outcome.to) {
        await_change(outcome.from.pid, to.pid);
    }
    if args.json {
        writeln!(out, "{}", crate::text::json(&json!({"outcome": outcome, "steps": steps}))?)?;
        return if outcome.done { Ok(()) } else { Err(Failure::found("")) };
    }
    match &outcome.why {
        None => Ok(writeln!(out, "{}", done(&outcome))?),
        Some(why) => Err(Failure::found(format!(
            "✗ {}\nnothing has changed: pid {} serves as before, nobody was disconnected",
            visible(why),
            outcome.from.pid
        ))),
    }
}

/// Waits until the next command finds the new process, and not the old one.
fn await_change(from: u32, to: u32) {
    let deadline = Instant::now() + CHANGE;
    let is_over = || control::find(Some(from)).is_err() && control::find(Some(to)).is_ok();
    while !is_over() && Instant::now() < deadline {
        std::thread::park_timeout(LOOK);
    }
}

/// The server runs in a directory of its own.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::could_not_run(format!("--binary {}: {error}", path.display())))
}

fn shown(step: &Step) -> String {
    match step {
        Step::Checked { program, version } => format!(
            "checked     {} (throng {}) and its configuration are good",
            visible(&program.display().to_string()),
            visible(version)
        ),
        Step::Started { pid, .. } => format!("started     the new process has the pid {pid}"),
        Step::Listening { listeners } => {
            format!("listening   {} handed over", count(*listeners, "listener"))
        }
        Step::Copied { connections } => {
            format!("copied      {} so far", count(*connections, "connection"))
        }
        Step::History { bytes: sent } => format!("history     {} copied ahead", bytes(*sent)),
        Step::Ready => {
            "ready       the new process is prepared; the old one still serves".to_owned()
        }
        Step::Committed { connections, frozen_us } => format!(
            "committed   the new process serves {}; they waited {}",
            count(*connections, "connection"),
            milliseconds(*frozen_us)
        ),
    }
}

fn done(outcome: &Outcome) -> String {
    let Some(to) = &outcome.to else { return String::new() };
    let stay = count(outcome.connections.saturating_sub(outcome.returning.into()), "connection");
    let versions = versions(&outcome.from, to);
    if outcome.dry_run {
        return format!(
            "rehearsed: {stay} would stay{versions}{}; {} in progress would be answered by pid \
             {pid}; nothing has changed, pid {pid} serves",
            closed(outcome, "would be"),
            count(outcome.requests.into(), "HTTP request"),
            pid = outcome.from.pid
        );
    }
    format!(
        "restarted: {stay} stayed{versions}{}; pid {} serves now, frozen for {}",
        closed(outcome, if outcome.returning == 0 { "was" } else { "are" }),
        to.pid,
        milliseconds(outcome.frozen_us)
    )
}

/// What becomes of those who cannot move.
fn closed(outcome: &Outcome, word: &str) -> String {
    let (some, over_ms) = (u64::from(outcome.returning), u64::from(outcome.returning_over_ms));
    match some {
        0 => format!(", none {word} closed"),
        _ => format!(
            "; {} (HTTP/2) {word} closed over {} s and come back",
            thousands(some),
            thousands(over_ms.div_ceil(1000))
        ),
    }
}

fn versions(from: &Process, to: &Process) -> String {
    if from.version == to.version {
        return String::new();
    }
    format!(" (from throng {} to {})", visible(&from.version), visible(&to.version))
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", thousands(us / 1000), us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let process = |pid, version: &str| Process { pid, version: version.to_owned() };
        Outcome {
            done: true,
            why: None,
            dry_run: false,
            from: process(71, "0.1.0"),
            to: Some(process(72, "0.2.0")),
            connections: 15_000,
            requests: 1,
            returning: 0,
            returning_over_ms: 0,
            frozen_us: 4_210,
            history_bytes: 0,
        }
    }

    #[test]
    fn a_restart_says_who_stayed_and_who_serves() {
        let said = done(&outcome());
        assert!(said.contains("15,000 connections stayed") && said.contains("pid 72"), "{said}");
        assert!(said.contains("from throng 0.1.0 to 0.2.0") && said.contains("4.2 ms"), "{said}");
    }

    #[test]
    fn who_cannot_move_is_counted() {
        let some = || Outcome { returning: 1_200, returning_over_ms: 3_000, ..outcome() };
        let said = done(&some());
        let all = "13,800 connections stayed (from throng 0.1.0 to 0.2.0); 1,200 (HTTP/2) are closed over 3 s";
        assert!(said.contains(all), "{said}");
        let said = done(&Outcome { dry_run: true, ..some() });
        assert!(said.contains("1,200 (HTTP/2) would be closed over 3 s and come back"), "{said}");
    }

    #[test]
    fn a_rehearsal_says_that_nothing_has_changed() {
        let said = done(&Outcome { dry_run: true, ..outcome() });
        assert!(said.contains("15,000 connections would stay"), "{said}");
        assert!(said.contains("none would be closed; 1 HTTP request in progress"), "{said}");
        assert!(said.contains("nothing has changed, pid 71 serves"), "{said}");
    }
}
