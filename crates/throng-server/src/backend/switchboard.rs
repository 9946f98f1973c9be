//! Where the calls of all shards are made: on the front's runtime, each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use throng_hub::request::ReplyTo;
use throng_limits::Budget;
use tokio::runtime::Handle;

use super::cache::{self, Cache, Cached, Found};
use super::line::Line;
use super::{Answer, Call, Calls, Kind, Metered};
use crate::clock::Clock;
use crate::config::{Backend, BackendId, Backends, Level};
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
    exchange: RwLock<Arc<Exchange>>,
    budget: Budget,
    shards: Vec<Arc<ShardMailbox>>,
    pause: Arc<Pause>,
    log: Log,
    clock: Clock,
}

/// The backends of some settings.
#[derive(Debug)]
struct Exchange {
    /// In the order of the backends' numbers, which begin with `first`.
    lines: Vec<Arc<Line>>,
    first: u16,
    /// Of the connect backend, where `cache_ttl` is set.
    cache: Option<Arc<Cache>>,
    /// Those that were there before, for calls that were made under them; without their own.
    before: Option<Arc<Self>>,
}

impl Exchange {
    /// What goes on is taken from `old`: connections, what is counted, and what is known.
    fn of(backends: &Backends, budget: &Budget, old: Option<&Arc<Self>>) -> Self {
        let line = |backend: &Backend| {
            let same = |line: &&Arc<Line>| line.backend == *backend;
            match old.and_then(|old| old.lines.iter().find(same)) {
                Some(line) => Arc::clone(line),
                None => Arc::new(Line::new(backend.clone(), budget.clone())),
            }
        };
        let connect = backends.connect.and_then(|connect| backends.get(connect));
        let connect = connect.filter(|connect| !connect.cache_ttl.is_zero());
        let known = old.and_then(|old| {
            let there = old.lines.iter().any(|line| Some(&line.backend) == connect);
            old.cache.clone().filter(|_| there)
        });
        let cache = connect.map(|connect| {
            let new = || Arc::new(Cache::new(connect.cache_ttl, connect.stale_if_error));
            known.unwrap_or_else(new)
        });
        let before = old.map(|old| {
            let (lines, cache) = (old.lines.clone(), old.cache.clone());
            Arc::new(Self { lines, first: old.first, cache, before: None })
        });
        Self {
            lines: backends.list.iter().map(line).collect(),
            first: backends.first,
            cache,
            before,
        }
    }

    fn line(&self, id: BackendId) -> Option<&Arc<Line>> {
        self.lines.get(usize::from(id.0.wrapping_sub(self.first)))
    }
}

impl Switchboard {
    pub(crate) fn start(
        backends: &Backends,
        (shards, pause): (Vec<Arc<ShardMailbox>>, Arc<Pause>),
        runtime: Handle,
        budget: &Budget,
        (log, clock): (Log, Clock),
    ) -> Arc<Self> {
        let exchange = RwLock::new(Arc::new(Exchange::of(backends, budget, None)));
        let budget = budget.clone();
        let switchboard = Arc::new(Self { runtime, exchange, budget, shards, pause, log, clock });
        let weak = Arc::downgrade(&switchboard);
        switchboard.runtime.spawn(async move {
            let mut pace = tokio::time::interval(TIDY_EVERY);
            loop {
                pace.tick().await;
                let Some(switchboard) = weak.upgrade() else { return };
                let exchange = switchboard.exchange();
                let before = exchange.before.iter().flat_map(|before| &before.lines);
                exchange.lines.iter().chain(before).for_each(|line| line.tidy());
            }
        });
        switchboard
    }

    fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange.read())
    }

    /// Goes on with other backends. Those that are the same keep their connections; calls under way
    /// are answered by whom they asked.
    pub(crate) fn reload(&self, backends: &Backends) {
        let mut exchange = self.exchange.write();
        *exchange = Arc::new(Exchange::of(backends, &self.budget, Some(&exchange)));
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

    /// Makes a call that is no session's.
    pub(crate) async fn answer(&self, call: &Call) -> Answer {
        let exchange = self.exchange();
        let of = |exchange: &Exchange| {
            Some((Arc::clone(exchange.line(call.backend)?), exchange.cache.clone()))
        };
        let found = of(&exchange).or_else(|| exchange.before.as_deref().and_then(of));
        // A call that waited while everything was reloaded twice.
        let Some((line, cache)) = found else { return Answer::Failed };
        let line = &*line;
        let cache = cache.as_deref().filter(|_| call.kind == Kind::Connect);
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
        if let Some(cache) = &self.exchange().cache {
            cache.forget(user);
        }
    }

    /// How the calls of each backend go, in the order of the backends' numbers.
    pub(crate) fn metered(&self) -> Vec<Metered> {
        self.exchange().lines.iter().map(|line| line.metered()).collect()
    }

    /// What is counted of the calls of each kind to each backend: the backend's option, and the
    /// kind.
    pub(crate) fn calls(&self, f: &mut dyn FnMut(&str, Kind, &Calls)) {
        for line in &self.exchange().lines {
            let option = line.backend.option.as_str();
            for (kind, calls) in Kind::ALL.into_iter().zip(&line.calls) {
                f(option, kind, calls);
            }
        }
    }

    /// Every number of those that only grows, with the kind's number and its own place.
    pub(crate) fn each_number(&self, f: &mut dyn FnMut(&str, u8, usize, &Cell)) {
        self.calls(&mut |option, kind, calls| {
            calls.cells().enumerate().for_each(|(place, cell)| f(option, kind as u8, place, cell));
        });
    }

    /// What the cache of connect answers did, where there is one.
    pub(crate) fn cached(&self) -> Option<Cached> {
        self.exchange().cache.as_deref().map(Cache::counted)
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
            Kind::MapPublish => "backend.map_publish",
            Kind::MapRemove => "backend.map_remove",
            Kind::SharedPollRefresh => "backend.shared_poll_refresh",
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
