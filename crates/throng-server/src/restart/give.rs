//! The old process's side of a restart: proves the new program, copies what it can while it serves,
//! freezes, hands over, and goes on as before if anything fails until then.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use throng_hub::state::Version;
use tokio::sync::oneshot;

use crate::front::Asks;
use crate::front::gate::Gate;
use crate::handoff::{Cargo, Courier, Freezer, Frozen, Outlet, Parcel, Patience};
use crate::shutdown::BRIDGED_SPREAD;

use super::channel::{Deadline, sealed};
use super::fault;
use super::heir::{Heir, Line, Parent, Program, Proof, Reins, Reply};
use super::message::{FromNew, FromOld, TELLS_AHEAD, Tag, common};
use super::outcome::{Outcome, Process, Step, Wish};
use super::take::Predecessor;
use super::touched::Touched;

/// Descriptors that a restart needs here at once: the channel, the process's own, the list of what it
/// has touched, and one file at a time. The proof before it needs no more.
const DESCRIPTORS: usize = 4;
/// How long a program may take to look at its configuration.
const PROOF: Duration = Duration::from_secs(15);
/// How long the new process may take to introduce itself.
const HELLO: Duration = Duration::from_secs(15);
/// How long the copying of all sockets may take; a shard does it between its turns.
const COPIES: Duration = Duration::from_secs(60);
/// How long one batch, or one part of the history, may take to be acknowledged.
const BATCH: Duration = Duration::from_secs(10);
/// How long the new process may take to prepare itself for what was sent.
const READY: Duration = Duration::from_secs(30);
/// Batches that may be on their way: enough to keep both sides busy, and far from what the kernel
/// allows one user to have in flight.
const BATCHES_MAX: u64 = 4;
/// How often connections are told of that have changed while others were; a crowd in which all talk
/// all the time is never through.
const TELLINGS_MAX: usize = 4;
/// So few that telling of them once more would not be worth while.
const FEW: u64 = 64;
/// Pieces of connections that wait to be passed on, beside one of each shard that did not know.
const PIECES_MAX: usize = 4;
/// How long the new process may take to load what was frozen, at least: clients wait meanwhile.
const LOAD: Duration = Duration::from_secs(2);
/// And for so many connections a second more: some thirty times of what it takes.
const LOADED_PER_S: u64 = 100_000;

/// Why a restart came to nothing; the old process serves as before.
#[derive(Debug)]
struct Failed(String);

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// What is left to do for the old process once the new one serves.
pub(crate) struct Given {
    pub(crate) heir: Heir,
    pub(crate) frozen: Frozen,
    /// The connections that the new process has used.
    pub(crate) touched: Touched,
    /// Where what is left goes.
    pub(crate) outlet: Arc<dyn Outlet>,
}

/// A restart under way, in a thread of its own.
pub(crate) struct Giving {
    pub(crate) freezer: Freezer,
    /// Where those are who are no clients, and whose requests do not move.
    pub(crate) gate: Arc<Gate>,
    pub(crate) program: Program,
    pub(crate) wish: Wish,
    /// That of the new process.
    pub(crate) parent: Parent,
    /// The process before this one, if there was one.
    pub(crate) predecessor: Option<Predecessor>,
    /// The way to the keeper, if there is one.
    pub(crate) keeper: Option<Arc<OwnedFd>>,
    /// Told of every step.
    pub(crate) tell: Box<dyn FnMut(Step) + Send>,
    /// By which others end it.
    pub(crate) reins: Arc<Reins>,
}

impl Giving {
    /// Hands over, or says why not.
    pub(crate) fn run(mut self) -> (Outcome, Option<Given>) {
        let mut outcome = Outcome::begun(&self.wish, Process::own());
        match self.hand_over(&mut outcome) {
            Ok(given) => {
                if given.is_none() {
                    self.freezer.forget_copies();
                }
                outcome.done = true;
                (outcome, given)
            }
            Err(Failed(why)) => {
                self.freezer.forget_copies();
                outcome.why = Some(why);
                (outcome, None)
            }
        }
    }

