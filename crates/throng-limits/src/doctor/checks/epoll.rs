//! `fs.epoll.max_user_watches`: each connection that an event loop waits for is one.

use super::Outcome;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};
use crate::doctor::words::grouped;

const AT: &str = "/proc/sys/fs/epoll/max_user_watches";

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(limit) = facts.kernel.epoll_watches_max else { return Outcome::default() };
    // Those of the user's other processes count too, and cannot be seen cheaply.
    let used = facts.open.epoll_watched.max(facts.open.inbound);
    let rung = Rung::crowd(Resource::Epoll, limit, used, 1000, facts.connections())
        .read("fs.epoll.max_user_watches", AT);
    let finding = rung.is_left(10).then(|| {
        let severity = if rung.more == 0 { Severity::Full } else { Severity::Tight };
        let what = format!(
            "waits for {} of {} descriptors that a user may wait for",
            grouped(used),
            grouped(limit)
        );
        let twice = limit.saturating_mul(2);
        Finding::new("epoll", severity, what)
            .because("epoll_ctl fails with ENOSPC at fs.epoll.max_user_watches")
            .now(format!("sudo sysctl -w fs.epoll.max_user_watches={twice}"))
            .for_good(format!("fs.epoll.max_user_watches={twice} in /etc/sysctl.d/90-epoll.conf"))
            .verify(format!("cat {AT}"))
            .seen(format!("{} watched", grouped(used)), format!("/proc/{}/fdinfo", facts.who.pid))
    });
    Outcome::rung(rung).with(finding)
}
