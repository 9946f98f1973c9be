//! What was counted, handed to another process: numbers that only grow must not begin anew.

use std::collections::{BTreeMap, HashMap};

use throng_hub::done::Done;
use throng_hub::state::{Corrupt, Fields, Part, Record, Writer};

use super::rare::{Key, Of};
use crate::sessions::Common;

const CELL: u8 = 1;
const RARE: u8 = 2;
const API: u8 = 3;
const FRONT_RARE: u8 = 4;
const DONE: u8 = 5;
const RESTARTS: u8 = 6;
const FROZEN_AT: u8 = 7;
const LINES_LOST: u8 = 8;
const BACKEND: u8 = 9;

/// A number that is not zero.
#[derive(Debug)]
struct Counted {
    family: u8,
    place: usize,
    count: u64,
}
throng_hub::record!("a count", Counted { 1 family, 2 place, 3 count });

/// How often something rare happened.
#[derive(Debug)]
struct Happened {
    of: u8,
    label: u8,
    code: u32,
    count: u64,
}
throng_hub::record!("a count by code", Happened { 1 of, 2 label, 3 code, 4 count });

/// A number of a backend's.
#[derive(Debug)]
struct Called {
    option: Box<str>,
    kind: u8,
    place: usize,
    count: u64,
}
throng_hub::record!("a count of calls", Called { 1 option, 2 kind, 3 place, 4 count });

fn put_record(tag: u8, record: &impl Record, out: &mut Writer) {
    out.record(tag, |out| record.put_fields(out));
}

/// Writes down what was counted so far. Everything is frozen.
pub(crate) fn put(common: &Common, out: &mut Writer) {
    let meters = &common.meters;
    // By family and place, over all shards: there may be another number of them there.
    let mut counts: BTreeMap<(u8, usize), u64> = BTreeMap::new();
    let mut happened = BTreeMap::new();
    for meter in meters.all() {
        meter.each(&mut |family, place, cell| {
            if cell.get() > 0 {
                *counts.entry((family, place)).or_default() += cell.get();
            }
        });
        meter.rare.add_to(&mut happened);
    }
    for ((family, place), count) in counts {
        put_record(CELL, &Counted { family, place, count }, out);
    }
    put_rare(RARE, &happened, out);
    for (method, spread) in meters.front.api.iter().enumerate() {
        for (bucket, cell) in spread.cells().enumerate().filter(|(_, cell)| cell.get() > 0) {
            let place = method * 32 + bucket;
            put_record(API, &Counted { family: 1, place, count: cell.get() }, out);
        }
    }
    let mut happened = BTreeMap::new();
    meters.front.rare.add_to(&mut happened);
    put_rare(FRONT_RARE, &happened, out);
    put_record(DONE, &done(common), out);
    meters.restarts.get().put(RESTARTS, out);
    u64::try_from(meters.clock.now().unix_ms).unwrap_or(0).put(FROZEN_AT, out);
    lines_lost(common).put(LINES_LOST, out);
    common.switchboard.each_number(&mut |option, kind, place, cell| {
        if cell.get() > 0 {
            let called = Called { option: option.into(), kind, place, count: cell.get() };
            put_record(BACKEND, &called, out);
        }
    });
}

fn put_rare(tag: u8, happened: &BTreeMap<Key, u64>, out: &mut Writer) {
    for (key, count) in happened {
        let Key { of, label, code } = *key;
        put_record(tag, &Happened { of: of as u8, label, code, count: *count }, out);
    }
}

/// Counts on from what another process wrote down. Nothing serves yet.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn take(common: &Common, mut fields: Fields<'_>) -> Result<(), Corrupt> {
    let meters = &common.meters;
    let mut counts: HashMap<(u8, usize), u64> = HashMap::new();
    let mut calls: HashMap<(Box<str>, u8, usize), u64> = HashMap::new();
    while let Some(field) = fields.field()? {
        match field.tag {
            CELL => {
                let Counted { family, place, count } =
                    Counted::take_fields(field.fields(Counted::WHAT)?)?;
                *counts.entry((family, place)).or_default() += count;
            }
            RARE | FRONT_RARE => {
                let Happened { of, label, code, count } =
                    Happened::take_fields(field.fields(Happened::WHAT)?)?;
                // What a later version counts and this one does not is not counted on.
                let Some(of) = Of::from_number(of) else { continue };
                let rare = if field.tag == RARE { &meters.before.rare } else { &meters.front.rare };
                rare.add(Key { of, label, code }, count);
            }
            API => {
                let Counted { place, count, .. } =
                    Counted::take_fields(field.fields(Counted::WHAT)?)?;
                let spread = meters.front.api.get(place / 32);
                if let Some(cell) = spread.and_then(|spread| spread.cells().nth(place % 32)) {
                    cell.add_shared(count);
                }
            }
            DONE => {
                let done = Done::take_fields(field.fields(Done::WHAT)?)?;
                meters.done_before.lock().add(&done);
            }
            RESTARTS => meters.restarts.set(Part::take(None, &field)?),
            FROZEN_AT => meters.frozen_at_ms.set(Part::take(None, &field)?),
            LINES_LOST => meters.lines_lost_before.set(Part::take(None, &field)?),
            BACKEND => {
                let Called { option, kind, place, count } =
                    Called::take_fields(field.fields(Called::WHAT)?)?;
                *calls.entry((option, kind, place)).or_default() += count;
            }
            _ => field.pass()?,
        }
    }
    meters.restarts.add_shared(1);
    meters.before.each(&mut |family, place, cell| {
        cell.add_shared(counts.get(&(family, place)).copied().unwrap_or(0));
    });
    common.switchboard.each_number(&mut |option, kind, place, cell| {
        cell.add_shared(calls.get(&(option.into(), kind, place)).copied().unwrap_or(0));
    });
    Ok(())
}

/// What this node did, and those before it.
pub(super) fn done(common: &Common) -> Done {
    let mut done = common.node.done();
    done.add(&common.meters.done_before.lock());
    done
}

/// Lines that a full log cost, this process and those before it.
pub(super) fn lines_lost(common: &Common) -> u64 {
    common.log.lost() + common.meters.lines_lost_before.get()
}
