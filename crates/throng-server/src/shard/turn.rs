//! The shard's loop: events, mail, a slice of fan-out, who was interrupted, a slice of the sweep.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use throng_wire::websocket::{Decoder, Event, Opcode, Role, Violation, put_frame};

use super::conn::{Conn, Fallen, Flags, Link, State};
use super::crowd::{Counters, Crowd, Out, TurnTime, make_ready, second_after};
use super::mailbox::{Mailbox, Post};
use super::sweep::Sweep;
use super::{Adopt, ConnRef, Farewell, Handler, Message, NEVER, ShardSetup, Taken};
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
const FALLEN_KEPT: usize = 256;
const WAKER: Token = Token(usize::MAX);

/// One shard; [`Shard::run`] is its thread.
pub struct Shard<H: Handler> {
    poll: Poll,
    mailbox: Arc<Mailbox<H::Open, H::Mail>>,
    handler: H,
    pub(super) crowd: Crowd<H::Session>,
    buffer: Box<[u8]>,
    /// Letters taken and not yet read, newest last; read from `next_letter` on.
    letters: std::vec::IntoIter<Post<H::Open, H::Mail>>,
    sweep: Sweep,
    stopping: bool,
    log: Log,
}

impl<H: Handler> std::fmt::Debug for Shard<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("connections", &self.crowd.len()).finish_non_exhaustive()
    }
}

/// What decoding a piece of input came to.
enum Decoded {
    /// All of it is done with, or kept by the decoder.
    All,
    /// From here on it waits for the next turn, or for an answer.
    Stopped(usize, Taken),
    /// The session is over; from here on only a close frame counts.
    Over(usize),
    /// The peer says goodbye, perhaps with a code.
    Goodbye(Option<u16>),
    /// The peer breaks the protocol.
    Violated(Violation),
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
        let crowd = Crowd {
            conns: Slab::new(),
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
            clock,
        };
        Self {
            poll,
            mailbox,
            handler,
            crowd,
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            letters: Vec::new().into_iter(),
            sweep: Sweep::new(),
            stopping: false,
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
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
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
        Ok(())
    }

    /// How long the shard may sleep.
    fn patience(&self) -> Duration {
        let busy = !self.crowd.ready.is_empty()
            || self.letters.len() > 0
            || self.handler.has_work()
            || self.sweep.is_running();
        if busy || !self.mailbox.doze() {
            return Duration::ZERO;
        }
        // Up to the next whole second of the shared clock, when the sweep begins.
        let past = self.crowd.clock.now().mono_ms % 1000;
        Duration::from_millis(1001 - past)
    }

    fn read_clock(&mut self) {
        let instant = Instant::now();
        let now = self.crowd.clock.at(instant);
        let second = Clock::second_of(now);
        let was = self.crowd.time.second;
        self.crowd.time = TurnTime { instant, now, second };
        if second != was {
            self.mailbox.beat(second);
            self.sweep.begin();
            self.handler.tick(&mut self.crowd);
        }
    }

    /// Notes what the kernel says of a connection, and gives it its share, or `late` in a turn a
    /// place among those who go on.
    fn event(&mut self, event: &mio::event::Event, late: bool) {
        // A slot is given away again only after all events of its turn were looked at, so an
        // event never meets a stranger.
        let Token(key) = event.token();
        let Some(conn) = self.crowd.conns.get_mut(key) else { return };
        let slot = slot_of(key);
        if event.is_read_closed() || event.is_error() {
            conn.link.flags.set(Flags::READ_CLOSED);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.link.flags.set(Flags::READABLE);
        }
        if event.is_writable() && conn.link.outbox.is_some() {
            self.crowd.flush(slot);
            self.finish_close(slot);
        }
        if !late {
            return self.advance(slot);
        }
        if let Some(conn) = self.crowd.conns.get_mut(key) {
            make_ready(&mut conn.link, slot, &mut self.crowd.ready);
        }
    }

    /// Gives one connection its share of the turn: what it has left over, then its socket.
    fn advance(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        match conn.link.state {
            State::Dead => return,
            // Its farewell is to be said first.
            State::Closing if conn.session.is_some() => return,
            State::Closing => return self.listen_for_close(slot),
            State::Open if conn.link.flags.has(Flags::WAITING) => return,
            State::Open => {}
        }
        if conn.link.flags.has(Flags::MORE) && !self.proceed(slot) {
            return;
        }
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        if let Some(mut stash) = conn.link.stash.take() {
            let (decoded, fresh) = self.decode(slot, &mut stash);
            if let Decoded::Stopped(at, _) = decoded {
                // The rest moves to the front of the same memory, until all of it is used up.
                stash.drain(..at);
                if let Some(conn) = self.crowd.conns.get_mut(slot as usize)
                    && !stash.is_empty()
                {
                    conn.link.stash = Some(stash);
                }
                self.conclude(slot, decoded, fresh, &mut []);
                return;
            }
            if !self.conclude(slot, decoded, fresh, &mut stash) {
                return;
            }
        }
        self.read(slot);
    }

