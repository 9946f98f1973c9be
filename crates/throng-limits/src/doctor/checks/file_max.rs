//! `fs.file-max`: what the whole machine may have open.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Bounds, Resource, Rung};
use crate::doctor::words::grouped;

const AT: &str = "/proc/sys/fs/file-nr";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(files) = facts.kernel.files else { return Outcome::default() };
    let mut rung = Rung::crowd(
        Resource::FileMax,
        files.max,
        files.open,
        facts.descriptors_milli(),
        facts.connections(),
    )
    .read("fs.file-max", AT);
    // The kernel lets CAP_SYS_ADMIN through.
    if facts.who.effective.ignores_file_max() {
        rung.bounds = Bounds::Beside;
        return Outcome::rung(rung);
    }
    let finding = rung.is_left(TIGHT_PERCENT).then(|| {
        let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
        let (open, max) = (grouped(files.open), grouped(files.max));
        let what = format!(
            "shares {open} of {max} open files with the whole machine (ENFILE, fs.file-max)"
        );
        let twice = files.max.saturating_mul(2);
        Finding::new("file_max", severity, what)
            .because("fs.file-max bounds all processes without CAP_SYS_ADMIN together")
            .now(format!("sudo sysctl -w fs.file-max={twice}"))
            .for_good(format!("fs.file-max={twice} in /etc/sysctl.d/90-files.conf"))
            .verify("cat /proc/sys/fs/file-nr")
            .seen(format!("{open} open, at most {max}"), AT)
    });
    Outcome::rung(rung).with(finding)
}
