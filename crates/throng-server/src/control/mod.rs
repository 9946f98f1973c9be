//! The control socket: what `throng status` and `throng who` ask a running server.
//!
//! One socket per process, in the runtime directory of its user: nobody but that user and root
//! gets an answer, so no key is needed. A question is one line of JSON, and so is its answer.

mod answer;
mod ask;
mod place;
mod serve;

pub use answer::{
    Backend, BackendFailure, Cache, Client, Clients, Closed, Closes, DrainStep, Drained, Left,
    Published, Question, Search, Shard, Slow, Status, Tokens, Transport, Turned, TurnedAway, Who,
};
pub use ask::{AskError, ask, find, follow};
pub use place::Found;
pub(crate) use serve::{Control, open};
