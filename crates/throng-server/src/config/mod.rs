//! The configuration: as written, as meant, and what is wrong with it.

mod channel;
mod settings;

pub use channel::*;
pub use settings::*;
