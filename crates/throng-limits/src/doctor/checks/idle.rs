//! Connections in which nothing moves: seats kept warm, or peers that are gone.

use super::{Outcome, TIGHT_PERCENT};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::words::grouped;

/// Idle connections are a finding from this share of all connections on, and this many.
const SHARE_PERCENT: u64 = 25;
const IDLE_FROM: u64 = 20;

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(silence) = facts.open.silence else { return Outcome::default() };
    let many = |part: u64| part >= IDLE_FROM && part * 100 >= silence.of * SHARE_PERCENT;
    let of = |part: u64| format!("{} of {} connections", grouped(part), grouped(silence.of));
    let mut findings = Vec::new();
    // Whoever pushes sends a ping at least once a minute; where there is room, silence costs little.
    let (silent, time) = if many(silence.long) || !is_scarce(facts) {
        (silence.long, "ten minutes")
    } else {
        (silence.idle, "a minute")
    };
    if many(silent) {
        let what = format!("keeps {} in which nothing moved for {time}", of(silent));
        findings.push(
            Finding::new("idle", Severity::Note, what)
                .because("HTTP keep-alive without a short limit: Tornado keeps an idle connection for an hour")
                .now("sudo ss -K dst ADDRESS closes those of one peer; an event loop then sees their end")
                .for_good("a short idle limit (Tornado: idle_connection_timeout=60; nginx: keepalive_timeout 60s), and pings on WebSockets")
                .verify(facts.in_network("ss -tino state established"))
                .seen(of(silent), "tcp_info, by sock_diag"),
        );
    }
    if many(silence.lost) {
        findings.push(
            Finding::new("idle", Severity::Note, format!("holds {} whose peer does not answer", of(silence.lost)))
                .because("peers left without a word, and nothing asks whether they are there")
                .for_good("pings of the application, or TCP_USER_TIMEOUT, which ends a connection that is not acknowledged")
                .verify("ss -tino state established")
                .seen(of(silence.lost), "tcp_info, by sock_diag"),
        );
    }
    Outcome { rungs: Vec::new(), findings }
}

/// Whether somebody will soon be turned away for want of a descriptor.
fn is_scarce(facts: &Facts) -> bool {
    let ceiling = facts.ceiling();
    let free = facts.used().map_or(u64::MAX, |used| ceiling.saturating_sub(used));
    free.saturating_mul(100) <= ceiling.saturating_mul(TIGHT_PERCENT)
}
