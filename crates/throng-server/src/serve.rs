//! The server from its start to its end: limits, listeners, threads, signals, and the paced close.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use throng_hub::broker::Broker;
use throng_hub::event::Mailbox as HubMailbox;
use throng_hub::memory::Memory;
use throng_hub::node::{Node, NodeSetup};
use throng_limits::{Budget, Raised};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::addresses::Addresses;
use crate::allowance::Allowance;
use crate::backend::Switchboard;
use crate::clock::Clock;
use crate::config::{Said, Settings, Sources};
use crate::desk::Desk;
use crate::front::Front;
use crate::front::gate::Gate;
use crate::handoff::pause::Pause;
use crate::handoff::{Loading, Serving};
use crate::listeners::Listeners;
use crate::log::{Log, line};
use crate::metrics::Meters;
use crate::notary::Notary;
use crate::polls::Polls;
use crate::reload::Source;
use crate::restart::channel::Channel;
use crate::restart::fault::{self, Fault};
use crate::restart::heir::Program;
use crate::restart::keeper;
use crate::restart::manager::{Manager, notify};
use crate::restart::succession::Succession;
use crate::restart::take::{Inherited, Late, TakeError, Taken, Taking};
use crate::restart::touched::Touched;
use crate::ring::Ring;
use crate::rng::system_seed;
use crate::room::{Room, backlog};
use crate::session::Open;
use crate::sessions::{Common, HubDoor, Mail, Newest, Sessions, ShardMailbox, UserCounts};
use crate::shard::{Bounds, EventLoop, Post, Shard, ShardSetup, event_loop};
use crate::shutdown;
use crate::speakers::Speakers;
use crate::watch::{End, Signals, run};

/// Locks over the channels of a node: more than threads, so that two seldom want the same.
const PARTITIONS: usize = 64;

/// What to serve.
#[derive(Debug)]
pub struct ServeOptions {
    pub settings: Settings,
    /// In development mode, a port that is taken is no reason to give up.
    pub any_port: bool,
    /// How this program is called from any directory; the playground shows it.
    pub command: String,
    /// The program and its arguments, by which a restart starts it again; none: no restarts.
    pub program: Option<Program>,
    /// Who watches this process.
    pub watched_by: Manager,
    /// Where the settings come from and what they set, for a reload; none: no reloads.
    pub source: Option<(Sources, Said)>,
}

/// Why the server could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {error}{}", in_the_way(.holder.as_deref(), .option))]
    Listen { address: String, error: io::Error, holder: Option<String>, option: &'static str },
    #[error("cannot start {what}: {error}")]
    Start { what: &'static str, error: io::Error },
    #[error("{0} - or unset limits.strict to start with fewer")]
    Room(String),
    #[error("the log {path}: {error}")]
    Log { path: String, error: io::Error },
    #[error(transparent)]
    Take(#[from] TakeError),
}

/// Who holds the port, and what to do about it.
fn in_the_way(holder: Option<&str>, option: &str) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(" - {holder} holds it; stop it, or set {option}")
    })
}

/// What the server is, told to the caller once it listens.
#[derive(Debug, Clone)]
pub struct Started {
    pub address: SocketAddr,
    pub internal: Option<SocketAddr>,
    /// The port that was wanted and taken, and by whom, when another was used.
    pub taken: Option<(u16, String)>,
    /// What came from the process before this one, if there was one.
    pub took_over: Option<TookOver>,
    /// Clients that fit.
    pub clients: u64,
    /// The descriptor limit.
    pub descriptors: u64,
    /// What became of the limit, and who had it first, as far as can be seen.
    pub limit_from: String,
    /// How to have more, where there are few.
    pub more: Option<String>,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: u64,
}

/// What was taken over from another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TookOver {
    /// That process.
    pub from: u32,
    pub connections: u64,
}

/// Runs the server until it is told to stop. `started` is called once, when it listens.
///
/// # Errors
/// When it cannot start.
pub fn serve(
    options: ServeOptions,
    log: &Log,
    started: impl FnOnce(&Started),
) -> Result<(), ServeError> {
    serve_until(options, log, started, std::future::pending())
}

/// Runs the server until `stop` is over, as well as until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn serve_until(
    options: ServeOptions,
    log: &Log,
    started: impl FnOnce(&Started),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let inherited = if options.program.is_some() {
        Inherited::claim().map_err(|error| ServeError::Start { what: "the channel", error })?
    } else {
        Inherited::default()
    };
    let mut succession = Succession::new(options.program.clone(), options.watched_by, log.clone());
    succession.keeper = inherited.keeper.map(Arc::new);
    match inherited.predecessor {
        None => begin(options, succession, (log, started), stop),
        Some(channel) => take_over(options, channel, succession, (log, started), stop),
    }
}

