//! The configuration: as written, as meant, and what is wrong with it.

mod settings;

pub use settings::*;
