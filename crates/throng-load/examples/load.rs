//! A load without the `throng` command: `load URL [clients] [pid] [in flight] [seconds] [bare]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it stands in for the command")]

use std::error::Error;
use std::time::Duration;

use throng_load::{Options, bare, run};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
    if argument(0) == "load-bare" {
        return Ok(bare::help(argument(1), argument(2))?);
    }
    let mut options = Options::new(argument(0));
    options.clients = argument(1).parse().unwrap_or(options.clients);
    options.pid = argument(2).parse().ok();
    options.in_flight = argument(3).parse().unwrap_or(options.in_flight);
    options.hold = Duration::from_secs(argument(4).parse().unwrap_or(0));
    options.bare = argument(5) == "bare";
    options.neighbour = true;
    options.slope_from = Some(options.clients / 5);
    let report = run(options, &mut |progress| eprintln!("{progress}"))?;
    println!("{}\n{report}", serde_json::to_string(&report)?);
    Ok(())
}
