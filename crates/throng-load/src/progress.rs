//! What a run says while it is under way.

use std::fmt;

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A sentence worth keeping: the own ceiling, a phase's result.
    Said(String),
    /// Clients are connecting.
    Ramp { ready: u32, failed: u32, of: u32 },
    /// A round of fan-out begins.
    Round { round: u32, of: u32, in_flight: u32, of_what: Side },
    /// The crowd is held idle.
    Hold { seconds_left: u64 },
}

/// Whose round it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Server,
    Bare,
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(sentence) => out.write_str(sentence),
            Self::Ramp { ready, failed: 0, of } => write!(out, "connecting: {ready} of {of}"),
            Self::Ramp { ready, failed, of } => {
                write!(out, "connecting: {ready} of {of}, {failed} failed")
            }
            Self::Round { round, of, in_flight, of_what } => {
                let side = match of_what {
                    Side::Server => "server",
                    Side::Bare => "bare loop",
                };
                write!(out, "fan-out: round {round} of {of}, {in_flight} in flight, {side}")
            }
            Self::Hold { seconds_left } => write!(out, "holding: {seconds_left} s left"),
        }
    }
}
