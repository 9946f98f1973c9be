//! The way of a connection: the proxy that takes it, and who stands behind, each with what it
//! allows; the narrowest binds.

use throng_limits::Tree;
use throng_limits::doctor::caps::{Proxy, proxies};
use throng_limits::doctor::words::{counted, grouped, limit};
use throng_limits::doctor::{Ask, Report};

use super::process::{examine, on_port};
use crate::failure::Failure;

/// Proxies behind proxies that are followed.
const HOPS_MAX: usize = 4;

/// One stop of the way.
pub(super) struct Hop {
    pub(super) name: String,
    /// Users that all its processes together let through; none where that cannot be seen.
    pub(super) users: Option<u64>,
    /// Why so many, such as `768 worker_connections`.
    pub(super) by: Option<String>,
    /// The worst first.
    pub(super) reports: Vec<Report>,
}

/// Follows the processes that listen on a port to those behind them.
pub(super) fn follow(tree: &Tree, pids: &[u32], need: Option<u64>) -> Result<Vec<Hop>, Failure> {
    let proxies = proxies(tree);
    let mut hops = Vec::new();
    let mut pids = pids.to_vec();
    let mut seen: Vec<u32> = Vec::new();
    while hops.len() < HOPS_MAX && !pids.is_empty() {
        let proxy = proxies.iter().find(|proxy| {
            pids.iter().any(|pid| *pid == proxy.master || proxy.workers.contains(pid))
        });
        // The master of a proxy listens too, and takes nobody.
        let working = proxy.map_or_else(|| pids.clone(), |proxy| proxy.workers.clone());
        seen.extend(&pids);
        seen.extend(&working);
        let each = need.map(|need| need.div_ceil(working.len().max(1) as u64));
        let reports = examine(tree, &working, &Ask { need: each, ..Ask::default() })?;
        hops.push(Hop::of(proxy, reports));
        let Some(proxy) = proxy else { break };
        pids = proxy.targets.iter().flat_map(|port| on_port(tree, *port).0).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| !seen.contains(pid));
    }
    Ok(hops)
}

impl Hop {
    fn of(proxy: Option<&Proxy>, reports: Vec<Report>) -> Self {
        // What the narrowest ceiling of each process allows, together.
        let users = reports.iter().map(|report| {
            report
                .ladder
                .crowd()
                .filter(|rung| !rung.of.ends_with("in front"))
                .map(|rung| rung.allows)
                .min()
        });
        let mut users = users;
        let users = users.try_fold(0_u64, |sum, users| Some(sum.saturating_add(users?)));
        let by = proxy.and_then(|proxy| {
            let workers = proxy.workers.len();
            // What a worker keeps for itself takes the last user or two.
            let short = proxy.users()?.checked_sub(users?)?;
            let limit = proxy.limit.filter(|_| short <= workers as u64 * 2)?;
            let times = if workers > 1 { format!("{workers} x ") } else { String::new() };
            Some(format!("{times}{limit} {}", proxy.option))
        });
        let name = proxy.map_or_else(
            || {
                let called = reports.first().map_or("", |report| report.name.as_str());
                // Of `python3 push.py` the second word is what a person calls it.
                called.split_whitespace().nth(1).unwrap_or(called).to_owned()
            },
            |proxy| proxy.name.to_owned(),
        );
        Self { name, users, by, reports }
    }

    fn words(&self) -> String {
        let users = self.users.map_or_else(|| "unknown".to_owned(), grouped);
        match &self.by {
            Some(by) => format!("{}: {by} = {users} users", self.name),
            None => format!("{}: {users}", self.name),
        }
    }
}

/// `nginx: 768 worker_connections = 384 users; then push.py: 1,017`
pub(super) fn words(hops: &[Hop]) -> String {
    let hops: Vec<String> = hops.iter().map(Hop::words).collect();
    hops.join("; then ")
}

/// The stop that lets the fewest through.
pub(super) fn narrowest(hops: &[Hop]) -> Option<&Hop> {
    hops.iter().min_by_key(|hop| hop.users.unwrap_or(u64::MAX))
}

/// Whether so many would get through all stops, in a sentence.
pub(super) fn judged(hops: &[Hop], need: u64) -> Option<(bool, String)> {
    let narrowest = narrowest(hops)?;
    let users = narrowest.users?;
    let fits = users >= need;
    let verb = if fits { "fit" } else { "do not fit" };
    let text = format!(
        "{} {verb}: {} binds first at {}",
        counted(need, "connection"),
        narrowest.name,
        if users > 1 << 50 { limit(users) } else { grouped(users) }
    );
    Some((fits, text))
}
