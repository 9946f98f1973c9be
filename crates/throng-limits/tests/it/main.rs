//! The kernel itself: processes of our own, in the states that the doctor is for.

mod roles;
mod sockets;
