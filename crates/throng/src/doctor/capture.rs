//! Leaves a copy of everything that a diagnosis reads.

use std::io::Write;
use std::path::Path;

use throng_limits::Tree;
use throng_limits::doctor::Ask;

use super::screen::screen;
use super::style::Style;
use super::{DoctorArgs, ended, examined, json};
use crate::failure::Failure;

/// Which process a copy is of.
pub(super) const SUBJECT: &str = "doctor-pid";

pub(super) fn run(
    args: &DoctorArgs,
    tree: &Tree,
    dir: &Path,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let pid = args.pid.unwrap_or_default();
    let failed = |error: &std::io::Error| {
        Failure::could_not_run(format!(
            "cannot leave a copy in {}: {error}; name a new directory",
            dir.display()
        ))
    };
    let recording = tree.clone().recording(dir).map_err(|error| failed(&error))?;
    recording.record_proc(SUBJECT, &format!("{pid}\n"));
    let report =
        examined(&recording, pid, &Ask { need: args.need, each: args.all, ..Ask::default() })?;
    recording.finish_recording().map_err(|error| failed(&error))?;
    if args.json {
        writeln!(out, "{}", crate::text::json(&json::process(&report))?)?;
        return ended(report.severity);
    }
    write!(out, "{}", screen(&report, style))?;
    let dir = dir.display();
    writeln!(
        out,
        "\ncopied to {dir}: values that look like secrets are left out; read it before you send it.\n\
         there: throng doctor {pid} --proc {dir}/proc --root {dir}/root"
    )?;
    ended(report.severity)
}
