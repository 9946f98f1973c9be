//! A shard in a thread of its own, with a handler that echoes and does what tests ask it to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::SockRef;
use throng_limits::Budget;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Limits, Opcode, Window, put_frame};

use super::client::Client;
use crate::allowance::Allowance;
use crate::clock::Clock;
use crate::codes::Disconnect;
use crate::log::Log;
use crate::shard::{
    Adopt, Bounds, ConnRef, Crowd, Gone, Handler, Mailbox, Message, NEVER, Out, Post, Shard,
    ShardSetup, Taken, WakeAt, event_loop,
};

/// How long anything may take before a test fails; far more than it should on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Bounds in which nothing ends by itself.
pub(super) fn bounds() -> Bounds {
    Bounds {
        message: Limits { message_max: 100_000 },
        inflated_max: 200_000,
        outbox_bytes_max: 1 << 20,
        incomplete_message: Duration::from_secs(600),
        close: Duration::from_secs(600),
    }
}

/// What a test tells the shard.
pub(super) enum Mail {
    /// Frames for everyone.
    Broadcast(Bytes),
    /// Frames for one.
    To(u64, Bytes),
    /// Says something for one whose connection is a response.
    Hear(u64, &'static [u8]),
    /// Answers who waits with `resumed`, and reads on.
    Resume(u64),
    /// Lets go what is held, `released` first, and reads on.
    Release(u64),
    /// Closes with 4001.
    Close(u64),
    /// Writes to a client's socket when another connection has had so many messages, and tells
    /// when that client's message was handled.
    Nudge(Nudge),
    /// Answers with the number of connections.
    Count(Sender<usize>),
}

pub(super) struct Nudge {
    pub(super) from: u64,
    pub(super) at: usize,
    pub(super) socket: TcpStream,
    pub(super) bytes: Vec<u8>,
}

/// What a shard tells a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Waiting(u64),
    Closed(u64, u16),
    /// A message came from another than the nudging connection, when that had had so many.
    Handled {
        before: usize,
    },
}

struct Probe {
    seen: Sender<Seen>,
    here: HashMap<u64, ConnRef>,
    nudge: Option<Nudge>,
    /// Messages of the nudging connection.
    nudging: usize,
}

impl Probe {
    fn tell(&self, seen: Seen) {
        // The test is over.
        self.seen.send(seen).ok();
    }

    fn nudged(&mut self, number: u64) {
        let Some(nudge) = &mut self.nudge else { return };
        if nudge.from != number {
            self.nudge = None;
            return self.tell(Seen::Handled { before: self.nudging });
        }
        self.nudging += 1;
        if self.nudging == nudge.at {
            nudge.socket.write_all(&nudge.bytes).unwrap();
        }
    }
}

impl Handler for Probe {
    type Session = ();
    type Open = ();
    type Mail = Mail;

    fn open(&mut self, out: &mut Out<'_>, (): ()) {
        self.here.insert(out.conn.number, out.conn);
    }

    fn message(&mut self, out: &mut Out<'_>, (): &mut (), message: Message<'_>) -> Taken {
        let number = out.conn.number;
        self.nudged(number);
        let message = match message {
            Message::Binary(said) if out.framing.is_response() => {
                Message::Text(std::str::from_utf8(said).unwrap())
            }
            other => other,
        };
        match message {
            Message::Text("panic") => panic!("as the test asked for"),
            Message::Text("close") => out.close(Disconnect::custom(4000, "asked for")),
            Message::Text(command @ ("wait" | "hold")) => {
                if command == "hold" {
                    out.hold();
                }
                self.tell(Seen::Waiting(number));
                return Taken::Waiting;
            }
            Message::Text(text) if out.framing.is_response() => {
                text.split('\n').for_each(|line| out.message(line.as_bytes()));
            }
            Message::Text(text) => out.frame(Opcode::Text, text.as_bytes()),
            Message::Binary(data) => out.frame(Opcode::Binary, data),
            Message::Ping | Message::Pong(_) => {}
        }
        Taken::All
    }

    fn proceed(&mut self, _: &mut Out<'_>, (): &mut ()) -> Taken {
        Taken::All
    }

    fn wake(&mut self, _: &mut Out<'_>, (): &mut ()) -> WakeAt {
        NEVER
    }

    fn mail(&mut self, crowd: &mut Crowd<()>, mail: Mail) {
        match mail {
            Mail::Broadcast(frames) => {
                let everyone: Vec<u32> = crowd.sessions().map(|(conn, ())| conn.slot).collect();
                for slot in everyone {
                    crowd.deliver(slot, &frames);
                }
            }
            Mail::To(number, frames) => crowd.deliver(self.here[&number].slot, &frames),
            Mail::Hear(number, said) => crowd.hear(self.here[&number], said),
            Mail::Resume(number) => {
                let conn = self.here[&number];
                crowd.with(conn, |(), out| out.message(b"resumed"));
                crowd.resume(conn.slot);
            }
            Mail::Release(number) => {
                let conn = self.here[&number];
                let mut first = Vec::new();
                put_frame(Opcode::Text, b"released", &mut first);
                crowd.with(conn, |(), out| out.release(first.into()));
                crowd.resume(conn.slot);
            }
            Mail::Close(number) => {
                crowd.fall(self.here[&number].slot, Disconnect::custom(4001, "asked for"));
            }
            Mail::Nudge(nudge) => self.nudge = Some(nudge),
            // The test has given up.
            Mail::Count(answer) => drop(answer.send(crowd.len())),
        }
    }

    fn settle(&mut self, _: &mut Crowd<()>) {}

    fn has_work(&self) -> bool {
        false
    }

