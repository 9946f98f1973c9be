//! State that can be written down and continued by another process (invariant MOVABLE).
//!
//! [`record`](mod@record) is how: tagged fields in records, which grow without breaking readers. A [`sealed`]
//! piece says what it is, by which version it was written, and whether it is whole. The broker in
//! memory gives its streams in two steps, a [`streams::Snapshot`] while it serves and what changed
//! since; see [`crate::memory::Memory::snapshot`].

pub mod publications;
pub mod record;
pub mod sealed;
pub mod streams;

pub use record::{
    AlwaysPut, Corrupt, Each, Field, Fields, Part, Plain, Raw, Record, Since, SinceMs, Through,
    Until, UntilMs, UntilUnlessZero, Within, Writer,
};
pub use sealed::{Piece, Unreadable, Version};
