//! Faults of a new process that a wrapper around the program cannot play, for tests of builds with
//! debug assertions: `THRONG_RESTART_FAULT` names what goes wrong, and nothing reads it otherwise.

use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `exit-before-ready`: it ends with half of the sockets taken.
    ExitBeforeReady,
    /// `unknown-version`: it speaks no conversation that anybody knows.
    UnknownVersion,
    /// `corrupt`: a byte of the state is another when it is read.
    Corrupt,
    /// `truncated`: the end of the state is missing.
    Truncated,
    /// `exit-before-ack`: it ends with everything loaded.
    ExitBeforeAck,
    /// `hang-before-ack`: it does nothing any more with everything loaded.
    HangBeforeAck,
    /// `exit-after-ack`: it ends as soon as it has said that it serves.
    ExitAfterAck,
    /// `patient`: no fault; an old process holds its parachute longer, so that a test need not
    /// hurry.
    Patient,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::ExitBeforeReady => "exit-before-ready",
            Self::UnknownVersion => "unknown-version",
            Self::Corrupt => "corrupt",
            Self::Truncated => "truncated",
            Self::ExitBeforeAck => "exit-before-ack",
            Self::HangBeforeAck => "hang-before-ack",
            Self::ExitAfterAck => "exit-after-ack",
            Self::Patient => "patient",
        }
    }
}

/// Whether this process is to go wrong in this way.
#[cfg(debug_assertions)]
pub(crate) fn is_set(fault: Fault) -> bool {
    std::env::var_os("THRONG_RESTART_FAULT").is_some_and(|wanted| wanted == fault.name())
}

#[cfg(not(debug_assertions))]
pub(crate) fn is_set(_: Fault) -> bool {
    false
}

/// Goes wrong, where that was wanted.
pub(crate) fn strike(fault: Fault) {
    if !is_set(fault) {
        return;
    }
    if fault == Fault::HangBeforeAck {
        // Longer than any deadline; it is ended from outside.
        std::thread::park_timeout(Duration::from_secs(600));
    }
    std::process::abort();
}
