//! The log: a bounded queue and one writer thread, so that a stalled reader costs counted lines and
//! never a caller's time.
//!
//! Who logs takes a lock for memory work only and never waits for I/O (invariant BOUNDED). Lines
//! with the same key are said a few times per window and then counted (invariant NO-SILENCE).

mod format;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Display, Write as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

pub use crate::config::Level;
pub use format::Format;
pub use throng_limits::thousands;

/// Lines that wait for the writer: some seconds of a busy start, and a few MiB at the very most.
const QUEUE_LINES_MAX: usize = 1024;
/// Lines of one key that are said in a window before the rest are counted.
const SAID_MAX: u64 = 5;
/// The key of lines that are never counted together: each is about another option of a file that no
/// stranger writes.
const CONFIG: &str = "config";
/// How long lines of one key are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of one message or field: what comes from a stranger must not fill the disk.
const TEXT_BYTES_MAX: usize = 2048;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Text on a terminal, JSON lines otherwise.
    Stderr,
    /// JSON lines, appended.
    File(PathBuf),
}

/// One thing to say. Nothing is formatted unless it is going to be written.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub level: Level,
    /// What is counted together, such as `accept.paused`; never made from input.
    pub key: &'static str,
    /// A lower-case sentence.
    pub message: fmt::Arguments<'a>,
    /// The facts. Never a token, a key or a cookie: show those with [`Redacted`].
    pub fields: &'a [(&'static str, Value<'a>)],
}

/// A fact beside a line's message.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Uint(u64),
    Bool(bool),
    Text(&'a str),
    Shown(&'a dyn Display),
}

/// Stands for a secret where somebody might look: only its length shows.
#[derive(Clone, Copy)]
pub struct Redacted<'a>(pub &'a str);

/// The log; a clone is the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// Says a line: `line!(log, Warn, "accept.paused", "accepting paused"; open = 3, soft = 1024)`.
#[macro_export]
macro_rules! line {
    ($log:expr, $level:ident, $key:literal, $format:literal $(, $argument:expr)*
        $(; $($name:ident = $value:expr),+ $(,)?)?) => {
        $log.line(&$crate::log::Line {
            level: $crate::log::Level::$level,
            key: $key,
            message: format_args!($format $(, $argument)*),
            fields: &[$($((stringify!($name), $crate::log::Value::from($value))),+)?],
        })
    };
}

pub use crate::line;

impl Log {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread started.
    pub fn start(level: Level, target: &Target) -> io::Result<Self> {
        let (sink, format) = writer::open(target)?;
        Self::begin(level, format, sink, Some(target.clone()))
    }

