//! What is new in shared polls, on its way to those who have something older.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::event::Item;
use throng_hub::publication::ChannelName;
use throng_hub::registry::{Audience, Batch, Contents, Member, Sink};

use super::Sessions;
use crate::clock::Clock;
use crate::metrics::Meter;
use crate::polls::update::{self, Meant};
use crate::polls::watch;
use crate::session::{Session, Wanted, transport_of};
use crate::shard::Crowd;

/// A form without what only publications of streams have: the plain one of the same framing.
const PLAIN: u8 = 0x0F;

impl Sessions {
    pub(super) fn hand_out_polled(&mut self, crowd: &mut Crowd<Session>, deliveries: usize) {
        let (meter, clock) = (&*self.meter, &self.common.meters.clock);
        let (lists, slots) = self.watch.parts();
        let mut delivery = Delivery { crowd, slots, meter, clock, changed: Vec::new() };
        lists.fan_out(&mut delivery, deliveries);
        let changed = delivery.changed;
        // What a delivery changed in the records of clients: few are behind, and keys go seldom.
        for Changed { slot, name, last } in changed {
            let (channel, key) = watch::parts_of(&name);
            self.with_slot(crowd, slot, |session, cx| session.told(cx, (channel, key), last));
        }
    }

    pub(super) fn poll_reset(
        &mut self,
        crowd: &mut Crowd<Session>,
        channel: &ChannelName,
        epoch: &str,
    ) {
        for slot in self.watch.subscribers(channel) {
            self.with_slot(crowd, slot, |session, cx| session.poll_reset(cx, channel, epoch));
        }
    }
}

/// A client whose record a delivery changes.
struct Changed {
    slot: u32,
    name: ChannelName,
    /// It tracks the key no more.
    last: bool,
}

/// Fan-out of keys into a crowd.
struct Delivery<'a> {
    crowd: &'a mut Crowd<Session>,
    /// The connections of watchers.
    slots: &'a [u32],
    meter: &'a Meter,
    clock: &'a Clock,
    changed: Vec<Changed>,
}

impl Sink for Delivery<'_> {
    fn deliver(&mut self, watcher: Member, batch: &mut Batch, audience: Audience) {
        let Some(slot) = self.slots.get(watcher as usize).copied() else { return };
        let Some(form) = self.crowd.form(slot) else { return };
        let Some(session) = self.crowd.session(slot) else { return };
        let form = form & PLAIN;
        let name = Arc::clone(batch.channel());
        let (channel, key) = watch::parts_of(&name);
        let items = batch.items().get(audience.from..).unwrap_or_default();
        let (mut wanted, mut caught_up, mut last) = (Vec::new(), false, false);
        for item in items {
            let Item::Publication(flight) = item else { continue };
            let meant = update::meant(&flight.publication);
            // What comes behind a removal is for who tracks the key again.
            let wants = if last { Wanted::No } else { session.wants((channel, key), meant) };
            // Who was behind is not when the first of several has come.
            let is_late = matches!(meant, Meant::Again(_)) && caught_up;
            wanted.push(wants != Wanted::No && !is_late);
            caught_up |= wants == Wanted::CaughtUp;
            last |= wants == Wanted::Last;
        }
        let count = wanted.iter().filter(|wants| **wants).count();
        if count == 0 {
            return;
        }
        if caught_up || last {
            self.changed.push(Changed { slot, name: Arc::clone(&name), last });
        }
        let encode = &mut |_: usize, name: &ChannelName, item: &Item, out: &mut Vec<u8>| {
            update::encode(form, name, item, out);
        };
        let transport = transport_of(form);
        if count == wanted.len() {
            let (frames, contents) = batch.counted(usize::from(form), audience, encode);
            if let Some(transport) = transport {
                self.meter.delivered(transport, frames.len(), contents);
            }
            return self.crowd.deliver(slot, frames);
        }
        // Some of them are no news to this client.
        let items = batch.items().get(audience.from..).unwrap_or_default();
        for (item, _) in items.iter().zip(wanted).filter(|(_, wants)| *wants) {
            let Item::Publication(flight) = item else { continue };
            let frames = flight.publication.form(usize::from(form), || {
                let mut bytes = Vec::new();
                update::encode(form, &name, item, &mut bytes);
                Bytes::from(bytes)
            });
            if let Some(transport) = transport {
                self.meter.delivered(transport, frames.len(), Contents::Publication);
            }
            self.crowd.deliver(slot, frames);
        }
    }

    fn passed(&mut self, batch: &Batch) {
        let now_us = self.clock.us();
        for item in batch.items() {
            if let Item::Publication(flight) = item {
                self.meter.fanned_out(now_us.saturating_sub(flight.came_us));
            }
        }
    }
}
