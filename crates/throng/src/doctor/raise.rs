//! Raises limits of running processes: says what it will do, asks, does it, and looks whether it is
//! done.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use throng_limits::doctor::checks::SELECT_MAX;
use throng_limits::doctor::facts::{Facts, Select};
use throng_limits::doctor::words::{counted, limit};
use throng_limits::doctor::{Ask, Report, Severity, diagnose, gather};
use throng_limits::raise::raise_open_files_of;
use throng_limits::sockets::raise_backlog;
use throng_limits::{OpenFiles, Tree};

use super::screen::for_good;
use super::{DoctorArgs, chosen, ended};
use crate::failure::Failure;
use crate::text::visible;

/// A process that may accept again needs a moment to do it: so many looks, so far apart.
const LOOKS_MAX: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// One step of what will be done.
enum Step {
    /// The limit on open files of a process.
    Limit { pid: u32, name: String, was: OpenFiles, wanted: u64 },
    /// The queue of a process's listeners on a port.
    Backlog { pid: u32, name: String, port: u16, was: Option<u64>, wanted: u32 },
}

pub(super) fn run(args: &DoctorArgs, tree: &Tree, out: &mut dyn Write) -> Result<(), Failure> {
    if !tree.is_live() {
        return Err(Failure::could_not_run(
            "a copy cannot be raised: run it on the machine itself, without --proc and --root",
        ));
    }
    let Some(pids) = chosen(args, tree)? else {
        return Err(Failure::could_not_run("say whose limit: a PID, --name, --unit or --port"));
    };
    let mut steps = Vec::new();
    for pid in &pids {
        let facts = gather(tree, *pid, &Ask::default()).map_err(|_| {
            Failure::could_not_run(format!(
                "no process has the number {pid}: it is gone, or never was"
            ))
        })?;
        if let Some(wanted) = args.raise {
            plan_limit(&facts, wanted, args, &mut steps)?;
        }
        if let Some(wanted) = args.raise_backlog {
            plan_backlog(&facts, wanted, &mut steps)?;
        }
    }
    if steps.is_empty() {
        writeln!(out, "nothing to do: it is as high already")?;
        return Ok(());
    }
    for step in &steps {
        writeln!(out, "will raise {}", step.words())?;
    }
    writeln!(out, "nobody is disconnected; it holds until the process is started again")?;
    out.flush()?;
    agreed(args)?;
    for step in &steps {
        writeln!(out, "{}", step.take()?)?;
    }
    let mut worst = Severity::Fine;
    for pid in pids {
        if let Some(report) = after(tree, pid, args.need) {
            writeln!(out, "now: {} {}", report.severity.word(), report.verdict)?;
            if args.raise.is_some() {
                writeln!(out, "{}", for_good(&report).join("\n"))?;
            }
            worst = worst.max(report.severity);
        }
    }
    ended(worst)
}