    fn hand_over(&mut self, outcome: &mut Outcome) -> Result<Option<Given>, Failed> {
        if let Some(binary) = self.wish.binary.take() {
            self.program.path = binary;
        }
        // Invariant PAY-FIRST; a part of the budget is kept for this, so that it works when not one
        // more client fits.
        let _permits = self.freezer.permits(DESCRIPTORS).ok_or_else(|| {
            "no descriptor is left for a restart; raise the limit of this process (throng doctor)"
                .to_owned()
        })?;
        let proof = self.program.prove(PROOF, &self.reins)?;
        conversation(&proof)?;
        let program = self.program.path.clone();
        (self.tell)(Step::Checked { program, version: proof.version });
        let mut heir = Heir::start(&self.program, self.parent)?;
        self.reins.take(&heir.line);
        let touched = Touched::new().map_err(|error| error.to_string())?;
        let done = self.prepare(&heir, outcome).and_then(|sent| {
            if self.wish.dry_run {
                heir.line.say(&FromOld::Enough, &[], Deadline::after(BATCH))?;
                return Ok(None);
            }
            let frozen = self.commit(&mut heir, (&sent, &touched), outcome)?;
            Ok(Some((frozen, sent as Arc<dyn Outlet>)))
        });
        match done {
            Ok(Some((frozen, outlet))) => Ok(Some(Given { heir, frozen, touched, outlet })),
            Ok(None) => {
                if !heir.has_ended_in(HELLO) {
                    heir.end();
                }
                Ok(None)
            }
            Err(failed) => {
                heir.end();
                Err(failed)
            }
        }
    }

    /// Everything that can be done while this process serves.
    fn prepare(&mut self, heir: &Heir, outcome: &mut Outcome) -> Result<Arc<Sent>, Failed> {
        let hello = heir.introduced(HELLO)?;
        let spoken = conversation(&hello.proof)?;
        let to = Process { pid: heir.pid(), version: hello.proof.version };
        (self.tell)(Step::Started { pid: to.pid, version: to.version.clone() });
        outcome.to = Some(to);
        let line = &heir.line;
        let keeper = self.keeper.clone();
        let keeper: Vec<_> = keeper.iter().map(|keeper| keeper.as_fd()).collect();
        let welcome = FromOld::Welcome {
            speaks: spoken,
            uptime_ms: self.freezer.uptime_ms(),
            has_keeper: !keeper.is_empty(),
        };
        line.say(&welcome, &keeper, Deadline::after(BATCH))?;
        let listeners = self.freezer.listeners();
        let doors = listeners.iter().map(|(door, _)| (*door).into()).collect();
        let sockets: Vec<_> = listeners.iter().map(|(_, listener)| listener.as_fd()).collect();
        line.say(&FromOld::Listeners(doors), &sockets, Deadline::after(BATCH))?;
        let sent = Sent::on(line);
        line.wait_for(1, READY)?;
        (self.tell)(Step::Listening { listeners: sockets.len() as u64 });
        self.copy_ahead(&sent)?;
        (self.tell)(Step::Copied { connections: sent.sockets.load(Ordering::Acquire) });
        outcome.history_bytes = self.history(&sent)?;
        (self.tell)(Step::History { bytes: outcome.history_bytes });
        // What came meanwhile goes now, so that the freeze has less to do.
        self.copy_ahead(&sent)?;
        if spoken >= TELLS_AHEAD {
            self.tell_ahead(&sent)?;
        }
        line.say(&FromOld::Ahead, &[], Deadline::after(BATCH))?;
        match line.next(READY)? {
            FromNew::Ready { sockets } => outcome.connections = sockets,
            other => return Err(Failed(format!("the new process is not ready: {other:?}"))),
        }
        let bridged = self.gate.bridged.load(Ordering::Relaxed);
        outcome.returning = u32::try_from(bridged).unwrap_or(u32::MAX);
        if bridged > 0 {
            let over = BRIDGED_SPREAD.as_millis();
            outcome.returning_over_ms = u32::try_from(over).unwrap_or(u32::MAX);
        }
        outcome.requests = u32::try_from(self.gate.busy()).unwrap_or(u32::MAX);
        (self.tell)(Step::Ready);
        Ok(sent)
    }

    fn copy_ahead(&self, sent: &Arc<Sent>) -> Result<(), Failed> {
        let courier = Arc::clone(sent) as Arc<dyn Courier>;
        let copied = self.freezer.copy_ahead(&courier).wait(COPIES);
        copied.map_err(|error| Failed(error.to_string()))?;
        Ok(sent.line.wait_for(sent.batches.load(Ordering::Acquire), BATCH)?)
    }