/// A server that starts from nothing.
fn begin(
    options: ServeOptions,
    succession: Succession,
    (log, started): (&Log, impl FnOnce(&Started)),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let limit = Room::raise(log);
    let (listeners, taken) = Listeners::open(&options.settings, options.any_port)?;
    let built = Built::new(options, &listeners, limit, (log, Clock::start()))?;
    let threads = start_shards(built.shards, log)?;
    let told = Started { taken, ..built.told };
    started(&told);
    if let Err(error) = notify("READY=1") {
        line!(log, Warn, "notify", "systemd cannot be told that this is ready: {}", error);
    }
    let signals = signals(&built.runtime, &succession, log)?;
    let Built { runtime, front, room, .. } = built;
    let end = Running { runtime, front, room, threads, signals };
    end.until_the_end(listeners, succession, stop)
}

/// A server that another process hands everything to.
fn take_over(
    options: ServeOptions,
    channel: Channel,
    mut succession: Succession,
    (log, started): (&Log, impl FnOnce(&Started)),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let limit = Room::raise(log);
    let mut taking = Taking::begin(channel, limit.is.soft)?;
    if let Some(keeper) = taking.keeper.take() {
        succession.keeper = Some(Arc::new(keeper));
        succession.watched_by = Manager::Kept;
    }
    let inherited = std::mem::take(&mut taking.listeners);
    let clock = Clock::resume(taking.uptime_ms);
    let built =
        Listeners::inherit(inherited, &options.settings, options.any_port).and_then(|own| {
            let built = Built::new(options, &own, limit, (log, clock))?;
            Ok((own, built))
        });
    let (listeners, built) = built.map_err(|error| taking.refuse(error.to_string()))?;
    let Built { runtime, front, shards, room, told } = built;
    let loading = Loading::prepare(Parts { front, shards });
    let loading = loading.map_err(|error| taking.refuse(error.to_string()))?;
    let loaded = match taking.receive(&loading)? {
        Taken::Rehearsed => return Ok(()),
        Taken::Everything(loaded) => loaded,
    };
    let witness = taking.touched.take().map(Touched::witness);
    // Whoever is told of this process, as soon as it serves, may send it a signal.
    let signals = signals(&runtime, &succession, log);
    let signals = signals.map_err(|error| taking.refuse(error.to_string()))?;
    fault::strike(Fault::ExitBeforeAck);
    fault::strike(Fault::HangBeforeAck);
    taking.acknowledge(loaded.connections)?;
    fault::strike(Fault::ExitAfterAck);
    let Serving { front, threads } = loading.serve(witness);
    // Clients over gRPC that came with it: their connections are the other process's.
    let last = front.last_number.load(Ordering::Relaxed);
    front.common.meters.took_over();
    runtime.spawn(shutdown::send_back_bridged(Arc::clone(&front), last));
    if let Some(keeper) = &succession.keeper {
        tell_keeper(keeper, log);
    }
    let serving = Arc::new(Serving { front: Arc::clone(&front), threads: Vec::new() });
    let late = Late { serving, log: log.clone(), runtime: runtime.handle().clone() };
    let predecessor = taking.hear(late);
    succession.predecessor =
        Some(predecessor.map_err(|error| ServeError::Start { what: "a thread", error })?);
    let took_over =
        TookOver { from: std::os::unix::process::parent_id(), connections: loaded.connections };
    started(&Started { took_over: Some(took_over), ..told });
    Running { runtime, front, room, threads, signals }.until_the_end(listeners, succession, stop)
}

/// A server that has been put together, and what to say of it.
struct Built {
    runtime: Runtime,
    front: Arc<Front>,
    shards: Vec<Shard<Sessions>>,
    room: Room,
    told: Started,
}

impl Built {
    fn new(
        options: ServeOptions,
        listeners: &Listeners,
        limit: Raised,
        (log, clock): (&Log, Clock),
    ) -> Result<Self, ServeError> {
        let mut settings = options.settings;
        if settings.node_name.is_empty() {
            settings.node_name = format!("{}_{}", host_name(), listeners.address.port());
        }
        let settings = Arc::new(settings);
        let runtime = front_runtime()
            .map_err(|error| ServeError::Start { what: "the front's threads", error })?;
        let room = Room::measure(limit, settings.limits.shards);
        let budget = room.budget(&settings, log).map_err(ServeError::Room)?;
        let seats = Seats { log, clock, budget };
        let Parts { front, shards } =
            assemble(&settings, &seats, runtime.handle(), options.command)?;
        if let Some((sources, said)) = options.source {
            // Nobody else sets it.
            front.source.set(Source::new(sources, said)).ok();
        }
        let told = Started {
            address: listeners.address,
            internal: listeners.internal_address,
            taken: None,
            took_over: None,
            clients: front.clients.ceiling(),
            descriptors: room.descriptors(),
            limit_from: room.story(),
            more: room.more(),
            backlog: backlog(listeners.public(), listeners.address),
        };
        Ok(Self { runtime, front, shards, room, told })
    }
}

