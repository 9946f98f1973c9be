//! The crowd of the bare loop, led line by line by the load that measures.

use crate::clock::{Clock, Nanos};
use crate::crowd::{Door, Manners, Sources, Speech};
use crate::failure::Failure;
use crate::fanout;
use crate::link::Link;
use crate::message::Messages;
use crate::meter::Meter;
use crate::publisher::Publisher;
use crate::ramp::{Pace, ramp};
use crate::stage::Stage;

use super::{Answer, Beginning, Order};

/// The first of the source addresses: 127.0.100.1, apart from those of the server's crowd.
const SOURCES: Sources = Sources::Loopback { third: 100, each: 7_000 };
/// The load may be busy with its own crowd for as long as it likes; when it ends, so do we.
const FOR_EVER: Nanos = Nanos::MAX;

/// Does what the load says until it ends.
pub(super) fn follow(mut link: Link) -> Result<(), Failure> {
    throng_limits::raise::raise_open_files().map_err(|error| failed(&error))?;
    let beginning = first_line(&mut link)?;
    let clock = Clock::start();
    let manners = Manners {
        door: Door::new(beginning.to, SOURCES),
        speech: Speech::Bare,
        patience: beginning.patience_ms * 1_000_000,
        messages: Messages::new(beginning.run, &beginning.channel),
    };
    let mut stage = Stage::new(manners, clock)?;
    let control = Link::connect(beginning.control).map_err(|error| failed(&error))?;
    stage.set_publisher(Publisher::Bare { link: control, frame_bytes: beginning.frame_bytes })?;
    stage.set_link(link)?;
    let meter = Meter::new(Some(beginning.server_pid), clock);
    let pace = Pace { concurrent: beginning.concurrent, rate: beginning.rate };
    stage.tell(&line(&Answer::Done))?;
    while let Some(order) = stage.hear(FOR_EVER)? {
        let answer = match serde_json::from_str(&order).map_err(|error| failed(&error))? {
            Order::Begin(_) => Ok(Answer::Done),
            Order::Ramp { to } => ramp(&mut stage, to, pace, meter, &mut |_| {}).map(Answer::Ramp),
            Order::Round(volley) => fanout::round(&mut stage, volley, meter).map(Answer::Round),
            Order::Leave => {
                stage.crowd.leave();
                Ok(Answer::Done)
            }
        };
        stage.tell(&line(&answer.unwrap_or_else(Answer::Failed)))?;
    }
    Ok(())
}

/// Waits for the first order, before there is a stage to wait on.
fn first_line(link: &mut Link) -> Result<Beginning, Failure> {
    let line = link.wait_for_line().map_err(|error| failed(&error))?;
    match serde_json::from_str(&line).map_err(|error| failed(&error))? {
        Order::Begin(beginning) => Ok(beginning),
        other => Err(failed(&format_args!("{other:?} came before the beginning"))),
    }
}

fn line(answer: &Answer) -> String {
    serde_json::to_string(answer).expect("an answer is plain numbers and strings")
}

fn failed(why: &dyn std::fmt::Display) -> Failure {
    Failure::new("the bare crowd could not follow", why, "run this again")
}
