//! The connections of a shard, and what can be done to one of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use throng_hub::request::Now;
use throng_wire::dialect::Encoding;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Decoder, Deflater, Effort, Opcode, Window, put_close, put_frame};

use super::conn::{Fallen, Flags, Link, Manner, Sent, State, Witnessed};
use super::conns::Conns;
use super::{Bounds, ConnRef, NEVER, WakeAt};
use crate::allowance::Allowance;
use crate::clock::Clock;
use crate::codes::Disconnect;
use crate::metrics::Slow;
use crate::rng::Rng;

/// What a slow client has for its last frames, before the kernel's memory for it is taken back.
const SLOW_CLOSE: Duration = Duration::from_secs(1);
/// Connections closed at once when the node's allowance is exceeded: one look at the whole crowd
/// finds so many.
const RELIEVED_MAX: usize = 64;

/// All connections of a shard.
#[derive(Debug)]
pub struct Crowd<S> {
    pub(super) conns: Conns<S>,
    /// By slot: the next second in which the sweep has something to do there. Apart from the
    /// records so that a sweep over a silent crowd reads four bytes per connection.
    pub(super) due: Vec<u32>,
    /// Slots that go on in the next turn without an event.
    pub(super) ready: Vec<u32>,
    /// Slots whose connection ended in the middle of something else.
    pub(super) fallen: Vec<Fallen>,
    pub(super) bounds: Bounds,
    pub(super) allowance: Arc<Allowance>,
    /// This crowd's part of what the allowance was asked for.
    pub(super) held: usize,
    pub(super) counters: Counters,
    pub(super) time: TurnTime,
    pub(super) rng: Rng,
    /// Frames made for the connection at hand.
    pub(super) scratch: Vec<u8>,
    /// Compresses for all connections.
    pub(super) deflater: Deflater,
    /// Everything is frozen: no socket is written to.
    pub(super) manner: Manner,
    /// Slots with something to be written when it is frozen no more.
    pub(super) unsent: Vec<u32>,
    pub(super) clock: Clock,
    /// Told of each connection that came from another process before it is used here.
    pub(super) witness: Option<Witnessing>,
}

/// Writes down, where the process before this one finds it, that a connection is used here.
pub type Witness = Arc<dyn Fn(Touch) -> io::Result<()> + Send + Sync>;

/// What a [`Witness`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The connection with this number is used from now on.
    Connection(u64),
    /// From now on nothing more is told, whatever is used.
    Anything,
}

/// A witness, and until when it is told of everything.
pub(super) struct Witnessing {
    pub(super) witness: Witness,
    pub(super) until: Instant,
}

impl std::fmt::Debug for Witnessing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witnessing").field("until", &self.until).finish_non_exhaustive()
    }
}

/// The time, read once per turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnTime {
    pub(super) instant: Instant,
    pub(super) now: Now,
    pub(super) second: u32,
}

/// What a shard counts; summed over shards when asked.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    /// Connections taken in, ever.
    pub opened: u64,
    /// Answers that came for a connection that had gone.
    pub late_answers: u64,
    /// Panics caught while one connection's input was handled.
    pub panics: u64,
    /// Connections reset because their socket took nothing.
    pub resets: u64,
}

/// What a handler says to the connection at hand; written when the handler returns.
#[derive(Debug)]
pub struct Out<'a> {
    pub conn: ConnRef,
    /// The shard's seconds.
    pub second: u32,
    pub now: Now,
    pub rng: &'a mut Rng,
    /// Commands that this connection may still have handled in this turn.
    pub share: u32,
    /// What is said on this connection is wrapped so.
    pub framing: Framing,
    /// The message at hand came compressed.
    pub inflated: bool,
    /// How hard to try where permessage-deflate was agreed on.
    pub effort: Effort,
    pub(super) deflate: Option<(&'a mut Deflater, Window)>,
    pub(super) frames: &'a mut Vec<u8>,
    pub(super) close: Option<Disconnect>,
    pub(super) form: Option<u8>,
    pub(super) wake: Option<WakeAt>,
    pub(super) hold: bool,
    pub(super) release: Option<Bytes>,
    pub(super) queue_room: usize,
}