/// A server whose shards run.
struct Running {
    runtime: Runtime,
    front: Arc<Front>,
    room: Room,
    threads: Threads,
    signals: Signals,
}

impl Running {
    fn until_the_end(
        self,
        listeners: Listeners,
        succession: Succession,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self { runtime, front, room, threads, signals } = self;
        let log = front.common.log.clone();
        let served = async { run(&front, listeners, room, (signals, succession, stop)).await };
        let end = runtime
            .block_on(served)
            .map_err(|error| ServeError::Start { what: "the front", error })?;
        match end {
            End::Stopped => stop_shards(&front, threads),
            // The shards stand still, and end with the process.
            End::HandedOver => line!(log, Info, "handed.over", "this process has ended its part"),
        }
        log.finish(Duration::from_secs(2));
        Ok(())
    }
}

/// Begins to listen to signals.
fn signals(runtime: &Runtime, succession: &Succession, log: &Log) -> Result<Signals, ServeError> {
    let _within = runtime.enter();
    Signals::listen(succession.keeper.as_deref(), log)
        .map_err(|error| ServeError::Start { what: "signals", error })
}

fn tell_keeper(keeper: &Arc<OwnedFd>, log: &Log) {
    if let Err(error) = keeper::tell(keeper, &keeper::News::serving(std::process::id())) {
        line!(
            log,
            Error,
            "keeper",
            "the parent that stays was not told that this process serves, and ends with the old one: {}",
            error
        );
    }
}

/// The machine's name.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn front_runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Most of what the front does is short; shards do the work that grows with the crowd.
    Builder::new_multi_thread()
        .worker_threads((cores / 4).clamp(1, 8))
        .max_blocking_threads(4)
        .thread_name("front")
        .enable_all()
        .build()
}

type Threads = Vec<JoinHandle<io::Result<()>>>;

/// A server that has been put together, of which nothing runs yet.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) front: Arc<Front>,
    pub(crate) shards: Vec<Shard<Sessions>>,
}

/// What a server is put into.
#[derive(Debug)]
pub(crate) struct Seats<'a> {
    pub(crate) log: &'a Log,
    pub(crate) clock: Clock,
    pub(crate) budget: Budget,
}

/// Puts a server together.
pub(crate) fn assemble(
    settings: &Arc<Settings>,
    seats: &Seats<'_>,
    runtime: &Handle,
    command: String,
) -> Result<Parts, ServeError> {
    let (common, loops) = common(settings, seats, runtime)?;
    let clock = seats.clock;
    let shards = (0_u16..).zip(loops).map(|(number, event_loop)| {
        let setup = ShardSetup {
            bounds: bounds(settings),
            allowance: Arc::clone(&common.allowance),
            log: seats.log.clone(),
            seed: system_seed(),
        };
        Shard::new(event_loop, setup, clock, Sessions::new(Arc::clone(&common), number))
    });
    let shards = shards.collect();
    let front = Arc::new(Front {
        clock,
        gate: Gate::new(seats.budget.clone()),
        clients: seats.budget.clone(),
        last_number: AtomicU64::new(0),
        next_shard: AtomicUsize::new(0),
        draining: AtomicBool::new(false),
        arrivals: crate::front::arrivals::Arrivals::default(),
        undeclared: crate::front::address::Undeclared::default(),
        addresses: Addresses::new(settings.limits.per_address),
        source: OnceLock::new(),
        command,
        doors: OnceLock::new(),
        common,
    });
    Ok(Parts { front, shards })
}

type Loops = Vec<EventLoop<Open, Mail>>;

