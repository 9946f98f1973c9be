//! The server's memory at moments of the run, and what follows from them.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::stage::Stage;

/// How long a server may go on giving back what handshakes left, before it is read anyway.
const SETTLE_MAX: Nanos = 5_000_000_000;
const SETTLE_STEP: Nanos = 300_000_000;

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPoint {
    /// `base`, `slope`, `crowd`, `messages` or `end`.
    pub at: String,
    /// How many clients were in.
    pub clients: u32,
    /// Everything resident, in bytes.
    pub resident: u64,
    /// What of it is the process's alone.
    pub anonymous: u64,
}

/// The server's memory over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    pub points: Vec<MemoryPoint>,
    /// Bytes per connection over the base, when the crowd is in.
    pub per_connection: Option<f64>,
    /// The same after every client received ten messages.
    pub per_connection_after_messages: Option<f64>,
    /// The same at the end.
    pub per_connection_at_end: Option<f64>,
    /// Bytes per connection between the two sizes of `--slope-from`: without what a first
    /// connection alone costs.
    pub slope: Option<f64>,
}

impl MemoryUse {
    /// Waits until the server's memory stands still, and notes it.
    pub(crate) fn note(
        &mut self,
        at: &str,
        stage: &mut Stage,
        meter: Meter,
    ) -> Result<(), Failure> {
        let Some(mut memory) = meter.memory()? else { return Ok(()) };
        let give_up_at = stage.clock.now() + SETTLE_MAX;
        let mut unchanged = 0;
        while unchanged < 2 && stage.clock.now() < give_up_at {
            let next_at = stage.clock.now() + SETTLE_STEP;
            stage.turn_until(next_at)?;
            let Some(now) = meter.memory()? else { return Ok(()) };
            unchanged = if now == memory { unchanged + 1 } else { 0 };
            memory = now;
        }
        self.points.push(MemoryPoint {
            at: at.to_owned(),
            clients: stage.crowd.counts().ready,
            resident: memory.resident,
            anonymous: memory.anonymous,
        });
        self.conclude();
        Ok(())
    }

    fn conclude(&mut self) {
        self.per_connection = self.between("base", "crowd");
        self.per_connection_after_messages = self.between("base", "messages");
        self.per_connection_at_end = self.between("base", "end");
        self.slope = self.between("slope", "crowd");
    }

    fn between(&self, from: &str, to: &str) -> Option<f64> {
        let point = |at: &str| self.points.iter().find(|point| point.at == at);
        let (from, to) = (point(from)?, point(to)?);
        let clients = f64::from(to.clients) - f64::from(from.clients);
        (clients > 0.0).then(|| (to.resident as f64 - from.resident as f64) / clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_per_connection_are_differences() {
        let point = |at: &str, clients, resident| MemoryPoint {
            at: at.to_owned(),
            clients,
            resident,
            anonymous: resident,
        };
        let mut memory = MemoryUse {
            points: vec![
                point("base", 0, 1_000_000),
                point("slope", 2000, 1_800_000),
                point("crowd", 10_000, 3_000_000),
                point("messages", 10_000, 2_500_000),
                point("end", 0, 900_000),
            ],
            ..MemoryUse::default()
        };
        memory.conclude();
        assert_eq!(memory.per_connection, Some(200.0));
        assert_eq!(memory.slope, Some(150.0));
        assert_eq!(memory.per_connection_after_messages, Some(150.0));
        assert_eq!(memory.per_connection_at_end, None);
    }
}
