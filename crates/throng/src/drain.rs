//! `throng drain`: closes the clients at a pace, for what no restart can keep: another machine.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use throng_server::config;
use throng_server::control::{self, DrainStep, Drained, Question};

use crate::args::DrainArgs;
use crate::failure::Failure;
use crate::status::unanswered;
use crate::text::{count, thousands};

/// What is shown takes so many columns, so that a short number leaves nothing of a long one.
const WIDTH: usize = 20;

pub(crate) fn run(args: &DrainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = control::find(args.pid).map_err(unanswered)?;
    let over = args.over.as_deref().map(parse).transpose()?;
    let over_ms = over.map(|over| u64::try_from(over.as_millis()).unwrap_or(u64::MAX));
    let question = Question::Drain { over_ms };
    let watched = std::io::stderr().is_terminal() && !args.json;
    let mut step = |step: DrainStep| {
        if watched {
            // A terminal that is gone does not stop the drain.
            let left = format!("{} left", thousands(step.left));
            write!(std::io::stderr(), "\r{left:<WIDTH$}").ok();
        }
    };
    let drained: Drained = control::follow(&server, &question, &mut step).map_err(unanswered)?;
    if watched {
        writeln!(std::io::stderr()).ok(); // as above
    }
    if args.json {
        writeln!(out, "{}", crate::text::json(&drained)?)?;
    } else {
        writeln!(
            out,
            "drained: {} closed with 3001 in {} s, {} left; no new client is let in, and \
             /health is 503 until the server is stopped",
            count(drained.closed, "client"),
            drained.took_s,
            thousands(drained.left)
        )?;
    }
    if drained.left == 0 { Ok(()) } else { Err(Failure::found("")) }
}

fn parse(text: &str) -> Result<Duration, Failure> {
    config::parse_duration(text).ok_or_else(|| {
        Failure::could_not_run(format!("--over {text}: must be a duration, such as 60s or 5m"))
    })
}
