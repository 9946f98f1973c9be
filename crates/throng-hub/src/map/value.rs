//! One map: its values by key, and its last changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::changes::{Changes, Missed};
use super::{
    ChangesQuery, Entered, Full, KeyMode, Keyed, Page, Removal, Rules, StateQuery, Suppressed, Way,
    Write,
};
use crate::publication::{Epoch, Position, Publication};
use crate::request::{HubError, Now};

/// No end.
pub(super) const NEVER: u64 = u64::MAX;

/// What a key or a change costs beside its bytes: the publication, its forms, and its places.
const OVERHEAD_BYTES: usize = 320;

/// What surrounds a payload in a page.
const AROUND_BYTES: usize = 64;

/// How long a map without keys is remembered that nobody follows and whose rules know no end: so
/// that names without number do not stay.
const EMPTY_TTL_MS: u64 = 30 * 24 * 3600 * 1000;

/// How long one that never had a key is.
const UNTOUCHED_TTL_MS: u64 = 60 * 1000;

/// One map.
#[derive(Debug)]
pub(crate) struct Map {
    pub(super) epoch: Epoch,
    /// The offset of the last change, also of one that is not kept any more.
    pub(super) top: u64,
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
    /// The ends of the keys that have one.
    pub(super) ends: BTreeSet<(u64, Arc<str>)>,
    pub(super) changes: Changes,
    /// As they were last said.
    pub(super) rules: Rules,
    pub(super) used_ms: u64,
    /// What the values cost together.
    pub(super) bytes: usize,
}

/// One key's value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) publication: Arc<Publication>,
    pub(super) end_ms: u64,
    pub(super) version: Option<Box<KeyVersion>>,
}

/// The version of a key's last publication that had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyVersion {
    pub(super) number: u64,
    pub(super) epoch: Box<str>,
}

/// What a publication costs where it is kept.
pub(super) fn cost(publication: &Publication) -> usize {
    OVERHEAD_BYTES + bytes_of(publication)
}

/// What a publication counts in a page.
pub(super) fn weight(publication: &Publication) -> usize {
    AROUND_BYTES + bytes_of(publication)
}

fn bytes_of(publication: &Publication) -> usize {
    let tags: usize = publication.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    let key = publication.keyed.as_ref().map_or(0, |keyed| keyed.key.len());
    let info = publication.info.as_ref().map_or(0, |info| {
        let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        len(&info.conn_info) + len(&info.chan_info)
    });
    publication.data.len() + tags + key + info
}

impl Map {
    pub(super) fn new(epoch: Epoch, now: Now) -> Self {
        Self {
            epoch,
            top: 0,
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            changes: Changes::default(),
            rules: Rules::default(),
            used_ms: now.mono_ms,
            bytes: 0,
        }
    }

    /// It is used, under these rules.
    pub(super) fn touch(&mut self, rules: Rules, now: Now) {
        self.rules = rules;
        self.used_ms = now.mono_ms;
        self.changes.expire(rules.changes, now);
    }

    pub(super) fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// Everything it costs.
    pub(super) fn cost(&self) -> usize {
        self.bytes + self.changes.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the next key ends.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.ends.first().map(|(end_ms, _)| *end_ms)
    }

    /// Whether it may be forgotten, where nobody follows it.
    pub(super) fn is_over(&mut self, now: Now) -> bool {
        self.changes.expire(self.rules.changes, now);
        let ttl_ms = match self.rules.changes.meta_ttl_ms {
            _ if self.entries.is_empty() && self.top == 0 => UNTOUCHED_TTL_MS,
            0 if self.entries.is_empty() => EMPTY_TTL_MS,
            0 => return false,
            ttl_ms => ttl_ms,
        };
        self.used_ms.saturating_add(ttl_ms) <= now.mono_ms
    }

    /// Begins a new epoch: what became of the last one is not known. The values stay.
    pub(super) fn begin_anew(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.changes.clear();
    }

