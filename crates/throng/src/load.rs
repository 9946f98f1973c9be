//! `throng load`: a crowd of clients against any WebSocket server.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use throng_load::{Encoding, Options, Progress};

use crate::args::{LoadArgs, LoadBareArgs, LoadEncoding};
use crate::failure::Failure;

pub(crate) fn run(args: &LoadArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut screen = Screen { redraws: std::io::stderr().is_terminal(), width: 0 };
    let report = throng_load::run(options(args), &mut |progress| screen.show(&progress));
    screen.clear();
    let report = report.map_err(|failure| Failure::could_not_run(failure.to_string()))?;
    if args.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::could_not_run(error.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{report}")?;
    }
    if report.first_failure.is_some() { Err(Failure::found(String::new())) } else { Ok(()) }
}

/// A part of a load that runs in a process of its own.
pub(crate) fn bare(args: &LoadBareArgs) -> Result<(), Failure> {
    throng_load::bare::help(&args.role, &args.address)
        .map_err(|failure| Failure::could_not_run(failure.to_string()))
}

fn options(args: &LoadArgs) -> Options {
    Options {
        clients: args.clients,
        channel: args.channel.clone(),
        rate: args.rate,
        concurrent: args.concurrent,
        hold: Duration::from_secs(args.hold),
        messages: args.messages,
        size: args.size,
        in_flight: args.in_flight,
        rounds: args.rounds,
        api: args.api.clone(),
        api_key: args.api_key.clone(),
        pid: args.pid,
        bare: args.bare,
        neighbour: args.neighbour,
        token: args.token.clone(),
        slope_from: args.slope_from,
        upgrade_only: args.upgrade_only,
        encoding: match args.encoding {
            LoadEncoding::Json => Encoding::Json,
            LoadEncoding::Protobuf => Encoding::Protobuf,
            LoadEncoding::Mixed => Encoding::Mixed,
        },
        compressed: args.compressed,
        timeout: Duration::from_secs(args.timeout),
        ..Options::new(&args.url)
    }
}

/// Progress on stderr: one line that is redrawn on a terminal, sentences elsewhere.
struct Screen {
    redraws: bool,
    width: usize,
}

impl Screen {
    fn show(&mut self, progress: &Progress) {
        let text = progress.to_string();
        let mut screen = std::io::stderr();
        // Progress that nobody sees is no reason to stop.
        if matches!(progress, Progress::Said(_)) {
            self.clear();
            writeln!(screen, "{text}").ok();
        } else if self.redraws {
            write!(screen, "\r{text:<width$}", width = self.width).ok();
            self.width = text.len();
        }
    }

    fn clear(&mut self) {
        if self.redraws && self.width > 0 {
            write!(std::io::stderr(), "\r{:width$}\r", "", width = self.width).ok();
            self.width = 0;
        }
    }
}
