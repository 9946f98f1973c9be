//! `throng serve`: settles the configuration, starts the log, and hands over to the server.

use std::io::{IsTerminal, Write};

use throng_server::config::{self, Level, Settings, Sources};
use throng_server::log::{Log, Target, line};
use throng_server::{ServeOptions, Started};

use crate::args::ServeArgs;
use crate::config::{environment, unusable};
use crate::failure::Failure;
use crate::text::thousands;

pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = config::load(Sources {
        file: args.config.clone(),
        env: environment(),
        flags: args.options.0.clone(),
        dev: args.dev,
    });
    let settings = loaded.settings.as_ref().ok_or_else(|| unusable(&loaded))?.clone();
    let log = start_log(&settings)?;
    for warning in &loaded.warnings {
        line!(log, Warn, "config", "{}", warning);
    }
    let any_port = settings.dev;
    let dev = settings.dev;
    let options = ServeOptions { settings, any_port, command: own_command() };
    throng_server::serve(options, &log, |started| announce(&log, started, dev))
        .map_err(|error| Failure::could_not_run(error.to_string()))
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
