//! A shard hands out copies of its sockets, stops, is written down, and goes on or is left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use throng_hub::state::sealed::{self, Piece};

use super::conn::{Flags, Manner, State};
use super::crowd::is_full;
use super::record::{self, Ahead, Frames};
use super::turn::{Shard, slot_of};
use super::{ConnRef, Handler};
use crate::codes::Disconnect;

/// Descriptors in one batch: what SCM_RIGHTS carries in one message.
pub const BATCH_MAX: usize = 253;
/// How soon a shard asks again whether its courier is ready.
const ASK_AGAIN: Duration = Duration::from_millis(1);
/// What a connection's record takes, more or less.
const RECORD_BYTES: usize = 200;
/// Connections that are told of in one turn: some hundred microseconds.
const TOLD_PER_TURN: usize = 512;

/// One socket on its way to the other process.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// The connection's number.
    pub number: u64,
    /// The socket's.
    pub cookie: u64,
    /// The shard that it lives in.
    pub shard: u16,
    pub socket: BorrowedFd<'a>,
}

/// Carries sockets to the other process. Called on the shards' threads, several at a time.
pub trait Courier: Send + Sync {
    /// Whether [`Courier::send`] would go through at once; a shard that is told no asks again in
    /// its next turn, at most a few milliseconds later. Not asked while shards are frozen.
    fn is_ready(&self) -> bool;

    /// Sends a batch of at most [`BATCH_MAX`].
    ///
    /// # Errors
    /// When it cannot: then the copying, or the freeze, has failed.
    fn send(&self, batch: &[Parcel<'_>]) -> io::Result<()>;

    /// Sends what some connections of a shard are, whose sockets have been sent. [`Courier::is_ready`]
    /// is asked before.
    ///
    /// # Errors
    /// As above.
    fn tell(&self, shard: u16, piece: Vec<u8>) -> io::Result<()>;
}

/// What a shard is to do with copies of its sockets.
pub enum CopyOrder {
    /// Send all that were not sent yet, batch by batch, between turns.
    Send { shard: u16, courier: Arc<dyn Courier>, tally: Arc<Tally> },
    /// Tell of all connections whose sockets were sent and that are not as they were told.
    Tell { shard: u16, courier: Arc<dyn Courier>, tally: Arc<Tally> },
    /// Say when nothing is in the middle of anything.
    Calm { tally: Arc<Tally> },
    /// Nobody holds copies any more.
    Forget,
}

/// How far the copying came in all shards.
#[derive(Debug)]
pub struct Tally {
    state: Mutex<TallyState>,
    changed: Condvar,
}

#[derive(Debug)]
struct TallyState {
    shards_left: usize,
    sent: u64,
    failed: Option<io::Error>,
}

impl Tally {
    pub fn new(shards: usize) -> Arc<Self> {
        let state = TallyState { shards_left: shards, sent: 0, failed: None };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Waits until every shard has done what it was told; how many sockets or connections that were.
    ///
    /// # Errors
    /// When a courier failed, or it takes longer than `patience`.
    pub fn wait(&self, patience: Duration) -> io::Result<u64> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.shards_left > 0 && state.failed.is_none() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("copying {} connections took over {patience:?}", state.sent),
                ));
            }
        }
        state.failed.take().map_or(Ok(state.sent), Err)
    }

    fn sent(&self, count: usize) {
        self.state.lock().sent += count as u64;
    }

    fn end(&self, result: io::Result<()>) {
        let mut state = self.state.lock();
        state.shards_left = state.shards_left.saturating_sub(1);
        state.failed = state.failed.take().or(result.err());
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for CopyOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Send { .. } => "Send",
            Self::Tell { .. } => "Tell",
            Self::Calm { .. } => "Calm",
            Self::Forget => "Forget",
        })
    }
}

/// Where a shard is with copying its sockets, or telling of its connections.
pub(super) struct Copying {
    shard: u16,
    courier: Arc<dyn Courier>,
    tally: Arc<Tally>,
    left: Left,
}

