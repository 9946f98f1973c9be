//! What a running server listens to besides its clients: signals, orders, and the end of a restart.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::control::Control;
use crate::front::Front;
use crate::front::accept::{accept, watched};
use crate::listeners::Listeners;
use crate::log::{Log, line};
use crate::pid_file;
use crate::polls;
use crate::reload;
use crate::restart::Wish;
use crate::restart::manager::notify;
use crate::restart::orders::{Order, Orders};
use crate::restart::succession::{Left, Succession};
use crate::room::Room;
use crate::shutdown::{self, Terminate};

/// How often in a second it is looked whether the limit has been changed: those who wait for room
/// come back about once a second.
const LIMIT_LOOKS_PER_S: u32 = 5;

/// How the serving of this process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    /// Another process serves; this one has nothing left.
    HandedOver,
}

/// The signals that a server obeys.
pub(crate) struct Signals {
    terminate: Terminate,
    restart: Signal,
    reload: Signal,
}

impl Signals {
    /// From here on none of them ends the process as the kernel would. Called within the runtime.
    ///
    /// # Errors
    /// When the kernel does not let it listen.
    pub(crate) fn listen(keeper: Option<&OwnedFd>, log: &Log) -> io::Result<Self> {
        Ok(Self {
            terminate: Terminate::listen(keeper, log)?,
            restart: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

struct Watch {
    terminate: Terminate,
    restart: Signal,
    reload: Signal,
    orders: Orders,
    given: mpsc::Receiver<Order>,
    control: Option<Control>,
    /// Tells those who accept to stop.
    no_more: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

/// Serves until the signal to stop, or until another process has taken over.
pub(crate) async fn run(
    front: &Arc<Front>,
    listeners: Listeners,
    room: Room,
    (signals, succession, stop): (Signals, Succession, impl Future<Output = ()>),
) -> io::Result<End> {
    let Signals { terminate, restart, reload } = signals;
    // It runs once.
    front.doors.set(listeners.doors()).ok();
    for (door, listener) in listeners.doors() {
        if !door.speaks_http1()
            && let Ok(address) = listener.local_addr()
        {
            line!(front.common.log, Info, "grpc.listens", "gRPC: {} at {}", door.name(), address);
        }
    }
    drop(listeners);
    let (orders, given) = Orders::new();
    let mut watch = Watch {
        terminate,
        restart,
        reload,
        control: Some(crate::control::open(front, orders.clone())),
        orders,
        given,
        no_more: watch::channel(false).0,
        accepting: Vec::new(),
    };
    watch.accept(front)?;
    pid_file::write(front);
    let sweeper = tokio::spawn(sweep(Arc::clone(front), room));
    let polls = tokio::spawn(polls::drive(Arc::clone(&front.common), front.clock));
    let end = watch.until_the_end(front, succession, stop).await;
    // Requests in progress are answered by their own tasks; the runtime ends them after this.
    watch.no_more.send_replace(true);
    sweeper.abort();
    polls.abort();
    end
}

impl Watch {
    /// Begins to accept at every door.
    fn accept(&mut self, front: &Arc<Front>) -> io::Result<()> {
        for (door, listener) in front.doors.get().into_iter().flatten() {
            let listener = watched(Arc::clone(listener))?;
            let stop = self.no_more.subscribe();
            self.accepting.push(tokio::spawn(accept(Arc::clone(front), listener, *door, stop)));
        }
        Ok(())
    }

    /// Accepts no more, until told to begin again.
    async fn accept_no_more(&mut self) {
        for accepting in self.accepting.drain(..) {
            // It takes a connection and hands it on in one go, so nothing is lost between.
            accepting.abort();
            accepting.await.ok(); // aborted is what it is to be
        }
    }

    async fn until_the_end(
        &mut self,
        front: &Arc<Front>,
        mut succession: Succession,
        stop: impl Future<Output = ()>,
    ) -> io::Result<End> {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = self.terminate.next() => break,
                () = &mut stop => break,
                // Who looks at a page of the playground wants it to end with the terminal.
                _ = self.reload.recv() => if front.settings().dev { break } else {
                    let front = Arc::clone(front);
                    tokio::spawn(async move { reload::reload(&front).await });
                },
                _ = self.restart.recv() => succession.begin(front, Wish::default(), None),
                Some(order) = self.given.recv() => obey(front, &mut succession, order),
                Some(given) = succession.given() => {
                    // The new process opens its own; nobody is to find this one any more.
                    self.control = None;
                    self.accept_no_more().await;
                    if succession.leave(front, &mut self.terminate, given).await == Left::ForGood {
                        // Where that one has another.
                        pid_file::remove(front);
                        return Ok(End::HandedOver);
                    }
                    self.control = Some(crate::control::open(front, self.orders.clone()));
                    pid_file::write(front);
                    self.accept(front)?;
                }
            }
        }
        if succession.call_off(&mut self.terminate).await == Left::ForGood {
            return Ok(End::HandedOver);
        }
        // systemd learns it by our end, too.
        notify("STOPPING=1").ok();
        shutdown::close_crowd(front, &mut self.terminate).await;
        pid_file::remove(front);
        Ok(End::Stopped)
    }
}

fn obey(front: &Arc<Front>, succession: &mut Succession, order: Order) {
    match order {
        Order::Restart { wish, steps, outcome } => {
            succession.begin(front, wish, Some((steps, outcome)));
        }
        Order::Drain { over, steps, drained } => {
            succession.make_way();
            let front = Arc::clone(front);
            tokio::spawn(async move {
                let done = shutdown::drain(&front, over, &steps).await;
                drained.send(done).ok(); // who asked may be gone
            });
        }
    }
}

/// Once a second: what has expired in channels, and what room there is. That somebody has changed
/// the limit is seen sooner.
async fn sweep(front: Arc<Front>, mut room: Room) {
    let mut looks = tokio::time::interval(Duration::from_secs(1) / LIMIT_LOOKS_PER_S);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for look in (0..LIMIT_LOOKS_PER_S).cycle() {
        looks.tick().await;
        // Moved: what expires there is no affair of this process, unless it comes back.
        let Ok(pass) = front.common.pause.enter().await else { continue };
        if look == 0 {
            front.common.node.sweep(front.clock.now());
            front.common.meters.look(crate::metrics::free(&front));
        }
        drop(pass);
        if look == 0 || room.is_changed() {
            room.look(&front.clients, &front.common.log);
        }
    }
}
