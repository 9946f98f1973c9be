//! Whether the server is alive, and whether it takes clients.

use http::StatusCode;
use serde_json::json;

use super::{Answer, Front, json};
use crate::clock::Clock;

/// A shard that has not begun a turn for so many seconds is stuck: it looks at the clock at least
/// once a second.
const STUCK_S: u64 = 10;

/// What keeps the server from being well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) stuck: Option<usize>,
    pub(crate) draining: bool,
    pub(crate) full: bool,
}

impl State {
    pub(crate) fn of(front: &Front) -> Self {
        let second = u64::from(Clock::second_of(front.clock.now()));
        let (open, limit) = (front.clients.open(), front.settings().client.connection_limit as u64);
        Self {
            // Those of a process that has handed over are to stand still.
            stuck: front
                .common
                .shards
                .iter()
                .position(|shard| shard.last_beat() + STUCK_S < second)
                .filter(|_| !front.has_moved()),
            draining: front.is_draining(),
            full: open >= front.clients.ceiling() || (limit > 0 && open >= limit),
        }
    }

    /// In words; none when all is well. Strangers may read them, so they hold no numbers of ours.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let stuck = self
            .stuck
            .map(|shard| format!("shard {shard} has not moved for more than {STUCK_S} s"));
        let draining = self.draining.then(|| "the server is stopping".to_owned());
        let full = self.full.then(|| "the server is full: new clients are refused".to_owned());
        [stuck, draining, full].into_iter().flatten().collect()
    }

    /// Whether the path asks for more than there is.
    fn fails(&self, path: &str) -> Option<bool> {
        Some(match path {
            // Restarting a full server would make everything worse.
            "" | "/" => self.stuck.is_some() || self.draining,
            "/ready" => self.stuck.is_some() || self.draining || self.full,
            "/live" => self.stuck.is_some(),
            _ => return None,
        })
    }
}

/// `/health/live`: the process can answer, full or stopping. `/health/ready`: it takes new
/// clients. `/health`: it is not stopping. A stuck shard fails all three. `?verbose` tells more.
pub(super) fn answer(front: &Front, rest: &str, query: Option<&str>) -> Option<Answer> {
    let state = State::of(front);
    let fails = state.fails(rest)?;
    let status = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let verbose = query
        .is_some_and(|query| query.split('&').any(|one| matches!(one, "verbose" | "verbose=true")));
    let reasons = state.reasons();
    let body = match reasons.first() {
        _ if verbose => {
            let State { stuck, draining, full } = state;
            json!({"ok": !fails, "stuck": stuck.is_some(), "draining": draining, "full": full, "reasons": reasons})
                .to_string()
        }
        Some(reason) if fails => json!({"reason": reason}).to_string(),
        _ => "{}".to_owned(),
    };
    Some(json(status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state: &State) -> [bool; 3] {
        ["", "/live", "/ready"].map(|path| state.fails(path).unwrap())
    }

    #[test]
    fn full_is_not_ready_stopping_is_not_healthy_and_stuck_is_not_alive() {
        let well = State { stuck: None, draining: false, full: false };
        assert_eq!(check(&well), [false, false, false]);
        assert_eq!(check(&State { full: true, ..well.clone() }), [false, false, true]);
        assert_eq!(check(&State { draining: true, ..well.clone() }), [true, false, true]);
        assert_eq!(check(&State { stuck: Some(1), ..well.clone() }), [true, true, true]);
        assert_eq!(well.fails("/other"), None);
        assert_eq!(State { stuck: Some(1), draining: true, full: true }.reasons().len(), 3);
    }
}
