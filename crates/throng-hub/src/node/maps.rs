//! What the node does with channels that are maps.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::Node;
use crate::event::{Flight, Item};
use crate::map::{self, Ask, Call, Enter, Entered, MapAnswer, Rules, Tags, Told, Written};
use crate::partition::Partition;
use crate::publication::{ChannelName, Publication};
use crate::request::{Answer, Draw, HubError, Now, ReplyTo};
use crate::state::streams::take_key;
use crate::state::{Corrupt, Field, Writer};

/// Keys whose time is over and that are ended together, while a partition is locked.
const ENDED_MAX: usize = 512;

/// How often that is done in one sweep; what is left waits for the next, a second later.
const ENDINGS_MAX: usize = 32;

impl Node {
    /// All maps together may take so many bytes.
    pub fn limit_maps(&self, bytes: usize) {
        self.room.limit(bytes);
    }

    /// How many bytes all maps take.
    pub fn map_bytes(&self) -> usize {
        self.room.used()
    }

    /// Writes all maps down. Nothing may change them meanwhile.
    pub fn put_maps(&self, tags: Tags, out: &mut Writer) {
        self.partitions.iter().for_each(|partition| partition.lock().maps.put_all(tags, out));
    }

    /// Takes in a map of another process.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn take_map(&self, field: &Field<'_>) -> Result<(), Corrupt> {
        let fields = field.fields("a map")?;
        let name = map::name_of(fields.clone())?;
        let mut partition = self.lock(&name);
        partition.maps.take_map(name, fields)
    }

    /// Takes in an idempotency key of another process's maps.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn take_map_key(&self, field: &Field<'_>) -> Result<(), Corrupt> {
        take_key(field, |channel, joint, published, end_ms| {
            self.lock(channel).maps.restore_key(joint, published, end_ms);
        })
    }

    /// Begins a new epoch in every map: what became of the last one is not known.
    pub fn begin_maps_anew(&self) {
        self.partitions.iter().for_each(|partition| partition.lock().maps.begin_anew());
    }

    pub(super) fn map(&self, call: Call, to: ReplyTo, now: Now) {
        let Call { channel, rules, ask, quiet } = call;
        let mut partition = self.lock(&channel);
        let answer = match ask {
            Ask::Publish(mut write) => {
                partition.done.sent.publications += 1;
                let draw = write.draw.take();
                let told = partition.maps.publish(&channel, rules, write, now);
                MapAnswer::Written(self.tell(&mut partition, &channel, told, draw))
            }
            Ask::Remove(removal) => {
                partition.done.sent.publications += 1;
                let told = partition.maps.remove(&channel, rules, removal, now);
                MapAnswer::Written(self.tell(&mut partition, &channel, told, None))
            }
            Ask::Enter(enter) => {
                return self.enter_map(&mut partition, (&channel, rules), (enter, to), now);
            }
            Ask::State(query) => MapAnswer::Page(partition.maps.read(&channel, rules, &query, now)),
            Ask::Changes(query) => {
                MapAnswer::Page(partition.maps.read_changes(&channel, rules, &query, now))
            }
            Ask::Count => MapAnswer::Count(partition.maps.count(&channel)),
            Ask::Clear => {
                if partition.maps.clear(&channel) {
                    self.lose(&mut partition, &channel);
                }
                MapAnswer::Cleared
            }
        };
        if !quiet {
            self.answer(to, Answer::Map(answer));
        }
    }

    /// Tells the subscribers what became of a write.
    fn tell(
        &self,
        partition: &mut Partition,
        channel: &ChannelName,
        told: Told<Result<Written, HubError>>,
        draw: Option<Draw>,
    ) -> Result<Written, HubError> {
        let Told { result, ended, change } = told;
        if let Some(ended) = ended {
            self.tell_one(partition, channel, ended, None);
        }
        if let Some(change) = change {
            self.tell_one(partition, channel, change, draw);
        }
        result
    }

    fn tell_one(
        &self,
        partition: &mut Partition,
        channel: &str,
        publication: Arc<Publication>,
        draw: Option<Draw>,
    ) {
        let flight = Flight { publication, draw, base: None, came_us: 0 };
        self.spread(partition, channel, Item::Publication(flight));
    }

    /// A subscriber's step; the last one takes its seat.
    fn enter_map(
        &self,
        partition: &mut Partition,
        (channel, rules): (&ChannelName, Rules),
        (enter, to): (Enter, ReplyTo),
        now: Now,
    ) {
        let result = partition.maps.enter(channel, rules, &enter, now);
        let position = match &result {
            Ok(Entered::Live { position, .. }) => *position,
            _ => {
                let channel = ChannelName::clone(channel);
                return self.answer(to, Answer::Entered { channel, result });
            }
        };
        let Enter { client, info, presence, announce, way, .. } = enter;
        partition.take_refused(channel, client, to.mailbox);
        partition.done.subscribed += 1;
        partition.done.recoveries += u64::from(matches!(way, map::Way::Live { .. }));
        let name = partition.take_seat(channel, to.mailbox);
        // The map is here, so where it stands is what the mailboxes were told.
        partition.stand(&name, Some(position));
        if let Some(info) = info.as_ref().filter(|_| presence) {
            partition.done.presence_added += 1;
            self.broker.enter(&name, info, now);
        }
        let channel = ChannelName::clone(&name);
        self.answer(to, Answer::Entered { channel, result });
        if let Some(info) = info.filter(|_| announce) {
            self.announce(partition, &name, Item::Join(info));
        }
    }

    /// Ends the keys whose time is over, and forgets maps that nobody uses. The lock is given up
    /// now and then.
    pub(super) fn sweep_maps(&self, mut partition: MutexGuard<'_, Partition>, now: Now) {
        for _ in 0..ENDINGS_MAX {
            for _ in 0..ENDED_MAX {
                let Some((channel, ended)) = partition.maps.expire_next(now) else {
                    return partition.forget_maps(now);
                };
                self.tell_one(&mut partition, &channel, ended, None);
            }
            MutexGuard::bump(&mut partition);
        }
    }
}