impl Out<'_> {
    /// Says one message, in the connection's framing.
    pub fn message(&mut self, payload: &[u8]) {
        match &mut self.deflate {
            None => self.framing.put(payload, self.frames),
            Some((deflater, window)) => {
                self.framing.put_deflated(payload, (deflater, self.effort, *window), self.frames);
            }
        }
    }

    /// One message in the connection's framing, to be said later.
    pub fn wrapped(&mut self, payload: &[u8]) -> Bytes {
        let mut frames = Vec::with_capacity(payload.len() + 10);
        std::mem::swap(self.frames, &mut frames);
        self.message(payload);
        std::mem::swap(self.frames, &mut frames);
        frames.into()
    }

    /// Says one message on a WebSocket.
    pub fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        match &mut self.deflate {
            Some((deflater, window)) if matches!(opcode, Opcode::Text | Opcode::Binary) => {
                deflater.put_frame(opcode, payload, (self.effort, *window), self.frames);
            }
            _ => put_frame(opcode, payload, self.frames),
        }
    }

    /// With which window what is said is compressed, where that was agreed on.
    pub fn window(&self) -> Option<Window> {
        self.deflate.as_ref().map(|(_, window)| *window)
    }

    /// Says frames that are made already.
    pub fn frames(&mut self, frames: &[u8]) {
        self.frames.extend_from_slice(frames);
    }

    /// Ends the connection after what was said.
    pub fn close(&mut self, why: Disconnect) {
        if self.close.is_none() {
            self.close = Some(why);
        }
    }

    /// Whether [`Out::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.close.is_some()
    }

    /// Which form of publications this connection wants from now on.
    pub fn set_form(&mut self, form: u8) {
        self.form = Some(form);
    }

    /// When to call [`super::Handler::wake`].
    pub fn wake_at(&mut self, second: WakeAt) {
        self.wake = Some(second);
    }

    /// Keeps everything back until [`Out::release`].
    pub fn hold(&mut self) {
        self.hold = true;
    }

    /// Lets go what was kept back, `first` before all of it.
    pub fn release(&mut self, first: Bytes) {
        self.release = Some(first);
    }

    /// Bytes that may still be queued for this connection before it counts as slow.
    pub fn room(&self) -> usize {
        self.queue_room.saturating_sub(self.frames.len())
    }
}

impl<S> Crowd<S> {
    /// How many connections there are, closing ones included.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The shard's seconds.
    pub fn second(&self) -> u32 {
        self.time.second
    }

    /// The turn's time.
    pub fn now(&self) -> Now {
        self.time.now
    }

    /// The shard's generator.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// What the shard has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A connection's session, if it is still established.
    pub fn session(&self, slot: u32) -> Option<&S> {
        self.conns.get(slot as usize)?.session.as_ref()
    }

    /// All established connections.
    pub fn sessions(&self) -> impl Iterator<Item = (ConnRef, &S)> {
        self.conns.iter().filter_map(|(slot, conn)| {
            let slot = u32::try_from(slot).ok()?;
            Some((ConnRef { slot, number: conn.link.number }, conn.session.as_ref()?))
        })
    }

    /// Bytes that all connections hold together, those that wait for sockets among them.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Bytes that wait for the socket of the connection in `slot`.
    pub fn waiting_bytes(&self, slot: u32) -> usize {
        self.conns.get(slot as usize).map_or(0, |conn| conn.link.waiting_bytes())
    }

    /// Connections with bytes waiting for their sockets: how many, how much, and the most of one.
    pub(crate) fn weigh(&self) -> Slow {
        let mut slow = Slow::default();
        // Nothing waits anywhere, so the crowd need not be gone through.
        if self.held == 0 {
            return slow;
        }
        for (_, conn) in self.conns.iter() {
            let waiting = conn.link.waiting_bytes() as u64;
            slow.clients += u64::from(waiting > 0);
            slow.bytes += waiting;
            slow.largest = slow.largest.max(waiting);
        }
        slow
    }