    /// What connections are, while they are served: all of them, and then those that have changed
    /// meanwhile, until few do.
    fn tell_ahead(&self, sent: &Arc<Sent>) -> Result<(), Failed> {
        let courier = Arc::clone(sent) as Arc<dyn Courier>;
        for _ in 0..TELLINGS_MAX {
            let told = std::thread::scope(|scope| {
                let pieces = &sent.pieces;
                let passing_on = scope.spawn(|| sent.pass_on(pieces.come()));
                let told = self.freezer.tell_ahead(&courier).wait(COPIES);
                pieces.end();
                let passed = passing_on.join().unwrap_or_else(|_| Err("a bug".to_owned()));
                told.map_err(|error| error.to_string()).and_then(|told| passed.map(|()| told))
            })?;
            self.copy_ahead(sent)?;
            if told < FEW {
                break;
            }
        }
        Ok(())
    }

    fn history(&self, sent: &Sent) -> Result<u64, Failed> {
        let mut bytes = 0;
        for chunk in self.freezer.snapshot() {
            bytes += chunk.len() as u64;
            sent.file(&FromOld::History, &chunk)?;
        }
        Ok(bytes)
    }

    /// The freeze. From the acknowledgement on, the new process is the server.
    fn commit(
        &mut self,
        heir: &mut Heir,
        (sent, touched): (&Arc<Sent>, &Touched),
        outcome: &mut Outcome,
    ) -> Result<Frozen, Failed> {
        // Or that one would come back beside the new process if this one died: the list of what
        // was used since is not its.
        if let Some(predecessor) = &self.predecessor {
            predecessor.settle();
        }
        let courier = Arc::clone(sent) as Arc<dyn Courier>;
        let frozen =
            self.freezer.freeze(&courier, Patience::default()).map_err(|why| why.to_string())?;
        let connections = sent.sockets.load(Ordering::Acquire);
        let patience = LOAD + Duration::from_secs(connections / LOADED_PER_S);
        let answer = sent.cargo(frozen.cargo(), touched).and_then(|()| heir.line.next(patience));
        let served = match answer {
            Ok(FromNew::Serving { connections }) => Some(connections),
            Ok(other) => return Err(self.undo(heir, frozen, format!("it says {other:?}"))),
            // Never do two processes serve one client: it is ended first, and then looked at
            // once more.
            Err(why) => match heir.end() {
                true => None,
                false => return Err(self.undo(heir, frozen, why)),
            },
        };
        outcome.connections = served.unwrap_or(connections);
        outcome.frozen_us = u64::try_from(frozen.since().elapsed().as_micros()).unwrap_or(u64::MAX);
        let (connections, frozen_us) = (outcome.connections, outcome.frozen_us);
        (self.tell)(Step::Committed { connections, frozen_us });
        Ok(frozen)
    }

    fn undo(&mut self, heir: &mut Heir, frozen: Frozen, why: String) -> Failed {
        heir.end();
        frozen.resume();
        Failed(why)
    }
}

/// The conversation with another version, if there can be one.
fn conversation(with: &Proof) -> Result<u32, Failed> {
    let spoken = common(with.speaks).filter(|_| with.state.0 == Version::HERE.major);
    spoken.ok_or_else(|| {
        Failed(format!(
            "version {} cannot take over from {}: what they hand over has changed; stop this \
             server and start that one instead",
            with.version,
            crate::version()
        ))
    })
}

/// What has been sent, counted; and how more is.
#[derive(Debug)]
pub(crate) struct Sent {
    line: Arc<Line>,
    /// Messages that are acknowledged one by one.
    batches: AtomicU64,
    sockets: AtomicU64,
    pieces: Pieces,
}

/// What shards have written of their connections and was not passed on yet: a shard opens no file, and
/// waits for none.
#[derive(Debug, Default)]
struct Pieces {
    state: Mutex<PiecesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PiecesState {
    /// Each with its shard.
    list: VecDeque<(usize, Vec<u8>)>,
    is_over: bool,
}

impl Pieces {
    /// Pieces come, until [`Pieces::end`].
    fn come(&self) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        std::iter::from_fn(|| self.take())
    }

    fn put(&self, shard: usize, piece: Vec<u8>) {
        self.state.lock().list.push_back((shard, piece));
        self.changed.notify_all();
    }

