//! The shard's loop: events, mail, a slice of fan-out, who was interrupted, a slice of the sweep.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use throng_wire::websocket::{Decoder, Deflater, Inflater};

use super::conn::{Conn, Flags, Link, Manner, State};
use super::conns::Conns;
use super::crowd::{Counters, Crowd, TurnTime, make_ready};
use super::freeze::{After, Copying, StopOrder, Tally};
use super::mailbox::{Mailbox, Post};
use super::sweep::Sweep;
use super::{Adopt, Handler, NEVER, ShardSetup};
use crate::clock::Clock;
use crate::codes::Disconnect;
use crate::log::Log;
use crate::rng::Rng;

/// How long one kind of work may hold up the others in a turn: what a neighbour waits for.
pub(super) const SLICE: Duration = Duration::from_micros(500);
/// Deliveries between two looks at the clock; about 100 µs of writes.
const DELIVERIES_PER_LOOK: usize = 16;
/// What the events of a turn, or its letters, may take before the others have their slice.
const TURN_PART: Duration = SLICE.saturating_mul(4);
/// Letters between two looks at the clock.
const LETTERS_PER_LOOK: usize = 16;
/// Commands of one connection in one turn: a pipeline of 100,000 of them is no neighbour's worry.
pub(super) const COMMANDS_PER_TURN: u32 = 64;
/// The shard's one read buffer.
pub(super) const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;
/// Ends that are remembered without giving the list's memory back.
pub(super) const FALLEN_KEPT: usize = 256;
/// The mailbox's own place among the events.
const WAKER: Token = Token(usize::MAX);

/// One shard; [`Shard::run`] is its thread.
pub struct Shard<H: Handler> {
    pub(super) poll: Poll,
    pub(super) mailbox: Arc<Mailbox<H::Open, H::Mail>>,
    pub(super) handler: H,
    pub(super) crowd: Crowd<H::Session>,
    pub(super) buffer: Box<[u8]>,
    /// Inflates for all connections.
    pub(super) inflater: Inflater,
    /// Letters taken and not yet read, in their order.
    pub(super) letters: std::vec::IntoIter<Post<H::Open, H::Mail>>,
    pub(super) sweep: Sweep,
    pub(super) stopping: bool,
    /// Sockets are being copied to another process.
    pub(super) copying: Option<Copying>,
    /// Who waits for nothing being in the middle of anything.
    pub(super) calming: Option<Arc<Tally>>,
    /// At the end of this turn everything stops.
    pub(super) stop: Option<StopOrder>,
    pub(super) log: Log,
}

impl<H: Handler> std::fmt::Debug for Shard<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("connections", &self.crowd.len()).finish_non_exhaustive()
    }
}

/// An event loop, and the mailbox that wakes it.
pub type EventLoop<O, M> = (Poll, Arc<Mailbox<O, M>>);

/// An event loop for a shard, and its mailbox; made first, so that others can be given the
/// mailbox before the shard exists.
///
/// # Errors
/// When the kernel refuses an epoll or event descriptor.
pub fn event_loop<O, M>() -> io::Result<EventLoop<O, M>> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Mailbox::new(waker)))
}

impl<H: Handler> Shard<H> {
    /// A shard without connections.
    pub fn new(
        (poll, mailbox): EventLoop<H::Open, H::Mail>,
        setup: ShardSetup,
        clock: Clock,
        handler: H,
    ) -> Self {
        let instant = Instant::now();
        let now = clock.at(instant);
        let inflater = Inflater::new(setup.bounds.inflated_max);
        let crowd = Crowd {
            conns: Conns::new(),
            due: Vec::new(),
            ready: Vec::new(),
            fallen: Vec::new(),
            bounds: setup.bounds,
            allowance: setup.allowance,
            held: 0,
            counters: Counters::default(),
            time: TurnTime { instant, now, second: Clock::second_of(now) },
            rng: Rng::new(setup.seed),
            scratch: Vec::new(),
            deflater: Deflater::new(),
            manner: Manner::Write,
            unsent: Vec::new(),
            clock,
            witness: None,
        };
        Self {
            poll,
            mailbox,
            handler,
            crowd,
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            inflater,
            letters: Vec::new().into_iter(),
            sweep: Sweep::new(),
            stopping: false,
            copying: None,
            calming: None,
            stop: None,
            log: setup.log,
        }
    }