    /// The number of the connection in `slot`.
    pub fn conn_ref(&self, slot: u32) -> Option<ConnRef> {
        let conn = self.conns.get(slot as usize)?;
        Some(ConnRef { slot, number: conn.link.number })
    }

    /// Runs `f` on a connection's session and sends what it says. `None` if that connection is
    /// gone: what was meant for it is dropped and counted.
    pub fn with<T>(&mut self, to: ConnRef, f: impl FnOnce(&mut S, &mut Out<'_>) -> T) -> Option<T> {
        let found = self
            .conns
            .get_mut(to.slot as usize)
            .filter(|conn| conn.link.number == to.number && conn.link.state == State::Open)
            .and_then(|conn| conn.session.take());
        let Some(mut session) = found else {
            self.counters.late_answers += 1;
            return None;
        };
        let result = self.speak(to.slot, |out| f(&mut session, out));
        if let Some(conn) = self.conns.get_mut(to.slot as usize) {
            conn.session = Some(session);
        }
        Some(result)
    }

    /// Makes an [`Out`] for a slot, runs `f`, and carries out what it said.
    pub(super) fn speak<T>(&mut self, slot: u32, f: impl FnOnce(&mut Out<'_>) -> T) -> T {
        let mut frames = std::mem::take(&mut self.scratch);
        let nobody = (0, (Framing::WebSocket, None), 0);
        let (number, (framing, window), queue_room) =
            self.conns.get(slot as usize).map_or(nobody, |conn| {
                let room = self.bounds.outbox_bytes_max.saturating_sub(conn.link.waiting_bytes());
                (conn.link.number, (conn.link.framing, conn.link.deflate), room)
            });
        let mut out = Out {
            conn: ConnRef { slot, number },
            second: self.time.second,
            now: self.time.now,
            rng: &mut self.rng,
            share: super::turn::COMMANDS_PER_TURN,
            framing,
            inflated: false,
            effort: Effort::default(),
            deflate: window.map(|window| (&mut self.deflater, window)),
            frames: &mut frames,
            close: None,
            form: None,
            wake: None,
            hold: false,
            release: None,
            queue_room,
        };
        let result = f(&mut out);
        let said = Said {
            close: out.close.take(),
            form: out.form,
            wake: out.wake,
            hold: out.hold,
            release: out.release.take(),
        };
        self.carry_out(slot, &frames, said);
        frames.clear();
        // A large reply must not leave its size behind in every shard.
        if frames.capacity() > super::turn::READ_BUFFER_BYTES {
            frames = Vec::new();
        }
        self.scratch = frames;
        result
    }

    fn carry_out(&mut self, slot: u32, frames: &[u8], said: Said) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if let Some(form) = said.form {
            conn.link.form = form;
        }
        if let Some(wake) = said.wake {
            conn.link.wake_s = wake;
            self.due[slot as usize] = conn.link.due_s();
        }
        if said.hold {
            conn.link.flags.set(Flags::HELD);
        }
        if let Some(first) = said.release {
            self.release(slot, first);
        }
        self.send(slot, frames, || Bytes::copy_from_slice(frames));
        if let Some(why) = said.close {
            self.fall(slot, why);
        }
    }

    /// Sends frames that are shared with others.
    pub fn deliver(&mut self, slot: u32, frames: &Bytes) {
        self.send(slot, frames, || frames.clone());
    }

    /// What moves with the connection in `slot` has changed, elsewhere than in its record.
    pub(crate) fn changed(&mut self, slot: u32) {
        self.conns.changed(slot as usize);
    }

    /// Touches the records of connections that are written to next, so that their cache misses
    /// overlap.
    pub(crate) fn approach(&self, slots: &[u32]) {
        let touched = slots
            .iter()
            .filter_map(|slot| self.conns.get(*slot as usize))
            .filter(|conn| conn.link.state == State::Open && conn.link.outbox.is_none())
            .count();
        std::hint::black_box(touched);
    }

    /// Compresses for this shard.
    pub(crate) fn deflater(&mut self) -> &mut Deflater {
        &mut self.deflater
    }

    /// What is said on the connection in `slot` is wrapped so.
    pub fn framing(&self, slot: u32) -> Option<Framing> {
        Some(self.conns.get(slot as usize)?.link.framing)
    }

    /// The form of publications that the connection in `slot` wants; `None` if it is closing.
    pub fn form(&self, slot: u32) -> Option<u8> {
        let link = &self.conns.get(slot as usize)?.link;
        (link.state == State::Open).then_some(link.form)
    }

    /// Invariant WITNESSED: before a socket that another process may take back is read, written or
    /// shut down for the first time, that process finds the connection in its list. False: it
    /// cannot be told, so the socket is left alone, and the connection ends here.
    pub(super) fn touch(&mut self, slot: u32) -> bool {
        let Some(conn) = self.conns.get(slot as usize) else { return false };
        !conn.link.flags.has(Flags::UNTOUCHED) || self.touch_first(slot)
    }

    #[cold]
    fn touch_first(&mut self, slot: u32) -> bool {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return false };
        let told = match &self.witness {
            Some(witnessing) => (witnessing.witness)(Touch::Connection(conn.link.number)),
            None => Ok(()),
        };
        if told.is_err() {
            self.break_off(slot, Disconnect::WRITE_ERROR);
            return false;
        }
        conn.link.flags.clear(Flags::UNTOUCHED);
        true
    }

