//! Looks again and again: what grows, and when it is full.

use std::io::Write;
use std::time::{Duration, Instant};

use throng_limits::Tree;
use throng_limits::doctor::gather::sample;
use throng_limits::doctor::logs::Pace;
use throng_limits::doctor::words::{grouped, limit};
use throng_limits::doctor::{Ask, Report, Severity, diagnose};
use throng_limits::growth::{History, trend};

use super::screen::screen;
use super::style::Style;
use super::{DoctorArgs, chosen, ended, examined, gathered, json};
use crate::failure::Failure;

/// The shortest and the longest time between two looks.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=3600;
/// Clears a terminal and goes to its corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

pub(super) fn run(
    args: &DoctorArgs,
    tree: &Tree,
    seconds: u64,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if !SECONDS.contains(&seconds) {
        let (least, most) = (SECONDS.start(), SECONDS.end());
        return Err(Failure::could_not_run(format!(
            "--watch={seconds}: it takes {least} to {most} seconds"
        )));
    }
    let Some(pids) = chosen(args, tree)? else {
        return Err(Failure::could_not_run(
            "--watch needs a process: a PID, --name, --unit or --port",
        ));
    };
    let ask = Ask { need: args.need, each: args.all, ..Ask::default() };
    let pid = match pids.as_slice() {
        [pid] => *pid,
        // Several: the worst is watched.
        pids => super::process::examine(tree, pids, &ask)?[0].pid,
    };
    let mut watched = Watched {
        pid,
        started: Instant::now(),
        history: History::default(),
        pace: Pace::default(),
        lost_first: None,
    };
    let mut looks = 0;
    let mut last = watched.look(tree, ask.clone())?;
    loop {
        looks += 1;
        if args.json {
            writeln!(out, "{}", crate::text::json(&json::process(&last))?)?;
        } else if style.colour {
            write!(out, "{CLEAR}{}", screen(&last, style))?;
        } else {
            writeln!(out, "{}", line(&last))?;
        }
        out.flush()?;
        if args.looks.is_some_and(|most| looks >= most) {
            return ended(last.severity);
        }
        pause(Duration::from_secs(seconds));
        match watched.look(tree, ask.clone()) {
            Ok(report) => last = report,
            Err(_) if looks > 0 => {
                writeln!(out, "process {pid} has ended; that was the last look")?;
                return ended(last.severity);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// A process, and what was seen of it so far.
struct Watched {
    pid: u32,
    started: Instant,
    history: History,
    /// How large its logs were at the last look.
    pace: Pace,
    /// Connections that its network had lost at the first look.
    lost_first: Option<u64>,
}

impl Watched {
    fn look(&mut self, tree: &Tree, ask: Ask) -> Result<Report, Failure> {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(sample) = sample(tree, self.pid, at_ms) {
            self.history.add(sample);
        }
        let Ok(mut facts) = gathered(tree, self.pid, &ask) else {
            return examined(tree, self.pid, &ask);
        };
        let free = facts.ceiling().saturating_sub(facts.used().unwrap_or(0));
        facts.trend = trend(self.history.samples(), free);
        self.pace.fill(at_ms, &mut facts.open.files);
        let lost = facts.network.lost.listen_overflows;
        facts.lost_lately = Some(lost.saturating_sub(*self.lost_first.get_or_insert(lost)));
        Ok(diagnose(&facts))
    }
}

/// Waits for a while; nothing else is going on in this process.
fn pause(time: Duration) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// One look in one line, for a file.
fn line(report: &Report) -> String {
    let used = report.used.map_or_else(|| "?".to_owned(), limit);
    let growth = report.findings.iter().find(|finding| finding.check == "growth");
    // Before it is known what grows: what the verdict is about.
    let worst = report.findings.iter().find(|finding| finding.severity >= Severity::Tight);
    let growth = growth.or(worst).map_or_else(String::new, |finding| format!("  {}", finding.what));
    format!(
        "{}  {used} of {} descriptors, {} connections{growth}",
        report.severity.word(),
        limit(report.limit.soft),
        grouped(report.connections)
    )
}
