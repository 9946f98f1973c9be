//! The stream of one channel: its position and the publications it still has.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::publication::{Epoch, Position, Publication};
use crate::request::{
    HistoryPage, HistoryQuery, HubError, Now, Recover, Recovery, RecoveryMode, Retention,
};
use crate::state::streams::Head;

/// One channel's stream.
#[derive(Debug)]
pub(crate) struct Stream {
    epoch: Epoch,
    /// The offset of the last publication, also of one that expired.
    top: u64,
    /// The last publications, without a gap up to `top`, each with the time of its end.
    kept: VecDeque<(Arc<Publication>, u64)>,
    used_ms: u64,
    /// How long the position outlives the last use.
    meta_ttl_ms: u64,
    /// While somebody is subscribed the position stays.
    pub(crate) followed: bool,
}

impl Stream {
    pub(crate) fn new(epoch: Epoch, now: Now) -> Self {
        Self {
            epoch,
            top: 0,
            kept: VecDeque::new(),
            used_ms: now.mono_ms,
            meta_ttl_ms: 0,
            followed: false,
        }
    }

    /// Drops what expired, and stays alive for the time that `retention` says.
    pub(crate) fn touch(&mut self, retention: Retention, now: Now) {
        self.used_ms = now.mono_ms;
        // A position that ends before its publications would let offsets start anew too early.
        self.meta_ttl_ms = retention.meta_ttl_ms.max(retention.ttl_ms);
        self.expire(now);
    }

    /// Stays alive for as long again.
    pub(crate) fn use_at(&mut self, now: Now) {
        self.used_ms = now.mono_ms;
    }

    pub(crate) fn expire(&mut self, now: Now) {
        while self.kept.front().is_some_and(|(_, end_ms)| *end_ms <= now.mono_ms) {
            self.kept.pop_front();
        }
        if self.kept.is_empty() {
            self.kept.shrink_to_fit();
        }
    }

