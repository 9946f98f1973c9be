//! A crowd of WebSocket clients that ramps, holds, counts and measures.
//!
//! [`run`] does one load and gives a [`Report`]; [`client`] is a single client that blocks. The
//! crowd is one thread and one event loop, a record of some forty bytes per client and no buffer
//! of its own. What is measured of a server is its whole process, from the kernel's counters, and
//! always beside what the load itself used: a generator that is busy measures itself.

pub mod bare;
mod ceiling;
pub mod client;
mod clock;
mod crowd;
mod failure;
mod fanout;
mod handshake;
mod histogram;
mod idle;
mod ledger;
mod link;
mod memory;
mod message;
mod meter;
mod neighbour;
mod options;
mod progress;
mod publisher;
mod ramp;
mod report;
mod run;
mod sample;
mod stage;
mod target;
mod trouble;

pub use ceiling::Ceiling;
pub use failure::Failure;
pub use fanout::{Fanout, Round};
pub use handshake::Refusal;
pub use idle::Idle;
pub use memory::{MemoryPoint, MemoryUse};
pub use neighbour::{Answers, Neighbour};
pub use options::{Encoding, Helper, Options};
pub use progress::{Progress, Side};
pub use ramp::Ramp;
pub use report::Report;
pub use run::run;
pub use target::Target;
