//! Maps written down and taken in again (invariant MOVABLE).

use std::collections::HashMap;
use std::sync::Arc;

use super::store::Maps;
use super::value::{Entry, KeyVersion, Map, NEVER};
use super::{Keyed, Rules, Write};
use crate::publication::{ChannelName, Epoch, Publication};
use crate::request::Now;
use crate::state::publications;
use crate::state::{
    Corrupt, Field, Fields, Part, Record, SinceMs, Through, UntilMs, Within, Writer,
};

/// Which fields of a piece hold maps.
#[derive(Debug, Clone, Copy)]
pub struct Tags {
    /// One map each.
    pub map: u8,
    /// One idempotency key each.
    pub key: u8,
}

crate::record!("a map's rules", Rules {
    1 recoverable,
    2 key_ttl_ms,
    3 changes as Within,
    4 keys_max as Size,
    5 bytes_max as Size,
});

crate::record!("a key's version", KeyVersion { 1 number, 2 epoch });

crate::record!("a publication's key", Keyed { 1 key, 2 removed, 3 score, 4 hides_offset });

// What it draws of the byte budget is drawn anew by who reads it. Only a client's write waits, which
// says no more than this.
crate::record!("a write of a key", Write { 1 key, 2 data, 3 info as Within } without {
    tags: Box::default(),
    score: 0,
    mode: super::KeyMode::Always,
    keeps_alive: false,
    idempotency_key: None,
    version: 0,
    version_epoch: Box::default(),
    draw: None,
});

/// A size of this machine as a number.
#[derive(Debug)]
struct Size;

impl Through<usize> for Size {
    fn absent() -> Option<usize> {
        Some(0)
    }
    fn put(value: &usize, tag: u8, out: &mut Writer) {
        (*value as u64).put(tag, out);
    }
    fn take(_: Option<usize>, field: &Field<'_>) -> Result<usize, Corrupt> {
        Ok(usize::try_from(field.number()?).unwrap_or(usize::MAX))
    }
}

/// A map but for its values and changes.
#[derive(Debug)]
struct Head {
    epoch: Epoch,
    top: u64,
    rules: Rules,
    used_ms: u64,
}
crate::record!("a map's head", Head {
    1 epoch,
    2 top,
    3 rules as Within,
    4 used_ms as SinceMs,
});

const NAME: u8 = 1;
const HEAD: u8 = 2;
const ENTRY: u8 = 3;
/// A change that is some key's value: its offset.
const CURRENT: u8 = 4;
/// Another change.
const PAST: u8 = 5;
/// When the change before it ends.
const ENDS: u8 = 6;

impl Maps {
    /// Writes everything down.
    pub(crate) fn put_all(&self, tags: Tags, out: &mut Writer) {
        // Derived: when keys end, and how much room is taken; made anew: chance.
        let Self { channels, due: _, keys, random: _, room: _, calls: _ } = self;
        for (name, map) in channels {
            out.record(tags.map, |out| {
                name.put(NAME, out);
                put_map(map, out);
            });
        }
        for (joint, published, end_ms) in keys.newest(u64::MAX) {
            crate::state::streams::put_key(tags.key, (&joint, published, end_ms), out);
        }
    }

    /// Takes one map in.
    pub(crate) fn take_map(
        &mut self,
        name: ChannelName,
        fields: Fields<'_>,
    ) -> Result<(), Corrupt> {
        let map = take_map(fields)?;
        self.put(name, map);
        Ok(())
    }
}

/// The name of the map that a field holds.
pub(crate) fn name_of(mut fields: Fields<'_>) -> Result<ChannelName, Corrupt> {
    let place = fields.clone();
    match fields.field()? {
        Some(field) if field.tag == NAME => Part::take(None, &field),
        _ => Err(place.corrupt("a map without a name")),
    }
}

