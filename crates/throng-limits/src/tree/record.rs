//! The copy that a recording tree leaves behind, and the list that lies beside it.
//!
//! Files are copied as files, so that a person can read them. Listings, links, times and refusals
//! stand in one text file per directory, `.tree`: a capture can be packed, sent and unpacked by
//! anything, and opening one that a stranger made follows no link out of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::redact::redacted;
use super::{Meta, Space};

/// The two directories of a copy.
pub(super) const PROC: &str = "proc";
pub(super) const ROOT: &str = "root";
/// The list beside the files.
pub(super) const INDEX: &str = ".tree";

/// Bytes that one copy may have: a process with 400,000 sockets takes a tenth of this.
const COPY_BYTES_MAX: usize = 512 << 20;
/// Bytes of the list that are read back.
const INDEX_BYTES_MAX: u64 = 256 << 20;
/// Written where no errno is known.
const EIO: i32 = 5;

/// In which way a path was looked at; each may be refused by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Look {
    Read,
    List,
    Link,
    Meta,
    Space,
}

/// What was found at a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Noted<'a> {
    File(&'a str),
    Listing(&'a [String]),
    Link(&'a str),
    Meta(Meta),
    Space(Space),
}

/// Writes a copy.
#[derive(Debug)]
pub(super) struct Recorder {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    proc: String,
    root: String,
    bytes: usize,
    failed: Option<io::Error>,
}

/// What the list beside a copy says.
#[derive(Debug, Default)]
pub(super) struct Index {
    now_s: Option<i64>,
    listings: HashMap<String, Vec<String>>,
    links: HashMap<String, String>,
    metas: HashMap<String, Meta>,
    spaces: HashMap<String, Space>,
    errors: HashMap<(Look, String), i32>,
}

impl Recorder {
    pub(super) fn create(dir: &Path, now_s: i64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not empty"));
        }
        for side in [PROC, ROOT] {
            fs::create_dir(dir.join(side))?;
        }
        let state = State { proc: format!("now\t{now_s}\n"), ..State::default() };
        Ok(Self { dir: dir.to_owned(), state: Mutex::new(state) })
    }

    pub(super) fn note(&self, side: &str, path: &str, noted: Noted<'_>) {
        let line = match noted {
            Noted::File(text) => return self.copy(side, path, text),
            Noted::Listing(names) => {
                let names: String =
                    names.iter().map(|name| format!("\t{}", escaped(name))).collect();
                format!("list\t{}{names}\n", escaped(path))
            }
            Noted::Link(to) => format!("link\t{}\t{}\n", escaped(path), escaped(to)),
            Noted::Meta(meta) => {
                let Meta { mtime_s, len, mode, is_dir, uid } = meta;
                let path = escaped(path);
                let is_dir = u8::from(is_dir);
                format!("meta\t{path}\t{mtime_s}\t{len}\t{mode:o}\t{is_dir}\t{uid}\n")
            }
            Noted::Space(space) => {
                let Space { taken, free, free_for_root, size } = space;
                let path = escaped(path);
                format!("space\t{path}\t{taken}\t{free}\t{free_for_root}\t{size}\n")
            }
        };
        self.add(side, &line);
    }

    pub(super) fn note_error(&self, side: &str, path: &str, look: Look, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(EIO);
        self.add(side, &format!("error\t{}\t{}\t{errno}\n", look.name(), escaped(path)));
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        fs::write(self.dir.join(PROC).join(INDEX), &state.proc)?;
        fs::write(self.dir.join(ROOT).join(INDEX), &state.root)
    }

    fn copy(&self, side: &str, path: &str, text: &str) {
        let text = redacted(side == PROC, path, text);
        if !self.pay(text.len()) {
            return;
        }
        let to = self.dir.join(side).join(path);
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = made.and_then(|()| fs::write(&to, text.as_bytes())) {
            let what = io::Error::new(error.kind(), format!("{}: {error}", to.display()));
            self.state().failed.get_or_insert(what);
        }
    }

    fn add(&self, side: &str, line: &str) {
        if self.pay(line.len()) {
            let mut state = self.state();
            if side == PROC { &mut state.proc } else { &mut state.root }.push_str(line);
        }
    }

    /// BOUNDED: the copy.
    fn pay(&self, bytes: usize) -> bool {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_add(bytes);
        if state.bytes <= COPY_BYTES_MAX {
            return true;
        }
        let why = format!("a copy may have {} MiB, and this one has more", COPY_BYTES_MAX >> 20);
        state.failed.get_or_insert(io::Error::new(io::ErrorKind::FileTooLarge, why));
        false
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing between two states can panic, so a poisoned lock guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Reads the list of a directory. One composed by hand has none; lines that mean nothing are
    /// passed over.
    pub(super) fn load(dir: &Path) -> Self {
        let path = dir.join(INDEX);
        let small =
            fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= INDEX_BYTES_MAX);
        let text = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let mut index = Self::default();
        for line in text.lines() {
            // A line that was cut off says nothing.
            let _: Option<()> = index.take(line);
        }
        index
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split('\t');
        match fields.next()? {
            "now" => self.now_s = fields.next()?.parse().ok(),
            "list" => {
                let path = unescaped(fields.next()?);
                self.listings.insert(path, fields.map(unescaped).collect());
            }
            "link" => {
                let path = unescaped(fields.next()?);
                self.links.insert(path, unescaped(fields.next()?));
            }
            "meta" => {
                let path = unescaped(fields.next()?);
                let meta = Meta {
                    mtime_s: fields.next()?.parse().ok()?,
                    len: fields.next()?.parse().ok()?,
                    mode: u32::from_str_radix(fields.next()?, 8).ok()?,
                    is_dir: fields.next()? == "1",
                    uid: fields.next()?.parse().ok()?,
                };
                self.metas.insert(path, meta);
            }
            "space" => {
                let path = unescaped(fields.next()?);
                let mut number = || fields.next()?.parse().ok();
                let (taken, free) = (number()?, number()?);
                let (free_for_root, size) = (number()?, number()?);
                self.spaces.insert(path, Space { taken, free, free_for_root, size });
            }
            "error" => {
                let look = Look::named(fields.next()?)?;
                let path = unescaped(fields.next()?);
                self.errors.insert((look, path), fields.next()?.parse().ok()?);
            }
            _ => {}
        }
        Some(())
    }

    pub(super) fn now_s(&self) -> Option<i64> {
        self.now_s
    }

    /// Fails as it failed when the copy was made.
    pub(super) fn refused(&self, look: Look, path: &str) -> io::Result<()> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let errno = self.errors.get(&(look, path.to_owned()));
        errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(*errno)))
    }

    pub(super) fn listing(&self, path: &str) -> Option<Vec<String>> {
        self.listings.get(path).cloned()
    }

    pub(super) fn link(&self, path: &str) -> Option<String> {
        self.links.get(path).cloned()
    }

    pub(super) fn meta(&self, path: &str) -> Option<Meta> {
        self.metas.get(path).copied()
    }

    pub(super) fn space(&self, path: &str) -> Option<Space> {
        self.spaces.get(path).copied()
    }
}

impl Look {
    const ALL: [Self; 5] = [Self::Read, Self::List, Self::Link, Self::Meta, Self::Space];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Link => "link",
            Self::Meta => "meta",
            Self::Space => "space",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|look| look.name() == name)
    }
}

/// A name without tabs and line ends.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\t' | '\n' | '\r' => {
                // Writing to a string does not fail.
                write!(safe, "\\{:02x}", u32::from(c)).ok();
            }
            c => safe.push(c),
        }
    }
    safe
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => {
                name.push(char::from(code));
                name.push_str(&part[2..]);
            }
            None => name.push_str(part),
        }
    }
    name
}
