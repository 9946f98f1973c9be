//! `throng doctor`: what limits any process, who set it, and how to lift it.

mod args;
mod capture;
mod ceiling;
mod chain;
mod diff;
mod json;
mod machine;
#[cfg(feature = "server")]
mod own;
mod process;
mod raise;
mod screen;
mod style;
mod watch;

use std::io::Write;

use throng_limits::Tree;
use throng_limits::doctor::facts::Facts;
use throng_limits::doctor::{Ask, Report, Severity, diagnose, gather, machine as found};
use throng_limits::facts::FactError;

pub(crate) use args::DoctorArgs;

use crate::failure::Failure;
use crate::text::visible;
use style::Style;

pub(crate) fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let style = Style::of_stdout(args.all);
    if let Some(seen) = args.ceiling {
        return ceiling::run(seen, out);
    }
    if let Some([before, after]) = args.diff.as_deref() {
        return diff::run(before, after, args.json, out);
    }
    let tree = tree(args);
    if args.raise.is_some() || args.raise_backlog.is_some() {
        return raise::run(args, &tree, out);
    }
    if let Some(dir) = &args.capture {
        return capture::run(args, &tree, dir, style, out);
    }
    if let Some(seconds) = args.watch {
        return watch::run(args, &tree, seconds, style, out);
    }
    let Some(pids) = chosen(args, &tree)? else {
        return machine::run(args, &tree, style, out);
    };
    process::run(args, &tree, &pids, style, out)
}

/// Where is read: this machine, or a copy.
fn tree(args: &DoctorArgs) -> Tree {
    if args.proc.is_none() && args.root.is_none() {
        return Tree::live();
    }
    let or = |given: &Option<std::path::PathBuf>, usual: &str| {
        given.clone().unwrap_or_else(|| usual.into())
    };
    Tree::at(or(&args.proc, "/proc"), or(&args.root, "/"))
}

/// The processes that are meant; none where it is the whole machine.
fn chosen(args: &DoctorArgs, tree: &Tree) -> Result<Option<Vec<u32>>, Failure> {
    let (mut pids, what) = if let Some(pid) = args.pid {
        return Ok(Some(vec![pid]));
    } else if let Some(name) = &args.name {
        (found::named(tree, name), format!("no process is called {}", visible(name)))
    } else if let Some(unit) = &args.unit {
        (found::of_unit(tree, unit), format!("no process runs in the unit {}", visible(unit)))
    } else if let Some(port) = args.port {
        let (pids, missing) = process::on_port(tree, port);
        (pids, missing)
    } else {
        return Ok(None);
    };
    if tree.is_live() {
        pids.retain(|pid| *pid != std::process::id());
    }
    if pids.is_empty() { Err(Failure::could_not_run(what)) } else { Ok(Some(pids)) }
}

/// The diagnosis of one process.
fn examined(tree: &Tree, pid: u32, ask: &Ask) -> Result<Report, Failure> {
    let facts = gathered(tree, pid, ask).map_err(|error| {
        if error.is_gone() {
            return Failure::could_not_run(format!(
                "no process has the number {pid}: it is gone, or never was"
            ));
        }
        Failure::could_not_run(visible(&error.to_string()))
    })?;
    Ok(diagnose(&facts))
}

/// The facts about a process; of a throng also what it allows itself.
fn gathered(tree: &Tree, pid: u32, ask: &Ask) -> Result<Facts, FactError> {
    let facts = gather(tree, pid, ask)?;
    #[cfg(feature = "server")]
    let facts = own::asked(tree, facts);
    Ok(facts)
}

/// Exit status 1 where something is wrong.
fn ended(severity: Severity) -> Result<(), Failure> {
    if severity >= Severity::Tight { Err(Failure::found(String::new())) } else { Ok(()) }
}
