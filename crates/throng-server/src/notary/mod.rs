//! The notary: where signatures are looked at that take more than a moment, and where the public keys
//! for it are kept.
//!
//! A shard leaves a token with a number, like a question to a backend, and is answered by mail. The
//! work is done by few threads that yield to everybody else: a wave of clients that come back
//! together waits here, and not in front of what the others are sent. Who waits is bounded, and a token
//! whose client is gone is passed over.

mod fetch;
mod sets;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use throng_hub::request::ReplyTo;
use throng_limits::{Budget, Guarantees};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{KeysUrl, Settings, Token};
use crate::handoff::pause::{Pass, Pause};
use crate::log::{Level, Line, Log};
use crate::sessions::{Mail, ShardMailbox};
use crate::shard::Post;
use crate::token::{Algorithm, KeySet, SetKey, TokenError, Way};

use self::fetch::Fetcher;
use self::sets::{Fetch, Found, Refusal, Sets};

/// Tokens that may wait; each belongs to a client that waits for it, or has just gone.
const WAITING_MAX: usize = 65_536;
/// How often a thread looks whether the process to which everything has moved has died.
const MOVED_LOOK: Duration = Duration::from_millis(50);
/// Descriptors of one fetch by hand: resolving and one connection, with room.
const ALONE: u64 = 64;
/// How much the threads yield to others, as `nice` counts: a tenth of a core where all are wanted.
const NICENESS: i32 = 10;

/// A token whose signature is to be looked at.
#[derive(PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) purpose: Purpose,
    pub(crate) token: Box<str>,
}

/// Which keys a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Connection,
    Subscription,
}

impl Purpose {
    /// Its keys and what else its tokens must have.
    pub(crate) fn keys(self, settings: &Settings) -> &Token {
        let client = &settings.client;
        match self {
            Self::Connection => &client.token,
            Self::Subscription => client.subscription_token.as_ref().unwrap_or(&client.token),
        }
    }
}

/// The token is left out: it is a secret.
impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The signature fits.
    Genuine,
    /// It does not; the reason is for the log.
    Forged(Box<str>),
    /// Its key is not to be had now; the reason is for the log.
    Unknown(Box<str>),
    /// Too many wait.
    Busy,
}

/// What the notary did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) genuine: u64,
    pub(crate) forged: u64,
    /// Could not be looked at: no key, or too many waiting.
    pub(crate) unknown: u64,
    /// Passed over, because the client had gone.
    pub(crate) gone: u64,
    pub(crate) waiting: usize,
    /// Sets of keys that were asked for, and those of them that did not come.
    pub(crate) fetches: u64,
    pub(crate) fetches_failed: u64,
}

/// Looks at signatures.
#[derive(Debug)]
pub(crate) struct Notary {
    office: Arc<Office>,
}

#[derive(Debug)]
struct Office {
    settings: RwLock<Arc<Settings>>,
    /// Whether its threads run.
    staffed: AtomicBool,
    desk: Mutex<Pile>,
    bell: Condvar,
    sets: Mutex<Sets<Case>>,
    fetcher: Fetcher,
    runtime: Handle,
    shards: Vec<Arc<ShardMailbox>>,
    pause: Arc<Pause>,
    log: Log,
    clock: Clock,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    genuine: AtomicU64,
    forged: AtomicU64,
    unknown: AtomicU64,
    gone: AtomicU64,
    waiting: AtomicUsize,
    fetches: AtomicU64,
    fetches_failed: AtomicU64,
}

/// What waits for a thread.
#[derive(Debug, Default)]
struct Pile {
    works: VecDeque<Work>,
    is_closed: bool,
}

/// A token and who is to be told. Its session has the token, so one whose client is gone is none.
#[derive(Debug)]
struct Case {
    check: Weak<Check>,
    to: ReplyTo,
}

#[derive(Debug)]
enum Work {
    New(Case),
    /// Its key has come.
    Keyed(Case, Algorithm, Arc<SetKey>),
    /// Its key will not come.
    Hopeless(Case, Proof),
}

impl Notary {
    /// Starts its threads, where some token may be signed with a private key.
    pub(crate) fn start(
        settings: &Arc<Settings>,
        (shards, pause): (Vec<Arc<ShardMailbox>>, Arc<Pause>),
        runtime: Handle,
        budget: &Budget,
        (log, clock): (Log, Clock),
    ) -> std::io::Result<Arc<Self>> {
        let office = Arc::new(Office {
            settings: RwLock::new(Arc::clone(settings)),
            staffed: AtomicBool::new(false),
            desk: Mutex::default(),
            bell: Condvar::new(),
            sets: Mutex::default(),
            fetcher: Fetcher::new(budget.clone()),
            runtime,
            shards,
            pause,
            log,
            clock,
            counts: Counts::default(),
        });
        let notary = Arc::new(Self { office });
        notary.staff(settings)?;
        Ok(notary)
    }

