//! Shared polls: the application is asked for the keys that clients track, once for all of them, and
//! what is new goes to those who have something older.
//!
//! The [`poller`] decides what is asked when. It is the node's, behind a lock that is held for work in
//! memory only; under it what is new goes into the mailboxes of the shards that track the key, so that
//! their order is the channel's. Who tracks what is the business of each shard ([`watch`]): a list per
//! key, gone over in slices, as that of a channel is. What a client was told it keeps itself
//! (`session/poll`). Here is what drives the poller: one task of the front, and one for each call.

pub(crate) mod poller;
pub(crate) mod signature;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use throng_hub::publication::ChannelName;
use throng_hub::request::{Draw, Now};
use throng_hub::state::{Corrupt, Fields, Writer};
use tokio::sync::Notify;

use crate::allowance::{Allowance, Drawn};
use crate::backend::{Answer, Ask as Question, AskedKey, Call, Kind};
use crate::clock::Clock;
use crate::config::{PollOptions, Settings};
use crate::log::line;
use crate::metrics::{Cell, REQUESTS, Spread};
use crate::sessions::{Common, Mail};
use crate::shard::Post;

use self::poller::{Counts, Full, Items, News, Outcome, Poller, Published, Rules, Update};

pub(crate) use self::poller::{Item, Key};

/// Bytes of a key, at most.
pub(crate) const KEY_BYTES_MAX: usize = 255;
/// What one client's tracking of one key costs.
const TRACKING_BYTES: usize = 128;
/// Of the allowance: this part for who tracks what.
const TRACKINGS_SHARE: usize = 4;
/// The driver looks around at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What all shards and the front have in common of shared polls.
#[derive(Debug)]
pub(crate) struct Polls {
    poller: Mutex<Poller>,
    /// There may be something to ask sooner than the driver knows.
    sooner: Notify,
    trackings: Arc<AtomicUsize>,
    allowance: Arc<Allowance>,
    pub(crate) counted: Counted,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Counted {
    /// In the order of [`ITEMS`].
    pub(crate) items: [Cell; ITEMS.len()],
    /// Of calls in rounds, and of urgent ones.
    pub(crate) errors: [Cell; 2],
    pub(crate) durations: [Spread; 2],
    /// In the order of [`PUBLICATIONS`].
    pub(crate) published: [Cell; PUBLICATIONS.len()],
}

/// What becomes of an item of an answer.
pub(crate) const ITEMS: [&str; 6] =
    ["changed", "unchanged", "removed", "stale", "unasked", "unusable"];
/// What a call is made for.
pub(crate) const TRIGGERS: [&str; 2] = ["timer", "urgent"];
/// What becomes of a publication through the API.
pub(crate) const PUBLICATIONS: [&str; 3] = ["told", "stale", "unwanted"];

impl Default for Counted {
    fn default() -> Self {
        Self {
            items: Default::default(),
            errors: Default::default(),
            durations: [(); 2].map(|()| Spread::new(REQUESTS)),
            published: Default::default(),
        }
    }
}

/// Room for what one client tracks in one channel.
#[derive(Debug)]
pub(crate) struct Room {
    count: usize,
    all: Arc<AtomicUsize>,
    _drawn: Drawn,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Ordering::Relaxed);
    }
}

impl Polls {
    pub(crate) fn new(allowance: Arc<Allowance>) -> Self {
        Self {
            poller: Mutex::new(Poller::new(Arc::clone(&allowance))),
            sooner: Notify::new(),
            trackings: Arc::default(),
            allowance,
            counted: Counted::default(),
        }
    }

    /// The poller, for work in memory. Whoever may have given it something to ask says
    /// [`Polls::sooner`] afterwards.
    pub(crate) fn poller(&self) -> MutexGuard<'_, Poller> {
        self.poller.lock()
    }

    pub(crate) fn sooner(&self) {
        self.sooner.notify_one();
    }

    /// Room for `more` trackings beside those there are, if there is some.
    pub(crate) fn fits(&self, more: usize) -> bool {
        let all = self.trackings.load(Ordering::Relaxed).saturating_add(more);
        all.saturating_mul(TRACKING_BYTES) <= self.allowance.limit() / TRACKINGS_SHARE
    }

    /// Keys that clients track, each client's counted.
    pub(crate) fn trackings(&self) -> usize {
        self.trackings.load(Ordering::Relaxed)
    }

    /// Takes room for what a client tracks now, whether or not it fits.
    pub(crate) fn room(&self, count: usize) -> Room {
        self.trackings.fetch_add(count, Ordering::Relaxed);
        let drawn = self.allowance.hold(count * TRACKING_BYTES);
        Room { count, all: Arc::clone(&self.trackings), _drawn: drawn }
    }

    /// Writes down what is polled, and what was counted.
    pub(crate) fn put_fields(&self, out: &mut Writer) {
        out.record(1, |out| self.poller().put_fields(out));
        let Counted { items, errors, durations, published } = &self.counted;
        for (tag, cells) in [(2, &items[..]), (3, &errors[..]), (4, &published[..])] {
            for cell in cells {
                out.number(tag, cell.get());
            }
        }
        for cell in durations.iter().flat_map(Spread::cells) {
            out.number(5, cell.get());
        }
    }

    /// Takes in what another process wrote down.
    pub(crate) fn take_fields(&self, mut fields: Fields<'_>) -> Result<(), Corrupt> {
        let Counted { items, errors, durations, published } = &self.counted;
        let (mut items, mut errors, mut published) =
            (items.iter(), errors.iter(), published.iter());
        let mut durations = durations.iter().flat_map(Spread::cells);
        while let Some(field) = fields.field()? {
            let cell = match field.tag {
                1 => {
                    self.poller().take_fields(field.fields("what is polled")?)?;
                    continue;
                }
                2 => items.next(),
                3 => errors.next(),
                4 => published.next(),
                5 => durations.next(),
                _ => {
                    field.pass()?;
                    continue;
                }
            };
            let count = field.number()?;
            if let Some(cell) = cell {
                cell.add_shared(count);
            }
        }
        Ok(())
    }

    fn count(&self, outcome: &Outcome) {
        let Counts { changed, unchanged, removed, stale, unasked, unusable } = outcome.counts;
        let counts = [changed, unchanged, removed, stale, unasked, unusable];
        for (cell, more) in self.counted.items.iter().zip(counts) {
            cell.add_shared(more);
        }
    }
}

