//! Whether the server is alive, and whether it takes clients.

use http::StatusCode;

use super::{Answer, Front, json};
use crate::clock::Clock;

/// A shard that has not begun a turn for so many seconds is stuck: it looks at the clock at least
/// once a second.
const STUCK_S: u64 = 10;

/// `/health` and `/health/ready` are 503 while the server stops or a shard is stuck,
/// `/health/live` only for the latter.
pub(super) fn answer(front: &Front, rest: &str) -> Option<Answer> {
    let stuck = stuck_shard(front).map(|shard| {
        format!("{{\"reason\":\"shard {shard} has not moved for more than {STUCK_S} s\"}}")
    });
    let reason = match rest {
        "" | "/" | "/ready" => stuck.or_else(|| {
            front.is_draining().then(|| "{\"reason\":\"the server is stopping\"}".to_owned())
        }),
        "/live" => stuck,
        _ => return None,
    };
    Some(match reason {
        Some(reason) => json(StatusCode::SERVICE_UNAVAILABLE, reason),
        None => json(StatusCode::OK, "{}"),
    })
}

fn stuck_shard(front: &Front) -> Option<usize> {
    let second = u64::from(Clock::second_of(front.clock.now()));
    front.common.shards.iter().position(|shard| shard.last_beat() + STUCK_S < second)
}