    /// Starts the threads where they are needed and do not run yet.
    fn staff(&self, settings: &Settings) -> std::io::Result<()> {
        let office = &self.office;
        if !settings.checks_signatures() || office.staffed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..cores.div_ceil(2) {
            let office = Arc::clone(office);
            std::thread::Builder::new()
                .name(format!("notary-{number}"))
                .spawn(move || office.work())?;
        }
        Ok(())
    }

    /// Goes on with other settings.
    ///
    /// # Errors
    /// When they need threads, and none can be started; then nothing has changed.
    pub(crate) fn reload(&self, settings: &Arc<Settings>) -> std::io::Result<()> {
        self.staff(settings)?;
        *self.office.settings.write() = Arc::clone(settings);
        Ok(())
    }

    /// Takes a token in; the answer comes by mail. Never waits.
    pub(crate) fn check(&self, check: &Arc<Check>, to: ReplyTo) {
        let office = &self.office;
        let case = Case { check: Arc::downgrade(check), to };
        // Told from the shard's own thread, these need no pass.
        if office.counts.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            office.tell(&case, Proof::Busy);
        } else if office.staffed.load(Ordering::Relaxed) {
            office.put(Work::New(case));
        } else {
            // It came from a process with other settings; no thread runs, and none is needed.
            let settings = office.settings();
            office.tell(&case, office.shared(check.purpose.keys(&settings), check));
        }
    }

    /// What it did so far.
    pub(crate) fn counted(&self) -> Counted {
        let counts = &self.office.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            genuine: read(&counts.genuine),
            forged: read(&counts.forged),
            unknown: read(&counts.unknown),
            gone: read(&counts.gone),
            waiting: counts.waiting.load(Ordering::Relaxed),
            fetches: read(&counts.fetches),
            fetches_failed: read(&counts.fetches_failed),
        }
    }
}

impl Drop for Notary {
    fn drop(&mut self) {
        self.office.desk.lock().is_closed = true;
        self.office.bell.notify_all();
    }
}

impl Office {
    fn put(&self, work: Work) {
        self.desk.lock().works.push_back(work);
        self.bell.notify_one();
    }

    /// What a thread does until the notary is gone.
    fn work(self: Arc<Self>) {
        // On Linux this is the thread's own. Where it is not allowed, nothing else changes.
        rustix::process::setpriority_process(None, NICENESS).ok();
        loop {
            let mut desk = self.desk.lock();
            let work = loop {
                if desk.is_closed {
                    return;
                }
                match desk.works.pop_front() {
                    Some(work) => break work,
                    None => self.bell.wait(&mut desk),
                }
            };
            drop(desk);
            // While everything is frozen nothing is looked at, and nobody is told.
            let Some(_pass) = self.pass() else { return };
            // Invariant ALIVE: what one token sets off ends neither the process nor this thread.
            let (Work::New(case) | Work::Keyed(case, ..) | Work::Hopeless(case, _)) = &work;
            let again = Case { check: Weak::clone(&case.check), to: case.to };
            if catch_unwind(AssertUnwindSafe(|| self.attend(work))).is_err() {
                self.log.line(&Line {
                    level: Level::Error,
                    key: "token.panic",
                    message: format_args!(
                        "a bug: a panic while a token was checked; it is refused"
                    ),
                    fields: &[],
                });
                self.tell(&again, Proof::Forged("a bug: a panic while it was checked".into()));
            }
        }
    }