/// What the shards have in common, and the event loops that they will have.
fn common(
    settings: &Arc<Settings>,
    Seats { log, clock, budget }: &Seats<'_>,
    runtime: &Handle,
) -> Result<(Arc<Common>, Loops), ServeError> {
    let start = |error| ServeError::Start { what: "a shard", error };
    let count = settings.limits.shards.clamp(1, usize::from(u16::MAX) - 1);
    let mut loops = Vec::with_capacity(count);
    for _ in 0..count {
        loops.push(event_loop().map_err(start)?);
    }
    let shards: Vec<Arc<ShardMailbox>> =
        loops.iter().map(|(_, mailbox)| Arc::clone(mailbox)).collect();
    let desk = Desk::new(u16::try_from(count).unwrap_or(u16::MAX));
    let mut mailboxes: Vec<Arc<dyn HubMailbox>> = Vec::with_capacity(count + 1);
    for shard in &shards {
        mailboxes.push(Arc::new(HubDoor(Arc::clone(shard), *clock)));
    }
    mailboxes.push(Arc::clone(&desk) as Arc<dyn HubMailbox>);
    let memory = Arc::new(Memory::new(PARTITIONS, system_seed()));
    let broker = Arc::clone(&memory) as Arc<dyn Broker>;
    let setup = NodeSetup { mailboxes, broker, partitions: PARTITIONS, seed: system_seed() };
    let pause = Arc::<Pause>::default();
    let allowance = Allowance::new(settings.limits.buffer_bytes);
    let switchboard = Switchboard::start(
        &settings.backends,
        (shards.clone(), Arc::clone(&pause)),
        runtime.clone(),
        budget,
        ((*log).clone(), *clock),
    );
    let notary = Notary::start(
        settings,
        (shards.clone(), Arc::clone(&pause)),
        runtime.clone(),
        budget,
        ((*log).clone(), *clock),
    )
    .map_err(|error| ServeError::Start { what: "a thread for tokens", error })?;
    let node = Arc::new(Node::new(setup));
    node.limit_maps(settings.limits.map_bytes);
    let common = Arc::new(Common {
        switchboard,
        notary,
        node,
        memory,
        pause,
        awaited: Mutex::default(),
        stands: Mutex::default(),
        current: RwLock::new(Arc::clone(settings)),
        polls: Polls::new(Arc::clone(&allowance)),
        allowance,
        desk,
        log: (*log).clone(),
        user_counts: UserCounts::default(),
        newest: Newest::default(),
        shards,
        clients: AtomicUsize::new(0),
        published: AtomicU64::new(0),
        ring: Ring::default(),
        speakers: Speakers::default(),
        uid: OnceLock::new(),
        meters: Meters::new(*clock, count, crate::front::API_METHODS),
    });
    Ok((common, loops))
}

pub(crate) fn start_shards(shards: Vec<Shard<Sessions>>, log: &Log) -> Result<Threads, ServeError> {
    let start = |error| ServeError::Start { what: "a shard", error };
    let mut threads = Vec::with_capacity(shards.len());
    for (number, shard) in shards.into_iter().enumerate() {
        let log = log.clone();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || alive(&log, || shard.run()))
            .map_err(start)?;
        threads.push(thread);
    }
    Ok(threads)
}

/// Invariant ALIVE: a panic outside one connection's input ends the process, so that there is
/// never a dead shard behind a healthy `/health`.
pub(crate) fn alive<T>(log: &Log, f: impl FnOnce() -> T) -> T {
    struct Abort<'a>(&'a Log);
    impl Drop for Abort<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                line!(
                    self.0,
                    Fatal,
                    "shard.panic",
                    "a bug: a shard panicked, and the process ends with it so that it is restarted"
                );
                self.0.finish(Duration::from_secs(1));
                std::process::abort();
            }
        }
    }
    let _abort = Abort(log);
    f()
}

fn bounds(settings: &Settings) -> Bounds {
    let message_max =
        settings.websocket.message_size_limit.max(settings.uni_websocket.message_size_limit);
    let inflated_max =
        settings.websocket.inflated_size_limit.max(settings.uni_websocket.inflated_size_limit);
    Bounds {
        inflated_max,
        message: throng_wire::websocket::Limits { message_max },
        outbox_bytes_max: settings.client.queue_max_size,
        incomplete_message: settings.limits.incomplete_message_timeout,
        close: settings.limits.close_timeout,
    }
}

fn stop_shards(front: &Front, threads: Threads) {
    let log = &front.common.log;
    let left = front.clients.open();
    if left > 0 {
        line!(
            log,
            Warn,
            "stop.left",
            "{} clients did not take their close in time and are cut off",
            left
        );
        // Their sockets close with the process.
        return;
    }
    for shard in &front.common.shards {
        shard.post(Post::Stop);
    }
    for thread in threads {
        if let Ok(Err(error)) = thread.join() {
            line!(log, Error, "shard.failed", "a shard's event queue failed: {}", error);
        }
    }
    line!(log, Info, "stopped", "stopped");
}
