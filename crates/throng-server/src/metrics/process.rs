//! What the kernel says of this process and of its listeners. It is read from files and asked over a
//! socket, so it blocks for a moment.

use std::sync::OnceLock;
use std::time::Duration;

use throng_limits::facts::limits::own_descriptors;
use throng_limits::facts::netstat::tcp_losses;
use throng_limits::facts::{OpenFiles, memory, process};
use throng_limits::sockets::accept_queue;
use throng_limits::{Permit, Tree};

use crate::handoff::Doors;

/// What the kernel says; what it does not say is none.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) cpu: Option<Duration>,
    pub(super) resident: Option<u64>,
    pub(super) open: Option<u64>,
    pub(super) max: Option<u64>,
    /// Seconds since 1970.
    pub(super) started_s: Option<f64>,
    pub(super) overflows: Option<u64>,
    /// Each listener's name, who waits there, and how many may.
    pub(super) queues: Vec<(&'static str, u64, u64)>,
}

impl Kernel {
    /// Invariant PAY-FIRST: one descriptor is open at a time, and that is paid for.
    pub(super) fn read(_paid: &Permit, doors: &Doors, unix_ms: i64) -> Self {
        let tree = Tree::live();
        let stat = tree.read_proc("self/stat").unwrap_or_default();
        let queues = doors.iter().filter_map(|(door, listener)| {
            let queue = accept_queue(&**listener, listener.local_addr().ok()?).ok()?;
            Some((door.name(), u64::from(queue.waiting), u64::from(queue.backlog)))
        });
        Self {
            cpu: process::parse_stat(&stat),
            resident: memory(std::process::id()).ok().map(|memory| memory.resident),
            // That of the directory that is read is one of them for the moment.
            open: own_descriptors().ok(),
            max: Some(OpenFiles::own().soft),
            started_s: *STARTED.get_or_init(|| started(&stat, &tree, unix_ms)),
            overflows: tcp_losses(&tree, std::process::id()).ok().map(|lost| lost.listen_overflows),
            queues: queues.collect(),
        }
    }
}

/// It is worked out once, so that it is the same number at every look.
static STARTED: OnceLock<Option<f64>> = OnceLock::new();

fn started(stat: &str, tree: &Tree, unix_ms: i64) -> Option<f64> {
    started_by(stat, &tree.read_proc("uptime").ok()?, unix_ms)
}

/// When a process was started, in seconds since 1970, from the texts of `/proc/self/stat` and
/// `/proc/uptime`.
fn started_by(stat: &str, uptime: &str, unix_ms: i64) -> Option<f64> {
    let up_s: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    // proc(5): starttime is field 22, in ticks of a hundredth since the machine's start; the name in
    // parentheses may hold spaces.
    let ticks: u32 = stat[stat.rfind(')')? + 1..].split_whitespace().nth(19)?.parse().ok()?;
    let now_s = Duration::from_millis(u64::try_from(unix_ms).ok()?).as_secs_f64();
    // The kernel counts in hundredths.
    Some(((now_s - up_s + f64::from(ticks) / 100.0) * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_what_has_passed_before_now() {
        let mut fields = vec!["S"; 19];
        fields.push("25000");
        let stat = format!("7 (a name) of) {} 0 0", fields.join(" "));
        assert_eq!(started_by(&stat, "1000.50 3.2\n", 1_700_000_000_500), Some(1_699_999_250.0));
        assert_eq!(started_by("7 (x) S", "1 1", 0), None);
        assert_eq!(started_by(&stat, "", 0), None);
    }
}
