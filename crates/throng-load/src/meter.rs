//! Reads what the measured process and this one have used.

use throng_limits::facts::FactError;
use throng_limits::facts::process::{self, Memory};

use crate::clock::{Clock, Nanos, nanos};
use crate::failure::Failure;

/// Measures a server, when its process is known, and always the load itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    server: Option<u32>,
    clock: Clock,
}

/// Processor time up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Nanos,
    server: Option<Nanos>,
    own: Nanos,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) took: Nanos,
    /// The server's processor time.
    pub(crate) server: Option<Nanos>,
    /// The share of one core that the load itself used: near 1 it measures itself.
    pub(crate) own_share: f64,
}

impl Meter {
    pub(crate) fn new(server: Option<u32>, clock: Clock) -> Self {
        Self { server, clock }
    }

    pub(crate) fn read(self) -> Result<Reading, Failure> {
        let server = self.server.map(process::cpu_time).transpose().map_err(unreadable)?;
        let own = process::cpu_time(std::process::id()).map_err(unreadable)?;
        Ok(Reading { at: self.clock.now(), server: server.map(nanos), own: nanos(own) })
    }

    pub(crate) fn since(self, before: Reading) -> Result<Usage, Failure> {
        let now = self.read()?;
        let took = now.at.saturating_sub(before.at).max(1);
        let server = now.server.zip(before.server).map(|(now, before)| now.saturating_sub(before));
        let own = now.own.saturating_sub(before.own);
        Ok(Usage { took, server, own_share: own as f64 / took as f64 })
    }

    pub(crate) fn memory(self) -> Result<Option<Memory>, Failure> {
        self.server.map(process::memory).transpose().map_err(unreadable)
    }
}

fn unreadable(error: FactError) -> Failure {
    Failure::new("cannot measure the server", error, "give the pid of a running server with --pid")
}