    /// Whether another process has duplicates of sockets that are used here.
    pub(super) fn witnessed(&self) -> Witnessed {
        if self.witness.is_some() { Witnessed::Yes } else { Witnessed::No }
    }

    /// The other process has let go long ago.
    pub(super) fn dismiss_witness(&mut self) {
        let over = self.witness.as_ref().filter(|one| one.until <= self.time.instant);
        // Where even that cannot be written, it is tried again in a second.
        if over.is_some_and(|over| (over.witness)(Touch::Anything).is_ok()) {
            self.witness = None;
        }
    }

    /// Sends frames made for this connection alone.
    pub(super) fn send(&mut self, slot: u32, frames: &[u8], shared: impl FnOnce() -> Bytes) {
        if self.manner == Manner::Write && !frames.is_empty() && !self.touch(slot) {
            return;
        }
        // What is written through changes nothing that moves: the hot path of every fan-out.
        let Some(conn) = self.conns.peek_mut(slot as usize) else { return };
        if conn.link.state != State::Open {
            return;
        }
        match conn.link.send(frames, shared, self.manner) {
            Sent::Written => {}
            Sent::Queued(bytes) => {
                let full = self.manner == Manner::Write && is_full(&conn.link, &self.bounds);
                self.conns.changed(slot as usize);
                self.take(bytes);
                if self.manner == Manner::Queue {
                    self.unsent.push(slot);
                }
                if full {
                    self.fall(slot, Disconnect::SLOW);
                }
            }
            Sent::Failed => self.break_off(slot, Disconnect::WRITE_ERROR),
        }
    }

