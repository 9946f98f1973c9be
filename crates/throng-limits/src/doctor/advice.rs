//! How far a limit should be raised, and what whoever asks has to type for it.

use super::checks::SELECT_MAX;
use super::facts::{Caller, Facts, Select};
use super::words::limit;

/// What is recommended where nobody said how many connections are wanted.
pub const RAISED: u64 = 65_536;
/// Descriptors besides connections, for what comes and goes.
const MARGIN: u64 = 64;

/// A command that helps at once, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub command: Option<String>,
    /// What it does to those who are connected, or why there is no command.
    pub note: String,
}

/// The limit that the process should have: enough for those wanted, and never more than helps.
#[must_use]
pub fn wanted_limit(facts: &Facts) -> u64 {
    let cost = facts.descriptors_milli();
    let needed = facts.need.map_or(0, |need| {
        let others = facts.used().unwrap_or(0).saturating_sub(facts.connections() * cost / 1000);
        need.saturating_mul(cost) / 1000 + others + MARGIN
    });
    let wanted = RAISED.max(needed.checked_next_power_of_two().unwrap_or(u64::MAX));
    let wanted =
        wanted.max(if facts.limit.soft >= RAISED { facts.limit.soft.saturating_mul(2) } else { 0 });
    let wanted = wanted.min(facts.kernel.nr_open.unwrap_or(u64::MAX));
    let hard = facts.limit.hard;
    // What nobody here may go beyond is enough, if it is for those who are wanted.
    let is_enough = needed <= hard && hard > facts.limit.soft.saturating_mul(2);
    if is_stuck(facts) && is_enough { wanted.min(hard) } else { wanted }
}

/// Whether hard limits are as they are: root without the right to raise one, as in a container.
#[must_use]
pub fn is_stuck(facts: &Facts) -> bool {
    facts.caller.uid == 0 && !facts.caller.rights.raises_limits()
}

/// What raises the limit of the running process, for whoever asks.
#[must_use]
pub fn live(facts: &Facts) -> Live {
    let nothing = |note: &str| Live { command: None, note: note.to_owned() };
    if matches!(facts.select, Select::Proven { .. }) {
        return nothing("not above 1024: it waits with select(), which breaks there");
    }
    let wanted = wanted_limit(facts);
    if wanted <= facts.limit.soft {
        return nothing(
            "fs.nr_open allows no more: raise that first (sudo sysctl -w fs.nr_open=...)",
        );
    }
    let Some((sudo, to)) = reachable(facts, wanted) else {
        return nothing(
            "cannot be raised from here: its hard limit takes CAP_SYS_RESOURCE, so ask on the host",
        );
    };
    let parent = facts.origin.supervisor.as_ref().map_or("", |_| " --with-parent");
    let sudo = if sudo { "sudo " } else { "" };
    let command = format!("{sudo}throng doctor {} --raise {}{parent}", facts.who.pid, limit(to));
    Live { command: Some(command), note: "nobody is disconnected".to_owned() }
}

/// How far whoever asks may go, and whether by sudo.
fn reachable(facts: &Facts, wanted: u64) -> Option<(bool, u64)> {
    let Caller { uid, rights, .. } = facts.caller;
    let hard = facts.limit.hard;
    if rights.raises_limits() {
        return Some((false, wanted));
    }
    let within = wanted.min(hard);
    match (facts.may_set(), wanted <= hard) {
        (true, true) => Some((false, wanted)),
        _ if uid != 0 => Some((true, wanted)),
        // Root in a container: what the hard limit leaves is all there is.
        (true, false) if within > facts.limit.soft => Some((false, within)),
        _ => None,
    }
}

/// Whether so high a limit breaks the program.
#[must_use]
pub fn breaks_select(facts: &Facts, wanted: u64) -> bool {
    wanted > SELECT_MAX && matches!(facts.select, Select::Proven { .. })
}

#[cfg(test)]
mod tests;