impl PollOptions {
    pub(crate) fn rules(&self) -> Rules {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4);
        Rules {
            interval_ms: ms(self.refresh_interval).max(1),
            batch: self.refresh_batch_size,
            versioned: self.versioned,
            keep_ms: ms(self.channel_shutdown_delay),
        }
    }
}

impl Full {
    /// What is full, for a line of the log.
    pub(crate) fn because(self) -> &'static str {
        match self {
            Self::Channel => "the channel has 100000 keys, which is all that one may have",
            Self::Node => "this node polls 1000000 keys, which is all that one may",
            Self::Bytes => "an eighth of limits.buffer_bytes is used for keys; raise it",
        }
    }
}

/// The options of a channel of shared polls.
pub(crate) fn options<'s>(settings: &'s Settings, channel: &str) -> Option<&'s PollOptions> {
    settings.channel.resolve(channel).ok()?.options.poll.as_ref()
}

/// Asks the application, as long as this process serves.
pub(crate) async fn drive(common: Arc<Common>, clock: Clock) {
    loop {
        let sooner = common.polls.sooner.notified();
        let due_ms = {
            // While everything is frozen nobody is asked; and not once another process does it.
            let Ok(_pass) = common.pause.enter().await else { return };
            turn(&common, clock)
        };
        let now_ms = clock.now().mono_ms;
        let wait = due_ms.map_or(LOOK_EVERY, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms)).min(LOOK_EVERY)
        });
        // Whichever comes first; the time is looked at in any case.
        tokio::time::timeout(wait, sooner).await.ok();
    }
}

/// Makes the calls that are due; returns when the next one is.
fn turn(common: &Arc<Common>, clock: Clock) -> Option<u64> {
    let settings = common.settings();
    let limit = settings.shared_poll.concurrency_limit;
    let mut poller = common.polls.poller();
    let mut rules = |channel: &str| options(&settings, channel).map(PollOptions::rules);
    let asks = poller.turn(clock.now().mono_ms, limit, &mut rules);
    let due_ms = poller.next_due(limit);
    drop(poller);
    for ask in asks {
        tokio::spawn(call(Arc::clone(common), clock, ask));
    }
    due_ms
}

/// One call, and what becomes of its answer. The tasks are bounded by
/// `shared_poll.concurrency_limit`.
async fn call(common: Arc<Common>, clock: Clock, ask: poller::Ask) {
    let poller::Ask { call, channel, keys, urgent } = ask;
    let settings = common.settings();
    let begun_us = clock.us();
    let answer = match options(&settings, &channel) {
        Some(options) => {
            let versioned = options.versioned;
            let key = |(key, version)| AskedKey { key, version: versioned.then_some(version) };
            let items = keys.into_iter().map(key).collect();
            let question = Question::shared_poll_refresh(&channel, items);
            let (kind, backend) = (Kind::SharedPollRefresh, options.backend);
            let headers = Default::default();
            let call = Call { kind, backend, ask: question, headers, address: None };
            common.switchboard.answer(&call).await
        }
        None => Answer::Failed,
    };
    // Answers that come while everything is frozen wait here. Where another process has taken over,
    // it asks again.
    let Ok(_pass) = common.pause.enter().await else { return };
    let polls = &common.polls;
    let trigger = usize::from(urgent);
    polls.counted.durations[trigger].observe_shared(clock.us().saturating_sub(begun_us));
    let items = items_of(&common, &channel, answer);
    if items.is_none() {
        polls.counted.errors[trigger].add_shared(1);
    }
    // Answers are understood by the rules that hold now.
    let settings = common.settings();
    let Some(options) = options(&settings, &channel) else {
        // The namespace is no more: what was asked counts as asked in vain.
        let rules = Rules { interval_ms: 10_000, batch: 1, versioned: true, keep_ms: 0 };
        polls.poller().answered(clock.now().mono_ms, call, None, &rules);
        return polls.sooner();
    };
    let mut poller = polls.poller();
    let outcome = poller.answered(clock.now().mono_ms, call, items, &options.rules());
    // Under the lock, so that the order of the mailboxes is that of the channel.
    tell(&common, &outcome.news);
    drop(poller);
    polls.count(&outcome);
    complain(&common, &channel, options, outcome.counts);
    polls.sooner();
}

