//! The `throng` command: reads its arguments, does one thing, prints, and says how it went by its
//! exit status: 0 done, 1 it ran and found something wrong, 2 it could not run.

mod api;
mod args;
mod backend;
mod config;
mod doctor;
mod drain;
mod explain;
mod failure;
mod inspect;
mod load;
mod place;
mod probe;
mod publish;
#[cfg(feature = "server")]
mod reload;
/// A part of `throng-doctor`, tested with everything else.
#[cfg(test)]
mod renamed;
mod restart;
mod serve;
mod status;
mod subscribe;
mod table;
mod text;
mod token;
mod who;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, BackendCommand, Command, ConfigCommand};
use failure::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(with_command(std::env::args_os()));
    let mut out = std::io::stdout().lock();
    let done = run(arguments.command, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // With stderr gone too there is nobody to tell.
                writeln!(std::io::stderr(), "{}", failure.message).ok();
            }
            ExitCode::from(failure.status)
        }
    }
}

/// `throng -c FILE` means `throng serve -c FILE`, as who comes from Centrifugo expects.
fn with_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let first = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or_default();
    let asks_for_help = matches!(first, "-h" | "--help" | "-V" | "--version");
    if first.starts_with('-') && !asks_for_help {
        arguments.insert(1, "serve".into());
    }
    arguments
}

fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(&args, out),
        Command::Publish(args) => publish::publish(&args, out),
        Command::Broadcast(args) => publish::broadcast(&args, out),
        Command::Subscribe(args) => subscribe::run(&args, out),
        Command::Presence(args) => inspect::presence(&args, out),
        Command::History(args) => inspect::history(&args, out),
        Command::Info(args) => inspect::info(&args, out),
        Command::Channels(args) => inspect::channels(&args, out),
        Command::Disconnect(args) => inspect::disconnect(&args, out),
        Command::Token(args) => token::run(&args, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Openapi => api::openapi(out),
        Command::Config { command } => match command {
            ConfigCommand::Init(args) => config::init(&args, out),
            ConfigCommand::Check(args) => config::check(&args, out),
            ConfigCommand::Default => config::default(out),
            ConfigCommand::Import(args) => config::import(&args, out),
            ConfigCommand::Schema => config::schema(out),
        },
        Command::Genconfig(args) => config::init(&args, out),
        Command::Checkconfig(args) => config::check(&args, out),
        Command::Defaultconfig => config::default(out),
        Command::Defaultenv => config::default_env(out),
        Command::Version => Ok(writeln!(out, "throng {}", throng_server::version())?),
        Command::Gensubtoken(args) => token::run(&(&args).into(), out),
        Command::Checktoken(args) => token::run(&(&args).into(), out),
        Command::Status(args) => status::run(&args, out),
        Command::Who(args) => who::run(&args, out),
        Command::Restart(args) => restart::run(&args, out),
        Command::Drain(args) => drain::run(&args, out),
        Command::Reload(args) => reload::run(&args, out),
        Command::Probe(args) => probe::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Backend { command: BackendCommand::Try(args) } => backend::run(&args, out),
        Command::Load(args) => load::run(&args, out),
        Command::LoadBare(args) => load::bare(&args),
        Command::Orphan(args) => serve::orphan(&args),
    }
}
