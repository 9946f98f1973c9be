//! The diagnosis of one process: the verdict first, then why, what to do, and what comes next.

use super::advice::live;
use super::checks::CHECKS;
use super::facts::{Facts, Front, Open, Select};
use super::finding::{Evidence, Finding, Severity, Unseen};
use super::ladder::{Bounds, Ladder, Resource, Rung};
use super::words::{bytes, counted, grouped, limit};
use crate::facts::OpenFiles;

/// Accept queues shorter than this are worth a word: a reload of pages fills them.
const SHORT_QUEUE: u64 = 1024;
/// How many ceilings are named after the first.
const NEXT: usize = 2;

/// What is wrong with a process, or that nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub pid: u32,
    /// Safe to print.
    pub name: String,
    pub severity: Severity,
    /// One sentence, without its word in front and its full stop.
    pub verdict: String,
    /// The check behind the verdict; none where nothing is wrong.
    pub check: Option<&'static str>,
    pub why: String,
    /// A command that helps at once.
    pub now: Option<String>,
    /// What it does, or why there is none.
    pub now_note: String,
    pub for_good: Vec<String>,
    /// What would take a live fix back.
    pub undone_by: Vec<String>,
    /// The ceilings after the first, in words.
    pub next: Vec<String>,
    /// The command that shows whether it helped.
    pub verify: String,
    /// The command that shows that the fix for good holds, once it counts.
    pub verify_for_good: Option<String>,
    /// What must be known before anything is done, such as that no login works.
    pub warnings: Vec<String>,
    /// What is good to know besides.
    pub notes: Vec<String>,
    pub need: Option<Need>,
    pub limit: OpenFiles,
    pub used: Option<u64>,
    pub connections: u64,
    /// Connections that fit besides those there are; none where that cannot be seen.
    pub more: Option<u64>,
    pub ladder: Ladder,
    /// The worst first.
    pub findings: Vec<Finding>,
    pub open: Open,
    /// What says where the limit comes from.
    pub evidence: Vec<Evidence>,
    pub unseen: Vec<Unseen>,
}

/// Whether so many connections would fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub wanted: u64,
    /// How many fit.
    pub fits: u64,
    /// What stops them.
    pub resource: Resource,
    /// The same in words.
    pub by: String,
}

/// Finds out what is wrong. Equal facts give equal reports.
#[must_use]
pub fn diagnose(facts: &Facts) -> Report {
    let mut rungs = Vec::new();
    let mut findings = Vec::new();
    for check in &CHECKS {
        let outcome = (check.look)(facts);
        rungs.extend(outcome.rungs);
        findings.extend(outcome.findings);
    }
    let ladder = Ladder::of(rungs);
    let need = facts.need.and_then(|wanted| judged(&ladder, wanted));
    // An application's own cap has said so already, with what to do.
    if findings.iter().all(|finding| finding.check != "application") {
        findings.extend(need.as_ref().and_then(|need| too_few(facts, need)));
    }
    // Stable: of equally bad ones the order of the table.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let worst = findings.first().filter(|finding| finding.severity >= Severity::Tight).cloned();
    let severity = worst.as_ref().map_or(Severity::Fine, |finding| finding.severity);
    let name = facts.who.name();
    let sentence =
        worst.as_ref().map_or_else(|| fine(facts, &ladder), |finding| finding.what.clone());
    let advice = match &worst {
        Some(finding) if !is_the_limit(finding, need.as_ref()) => Advice::on(facts, finding),
        Some(_) => Advice::to_raise(facts),
        None => {
            Advice { now: None, note: "nothing needs doing".to_owned(), ..Advice::to_raise(facts) }
        }
    };
    Report {
        pid: facts.who.pid,
        verdict: format!("{name} ({}) {sentence}", facts.who.pid),
        name,
        severity,
        check: worst.as_ref().map(|finding| finding.check),
        why: advice.why,
        now: advice.now,
        now_note: advice.note,
        for_good: advice.for_good,
        undone_by: undone_by(facts),
        next: next(&ladder, worst.as_ref()),
        verify: advice.verify,
        verify_for_good: advice.verify_for_good,
        warnings: facts.origin.warnings.clone(),
        notes: facts.origin.notes.clone(),
        need,
        limit: facts.limit,
        used: facts.used(),
        connections: facts.connections(),
        more: ladder.first().map(|rung| rung.more),
        ladder,
        findings,
        open: facts.open.clone(),
        evidence: facts.origin.evidence.clone(),
        unseen: facts.unseen.clone(),
    }
}