/// What an answer brings; none, and a line of the log, where it brings nothing.
fn items_of(common: &Common, channel: &ChannelName, answer: Answer) -> Option<Items> {
    let why = match answer {
        Answer::Said(said) => return Some(Items { epoch: said.epoch, items: said.items }),
        // The switchboard has said it.
        Answer::Failed => return None,
        Answer::Nothing => {
            "no result; where nothing is new it is {\"result\":{\"items\":[]}}".to_owned()
        }
        Answer::Error { code, message, .. } => format!("error {code} {message}"),
        Answer::Disconnect(why) => format!("a disconnect ({}), and there is no client", why.code),
    };
    let shown: String = channel.chars().filter(|each| !each.is_control()).take(80).collect();
    line!(
        common.log,
        Warn,
        "poll.answer",
        "the shared_poll_refresh backend answered {} for {}; clients keep what they have, and it is \
         asked again after a pause",
        why,
        shown
    );
    None
}

/// Says what an answer had that could not be used.
fn complain(common: &Common, channel: &ChannelName, options: &PollOptions, counts: Counts) {
    let shown: String = channel.chars().filter(|each| !each.is_control()).take(80).collect();
    if counts.unusable > 0 {
        debug_assert!(options.versioned, "without versions every item can be used");
        line!(
            common.log,
            Warn,
            "poll.unusable",
            "the shared_poll_refresh backend answered for {} {} items that say nothing: with \
             shared_poll.mode = \"versioned\" each needs a version of 1 or more, and data where that \
             is new. An application that does not number its data wants mode = \"versionless\"",
            shown,
            counts.unusable
        );
    }
    if counts.stale > 0 {
        line!(
            common.log,
            Warn,
            "poll.stale",
            "the shared_poll_refresh backend answered for {} {} items with older versions than \
             before, which nobody gets. Versions only grow; an application that begins to count anew \
             says so with another epoch in its result",
            shown,
            counts.stale
        );
    }
    if counts.unasked > 0 {
        line!(
            common.log,
            Warn,
            "poll.unasked",
            "the shared_poll_refresh backend answered for {} {} items that it was not asked for, or \
             twice; they are passed over",
            shown,
            counts.unasked
        );
    }
}

/// Puts news into the mailboxes of the shards that they are for. The poller is locked.
fn tell(common: &Common, news: &[News]) {
    for each in news {
        let (shards, mail): (&[u16], Box<dyn Fn() -> Mail>) = match each {
            News::Reset { shards, channel, epoch } => {
                let mail = || Mail::PollReset {
                    channel: ChannelName::clone(channel),
                    epoch: Arc::clone(epoch),
                };
                (shards, Box::new(mail))
            }
            News::Update { shards, channel, key, update } => {
                let bytes = match update {
                    Update::New { data, .. } | Update::Again { data, .. } => data.len(),
                    Update::Removed => 0,
                };
                let draw: Draw = Arc::new(common.allowance.hold(bytes));
                let name = watch::name_of(channel, key);
                let publication = Arc::new(update::publication(update));
                let mail = move || Mail::Polled {
                    name: Arc::clone(&name),
                    publication: Arc::clone(&publication),
                    draw: Arc::clone(&draw),
                };
                (shards, Box::new(mail))
            }
        };
        for shard in shards {
            if let Some(shard) = common.shards.get(usize::from(*shard)) {
                shard.post(Post::Mail(mail()));
            }
        }
    }
}

/// The application says itself what is new. The caller has passed the pause.
pub(crate) fn publish(
    common: &Common,
    channel: &ChannelName,
    item: (&str, u64, Bytes),
    epoch: &str,
) {
    let polls = &common.polls;
    let mut poller = polls.poller();
    let (place, news) = match poller.publish(channel, item, epoch) {
        Published::Told(news) => (0, news),
        Published::Stale(news) => (1, news),
        Published::Unwanted(news) => (2, news),
    };
    tell(common, &news);
    drop(poller);
    polls.counted.published[place].add_shared(1);
}

/// A new epoch: eight letters.
pub(crate) fn new_epoch(rng: &mut crate::rng::Rng) -> Arc<str> {
    (0..8)
        .map(|_| char::from(b'a' + u8::try_from(rng.below(26)).unwrap_or_default()))
        .collect::<String>()
        .into()
}

/// Seconds of the clock as the poller counts.
pub(crate) fn ms(now: Now) -> u64 {
    now.mono_ms
}
