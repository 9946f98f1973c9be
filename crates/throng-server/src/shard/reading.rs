//! What comes in on a connection: from the event to the session, and where it stops.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mio::Token;
use throng_wire::websocket::{Deflated, Event, Opcode, Role, Violation};

use super::conn::{Flags, State};
use super::crowd::{Out, make_ready, second_after};
use super::turn::{Shard, slot_of};
use super::{Handler, Message, NEVER, Taken};
use crate::codes::Disconnect;

/// Inflated bytes that count as one of [`super::turn::COMMANDS_PER_TURN`]: all of them are as much as
/// the buffer that is read in a turn.
const INFLATED_PER_SHARE: usize = 1024;

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

impl<H: Handler> Shard<H> {
    /// Notes what the kernel says of a connection, and gives it its share, or `late` in a turn a
    /// place among those who go on.
    pub(super) fn event(&mut self, event: &mio::event::Event, late: bool) {
        // A slot is given away again only after all events of its turn were looked at, so an
        // event never meets a stranger.
        let Token(key) = event.token();
        let Some(conn) = self.crowd.conns.get(key) else { return };
        let is_read = event.is_readable() || event.is_read_closed() || event.is_error();
        if !is_read && conn.link.is_at_rest() {
            // It may be written to, and nothing is to be written: no reason to tell anybody of it
            // once more.
            return;
        }
        let Some(conn) = self.crowd.conns.get_mut(key) else { return };
        let slot = slot_of(key);
        if event.is_read_closed() || event.is_error() {
            conn.link.flags.set(Flags::READ_CLOSED);
        }
        if is_read {
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
    pub(super) fn advance(&mut self, slot: u32) {
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
        if conn.link.framing.is_response() {
            if !self.hear(slot) {
                return;
            }
        } else if let Some(mut stash) = conn.link.stash.take() {
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
        self.handle(slot, |handler, out, session| handler.proceed(out, session))
    }

    /// Gives the session what its client said elsewhere: all of it at once, of which the session
    /// keeps what must wait. Returns whether it is through.
    fn hear(&mut self, slot: u32) -> bool {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return false };
        let Some(said) = conn.link.stash.take() else { return true };
        let is_through = self.handle(slot, |handler, out, session| {
            handler.message(out, session, Message::Binary(&said))
        });
        self.crowd.account(slot);
        is_through
    }

    /// Runs the handler on one connection. Returns whether that may go on.
    fn handle(
        &mut self,
        slot: u32,
        f: impl FnOnce(&mut H, &mut Out<'_>, &mut H::Session) -> Taken,
    ) -> bool {
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return false };
        let Some(mut session) = conn.session.take() else { return false };
        let handler = &mut self.handler;
        let crowd = &mut self.crowd;
        let taken = crowd.speak(slot, |out| guarded(out, |out| f(handler, out, &mut session)));
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
        let Some(conn) = self.crowd.conns.get(slot as usize) else { return };
        let link = &conn.link;
        if !link.flags.has(Flags::READABLE) || link.state != State::Open {
            return;
        }
        if !self.crowd.touch(slot) {
            return;
        }
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
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
                // Who is sent a response has said all with the request: what else comes, at most
                // a buffer of it in a turn, is let go.
                if !link.framing.is_response() {
                    let (decoded, fresh) = self.decode(slot, &mut buffer[..got]);
                    self.conclude(slot, decoded, fresh, &mut buffer[..got]);
                }
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
        let is_deflated = conn.link.deflate.is_some();
        let handler = &mut self.handler;
        let crowd = &mut self.crowd;
        let inflater = &mut self.inflater;
        let mut panicked = false;
        let mut fresh = !decoder.is_partial();
        let decoded = crowd.speak(slot, |out| {
            let mut at = 0;
            loop {
                inflater.release();
                let deflated = match is_deflated {
                    true => Deflated::Inflated(&mut *inflater),
                    false => Deflated::Refused,
                };
                let step = match decoder.next_with(&mut input[at..], Role::Server, limits, deflated)
                {
                    Ok(step) => step,
                    Err(violation) => return Decoded::Violated(violation),
                };
                at += step.consumed;
                let Some(event) = step.event else { return Decoded::All };
                out.share = out.share.saturating_sub(1);
                out.inflated = step.deflated;
                if step.deflated {
                    // A little that inflates to much is no cheaper than much.
                    let spent = u32::try_from(size_of_event(&event) / INFLATED_PER_SHARE);
                    out.share = out.share.saturating_sub(spent.unwrap_or(u32::MAX));
                }
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
        self.inflater.release();
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

    pub(super) fn is_open(&self, slot: u32) -> bool {
        self.crowd.conns.get(slot as usize).is_some_and(|conn| conn.link.state == State::Open)
    }
}

fn size_of_event(event: &Event<'_>) -> usize {
    match event {
        Event::Text(text) => text.len(),
        Event::Binary(data) | Event::Ping(data) | Event::Pong(data) => data.len(),
        Event::Close(_) => 0,
    }
}

/// Runs a handler on one connection's input. `None` after a panic.
fn guarded(out: &mut Out<'_>, f: impl FnOnce(&mut Out<'_>) -> Taken) -> Option<Taken> {
    catch_unwind(AssertUnwindSafe(|| f(out))).ok()
}
