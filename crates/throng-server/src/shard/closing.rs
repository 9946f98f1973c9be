//! How a connection ends: the goodbye, the wait for the peer's, and the end of the record.

use std::io::{self, Read};

use bytes::Bytes;
use throng_wire::websocket::{Opcode, put_frame};

use super::conn::{Fallen, Flags, State};
use super::crowd::make_ready;
use super::turn::{FALLEN_KEPT, Shard};
use super::{ConnRef, Farewell, Gone, Handler, NEVER};
use crate::codes::Disconnect;

impl<H: Handler> Shard<H> {
    /// The peer closes: its code is echoed, then the socket closed.
    pub(super) fn goodbye(&mut self, slot: u32, code: Option<u16>) {
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
    pub(super) fn listen_for_close(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get(slot as usize) else { return };
        if !conn.link.flags.has(Flags::READABLE) || !self.crowd.touch(slot) {
            return;
        }
        let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { return };
        let link = &mut conn.link;
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
    pub(super) fn finish_close(&mut self, slot: u32) {
        let Some(conn) = self.crowd.conns.get(slot as usize) else { return };
        let link = &conn.link;
        if link.state != State::Closing || conn.session.is_some() || link.outbox.is_some() {
            return;
        }
        if link.flags.has(Flags::PEER_CLOSED) {
            self.remove(slot);
        } else if link.is_deaf()
            && self.crowd.touch(slot)
            && let Some(conn) = self.crowd.conns.get(slot as usize)
        {
            conn.link.end_writing();
        }
    }

    /// Ends the sessions of all who fell since the last time.
    pub(super) fn reap(&mut self) {
        while let Some(Fallen { slot, number, why }) = self.crowd.fallen.pop() {
            let Some(conn) = self.crowd.conns.get_mut(slot as usize) else { continue };
            if conn.link.number != number {
                continue;
            }
            if let Some(session) = conn.session.take() {
                let mut farewell = Vec::new();
                let framing = conn.link.framing;
                let manner = self.handler.farewell(&session, &why, framing, &mut farewell);
                let now = self.crowd.time.now;
                let gone = Gone { conn: ConnRef { slot, number }, framing, now };
                self.handler.closed(gone, session, &why);
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
        // Where it cannot be touched, what falls by that is this one.
        self.crowd.touch(slot);
        let Some(conn) = self.crowd.conns.try_remove(slot as usize) else { return };
        conn.link.end_copies(self.crowd.witnessed());
        self.crowd.due[slot as usize] = NEVER;
        self.crowd.give(conn.link.held_bytes());
    }

    /// Ends a close that has taken too long: a reset gives the kernel's memory back at once.
    pub(super) fn give_up(&mut self, slot: u32) {
        if self.crowd.touch(slot)
            && let Some(conn) = self.crowd.conns.get(slot as usize)
        {
            conn.link.reset();
            self.crowd.counters.resets += 1;
        }
        self.remove(slot);
    }
}