    fn take(&self) -> Option<(usize, Vec<u8>)> {
        let mut state = self.state.lock();
        while state.list.is_empty() && !state.is_over {
            self.changed.wait(&mut state);
        }
        let piece = state.list.pop_front();
        state.is_over &= piece.is_some();
        piece
    }

    fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    fn have_room(&self) -> bool {
        self.state.lock().list.len() < PIECES_MAX
    }
}

impl Sent {
    /// Nothing but the listeners so far.
    fn on(line: &Arc<Line>) -> Arc<Self> {
        let (batches, sockets) = (AtomicU64::new(1), AtomicU64::new(0));
        let pieces = Pieces::default();
        Arc::new(Self { line: Arc::clone(line), batches, sockets, pieces })
    }

    /// Passes on what shards write, until there is no more. After an error the rest is let go.
    fn pass_on(&self, pieces: impl Iterator<Item = (usize, Vec<u8>)>) -> Result<(), String> {
        let mut passed = Ok(());
        for (shard, piece) in pieces {
            passed = passed.and_then(|()| self.file(&FromOld::Connections { shard }, &piece));
        }
        passed
    }

    /// One sealed file, when those before it have arrived.
    fn file(&self, message: &FromOld, bytes: &[u8]) -> Result<(), String> {
        let sent = self.batches.fetch_add(1, Ordering::AcqRel);
        self.line.wait_for((sent + 1).saturating_sub(BATCHES_MAX), BATCH)?;
        let file = sealed("throng", &[&fault::grown(bytes)]).map_err(|error| error.to_string())?;
        self.line.say(message, &[file.as_fd()], Deadline::after(BATCH))
    }

    fn cargo(&self, cargo: &Cargo, touched: &Touched) -> Result<(), String> {
        let Cargo { changes, common, shards } = cargo;
        let announced = FromOld::Cargo { shards: shards.len() };
        self.line.say(&announced, &[touched.as_fd()], Deadline::after(BATCH))?;
        for part in [changes, common].into_iter().chain(shards) {
            let file =
                sealed("throng", &[&fault::grown(part)]).map_err(|error| error.to_string())?;
            self.line.say(&FromOld::Part, &[file.as_fd()], Deadline::after(BATCH))?;
        }
        Ok(())
    }
}

impl Courier for Sent {
    fn is_ready(&self) -> bool {
        // Where nothing more comes, sending says why.
        self.pieces.have_room()
            && self.line.got().is_none_or(|got| {
                self.batches.load(Ordering::Acquire).saturating_sub(got) < BATCHES_MAX
            })
    }

    fn send(&self, batch: &[Parcel<'_>]) -> io::Result<()> {
        // Asks for nothing new: it fails where nothing more comes.
        self.line.wait_for(0, BATCH).map_err(io::Error::other)?;
        let tag = |parcel: &Parcel<'_>| Tag {
            number: parcel.number,
            cookie: parcel.cookie,
            shard: parcel.shard,
        };
        let tags: Vec<Tag> = batch.iter().map(tag).collect();
        let sockets: Vec<_> = batch.iter().map(|parcel| parcel.socket).collect();
        self.batches.fetch_add(1, Ordering::AcqRel);
        self.sockets.fetch_add(sockets.len() as u64, Ordering::AcqRel);
        let message = FromOld::Sockets(tags);
        self.line.say(&message, &sockets, Deadline::after(BATCH)).map_err(io::Error::other)
    }

    fn tell(&self, shard: u16, piece: Vec<u8>) -> io::Result<()> {
        self.pieces.put(shard.into(), piece);
        Ok(())
    }
}

/// Where what is left in the old process goes after the commit.
impl Outlet for Sent {
    fn call(&self, method: &str, asks: Asks, body: &[u8]) -> oneshot::Receiver<Reply> {
        self.line.call(method, asks, body)
    }

    fn arrival(&self, state: Vec<u8>, socket: OwnedFd) {
        // Its client comes again.
        let Ok(file) = sealed("throng", &[&fault::grown(&state)]) else { return };
        let both = [file.as_fd(), socket.as_fd()];
        self.line.say(&FromOld::Arrival, &both, Deadline::after(BATCH)).ok(); // as above
    }

    fn backend_answer(&self, answer: Vec<u8>) {
        // The new process answers for it at the deadline.
        let Ok(file) = sealed("throng", &[&fault::grown(&answer)]) else { return };
        self.line.say(&FromOld::BackendAnswer, &[file.as_fd()], Deadline::after(BATCH)).ok();
    }
}