    /// Runs until it was told to stop and the last connection is gone.
    ///
    /// # Errors
    /// When the kernel's event queue fails, which no connection can cause.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !(self.stopping && self.crowd.is_empty() && self.letters.len() == 0) {
            self.turn(&mut events)?;
            if let Some(stop) = self.stop.take()
                && self.hold(&stop) == After::Leave
            {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.patience();
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            other => other?,
        }
        self.mailbox.rise();
        self.read_clock();
        for event in events.iter() {
            if event.token() != WAKER {
                let late = self.crowd.time.instant.elapsed() > TURN_PART;
                self.event(event, late);
            }
        }
        self.reap();
        self.read_letters();
        self.reap();
        self.handler.settle(&mut self.crowd);
        self.reap();
        self.fan_out();
        self.go_on();
        self.sweep_some();
        self.relieve();
        self.copy_some();
        self.be_calm();
        Ok(())
    }

    /// How long the shard may sleep.
    fn patience(&self) -> Duration {
        #[cfg(test)]
        if self.crowd.clock.is_by_hand() {
            return Duration::ZERO;
        }
        let busy = !self.crowd.ready.is_empty()
            || self.letters.len() > 0
            || self.handler.has_work()
            || self.sweep.is_running();
        if busy || !self.mailbox.doze() {
            return Duration::ZERO;
        }
        // Up to the next whole second of the shared clock, when the sweep begins.
        let past = self.crowd.clock.now().mono_ms % 1000;
        let sleep = Duration::from_millis(1001 - past);
        self.copying.as_ref().map_or(sleep, |copying| copying.patience().min(sleep))
    }

    pub(super) fn read_clock(&mut self) {
        let instant = Instant::now();
        let now = self.crowd.clock.at(instant);
        let second = Clock::second_of(now);
        let was = self.crowd.time.second;
        self.crowd.time = TurnTime { instant, now, second };
        if second != was {
            self.mailbox.beat(second);
            self.crowd.dismiss_witness();
            self.sweep.begin();
            self.handler.tick(&mut self.crowd);
        }
    }

    fn read_letters(&mut self) {
        let start = Instant::now();
        if self.letters.len() == 0 {
            let mut letters = Vec::new();
            self.mailbox.take(&mut letters);
            self.letters = letters.into_iter();
        }
        let mut count = 0;
        while let Some(letter) = self.letters.next() {
            self.letter(letter);
            count += 1;
            if count % LETTERS_PER_LOOK == 0 && start.elapsed() > TURN_PART {
                break;
            }
        }
    }

    pub(super) fn letter(&mut self, letter: Post<H::Open, H::Mail>) {
        match letter {
            Post::Adopt(adopt) => self.adopt(*adopt),
            Post::Mail(mail) => self.handler.mail(&mut self.crowd, mail),
            Post::Copy(order) => self.begin_copying(order),
            Post::Freeze(stop) => self.stop = Some(stop),
            Post::Stop => self.stopping = true,
        }
    }

    /// Takes a connection in: from here on this shard owns it.
    fn adopt(&mut self, adopt: Adopt<H::Open>) {
        let mut socket = TcpStream::from_std(adopt.socket);
        let key = self.crowd.conns.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, Token(key), interest) {
            // Out of kernel memory or epoll watches: this one is dropped, with a reset.
            self.log.error(
                "register",
                &format!("a connection could not be watched: {error}; it was dropped"),
            );
            return;
        }
        let slot = slot_of(key);
        let link = Link {
            socket,
            form: 0,
            framing: adopt.framing,
            deflate: adopt.deflate,
            state: State::Open,
            flags: Flags::default(),
            number: adopt.number,
            decoder: Decoder::new(),
            outbox: None,
            stash: (!adopt.framing.is_response() && !adopt.read_ahead.is_empty())
                .then(|| Box::new(adopt.read_ahead.to_vec())),
            wake_s: NEVER,
            deadline_s: NEVER,
            accounted: 0,
            _permit: adopt.permit,
            _address: adopt.address,
        };
        self.crowd.conns.insert(Conn { link, session: None });
        if self.crowd.due.len() <= key {
            self.crowd.due.resize(key + 1, NEVER);
        }
        self.crowd.counters.opened += 1;
        let handler = &mut self.handler;
        let crowd = &mut self.crowd;
        let session = crowd.speak(slot, |out| {
            out.frames(&adopt.head);
            handler.open(out, adopt.open)
        });
        if let Some(conn) = self.crowd.conns.get_mut(key) {
            conn.session = Some(session);
            conn.link.flags.set(Flags::MORE);
        }
        self.crowd.account(slot);
        if self.crowd.manner == Manner::Write {
            return self.advance(slot);
        }
        if let Some(conn) = self.crowd.conns.get_mut(key) {
            make_ready(&mut conn.link, slot, &mut self.crowd.ready);
        }
    }

    fn fan_out(&mut self) {
        if !self.handler.has_work() {
            return;
        }
        let start = Instant::now();
        while self.handler.has_work() {
            self.handler.work(&mut self.crowd, DELIVERIES_PER_LOOK);
            if start.elapsed() >= SLICE {
                break;
            }
        }
        self.reap();
    }

    /// Gives those their share who were interrupted in an earlier turn.
    fn go_on(&mut self) {
        let start = Instant::now();
        let mut list = std::mem::take(&mut self.crowd.ready);
        let mut done = 0;
        for &slot in &list {
            done += 1;
            let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { continue };
            conn.link.flags.clear(Flags::READY);
            self.advance(slot);
            if start.elapsed() >= SLICE {
                break;
            }
        }
        list.drain(..done);
        // Who was made ready meanwhile comes behind those who still wait.
        list.append(&mut self.crowd.ready);
        self.crowd.ready = list;
        self.reap();
    }

    fn sweep_some(&mut self) {
        let start = Instant::now();
        while let Some(slot) = self.sweep.next(&self.crowd.due, self.crowd.time.second) {
            self.due(slot);
            if start.elapsed() >= SLICE {
                break;
            }
        }
        self.reap();
    }

    /// A second that somebody waited for has come in `slot`.
    fn due(&mut self, slot: u32) {
        let second = self.crowd.time.second;
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else {
            self.crowd.due[slot as usize] = NEVER;
            return;
        };
        if conn.link.deadline_s <= second {
            conn.link.deadline_s = NEVER;
            self.crowd.due[slot as usize] = conn.link.due_s();
            match conn.link.state {
                State::Open => self.crowd.fall(slot, Disconnect::SLOW),
                State::Closing | State::Dead => self.give_up(slot),
            }
            return;
        }
        let Some(mut session) = conn.session.take() else { return };
        conn.link.wake_s = NEVER;
        let handler = &mut self.handler;
        let wake = self.crowd.speak(slot, |out| handler.wake(out, &mut session));
        if let Some(conn) = self.crowd.conns.get_mut(slot as usize) {
            conn.session = Some(session);
            conn.link.wake_s = wake;
            self.crowd.due[slot as usize] = conn.link.due_s();
        }
    }

    /// Invariant BOUNDED: past the node's allowance, who has the most waiting is closed first.
    fn relieve(&mut self) {
        let allowance = &self.crowd.allowance;
        // What publications hold, or another shard's crowd, is not to be found here.
        if self.crowd.held + self.handler.held_by_all() == 0 || !allowance.exceeded() {
            return;
        }
        let excess = allowance.used().saturating_sub(allowance.limit());
        for slot in self.crowd.heaviest(excess, |session| self.handler.held(session)) {
            // The other shards relieve it at the same time.
            if !self.crowd.allowance.exceeded() {
                return;
            }
            match self.crowd.conns.get(slot as usize).map(|conn| conn.link.state) {
                Some(State::Open) => self.crowd.fall(slot, Disconnect::SLOW),
                Some(State::Closing) => self.give_up(slot),
                Some(State::Dead) | None => {}
            }
            self.reap();
        }
    }
}

/// A slab's key as a slot: a process has fewer descriptors than 2^32.
pub(super) fn slot_of(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NEVER)
}
