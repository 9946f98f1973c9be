//! `fs.inotify.max_user_instances`: it says "too many open files", and is another limit.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};

const AT: &str = "/proc/sys/fs/inotify/max_user_instances";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(limit) = facts.kernel.inotify_instances_max else { return Outcome::default() };
    let used = facts.open.inotify;
    if used == 0 {
        return Outcome::default();
    }
    let rung =
        Rung::beside(Resource::Inotify, limit, used).read("fs.inotify.max_user_instances", AT);
    // Other processes of the user have some too: nine tenths in one process are as good as all.
    let finding = (used * 10 >= limit * 9).then(|| {
        let twice = limit.saturating_mul(2);
        let what = format!("has {used} of the {limit} inotify instances of its user: the next is refused as \"too many open files\"");
        Finding::new("inotify", Severity::Tight, what)
            .because("inotify_init fails with EMFILE at fs.inotify.max_user_instances, whatever the limit on open files")
            .now(format!("sudo sysctl -w fs.inotify.max_user_instances={twice}"))
            .for_good(format!("fs.inotify.max_user_instances={twice} in /etc/sysctl.d/90-inotify.conf"))
            .verify(format!("cat {AT}"))
            .seen(format!("{used} instances"), format!("/proc/{}/fd", facts.who.pid))
    });
    Outcome::rung(rung).with(finding)
}
