//! How many descriptors a process may have, has and needs, and why.
//!
//! `facts` reads (parsers are pure, readers are thin), `raise` lifts the own soft limit,
//! `room` works out how many descriptors there are to spend and who set the limit, `budget` hands
//! out the permits without which no descriptor is opened.

pub mod budget;
pub mod descriptors;
pub mod doctor;
pub mod facts;
pub mod growth;
mod number;
pub mod origin;
pub mod raise;
pub mod room;
pub mod sockets;
pub mod tree;

pub use budget::{Budget, Guarantees, Lane, Permit};
pub use facts::OpenFiles;
pub use number::thousands;
pub use raise::{RaiseError, Raised};
pub use room::Ceiling;
pub use tree::{Meta, Tree, printable};