    fn work(&mut self, _: &mut Crowd<()>, _: usize) {}

    fn closed(&mut self, Gone { conn, .. }: Gone, (): (), why: &Disconnect) {
        self.tell(Seen::Closed(conn.number, why.code));
    }

    fn tick(&mut self, _: &mut Crowd<()>) {}
}

/// A running shard, and what surrounds it.
pub(super) struct House {
    mailbox: Arc<Mailbox<(), Mail>>,
    allowance: Arc<Allowance>,
    clients: Budget,
    listener: TcpListener,
    numbers: AtomicU64,
    seen: Receiver<Seen>,
    /// Seen and not yet asked for.
    remembered: RefCell<Vec<Seen>>,
    ended: Receiver<io::Result<()>>,
    end: Option<io::Result<()>>,
}

impl House {
    pub(super) fn open(bounds: Bounds) -> Self {
        Self::with_allowance(bounds, 256 << 20)
    }

    pub(super) fn with_allowance(bounds: Bounds, bytes: usize) -> Self {
        let allowance = Allowance::new(bytes);
        let (tell, seen) = channel();
        let handler = Probe { seen: tell, here: HashMap::new(), nudge: None, nudging: 0 };
        let event_loop = event_loop().unwrap();
        let mailbox = Arc::clone(&event_loop.1);
        let setup =
            ShardSetup { bounds, allowance: Arc::clone(&allowance), log: Log::silent(), seed: 1 };
        let shard = Shard::new(event_loop, setup, Clock::start(), handler);
        let (done, ended) = channel();
        std::thread::spawn(move || done.send(shard.run()));
        Self {
            mailbox,
            allowance,
            clients: Budget::new(100),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            numbers: AtomicU64::new(1),
            seen,
            remembered: RefCell::default(),
            ended,
            end: None,
        }
    }

    pub(super) fn join(&self) -> Client {
        self.join_with(b"")
    }

    /// A client of which these bytes were read together with its upgrade.
    pub(super) fn join_with(&self, read_ahead: &[u8]) -> Client {
        self.join_as(Framing::WebSocket, read_ahead)
    }

    /// A client that is spoken to in this framing.
    pub(super) fn join_as(&self, framing: Framing, read_ahead: &[u8]) -> Client {
        self.join_over((framing, None), read_ahead)
    }

    /// One with which permessage-deflate was agreed on.
    pub(super) fn join_deflated(&self) -> Client {
        let mut client = self.join_over((Framing::WebSocket, Some(Window::Usual)), &[]);
        client.is_deflated = true;
        client
    }

    fn join_over(
        &self,
        (framing, deflate): (Framing, Option<Window>),
        read_ahead: &[u8],
    ) -> Client {
        let socket = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let (served, _) = self.listener.accept().unwrap();
        served.set_nodelay(true).unwrap();
        served.set_nonblocking(true).unwrap();
        SockRef::from(&served).set_tcp_notsent_lowat(16_384).unwrap();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let adopt = Adopt {
            socket: served,
            permit: self.clients.try_client().unwrap(),
            address: None,
            head: Bytes::from_static(HEAD),
            framing,
            deflate,
            read_ahead: Bytes::copy_from_slice(read_ahead),
            number,
            open: (),
        };
        self.mailbox.post(Post::Adopt(Box::new(adopt)));
        Client::new(number, socket, HEAD)
    }

    pub(super) fn mail(&self, mail: Mail) {
        self.mailbox.post(Post::Mail(mail));
    }

    pub(super) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    pub(super) fn permits(&self) -> u64 {
        self.clients.open()
    }

    /// Whether this was seen by now.
    pub(super) fn has_seen(&self, wanted: Seen) -> bool {
        let mut remembered = self.remembered.borrow_mut();
        remembered.extend(self.seen.try_iter());
        remembered.contains(&wanted)
    }

    pub(super) fn await_seen(&self, wanted: Seen) {
        self.await_kind(|seen| *seen == wanted);
    }

    /// Waits for what is wanted, and forgets it.
    pub(super) fn await_kind(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut remembered = self.remembered.borrow_mut();
        loop {
            if let Some(at) = remembered.iter().position(&wanted) {
                return remembered.remove(at);
            }
            remembered.push(self.seen.recv_timeout(PATIENCE).unwrap());
        }
    }

    /// Waits until the shard has read all mail so far, and what is in its sockets by now was told
    /// to it. Returns the number of connections.
    pub(super) fn await_turn(&self) -> usize {
        let (tell, count) = channel();
        self.mail(Mail::Count(tell));
        count.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits until so many connections are left, and permits out.
    pub(super) fn await_connections(&self, left: usize) {
        self.await_that("connections leave", || self.await_turn() == left);
        assert_eq!(self.permits(), left as u64);
    }

    /// Waits for what no event tells.
    pub(super) fn await_that(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(super) fn stop(&self) {
        self.mailbox.post(Post::Stop);
    }

    /// Whether the shard's thread is through.
    pub(super) fn has_ended(&mut self) -> bool {
        self.await_ended(Duration::ZERO)
    }

    fn await_ended(&mut self, patience: Duration) -> bool {
        if self.end.is_none() {
            self.end = self.ended.recv_timeout(patience).ok();
        }
        self.end.is_some()
    }

    /// Ends the shard when its clients are gone: every byte and every permit has come back.
    pub(super) fn end(mut self) {
        self.stop();
        assert!(self.await_ended(PATIENCE), "the shard did not end");
        self.end.take().unwrap().unwrap();
        assert_eq!(self.allowance.used(), 0, "bytes were taken and not given back");
        assert_eq!(self.permits(), 0, "permits were not given back");
    }
}
