//! The server from its start to its end: limits, listeners, threads, signals, and the paced close.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use throng_hub::event::Mailbox as HubMailbox;
use throng_hub::memory::Memory;
use throng_hub::node::{Node, NodeSetup};
use throng_limits::Budget;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::addresses::Addresses;
use crate::allowance::Allowance;
use crate::backend::Switchboard;
use crate::clock::Clock;
use crate::config::Settings;
use crate::desk::Desk;
use crate::front::accept::{accept, address_of, listen, watched};
use crate::front::gate::Gate;
use crate::front::{Door, Front};
use crate::log::{Log, line};
use crate::ring::Ring;
use crate::rng::{Rng, system_seed};
use crate::room::{Room, backlog};
use crate::sessions::{Common, HubDoor, Mail, Newest, Sessions, ShardMailbox, UserCounts};
use crate::shard::{Bounds, Post, Shard, ShardSetup, event_loop};
use crate::speakers::Speakers;

/// Locks over the channels of a node: more than threads, so that two seldom want the same.
const PARTITIONS: usize = 64;
/// Steps of the paced close in a second.
const SHED_STEPS_PER_S: u32 = 20;

/// How often in a second it is looked whether the limit has been changed: those who wait for room
/// come back about once a second.
const LIMIT_LOOKS_PER_S: u32 = 5;

/// What to serve.
#[derive(Debug)]
pub struct ServeOptions {
    pub settings: Settings,
    /// In development mode, a port that is taken is no reason to give up.
    pub any_port: bool,
    /// How this program is called from any directory; the playground shows it.
    pub command: String,
}

/// Why the server could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {error}{}", in_the_way(.holder.as_deref()))]
    Listen { address: String, error: io::Error, holder: Option<String> },
    #[error("cannot start {what}: {error}")]
    Start { what: &'static str, error: io::Error },
    #[error("{0} - or unset limits.strict to start with fewer")]
    Room(String),
    #[error("the log {path}: {error}")]
    Log { path: String, error: io::Error },
}

/// Who holds the port, and what to do about it.
fn in_the_way(holder: Option<&str>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(" - {holder} holds it; stop it, or set http_server.port")
    })
}

/// What the server is, told to the caller once it listens.
#[derive(Debug, Clone)]
pub struct Started {
    pub address: SocketAddr,
    pub internal: Option<SocketAddr>,
    /// The port that was wanted and taken, and by whom, when another was used.
    pub taken: Option<(u16, String)>,
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
    let mut settings = options.settings;
    let raised = Room::raise(log);
    let (listeners, taken) = Listeners::open(&settings, options.any_port)?;
    if settings.node_name.is_empty() {
        settings.node_name = format!("{}_{}", host_name(), listeners.address.port());
    }
    let settings = Arc::new(settings);
    let runtime = front_runtime()
        .map_err(|error| ServeError::Start { what: "the front's threads", error })?;
    let room = Room::measure(raised, settings.limits.shards);
    let budget = room.budget(&settings, log).map_err(ServeError::Room)?;
    let clock = Clock::start();
    let (common, threads) = start_shards(&settings, log, clock, runtime.handle(), &budget)?;
    let front = Arc::new(Front {
        clock,
        gate: Gate::new(budget.clone()),
        clients: budget,
        last_number: AtomicU64::new(0),
        next_shard: AtomicUsize::new(0),
        draining: AtomicBool::new(false),
        arrivals: crate::front::arrivals::Arrivals::default(),
        undeclared: crate::front::address::Undeclared::default(),
        addresses: Addresses::new(settings.limits.per_address),
        command: options.command,
        common,
    });
    started(&Started {
        address: listeners.address,
        internal: listeners.internal_address,
        taken,
        clients: front.clients.ceiling(),
        descriptors: room.descriptors(),
        limit_from: room.story(),
        more: room.more(),
        backlog: backlog(&listeners.public, listeners.address),
    });
    runtime
        .block_on(run(&front, listeners, room, stop))
        .map_err(|error| ServeError::Start { what: "the front", error })?;
    stop_shards(&front, threads);
    log.finish(Duration::from_secs(2));
    Ok(())
}