    /// Whether nobody could tell if it began anew.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        let end_ms = self.used_ms.saturating_add(self.meta_ttl_ms);
        !self.followed && self.kept.is_empty() && end_ms <= now.mono_ms
    }

    pub(crate) fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// The last publication, while it is kept.
    pub(crate) fn latest(&self) -> Option<&Arc<Publication>> {
        self.kept.back().map(|(latest, _)| latest)
    }

    /// Gives the publication its place, and keeps it.
    pub(crate) fn append(
        &mut self,
        mut publication: Publication,
        retention: Retention,
        now: Now,
    ) -> Arc<Publication> {
        self.touch(retention, now);
        self.top += 1;
        publication.offset = self.top;
        publication.epoch = Some(self.epoch);
        let publication = Arc::new(publication);
        let end_ms = now.mono_ms.saturating_add(retention.ttl_ms);
        self.kept.push_back((Arc::clone(&publication), end_ms));
        while self.kept.len() > retention.size as usize {
            self.kept.pop_front();
        }
        publication
    }

    /// Forgets everything under a new epoch.
    pub(crate) fn begin_anew(&mut self, epoch: Epoch, now: Now) {
        (self.epoch, self.top, self.used_ms) = (epoch, 0, now.mono_ms);
        self.clear();
    }

    /// All but its publications, to be written down.
    pub(crate) fn head(&self) -> Head {
        let Self { epoch, top, kept, used_ms, meta_ttl_ms, followed } = self;
        Head {
            epoch: *epoch,
            top: *top,
            first: *top + 1 - kept.len() as u64,
            used_ms: *used_ms,
            meta_ttl_ms: *meta_ttl_ms,
            followed: *followed,
        }
    }

    /// The publications after this offset that it still has, each with its end.
    pub(crate) fn after(&self, offset: u64) -> impl Iterator<Item = &(Arc<Publication>, u64)> {
        let newer = usize::try_from(self.top.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.kept.range(self.kept.len() - newer.min(self.kept.len())..)
    }

    /// A stream as it was written down: what went ahead of it, and what came since. None where
    /// they do not fit together.
    pub(crate) fn continued(
        before: Option<Self>,
        head: Head,
        added: Vec<(Arc<Publication>, u64)>,
    ) -> Option<Self> {
        let Head { epoch, top, first, used_ms, meta_ttl_ms, followed } = head;
        let before = before.filter(|before| before.epoch == epoch);
        let mut kept = before.map_or_else(VecDeque::new, |before| before.kept);
        kept.extend(added);
        while kept.front().is_some_and(|(publication, _)| publication.offset < first) {
            kept.pop_front();
        }
        // Offsets lead without a gap from the first to the top.
        let len = kept.len() as u64;
        let from = top.checked_add(1)?.checked_sub(len)?;
        let unbroken =
            kept.iter().zip(from..).all(|((publication, _), offset)| publication.offset == offset);
        (unbroken && from >= 1 && from == first).then_some(Self {
            epoch,
            top,
            kept,
            used_ms,
            meta_ttl_ms,
            followed,
        })
    }

    /// Drops the publications; position and epoch stay.
    pub(crate) fn clear(&mut self) {
        self.kept = VecDeque::new();
    }

    /// What a subscriber missed who comes back.
    pub(crate) fn recover(&self, recover: &Recover) -> Recovery {
        match recover.mode {
            RecoveryMode::Stream => self.recover_stream(recover),
            RecoveryMode::Cache => self.recover_latest(recover),
        }
    }

    fn recover_stream(&self, recover: &Recover) -> Recovery {
        let same_epoch = recover.epoch.is_empty() || *recover.epoch == *self.epoch.as_str();
        let Some(missed) = self.top.checked_sub(recover.offset).filter(|_| same_epoch) else {
            return Recovery::NotRecovered;
        };
        let missed = usize::try_from(missed).unwrap_or(usize::MAX);
        if missed > recover.limit || missed > self.kept.len() {
            return Recovery::NotRecovered;
        }
        let publications: Vec<_> = self.last(missed).cloned().collect();
        match payload_bytes(&publications) <= recover.bytes_max {
            true => Recovery::Recovered(publications),
            false => Recovery::NotRecovered,
        }
    }

    fn recover_latest(&self, recover: &Recover) -> Recovery {
        let at_top = recover.offset > 0
            && recover.offset == self.top
            && *recover.epoch == *self.epoch.as_str();
        if at_top {
            return Recovery::Recovered(Vec::new());
        }
        match self.kept.back() {
            Some((latest, _)) if latest.data.len() <= recover.bytes_max => {
                Recovery::Recovered(vec![Arc::clone(latest)])
            }
            _ => Recovery::NotRecovered,
        }
    }

    pub(crate) fn read(&self, query: &HistoryQuery) -> Result<HistoryPage, HubError> {
        let since = query.since.as_ref();
        if query.reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(HubError::BadSince);
        }
        let other_epoch = |epoch: &str| !epoch.is_empty() && epoch != self.epoch.as_str();
        if since.is_some_and(|since| other_epoch(&since.epoch)) {
            return Err(HubError::UnrecoverablePosition);
        }
        let offset = since.map(|since| since.offset);
        let publications = match query.reverse {
            true => page(self.down_from(offset), query),
            false => page(self.up_from(offset), query),
        };
        Ok(HistoryPage { publications, position: self.position() })
    }

    /// Those after `since`; where they are gone already, from the oldest on.
    fn up_from(&self, since: Option<u64>) -> impl Iterator<Item = &Arc<Publication>> {
        let after = since.map_or(u64::MAX, |since| self.top.saturating_sub(since));
        let count = usize::try_from(after).unwrap_or(usize::MAX).min(self.kept.len());
        self.last(count)
    }

    /// Those before `since`, the newest first; none where the first of them is gone.
    fn down_from(&self, since: Option<u64>) -> impl Iterator<Item = &Arc<Publication>> {
        let newer = match since {
            None => Some(0),
            Some(since) => (self.top + 1).checked_sub(since),
        };
        let skip = newer.map_or(usize::MAX, |newer| usize::try_from(newer).unwrap_or(usize::MAX));
        self.kept.iter().rev().skip(skip).map(|(publication, _)| publication)
    }

    fn last(&self, count: usize) -> impl Iterator<Item = &Arc<Publication>> {
        self.kept.range(self.kept.len() - count..).map(|(publication, _)| publication)
    }
}

pub(crate) fn payload_bytes(publications: &[Arc<Publication>]) -> usize {
    publications.iter().map(|publication| publication.data.len()).sum()
}

fn page<'a>(
    publications: impl Iterator<Item = &'a Arc<Publication>>,
    query: &HistoryQuery,
) -> Vec<Arc<Publication>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for publication in publications.take(query.limit.unwrap_or(usize::MAX)) {
        bytes += publication.data.len();
        if bytes > query.bytes_max && !page.is_empty() {
            break;
        }
        page.push(Arc::clone(publication));
    }
    page
}

#[cfg(test)]
mod tests;
