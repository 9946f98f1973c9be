//! `throng serve`: settles the configuration, starts the log, and hands over to the server.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use throng_server::config::{self, Level, Settings, Sources};
use throng_server::log::{Log, Target, line};
use throng_server::restart::manager::{Manager, Surroundings};
use throng_server::restart::{self, Program, Proof};
use throng_server::{ServeOptions, Started};

use crate::args::{Keeper, OrphanArgs, ServeArgs};
use crate::config::{environment, unusable};
use crate::failure::Failure;
use crate::text::thousands;

pub(crate) fn run(args: &ServeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let program = Program { path: own_path()?, arguments: std::env::args_os().skip(1).collect() };
    let watched_by = Surroundings::read().watched_by();
    let keeps = match args.keeper {
        Keeper::Auto => matches!(watched_by, Manager::Watching(_)),
        Keeper::Always => watched_by != Manager::Kept,
        Keeper::Never => false,
    };
    if keeps && !args.prove && !restart::is_inherited() {
        return keep(program);
    }
    let sources = Sources {
        file: args.config.clone(),
        env: environment(),
        flags: args.options.0.clone(),
        dev: args.dev,
        ..Sources::default()
    };
    let loaded = config::load(sources.clone());
    let settings = loaded.settings.as_ref().ok_or_else(|| unusable(&loaded))?.clone();
    if args.prove {
        return Ok(writeln!(out, "{}", crate::text::json(&Proof::own())?)?);
    }
    let log = start_log(&settings)?;
    for warning in &loaded.warnings {
        line!(log, Warn, "config", "{}", warning);
    }
    let any_port = settings.dev;
    let dev = settings.dev;
    let options = ServeOptions {
        settings,
        any_port,
        command: own_command(),
        program: Some(program),
        watched_by,
        // The file that was found then, whatever else comes to lie beside it.
        source: Some((Sources { file: loaded.file.clone(), ..sources }, loaded.said.clone())),
    };
    throng_server::serve(options, &log, |started| announce(&log, started, dev))
        .map_err(|error| Failure::could_not_run(error.to_string()))
}

/// Stays before the server, and ends as it ends.
fn keep(program: Program) -> Result<(), Failure> {
    let name = program.path.display().to_string();
    let ended = restart::keeper::keep(program).map_err(|error| {
        Failure::could_not_run(format!("the server {name} cannot be kept running: {error}"))
    })?;
    match ended.status {
        0 => Ok(()),
        // It has said why.
        status => Err(Failure { status, message: String::new() }),
    }
}

/// Starts a server that is to be no child of the one that wants it.
pub(crate) fn orphan(args: &OrphanArgs) -> Result<(), Failure> {
    restart::orphan::start(&args.program, &args.arguments).map_err(|error| {
        Failure::could_not_run(format!("orphan is for a server that restarts: {error}"))
    })
}

/// Where this program is, whatever is installed there later.
fn own_path() -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe().map_err(|error| {
        Failure::could_not_run(format!("this program does not find itself: {error}"))
    })?;
    // The kernel names what a link leads to; the link is what an upgrade changes.
    let called = std::env::args_os().next().and_then(|name| found(&name));
    let same = called.filter(|path| path.canonicalize().is_ok_and(|path| path == exe));
    Ok(same.unwrap_or(exe))
}

/// Where a shell finds a program that is called so.
fn found(name: &std::ffi::OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn start_log(settings: &Settings) -> Result<Log, Failure> {
    let target = settings.log.file.clone().map_or(Target::Stderr, Target::File);
    Log::start(settings.log.level, &target).map_err(|error| {
        let file = settings.log.file.as_deref().unwrap_or("stderr".as_ref()).display();
        Failure::could_not_run(format!("cannot write the log to {file}: {error}"))
    })
}

/// Says that the server listens: one line of the log, and in development mode what to do next.
fn announce(log: &Log, started: &Started, dev: bool) {
    let Started { address, clients, descriptors, .. } = started;
    if let Some(took_over) = &started.took_over {
        line!(
            log,
            Info,
            "took.over",
            "took over from pid {}: {} connections",
            took_over.from,
            thousands(took_over.connections)
        );
    }
    let kept = descriptors.saturating_sub(*clients);
    line!(
        log,
        Info,
        "listening",
        "listening on {}: room for {} clients: limit of {} descriptors ({}), {} kept for everything else{}",
        address,
        thousands(*clients),
        thousands(*descriptors),
        started.limit_from,
        thousands(kept),
        started.more.as_ref().map_or_else(String::new, |more| format!("; {more}"));
        backlog = started.backlog
    );
    if let Some(internal) = started.internal {
        line!(log, Info, "listening", "the API and health are on {}", internal);
    }
    if let Some((port, holder)) = &started.taken {
        line!(
            log,
            Warn,
            "port",
            "port {} is taken by {}; using {} instead",
            port,
            holder,
            address.port()
        );
    }
    if dev && log.wants(Level::Fatal) {
        // Without a terminal the log line has said enough, and a closed stdout is no reason to stop.
        let mut out = std::io::stdout();
        welcome(&mut out, started, std::io::stdout().is_terminal()).ok();
    }
}

/// What a developer does next.
fn welcome(out: &mut dyn Write, started: &Started, colour: bool) -> std::io::Result<()> {
    let port = started.address.port();
    let (bold, dim, plain) = if colour { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let throng = own_command();
    let url = if port == 8000 { String::new() } else { format!(" --url http://127.0.0.1:{port}") };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    writeln!(out)?;
    writeln!(
        out,
        "  {bold}throng{plain} is running in development mode: everybody on this machine may do everything"
    )?;
    writeln!(out)?;
    writeln!(out, "  playground     {bold}http://localhost:{port}/{plain}")?;
    writeln!(out, "  publish        {throng} publish news '{{\"text\":\"hi\"}}'{url}")?;
    writeln!(
        out,
        "  from afar      ssh -L {port}:127.0.0.1:{port} {host}   {dim}on your own machine, then open the playground there{plain}"
    )?;
    writeln!(out, "  for real       {throng} config init --origin https://your.site")?;
    writeln!(out)?;
    out.flush()
}

/// How to call this program from any directory.
fn own_command() -> String {
    let path = std::env::current_exe().ok();
    let in_path = std::env::var_os("PATH").is_some_and(|dirs| {
        std::env::split_paths(&dirs)
            .any(|dir| dir.join("throng").canonicalize().ok() == path && path.is_some())
    });
    match path {
        Some(path) if !in_path => path.display().to_string(),
        _ => "throng".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_names_the_port_that_was_found_free() {
        let started = Started {
            address: ([127, 0, 0, 1], 8001).into(),
            internal: None,
            taken: Some((8000, "nginx (pid 7)".to_owned())),
            took_over: None,
            clients: 1000,
            descriptors: 1024,
            limit_from: String::new(),
            more: None,
            backlog: 4096,
        };
        let mut out = Vec::new();
        welcome(&mut out, &started, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("http://localhost:8001/"), "{text}");
        assert!(text.contains("--url http://127.0.0.1:8001"), "{text}");
        assert!(text.contains("ssh -L 8001:127.0.0.1:8001"), "{text}");
    }
}
