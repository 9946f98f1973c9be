//! `fs.nr_open`: no process has more descriptors, whatever its limit says.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::limit;

const AT: &str = "/proc/sys/fs/nr_open";

pub(super) fn look(facts: &Facts) -> Outcome {
    let (Some(nr_open), Some(used)) = (facts.kernel.nr_open, facts.open.count) else {
        return Outcome::default();
    };
    let rung = Rung::crowd(
        Resource::NrOpen,
        nr_open,
        used,
        facts.descriptors_milli(),
        facts.connections(),
    )
    .read("fs.nr_open", AT);
    let soft = facts.limit.soft;
    // The table of descriptors grows no further than this, and says EMFILE, below the limit too.
    let finding = (nr_open < soft).then(|| {
        let full = rung.more == 0;
        let severity = if full { Severity::Full } else { Severity::Tight };
        let what =
            if full { "cannot accept one more connection" } else { "will stop below its limit" };
        let what = format!(
            "{what}: fs.nr_open is {nr_open}, and its limit of {} means nothing above",
            limit(soft)
        );
        Finding::new("nr_open", severity, what)
            .because("somebody lowered fs.nr_open after the process got its limit")
            .now(format!("sudo sysctl -w fs.nr_open={}", soft.clamp(1 << 20, 1 << 30)))
            .for_good("fs.nr_open=1048576 in /etc/sysctl.d/90-files.conf")
            .verify("cat /proc/sys/fs/nr_open")
            .seen(format!("fs.nr_open {nr_open}"), AT)
    });
    Outcome::rung(rung).with(finding)
}
