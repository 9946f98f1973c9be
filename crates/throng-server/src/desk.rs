//! The front's desk: where its questions wait for their answers.
//!
//! The front asks the node and the shards with numbers, never with closures or senders, and finds
//! the waiting task by the number of the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use throng_hub::event::{Event, Mailbox};
use throng_hub::request::{Answer, ReplyTo};
use tokio::sync::oneshot;

use crate::metrics::Slow;
use crate::sessions::Seen;

/// A shard's share of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// The order is carried out.
    Done,
    /// The users of those asked for, one entry per connection or user.
    Users(Vec<Arc<str>>),
    /// Who is there, of those looked for.
    Seen(Seen),
    /// How many do not keep up.
    Weighed(Slow),
}

/// Questions of the front that are not answered yet. Bounded by the requests in progress, each of
/// which holds a permit.
#[derive(Debug)]
pub(crate) struct Desk {
    mailbox: u16,
    last: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    collections: Mutex<HashMap<u64, Collection>>,
}

#[derive(Debug)]
struct Collection {
    missing: usize,
    parts: Vec<Part>,
    done: oneshot::Sender<Vec<Part>>,
}

impl Desk {
    /// A desk that the node knows as mailbox number `mailbox`.
    pub(crate) fn new(mailbox: u16) -> Arc<Self> {
        Arc::new(Self {
            mailbox,
            last: AtomicU64::new(0),
            answers: Mutex::default(),
            collections: Mutex::default(),
        })
    }

    /// A number to ask with, and where the answer will arrive.
    pub(crate) fn ask(&self) -> (ReplyTo, oneshot::Receiver<Answer>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.answers.lock().insert(number, sender);
        (ReplyTo { mailbox: self.mailbox, slot: 0, number, ticket: 0 }, receiver)
    }

    /// The asker has given up.
    pub(crate) fn forget(&self, to: ReplyTo) {
        self.answers.lock().remove(&to.number);
    }

    /// A number to ask `parties` with, and where all their parts will arrive.
    pub(crate) fn collect(&self, parties: usize) -> (u64, oneshot::Receiver<Vec<Part>>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (done, receiver) = oneshot::channel();
        let parts = Vec::with_capacity(parties);
        self.collections.lock().insert(number, Collection { missing: parties, parts, done });
        (number, receiver)
    }

    /// Nobody waits for the parts any more.
    pub(crate) fn give_up(&self, ask: u64) {
        self.collections.lock().remove(&ask);
    }

    /// One party's part. A number that nobody waits for, such as 0, is ignored.
    pub(crate) fn part(&self, ask: u64, part: Part) {
        let mut collections = self.collections.lock();
        let Some(collection) = collections.get_mut(&ask) else { return };
        collection.parts.push(part);
        collection.missing -= 1;
        if collection.missing == 0
            && let Some(Collection { parts, done, .. }) = collections.remove(&ask)
        {
            // The request was given up: nobody wants the answer.
            done.send(parts).ok();
        }
    }
}

impl Mailbox for Desk {
    fn put(&self, event: Event) {
        // Channels have no subscribers here, so answers are all that comes.
        if let Event::Answer { to, answer } = event
            && let Some(sender) = self.answers.lock().remove(&to.number)
        {
            // The request was given up: nobody wants the answer.
            sender.send(answer).ok();
        }
    }
}