/// The sockets that are listened on.
struct Listeners {
    public: std::net::TcpListener,
    internal: Option<std::net::TcpListener>,
    address: SocketAddr,
    internal_address: Option<SocketAddr>,
}

impl Listeners {
    fn open(
        settings: &Settings,
        any_port: bool,
    ) -> Result<(Self, Option<(u16, String)>), ServeError> {
        let http = &settings.http;
        let (public, taken) = match open(&http.address, http.port) {
            Err(ServeError::Listen { error, holder, .. })
                if any_port && error.kind() == io::ErrorKind::AddrInUse =>
            {
                let next = (1..=100)
                    .find_map(|step| open(&http.address, http.port.checked_add(step)?).ok());
                let other = match next {
                    Some(listener) => listener,
                    None => open(&http.address, 0)?,
                };
                (other, Some((http.port, holder.unwrap_or_default())))
            }
            other => (other?, None),
        };
        let internal = match http.internal_port {
            Some(port) if port != http.port => {
                let address = if http.internal_address.is_empty() {
                    &http.address
                } else {
                    &http.internal_address
                };
                Some(open(address, port)?)
            }
            _ => None,
        };
        let local = |listener: &std::net::TcpListener| {
            listener.local_addr().map_err(|error| ServeError::Start { what: "a listener", error })
        };
        let address = local(&public)?;
        let internal_address = internal.as_ref().map(local).transpose()?;
        Ok((Self { public, internal, address, internal_address }, taken))
    }
}

fn open(address: &str, port: u16) -> Result<std::net::TcpListener, ServeError> {
    let opened = address_of(address, port).and_then(|at| match listen(at) {
        // A machine without IPv6 has no `::`.
        Err(_) if address.is_empty() && at.is_ipv6() && !has_ipv6() => {
            listen(SocketAddr::from(([0, 0, 0, 0], port)))
        }
        other => other,
    });
    opened.map_err(|error| {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let holder = in_use.then(|| {
            throng_limits::facts::listener_holder(port)
                .unwrap_or_else(|| "somebody who cannot be seen from here".to_owned())
        });
        let address =
            if address.is_empty() { format!("*:{port}") } else { format!("{address}:{port}") };
        ServeError::Listen { address, error, holder }
    })
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
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

fn start_shards(
    settings: &Arc<Settings>,
    log: &Log,
    clock: Clock,
    runtime: &Handle,
    budget: &Budget,
) -> Result<(Arc<Common>, Threads), ServeError> {
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
        mailboxes.push(Arc::new(HubDoor(Arc::clone(shard))));
    }
    mailboxes.push(Arc::clone(&desk) as Arc<dyn HubMailbox>);
    let broker = Arc::new(Memory::new(PARTITIONS, system_seed()));
    let setup = NodeSetup { mailboxes, broker, partitions: PARTITIONS, seed: system_seed() };
    let allowance = Allowance::new(settings.limits.buffer_bytes);
    let switchboard = Switchboard::start(
        &settings.backends,
        shards.clone(),
        runtime.clone(),
        budget,
        (log.clone(), clock),
    );
    let common = Arc::new(Common {
        switchboard,
        node: Arc::new(Node::new(setup)),
        settings: Arc::clone(settings),
        allowance: Arc::clone(&allowance),
        desk,
        log: log.clone(),
        user_counts: UserCounts::default(),
        newest: Newest::default(),
        shards,
        clients: AtomicUsize::new(0),
        published: AtomicU64::new(0),
        ring: Ring::default(),
        speakers: Speakers::default(),
        uid: Rng::new(system_seed()).uuid().to_string(),
    });
    let mut threads = Vec::with_capacity(count);
    for (number, event_loop) in loops.into_iter().enumerate() {
        let setup = ShardSetup {
            bounds: bounds(settings),
            allowance: Arc::clone(&allowance),
            log: log.clone(),
            seed: system_seed(),
        };
        let sessions =
            Sessions::new(Arc::clone(&common), u16::try_from(number).unwrap_or(u16::MAX));
        let shard = Shard::new(event_loop, setup, clock, sessions);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn({
                let log = log.clone();
                move || alive(&log, || shard.run())
            })
            .map_err(start)?;
        threads.push(thread);
    }
    Ok((common, threads))
}

