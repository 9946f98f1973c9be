//! `select()`: it knows no descriptor above 1023, and a higher limit breaks who uses it.

use super::Outcome;
use crate::doctor::facts::{Facts, Select};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::ladder::{Resource, Rung};

/// `FD_SETSIZE`
pub const SELECT_MAX: u64 = 1024;

pub(super) fn look(facts: &Facts) -> Outcome {
    let Some(used) = facts.open.count else { return Outcome::default() };
    match &facts.select {
        Select::Proven { at } => {
            let rung = Rung::crowd(
                Resource::Select,
                SELECT_MAX,
                used,
                facts.descriptors_milli(),
                facts.connections(),
            )
            .read("it waits in select()", at.clone());
            let above = facts.limit.soft > SELECT_MAX;
            let severity = if above { Severity::Tight } else { Severity::Note };
            let what = "waits with select(), which breaks at the 1025th descriptor".to_owned();
            let finding = Finding::new("select", severity, what)
                .because("select() keeps descriptors in a table of 1024: beyond it programs abort or corrupt memory")
                .for_good("let it use poll() or epoll (its event loop's setting, or a newer version)")
                .verify(format!("cat /proc/{}/syscall", facts.who.pid))
                .seen("in the system call select", at.clone());
            Outcome::rung(rung).with(Some(finding))
        }
        Select::Imported if facts.limit.soft >= SELECT_MAX => {
            let what = "imports select(), so it may break above 1024 descriptors".to_owned();
            let finding = Finding::new("select", Severity::Note, what)
                .because("a program that imports select() need not wait with it; seen while it waits, it would be proven")
                .verify(format!("sudo cat /proc/{}/syscall", facts.who.pid))
                .seen("select or __fdelt_chk among its imports", format!("/proc/{}/exe", facts.who.pid));
            Outcome::finding(finding)
        }
        Select::Imported | Select::No | Select::Unknown => Outcome::default(),
    }
}