    /// Lets the session go on with what it kept of a message. Returns whether it is through.
    fn proceed(&mut self, slot: u32) -> bool {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return false };
        conn.link.flags.clear(Flags::MORE);
        let Some(mut session) = conn.session.take() else { return false };
        let handler = &mut self.handler;
        let crowd = &mut self.crowd;
        let taken = crowd.speak(slot, |out| guarded(out, |out| handler.proceed(out, &mut session)));
        self.put_back(slot, session, taken.is_none());
        match taken {
            Some(Taken::All) => self.is_open(slot),
            Some(stopped) => {
                self.stop(slot, stopped);
                false
            }
            None => false,
        }
    }

    fn read(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
        if !link.flags.has(Flags::READABLE) || link.state != State::Open {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        match link.socket.read(&mut buffer) {
            Ok(0) => self.crowd.break_off(slot, Disconnect::CONNECTION_CLOSED),
            Ok(got) => {
                if got < buffer.len() && !link.flags.has(Flags::READ_CLOSED) {
                    // epoll(7): a short read on an edge-triggered stream has emptied it.
                    link.flags.clear(Flags::READABLE);
                } else {
                    make_ready(link, slot, &mut self.crowd.ready);
                }
                let (decoded, fresh) = self.decode(slot, &mut buffer[..got]);
                self.conclude(slot, decoded, fresh, &mut buffer[..got]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                link.flags.clear(Flags::READABLE);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                make_ready(link, slot, &mut self.crowd.ready);
            }
            Err(_) => self.crowd.break_off(slot, Disconnect::CONNECTION_CLOSED),
        }
        self.buffer = buffer;
    }

    /// Decodes input and hands its messages to the session, until it stops or the share is spent.
    /// Returns besides whether what is half received now began with this input.
    fn decode(&mut self, slot: u32, input: &mut [u8]) -> (Decoded, bool) {
        let limits = self.crowd.bounds.message;
        let nothing = (Decoded::All, false);
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return nothing };
        let Some(mut session) = conn.session.take() else { return nothing };
        let mut decoder = std::mem::take(&mut conn.link.decoder);
        let handler = &mut self.handler;
        let crowd = &mut self.crowd;
        let mut panicked = false;
        let mut fresh = !decoder.is_partial();
        let decoded = crowd.speak(slot, |out| {
            let mut at = 0;
            loop {
                let step = match decoder.next(&mut input[at..], Role::Server, limits) {
                    Ok(step) => step,
                    Err(violation) => return Decoded::Violated(violation),
                };
                at += step.consumed;
                let Some(event) = step.event else { return Decoded::All };
                out.share = out.share.saturating_sub(1);
                let message = match event {
                    Event::Text(text) => Message::Text(text),
                    Event::Binary(data) => Message::Binary(data),
                    Event::Pong(data) => Message::Pong(data),
                    Event::Ping(data) => {
                        // RFC 6455 5.5.3: a pong carries the ping's data.
                        out.frame(Opcode::Pong, data);
                        Message::Ping
                    }
                    Event::Close(status) => return Decoded::Goodbye(status.map(|(code, _)| code)),
                };
                let taken = guarded(out, |out| handler.message(out, &mut session, message));
                panicked = taken.is_none();
                decoder.release();
                fresh |= !decoder.is_partial();
                match taken {
                    None => return Decoded::Over(at),
                    Some(_) if out.is_closing() => return Decoded::Over(at),
                    Some(Taken::All) if out.share > 0 => {}
                    Some(Taken::All) => return Decoded::Stopped(at, Taken::More),
                    Some(stopped) => return Decoded::Stopped(at, stopped),
                }
            }
        });
        if let Some(conn) = self.crowd.conns.get_mut(slot as usize) {
            conn.link.decoder = decoder;
        }
        self.put_back(slot, session, panicked);
        (decoded, fresh)
    }

    /// Gives the session back to its record, or ends it after a panic.
    fn put_back(&mut self, slot: u32, session: H::Session, panicked: bool) {
        if let Some(conn) = self.crowd.conns.get_mut(slot as usize) {
            conn.session = Some(session);
        }
        if panicked {
            // Invariant ALIVE: one connection's input may end that connection and no other.
            self.crowd.counters.panics += 1;
            self.log.error(
                "session panic",
                "a bug: a client's input could not be handled; it was closed with 3004",
            );
            self.crowd.fall(slot, Disconnect::INTERNAL);
        }
    }

    /// Draws the consequences of [`Shard::decode`]. Returns whether the connection may go on.
    fn conclude(&mut self, slot: u32, decoded: Decoded, fresh: bool, input: &mut [u8]) -> bool {
        let goes_on = match decoded {
            Decoded::All => self.is_open(slot),
            Decoded::Stopped(at, taken) => {
                if at < input.len()
                    && let Some(conn) = self.crowd.conns.get_mut(slot as usize)
                {
                    conn.link.stash = Some(Box::new(input[at..].to_vec()));
                }
                self.stop(slot, taken);
                false
            }
            Decoded::Over(at) => {
                let limits = self.crowd.bounds.message;
                if let Some(conn) = self.crowd.conns.get_mut(slot as usize) {
                    conn.link.hear_close(&mut input[at..], limits);
                }
                false
            }
            Decoded::Goodbye(code) => {
                self.goodbye(slot, code);
                false
            }
            Decoded::Violated(violation) => {
                if let Some(conn) = self.crowd.conns.get_mut(slot as usize) {
                    conn.link.flags.set(Flags::FAILED);
                }
                self.crowd
                    .fall(slot, Disconnect::custom(violation.close_code(), violation.reason()));
                false
            }
        };
        self.watch_partial(slot, fresh);
        goes_on
    }

    fn stop(&mut self, slot: u32, taken: Taken) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        match taken {
            Taken::Waiting => conn.link.flags.set(Flags::WAITING),
            Taken::More | Taken::All => {
                conn.link.flags.set(Flags::MORE);
                make_ready(&mut conn.link, slot, &mut self.crowd.ready);
            }
        }
    }

    /// A half-received message has a deadline and is counted against the allowance.
    fn watch_partial(&mut self, slot: u32, fresh: bool) {
        let patience = self.crowd.bounds.incomplete_message;
        let second = self.crowd.time.second;
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
        if link.state != State::Open {
            return;
        }
        let partial = link.decoder.is_partial();
        let deadline_s = match partial {
            false => NEVER,
            true if fresh => second_after(second, patience),
            true => link.deadline_s,
        };
        if link.deadline_s != deadline_s {
            link.deadline_s = deadline_s;
            self.crowd.due[slot as usize] = link.due_s();
        }
        if link.accounted > 0 || partial || link.stash.is_some() {
            self.crowd.account(slot);
        }
    }

    fn is_open(&self, slot: u32) -> bool {
        self.crowd.conns.get(slot as usize).is_some_and(|conn| conn.link.state == State::Open)
    }

    /// The peer closes: its code is echoed, then the socket closed.
    fn goodbye(&mut self, slot: u32, code: Option<u16>) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        conn.link.flags.set(Flags::PEER_CLOSED | Flags::ANSWERED);
        // RFC 6455 5.5.1: the answer to a close frame is a close frame, typically with its code.
        let mut frame = Vec::new();
        match code {
            Some(code) => throng_wire::websocket::put_close(code, "", &mut frame),
            None => put_frame(Opcode::Close, &[], &mut frame),
        }
        self.crowd.send(slot, &frame, || Bytes::copy_from_slice(&frame));
        self.crowd.fall(slot, Disconnect::CONNECTION_CLOSED);
    }

    /// Reads and drops what a closing peer still says, until its close frame or its end.
    fn listen_for_close(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
        if !link.flags.has(Flags::READABLE) {
            return;
        }
        match link.socket.read(&mut self.buffer) {
            Ok(got) if got > 0 => {
                if got == self.buffer.len() || link.flags.has(Flags::READ_CLOSED) {
                    make_ready(link, slot, &mut self.crowd.ready);
                } else {
                    link.flags.clear(Flags::READABLE);
                }
                link.hear_close(&mut self.buffer[..got], self.crowd.bounds.message);
                self.crowd.account(slot);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                link.flags.clear(Flags::READABLE);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                make_ready(link, slot, &mut self.crowd.ready);
            }
            Ok(_) | Err(_) => {
                link.flags.clear(Flags::READABLE);
                link.flags.set(Flags::PEER_CLOSED);
            }
        }
        self.finish_close(slot);
    }

    /// Closes the socket of a closing connection when both sides have said so.
    fn finish_close(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get(slot as usize) else { return };
        let link = &conn.link;
        if link.state != State::Closing || conn.session.is_some() || link.outbox.is_some() {
            return;
        }
        if link.flags.has(Flags::PEER_CLOSED) {
            self.remove(slot);
        } else if link.is_deaf() {
            link.end_writing();
        }
    }

    /// Ends the sessions of all who fell since the last time.
    fn reap(&mut self) {
        while let Some(Fallen { slot, number, why }) = self.crowd.fallen.pop() {
            let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { continue };
            if conn.link.number != number {
                continue;
            }
            if let Some(session) = conn.session.take() {
                let mut farewell = Vec::new();
                let manner = self.handler.farewell(&session, &why, &mut farewell);
                let now = self.crowd.time.now;
                self.handler.closed(ConnRef { slot, number }, session, &why, now);
                self.part(slot, &why, manner, &farewell);
            }
            let dead =
                self.crowd.conns.get(slot as usize).is_some_and(|c| c.link.state == State::Dead);
            if dead {
                self.remove(slot);
            }
        }
        // A crowd that left at once must not leave its list behind.
        if self.crowd.fallen.capacity() > FALLEN_KEPT {
            self.crowd.fallen = Vec::new();
        }
    }

    /// Begins the close of a connection whose session has just ended.
    fn part(&mut self, slot: u32, why: &Disconnect, manner: Farewell, farewell: &[u8]) {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        if conn.link.state == State::Dead {
            return;
        }
        // A peer that closed first has had its close frame back already.
        let answered = conn.link.flags.has(Flags::ANSWERED);
        if manner == Farewell::Silent {
            conn.link.flags.set(Flags::PEER_CLOSED);
        }
        let (farewell, code) = match manner {
            _ if answered => (&[][..], 0),
            Farewell::CloseFrame => (farewell, why.code),
            Farewell::Silent => (farewell, 0),
        };
        self.crowd.begin_close(slot, farewell, code, &why.reason);
        if let Some(conn) = self.crowd.conns.get_mut(slot as usize)
            && conn.link.flags.has(Flags::READABLE)
        {
            // What lies in the socket already comes with no event.
            make_ready(&mut conn.link, slot, &mut self.crowd.ready);
        }
        self.finish_close(slot);
    }

    /// The end of a record: the socket is closed, and what it held given back.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.try_remove(slot as usize) else { return };
        self.crowd.due[slot as usize] = NEVER;
        self.crowd.give(conn.link.held_bytes());
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
            match letter {
                Post::Adopt(adopt) => self.adopt(*adopt),
                Post::Mail(mail) => self.handler.mail(&mut self.crowd, mail),
                Post::Stop => self.stopping = true,
            }
            count += 1;
            if count % LETTERS_PER_LOOK == 0 && start.elapsed() > TURN_PART {
                break;
            }
        }
    }

    /// Takes a connection in: from here on this shard owns it.
    fn adopt(&mut self, adopt: Adopt<H::Open>) {
        let mut socket = TcpStream::from_std(adopt.socket);
        let entry = self.crowd.conns.vacant_entry();
        let key = entry.key();
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
            state: State::Open,
            flags: Flags::default(),
            number: adopt.number,
            decoder: Decoder::new(),
            outbox: None,
            stash: (!adopt.read_ahead.is_empty()).then(|| Box::new(adopt.read_ahead.to_vec())),
            wake_s: NEVER,
            deadline_s: NEVER,
            accounted: 0,
            _permit: adopt.permit,
            _address: adopt.address,
        };
        entry.insert(Conn { link, session: None });
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
        self.advance(slot);
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

    /// Ends a close that has taken too long: a reset gives the kernel's memory back at once.
    fn give_up(&mut self, slot: u32) {
        if let Some(conn) = self.crowd.conns.get(slot as usize) {
            conn.link.reset();
            self.crowd.counters.resets += 1;
        }
        self.remove(slot);
    }

    /// Invariant BOUNDED: past the node's allowance, who has the most waiting is closed first.
    fn relieve(&mut self) {
        let allowance = &self.crowd.allowance;
        // What publications hold, or another shard's crowd, is not to be found here.
        if self.crowd.held == 0 || !allowance.exceeded() {
            return;
        }
        let excess = allowance.used().saturating_sub(allowance.limit());
        for slot in self.crowd.heaviest(excess) {
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

/// Runs a handler on one connection's input. `None` after a panic.
fn guarded(out: &mut Out<'_>, f: impl FnOnce(&mut Out<'_>) -> Taken) -> Option<Taken> {
    catch_unwind(AssertUnwindSafe(|| f(out))).ok()
}

/// A slab's key as a slot: a process has fewer descriptors than 2^32.
fn slot_of(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NEVER)
}