    /// Starts a writer into anything; what it may block on is its own time.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to(level: Level, format: Format, sink: Box<dyn io::Write + Send>) -> io::Result<Self> {
        Self::begin(level, format, sink, None)
    }

    fn begin(
        level: Level,
        format: Format,
        sink: Box<dyn io::Write + Send>,
        target: Option<Target>,
    ) -> io::Result<Self> {
        let log = Self::idle(level);
        let shared = Arc::clone(&log.shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer::run(&shared, format, sink, target.as_ref()))?;
        Ok(log)
    }

    /// A log that says nothing, for tests.
    pub fn silent() -> Self {
        Self::idle(Level::None)
    }

    fn idle(level: Level) -> Self {
        let shared = Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            ended: Condvar::new(),
            level: AtomicU8::new(level as u8),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether lines of this level are said at all.
    pub fn wants(&self, level: Level) -> bool {
        level as u8 <= self.shared.level.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn set_level(&self, level: Level) {
        self.shared.level.store(level as u8, Ordering::Relaxed);
    }

    /// Says a line, or counts it where its key has been said enough, or where the queue is full.
    pub fn line(&self, line: &Line<'_>) {
        if line.level == Level::None || !self.wants(line.level) {
            return;
        }
        let now = Instant::now();
        if !self.shared.state.lock().admit(line, now) {
            return;
        }
        // Formatting is a stranger's code and may be slow: not under the lock.
        let record = Record::new(line, SystemTime::now());
        let mut state = self.shared.state.lock();
        if state.lines.len() >= QUEUE_LINES_MAX || state.closing {
            drop(state);
            self.shared.lost(1);
            return;
        }
        state.lines.push_back(record);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Lines that could not be written so far and have not been told about.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Lines that could not be written, ever.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Opens the file anew before the next line: whoever has moved it away wants another.
    pub fn reopen(&self) {
        self.shared.state.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Writes what waits and ends the writer; gives up after `patience`. Whether all was written.
    pub fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        state.closing = true;
        self.shared.wake.notify_one();
        while !state.finished {
            if self.shared.ended.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.finished
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    /// There is something to write, or no more to come.
    wake: Condvar,
    ended: Condvar,
    level: AtomicU8,
    /// Not told about yet.
    dropped: AtomicU64,
    /// Ever.
    lost: AtomicU64,
}

impl Shared {
    fn lost(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    lines: VecDeque<Record>,
    /// Keys said lately. Bounded by the program: keys are its own words.
    windows: HashMap<&'static str, Window>,
    /// The target is to be opened anew.
    reopen: bool,
    closing: bool,
    finished: bool,
}

impl State {
    /// Whether the line is said, rather than counted.
    fn admit(&mut self, line: &Line<'_>, now: Instant) -> bool {
        if line.key == CONFIG {
            return true;
        }
        let window = self.windows.entry(line.key).or_insert_with(|| Window::open(now));
        window.seen += 1;
        if window.seen <= SAID_MAX {
            return true;
        }
        if window.last.is_none() {
            window.last = Some((line.level, cut(line.message)));
        }
        false
    }

    /// Takes the windows whose time is over out, and tells of those that counted something.
    fn close_windows(&mut self, now: Instant, all: bool) -> Vec<Record> {
        let mut summaries: Vec<(&'static str, Record)> = Vec::new();
        self.windows.retain(|key, window| {
            if !all && now.duration_since(window.opened) < WINDOW {
                return true;
            }
            if let Some((level, message)) = window.last.take() {
                let times = thousands(window.seen - SAID_MAX);
                let seconds = now.duration_since(window.opened).as_secs().max(1);
                let message = format!("{message} (repeated {times} times in {seconds} s)");
                let record = Record { level, time: SystemTime::now(), message, fields: Vec::new() };
                summaries.push((key, record));
            }
            false
        });
        // Invariant PURE in spirit: the order of output is not the hash map's.
        summaries.sort_by_key(|(key, _)| *key);
        summaries.into_iter().map(|(_, record)| record).collect()
    }
}

struct Window {
    opened: Instant,
    seen: u64,
    /// The first line that was only counted, to be said at the end.
    last: Option<(Level, String)>,
}

impl Window {
    fn open(now: Instant) -> Self {
        Self { opened: now, seen: 0, last: None }
    }
}

/// A line on its way to the writer.
struct Record {
    level: Level,
    time: SystemTime,
    message: String,
    fields: Vec<(&'static str, Fact)>,
}

enum Fact {
    Int(i64),
    Uint(u64),
    Bool(bool),
    Text(String),
}

impl Record {
    fn new(line: &Line<'_>, time: SystemTime) -> Self {
        let fact = |value: &Value<'_>| match value {
            Value::Int(value) => Fact::Int(*value),
            Value::Uint(value) => Fact::Uint(*value),
            Value::Bool(value) => Fact::Bool(*value),
            Value::Text(value) => Fact::Text(cut(format_args!("{value}"))),
            Value::Shown(value) => Fact::Text(cut(format_args!("{value}"))),
        };
        let fields = line.fields.iter().map(|(name, value)| (*name, fact(value))).collect();
        Self { level: line.level, time, message: cut(line.message), fields }
    }

    /// What the log says about itself.
    fn own(level: Level, message: String) -> Self {
        Self { level, time: SystemTime::now(), message, fields: Vec::new() }
    }
}

/// Formats, up to the bound, between characters.
fn cut(text: fmt::Arguments<'_>) -> String {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            let mut end = piece.len().min(TEXT_BYTES_MAX - self.0.len());
            while !piece.is_char_boundary(end) {
                end -= 1;
            }
            self.0.push_str(&piece[..end]);
            if end < piece.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut bounded = Bounded(String::new());
    if bounded.write_fmt(text).is_err() {
        bounded.0.push('…');
    }
    bounded.0
}

macro_rules! value_from {
    ($($variant:ident: $($from:ty),+;)*) => { $($(
        impl From<$from> for Value<'_> {
            fn from(value: $from) -> Self { Self::$variant(value.into()) }
        }
    )+)* };
}
value_from! { Int: i64, i32, i16; Uint: u64, u32, u16, u8; Bool: bool; }

impl From<usize> for Value<'_> {
    fn from(value: usize) -> Self {
        Self::Uint(value as u64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a dyn Display> for Value<'a> {
    fn from(value: &'a dyn Display) -> Self {
        Self::Shown(value)
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Shown(value) => write!(f, "{value}"),
        }
    }
}

impl Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.chars().count() {
            0 => f.write_str("(empty)"),
            length => write!(f, "({length} characters, not shown)"),
        }
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
