//! A shared poll of a client written down, and taken in by a shard of another process.

use std::collections::BTreeMap;

use throng_hub::state::{Corrupt, Field, Record, Through, Until, UntilUnlessZero, Within, Writer};

use super::{Mark, Polled, Polling, Session};
use crate::config::Settings;
use crate::polls::{Key, Polls, watch};

throng_hub::record!("shared polls", Polling { 1 list as Within });

throng_hub::record!("a shared poll", Polled {
    1 channel,
    2 epoch,
    3 expires_s as UntilUnlessZero,
    4 keys as Marks,
    5 keys_expire_s as Until,
} without {
    watcher: watch::NOBODY,
    room: None,
});

/// A key that is tracked.
#[derive(Debug, Default)]
struct Marked {
    key: Key,
    version: u64,
    behind: bool,
    expires_s: u32,
}
throng_hub::record!("a key that is tracked", Marked {
    1 key,
    2 version,
    3 behind,
    4 expires_s as UntilUnlessZero,
});

struct Marks;

impl Through<BTreeMap<Key, Mark>> for Marks {
    fn absent() -> Option<BTreeMap<Key, Mark>> {
        Some(BTreeMap::new())
    }

    fn put(keys: &BTreeMap<Key, Mark>, tag: u8, out: &mut Writer) {
        for (key, Mark { version, behind, expires_s }) in keys {
            let (key, version, behind) = (Key::clone(key), *version, *behind);
            let marked = Marked { key, version, behind, expires_s: *expires_s };
            out.record(tag, |out| marked.put_fields(out));
        }
    }

    fn take(
        keys: Option<BTreeMap<Key, Mark>>,
        field: &Field<'_>,
    ) -> Result<BTreeMap<Key, Mark>, Corrupt> {
        let Marked { key, version, behind, expires_s } =
            Marked::take_fields(field.fields(Marked::WHAT)?)?;
        let mut keys = keys.unwrap_or_default();
        keys.insert(key, Mark { version, behind, expires_s });
        Ok(keys)
    }
}

impl Session {
    /// Takes its places in this shard, and in the node.
    pub(crate) fn seat_polls(
        &mut self,
        slot: u32,
        watch: &mut watch::Watch,
        polls: &Polls,
        (settings, shard, now_ms): (&Settings, u16, u64),
    ) {
        for poll in self.polls_mut() {
            poll.watcher = watch.seat(slot, &poll.channel);
            let place = (&poll.channel, shard);
            let mut poller = polls.poller();
            poller.seat(now_ms, place);
            let options = crate::polls::options(settings, &poll.channel);
            let interval_ms = options.map_or(10_000, |options| options.rules().interval_ms);
            let keys = std::mem::take(&mut poll.keys);
            for (key, mark) in keys {
                // What does not fit here is not polled on; the client tracks it again when its
                // signature is renewed.
                if let Ok(key) = poller.seat_key(now_ms, place, &key, interval_ms) {
                    watch.follow(poll.watcher, &poll.channel, &key);
                    poll.keys.insert(key, mark);
                }
            }
            drop(poller);
            poll.make_room(polls);
        }
    }

    /// Gives its places up; for who comes again, or does not come after all.
    pub(crate) fn unseat_polls(
        &mut self,
        watch: &mut watch::Watch,
        polls: &Polls,
        place: (&Settings, u16, u64),
    ) {
        for poll in self.take_polls() {
            poll.end(watch, polls, place);
        }
    }
}
