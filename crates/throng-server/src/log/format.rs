//! How a line looks: coloured text for a person at a terminal, one JSON object for a machine.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::{Fact, Level, Record};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    ColouredText,
    Json,
}

impl Format {
    /// Appends the line, with its line break.
    pub(super) fn append(self, record: &Record, out: &mut String) {
        match self {
            Self::Json => json(record, out),
            Self::Text => text(record, out, None),
            Self::ColouredText => text(record, out, Some(colour(record.level))),
        }
        out.push('\n');
    }
}

fn json(record: &Record, out: &mut String) {
    out.push_str("{\"time\":\"");
    append_time(record.time, out);
    out.push_str("\",\"level\":\"");
    out.push_str(name(record.level));
    out.push_str("\",\"message\":");
    append_json_text(&record.message, out);
    if !record.fields.is_empty() {
        out.push_str(",\"fields\":{");
        for (place, (name, fact)) in record.fields.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            append_json_text(name, out);
            out.push(':');
            match fact {
                Fact::Text(text) => append_json_text(text, out),
                plain => append_plain(plain, out),
            }
        }
        out.push('}');
    }
    out.push('}');
}

fn text(record: &Record, out: &mut String, colour: Option<&str>) {
    append_time(record.time, out);
    let level = name(record.level);
    match colour {
        Some(colour) => write!(out, " {colour}{level:<5}\u{1b}[0m "),
        None => write!(out, " {level:<5} "),
    }
    .expect("a String takes everything");
    append_visible(&record.message, out);
    for (name, fact) in &record.fields {
        out.push_str("  ");
        out.push_str(name);
        out.push('=');
        match fact {
            Fact::Text(text) => append_visible(text, out),
            plain => append_plain(plain, out),
        }
    }
}

fn append_plain(fact: &Fact, out: &mut String) {
    match fact {
        Fact::Int(value) => write!(out, "{value}"),
        Fact::Uint(value) => write!(out, "{value}"),
        Fact::Bool(value) => write!(out, "{value}"),
        Fact::Text(value) => write!(out, "{value}"),
    }
    .expect("a String takes everything");
}

/// A stranger's bytes must neither start a line of their own nor speak to the terminal.
fn append_visible(text: &str, out: &mut String) {
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
}

fn append_json_text(text: &str, out: &mut String) {
    let quoted = serde_json::to_string(text).expect("a str is always JSON");
    out.push_str(&quoted);
}

fn name(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::Fatal => "fatal",
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::Fatal | Level::Error => "\u{1b}[31m",
        Level::Warn => "\u{1b}[33m",
        Level::Info => "\u{1b}[32m",
        Level::None | Level::Debug | Level::Trace => "\u{1b}[2m",
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T04:05:06.789Z`.
pub(super) fn append_time(time: SystemTime, out: &mut String) {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since_1970.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_1970.subsec_millis();
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
        .expect("a String takes everything");
}

/// The Gregorian date of a day since 1970, counted in years that begin in March, so that the leap
/// day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
