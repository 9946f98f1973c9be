//! The diagnosis of whole machines, written down, captured, and the one we run on; and the kernel
//! itself, with processes of our own in the states that the doctor is for.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests; one that is skipped says so")]

mod captured;
mod live;
mod logs;
mod matrix;
mod origin;
mod roles;
mod rows;
mod sockets;
mod tree;
