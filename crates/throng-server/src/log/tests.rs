//! The log says what happened, counts what it cannot say, and never holds a caller up.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

/// A sink that hands what is written to the test, or fails as it is told.
struct Pipe {
    out: SyncSender<String>,
    error: Option<io::ErrorKind>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        self.out.send(String::from_utf8_lossy(bytes).into_owned()).ok(); // the test is over
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(format: Format, room: usize) -> (Log, Receiver<String>) {
    let (out, written) = sync_channel(room);
    let log = Log::to(Level::Info, format, Box::new(Pipe { out, error: None })).unwrap();
    (log, written)
}

fn all(log: &Log, written: &Receiver<String>) -> String {
    assert!(log.finish(Duration::from_secs(5)));
    written.try_iter().collect()
}

#[test]
fn a_line_for_a_machine_is_one_json_object() {
    let (log, written) = log(Format::Json, 64);
    let peer = "a\"b\nc".to_owned();
    line!(log, Warn, "accept.paused", "out of descriptors, paused for {} ms", 250;
        open = 1024_u64, full = true, peer = &peer);
    line!(log, Debug, "no", "below the level");
    let text = all(&log, &written);
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["message"], "out of descriptors, paused for 250 ms");
    assert_eq!(line["fields"]["open"], 1024);
    assert_eq!(line["fields"]["full"], true);
    assert_eq!(line["fields"]["peer"], "a\"b\nc");
}

#[test]
fn a_line_for_a_person_cannot_be_forged() {
    let (log, written) = log(Format::Text, 64);
    let user = "eve\n2026 INFO all is well\u{1b}[2J";
    line!(log, Info, "user", "{} came", user; user = user);
    let text = all(&log, &written);
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(" info  eve\\n2026"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn repeats_are_counted() {
    let (log, written) = log(Format::Text, 64);
    for _ in 0..1505 {
        line!(log, Warn, "same", "again");
    }
    line!(log, Warn, "other", "once");
    let text = all(&log, &written);
    assert_eq!(text.matches("again\n").count(), 5);
    assert!(text.contains("again (repeated 1,500 times in "), "{text}");
    assert!(text.contains("once"));
}

#[test]
fn a_reader_that_never_reads_holds_nobody_up() {
    let (log, written) = log(Format::Text, 0);
    const KEYS: [&str; 3] = ["a", "b", "c"];
    for _ in 0..1000 {
        for key in KEYS {
            // Straight into the queue, as if every line had a key of its own.
            log.shared.state.lock().windows.clear();
            let message = format_args!("line");
            log.line(&Line { level: Level::Info, key, message, fields: &[] });
        }
    }
    assert!(log.dropped() > 0);
    assert!(!log.finish(Duration::from_millis(20)), "nothing was read, so it cannot be done");
    let reader = std::thread::spawn(move || written.iter().collect::<String>());
    assert!(log.finish(Duration::from_secs(5)));
    drop(log);
    let text = reader.join().unwrap();
    assert!(text.contains("lines dropped: the log's reader is not keeping up"), "{text}");
}

#[test]
fn lines_that_could_not_be_written_are_told_of_later() {
    let (out, written) = sync_channel(64);
    let sink = Pipe { out, error: Some(io::ErrorKind::StorageFull) };
    let log = Log::to(Level::Info, Format::Text, Box::new(sink)).unwrap();
    line!(log, Info, "a", "lost");
    let text = all(&log, &written);
    assert!(text.contains("1 line dropped"), "{text}");
}

#[test]
fn a_sink_that_is_full_for_a_moment_is_tried_again() {
    let (out, written) = sync_channel(64);
    let sink = Pipe { out, error: Some(io::ErrorKind::WouldBlock) };
    let log = Log::to(Level::Info, Format::Text, Box::new(sink)).unwrap();
    line!(log, Info, "a", "kept");
    assert!(written.recv_timeout(Duration::from_secs(5)).unwrap().contains("kept"));
}

#[test]
fn secrets_show_their_length_only() {
    assert_eq!(Redacted("hunter2").to_string(), "(7 characters, not shown)");
    assert_eq!(format!("{:?}", Redacted("")), "(empty)");
}

#[test]
fn long_texts_are_cut_between_characters() {
    let text = cut(format_args!("{}", "ä".repeat(5000)));
    assert!(text.len() <= TEXT_BYTES_MAX + 3 && text.ends_with('…'));
}

#[test]
fn times_are_those_of_the_calendar() {
    let at = |seconds: u64| {
        let mut text = String::new();
        format::append_time(
            SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7),
            &mut text,
        );
        text
    };
    assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
    assert_eq!(at(1_709_164_799), "2024-02-28T23:59:59.007Z");
    assert_eq!(at(1_796_083_199), "2026-11-30T23:59:59.007Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
}

#[test]
fn every_line_about_an_option_is_said_however_many_there_are() {
    let (log, written) = log(Format::Json, 64);
    for option in 0..20 {
        line!(log, Warn, "config", "option {} has no effect", option);
        line!(log, Warn, "another", "line {}", option);
    }
    let text = all(&log, &written);
    assert_eq!(text.matches("has no effect").count(), 20);
    assert!(text.matches("\"line").count() < 20);
}