    /// The right to use the shards; none: the notary is gone.
    fn pass(&self) -> Option<Pass<'_>> {
        loop {
            match self.pause.try_enter() {
                Some(Ok(pass)) => return Some(pass),
                None => match self.runtime.block_on(self.pause.enter()) {
                    Ok(pass) => return Some(pass),
                    Err(_moved) => {}
                },
                // Everything has moved to another process, which looks for itself. Should it die, the
                // sessions here still wait for what is on the desk.
                Some(Err(_moved)) => {
                    let mut desk = self.desk.lock();
                    if desk.is_closed {
                        return None;
                    }
                    self.bell.wait_for(&mut desk, MOVED_LOOK);
                }
            }
        }
    }

    fn attend(self: &Arc<Self>, work: Work) {
        match work {
            Work::New(case) => {
                let Some(check) = case.check.upgrade() else { return self.pass_over() };
                self.look(case, &check);
            }
            Work::Keyed(case, algorithm, key) => {
                let Some(check) = case.check.upgrade() else { return self.pass_over() };
                let verified = Token::verify_with(&check.token, algorithm, &key);
                self.tell(&case, proof(verified));
            }
            Work::Hopeless(case, proof) => self.tell(&case, proof),
        }
    }

    fn look(self: &Arc<Self>, case: Case, check: &Check) {
        let settings = self.settings();
        let keys = check.purpose.keys(&settings);
        let (algorithm, url, kid) = match keys.way(&check.token) {
            Ok(Way::Set { algorithm, url, kid }) => (algorithm, url, kid),
            Ok(Way::Secret(_) | Way::Key(..)) => {
                return self.tell(&case, self.shared(keys, check));
            }
            Err(error) => return self.tell(&case, proof(Err(error))),
        };
        let now_ms = self.clock.now().mono_ms;
        let (found, fetch) = self.sets.lock().find(url, &kid, case, now_ms);
        match found {
            Found::Key(key, case) => {
                self.tell(&case, proof(Token::verify_with(&check.token, algorithm, &key)));
            }
            Found::Waits => {}
            Found::Refused(refusal, case) => {
                self.tell(&case, refused(keys.option, &refusal));
            }
        }
        if let Some(fetch) = fetch {
            self.fetch(fetch, keys.option);
        }
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Looks at a signature whose key is here.
    fn shared(&self, keys: &Token, check: &Check) -> Proof {
        let now_s = self.clock.now().unix_ms / 1000;
        proof(keys.prove(&check.token, now_s))
    }

    /// The client has gone.
    fn pass_over(&self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        self.counts.gone.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, case: &Case, proof: Proof) {
        let counts = &self.counts;
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
        let count = match proof {
            Proof::Genuine => &counts.genuine,
            Proof::Forged(_) => &counts.forged,
            Proof::Unknown(_) | Proof::Busy => &counts.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.shards.get(usize::from(case.to.mailbox)) {
            shard.post(Post::Mail(Mail::Proof { to: case.to, proof }));
        }
    }

    /// Asks a place for its keys, now or when it may be asked again. Bounded by the places that are
    /// remembered, each of which is asked once at a time.
    fn fetch(self: &Arc<Self>, fetch: Fetch, option: &'static str) {
        let office = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(fetch.delay_ms)).await;
            let Some(office) = office.upgrade() else { return };
            let answer = office.fetcher.fetch(&fetch.url).await;
            office.counts.fetches.fetch_add(1, Ordering::Relaxed);
            office.note(&fetch, option, answer.as_ref());
            let now_ms = office.clock.now().mono_ms;
            let landed = office.sets.lock().landed(&fetch.url, answer, now_ms);
            for (case, key) in landed {
                let Some(check) = case.check.upgrade() else {
                    office.pass_over();
                    continue;
                };
                let settings = office.settings();
                let keys = check.purpose.keys(&settings);
                let work = match (key, keys.way(&check.token)) {
                    (Ok(key), Ok(Way::Set { algorithm, .. })) => Work::Keyed(case, algorithm, key),
                    (Ok(_), _) => Work::New(case),
                    (Err(refusal), _) => Work::Hopeless(case, refused(keys.option, &refusal)),
                };
                office.put(work);
            }
        });
    }

    /// Invariant NO-SILENCE: what came to nothing has a line that names the option.
    fn note(&self, fetch: &Fetch, option: &str, answer: Result<&KeySet, &String>) {
        let url = &fetch.url;
        match answer {
            Err(why) => {
                self.counts.fetches_failed.fetch_add(1, Ordering::Relaxed);
                self.log.line(&Line {
                    level: Level::Warn,
                    key: "token.keys",
                    message: format_args!(
                        "the keys of tokens: {url} {why}; {option}.jwks_public_endpoint"
                    ),
                    fields: &[],
                });
            }
            Ok(set) if set.len() == 0 || !set.left_out.is_empty() => {
                let first = set.left_out.first().map_or("it is empty", String::as_str);
                self.log.line(&Line {
                    level: if set.len() == 0 { Level::Warn } else { Level::Info },
                    key: "token.keys",
                    message: format_args!(
                        "the keys of tokens: {url} has {} that can be used, and {} that cannot: \
                         {first}; {option}.jwks_public_endpoint",
                        set.len(),
                        set.left_out.len()
                    ),
                    fields: &[],
                });
            }
            Ok(_) => {}
        }
    }
}

/// Fetches a set by hand, as the server would. Blocks. The error is a sentence whose subject is the
/// place.
pub(crate) fn fetch_once(url: &KeysUrl) -> Result<KeySet, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot be asked: {error}"))?;
    let budget = Budget::with(ALONE, Guarantees::of(ALONE));
    let fetched = runtime.block_on(Fetcher::new(budget).fetch(url));
    // A name that is still being looked up must not hold up the answer.
    runtime.shutdown_background();
    fetched
}

/// What a set without the key means for a token; `option` is where its place is named.
fn refused(option: &str, refusal: &Refusal) -> Proof {
    match refusal {
        Refusal::Unknown => Proof::Forged(
            format!("no key of {option}.jwks_public_endpoint has the token's kid").into(),
        ),
        Refusal::NotYet(seconds) => Proof::Unknown(
            format!(
                "no key of {option}.jwks_public_endpoint has the token's kid, and it is asked \
                 again in {seconds} s"
            )
            .into(),
        ),
        Refusal::Unreachable(why) => {
            Proof::Unknown(format!("{option}.jwks_public_endpoint {why}").into())
        }
        Refusal::Full => Proof::Unknown(
            format!("too many places of {option}.jwks_public_endpoint are asked").into(),
        ),
    }
}

fn proof(verified: Result<(), TokenError>) -> Proof {
    match verified {
        Ok(()) => Proof::Genuine,
        Err(TokenError::Invalid(why)) => Proof::Forged(why.into()),
        Err(error) => Proof::Unknown(error.to_string().into()),
    }
}
