//! A configuration file as it was read: its lines, and when it was last changed.

use crate::Tree;
use crate::facts::FactError;
use crate::tree::printable;

/// Characters of one line that are kept as evidence: what follows says nothing more.
const EVIDENCE_CHARS_MAX: usize = 200;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub path: String,
    pub text: String,
    /// Seconds since 1970.
    pub changed_s: Option<i64>,
}

/// A line of a file that proves something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub file: String,
    /// Counted from 1; none where the whole file is meant.
    pub line: Option<usize>,
    /// The line without what could move a cursor.
    pub text: String,
    /// When the file was last changed, in seconds since 1970.
    pub changed_s: Option<i64>,
}

/// What came of looking for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    There(Source),
    Absent,
    /// It is there, and not for us.
    Hidden(String),
}

/// The disk as a process sees it: the machine's, or the one in its container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk<'a> {
    tree: &'a Tree,
    within: Option<u32>,
}

impl Source {
    /// The line of that number, as evidence.
    #[must_use]
    pub(super) fn evidence(&self, number: usize) -> Evidence {
        let text = number.checked_sub(1).and_then(|before| self.text.lines().nth(before));
        Evidence {
            file: self.path.clone(),
            line: Some(number),
            text: shown(text.unwrap_or_default()),
            changed_s: self.changed_s,
        }
    }

    /// The file as a whole, as evidence of what is not in it.
    #[must_use]
    pub(super) fn whole(&self, text: &str) -> Evidence {
        Evidence {
            file: self.path.clone(),
            line: None,
            text: text.to_owned(),
            changed_s: self.changed_s,
        }
    }
}

impl Evidence {
    /// `FILE:LINE: TEXT`.
    #[must_use]
    pub fn cite(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", self.file, self.text),
            None => format!("{}: {}", self.file, self.text),
        }
    }

    /// `FILE:LINE`.
    #[must_use]
    pub fn place(&self) -> String {
        self.line.map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file))
    }
}

impl<'a> Disk<'a> {
    pub(crate) fn machine(tree: &'a Tree) -> Self {
        Self { tree, within: None }
    }

    pub(crate) fn of(tree: &'a Tree, pid: u32) -> Self {
        Self { tree, within: Some(pid) }
    }

    pub(crate) fn look(&self, path: &str) -> Seen {
        let read = match self.within {
            Some(pid) => self.tree.read_proc(&inside(pid, path)),
            None => self.tree.read_root(path),
        };
        match read {
            Ok(text) => {
                let changed_s = self.changed_s(path);
                Seen::There(Source { path: path.to_owned(), text, changed_s })
            }
            Err(error) if error.is_gone() => Seen::Absent,
            Err(_) => Seen::Hidden(path.to_owned()),
        }
    }

    pub(crate) fn read(&self, path: &str) -> Option<Source> {
        match self.look(path) {
            Seen::There(source) => Some(source),
            Seen::Absent | Seen::Hidden(_) => None,
        }
    }

    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let names = match self.within {
            Some(pid) => self.tree.list_proc(&inside(pid, path)),
            None => self.tree.list_root(path),
        };
        names.unwrap_or_default()
    }

    /// Whether it is there; none where that cannot be told.
    pub(crate) fn has(&self, path: &str) -> Option<bool> {
        match self.meta(path) {
            Ok(_) => Some(true),
            Err(error) if error.is_gone() => Some(false),
            Err(_) => None,
        }
    }

    /// Whether a link there leads to `/dev/null`, which is how systemd masks things.
    pub(crate) fn is_masked(&self, path: &str) -> bool {
        let target = match self.within {
            Some(pid) => self.tree.link_proc(&inside(pid, path)),
            None => self.tree.link_root(path),
        };
        target.is_ok_and(|target| target == "/dev/null")
    }

    fn changed_s(&self, path: &str) -> Option<i64> {
        self.meta(path).ok().map(|meta| meta.mtime_s)
    }

    fn meta(&self, path: &str) -> Result<crate::tree::Meta, FactError> {
        match self.within {
            Some(pid) => self.tree.meta_proc(&inside(pid, path)),
            None => self.tree.meta_root(path),
        }
    }
}

/// The path of a file of another root, by way of `/proc`.
fn inside(pid: u32, path: &str) -> String {
    format!("{pid}/root{path}")
}

/// A line as it may be shown.
pub(crate) fn shown(line: &str) -> String {
    let line = line.trim().replace('\t', " ");
    let line: String = line.chars().take(EVIDENCE_CHARS_MAX).collect();
    printable(&line)
}
