//! How many descriptors this process has to spend: measured at the start, and once a second since.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use throng_limits::facts::limits::own_descriptors;
use throng_limits::facts::{OpenFiles, kernel};
use throng_limits::raise::raise_open_files;
use throng_limits::room::{Bound, Origin};
use throng_limits::sockets::accept_queue;
use throng_limits::{Budget, Ceiling, Guarantees, Lane, Raised};

use crate::config::Settings;
use crate::front::accept::BACKLOG;
use crate::log::{Log, line, thousands};

/// So many descriptors that nobody has asked for are worth a line.
const STRANGE_FEW: u64 = 8;
/// Descriptors of each shard: its event queue and what wakes it.
const PER_SHARD: u64 = 2;
/// What is opened after measuring: the control socket, and one who asks there before it is paid
/// for; a spare for each of two listeners; and one file that is left over at a wrong moment.
const STILL_TO_OPEN: u64 = 5;

/// Processes of this server that may stand above one another: each restart's new one below the one
/// before it, for as long as that has something left to do, and a keeper above all.
const LINE_MAX: usize = 64;

/// The process of this server whose parent is none of it: what that parent gave, all have.
fn first_of_us() -> u32 {
    let mut first = std::process::id();
    if !crate::restart::is_inherited() {
        return first;
    }
    for _ in 0..LINE_MAX {
        match parent_of(first) {
            Some(parent) if is_same_program(parent, first) => first = parent,
            _ => break,
        }
    }
    first
}

fn parent_of(pid: u32) -> Option<u32> {
    crate::restart::manager::parent_in(
        &std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
    )
}

fn is_same_program(one: u32, other: u32) -> bool {
    let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    name(one).is_some_and(|one| Some(one) == name(other))
}

/// What there is, and what it is spent on.
#[derive(Debug)]
pub(crate) struct Room {
    /// The limit as it was seen last.
    limit: OpenFiles,
    ceiling: Ceiling,
    /// What the process itself keeps open.
    own: u64,
    /// Open without a permit, and without being ours: inherited, or somebody's leak.
    strange: u64,
    /// What seemed strange at the last look; what passes by is no concern.
    strange_before: u64,
    /// From how many on it is said again.
    strange_next: u64,
    origin: Origin,
    /// The limit that this process was started with.
    was: OpenFiles,
}

impl Room {
    /// Raises the soft limit. The children that this process may come to have are to be given the
    /// original one back; there are none yet.
    pub(crate) fn raise(log: &Log) -> Raised {
        raise_open_files().unwrap_or_else(|error| {
            line!(log, Warn, "limit", "the descriptor limit could not be raised: {}", error);
            Raised { was: error.was, is: OpenFiles::own() }
        })
    }

    /// Counts what is open, once the listeners are; the shards' part is known beforehand.
    pub(crate) fn measure(raised: Raised, shards: usize) -> Self {
        let Raised { was, is: limit } = raised;
        let proc = Path::new("/proc");
        let open = own_descriptors().unwrap_or(0);
        let ceiling = Ceiling::read(proc, limit, open);
        // The channel to the process before this one goes with that one: as many clients fit here as
        // fitted there, or a restart would fail at the ceiling.
        let passing = u64::from(crate::restart::is_taking_over());
        let own = open.saturating_sub(passing) + shards as u64 * PER_SHARD + STILL_TO_OPEN;
        let origin = Origin::read(proc, first_of_us(), limit, ceiling.bound);
        Self {
            limit,
            ceiling,
            own,
            strange: 0,
            strange_before: 0,
            strange_next: STRANGE_FEW,
            origin,
            was,
        }
    }

    /// Where the limit comes from, for the start line.
    pub(crate) fn story(&self) -> String {
        self.origin.story(self.was)
    }

    /// How to have more, for the start line, where it is few.
    pub(crate) fn more(&self) -> Option<String> {
        self.origin.more()
    }

    /// The budget for all of it. What is wanted and does not fit is said, with the way to get it.
    ///
    /// # Errors
    /// With the same words when `limits.strict` is set.
    pub(crate) fn budget(&self, settings: &Settings, log: &Log) -> Result<Budget, String> {
        let total = self.to_spend();
        let budget = Budget::with(total, Guarantees::of(total));
        let fit = budget.ceiling();
        let wanted = settings.limits.clients.map_or(0, |clients| clients as u64);
        if wanted > fit {
            let shortage = self.shortage(wanted, fit);
            if settings.limits.strict {
                return Err(shortage);
            }
            line!(log, Warn, "limit", "{}", shortage);
        }
        let wanted = [settings.limits.clients.unwrap_or(0), settings.client.connection_limit];
        // Each of them is no limit when it is 0.
        if let Some(most) = wanted.into_iter().filter(|wanted| *wanted > 0).min() {
            budget.want_clients(most as u64);
        }
        Ok(budget)
    }

    fn shortage(&self, wanted: u64, fit: u64) -> String {
        let bare = wanted.saturating_add(self.own);
        // A little more than bare, since what is guaranteed grows with the limit.
        let needed = bare.saturating_add(Guarantees::of(bare.saturating_add(bare / 32)).sum());
        format!(
            "limits.clients = {wanted} do not fit: the limit of {} descriptors ({}) leaves room \
             for {} clients; to have them, {}",
            thousands(self.ceiling.descriptors),
            self.origin,
            thousands(fit),
            self.origin.fix(needed)
        )
    }

    /// The limit that holds.
    pub(crate) fn descriptors(&self) -> u64 {
        self.ceiling.descriptors
    }

