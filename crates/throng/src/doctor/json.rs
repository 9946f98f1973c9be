//! The JSON of the doctor: a contract, documented in docs/doctor.md. Fields are added, never
//! renamed or removed while `version` stays.

use serde_json::{Value, json};
use throng_limits::OpenFiles;
use throng_limits::doctor::facts::Open;
use throng_limits::doctor::machine::Machine;
use throng_limits::doctor::{Bounds, Evidence, Finding, Report, Rung, Severity, Unit, Unseen};

use super::chain::Hop;

/// Raised when a field is renamed or removed.
pub(super) const VERSION: u32 = 1;
/// What stands for "unlimited" in the kernel is null here: no number is.
const UNLIMITED_FROM: u64 = u64::MAX / 2;

/// One process.
pub(super) fn process(report: &Report) -> Value {
    let mut value = of(report);
    value["version"] = json!(VERSION);
    value["kind"] = json!("process");
    value
}

/// Several, the worst first.
pub(super) fn processes(reports: &[Report]) -> Value {
    let all: Vec<Value> = reports.iter().map(of).collect();
    let severity = reports.first().map(|worst| worst.severity.name());
    json!({"version": VERSION, "kind": "processes", "severity": severity, "processes": all})
}

/// The way of a connection through proxies, and everybody on it, the worst first.
pub(super) fn along(
    hops: &[Hop],
    reports: &[&Report],
    severity: Severity,
    fits: Option<bool>,
) -> Value {
    let chain: Vec<Value> = hops
        .iter()
        .map(|hop| {
            let pids: Vec<u32> = hop.reports.iter().map(|report| report.pid).collect();
            json!({"name": hop.name, "users": hop.users.and_then(number), "by": hop.by, "pids": pids})
        })
        .collect();
    let all: Vec<Value> = reports.iter().map(|&report| of(report)).collect();
    json!({
        "version": VERSION, "kind": "processes", "severity": severity.name(),
        "chain": chain, "fits": fits, "processes": all,
    })
}

/// The machine.
pub(super) fn machine(machine: &Machine) -> Value {
    let rows: Vec<Value> = machine
        .processes
        .iter()
        .map(|row| {
            json!({
                "pid": row.pid, "name": row.name, "limit": limits(row.limit), "open": row.open,
                "left": row.left(), "full_permille": row.full_milli(),
                "severity": row.severity().name(),
            })
        })
        .collect();
    json!({
        "version": VERSION, "kind": "machine", "severity": machine.severity().name(),
        "processes": rows, "tcp_states": counts(&machine.states),
        "shell_limit": machine.caller.limit.map(limits),
        "nr_open": machine.kernel.nr_open,
        "files_open": machine.kernel.files.map(|files| files.open),
        "files_max": machine.kernel.files.map(|files| number(files.max)),
        "unseen": unseen(&machine.unseen),
    })
}

fn of(report: &Report) -> Value {
    json!({
        "pid": report.pid,
        "name": report.name,
        "severity": report.severity.name(),
        "verdict": report.verdict,
        "check": report.check,
        "why": report.why,
        "now": report.now,
        "now_note": report.now_note,
        "for_good": report.for_good,
        "undone_by": report.undone_by,
        "next": report.next,
        "verify": report.verify,
        "verify_for_good": report.verify_for_good,
        "warnings": report.warnings,
        "notes": report.notes,
        "need": report.need.as_ref().map(|need| json!({
            "wanted": need.wanted, "fits": number(need.fits), "resource": need.resource.name(), "by": need.by,
        })),
        "limit": limits(report.limit),
        "used": report.used,
        "connections": report.connections,
        "room_for": report.more.map(number),
        "ladder": report.ladder.rungs.iter().map(rung).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "open": open(&report.open),
        "evidence": evidence(&report.evidence),
        "unseen": unseen(&report.unseen),
    })
}

fn rung(rung: &Rung) -> Value {
    // Half of what has no end has none either.
    let within = |allowed| number(rung.limit).and_then(|_| number(allowed));
    json!({
        "resource": rung.resource.name(), "of": rung.of,
        "limit": number(rung.limit), "used": rung.used,
        "unit": match rung.unit { Unit::Count => "count", Unit::Bytes => "bytes" },
        "cost_milli": rung.cost_milli,
        "connections": within(rung.allows), "room_for": within(rung.more),
        "bounds": match rung.bounds { Bounds::Crowd => "crowd", Bounds::Rush => "rush", Bounds::Beside => "beside" },
        "evidence": evidence(&rung.at),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "check": finding.check, "severity": finding.severity.name(), "what": finding.what,
        "why": finding.why, "now": finding.now, "for_good": finding.for_good,
        "verify": finding.verify, "evidence": evidence(&finding.evidence),
    })
}

fn open(open: &Open) -> Value {
    let listeners: Vec<Value> = open
        .listeners
        .iter()
        .map(|each| json!({"address": each.at, "waiting": each.waiting, "backlog": each.backlog}))
        .collect();
    json!({
        "descriptors": open.count, "kinds": counts(&open.kinds), "crowd": open.crowd,
        "tcp_states": counts(&open.states),
        "inbound": open.inbound, "outbound": open.outbound, "peers": counts(&open.peers),
        "close_wait": open.close_wait, "unhashed": open.unhashed, "deleted_files": open.deleted,
        "listeners": listeners,
    })
}

fn evidence(evidence: &[Evidence]) -> Value {
    evidence.iter().map(|each| json!({"what": each.what, "at": each.at})).collect()
}

fn unseen(unseen: &[Unseen]) -> Value {
    let each = |one: &Unseen| json!({"what": one.what, "why": one.why, "root_sees": one.root_sees});
    unseen.iter().map(each).collect()
}

fn counts(pairs: &[(String, u64)]) -> Value {
    pairs.iter().map(|(name, count)| json!({"name": name, "count": count})).collect()
}

fn limits(limits: OpenFiles) -> Value {
    json!({"soft": number(limits.soft), "hard": number(limits.hard)})
}

/// A limit, or null where there is none.
fn number(number: u64) -> Option<u64> {
    (number < UNLIMITED_FROM).then_some(number)
}