/// Invariant ALIVE: a panic outside one connection's input ends the process, so that there is
/// never a dead shard behind a healthy `/health`.
fn alive<T>(log: &Log, f: impl FnOnce() -> T) -> T {
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
    Bounds {
        message: throng_wire::websocket::Limits { message_max },
        outbox_bytes_max: settings.client.queue_max_size,
        incomplete_message: settings.limits.incomplete_message_timeout,
        close: settings.limits.close_timeout,
    }
}

/// Serves until the signal to stop, then closes the crowd at its pace.
async fn run(
    front: &Arc<Front>,
    listeners: Listeners,
    room: Room,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut terminate = Terminate::listen()?;
    let (no_more, stopping) = watch::channel(false);
    let door = if listeners.internal.is_some() { Door::Public } else { Door::Both };
    let public = watched(listeners.public)?;
    tokio::spawn(accept(Arc::clone(front), public, door, stopping.clone()));
    if let Some(internal) = listeners.internal {
        let internal = watched(internal)?;
        tokio::spawn(accept(Arc::clone(front), internal, Door::Internal, stopping));
    }
    let _control = crate::control::open(front);
    let sweeper = tokio::spawn(sweep(Arc::clone(front), room));
    tokio::select! {
        () = terminate.next() => {}
        () = stop => {}
    }
    close_crowd(front, &mut terminate).await;
    // Requests in progress are answered by their own tasks; the runtime ends them after this.
    no_more.send_replace(true);
    sweeper.abort();
    Ok(())
}

/// Once a second: what has expired in channels, and what room there is. That somebody has changed
/// the limit is seen sooner.
async fn sweep(front: Arc<Front>, mut room: Room) {
    let mut looks = tokio::time::interval(Duration::from_secs(1) / LIMIT_LOOKS_PER_S);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for look in (0..LIMIT_LOOKS_PER_S).cycle() {
        looks.tick().await;
        if look == 0 {
            front.common.node.sweep(front.clock.now());
        }
        if look == 0 || room.is_changed() {
            room.look(&front.clients, &front.common.log);
        }
    }
}

/// The signals that end the server.
struct Terminate {
    term: Signal,
    interrupt: Signal,
}

impl Terminate {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Closes everybody evenly over `shutdown.spread`, or at once with a second signal: a crowd that
/// is closed in one instant comes back in one instant.
async fn close_crowd(front: &Front, terminate: &mut Terminate) {
    front.draining.store(true, Ordering::Relaxed);
    let log = &front.common.log;
    let spread = front.settings().shutdown.spread;
    let clients = front.clients.open();
    line!(
        log,
        Info,
        "stop",
        "stopping: {} clients are closed with 3001 over {:?}; a second signal closes them at once",
        clients,
        spread
    );
    let steps = u32::try_from(spread.as_millis() * u128::from(SHED_STEPS_PER_S) / 1000)
        .unwrap_or(u32::MAX)
        .max(1);
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / u64::from(SHED_STEPS_PER_S)));
    for left in (1..=steps).rev() {
        if front.clients.open() == 0 {
            break;
        }
        post_all(front, || Mail::Shed { of: left });
        tokio::select! {
            _ = pace.tick() => {}
            () = terminate.next() => {
                line!(log, Info, "stop.now", "a second signal: everybody is closed now");
                break;
            }
        }
    }
    post_all(front, || Mail::Shed { of: 1 });
    // Closes have a deadline of their own; this waits no longer than they do, or than the whole
    // stop may take.
    let patience = front.settings().limits.close_timeout.min(front.settings().shutdown.timeout);
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while front.clients.open() > 0 {
            look.tick().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(patience + Duration::from_secs(1), gone) => {}
        () = terminate.next() => {}
    }
}

fn post_all(front: &Front, mail: impl Fn() -> Mail) {
    for shard in &front.common.shards {
        shard.post(Post::Mail(mail()));
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
