//! The last changes of a map, without a gap up to its top.

use std::collections::VecDeque;
use std::sync::Arc;

use super::value::{cost, weight};
use crate::publication::Publication;
use crate::request::{Now, Retention};

/// The last changes, the oldest first, each with the time of its end.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) kept: VecDeque<(Arc<Publication>, u64)>,
    /// What they cost together.
    pub(super) bytes: usize,
}

/// What a reader has not seen.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) publications: Vec<Arc<Publication>>,
    /// These are not all: they would have had too many bytes, or there are too many.
    pub(super) is_cut: bool,
}

impl Changes {
    pub(super) fn append(&mut self, change: &Arc<Publication>, retention: Retention, now: Now) {
        self.bytes += cost(change);
        let end_ms = now.mono_ms.saturating_add(retention.ttl_ms);
        self.kept.push_back((Arc::clone(change), end_ms));
        self.expire(retention, now);
    }

    /// Drops what is over, and what is too many.
    pub(super) fn expire(&mut self, retention: Retention, now: Now) {
        let max = retention.size as usize;
        while let Some((oldest, end_ms)) = self.kept.front() {
            if *end_ms > now.mono_ms && self.kept.len() <= max {
                break;
            }
            self.bytes -= cost(oldest);
            self.kept.pop_front();
        }
        if self.kept.is_empty() {
            self.kept.shrink_to_fit();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What came after `since`, at most so much; none where something of it is not kept any more,
    /// or `since` is not there yet.
    pub(super) fn after(
        &self,
        since: u64,
        top: u64,
        (limit, bytes_max): (usize, usize),
    ) -> Option<Missed> {
        let missed = usize::try_from(top.checked_sub(since)?).ok()?;
        let skipped = self.kept.len().checked_sub(missed)?;
        let (mut publications, mut bytes) = (Vec::new(), 0);
        for (change, _) in self.kept.range(skipped..) {
            bytes += weight(change);
            if publications.len() >= limit || (bytes > bytes_max && !publications.is_empty()) {
                return Some(Missed { publications, is_cut: true });
            }
            publications.push(Arc::clone(change));
        }
        Some(Missed { publications, is_cut: false })
    }
}
