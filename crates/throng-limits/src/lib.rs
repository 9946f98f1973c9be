//! How many descriptors a process may have, has and needs, and why.
//!
//! `facts` reads (parsers are pure, readers are thin), `raise` lifts the own soft limit,
//! `budget` hands out the permits without which no client is held.

pub mod budget;
pub mod facts;
pub mod raise;

pub use budget::{Budget, Permit};
pub use raise::{RaiseError, Raised};
