//! A crowd larger than the server: who is let in stays and counts what it hears, everybody else
//! comes back half a second to a second and a half after its answer.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use throng_wire::websocket::{Decoder, Event, Limits, Opcode, Role, put_client_frame, request_key};

/// Who has heard nothing for so long hangs up and is counted as left hanging.
const HANGING: Duration = Duration::from_secs(5);
/// Callers that begin at once: the kernel's queue of the server is not what is measured.
const BEGINNING_MAX: usize = 256;
const MASK: [u8; 4] = [7, 3, 9, 1];

pub(crate) struct Crowd {
    address: SocketAddr,
    request: Vec<u8>,
    /// Speaks the protocol behind the upgrade, and hears what is published.
    speaks: bool,
    poll: Poll,
    events: Events,
    callers: Vec<Caller>,
    /// When whose turn is: to call, or to give up.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    beginning: usize,
    waiting: VecDeque<usize>,
    random: u32,
    pub(crate) tally: Tally,
}

/// What became of the attempts.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) attempts: u64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) other: u64,
    pub(crate) hanging: u64,
    /// Seconds from the connect to the answer or the reset.
    pub(crate) told: Vec<f64>,
}

struct Caller {
    socket: Option<TcpStream>,
    /// When it called, or will call next.
    at: Instant,
    state: State,
    input: Vec<u8>,
    decoder: Decoder,
    heard: u32,
    dropped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Calling,
    Asked,
    /// Told, and waiting for the end of the connection.
    Told,
    /// Let in; the subscription may still be under way.
    In {
        subscribed: bool,
    },
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr, path: &str, speaks: bool, callers: usize) -> Self {
        let key = request_key([7; 16]);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        let now = Instant::now();
        let mut crowd = Self {
            address,
            request: request.into_bytes(),
            speaks,
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            callers: Vec::new(),
            due: BinaryHeap::new(),
            beginning: 0,
            waiting: VecDeque::new(),
            random: 0x9e37_79b9,
            tally: Tally::default(),
        };
        for caller in 0..callers {
            crowd.callers.push(Caller {
                socket: None,
                at: now,
                state: State::Away,
                input: Vec::new(),
                decoder: Decoder::default(),
                heard: 0,
                dropped: false,
            });
            crowd.due.push(Reverse((now, caller)));
        }
        crowd
    }

    pub(crate) fn inside(&self) -> usize {
        let is_in = |caller: &&Caller| matches!(caller.state, State::In { .. });
        self.callers.iter().filter(is_in).count()
    }

    /// Who is in and has heard so many publications.
    pub(crate) fn heard(&self, wanted: u32) -> usize {
        self.callers
            .iter()
            .filter(|caller| matches!(caller.state, State::In { .. }) && caller.heard == wanted)
            .count()
    }

    /// Who was let in and thrown out again.
    pub(crate) fn dropped(&self) -> usize {
        self.callers.iter().filter(|caller| caller.dropped).count()
    }

    pub(crate) fn forget(&mut self) {
        self.tally = Tally::default();
        for caller in &mut self.callers {
            caller.heard = 0;
        }
    }

    /// Lives for so long, or until this is so.
    pub(crate) fn live(&mut self, time: Duration, mut until: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= end || until(self) {
                return;
            }
            self.take_turns(now);
            let next = self.due.peek().map_or(end, |Reverse((at, _))| (*at).min(end));
            let pause =
                next.saturating_duration_since(Instant::now()).min(Duration::from_millis(20));
            let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
                _ => {}
            }
            for event in &events {
                self.step(event.token().0, event.is_writable());
            }
            self.events = events;
        }
    }

    fn take_turns(&mut self, now: Instant) {
        while let Some(Reverse((at, caller))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            match self.callers[caller].state {
                State::Away if at == self.callers[caller].at => self.waiting.push_back(caller),
                // A deadline of an earlier call.
                State::Away | State::In { .. } => {}
                _ if at < self.callers[caller].at + HANGING => {}
                _ => {
                    self.tally.hanging += 1;
                    self.hang_up(caller);
                }
            }
        }
        while self.beginning < BEGINNING_MAX {
            let Some(caller) = self.waiting.pop_front() else { break };
            self.call(caller);
        }
    }

    fn call(&mut self, number: usize) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(number), interest).unwrap();
        let caller = &mut self.callers[number];
        caller.socket = Some(socket);
        caller.at = Instant::now();
        caller.state = State::Calling;
        caller.input.clear();
        self.due.push(Reverse((caller.at + HANGING, number)));
        self.tally.attempts += 1;
        self.beginning += 1;
    }

    fn step(&mut self, number: usize, writable: bool) {
        let caller = &mut self.callers[number];
        let Some(socket) = &mut caller.socket else { return };
        if caller.state == State::Calling && writable && socket.peer_addr().is_ok() {
            caller.state = State::Asked;
            socket.set_nodelay(true).ok();
            // What cannot be written is found out by reading.
            socket.write_all(&self.request).ok();
        }
        let mut piece = [0; 4096];
        let ended = loop {
            match socket.read(&mut piece) {
                Ok(0) => break Some(false),
                Ok(got) => caller.input.extend_from_slice(&piece[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                // Not connected yet.
                Err(error) if error.kind() == ErrorKind::NotConnected => break None,
                Err(_) => break Some(true),
            }
        };
        self.judge(number);
        if let Some(reset) = ended {
            self.ended(number, reset);
        }
    }

    /// Reads what has come in.
    fn judge(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        if caller.state == State::Asked {
            let Some(end) = caller.input.windows(4).position(|four| four == b"\r\n\r\n") else {
                return;
            };
            let status = caller.input.get(9..12).unwrap_or_default().to_vec();
            self.tally.told.push(caller.at.elapsed().as_secs_f64());
            if status == b"101" {
                caller.input.drain(..end + 4);
                caller.state = State::In { subscribed: !self.speaks };
                self.beginning -= 1;
                if self.speaks {
                    say(caller, r#"{"id":1,"connect":{}}"#);
                    say(caller, r#"{"id":2,"subscribe":{"channel":"load"}}"#);
                }
            } else {
                if status == b"503" {
                    self.tally.refused += 1;
                } else {
                    self.tally.other += 1;
                }
                caller.state = State::Told;
            }
        }
        if matches!(caller.state, State::In { .. }) {
            listen(caller);
        }
    }

    fn ended(&mut self, number: usize, reset: bool) {
        let caller = &mut self.callers[number];
        match caller.state {
            State::In { .. } => caller.dropped = true,
            State::Calling | State::Asked => {
                self.tally.told.push(caller.at.elapsed().as_secs_f64());
                if reset {
                    self.tally.reset += 1;
                } else {
                    self.tally.other += 1;
                }
            }
            State::Away | State::Told => {}
        }
        self.hang_up(number);
    }

    fn hang_up(&mut self, number: usize) {
        let pause = 500 + u64::from(self.below(1000));
        let caller = &mut self.callers[number];
        if !matches!(caller.state, State::In { .. }) {
            self.beginning -= 1;
        }
        // Closing takes it off the queue.
        caller.socket = None;
        caller.state = State::Away;
        caller.at = Instant::now() + Duration::from_millis(pause);
        self.due.push(Reverse((caller.at, number)));
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % bound
    }
}

/// Takes frames; a reply to the subscribe, publications, and pings, which are answered.
fn listen(caller: &mut Caller) {
    let mut input = std::mem::take(&mut caller.input);
    let mut at = 0;
    let mut pings = 0;
    loop {
        let limits = Limits { message_max: 1 << 20 };
        let Ok(step) = caller.decoder.next(&mut input[at..], Role::Client, limits) else { return };
        match step.event {
            None => break,
            Some(Event::Text(text)) => {
                for line in text.split('\n') {
                    if line == "{}" {
                        pings += 1;
                    } else if line.contains("\"pub\"") {
                        caller.heard += 1;
                    } else if line.contains("\"subscribe\"") {
                        caller.state = State::In { subscribed: true };
                    }
                }
            }
            Some(_) => {}
        }
        at += step.consumed;
    }
    for _ in 0..pings {
        say(caller, "{}");
    }
}

fn say(caller: &mut Caller, text: &str) {
    let mut frame = Vec::new();
    put_client_frame(Opcode::Text, MASK, text.as_bytes(), &mut frame);
    if let Some(socket) = &mut caller.socket {
        // A few bytes into an empty buffer; a connection that has gone is seen when reading.
        socket.write_all(&frame).ok();
    }
}

impl Crowd {
    /// Whether everybody who is in has subscribed.
    pub(crate) fn settled(&self) -> bool {
        self.callers.iter().all(|caller| caller.state != State::In { subscribed: false })
    }
}
