//! Subscriptions that wait for their broker, and what arrives in their channel meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::Op;
use crate::history::payload_bytes;
use crate::publication::{Position, Publication};
use crate::request::{Recover, Recovery, RecoveryMode, Subscribed};

/// Publications kept for those who join one channel: as many as arrive in one question's time.
const ARRIVED_MAX: usize = 1024;

/// Payload bytes kept for those who join one channel.
const ARRIVED_BYTES_MAX: usize = 1 << 20;

/// What arrived in a channel while subscriptions to it wait, for all of them together: what one
/// has read already it passes over by its offset.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// How many subscriptions wait.
    pub(crate) waiting: usize,
    arrived: VecDeque<Arc<Publication>>,
    bytes: usize,
    lost_before: Op,
}

impl Joining {
    /// Keeps a publication, if it is not one that came before. The oldest goes when there are too
    /// many: that leaves a gap, and who needs it must read again.
    pub(crate) fn arrive(&mut self, publication: &Arc<Publication>) {
        let again = |last: &Arc<Publication>| {
            last.epoch == publication.epoch && last.offset >= publication.offset
        };
        if publication.offset == 0 || self.arrived.back().is_some_and(again) {
            return;
        }
        self.bytes += publication.data.len();
        self.arrived.push_back(Arc::clone(publication));
        while self.arrived.len() > ARRIVED_MAX || self.bytes > ARRIVED_BYTES_MAX {
            let Some(oldest) = self.arrived.pop_front() else { break };
            self.bytes -= oldest.data.len();
        }
    }

    /// Publications may be missing between what arrived and what will: who asked before `next`
    /// must ask again.
    pub(crate) fn lose(&mut self, next: Op) {
        self.arrived.clear();
        self.bytes = 0;
        self.lost_before = next;
    }

    /// Whether publications may have been lost after this question read where the channel is.
    pub(crate) fn is_stale(&self, op: Op) -> bool {
        op < self.lost_before
    }

    /// What arrived after `position` of the same epoch, up to `top`.
    fn between(&self, position: Position, top: u64) -> impl Iterator<Item = &Arc<Publication>> {
        self.arrived.iter().filter(move |publication| {
            publication.epoch == Some(position.epoch)
                && publication.offset > position.offset
                && publication.offset <= top
        })
    }
}

/// What the broker read for a subscription, brought to where the channel stands in the node's
/// mailboxes: from there on the subscription gets everything, and before it nothing.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) subscribed: Subscribed,
    /// It would be recovered, if it had read later.
    pub(crate) gap: bool,
    /// The channel began anew behind the node's back: everyone who follows it must recover.
    pub(crate) torn: bool,
}

/// `top` is where the channel stands in the mailboxes, if the node knows.
///
/// What was read may be ahead of it: publications on their way. They are left out here, since
/// the subscription will get them with everybody else. One that claims to have seen more than
/// that (it came from a node that is further) is not recovered rather than given them twice.
pub(crate) fn meet(
    top: Option<Position>,
    read: Subscribed,
    joining: Option<&Joining>,
    recover: Option<&Recover>,
) -> Met {
    let (Some(top), Some(position)) = (top, read.position) else {
        return Met { subscribed: read, gap: false, torn: false };
    };
    if top == position {
        return Met { subscribed: read, gap: false, torn: false };
    }
    if top.epoch != position.epoch {
        let recovery = match read.recovery {
            Recovery::NotAsked => Recovery::NotAsked,
            Recovery::Recovered(_) | Recovery::NotRecovered => Recovery::NotRecovered,
        };
        let subscribed = Subscribed { position: Some(position), recovery };
        return Met { subscribed, gap: false, torn: true };
    }
    let (Recovery::Recovered(mut list), Some(recover)) = (read.recovery, recover) else {
        let recovery = recover.map_or(Recovery::NotAsked, |_| Recovery::NotRecovered);
        return Met {
            subscribed: Subscribed { position: Some(top), recovery },
            gap: false,
            torn: false,
        };
    };
    if recover.mode == RecoveryMode::Stream && recover.offset > top.offset {
        let subscribed = Subscribed { position: Some(top), recovery: Recovery::NotRecovered };
        return Met { subscribed, gap: false, torn: false };
    }
    // What was read beyond the top is still on its way through the mailboxes.
    list.retain(|publication| publication.offset <= top.offset);
    if let Some(joining) = joining {
        list.extend(joining.between(position, top.offset).cloned());
    }
    let gap = recover.mode == RecoveryMode::Stream && has_gap(&list, recover.offset, top.offset);
    let recovery = if gap { Recovery::NotRecovered } else { bounded(list, recover) };
    Met { subscribed: Subscribed { position: Some(top), recovery }, gap, torn: false }
}

/// Whether `list` does not lead from `since` to `top`, although something could.
fn has_gap(list: &[Arc<Publication>], since: u64, top: u64) -> bool {
    let Some(missed) = top.checked_sub(since) else { return false };
    let unbroken = list.iter().zip(since + 1..).all(|(one, offset)| one.offset == offset);
    !unbroken || list.len() as u64 != missed
}

/// What a recovery may carry, of what it needs.
fn bounded(mut list: Vec<Arc<Publication>>, recover: &Recover) -> Recovery {
    if recover.mode == RecoveryMode::Cache {
        list.drain(..list.len().saturating_sub(1));
        list.retain(|latest| latest.offset != recover.offset);
    }
    match list.len() <= recover.limit && payload_bytes(&list) <= recover.bytes_max {
        true => Recovery::Recovered(list),
        false => Recovery::NotRecovered,
    }
}

#[cfg(test)]
mod tests;
