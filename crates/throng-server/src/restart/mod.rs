//! Handing a running server over to a new process, from the outside: who starts whom, what they
//! tell each other, and who serves when something fails in between.

pub mod channel;
pub(crate) mod fault;
pub(crate) mod give;
pub(crate) mod heir;
pub mod keeper;
pub mod manager;
mod message;
pub(crate) mod orders;
pub mod orphan;
mod outcome;
pub(crate) mod succession;
pub(crate) mod take;
pub(crate) mod touched;

pub use heir::{Program, Proof};
pub use outcome::{Outcome, Process, Step, Wish};

/// Whether this process takes over from another, or has a keeper already.
#[must_use]
pub fn is_inherited() -> bool {
    is_taking_over() || is_set(manager::KEEPER_VARIABLE)
}

/// Whether this process takes over from another.
pub(crate) fn is_taking_over() -> bool {
    is_set(manager::HANDOFF_VARIABLE)
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "stdin")
}
