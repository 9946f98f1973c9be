//! What becomes of a restart, step by step, as it stands on the control socket and in `--json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Another program than the one at the path that this one was started by.
    pub binary: Option<PathBuf>,
    /// Stop before the commit: the new process is proved and ended.
    pub dry_run: bool,
}

/// A step that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The program and its configuration are good.
    Checked { program: PathBuf, version: String },
    /// The new process runs and has introduced itself.
    Started { pid: u32, version: String },
    /// It has the listeners.
    Listening { listeners: u64 },
    /// It has so many sockets.
    Copied { connections: u64 },
    /// It has the history as it was a moment ago.
    History { bytes: u64 },
    /// It is ready; nothing of it serves yet.
    Ready,
    /// The new process serves; clients have waited so long.
    Committed { connections: u64, frozen_us: u64 },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the new process serves now; of a rehearsal, whether it would.
    pub done: bool,
    /// Why not, and what to do; the old process serves as before.
    pub why: Option<String>,
    pub dry_run: bool,
    pub from: Process,
    /// Absent when none was started.
    pub to: Option<Process>,
    /// Connections that stayed, or would.
    pub connections: u64,
    /// Requests of HTTP that were being answered then, which the old process answers.
    #[serde(default)]
    pub requests: u32,
    /// Of those connections, clients over gRPC: they cannot move, so that they are closed at a pace,
    /// and come back.
    #[serde(default)]
    pub returning: u32,
    /// How long it takes until they all have been closed, in milliseconds.
    #[serde(default)]
    pub returning_over_ms: u32,
    /// How long clients waited, in microseconds; 0 for a rehearsal.
    pub frozen_us: u64,
    /// Bytes of history that went ahead.
    pub history_bytes: u64,
}

/// A process of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub version: String,
}

impl Outcome {
    /// Nothing done yet.
    pub(crate) fn begun(wish: &Wish, from: Process) -> Self {
        Self {
            done: false,
            why: None,
            dry_run: wish.dry_run,
            from,
            to: None,
            connections: 0,
            requests: 0,
            returning: 0,
            returning_over_ms: 0,
            frozen_us: 0,
            history_bytes: 0,
        }
    }
}

impl Process {
    /// This one.
    pub(crate) fn own() -> Self {
        Self { pid: std::process::id(), version: crate::version().to_owned() }
    }
}
