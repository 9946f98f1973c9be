//! `throng-doctor`: the doctor as one small file, for machines that run no throng.
//!
//! What it prints is what `throng doctor` prints, with its own name in the commands.

mod doctor;
mod failure;
mod renamed;
mod table;
#[expect(dead_code, reason = "made for all commands of throng")]
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use renamed::Renamed;

#[derive(Debug, Parser)]
#[command(name = "throng-doctor", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    doctor: doctor::DoctorArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = Renamed::new(io::stdout().lock());
    let done = doctor::run(&arguments.doctor, &mut out).and_then(|()| Ok(out.flush()?));
    let Err(failure) = done else { return ExitCode::SUCCESS };
    if !failure.message.is_empty() {
        let mut err = Renamed::new(io::stderr());
        // With stderr gone too there is nobody to tell.
        writeln!(err, "{}", failure.message).and_then(|()| err.flush()).ok();
    }
    ExitCode::from(failure.status)
}
