//! One client of the crowd, in as few bytes as it takes.

use mio::net::TcpStream;
use throng_wire::websocket::Decoder;

use crate::ledger::Place;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Connecting,
    /// The upgrade is asked for.
    Upgrading,
    /// The `connect` command is sent.
    Greeting,
    /// The `subscribe` command is sent.
    Joining,
    /// In, and held.
    Ready,
    Gone,
}

impl Step {
    /// As in "no answer while …".
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Upgrading => "upgrading",
            Self::Greeting => "waiting for the connect reply",
            Self::Joining => "waiting for the subscribe reply",
            Self::Ready => "holding",
            Self::Gone => "leaving",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) stream: Option<TcpStream>,
    pub(crate) step: Step,
    /// Microseconds from the beginning of its ramp to its own beginning.
    pub(crate) began_us: u32,
    pub(crate) decoder: Decoder,
    pub(crate) place: Place,
}

// A crowd of a million is to cost the generator tens of megabytes, not more than the server.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Member>() <= 40);
