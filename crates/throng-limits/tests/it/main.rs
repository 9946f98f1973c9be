//! The diagnosis of whole machines, written down, captured, and the one we run on; and the kernel
//! itself, with processes of our own in the states that the doctor is for.
#![expect(clippy::unwrap_used, reason = "tests")]

mod live;
mod matrix;
mod origin;
mod roles;
mod sockets;
mod tree;
