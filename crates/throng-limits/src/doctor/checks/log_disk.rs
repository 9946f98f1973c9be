//! A log that fills the disk: a server without descriptors that says so at every turn writes
//! megabytes a second, until nobody on the machine can write any more.

use super::Outcome;
use crate::doctor::facts::{Facts, WrittenFile};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::{bytes, span};
use crate::tree::printable;

/// Fuller than in this time is soon.
const SOON_S: u64 = 3_600;
/// Somebody should know of it a day before.
const AHEAD_S: u64 = 86_400;
/// Less than this is none: a program writes as much at once.
const NONE_BYTES: u64 = 64 << 10;
/// A smaller log is not what fills a disk.
const LARGE_BYTES: u64 = 64 << 20;
/// Disks are kept fuller than limits: a twentieth is left.
const LEFT_PERCENT: u64 = 5;

/// A file of logrotate's, as `printf` is told it; it reads each line as one word and its value.
const ROTATION: &str = r#""%s" {\n  size 100M\n  rotate 3\n  copytruncate\n  missingok\n}\n"#;

/// How it stands with a file, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// A log is larger than the room that it has left.
    Large,
    /// A log, as it grows now, fills the disk within a day.
    Ahead,
    /// A log takes much, and little is left.
    Low,
    /// A log fills the disk within the hour.
    Soon,
    /// There is no room.
    None,
}

pub(super) fn look(facts: &Facts) -> Outcome {
    let worst = facts
        .open
        .files
        .iter()
        .filter_map(|file| Some((state(file)?, file)))
        // Of equally bad ones the largest log.
        .max_by_key(|(state, file)| (*state, file.is_log, file.taken));
    let finding = worst.map(|(state, file)| finding(facts, state, file));
    Outcome::default().with(finding)
}

fn state(file: &WrittenFile) -> Option<State> {
    if file.free < NONE_BYTES {
        return Some(State::None);
    }
    if !file.is_log {
        return None;
    }
    let full_in_s = full_in_s(file).unwrap_or(u64::MAX);
    let is_large = file.taken >= LARGE_BYTES;
    let left = u128::from(file.free) * 100;
    Some(match () {
        () if full_in_s <= SOON_S => State::Soon,
        () if is_large && left <= u128::from(file.of) * u128::from(LEFT_PERCENT) => State::Low,
        () if full_in_s <= AHEAD_S => State::Ahead,
        () if is_large && file.free < file.taken => State::Large,
        () => return None,
    })
}

/// Seconds until a file has filled what is left; none where it is not watched, or does not grow.
fn full_in_s(file: &WrittenFile) -> Option<u64> {
    file.free.checked_div(file.per_second?)
}

fn finding(facts: &Facts, state: State, file: &WrittenFile) -> Finding {
    let pid = facts.who.pid;
    let name = printable(&file.name);
    let (taken, free) = (bytes(file.taken), bytes(file.free));
    let grows = file.per_second.filter(|pace| *pace > 0);
    let grows =
        grows.map_or_else(String::new, |pace| format!(", grows by {} a second", bytes(pace)));
    let until = full_in_s(file).filter(|_| state != State::None);
    let until = until.map_or_else(String::new, |left| format!(": full in {}", span(left)));
    let what = match state {
        State::None => {
            format!("cannot write to {name}: its disk is full; the file has {taken}{grows}")
        }
        _ => format!("its log {name} has {taken}{grows}, and {free} are left{until}"),
    };
    let severity = if state >= State::Low { Severity::Tight } else { Severity::Note };
    let fd = format!("/proc/{pid}/fd/{}", file.number);
    // df would look for the name on the disks of whoever asks.
    let room = format!("stat -Lf {fd}");
    let finding = Finding::new("log_disk", severity, what)
        .verify(room.clone())
        .seen(format!("{taken} taken, {free} of {} left", bytes(file.of)), room);
    if !file.is_log {
        return finding
            .because(
                "by its name and its flags this is no log: what may go lies elsewhere on its disk",
            )
            .for_good("make room; what takes most on that disk:")
            .for_good(format!("sudo du -xah '{}' | sort -rh | head", quoted(beside(&name))));
    }
    let holes = if file.appends { "" } else { "; its length stays, as a hole that takes nothing" };
    let cause = if facts.used().is_some_and(|used| used >= facts.ceiling()) {
        "it is out of descriptors, and who logs every refusal writes megabytes a second"
    } else {
        "nothing bounds it: a log that is not rotated grows until its disk is full"
    };
    let (name, program) = (quoted(&name), plain(facts));
    // Emptied by the descriptor: its name is another one outside of a container, or is gone.
    finding
        .now(format!("sudo truncate -s 0 {fd}"))
        .because(format!(
            "{cause}; what truncate removes is lost, and the program writes on{holes}"
        ))
        .for_good("let it log a refusal once a second, not every one; logrotate looks once a day:")
        .for_good(format!("printf '{ROTATION}' '{name}' | sudo tee /etc/logrotate.d/{program}"))
}

/// The directory in which a file lies.
fn beside(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some((directory, _)) if !directory.is_empty() => directory,
        _ => "/",
    }
}

/// As it stands between the quotes of a shell.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// The name of the program, as a file may be called.
fn plain(facts: &Facts) -> String {
    let name = facts.who.program().chars();
    name.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}
