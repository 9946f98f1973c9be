//! What is polled, written down for another process: versions, hashes, what is remembered, and how
//! long everything still waits. Who tracks what comes with the sessions, in whatever order.
//!
//! Calls under way do not move: their keys are asked for again, which does no harm.

use std::sync::Arc;

use bytes::Bytes;
use throng_hub::publication::ChannelName;
use throng_hub::state::{Corrupt, Fields, Record, UntilMs, Within, Writer};

use super::{Cached, Channel, Entry, KEY_BYTES, Key, Poller, SHARE};

/// Bytes of data that move. Of what is more only the version does: who needs the data has it asked for
/// again, and a freeze is no time to copy much.
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A key that came without anybody who tracks it is remembered so long.
const KEEP_MS: u64 = 1_000;

const CHANNEL: u8 = 1;

#[derive(Debug, Default)]
struct Polled {
    name: ChannelName,
    epoch: Arc<str>,
    last_version: u64,
    failures: u32,
    urgent_at_ms: u64,
    slice_at_ms: u64,
    slice_gap_ms: u64,
    round_at_ms: u64,
    keys: Vec<Known>,
}
throng_hub::record!("a channel that is polled", Polled {
    1 name,
    2 epoch,
    3 last_version,
    4 failures,
    5 urgent_at_ms as UntilMs,
    6 slice_at_ms as UntilMs,
    7 slice_gap_ms,
    8 round_at_ms as UntilMs,
    9 keys as Within,
});

#[derive(Debug, Default)]
struct Known {
    key: Key,
    version: u64,
    hash: u64,
    data: Option<Bytes>,
    wanted: bool,
    fresh: bool,
    urgent: bool,
    in_round: bool,
}
throng_hub::record!("a key that is polled", Known {
    1 key,
    2 version,
    3 hash,
    4 data,
    5 wanted,
    6 fresh,
    7 urgent,
    8 in_round,
});

impl Poller {
    /// Writes it down. Everything is frozen.
    pub(crate) fn put_fields(&self, out: &mut Writer) {
        let mut room = DATA_BYTES_MAX;
        for (name, channel) in &self.channels {
            let polled = self.polled(name, channel, &mut room);
            out.record(CHANNEL, |out| polled.put_fields(out));
        }
    }

    fn polled(&self, name: &ChannelName, channel: &Channel, room: &mut usize) -> Polled {
        let is_asked = |entry: &Entry, urgent: bool| {
            let call = entry.asked.and_then(|call| self.calls.get(&call));
            call.is_some_and(|call| call.urgent == urgent)
        };
        let known = |(key, entry): (&Key, &Entry)| {
            let data = entry.data.as_ref().map(|cached| cached.data.clone());
            let data = data.filter(|data| data.len() <= *room);
            *room -= data.as_ref().map_or(0, Bytes::len);
            Known {
                key: Key::clone(key),
                version: entry.version,
                hash: entry.hash,
                data,
                wanted: entry.wanted > 0,
                fresh: entry.fresh,
                urgent: entry.is_urgent || is_asked(entry, true),
                in_round: entry.in_round || is_asked(entry, false),
            }
        };
        Polled {
            name: ChannelName::clone(name),
            epoch: Arc::clone(&channel.epoch),
            last_version: channel.last_version,
            failures: channel.failures,
            urgent_at_ms: channel.urgent_at_ms,
            slice_at_ms: channel.slice_at_ms,
            slice_gap_ms: channel.slice_gap_ms,
            round_at_ms: channel.round_at_ms,
            keys: channel.entries.iter().map(known).collect(),
        }
    }

    /// Takes in what another process wrote down. Who tracks what may be known already.
    pub(crate) fn take_fields(&mut self, mut fields: Fields<'_>) -> Result<(), Corrupt> {
        let now_ms = fields.now().mono_ms;
        while let Some(field) = fields.field()? {
            match field.tag {
                CHANNEL => {
                    let polled = Polled::take_fields(field.fields(Polled::WHAT)?)?;
                    self.take_channel(now_ms, polled);
                }
                _ => field.pass()?,
            }
        }
        Ok(())
    }

    fn take_channel(&mut self, now_ms: u64, polled: Polled) {
        let Polled { name, epoch, last_version, failures, keys, .. } = polled;
        let channel = self.channel(&name, now_ms);
        (channel.epoch, channel.last_version, channel.failures) = (epoch, last_version, failures);
        channel.urgent_at_ms = polled.urgent_at_ms;
        (channel.slice_at_ms, channel.slice_gap_ms) = (polled.slice_at_ms, polled.slice_gap_ms);
        channel.round_at_ms = polled.round_at_ms;
        channel.last_wanted = 1;
        channel.ends_ms = now_ms.saturating_add(KEEP_MS);
        for known in keys {
            self.take_key(now_ms, &name, known);
        }
        self.appoint(&name, now_ms);
    }

    fn take_key(&mut self, now_ms: u64, name: &ChannelName, known: Known) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if !channel.entries.contains_key(&known.key) {
            let many = channel.entries.len();
            // What does not fit here is asked for when somebody wants it.
            if self.admit(many, known.key.len()).is_err() {
                return;
            }
        }
        let Some(channel) = self.channels.get_mut(name) else { return };
        let drawn = || self.allowance.hold(KEY_BYTES + known.key.len());
        let new = || Entry { _drawn: Some(drawn()), ..Entry::default() };
        let key = Key::clone(&known.key);
        let entry = channel.entries.entry(Key::clone(&known.key)).or_insert_with(new);
        (entry.version, entry.hash) = (known.version, known.hash);
        // Questions under way do not move, so that all wishes are one.
        (entry.wanted, entry.fresh) = (u64::from(known.wanted), known.fresh);
        (entry.is_urgent, entry.in_round) = (known.urgent, known.in_round);
        let room = self.allowance.limit() / SHARE;
        if let Some(data) = known.data.filter(|data| self.data_bytes + data.len() <= room) {
            self.data_bytes += data.len();
            let drawn = self.allowance.hold(data.len());
            entry.data = Some(Cached { data, _drawn: drawn });
        }
        if entry.shards.is_empty() && !entry.is_leaving {
            (entry.is_leaving, entry.gone_ms) = (true, now_ms.saturating_add(KEEP_MS));
            channel.leaving.push_back((entry.gone_ms, Key::clone(&key)));
        }
        if known.urgent {
            channel.urgent.push_back(Key::clone(&key));
        }
        if known.in_round {
            channel.round.push_back(key);
        }
    }
}