    /// Writes a value; `room` is how many bytes all maps may still take. Returns what is to be
    /// told: the change.
    pub(super) fn publish(
        &mut self,
        write: Write,
        room: usize,
        now: Now,
    ) -> Result<Result<Arc<Publication>, Suppressed>, HubError> {
        let known = self.entries.get(&*write.key);
        if let Some(version) = known.and_then(|entry| entry.version.as_deref())
            && write.version > 0
            && (write.version_epoch.is_empty() || write.version_epoch == version.epoch)
            && write.version <= version.number
        {
            return Ok(Err(Suppressed::Version));
        }
        match (write.mode, known.is_some()) {
            (KeyMode::IfNew, true) => {
                if write.keeps_alive {
                    self.keep_alive(&write.key, now);
                }
                return Ok(Err(Suppressed::KeyExists));
            }
            (KeyMode::IfExists, false) => return Ok(Err(Suppressed::KeyNotFound)),
            _ => {}
        }
        let key = match self.entries.get_key_value(&*write.key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(&*write.key),
        };
        let Write { data, info, tags, score, version, version_epoch, .. } = write;
        let mut publication = self.change(Arc::clone(&key), now);
        (publication.data, publication.info, publication.tags) = (data, info, tags);
        if let Some(keyed) = &mut publication.keyed {
            keyed.score = score;
        }
        self.check_room(&publication, known_cost(self.entries.get(&key)), room)?;
        let publication = self.append(publication, now);
        let end_ms = self.end_ms(now);
        let before = self.take_entry(&key);
        let version = match version {
            0 => before.and_then(|entry| entry.version),
            number => Some(Box::new(KeyVersion { number, epoch: version_epoch })),
        };
        let entry = Entry { publication: Arc::clone(&publication), end_ms, version };
        self.put_entry(key, entry);
        Ok(Ok(publication))
    }

    /// Ends a key. Returns what is to be told.
    pub(super) fn remove(
        &mut self,
        removal: Removal,
        now: Now,
    ) -> Result<Arc<Publication>, Suppressed> {
        let Some((key, _)) = self.entries.get_key_value(&*removal.key) else {
            return Err(Suppressed::KeyNotFound);
        };
        let key = Arc::clone(key);
        self.end(&key, removal.tags, now).ok_or(Suppressed::KeyNotFound)
    }

    /// Ends this key if its time is over. Returns what is to be told.
    pub(super) fn expire_key(&mut self, key: &str, now: Now) -> Option<Arc<Publication>> {
        let (key, entry) = self.entries.get_key_value(key)?;
        if entry.end_ms > now.mono_ms {
            return None;
        }
        let key = Arc::clone(key);
        self.end(&key, None, now)
    }

    /// Ends the next key whose time is over. Returns what is to be told.
    pub(super) fn expire_next(&mut self, now: Now) -> Option<Arc<Publication>> {
        let (end_ms, key) = self.ends.first()?;
        if *end_ms > now.mono_ms {
            return None;
        }
        let key = Arc::clone(key);
        self.end(&key, None, now)
    }

    fn end(
        &mut self,
        key: &Arc<str>,
        tags: Option<Box<[(String, String)]>>,
        now: Now,
    ) -> Option<Arc<Publication>> {
        let entry = self.take_entry(key)?;
        let mut publication = self.change(Arc::clone(key), now);
        publication.tags = tags.unwrap_or_else(|| entry.publication.tags.clone());
        if let Some(keyed) = &mut publication.keyed {
            keyed.removed = true;
        }
        Some(self.append(publication, now))
    }

    /// A change that has not got its place yet.
    fn change(&self, key: Arc<str>, now: Now) -> Publication {
        let mut publication = Publication::new(bytes::Bytes::new(), None, now.unix_ms);
        let hides_offset = !self.rules.recoverable;
        publication.keyed = Some(Box::new(Keyed { key, removed: false, score: 0, hides_offset }));
        publication
    }

    fn append(&mut self, mut publication: Publication, now: Now) -> Arc<Publication> {
        self.top += 1;
        publication.offset = self.top;
        publication.epoch = Some(self.epoch);
        let publication = Arc::new(publication);
        self.changes.append(&publication, self.rules.changes, now);
        publication
    }

