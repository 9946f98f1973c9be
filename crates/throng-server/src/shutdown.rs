//! How a server ends: signals, the crowd closed at a pace, and what is waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::control::{DrainStep, Drained};
use crate::front::Front;
use crate::log::{Log, line};
use crate::restart::keeper::end_of;
use crate::sessions::Mail;
use crate::shard::Post;

/// Steps of the paced close in a second.
const SHED_STEPS_PER_S: u32 = 20;
/// How often whoever watches a drain is told.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// Signals that come so soon after another are the same one: who signals a group of processes (Ctrl-C,
/// supervisord's `stopasgroup`, systemd's `KillMode=control-group`) reaches a server directly and by
/// way of its keeper. Nobody presses a key twice as fast.
const ONE: Duration = Duration::from_millis(300);

/// The signals that end the server.
pub(crate) struct Terminate {
    term: Signal,
    interrupt: Signal,
    /// When the last one came.
    last: Option<Instant>,
    /// Its end is the end of the parent that stays: nobody passes signals on any more, and whoever
    /// watches that parent takes this server for ended.
    keeper: Option<oneshot::Receiver<()>>,
    log: Log,
}

impl Terminate {
    pub(crate) fn listen(keeper: Option<&OwnedFd>, log: &Log) -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            last: None,
            keeper: keeper.map(end_of).transpose()?,
            log: log.clone(),
        })
    }

    pub(crate) async fn next(&mut self) {
        loop {
            self.any().await;
            let last = self.last.replace(Instant::now());
            if last.is_none_or(|last| last.elapsed() >= ONE) {
                return;
            }
        }
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
            () = ended(self.keeper.as_mut()) => {
                self.keeper = None;
                line!(
                    self.log,
                    Error,
                    "keeper.gone",
                    "the parent that stays was killed; this server ends as with SIGTERM, since \
                     whoever watches that parent takes it for ended"
                );
            }
        }
    }
}

async fn ended(keeper: Option<&mut oneshot::Receiver<()>>) {
    if let Some(end) = keeper
        && end.await.is_ok()
    {
        return;
    }
    // Without a keeper, or without a way to hear of its end.
    std::future::pending().await
}

/// Closes everybody evenly over `shutdown.spread`, or at once with a second signal: a crowd that
/// is closed in one instant comes back in one instant.
pub(crate) async fn close_crowd(front: &Front, terminate: &mut Terminate) {
    let log = &front.common.log;
    let spread = front.settings().shutdown.spread;
    line!(
        log,
        Info,
        "stop",
        "stopping: {} clients are closed with 3001 over {:?}; a second signal closes them at once",
        front.clients.open(),
        spread
    );
    // Closes have a deadline of their own; this waits no longer than they do, or than the whole
    // stop may take.
    let patience = front.settings().limits.close_timeout.min(front.settings().shutdown.timeout);
    tokio::select! {
        () = shed(front, spread, None) => {}
        () = terminate.next() => {
            line!(log, Info, "stop.now", "a second signal: everybody is closed now");
            post_all(front, || Mail::Shed { of: 1 });
        }
    }
    tokio::select! {
        () = all_gone(front, patience + Duration::from_secs(1), None) => {}
        () = terminate.next() => {}
    }
}

/// Lets nobody in any more, and closes everybody over the given time, or `shutdown.spread`.
pub(crate) async fn drain(
    front: &Front,
    over: Option<Duration>,
    steps: &mpsc::Sender<DrainStep>,
) -> Drained {
    let (begun, before) = (Instant::now(), front.clients.open());
    let over = over.unwrap_or(front.settings().shutdown.spread);
    let log = &front.common.log;
    line!(
        log,
        Info,
        "drain",
        "draining: {} clients are closed with 3001 over {:?}; no new ones are let in",
        before,
        over
    );
    shed(front, over, Some(steps)).await;
    let patience = front.settings().limits.close_timeout + Duration::from_secs(1);
    all_gone(front, patience, Some(steps)).await;
    let left = front.clients.open();
    let took_s = begun.elapsed().as_secs();
    line!(log, Info, "drained", "drained: {} clients are left, after {} s", left, took_s);
    Drained { closed: before.saturating_sub(left), left, took_s }
}

/// Closes everybody evenly.
async fn shed(front: &Front, over: Duration, told: Option<&mpsc::Sender<DrainStep>>) {
    front.draining.store(true, Ordering::Relaxed);
    let steps = u32::try_from(over.as_millis() * u128::from(SHED_STEPS_PER_S) / 1000)
        .unwrap_or(u32::MAX)
        .max(1);
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / u64::from(SHED_STEPS_PER_S)));
    let mut last = Instant::now();
    for left in (1..=steps).rev() {
        let open = front.clients.open();
        if open == 0 {
            break;
        }
        if last.elapsed() >= TOLD_EVERY {
            last = Instant::now();
            tell(told, open);
        }
        post_all(front, || Mail::Shed { of: left });
        pace.tick().await;
    }
    post_all(front, || Mail::Shed { of: 1 });
}

/// How long it takes until all those have been told to come back whose connections an older process
/// has: it is there for five seconds at least, and while one of them is.
pub(crate) const BRIDGED_SPREAD: Duration = Duration::from_secs(3);

/// Closes the clients that came from an older process with a stream of HTTP/2 instead of a socket,
/// evenly: a crowd that is closed in one instant comes back in one instant.
pub(crate) async fn send_back_bridged(front: Arc<Front>, up_to: u64) {
    let steps =
        u32::try_from(BRIDGED_SPREAD.as_millis()).unwrap_or(u32::MAX) * SHED_STEPS_PER_S / 1000;
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / u64::from(SHED_STEPS_PER_S)));
    for of in (1..=steps).rev() {
        pace.tick().await;
        // While another restart freezes everything, it waits; afterwards it is that process's affair.
        let Ok(_pass) = front.common.pause.enter().await else { return };
        post_all(&front, || Mail::ShedBridged { of, up_to });
    }
}

/// Waits until nobody is left, or for so long.
async fn all_gone(front: &Front, patience: Duration, told: Option<&mpsc::Sender<DrainStep>>) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while front.clients.open() > 0 {
            look.tick().await;
        }
    };
    tokio::time::timeout(patience, gone).await.ok(); // who is left is counted by the caller
    tell(told, front.clients.open());
}

fn tell(told: Option<&mpsc::Sender<DrainStep>>, left: u64) {
    // Who watches may be gone, or slow: the next step tells as much.
    if let Some(steps) = told {
        steps.try_send(DrainStep { left }).ok();
    }
}

fn post_all(front: &Front, mail: impl Fn() -> Mail) {
    for shard in &front.common.shards {
        shard.post(Post::Mail(mail()));
    }
}
