//! Where the calls of all shards are made: on the front's runtime, each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use throng_hub::request::ReplyTo;
use throng_limits::Budget;
use tokio::runtime::Handle;

use super::cache::{self, Cache, Cached, Found};
use super::line::Line;
use super::{Answer, Call, Calls, Kind, Metered};
use crate::clock::Clock;
use crate::config::{Backend, Backends, Level};
use crate::handoff::pause::{Moved, Pause};
use crate::handoff::put_answer;
use crate::log::{Line as LogLine, Log};
use crate::metrics::Cell;
use crate::sessions::{Mail, ShardMailbox};
use crate::shard::Post;

/// How often connections that nobody uses are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// All backends.
#[derive(Debug)]
pub(crate) struct Switchboard {
    runtime: Handle,
    /// In the order of the backends' numbers.
    lines: Vec<Line>,
    shards: Vec<Arc<ShardMailbox>>,
    pause: Arc<Pause>,
    log: Log,
    clock: Clock,
    /// Of the connect backend, where `cache_ttl` is set.
    cache: Option<Cache>,
}

impl Switchboard {
    pub(crate) fn start(
        backends: &Backends,
        (shards, pause): (Vec<Arc<ShardMailbox>>, Arc<Pause>),
        runtime: Handle,
        budget: &Budget,
        (log, clock): (Log, Clock),
    ) -> Arc<Self> {
        let line = |backend: &Backend| Line::new(backend.clone(), budget.clone());
        let lines: Vec<Line> = backends.list.iter().map(line).collect();
        let cache = backends
            .connect
            .and_then(|connect| backends.get(connect))
            .filter(|connect| !connect.cache_ttl.is_zero())
            .map(|connect| Cache::new(connect.cache_ttl, connect.stale_if_error));
        let switchboard = Arc::new(Self { runtime, lines, shards, pause, log, clock, cache });
        if !switchboard.lines.is_empty() {
            let weak = Arc::downgrade(&switchboard);
            switchboard.runtime.spawn(async move {
                let mut pace = tokio::time::interval(TIDY_EVERY);
                loop {
                    pace.tick().await;
                    let Some(switchboard) = weak.upgrade() else { return };
                    switchboard.lines.iter().for_each(Line::tidy);
                }
            });
        }
        switchboard
    }

    /// Makes a call and mails its answer. A connection has few calls under way at once, so the
    /// tasks are bounded by the crowd, and those that reach a backend by its `max_in_flight`.
    pub(crate) fn call(self: &Arc<Self>, call: Call, to: ReplyTo) {
        let switchboard = Arc::clone(self);
        self.runtime.spawn(async move {
            let answer = switchboard.answer(&call).await;
            match switchboard.pause.enter().await {
                Ok(_pass) => {
                    if let Some(shard) = switchboard.shards.get(usize::from(to.mailbox)) {
                        shard.post(Post::Mail(Mail::Backend { to, answer }));
                    }
                }
                Err(Moved(outlet)) => {
                    outlet.backend_answer(put_answer(to.number, to.ticket, &answer));
                }
            }
        });
    }

    async fn answer(&self, call: &Call) -> Answer {
        // A bug of ours, should it be missing: settings and lines are made from one list.
        let Some(line) = self.lines.get(usize::from(call.backend.0)) else {
            return Answer::Failed;
        };
        let cache = self.cache.as_ref().filter(|_| call.kind == Kind::Connect);
        let Some((cache, key)) = cache.and_then(|cache| Some((cache, cache::key(call)?))) else {
            return self.ask(call, line).await;
        };
        match cache.find(&key, self.clock.now()) {
            Found::Kept(answer) => answer,
            Found::Asked(mut flight) => {
                let landed = flight.wait_for(Option::is_some).await;
                // Without one its task has ended by a bug of ours.
                landed.ok().and_then(|answer| (*answer).clone()).unwrap_or(Answer::Failed)
            }
            Found::Ask(flight) => {
                let answer = self.ask(call, line).await;
                cache.land(flight, answer, self.clock.now())
            }
        }
    }

    /// Forgets what the connect backend answered about a user: one who is sent away does not
    /// return without being asked about.
    pub(crate) fn forget(&self, user: &str) {
        if let Some(cache) = &self.cache {
            cache.forget(user);
        }
    }

    /// How the calls of each backend go, in the order of the backends' numbers.
    pub(crate) fn metered(&self) -> Vec<Metered> {
        self.lines.iter().map(Line::metered).collect()
    }

    /// What is counted of the calls of each kind to each backend: the backend's option, and the
    /// kind.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&str, Kind, &Calls)> {
        self.lines.iter().flat_map(|line| {
            let option = line.backend.option.as_str();
            Kind::ALL.into_iter().zip(&line.calls).map(move |(kind, calls)| (option, kind, calls))
        })
    }

    /// Every number of those that only grows, with the kind's number and its own place.
    pub(crate) fn each_number(&self, f: &mut dyn FnMut(&str, u8, usize, &Cell)) {
        for (option, kind, calls) in self.calls() {
            calls.cells().enumerate().for_each(|(place, cell)| f(option, kind as u8, place, cell));
        }
    }

    /// What the cache of connect answers did, where there is one.
    pub(crate) fn cached(&self) -> Option<Cached> {
        self.cache.as_ref().map(Cache::counted)
    }

    async fn ask(&self, call: &Call, line: &Line) -> Answer {
        match line.call(call).await {
            Ok(answer) => answer,
            Err(why) => {
                self.say(call.kind, line, &why);
                Answer::Failed
            }
        }
    }

    /// Invariant NO-SILENCE: a call that came to nothing has a line that names the option.
    fn say(&self, kind: Kind, line: &Line, why: &str) {
        let key = match kind {
            Kind::Connect => "backend.connect",
            Kind::Refresh => "backend.refresh",
            Kind::Subscribe => "backend.subscribe",
            Kind::Publish => "backend.publish",
            Kind::Rpc => "backend.rpc",
            Kind::SubRefresh => "backend.sub_refresh",
        };
        let (name, endpoint) = (kind.name(), &line.backend.endpoint);
        let option = &line.backend.option;
        self.log.line(&LogLine {
            level: Level::Warn,
            key,
            message: format_args!("{name} backend {endpoint}: {why}; {option}.endpoint"),
            fields: &[],
        });
    }
}
