//! The one thread that writes: it survives a reader that is slow, gone or out of disk, counts what
//! it could not write, and never spins.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Format, Level, Record, Shared, Target, thousands};

/// How often windows are looked at while any is open.
const TICK: Duration = Duration::from_secs(1);
/// How long a sink that is full for now (EAGAIN) is waited for before the lines are given up.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// How long between two tries on such a sink.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Lines that are written with one call.
const BATCH_LINES_MAX: usize = 128;

/// The sink of a target, and how lines look in it.
pub(super) fn open(target: &Target) -> io::Result<(Box<dyn Write + Send>, Format)> {
    match target {
        Target::Stderr => {
            let stderr = io::stderr();
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let format = match (stderr.is_terminal(), plain) {
                (false, _) => Format::Json,
                (true, true) => Format::Text,
                (true, false) => Format::ColouredText,
            };
            // A descriptor of its own: the standard library's lock would be held through a write
            // that blocks for ever, and whoever else speaks would wait with it.
            let own = File::from(stderr.as_fd().try_clone_to_owned()?);
            Ok((Box::new(own), format))
        }
        Target::File(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            Ok((Box::new(file), Format::Json))
        }
    }
}

/// Writes until the log is finished.
pub(super) fn run(
    shared: &Shared,
    format: Format,
    sink: Box<dyn Write + Send>,
    target: Option<&Target>,
) {
    let mut writer = Writer { format, sink, buffer: String::new(), torn: false };
    while let Some(records) = next_batch(shared) {
        let reopen = std::mem::take(&mut shared.state.lock().reopen);
        if let (true, Some(target @ Target::File(_))) = (reopen, target) {
            // Where it cannot be opened, the one that is open is better than none.
            if let Ok((sink, _)) = open(target) {
                writer.sink = sink;
                writer.torn = false;
            }
        }
        writer.write_batch(shared, &records);
    }
    // What is still missing is told of once.
    writer.write_batch(shared, &[]);
    shared.state.lock().finished = true;
    shared.ended.notify_all();
}

/// Waits for something to write; none when the log is finished.
fn next_batch(shared: &Shared) -> Option<Vec<Record>> {
    let mut state = shared.state.lock();
    loop {
        let closing = state.closing;
        let mut records = state.close_windows(Instant::now(), closing);
        let waiting = state.lines.len().min(BATCH_LINES_MAX);
        records.extend(state.lines.drain(..waiting));
        if !records.is_empty() || state.reopen {
            return Some(records);
        }
        if closing {
            return None;
        }
        if state.windows.is_empty() {
            shared.wake.wait(&mut state);
        } else {
            shared.wake.wait_for(&mut state, TICK);
        }
    }
}

struct Writer {
    format: Format,
    sink: Box<dyn Write + Send>,
    buffer: String,
    /// The last write ended within a line.
    torn: bool,
}

impl Writer {
    fn write_batch(&mut self, shared: &Shared, records: &[Record]) {
        let dropped = shared.dropped.load(Ordering::Relaxed);
        self.buffer.clear();
        if self.torn {
            self.buffer.push('\n');
        }
        if dropped > 0 {
            self.format.append(&told(dropped), &mut self.buffer);
        }
        for record in records {
            self.format.append(record, &mut self.buffer);
        }
        if self.buffer.len() <= usize::from(self.torn) {
            return;
        }
        match self.write(shared) {
            // Only what has been told of is forgotten.
            Ok(()) => drop(shared.dropped.fetch_sub(dropped, Ordering::Relaxed)),
            Err(_) => shared.lost(records.len() as u64),
        }
    }

    fn write(&mut self, shared: &Shared) -> io::Result<()> {
        let full_until = Instant::now() + FULL_WAIT;
        let mut rest = self.buffer.as_bytes();
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= full_until || shared.state.lock().closing {
                        return Err(error);
                    }
                    std::thread::park_timeout(FULL_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn told(dropped: u64) -> Record {
    let noun = if dropped == 1 { "line" } else { "lines" };
    let lines = thousands(dropped);
    Record::own(Level::Warn, format!("{lines} {noun} dropped: the log's reader is not keeping up"))
}