/// What to do about the worst finding.
struct Advice {
    why: String,
    now: Option<String>,
    note: String,
    for_good: Vec<String>,
    verify: String,
    verify_for_good: Option<String>,
}

impl Advice {
    fn on(facts: &Facts, finding: &Finding) -> Self {
        Self {
            why: finding.why.clone().unwrap_or_else(|| origin(facts)),
            now: finding.now.as_ref().map(|now| facts.typed(now)),
            note: note(facts, finding),
            for_good: finding.for_good.iter().map(|line| facts.typed(line)).collect(),
            verify: finding.verify.as_ref().map_or_else(|| verify(facts), |each| facts.typed(each)),
            verify_for_good: None,
        }
    }

    fn to_raise(facts: &Facts) -> Self {
        let live = live(facts);
        let is_select = matches!(facts.select, Select::Proven { .. });
        let for_good = if is_select {
            vec!["let it use poll() or epoll before its limit is raised".to_owned()]
        } else {
            facts.origin.permanent.clone()
        };
        Self {
            why: origin(facts),
            now: live.command,
            note: live.note,
            for_good,
            verify: verify(facts),
            verify_for_good: facts.origin.verify.clone().filter(|_| !is_select),
        }
    }
}

/// What is said beside the command that helps at once, or in its place.
fn note(facts: &Facts, finding: &Finding) -> String {
    let note = match (finding.check, &finding.now) {
        ("leaks", Some(_)) => "only buys time; nobody is disconnected",
        ("leaks", None) => "a restart frees what has leaked; nothing else does",
        ("application", None) if facts.caps.iter().any(|cap| !cap.steps.is_empty()) => {
            "the lines below: they count at once, and cut nobody at once"
        }
        (_, None) => "nothing helps at once: what is for good does",
        (_, Some(_)) => "",
    };
    note.to_owned()
}

/// Whether the limit on open files is what is too low.
fn is_the_limit(finding: &Finding, need: Option<&Need>) -> bool {
    match finding.check {
        "descriptors" | "growth" => true,
        "need" => need.is_some_and(|need| need.resource == Resource::Descriptors),
        _ => false,
    }
}

fn verify(facts: &Facts) -> String {
    format!("grep 'open files' /proc/{}/limits", facts.who.pid)
}

/// What would take the live fix back. A supervisor that is raised too passes on what it has.
fn undone_by(facts: &Facts) -> Vec<String> {
    let all = facts.origin.undone_by.iter();
    let parent = facts.origin.supervisor.is_some();
    all.filter(|by| !(parent && by.ends_with("is raised too"))).cloned().collect()
}

/// Who gave the process its limit, and that it is not the shell's.
fn origin(facts: &Facts) -> String {
    let soft = facts.limit.soft;
    let shell = facts.caller.limit.filter(|own| own.soft != soft);
    match (shell, facts.origin.why.as_str()) {
        (None, "") => format!("its limit is {}, hard {}", limit(soft), limit(facts.limit.hard)),
        (None, why) => why.to_owned(),
        (Some(own), why) => {
            let why =
                if why.is_empty() { format!("that is {}", limit(soft)) } else { why.to_owned() };
            format!("your shell's {} is not this process's: {why}", limit(own.soft))
        }
    }
}

