//! Who set a process's limit on open files, with the proof, and the one fix for what started it.
//!
//! `gather` reads; `blame`, `remark` and `fix` are pure. The sources stand in a file each, as a
//! parser and a thin reader: the line of ancestors, `limits.conf`, the stacks of PAM, units,
//! supervisord, containers, small service managers.

mod account;
mod blame;
mod container;
mod distro;
mod fix;
mod gather;
mod keeper;
mod launcher;
mod limits_conf;
mod lineage;
mod pam_stack;
mod remark;
mod source;
mod supervisord;
mod unit;
mod when;

pub use blame::{Blame, Setter};
pub use container::Runtime;
pub use fix::Fix;
pub(crate) use fix::quote;
pub use keeper::Kind as KeeperKind;
pub use launcher::Launcher;
pub use lineage::Relative;
pub(crate) use lineage::lineage;
pub use remark::{Kind as RemarkKind, Remark};
pub use source::Evidence;
pub use unit::Scope;

use std::fmt::Write as _;

use crate::doctor::finding;
use crate::facts::{FactError, OpenFiles};
use crate::{Tree, printable};
use blame::{Half, blame};
use gather::{Facts, gather};
pub(crate) use gather::{Keeping, keeping};

/// Where a limit comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    pub limit: OpenFiles,
    pub soft: Blame,
    pub hard: Blame,
    pub launcher: Launcher,
    /// The process, its parent, and so on.
    pub lineage: Vec<Relative>,
    /// The most urgent first.
    pub remarks: Vec<Remark>,
    /// What would take a live fix back.
    pub undone_by: Vec<String>,
    facts: Facts,
}

impl Origin {
    /// Reads where the limit of a process comes from.
    ///
    /// # Errors
    /// When the process is gone, or its limits cannot be read.
    pub fn read(tree: &Tree, pid: u32) -> Result<Self, FactError> {
        // The error names the file.
        let path = format!("{pid}/limits");
        tree.read_proc(&path)?;
        let missing = || FactError::unexpected(path.as_ref(), "row Max open files");
        let facts = gather(tree, pid).ok_or_else(missing)?;
        let (soft, hard) = (blame(&facts, Half::Soft), blame(&facts, Half::Hard));
        Ok(Self {
            limit: facts.line[0].limit,
            remarks: remark::remarks(&facts, &[&soft.setter, &hard.setter]),
            undone_by: fix::undone_by(&facts),
            launcher: facts.launcher.clone(),
            lineage: facts.line.clone(),
            soft,
            hard,
            facts,
        })
    }

    /// Who set it, in a clause: the soft half's setter, and the hard half's where that is what counts.
    #[must_use]
    pub fn why(&self) -> String {
        if self.soft.setter == Setter::Itself {
            return format!("{}; {}", self.soft.words, self.hard.words);
        }
        self.soft.words.clone()
    }

    /// The same, against the number that a shell shows.
    #[must_use]
    pub fn why_not(&self, shell: u64) -> String {
        if shell == self.limit.soft {
            return self.why();
        }
        format!("your shell's {shell} is not this process's: {}", self.why())
    }

    /// The permanent fix that allows so many descriptors.
    #[must_use]
    pub fn fix(&self, wanted: u64) -> Fix {
        fix::fix(&self.facts, wanted)
    }

    /// The process that starts this one again, where a live fix should reach it too.
    #[must_use]
    pub fn supervisor(&self) -> Option<&Relative> {
        let pid = match &self.launcher {
            Launcher::Supervisord { pid, .. } => Some(*pid),
            Launcher::Keeper { pid, .. } => *pid,
            _ => None,
        };
        self.lineage.iter().find(|each| Some(each.pid) == pid)
    }

    /// What the doctor shows of it: the first line of the fix is its summary, the rest is typed.
    #[must_use]
    pub fn report(&self, wanted: u64, shell: Option<u64>) -> finding::OriginReport {
        let fix = self.fix(wanted);
        let supervisor = self.supervisor();
        let lines = self.soft.evidence.iter().chain(&self.hard.evidence);
        let lines = lines.chain(self.remarks.iter().flat_map(|remark| &remark.evidence));
        let mut evidence: Vec<finding::Evidence> = Vec::new();
        for line in lines {
            let line = finding::Evidence::new(line.text.clone(), line.place());
            if !evidence.contains(&line) {
                evidence.push(line);
            }
        }
        finding::OriginReport {
            why: shell.map_or_else(|| self.why(), |shell| self.why_not(shell)),
            permanent: std::iter::once(fix.summary).chain(fix.steps).collect(),
            verify: Some(fix.verify),
            undone_by: self.undone_by.clone(),
            warnings: self.said(|kind| !is_aside(kind)),
            notes: self.said(is_aside).into_iter().chain(fix.mind).collect(),
            supervisor: supervisor
                .map(|each| finding::Supervisor { pid: each.pid, name: each.name.clone() }),
            evidence,
        }
    }

    /// The remarks of some kinds, the most urgent first.
    fn said(&self, is_meant: impl Fn(RemarkKind) -> bool) -> Vec<String> {
        let meant = self.remarks.iter().filter(|remark| is_meant(remark.kind));
        meant.map(|remark| remark.words.clone()).collect()
    }

    /// Everything in words, for a page of details: who, the ancestors, what else is to be said, the
    /// fix for so many descriptors.
    #[must_use]
    pub fn tell(&self, wanted: u64) -> String {
        let mut page = String::new();
        let mut line = |label: &str, words: &str| {
            // Writing to a string does not fail.
            writeln!(page, "{label:<9} {}", printable_lines(words)).ok();
        };
        line("soft", &format!("{}: {}", self.limit.soft, self.soft.words));
        line("hard", &format!("{}: {}", self.limit.hard, self.hard.words));
        for remark in &self.remarks {
            let label = match remark.kind {
                RemarkKind::Danger => "DANGER",
                RemarkKind::Pending => "pending",
                RemarkKind::Trap => "trap",
                RemarkKind::Note => "note",
                RemarkKind::Unseen => "unseen",
            };
            line(label, &remark.words);
        }
        let fix = self.fix(wanted);
        line("for good", &fix.summary);
        for step in &fix.steps {
            line("  type", step);
        }
        for words in &fix.mind {
            line("  mind", words);
        }
        line("  check", &fix.verify);
        for words in &self.undone_by {
            line("undone by", words);
        }
        page
    }
}

/// What need not be known before something is done.
fn is_aside(kind: RemarkKind) -> bool {
    matches!(kind, RemarkKind::Note | RemarkKind::Unseen)
}

/// Words of ours may hold a stranger's; what is longer than one name is left whole.
fn printable_lines(words: &str) -> String {
    let clean = words.chars().all(|c| !c.is_control());
    if clean { words.to_owned() } else { printable(words) }
}

#[cfg(test)]
mod tests;
