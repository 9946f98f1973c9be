//! The old process's life around a restart: begins one, tells who asked, leaves when another process
//! serves, and comes back if that one dies at once.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::fault::{self, Fault};
use super::give::{Given, Giving};
use super::heir::{Heir, Parent, Program, Reins};
use super::keeper;
use super::manager::{Manager, notify};
use super::outcome::{Outcome, Process, Step, Wish};
use super::take::Predecessor;
use super::touched::Touched;
use crate::front::Front;
use crate::handoff::{Freezer, Parachute};
use crate::log::{Log, line};
use crate::shutdown::Terminate;

/// How long the old process holds the sockets of connections that live in the new one.
const PARACHUTE: Duration = Duration::from_secs(5);
/// And how long it stays at most for requests that it is still answering.
const REQUESTS: Duration = Duration::from_secs(30);
/// How often it looks whether there are any left.
const LOOK: Duration = Duration::from_millis(50);

/// Who is told of a restart, besides the log.
pub(crate) type Asker = (mpsc::Sender<Step>, oneshot::Sender<Outcome>);

/// Restarts of this process.
pub(crate) struct Succession {
    pub(crate) program: Option<Program>,
    pub(crate) watched_by: Manager,
    /// The way to the keeper.
    pub(crate) keeper: Option<Arc<OwnedFd>>,
    /// The process before this one, if there was one.
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) log: Log,
    running: Option<Running>,
}

/// A restart under way, in a thread of its own.
struct Running {
    done: oneshot::Receiver<(Outcome, Option<Given>)>,
    asker: Option<oneshot::Sender<Outcome>>,
    reins: Arc<Reins>,
}

/// Whether the old process is needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    ForGood,
    /// The new process died at once, and this one serves again.
    CameBack,
}

impl Succession {
    pub(crate) fn new(program: Option<Program>, watched_by: Manager, log: Log) -> Self {
        Self { program, watched_by, keeper: None, predecessor: None, log, running: None }
    }

    /// Begins a restart, unless there is a reason not to.
    pub(crate) fn begin(&mut self, front: &Arc<Front>, wish: Wish, asker: Option<Asker>) {
        let (steps, asker) = asker.unzip();
        if let Err(why) = self.may_begin(front) {
            line!(self.log, Warn, "restart", "no restart: {}", why);
            let refused = refused(&wish, why);
            if let Some(asker) = asker {
                asker.send(refused).ok(); // who asked may be gone
            }
            return;
        }
        let Some(program) = self.program.clone() else { return };
        let (finish, done) = oneshot::channel();
        let reins = Arc::<Reins>::default();
        let giving = Giving {
            freezer: Freezer::new(Arc::clone(front)),
            gate: Arc::clone(&front.gate),
            program,
            wish,
            parent: match self.watched_by {
                Manager::Notified => Parent::Manager,
                Manager::None | Manager::Watching(_) | Manager::Kept => Parent::This,
            },
            predecessor: self.predecessor.clone(),
            keeper: self.keeper.clone(),
            tell: teller(self.log.clone(), steps),
            reins: Arc::clone(&reins),
        };
        let started = std::thread::Builder::new().name("restart".to_owned()).spawn(move || {
            // Nobody waits any more only when the process ends.
            finish.send(giving.run()).ok();
        });
        match started {
            Ok(_) => self.running = Some(Running { done, asker, reins }),
            Err(error) => {
                line!(self.log, Error, "restart", "no restart: there is no thread: {}", error);
            }
        }
    }

    /// A drain begins, which the new process would know nothing of: a restart that is under way ends, if
    /// it can still be ended.
    pub(crate) fn make_way(&self) {
        if let Some(running) = &self.running {
            running.reins.call_off();
        }
    }

    fn may_begin(&self, front: &Front) -> Result<(), String> {
        if self.running.is_some() {
            return Err("a restart is under way already".to_owned());
        }
        if front.is_draining() {
            return Err("this server is drained, and the new process would let clients in again; \
                        stop it and start it"
                .to_owned());
        }
        if self.program.is_none() {
            return Err("this server was not started as a program of its own".to_owned());
        }
        match self.watched_by {
            Manager::Watching(name) => Err(format!(
                "{name} would take it for the end of the server, since it knows it by the number \
                 of this process; start it with --keeper auto (which is the default)"
            )),
            Manager::None | Manager::Notified | Manager::Kept => Ok(()),
        }
    }

