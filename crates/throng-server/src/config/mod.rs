//! The configuration: as written, as meant, and what is wrong with it.
//!
//! [`load`] gathers what flags, environment and file say (`written`), reads it option by option
//! against one table (`options`), and reports every problem at once, with path, value and place.

mod backends;
mod channel;
mod connecting;
mod duration;
#[cfg(test)]
mod fate;
mod grpc;
mod import;
mod init;
mod jwks;
mod machine;
mod maps;
mod meaning;
mod network;
mod options;
mod poll;
mod problem;
mod read;
mod said;
mod schema;
mod settings;
mod tree;
mod verdict;
mod written;

use std::path::PathBuf;

pub use backends::{
    Backend, BackendId, Backends, Endpoint, RpcOf, Scheme, Transform, Transformed, never_copied,
};
pub use channel::*;
pub use duration::{parse_duration, show_duration};
#[cfg(test)]
pub(crate) use fate::{Fate, fates, quiet_and_read};
pub use grpc::{GrpcApi, UniGrpc};
pub use import::{Imported, import};
pub use init::{InitError, InitFile, default_env, default_text, init};
pub use jwks::JwksEndpoint;
pub(crate) use jwks::{KeysUrl, group};
pub use maps::{ClientKey, MapKind, MapOptions};
pub use network::{Network, NotANetwork};
pub use poll::{PollOptions, SharedPoll};
pub use problem::*;
pub use said::Said;
pub use schema::schema;
pub use settings::*;

/// Looked for in the working directory when no file is named.
pub const FILE_NAMES: [&str; 6] =
    ["throng.toml", "throng.yaml", "throng.json", "config.toml", "config.yaml", "config.json"];

/// Where a configuration comes from; the stronger wins: flags, environment, file, defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// None: the first of [`FILE_NAMES`] that is there, and none with `dev`.
    pub file: Option<PathBuf>,
    /// All of it; what is not throng's is not looked at.
    pub env: Vec<(String, String)>,
    /// Options by their paths.
    pub flags: Vec<(String, String)>,
    /// Development: everything is allowed where nothing else is said.
    pub dev: bool,
    /// The number of the first backend; other than 0 where the settings take the place of others.
    pub first_backend: u16,
}

/// A configuration, as far as it could be understood.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// None where there is a problem.
    pub settings: Option<Settings>,
    /// What must be corrected before a server can start.
    pub problems: Vec<Problem>,
    /// What should be known.
    pub warnings: Vec<Problem>,
    /// The file that was read, or should have been.
    pub file: Option<PathBuf>,
    /// What all of them set.
    pub said: Said,
}

/// Loads a configuration; every problem in it is found at once.
pub fn load(sources: Sources) -> Loaded {
    let (dev, first_backend) = (sources.dev, sources.first_backend);
    let mut written = written::Written::gather(sources, written::Variables::Filled);
    let mut problems = std::mem::take(&mut written.problems);
    let mut warnings = std::mem::take(&mut written.warnings);
    let file = written.file.clone();
    let said = Said::of(&written);
    let (settings, wrong, doubtful) = meaning::mean(written, dev, first_backend);
    problems.extend(wrong);
    warnings.extend(doubtful);
    in_order(&mut problems);
    in_order(&mut warnings);
    let settings = problems.is_empty().then_some(settings);
    Loaded { settings, problems, warnings, file, said }
}

impl Settings {
    /// What `serve --dev` means without a word more.
    ///
    /// # Panics
    /// Never: the development options are checked by a test.
    pub fn development() -> Self {
        let loaded = load(Sources { dev: true, ..Sources::default() });
        loaded.settings.expect("the development options have no problem")
    }
}

/// By place, so that a file is corrected from its top; each problem once.
fn in_order(problems: &mut Vec<Problem>) {
    problems.sort_by_key(|problem| match &problem.place {
        Place::File(_, line) => (0, *line),
        Place::Env(_) => (1, 0),
        Place::Flag => (2, 0),
        Place::Default => (3, 0),
    });
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(problem);
        if new {
            seen.push(problem.clone());
        }
        new
    });
}

#[cfg(test)]
mod tests;
