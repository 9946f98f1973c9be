//! A crowd behind the listeners of one process, counted without a look at each descriptor.
//!
//! The kernel lists the sockets behind a listener, and says how many descriptors a process has. Where
//! these are as many, and what is looked at confirms it, the link of each need not be resolved, which
//! is most of the work.

use crate::descriptors::{Descriptors, FirstLook};
use crate::tree::Tree;

use super::inet::{FAMILIES, FILTER_PORTS_MAX, Question, TCP};
use super::namespace::Namespace;
use super::row::Row;
use super::source::Source;
use super::state::State;
use super::survey::Survey;
use super::{LISTENERS_MAX, Sockets, Way};

/// BOUNDED: sockets of a crowd; more are looked at one by one, and not kept.
const CROWD_MAX: usize = 1 << 20;

/// Connections behind the listeners of a process, and the family of each.
pub(super) type Behind = Vec<(Row, u8)>;

/// The descriptors and sockets of a process that serves a crowd, and has little else. None where it
/// is not so plain: then each is looked at.
pub(super) fn crowd(tree: &Tree, pid: u32, limit: u64) -> Option<(Descriptors, Sockets)> {
    if !tree.is_live() || tree.is_recording() {
        return None;
    }
    let first = FirstLook::of(pid).ok()??;
    let namespace = Namespace::of(tree, pid);
    let (mut source, _) = Source::open(tree, pid, &namespace);
    let behind = behind(&mut source, &first)?;
    if !source.is_kernel() {
        return None;
    }
    let mut inodes: Vec<u32> = behind.iter().map(|(row, _)| row.inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    // Nobody has taken what is still waiting to be accepted.
    inodes.retain(|inode| *inode != 0);
    let open = first.with_crowd(&inodes, limit).ok()??;
    let mut survey = Survey::new(&open);
    let mut unseen = Vec::new();
    survey.run(&mut source, Some(behind), &mut unseen);
    let (listeners, owned) = survey.finish();
    let place = namespace.place();
    let sockets = Sockets { way: Way::SockDiag, place, listeners, owned: Some(owned), unseen };
    Some((open, sockets))
}

/// What is behind the listeners that are among the first descriptors.
fn behind(source: &mut Source<'_>, first: &FirstLook) -> Option<Behind> {
    let mut ports = Vec::new();
    let mut families = Vec::new();
    let mut seen = 0;
    for family in FAMILIES {
        let question = Question { family, states: State::Listen.bit(), ..Question::all(TCP) };
        let take = |row: Row| {
            seen += 1;
            let is_own = first.sockets().iter().any(|held| held.inode == row.inode);
            if seen <= LISTENERS_MAX && is_own {
                ports.push(row.local.port());
                families.push(family);
            }
        };
        source.rows(question, take).ok()?;
    }
    ports.sort_unstable();
    ports.dedup();
    families.dedup();
    if ports.is_empty() || ports.len() > FILTER_PORTS_MAX {
        return None;
    }
    let mut behind = Vec::new();
    for family in families {
        source
            .rows(Question::behind(family, &ports), |row| {
                if behind.len() <= CROWD_MAX {
                    behind.push((row, family));
                }
            })
            .ok()?;
    }
    (behind.len() <= CROWD_MAX).then_some(behind)
}
