//! `throng reload`: applies a changed configuration without a restart.

use std::io::Write;

use throng_server::control::{self, Question};
use throng_server::reload::Reloaded;

use crate::args::ReloadArgs;
use crate::failure::Failure;
use crate::status::unanswered;

pub(crate) fn run(args: &ReloadArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = control::find(args.pid).map_err(unanswered)?;
    let reloaded: Reloaded = control::ask(&server, &Question::Reload).map_err(unanswered)?;
    if args.json {
        writeln!(out, "{}", crate::text::json(&reloaded)?)?;
    } else {
        writeln!(out, "{reloaded}")?;
        for warning in &reloaded.warnings {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
    }
    if reloaded.problems.is_empty() { Ok(()) } else { Err(Failure::found("")) }
}
