//! What went wrong, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A problem in three parts, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What did not work: `client 1013 could not connect`.
    pub what: String,
    /// Why: `connection refused`.
    pub why: String,
    /// What to run or change next.
    pub next: String,
}

impl Failure {
    pub(crate) fn new(
        what: impl Into<String>,
        why: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), why: why.to_string(), next: next.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} — {} — {}", self.what, self.why, self.next)
    }
}

impl std::error::Error for Failure {}