fn put_map(map: &Map, out: &mut Writer) {
    // Derived: the ends of keys, and what it costs.
    let Map { epoch, top, entries, ends: _, changes, rules, used_ms, bytes: _ } = map;
    let head = Head { epoch: *epoch, top: *top, rules: *rules, used_ms: *used_ms };
    out.record(HEAD, |out| head.put_fields(out));
    for entry in entries.values() {
        let Entry { publication, end_ms, version } = entry;
        out.record(ENTRY, |out| {
            out.record(1, |out| publications::put(publication, out.now().mono_ms, out));
            if *end_ms != NEVER {
                <UntilMs as Through<u64>>::put(end_ms, 2, out);
            }
            Within::put(version, 3, out);
        });
    }
    for (change, end_ms) in &changes.kept {
        let current = change.keyed.as_ref().and_then(|keyed| entries.get(&keyed.key));
        if current.is_some_and(|entry| Arc::ptr_eq(&entry.publication, change)) {
            out.number(CURRENT, change.offset);
            <UntilMs as Through<u64>>::put(end_ms, ENDS, out);
        } else {
            out.record(PAST, |out| publications::put(change, *end_ms, out));
        }
    }
}

fn take_map(mut fields: Fields<'_>) -> Result<Map, Corrupt> {
    let mut map: Option<Map> = None;
    let mut current: HashMap<u64, Arc<Publication>> = HashMap::new();
    let mut under_way = None;
    while let Some(field) = fields.field()? {
        if field.tag == HEAD {
            map = Some(empty(&field)?);
            continue;
        }
        let Some(map) = &mut map else {
            // The name stands before the head, and whoever added a field there may be newer.
            field.pass()?;
            continue;
        };
        match field.tag {
            ENTRY => {
                let entry = take_entry(field.fields("a key")?, map.epoch)?;
                let keyed = entry.publication.keyed.as_ref();
                let key = keyed.ok_or_else(|| field.corrupt("is a value without a key"))?;
                current.insert(entry.publication.offset, Arc::clone(&entry.publication));
                map.put_entry(Arc::clone(&key.key), entry);
            }
            CURRENT => {
                let change = current.get(&field.number()?);
                let missing = || field.corrupt("is no key's offset");
                under_way = Some(Arc::clone(change.ok_or_else(missing)?));
            }
            ENDS => {
                let end_ms = <UntilMs as Through<u64>>::take(None, &field)?;
                if let Some(change) = under_way.take() {
                    keep(map, &change, end_ms);
                }
            }
            PAST => {
                let (change, end_ms) = publications::take(field.fields("a change")?, map.epoch)?;
                keep(map, &change, end_ms);
            }
            _ => field.pass()?,
        }
    }
    let map = map.ok_or_else(|| fields.corrupt("a map without a head"))?;
    let offsets = map.changes.kept.iter().map(|(change, _)| change.offset);
    let first = (map.top + 1).saturating_sub(map.changes.kept.len() as u64);
    if !offsets.eq(first..=map.top) {
        return Err(fields.corrupt("changes of a map with a gap"));
    }
    Ok(map)
}

fn keep(map: &mut Map, change: &Arc<Publication>, end_ms: u64) {
    map.changes.bytes += super::value::cost(change);
    map.changes.kept.push_back((Arc::clone(change), end_ms));
}

fn empty(field: &Field<'_>) -> Result<Map, Corrupt> {
    let Head { epoch, top, rules, used_ms } = Head::take_fields(field.fields(Head::WHAT)?)?;
    let mut map = Map::new(epoch, Now::default());
    (map.top, map.rules, map.used_ms) = (top, rules, used_ms);
    Ok(map)
}

fn take_entry(mut fields: Fields<'_>, epoch: Epoch) -> Result<Entry, Corrupt> {
    let (mut publication, mut end_ms, mut version) = (None, NEVER, None);
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => publication = Some(publications::take(field.fields("a value")?, epoch)?.0),
            2 => end_ms = <UntilMs as Through<u64>>::take(None, &field)?,
            3 => version = Within::take(None, &field)?,
            _ => field.pass()?,
        }
    }
    let publication = publication.ok_or_else(|| fields.corrupt("a key without a value"))?;
    Ok(Entry { publication, end_ms, version })
}