/// How it is when those who waited have been let in, or have waited a little longer.
fn after(tree: &Tree, pid: u32, need: Option<u64>) -> Option<Report> {
    let mut looks = 0;
    loop {
        let facts = gather(tree, pid, &Ask { need, ..Ask::default() }).ok()?;
        let report = diagnose(&facts);
        looks += 1;
        if report.severity < Severity::Full || looks == LOOKS_MAX {
            return Some(report);
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// The process, and its supervisor where that is wanted.
fn plan_limit(
    facts: &Facts,
    wanted: u64,
    args: &DoctorArgs,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let pid = facts.who.pid;
    refused(facts, wanted)?;
    if facts.limit.soft < wanted {
        steps.push(Step::Limit { pid, name: facts.who.name(), was: facts.limit, wanted });
    }
    if !args.with_parent {
        return Ok(());
    }
    let Some(parent) = &facts.origin.supervisor else {
        return Err(Failure::could_not_run(format!(
            "no supervisor was found that would start {pid} again: leave --with-parent out"
        )));
    };
    let was = OpenFiles::of(parent.pid)
        .map_err(|error| Failure::could_not_run(visible(&error.to_string())))?;
    let planned =
        steps.iter().any(|step| matches!(step, Step::Limit { pid, .. } if *pid == parent.pid));
    if was.soft < wanted && !planned {
        may(facts, was.hard, wanted, &format!("{} ({})", visible(&parent.name), parent.pid))?;
        steps.push(Step::Limit { pid: parent.pid, name: visible(&parent.name), was, wanted });
    }
    Ok(())
}

/// Why a limit must not, or cannot, be raised so far.
fn refused(facts: &Facts, wanted: u64) -> Result<(), Failure> {
    let pid = facts.who.pid;
    let refuse = |why: String| Err(Failure::could_not_run(why));
    if wanted < facts.limit.soft {
        return refuse(format!(
            "{pid} may have {} descriptors already, and a limit is not lowered here: prlimit --pid {pid} --nofile={wanted} does",
            limit(facts.limit.soft)
        ));
    }
    if let Some(nr_open) = facts.kernel.nr_open.filter(|nr_open| wanted > *nr_open) {
        return refuse(format!(
            "no process may have more than {nr_open} descriptors (fs.nr_open): ask for that, or first: sudo sysctl -w fs.nr_open={wanted}"
        ));
    }
    if let Select::Proven { at } = &facts.select
        && wanted > SELECT_MAX
    {
        return refuse(format!(
            "{} ({pid}) waits with select(), which knows no descriptor above 1023: beyond it the program aborts or corrupts its memory ({at}). Let it use poll or epoll first",
            facts.who.name()
        ));
    }
    if facts.limit.soft >= wanted {
        return Ok(());
    }
    may(facts, facts.limit.hard, wanted, &format!("{} ({pid})", facts.who.name()))
}

/// Whether whoever asks may go so far.
fn may(facts: &Facts, hard: u64, wanted: u64, whose: &str) -> Result<(), Failure> {
    let caller = facts.caller;
    if caller.rights.raises_limits() || (wanted <= hard && facts.may_set()) {
        return Ok(());
    }
    let why = if wanted > hard {
        format!(
            "the hard limit of {whose} is {}, and only CAP_SYS_RESOURCE goes above it",
            limit(hard)
        )
    } else {
        format!("{whose} belongs to another user")
    };
    let typed: Vec<String> = std::env::args().skip(1).map(|argument| visible(&argument)).collect();
    let typed = typed.join(" ");
    let what = if caller.uid != 0 {
        format!("sudo throng {typed}")
    } else if wanted > hard {
        format!(
            "this root has no such right (a container): throng doctor {} --raise {} goes as far as it may; more only from the host",
            facts.who.pid,
            limit(hard)
        )
    } else {
        "this root has no such right (a container): ask on the host".to_owned()
    };
    Err(Failure::could_not_run(format!("{why}: {what}")))
}

fn plan_backlog(facts: &Facts, wanted: u32, steps: &mut Vec<Step>) -> Result<(), Failure> {
    let pid = facts.who.pid;
    let mut ports: Vec<(u16, Option<u64>)> = Vec::new();
    for listener in &facts.open.listeners {
        let low = listener.backlog.is_none_or(|backlog| backlog < u64::from(wanted));
        if low && !ports.iter().any(|(port, _)| *port == listener.port) {
            ports.push((listener.port, listener.backlog));
        }
    }
    if facts.open.listeners.is_empty() {
        return Err(Failure::could_not_run(format!(
            "{pid} has no TCP listener that can be seen: sudo throng doctor {pid} --raise-backlog {wanted}"
        )));
    }
    let name = facts.who.name();
    steps.extend(ports.into_iter().map(|(port, was)| Step::Backlog {
        pid,
        name: name.clone(),
        port,
        was,
        wanted,
    }));
    Ok(())
}

impl Step {
    fn words(&self) -> String {
        match self {
            Self::Limit { pid, name, was, wanted } => {
                let hard = limit(was.hard.max(*wanted));
                format!(
                    "the limit on open files of {name} ({pid}) from {} (hard {}) to {wanted} (hard {hard})",
                    limit(was.soft),
                    limit(was.hard)
                )
            }
            Self::Backlog { pid, name, port, was, wanted } => {
                let was = was.map_or_else(|| "what it is".to_owned(), |was| was.to_string());
                format!("the accept queue of {name} ({pid}) on port {port} from {was} to {wanted}")
            }
        }
    }

    /// Does it, and says what is true now.
    fn take(&self) -> Result<String, Failure> {
        match self {
            Self::Limit { pid, name, wanted, .. } => {
                let raised = raise_open_files_of(*pid, *wanted)
                    .map_err(|error| Failure::could_not_run(format!("{name} ({pid}): {error}")))?;
                if raised.is.soft < *wanted {
                    return Err(Failure::could_not_run(format!(
                        "{name} ({pid}) still has {}",
                        limit(raised.is.soft)
                    )));
                }
                Ok(format!("raised {name} ({pid}): {}", raised.is))
            }
            Self::Backlog { pid, name, port, wanted, .. } => {
                let raised = raise_backlog(*pid, *port, *wanted)
                    .map_err(|error| Failure::could_not_run(error.to_string()))?;
                let each: Vec<String> = raised
                    .iter()
                    .map(|one| {
                        let is = one.is.map_or_else(|| "unknown".to_owned(), |is| counted(is.into(), "place"));
                        let cut = one.cut_by.map_or_else(String::new, |most| format!(
                            " (cut by net.core.somaxconn={most}: sudo sysctl -w net.core.somaxconn={wanted}, then this again)"
                        ));
                        format!("{}: {is}{cut}", one.local)
                    })
                    .collect();
                Ok(format!("raised the queue of {name} ({pid}): {}", each.join("; ")))
            }
        }
    }
}

/// Asks on a terminal; elsewhere only `--yes` will do.
fn agreed(args: &DoctorArgs) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let typed: Vec<String> =
            std::env::args().skip(1).map(|argument| visible(&argument)).collect();
        return Err(Failure::could_not_run(format!(
            "nothing was done: there is nobody to ask here. To do it: throng {} --yes",
            typed.join(" ")
        )));
    }
    write!(std::io::stderr(), "do it? [y/N] ").ok(); // without a stderr the answer still counts
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::could_not_run("nothing was done")),
    }
}
