//! Faults of a new process that a wrapper around the program cannot play, for tests of builds with
//! debug assertions: `THRONG_RESTART_FAULT` names what goes wrong, and nothing reads it otherwise.

use std::borrow::Cow;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `exit-before-ready`: it ends with half of the sockets taken.
    ExitBeforeReady,
    /// `exit-after-ready`: it ends as soon as it has said that it is ready.
    ExitAfterReady,
    /// `unknown-version`: it speaks no conversation that anybody knows.
    UnknownVersion,
    /// `corrupt`: a byte of the state is another when it is read.
    Corrupt,
    /// `corrupt-ahead`: the same, of what goes ahead.
    CorruptAhead,
    /// `truncated`: the end of the state is missing.
    Truncated,
    /// `exit-before-ack`: it ends with everything loaded.
    ExitBeforeAck,
    /// `hang-before-ack`: it does nothing any more with everything loaded.
    HangBeforeAck,
    /// `exit-after-ack`: it ends as soon as it has said that it serves.
    ExitAfterAck,
    /// `later`: no fault; it speaks and writes what a later version might, with fields that nobody
    /// knows yet.
    Later,
    /// `patient`: no fault; an old process holds its parachute longer, so that a test need not
    /// hurry.
    Patient,
}

#[cfg(debug_assertions)]
impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::ExitBeforeReady => "exit-before-ready",
            Self::ExitAfterReady => "exit-after-ready",
            Self::UnknownVersion => "unknown-version",
            Self::Corrupt => "corrupt",
            Self::CorruptAhead => "corrupt-ahead",
            Self::Truncated => "truncated",
            Self::ExitBeforeAck => "exit-before-ack",
            Self::HangBeforeAck => "hang-before-ack",
            Self::ExitAfterAck => "exit-after-ack",
            Self::Later => "later",
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

/// A piece of state, as a later version might have written it where that was wanted.
pub(crate) fn grown(piece: &[u8]) -> Cow<'_, [u8]> {
    #[cfg(debug_assertions)]
    if is_set(Fault::Later) {
        let grown = throng_hub::state::sealed::grown(piece);
        return Cow::Owned(grown.expect("what was just written can be read"));
    }
    Cow::Borrowed(piece)
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
