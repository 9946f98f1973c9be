//! What can be seen of a running server at `/metrics`, in the format of Prometheus.
//!
//! Each shard counts for itself (`meter`, of `cells`); nothing is counted per channel, and every
//! label has its values from a closed set, so that nobody can make the page grow. `gather` reads all
//! of it when somebody asks, `family` names it, `text` writes it down, and `moving` hands it over in
//! a restart.

mod cells;
mod family;
mod frame;
mod gather;
mod meter;
mod moving;
mod pings;
mod process;
mod rare;
mod reason;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use cells::{Cell, REQUESTS, Spread};
#[cfg(test)]
pub(crate) use family::centrifugos;
pub(crate) use frame::{Frame, METHODS, library};
pub(crate) use gather::{METHOD, Slow, answer, free, passed};
pub(crate) use meter::{Meter, Meters};
pub(crate) use moving::{put, take};
pub(crate) use pings::Pings;
pub(crate) use rare::Of;
pub(crate) use reason::is_known as is_known_reason;