    fn check_room(
        &self,
        publication: &Publication,
        known: Option<usize>,
        room: usize,
    ) -> Result<(), HubError> {
        if known.is_none() && self.entries.len() >= self.rules.keys_max {
            return Err(HubError::MapFull(Full::Keys));
        }
        // As a value, and as a change.
        let added = 2 * cost(publication);
        let after = self.cost() - known.unwrap_or(0) + added;
        if after > self.rules.bytes_max {
            return Err(HubError::MapFull(Full::Bytes));
        }
        if added.saturating_sub(known.unwrap_or(0)) > room {
            return Err(HubError::MapFull(Full::Node));
        }
        Ok(())
    }

    fn end_ms(&self, now: Now) -> u64 {
        match self.rules.key_ttl_ms {
            0 => NEVER,
            ttl_ms => now.mono_ms.saturating_add(ttl_ms),
        }
    }

    fn keep_alive(&mut self, key: &str, now: Now) {
        let end_ms = self.end_ms(now);
        let Some((key, _)) = self.entries.get_key_value(key) else { return };
        let key = Arc::clone(key);
        if let Some(entry) = self.take_entry(&key) {
            self.put_entry(key, Entry { end_ms, ..entry });
        }
    }

    pub(super) fn put_entry(&mut self, key: Arc<str>, entry: Entry) {
        self.bytes += cost(&entry.publication);
        if entry.end_ms != NEVER {
            self.ends.insert((entry.end_ms, Arc::clone(&key)));
        }
        self.entries.insert(key, entry);
    }

    fn take_entry(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= cost(&entry.publication);
        if entry.end_ms != NEVER {
            self.ends.remove(&(entry.end_ms, Arc::clone(key)));
        }
        Some(entry)
    }

    /// Keys behind `cursor`, of those that did not change after `frozen`; and the last one looked
    /// at, where more follow.
    fn page(
        &self,
        cursor: &str,
        frozen: u64,
        (limit, bytes_max): (usize, usize),
    ) -> (Vec<Arc<Publication>>, Option<Arc<str>>) {
        let behind = match cursor {
            "" => Bound::Unbounded,
            cursor => Bound::Excluded(cursor),
        };
        let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
        let range = self.entries.range::<str, _>((behind, Bound::Unbounded));
        for (looked_at, (key, entry)) in range.enumerate() {
            let is_new = entry.publication.offset > frozen;
            let added = if is_new { 0 } else { weight(&entry.publication) };
            if looked_at >= limit || (bytes + added > bytes_max && !page.is_empty()) {
                return (page, last);
            }
            last = Some(Arc::clone(key));
            if !is_new {
                bytes += added;
                page.push(Arc::clone(&entry.publication));
            }
        }
        (page, None)
    }

    pub(super) fn read(&self, query: &StateQuery) -> Result<Page, HubError> {
        let position = self.position();
        let frozen = match &query.frozen {
            Some((_, epoch)) if **epoch != *self.epoch.as_str() => {
                return Err(HubError::UnrecoverablePosition);
            }
            Some((offset, _)) => *offset,
            None => self.top,
        };
        let (publications, cursor) = if query.key.is_empty() {
            match query.limit {
                Some(0) => (Vec::new(), None),
                limit => {
                    let limits = (limit.unwrap_or(usize::MAX), query.bytes_max);
                    self.page(&query.cursor, frozen, limits)
                }
            }
        } else {
            let entry = self.entries.get(&*query.key);
            (entry.map(|entry| Arc::clone(&entry.publication)).into_iter().collect(), None)
        };
        Ok(Page { publications, position, cursor })
    }

    pub(super) fn read_changes(&self, query: &ChangesQuery) -> Result<Page, HubError> {
        let position = self.position();
        if let Some((_, epoch)) = &query.since
            && !epoch.is_empty()
            && **epoch != *self.epoch.as_str()
        {
            return Err(HubError::UnrecoverablePosition);
        }
        let since = query.since.as_ref().map(|(offset, _)| *offset);
        let kept = self.changes.kept.iter().map(|(change, _)| change);
        let forward = kept.clone().filter(|change| since.is_none_or(|since| change.offset > since));
        let backward = kept.rev().filter(|change| since.is_none_or(|since| change.offset < since));
        let chosen: &mut dyn Iterator<Item = _> =
            if query.reverse { &mut { backward } } else { &mut { forward } };
        let (mut publications, mut bytes) = (Vec::new(), 0);
        for change in chosen.take(query.limit.unwrap_or(usize::MAX)) {
            bytes += weight(change);
            if bytes > query.bytes_max && !publications.is_empty() {
                break;
            }
            publications.push(Arc::clone(change));
        }
        Ok(Page { publications, position, cursor: None })
    }

