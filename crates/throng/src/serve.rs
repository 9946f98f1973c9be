//! `throng serve`: settles the configuration and hands over to the server.

use std::io::Write;

use throng_server::config::{self, Settings, Sources};

use crate::args::ServeArgs;
use crate::config::{environment, unusable};
use crate::failure::Failure;

pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = config::load(Sources {
        file: args.config.clone(),
        env: environment(),
        flags: args.options.0.clone(),
        dev: args.dev,
    });
    for warning in &loaded.warnings {
        // A server whose stderr is gone still serves.
        writeln!(std::io::stderr(), "warning: {warning}").ok();
    }
    match loaded.settings {
        Some(settings) => serve(settings),
        None => Err(unusable(&loaded)),
    }
}

/// Runs until it is told to stop.
fn serve(_settings: Settings) -> Result<(), Failure> {
    Err(Failure::could_not_run("this build has no server in it"))
}