/// The sentence where nothing is wrong.
fn fine(facts: &Facts, ladder: &Ladder) -> String {
    let soft = limit(facts.limit.soft);
    let Some(used) = facts.used() else {
        return format!("may have {soft} descriptors; how many it has cannot be seen");
    };
    let of = format!("{} of {soft} descriptors", limit(used));
    match ladder.first() {
        Some(rung) if rung.resource == Resource::Descriptors => {
            format!("has room for {}: {of}", counted(rung.more, "more connection"))
        }
        Some(rung) => {
            format!(
                "has room for {} ({}): {of}",
                counted(rung.more, "more connection"),
                brief(rung)
            )
        }
        None => format!("has {of}"),
    }
}

fn judged(ladder: &Ladder, wanted: u64) -> Option<Need> {
    let first = ladder.crowd().min_by_key(|rung| rung.allows)?;
    let by = if first.resource == Resource::Application {
        brief(first)
    } else {
        let allows = counted(first.allows, "connection");
        format!("{} allow {allows}", first.resource.words())
    };
    Some(Need { wanted, fits: first.allows, resource: first.resource, by })
}

fn too_few(facts: &Facts, need: &Need) -> Option<Finding> {
    if need.fits >= need.wanted {
        return None;
    }
    let what = format!("does not hold {}: {}", counted(need.wanted, "connection"), need.by);
    let finding = Finding::new("need", Severity::Tight, what);
    // What stands in front is raised there, and not here.
    let is_it = |front: &&Front| need.by.starts_with(&format!("{} in front", front.name));
    Some(match facts.fronts.iter().find(is_it) {
        Some(Front { name, pid, users, by, at }) => {
            let ask = format!("throng doctor --name {name} --need {}", need.wanted);
            finding
                .because(format!(
                    "{name} ({pid}) lets {} users through: {by} ({at})",
                    grouped(*users)
                ))
                .for_good(format!("{name} first, and its screen says how: {ask}"))
                .verify(ask)
        }
        None => finding,
    })
}

/// The ceilings that come after the first.
fn next(ladder: &Ladder, worst: Option<&Finding>) -> Vec<String> {
    let queue = ladder.rungs.iter().find(|rung| {
        rung.resource == Resource::AcceptQueue
            && rung.limit < SHORT_QUEUE
            && worst.is_none_or(|finding| finding.check != "accept_queue")
    });
    let fronts = ladder.rungs.iter().filter(|rung| is_front(rung));
    let after = ladder.crowd().skip(1).filter(|rung| rung.more < u64::MAX / 4 && !is_front(rung));
    queue.into_iter().chain(fronts).chain(after).take(NEXT).map(brief).collect()
}

/// Whether it is a proxy before the process, and none of its own ceilings.
fn is_front(rung: &Rung) -> bool {
    rung.resource == Resource::Application && rung.of.ends_with("in front")
}

/// A ceiling in a few words: `accept queue 128`, `nginx in front: 384 users`.
#[must_use]
pub fn brief(rung: &Rung) -> String {
    let name = rung.resource.words();
    match (rung.resource, rung.bounds) {
        (_, Bounds::Rush) => format!("{name} {}", limit(rung.limit)),
        (Resource::Application, _) if is_front(rung) => {
            format!("{}: {} users", rung.of, grouped(rung.allows))
        }
        (Resource::Application, _) if rung.allows == rung.limit => {
            format!("{}: {} users", rung.of, grouped(rung.allows))
        }
        (Resource::Application, _) => {
            format!("{} {} = {} users", rung.of, limit(rung.limit), grouped(rung.allows))
        }
        _ => format!("{name}: {}", counted(rung.allows, "connection")),
    }
}

/// A number of a rung in its unit.
#[must_use]
pub fn amount(rung: &Rung, number: u64) -> String {
    match rung.unit {
        super::ladder::Unit::Bytes => bytes(number),
        super::ladder::Unit::Count => limit(number),
    }
}

#[cfg(test)]
mod tests;