/// What a shard is still to send.
enum Left {
    /// The sockets in these slots.
    Sockets(std::ops::Range<usize>),
    /// What the connections in these slots are.
    Connections(std::vec::IntoIter<u32>),
}

impl Copying {
    /// How long the shard may sleep.
    pub(super) fn patience(&self) -> Duration {
        if self.courier.is_ready() { Duration::ZERO } else { ASK_AGAIN }
    }
}

/// One stop of all shards: they meet here, and wait for the verdict.
pub struct Stop {
    shards: usize,
    /// What sockets go to that were not copied yet.
    courier: Arc<dyn Courier>,
    /// Whether nothing is under way between shards, node and broker; asked when all shards wait.
    is_quiet: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Default)]
struct StopState {
    arrived: usize,
    round: u64,
    is_quiet: bool,
    /// By shard.
    written: Vec<Option<io::Result<Vec<u8>>>>,
    verdict: Option<Verdict>,
}

#[derive(Clone)]
enum Verdict {
    Resume,
    /// Resume, after another process served for a while: these may go on.
    TakeBack(Keeps),
    Leave,
}

/// Says of a connection, by its number and socket, whether it may go on.
type Keeps = Arc<dyn Fn(u64, BorrowedFd<'_>) -> bool + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Write,
    Resume,
}

/// Whether a piece is the last one, with which everything is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    No,
    Yes,
}

/// Whether a list is to be there afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    Read,
    Taken,
}

/// A shard's order to stop.
#[derive(Debug, Clone)]
pub struct StopOrder {
    pub stop: Arc<Stop>,
    /// Which shard it is.
    pub shard: u16,
}

/// What a shard does after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    /// Its connections live elsewhere: they are forgotten.
    Leave,
}

impl Stop {
    /// A stop of so many shards.
    pub fn new(
        shards: usize,
        courier: Arc<dyn Courier>,
        is_quiet: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let written = (0..shards).map(|_| None).collect();
        Arc::new(Self {
            shards,
            courier,
            is_quiet: Box::new(is_quiet),
            state: Mutex::new(StopState { written, ..StopState::default() }),
            changed: Condvar::new(),
        })
    }

