//! The diagnosis: a pure function from facts to findings.
//!
//! `gather` reads the [`Facts`] of a process, `diagnose` makes of them a [`Report`]: every check of
//! one table looks at the facts and puts rungs on the ladder and findings beside it.

pub mod advice;
pub mod caps;
pub mod ceiling;
pub mod checks;
pub mod facts;
pub mod finding;
pub mod gather;
pub mod ladder;
pub mod logs;
pub mod machine;
pub mod report;
pub mod words;

pub use facts::Facts;
pub use finding::{Evidence, Finding, OriginReport, Severity, Supervisor, Unseen};
pub use gather::{Ask, gather};
pub use ladder::{Bounds, Ladder, Resource, Rung, Unit};
pub use machine::Machine;
pub use report::{Need, Report, diagnose};
