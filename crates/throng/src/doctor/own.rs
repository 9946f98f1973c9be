//! What a running throng says of itself.

use throng_limits::Tree;
use throng_limits::doctor::facts::{Cap, Facts, Takes};
use throng_server::control;

/// The facts with what a throng allows itself.
pub(super) fn asked(tree: &Tree, mut facts: Facts) -> Facts {
    if tree.is_live() && facts.who.program() == "throng" {
        facts.caps.extend(cap(facts.who.pid));
    }
    facts
}

/// What a running throng says it has room for.
fn cap(pid: u32) -> Option<Cap> {
    // One that does not answer is diagnosed like anything else.
    let server = control::find(Some(pid)).ok()?;
    let status: control::Status = control::ask(&server, &control::Question::Status).ok()?;
    let control::Clients { open, ceiling, connection_limit, .. } = status.clients;
    let limited = connection_limit > 0 && connection_limit < ceiling;
    let (option, limit, apply) = if limited {
        ("client.connection_limit", connection_limit, "throng restart")
    } else {
        ("its budget of clients", ceiling, "it follows the limit on open files: raise that")
    };
    Some(Cap {
        option: option.to_owned(),
        limit,
        used: open,
        cost_milli: 1000,
        there_are: open,
        at: "throng status".to_owned(),
        apply: apply.to_owned(),
        steps: Vec::new(),
        at_most: false,
        takes: Takes { each: 1, kept: 0, raises_hard: true },
    })
}
