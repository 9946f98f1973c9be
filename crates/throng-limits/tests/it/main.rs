//! The diagnosis of whole machines: written down, captured, and the one we run on.
#![expect(clippy::unwrap_used, reason = "tests")]

mod live;
mod matrix;
mod origin;
mod tree;