    /// Waits for the end of the restart that is under way; none where the old process goes on.
    pub(crate) async fn given(&mut self) -> Option<Given> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let done = (&mut running.done).await;
        let asker = self.running.take().and_then(|running| running.asker);
        let Ok((outcome, given)) = done else {
            line!(self.log, Error, "restart", "a bug: the restart broke off; this process goes on");
            return None;
        };
        self.say(&outcome);
        if outcome.done && !outcome.dry_run && outcome.returning > 0 {
            line!(
                self.log,
                Info,
                "restart.bridged",
                "{} of them are clients over gRPC, whose connections cannot move: the new process closes \
                 them with 3001 over {} s, and they come back",
                outcome.returning,
                outcome.returning_over_ms.div_ceil(1000)
            );
        }
        if let Some(asker) = asker {
            asker.send(outcome).ok(); // who asked may be gone
        }
        given
    }

    fn say(&self, outcome: &Outcome) {
        let Outcome { why, to, connections, frozen_us, dry_run, .. } = outcome;
        match (why, to) {
            (None, Some(to)) if !dry_run => line!(
                self.log,
                Info,
                "restart.done",
                "pid {} serves now (throng {}): {} connections stayed, none was closed; they waited {} us",
                to.pid,
                to.version,
                connections,
                frozen_us
            ),
            (None, _) => line!(
                self.log,
                Info,
                "restart.rehearsed",
                "a restart was rehearsed, and would keep {} connections",
                connections
            ),
            (Some(why), _) => line!(
                self.log,
                Error,
                "restart.failed",
                "no restart, and nothing has changed: {}",
                why
            ),
        }
    }

    /// This process was told to stop: ends a restart that is under way, if it can still be ended.
    pub(crate) async fn call_off(&mut self, terminate: &mut Terminate) -> Left {
        if let Some(predecessor) = &self.predecessor {
            predecessor.settle();
        }
        let Some(running) = self.running.take() else { return Left::CameBack };
        running.reins.call_off();
        // It ends within its own deadlines; most often at once.
        let Ok((outcome, given)) = running.done.await else { return Left::CameBack };
        self.say(&outcome);
        if let Some(asker) = running.asker {
            asker.send(outcome).ok(); // who asked may be gone
        }
        let Some(given) = given else { return Left::CameBack };
        // Too late: the other serves, and is what was told to stop.
        drop(given.frozen.give_up(given.outlet));
        see_off(&given.heir, terminate).await;
        Left::ForGood
    }

    /// Leaves what was handed over alone, answers what is left, and ends; or takes it back.
    pub(crate) async fn leave(
        &mut self,
        front: &Front,
        terminate: &mut Terminate,
        given: Given,
    ) -> Left {
        let Given { mut heir, frozen, outlet, touched } = given;
        let parachute = frozen.give_up(outlet);
        let begun = Instant::now();
        let parachute_time = if fault::is_set(Fault::Patient) { REQUESTS } else { PARACHUTE };
        while begun.elapsed() < parachute_time {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = terminate.next() => {
                    drop(parachute);
                    see_off(&heir, terminate).await;
                    return Left::ForGood;
                }
            }
            let has_ended = heir.has_ended_in(Duration::ZERO);
            if has_ended {
                heir.hear_out();
            }
            if heir.line.is_settled() {
                break;
            }
            if has_ended {
                heir.end();
                self.take_back(front, parachute, &touched);
                return Left::CameBack;
            }
        }
        drop(parachute);
        // Not before: systemd would take the end of the new process for that of the service.
        if self.watched_by == Manager::Notified {
            self.tell_managers(heir.pid());
        }
        // Where the other has ended, there is nobody who could answer.
        while (front.gate.busy() > 0 || front.gate.bridged.load(Ordering::Relaxed) > 0)
            && begun.elapsed() < REQUESTS
            && !heir.has_ended_in(Duration::ZERO)
        {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = terminate.next() => {
                    see_off(&heir, terminate).await;
                    break;
                }
            }
        }
        Left::ForGood
    }

    /// Says which process serves now. Where there is a keeper, a new process tells it itself.
    fn tell_managers(&self, pid: u32) {
        let told = match (&self.keeper, self.watched_by) {
            (Some(keeper), _) => keeper::tell(keeper, &keeper::News::serving(pid)),
            (None, Manager::Notified) => notify(&format!("MAINPID={pid}\nREADY=1")),
            (None, _) => Ok(()),
        };
        if let Err(error) = told {
            line!(
                self.log,
                Warn,
                "restart.notify",
                "who watches this server was not told that pid {} serves now: {}; a unit of \
                 systemd needs Type=notify",
                pid,
                error
            );
        }
    }

    fn take_back(&self, front: &Front, parachute: Parachute, touched: &Touched) {
        let before = front.clients.open();
        // A list that tells nothing leaves nobody of whom anything is known.
        let touched = touched.numbers().ok();
        let gone = touched.as_ref().map_or(before, |touched| before.min(touched.len() as u64));
        let kept = before - gone;
        parachute.take_back(move |number, _| {
            touched.as_ref().is_some_and(|touched| !touched.contains(&number))
        });
        self.tell_managers(std::process::id());
        line!(
            self.log,
            Error,
            "restart.back",
            "the new process died at once, and this one serves again: {} connections it had not touched go on, {} are cut off and come back; every channel with a history has a new epoch, so that no offset is given twice",
            kept,
            gone
        );
    }
}

/// This process was told to stop, and another one serves: that one is told, and waited for, since
/// whoever watches this one takes its end for that of the server, and may kill what is left.
async fn see_off(heir: &Heir, terminate: &mut Terminate) {
    heir.stop();
    while !heir.has_ended_in(Duration::ZERO) {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // A second signal, which closes everybody at once.
            () = terminate.next() => heir.stop(),
        }
    }
}

fn refused(wish: &Wish, why: String) -> Outcome {
    Outcome { why: Some(why), ..Outcome::begun(wish, Process::own()) }
}

/// Tells the log, and who asked.
fn teller(log: Log, steps: Option<mpsc::Sender<Step>>) -> Box<dyn FnMut(Step) + Send> {
    Box::new(move |step| {
        line!(log, Debug, "restart.step", "restart: {:?}", step);
        // Who asked may be gone, or slow to read; the outcome tells the same.
        if let Some(steps) = &steps {
            steps.try_send(step).ok();
        }
    })
}