    /// Lets go what a held connection kept back.
    fn release(&mut self, slot: u32, first: Bytes) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.link.flags.clear(Flags::HELD);
        let Some(outbox) = &mut conn.link.outbox else {
            let frames = first.clone();
            return self.send(slot, &frames, || first);
        };
        let bytes = first.len();
        outbox.push_front(first, conn.link.framing);
        self.take(bytes);
        self.flush(slot);
    }

    /// Writes on from a connection's outbox.
    pub(super) fn flush(&mut self, slot: u32) {
        if self.manner == Manner::Queue {
            self.unsent.push(slot);
            return;
        }
        if !self.touch(slot) {
            return;
        }
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let (left, flushed) = conn.link.flush();
        self.give(left);
        if flushed.is_err() {
            self.break_off(slot, Disconnect::WRITE_ERROR);
        }
    }

    /// Puts what the client of a response says elsewhere behind what it has said already; the session
    /// is given it as soon as the connection may be read. Whoever says more than may wait is closed.
    pub fn hear(&mut self, from: ConnRef, said: &[u8]) {
        let Some(conn) = self.conns.get_mut(from.slot as usize) else { return };
        let link = &mut conn.link;
        let is_meant = link.number == from.number && link.state == State::Open;
        let is_json = link.framing.encoding() == Encoding::Json;
        let said = if is_json { said.trim_ascii() } else { said };
        if !is_meant || !link.framing.is_response() || said.is_empty() {
            return;
        }
        let stash = link.stash.get_or_insert_default();
        if is_json && !stash.is_empty() {
            stash.push(b'\n');
        }
        stash.extend_from_slice(said);
        let full = stash.len() > self.bounds.outbox_bytes_max;
        make_ready(link, from.slot, &mut self.ready);
        self.account(from.slot);
        if full {
            self.fall(from.slot, Disconnect::SLOW);
        }
    }

    /// Goes on reading a connection that waited for an answer.
    pub fn resume(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.link.flags.has(Flags::WAITING) {
            conn.link.flags.clear(Flags::WAITING);
            conn.link.flags.set(Flags::MORE);
            make_ready(&mut conn.link, slot, &mut self.ready);
        }
    }

    /// Ends a connection: its session goes at the end of this step, its socket when the close is
    /// through.
    pub fn fall(&mut self, slot: u32, why: Disconnect) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.link.state != State::Open {
            return;
        }
        conn.link.state = State::Closing;
        if why.code == Disconnect::SLOW.code {
            conn.link.flags.set(Flags::HURRIED);
        }
        self.fallen.push(Fallen { slot, number: conn.link.number, why });
    }

    /// Ends a connection whose socket is of no use any more.
    pub(super) fn break_off(&mut self, slot: u32, why: Disconnect) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.link.state == State::Dead {
            return;
        }
        conn.link.state = State::Dead;
        self.fallen.push(Fallen { slot, number: conn.link.number, why });
    }

    /// Begins the close of a connection whose session has gone: its last frames go behind what it
    /// has waiting, and it has a deadline. Code 0 says nothing more.
    pub(super) fn begin_close(&mut self, slot: u32, farewell: &[u8], code: u16, reason: &str) {
        let second = self.time.second;
        let limits = self.bounds.message;
        if self.manner == Manner::Write && !self.touch(slot) {
            return;
        }
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
        let hurried = link.flags.has(Flags::HURRIED);
        link.flags.clear(Flags::HELD);
        let mut dropped = 0;
        if hurried && let Some(outbox) = &mut link.outbox {
            dropped = outbox.cut(link.framing);
            if outbox.bytes() == 0 {
                link.outbox = None;
            }
        }
        if let Some(mut stash) = link.stash.take() {
            link.hear_close(&mut stash, limits);
        }
        if link.is_deaf() {
            // What has come by halves is memory, too.
            link.decoder = Decoder::new();
        }
        let mut frames = farewell.to_vec();
        if code > 0 && !link.framing.is_response() {
            put_close(code, reason, &mut frames);
        }
        let patience = if hurried { SLOW_CLOSE } else { self.bounds.close };
        link.wake_s = NEVER;
        link.deadline_s = second_after(second, patience);
        self.due[slot as usize] = link.due_s();
        let sent = link.send(&frames, || Bytes::copy_from_slice(&frames), self.manner);
        self.give(dropped);
        match sent {
            Sent::Written => {}
            Sent::Queued(bytes) => self.take(bytes),
            Sent::Failed => return self.break_off(slot, Disconnect::WRITE_ERROR),
        }
        self.account(slot);
        // What was held back waits for no event: its socket may have been writable all the time.
        self.flush(slot);
    }

    /// Tells the allowance what the decoder and the stash of a connection hold now.
    pub(super) fn account(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
        let held =
            link.decoder.held_bytes() + link.stash.as_ref().map_or(0, |stash| stash.capacity());
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut link.accounted, held);
        match held.checked_sub(before) {
            Some(more) => self.take(more as usize),
            None => self.give((before - held) as usize),
        }
    }

    /// The connections with the most bytes, heaviest first: as many as hold `bytes` together, but
    /// no more than are closed at once.
    pub(super) fn heaviest(&self, bytes: usize, held_by: impl Fn(&S) -> usize) -> Vec<u32> {
        let mut heaviest = BinaryHeap::with_capacity(RELIEVED_MAX + 1);
        for (slot, conn) in self.conns.iter() {
            let held = conn.link.held_bytes() + conn.session.as_ref().map_or(0, &held_by);
            let least = heaviest.peek().map_or(0, |&Reverse((least, _))| least);
            if held == 0 || (heaviest.len() == RELIEVED_MAX && held <= least) {
                continue;
            }
            heaviest.push(Reverse((held, slot)));
            if heaviest.len() > RELIEVED_MAX {
                heaviest.pop();
            }
        }
        let mut sum = 0;
        let enough = heaviest.into_sorted_vec().into_iter().take_while(|&Reverse((held, _))| {
            let goes_on = sum < bytes;
            sum += held;
            goes_on
        });
        enough.filter_map(|Reverse((_, slot))| u32::try_from(slot).ok()).collect()
    }

    /// Every byte a connection comes to hold is taken here, and given back below.
    pub(super) fn take(&mut self, bytes: usize) {
        self.held += bytes;
        self.allowance.take(bytes);
    }

    pub(super) fn give(&mut self, bytes: usize) {
        if bytes > 0 {
            self.held -= bytes;
            self.allowance.give(bytes);
        }
    }
}

