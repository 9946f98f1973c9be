//! What stops a crowd at a number that somebody saw.

use std::io::Write;

use throng_limits::doctor::ceiling::{suspects, unknown};
use throng_limits::doctor::words::grouped;

use super::screen::labelled;
use crate::failure::Failure;

pub(super) fn run(seen: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let found = suspects(seen);
    if found.is_empty() {
        writeln!(out, "{}", labelled("", &unknown(seen)).join("\n").trim_start())?;
        writeln!(
            out,
            "{}",
            labelled("look", "throng doctor PID, or --port PORT, says what binds first").join("\n")
        )?;
        return Ok(());
    }
    writeln!(out, "A crowd that stops at {} is known from:", grouped(seen))?;
    for suspect in found {
        writeln!(out, "{}", labelled("-", suspect.what).join("\n"))?;
        writeln!(out, "{}", labelled("  look", suspect.look).join("\n"))?;
    }
    Ok(())
}