    /// A subscriber's next step.
    pub(super) fn enter(&self, way: &Way, limits: Limits) -> Result<Entered, HubError> {
        match way {
            Way::State { cursor, frozen } => self.enter_by_state(cursor, *frozen, limits),
            Way::Changes { since, epoch, start } => {
                self.check_epoch(epoch)?;
                let start = start.unwrap_or(self.top);
                let is_near = since.saturating_add(limits.page as u64) >= start;
                if is_near {
                    let missed = self.missed(*since, (limits.live_max, limits.bytes_max))?;
                    // More bytes than fit one answer come in several.
                    if !missed.is_cut {
                        return Ok(self.live(Vec::new(), missed));
                    }
                    if missed.publications.len() >= limits.live_max {
                        return Err(HubError::UnrecoverablePosition);
                    }
                    return Ok(self.later(*since, missed, start));
                }
                let missed = self.missed(*since, (limits.page, limits.bytes_max))?;
                Ok(self.later(*since, missed, start))
            }
            Way::Live { since, epoch } => {
                if !self.rules.recoverable {
                    let missed = Missed { publications: Vec::new(), is_cut: false };
                    return Ok(self.live(Vec::new(), missed));
                }
                self.check_epoch(epoch)?;
                let missed = self.missed(*since, (limits.live_max, limits.bytes_max))?;
                match missed.is_cut {
                    false => Ok(self.live(Vec::new(), missed)),
                    true => Err(HubError::UnrecoverablePosition),
                }
            }
        }
    }

    fn enter_by_state(
        &self,
        cursor: &str,
        frozen: Option<Position>,
        limits: Limits,
    ) -> Result<Entered, HubError> {
        let frozen = frozen.unwrap_or(self.position());
        if frozen.epoch != self.epoch {
            return Err(HubError::UnrecoverablePosition);
        }
        let (page, cursor) = self.page(cursor, frozen.offset, (limits.page, limits.bytes_max));
        if cursor.is_some() {
            return Ok(Entered::State { page, cursor, frozen });
        }
        let taken: usize = page.iter().map(|each| weight(each)).sum();
        // Where nobody can read changes page by page, the last page brings all of them.
        let near = if self.rules.recoverable { limits.page } else { usize::MAX };
        let limit = near.min(limits.live_max);
        let missed = self.missed(frozen.offset, (limit, limits.bytes_max.saturating_sub(taken)))?;
        // The first change is given whatever its size.
        let is_larger = !page.is_empty() && !missed.publications.is_empty() && {
            let added: usize = missed.publications.iter().map(|each| weight(each)).sum();
            taken + added > limits.bytes_max
        };
        match missed.is_cut || is_larger {
            false => Ok(self.live(page, missed)),
            true if self.rules.recoverable => Ok(Entered::State { page, cursor: None, frozen }),
            true => Err(HubError::UnrecoverablePosition),
        }
    }

    fn check_epoch(&self, epoch: &str) -> Result<(), HubError> {
        match epoch == self.epoch.as_str() {
            true => Ok(()),
            false => Err(HubError::UnrecoverablePosition),
        }
    }

    fn missed(&self, since: u64, limits: (usize, usize)) -> Result<Missed, HubError> {
        self.changes.after(since, self.top, limits).ok_or(HubError::UnrecoverablePosition)
    }

    fn live(&self, state: Vec<Arc<Publication>>, missed: Missed) -> Entered {
        Entered::Live { state, changes: missed.publications, position: self.position() }
    }

    fn later(&self, since: u64, missed: Missed, start: u64) -> Entered {
        let offset = missed.publications.last().map_or(since, |last| last.offset);
        Entered::Changes { page: missed.publications, offset, epoch: self.epoch, start }
    }
}

/// How much one answer to a subscriber may bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) page: usize,
    pub(super) bytes_max: usize,
    pub(super) live_max: usize,
}

fn known_cost(entry: Option<&Entry>) -> Option<usize> {
    entry.map(|entry| cost(&entry.publication))
}