    /// Waits until nothing is under way any more and the shards are being written down. False when
    /// that takes too long; then [`Stop::resume`] is called.
    pub fn wait_quiet(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.is_quiet {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.is_quiet;
            }
        }
        true
    }

    /// What all shards have written down. None when that takes too long.
    pub fn wait_written(&self, deadline: Instant) -> Option<io::Result<Vec<Vec<u8>>>> {
        let mut state = self.state.lock();
        while state.written.iter().any(Option::is_none) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        Some(std::mem::take(&mut state.written).into_iter().flatten().collect())
    }

    /// The shards go on as if nothing had happened.
    pub fn resume(&self) {
        self.conclude(Verdict::Resume);
    }

    /// The shards go on after another process served their connections for a while, with those that
    /// `keeps` says; the others are cut off.
    pub fn take_back(&self, keeps: impl Fn(u64, BorrowedFd<'_>) -> bool + Send + Sync + 'static) {
        self.conclude(Verdict::TakeBack(Arc::new(keeps)));
    }

    /// The shards end, and close their sockets without a word to anybody.
    pub fn leave(&self) {
        self.conclude(Verdict::Leave);
    }

    fn conclude(&self, verdict: Verdict) {
        self.state.lock().verdict.get_or_insert(verdict);
        self.changed.notify_all();
    }

    /// A shard has emptied its mailbox.
    fn arrive(&self) -> Next {
        let mut state = self.state.lock();
        state.arrived += 1;
        if state.arrived == self.shards {
            state.arrived = 0;
            state.round += 1;
            state.is_quiet = (self.is_quiet)();
            self.changed.notify_all();
        } else {
            let round = state.round;
            while state.round == round && state.verdict.is_none() {
                self.changed.wait(&mut state);
            }
        }
        match (&state.verdict, state.is_quiet) {
            (Some(_), _) => Next::Resume,
            (None, true) => Next::Write,
            (None, false) => Next::Again,
        }
    }

    fn deliver(&self, shard: u16, written: io::Result<Vec<u8>>) {
        let mut state = self.state.lock();
        if let Some(place) = state.written.get_mut(usize::from(shard)) {
            *place = Some(written);
        }
        self.changed.notify_all();
    }

    fn verdict(&self) -> Verdict {
        let mut state = self.state.lock();
        loop {
            match &state.verdict {
                Some(verdict) => return verdict.clone(),
                None => self.changed.wait(&mut state),
            }
        }
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl<H: Handler> Shard<H> {
    pub(super) fn begin_copying(&mut self, order: CopyOrder) {
        match order {
            CopyOrder::Send { shard, courier, tally } => {
                self.leave_off();
                let left = Left::Sockets(0..self.crowd.due.len());
                self.copying = Some(Copying { shard, courier, tally, left });
            }
            CopyOrder::Tell { shard, courier, tally } => {
                let left = Left::Connections(self.untold(Taking::Taken).into_iter());
                self.copying = Some(Copying { shard, courier, tally, left });
            }
            CopyOrder::Calm { tally } => self.calming = Some(tally),
            CopyOrder::Forget => {
                self.copying = None;
                self.forget_told();
            }
        }
    }

    /// What an order had not come to stays to be done.
    fn leave_off(&mut self) {
        let left = self.copying.take().map(|copying| copying.left);
        if let Some(Left::Connections(slots)) = left {
            slots.for_each(|slot| self.crowd.conns.put_off(slot));
        }
    }

    fn forget_told(&mut self) {
        self.crowd.conns.forget_told();
        self.handler.forget_told();
    }

    /// Says so, where somebody waits for nothing being in the middle of anything.
    pub(super) fn be_calm(&mut self) {
        if self.calming.is_some()
            && !self.handler.has_work()
            && self.letters.len() == 0
            && self.crowd.ready.is_empty()
            && let Some(tally) = self.calming.take()
        {
            tally.end(Ok(()));
        }
    }

    /// Sends one batch of copies, or of what connections are, if it is time for one.
    pub(super) fn copy_some(&mut self) {
        if self.copying.as_ref().is_none_or(|copying| !copying.courier.is_ready()) {
            return;
        }
        let Some(mut copying) = self.copying.take() else { return };
        let courier = &*copying.courier;
        let sent = match &mut copying.left {
            Left::Sockets(slots) => {
                let copied = self.copy_batch(courier, copying.shard, slots);
                copied.map(|sent| (sent, (*slots).is_empty()))
            }
            Left::Connections(slots) => {
                let told = self.tell_batch(courier, copying.shard, slots);
                told.map(|sent| (sent, slots.len() == 0))
            }
        };
        match sent {
            Ok((sent, is_through)) => {
                copying.tally.sent(sent);
                if is_through {
                    copying.tally.end(Ok(()));
                } else {
                    self.copying = Some(copying);
                }
            }
            Err(error) => copying.tally.end(Err(error)),
        }
    }

    /// Tells of some of the connections in these slots; who is in the middle of something, or whose
    /// socket was not sent, is told of later. Returns how many were told of.
    fn tell_batch(
        &mut self,
        courier: &dyn Courier,
        shard: u16,
        slots: &mut std::vec::IntoIter<u32>,
    ) -> io::Result<usize> {
        let mut batch = Vec::with_capacity(TOLD_PER_TURN);
        for slot in slots.by_ref().take(4 * TOLD_PER_TURN) {
            let Some(conn) = self.crowd.conns.get(slot as usize) else { continue };
            if conn.link.flags.is_told() || conn.link.state == State::Dead {
                continue;
            }
            let session = conn.session.as_ref();
            let ready = conn.link.is_at_rest()
                && conn.link.flags.has(Flags::COPIED)
                && session.is_some_and(|session| self.handler.is_at_rest(session));
            if ready {
                batch.push(slot);
            } else {
                self.crowd.conns.put_off(slot);
            }
            if batch.len() == TOLD_PER_TURN {
                break;
            }
        }
        let telling = self.crowd.conns.begin_telling();
        if batch.is_empty() && telling.gone.is_empty() {
            return Ok(0);
        }
        let piece = self.write(&batch, Last::No);
        for slot in &batch {
            self.crowd.conns.told(*slot);
        }
        let telling = self.crowd.conns.begin_telling();
        telling.gone.clear();
        telling.pieces += 1;
        courier.tell(shard, piece)?;
        Ok(batch.len())
    }

    /// The slots of all connections that are to be told, or told again, the lowest first; some may
    /// be empty, or need not be told.
    fn untold(&mut self, taking: Taking) -> Vec<u32> {
        let all = 0..slot_of(self.crowd.due.len());
        let mut slots = match (self.crowd.conns.telling(), taking) {
            (None, _) => all.collect(),
            (Some(telling), Taking::Read) => telling.behind.clone(),
            (Some(_), Taking::Taken) => {
                std::mem::take(&mut self.crowd.conns.begin_telling().behind)
            }
        };
        // What an order had not come to.
        if let Some(Left::Connections(left)) = self.copying.as_ref().map(|copying| &copying.left) {
            slots.extend(left.as_slice());
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Sends a batch of the sockets in these slots that were not sent yet; how many.
    fn copy_batch(
        &mut self,
        courier: &dyn Courier,
        shard: u16,
        slots: &mut impl Iterator<Item = usize>,
    ) -> io::Result<usize> {
        let mut parcels = Vec::with_capacity(BATCH_MAX);
        let mut looked_at = Vec::with_capacity(BATCH_MAX);
        while parcels.len() < BATCH_MAX
            && let Some(slot) = slots.next()
        {
            let Some(conn) = self.crowd.conns.get(slot).filter(|conn| {
                conn.link.state != State::Dead && !conn.link.flags.has(Flags::COPIED)
            }) else {
                continue;
            };
            let socket = conn.link.socket.as_fd();
            let cookie = rustix::net::sockopt::socket_cookie(socket)?;
            parcels.push(Parcel { number: conn.link.number, cookie, shard, socket });
            looked_at.push(slot);
        }
        let sent = parcels.len();
        if sent > 0 {
            courier.send(&parcels)?;
        }
        for slot in looked_at {
            if let Some(conn) = self.crowd.conns.peek_mut(slot) {
                conn.link.flags.set(Flags::COPIED);
            }
        }
        Ok(sent)
    }

    /// Stops until the verdict. No event is taken from the kernel meanwhile, so none is lost.
    pub(super) fn hold(&mut self, order: &StopOrder) -> After {
        let StopOrder { stop, shard } = order;
        self.crowd.manner = Manner::Queue;
        loop {
            self.drain();
            match stop.arrive() {
                Next::Again => {}
                Next::Write => break,
                Next::Resume => {
                    self.thaw();
                    return After::GoOn;
                }
            }
        }
        let written = self.copy_rest(&*stop.courier, *shard).map(|()| self.write_down());
        stop.deliver(*shard, written);
        match stop.verdict() {
            Verdict::Resume => {
                self.thaw();
                After::GoOn
            }
            Verdict::TakeBack(keeps) => {
                self.take_back(&*keeps);
                self.thaw();
                After::GoOn
            }
            Verdict::Leave => After::Leave,
        }
    }

    /// Cuts off who may not go on, and tells the others to recover.
    pub(super) fn take_back(
        &mut self,
        keeps: &(dyn Fn(u64, BorrowedFd<'_>) -> bool + Send + Sync),
    ) {
        let mut over = Vec::new();
        self.forget_told();
        for (key, conn) in self.crowd.conns.iter() {
            if !keeps(conn.link.number, conn.link.socket.as_fd()) {
                over.push(slot_of(key));
            }
        }
        for slot in over {
            self.crowd.break_off(slot, Disconnect::CONNECTION_CLOSED);
        }
        self.reap();
        self.handler.begin_anew(&mut self.crowd);
        self.reap();
    }

    /// Reads all mail and does what it asks for, without a socket being read or written.
    pub(super) fn drain(&mut self) {
        self.crowd.manner = Manner::Queue;
        loop {
            if self.letters.len() == 0 {
                let mut letters = Vec::new();
                self.mailbox.take(&mut letters);
                self.letters = letters.into_iter();
            }
            while let Some(letter) = self.letters.next() {
                self.letter(letter);
            }
            self.reap();
            self.handler.settle(&mut self.crowd);
            // What a slice left goes to the outboxes: nobody pays a system call for it now.
            while self.handler.has_work() {
                self.handler.work(&mut self.crowd, usize::MAX);
            }
            self.reap();
            if self.mailbox.is_empty() {
                return;
            }
        }
    }

    /// Sends the sockets that came since the copying.
    pub(super) fn copy_rest(&mut self, courier: &dyn Courier, shard: u16) -> io::Result<()> {
        // Who was told of was copied.
        let slots = self.untold(Taking::Read);
        let mut slots = slots.into_iter().map(|slot| slot as usize).peekable();
        while slots.peek().is_some() {
            self.copy_batch(courier, shard, &mut slots)?;
        }
        Ok(())
    }

    /// Writes everything down that another process does not know yet; nothing of it is changed.
    pub(super) fn write_down(&mut self) -> Vec<u8> {
        debug_assert!(self.crowd.fallen.is_empty(), "who fell is reaped");
        let slots = self.untold(Taking::Read);
        self.write(&slots, Last::Yes)
    }

    /// Writes a piece of what the connections in these slots are, but those that are told of.
    fn write(&mut self, slots: &[u32], last: Last) -> Vec<u8> {
        let crowd = &self.crowd;
        let needs_telling = |slot: &u32| {
            let conn = crowd.conns.get(*slot as usize)?;
            let is_new = !conn.link.flags.is_told() && conn.link.state != State::Dead;
            is_new.then_some(*slot)
        };
        let slots: Vec<u32> = slots.iter().filter_map(needs_telling).collect();
        let mut out =
            sealed::begin(Piece::Shard, crowd.time.now, slots.len() * RECORD_BYTES + 4096);
        let (is_last, connections) = (last == Last::Yes, crowd.conns.len() as u64);
        let handler = &mut self.handler;
        out.record(record::SHARED, |out| handler.put_shared(&slots, is_last, out));
        if is_last {
            crowd.counters.put(record::COUNTERS, &mut out);
        }
        if let Some(telling) = crowd.conns.telling() {
            let ahead = Ahead {
                pieces: telling.pieces,
                connections: is_last.then_some(connections),
                gone: telling.gone.clone(),
            };
            ahead.put(&mut out);
        }
        let mut frames = Frames::default();
        for slot in slots {
            let Some(conn) = crowd.conns.get(slot as usize) else { continue };
            out.record(record::CONNECTION, |out| {
                conn.link.put(&mut frames, out);
                if let Some(session) = &conn.session {
                    let conn = ConnRef { slot, number: conn.link.number };
                    out.record(record::SESSION, |out| handler.put_session(conn, session, out));
                }
            });
        }
        frames.put(&mut out);
        sealed::seal(out)
    }

    /// Goes on: what was said meanwhile is written now.
    pub(super) fn thaw(&mut self) {
        self.crowd.manner = Manner::Write;
        for slot in std::mem::take(&mut self.crowd.unsent) {
            self.crowd.flush(slot);
            let full =
                |conn: &super::conn::Conn<H::Session>| is_full(&conn.link, &self.crowd.bounds);
            if self.crowd.conns.get(slot as usize).is_some_and(full) {
                self.crowd.fall(slot, Disconnect::SLOW);
            }
            self.finish_close(slot);
        }
        self.reap();
        // What became due meanwhile.
        self.sweep.begin();
    }
}
