//! The diagnosis: a pure function from facts to findings.

pub mod finding;
pub mod ladder;

pub use finding::{Evidence, Finding, OriginReport, Severity, Supervisor, Unseen};
pub use ladder::{Bounds, Ladder, Resource, Rung, Unit};