/// Whether more waits for a connection than may.
pub(super) fn is_full(link: &Link, bounds: &Bounds) -> bool {
    link.outbox
        .as_ref()
        .is_some_and(|outbox| outbox.bytes() > bounds.outbox_bytes_max || outbox.overcrowded())
}

/// What an [`Out`] gathered, beside the frames.
pub(crate) struct Said {
    pub(crate) close: Option<Disconnect>,
    pub(crate) form: Option<u8>,
    pub(crate) wake: Option<WakeAt>,
    pub(crate) hold: bool,
    pub(crate) release: Option<Bytes>,
}

#[cfg(test)]
impl<'a> Out<'a> {
    /// An [`Out`] without a connection, and what it gathered when `f` is done with it.
    pub(crate) fn apart<T>(
        (conn, now): (ConnRef, Now),
        (rng, frames): (&'a mut Rng, &'a mut Vec<u8>),
        (share, queue_room): (u32, usize),
        f: impl FnOnce(&mut Self) -> T,
    ) -> (T, Said) {
        let second = Clock::second_of(now);
        let (close, form, wake, hold, release) = (None, None, None, false, None);
        let mut out = Self {
            conn,
            second,
            now,
            rng,
            share,
            framing: Framing::WebSocket,
            inflated: false,
            effort: Effort::default(),
            deflate: None,
            frames,
            close,
            form,
            wake,
            hold,
            release,
            queue_room,
        };
        let result = f(&mut out);
        let Self { close, form, wake, hold, release, .. } = out;
        (result, Said { close, form, wake, hold, release })
    }
}

/// Puts a connection into the list of those who go on in the next turn.
pub(super) fn make_ready(link: &mut Link, slot: u32, ready: &mut Vec<u32>) {
    if !link.flags.has(Flags::READY) {
        link.flags.set(Flags::READY);
        ready.push(slot);
    }
}

/// The first second by whose beginning `patience` has passed whole.
pub(super) fn second_after(second: u32, patience: Duration) -> u32 {
    let whole = patience.as_secs() + u64::from(patience.subsec_nanos() > 0) + 1;
    second.saturating_add(u32::try_from(whole).unwrap_or(NEVER)).min(NEVER - 1)
}
