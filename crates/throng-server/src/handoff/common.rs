//! What a node's shards have in common, and what the front counts, written down.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use throng_hub::map::Tags;
use throng_hub::request::Now;
use throng_hub::state::sealed::{self, Piece, Unreadable};
use throng_hub::state::{Corrupt, Field, Part, Record, Writer};

use crate::front::Front;
use crate::metrics;
use crate::sessions::Common;
use crate::shard::Address;

const LAST_NUMBER: u8 = 1;
const UID: u8 = 2;
const PUBLISHED: u8 = 3;
const RING: u8 = 4;
const SPENT: u8 = 5;
const UNDECLARED: u8 = 6;
const REFUSED: u8 = 7;
const RESET: u8 = 8;
const ARRIVALS: u8 = 9;
const METERS: u8 = 10;
const MAP: u8 = 11;
const MAP_KEY: u8 = 12;
const POLLS: u8 = 13;

const MAPS: Tags = Tags { map: MAP, key: MAP_KEY };

/// An address that came often lately.
#[derive(Debug)]
struct Spent {
    address: IpAddr,
    tokens: f64,
    age_ms: u64,
}
throng_hub::record!("an address", Spent { 1 address as Address, 2 tokens, 3 age_ms });

#[derive(Debug)]
struct Left {
    tokens: f64,
    age_ms: u64,
}
throng_hub::record!("a rate", Left { 1 tokens, 2 age_ms });

/// Writes it down. Everything is frozen.
pub(super) fn put(front: &Front, now: Now) -> Vec<u8> {
    let Front {
        common,
        // The other process has its own.
        clock: _,
        clients: _,
        next_shard: _,
        command: _,
        gate,
        last_number,
        // A server that is stopping is not handed over.
        draining: _,
        arrivals,
        undeclared,
        addresses,
        // Handed over as descriptors.
        doors: _,
        source: _,
    } = front;
    let Common {
        node,
        // Moved by pieces of its own.
        memory: _,
        // Made anew from the settings of the other process.
        current: _,
        allowance: _,
        desk: _,
        switchboard: _,
        polls,
        notary: _,
        log: _,
        shards: _,
        pause: _,
        // Counted again as the sessions come.
        user_counts: _,
        newest: _,
        clients: _,
        awaited: _,
        // Told with the channels.
        stands: _,
        published,
        ring,
        // Entered again by the sessions.
        speakers: _,
        uid: _,
        // Written down by a module of its own.
        meters: _,
    } = &**common;
    let mut out = sealed::begin(Piece::Common, now, 64 * 1024);
    let instant = Instant::now();
    last_number.load(Ordering::Relaxed).put(LAST_NUMBER, &mut out);
    out.bytes(UID, common.uid().as_bytes());
    published.load(Ordering::Relaxed).put(PUBLISHED, &mut out);
    out.record(RING, |out| ring.put_fields(out));
    for (address, tokens, age_ms) in addresses.spent(instant) {
        put_record(SPENT, &Spent { address, tokens, age_ms }, &mut out);
    }
    undeclared.put(UNDECLARED, &mut out);
    gate.refused.load(Ordering::Relaxed).put(REFUSED, &mut out);
    gate.reset.load(Ordering::Relaxed).put(RESET, &mut out);
    if let Some((tokens, age_ms)) = arrivals.left(instant) {
        put_record(ARRIVALS, &Left { tokens, age_ms }, &mut out);
    }
    out.record(METERS, |out| metrics::put(common, out));
    // What else the node has, shards and the broker bring.
    node.put_maps(MAPS, &mut out);
    out.record(POLLS, |out| polls.put_fields(out));
    sealed::seal(out)
}

fn put_record(tag: u8, record: &impl Record, out: &mut Writer) {
    out.record(tag, |out| record.put_fields(out));
}

/// Takes in what another process wrote down.
pub(super) fn take(front: &Front, bytes: &[u8], now: Now) -> Result<(), Unreadable> {
    sealed::open(bytes, Piece::Common, now, |mut fields| {
        while let Some(field) = fields.field()? {
            take_field(front, &field)?;
        }
        Ok(())
    })
}

fn take_field(front: &Front, field: &Field<'_>) -> Result<(), Corrupt> {
    let (common, instant) = (&front.common, Instant::now());
    match field.tag {
        LAST_NUMBER => front.last_number.store(field.number()?, Ordering::Relaxed),
        // Nobody has asked for it before: nothing serves yet.
        UID => drop(common.uid.set(field.text()?.into())),
        PUBLISHED => common.published.store(field.number()?, Ordering::Relaxed),
        RING => common.ring.take_fields(field.fields("the last closes")?)?,
        SPENT => {
            let Spent { address, tokens, age_ms } = Spent::take_fields(field.fields(Spent::WHAT)?)?;
            front.addresses.spend(address, tokens, age_ms, instant);
        }
        UNDECLARED => front.undeclared.take(field)?,
        REFUSED => front.gate.refused.store(field.number()?, Ordering::Relaxed),
        RESET => front.gate.reset.store(field.number()?, Ordering::Relaxed),
        ARRIVALS => {
            let Left { tokens, age_ms } = Left::take_fields(field.fields(Left::WHAT)?)?;
            front.arrivals.leave(tokens, age_ms, instant);
        }
        MAP => common.node.take_map(field)?,
        MAP_KEY => common.node.take_map_key(field)?,
        METERS => metrics::take(common, field.fields("what was counted")?)?,
        POLLS => common.polls.take_fields(field.fields("shared polls")?)?,
        _ => field.pass()?,
    }
    Ok(())
}
