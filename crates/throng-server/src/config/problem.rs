//! What is wrong with a configuration: where, what, and what to do.

use std::fmt;
use std::path::PathBuf;

/// One thing to correct, or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub place: Place,
    /// The option's path; empty where the file as a whole is meant.
    pub path: String,
    /// As it was written; secrets are not shown.
    pub value: Option<String>,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What sort of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file is not there, or cannot be read.
    Unreadable,
    /// The file is not TOML, YAML or JSON.
    Syntax,
    /// A value that cannot be.
    Invalid,
    /// An option that is known but not supported yet.
    Unsupported,
    /// A key that is not known.
    Unknown,
    /// Values that are allowed, but hardly meant.
    Doubtful,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, counted from 1; 0 where it is not known.
    File(PathBuf, usize),
    /// A variable of the environment.
    Env(String),
    Flag,
    /// Nobody gave it.
    Default,
}

/// `throng.toml:12: client.ping_interval = "25": not a duration; write "25s"`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file, 0) => write!(f, "{}: ", file.display())?,
            Place::File(file, line) => write!(f, "{}:{line}: ", file.display())?,
            Place::Env(_) | Place::Flag | Place::Default => {}
        }
        match &self.place {
            Place::Env(name) => f.write_str(name)?,
            Place::Flag => write!(f, "--{}", self.path)?,
            Place::File(..) | Place::Default => f.write_str(&self.path)?,
        }
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}