    fn to_spend(&self) -> u64 {
        self.ceiling.descriptors.saturating_sub(self.own + self.strange)
    }

    /// Whether somebody has changed the limit since the last look. It opens nothing and costs next
    /// to nothing.
    pub(crate) fn is_changed(&self) -> bool {
        OpenFiles::own() != self.limit
    }

    /// Looks again, and gives the budget what there is now: somebody may have raised or lowered
    /// the limit of the running process, or something opened files without asking.
    pub(crate) fn look(&mut self, budget: &Budget, log: &Log) {
        let mut limit = OpenFiles::own();
        if limit.hard > self.limit.hard || limit.soft > self.limit.soft {
            limit = Self::raise(log).is;
        }
        let used = budget.used_total();
        // Invariant PAY-FIRST: what the machine has is read from files, one after the other.
        let paid = budget.try_take(Lane::Files);
        let open = own_descriptors().unwrap_or(0);
        let seems = open.saturating_sub(self.own + used);
        let strange = seems.min(self.strange_before);
        self.strange_before = seems;
        let ceiling = match paid {
            Some(_) => Ceiling::read(Path::new("/proc"), limit, open),
            // The limit fell below what is open. Whether it still is needs no file.
            None => Ceiling { descriptors: limit.soft, bound: Bound::OpenFiles },
        };
        drop(paid);
        let before = (self.limit, self.ceiling.bound);
        let total_before = self.to_spend();
        (self.limit, self.ceiling, self.strange) = (limit, ceiling, strange);
        let total = self.to_spend();
        if total == total_before {
            return;
        }
        budget.resize(total, Guarantees::of(total));
        self.say_change(before, budget, log);
    }

    fn say_change(&mut self, (limit, bound): (OpenFiles, Bound), budget: &Budget, log: &Log) {
        let (clients, open) = (budget.ceiling(), budget.open());
        if (limit, bound) != (self.limit, self.ceiling.bound) {
            line!(
                log,
                Info,
                "limit.changed",
                "the limit is {} descriptors now, which were {}: room for {} clients",
                thousands(self.ceiling.descriptors),
                thousands(limit.soft),
                thousands(clients);
                clients = open
            );
        } else if self.strange >= self.strange_next {
            // Files come and go; that they have doubled is news.
            self.strange_next = self.strange.saturating_mul(2);
            line!(
                log,
                Warn,
                "limit.strange",
                "{} descriptors are open that no part of throng has asked for, so that much less is left: room for {} clients; ls -l /proc/{}/fd shows what they are",
                thousands(self.strange),
                thousands(clients),
                std::process::id();
                clients = open
            );
        }
    }
}

/// How many connections the kernel keeps for a listener until they are accepted: as it says, and
/// where it does not answer, as it should be.
pub(crate) fn backlog(listener: &TcpListener, address: SocketAddr) -> u64 {
    match accept_queue(listener, address) {
        Ok(queue) => u64::from(queue.backlog),
        Err(_) => {
            let wanted = u64::from(BACKLOG.unsigned_abs());
            kernel::somaxconn(Path::new("/proc")).map_or(wanted, |most| most.min(wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_limits::room::{Ancestor, Launcher};

    fn room(descriptors: u64) -> Room {
        let limit = OpenFiles { soft: descriptors, hard: descriptors };
        let shell = Ancestor { pid: 71, name: "bash".to_owned(), limit };
        let sshd = OpenFiles { soft: 1024, hard: 1 << 20 };
        let sshd = Ancestor { pid: 9, name: "sshd".to_owned(), limit: sshd };
        Room {
            limit,
            ceiling: Ceiling { descriptors, bound: Bound::OpenFiles },
            own: 22,
            strange: 0,
            strange_before: 0,
            strange_next: STRANGE_FEW,
            origin: Origin::of(limit, Bound::OpenFiles, Launcher::Shell, vec![shell, sshd]),
            was: limit,
        }
    }

    #[test]
    fn a_shortage_names_the_cause_and_the_fix() {
        let said = room(1024).shortage(20_000, 954);
        assert!(said.starts_with("limits.clients = 20000 do not fit: "), "{said}");
        assert!(said.contains("1,024 descriptors (bash, pid 71, had it first)"), "{said}");
        assert!(said.contains("room for 954 clients") && said.contains("ulimit -n 20"), "{said}");
    }

    #[test]
    fn the_number_that_the_fix_names_is_enough() {
        for wanted in [10, 500, 955, 20_000, 300_000, 1_000_000] {
            let said = room(1024).shortage(wanted, 954);
            let number = said.split("ulimit -n ").nth(1).unwrap().split(' ').next().unwrap();
            let total = room(number.parse().unwrap()).to_spend();
            let fit = Budget::with(total, Guarantees::of(total)).ceiling();
            assert!(fit >= wanted, "{wanted}: {fit} fit");
        }
    }

    #[test]
    fn what_nobody_asked_for_comes_out_of_the_clients_ceiling_and_goes_back() {
        let limit = OpenFiles::own();
        let mut room = Room::measure(Raised { was: limit, is: limit }, 2);
        let total = room.to_spend();
        let budget = Budget::with(total, Guarantees::of(total));
        let files: Vec<_> = (0..400).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let log = Log::silent();
        // What passes by between two looks does not count.
        room.look(&budget, &log);
        room.look(&budget, &log);
        let strange = total - budget.total();
        assert!(strange >= 200, "{strange}");
        drop(files);
        room.look(&budget, &log);
        assert!(budget.total() >= total - strange + 200);
    }
}
