//! Many clients of one server on one event loop.

mod binary;
mod door;
mod member;

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::mem;

use mio::event::Event as Readiness;
use mio::{Interest, Registry, Token};
use serde::Deserialize;
use throng_wire::websocket::{
    Deflated, Event, Inflater, Limits, Opcode, Role, put_client_close, put_client_frame,
};

pub(crate) use binary::HEADER as PROTOBUF_HEADER;
pub(crate) use door::{Door, Sources};
use member::{Member, Step};

use crate::clock::{Clock, Nanos, seconds};
use crate::handshake::{Head, Upgrade};
use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::message::{Messages, quoted};
use crate::options::Encoding;
use crate::trouble::{Trouble, Troubles};

/// One buffer for the whole crowd: what one read takes in.
const READ_BUFFER: usize = 64 * 1024;
/// A server's message longer than this is not one that a load was asked to send.
const MESSAGE_MAX: usize = 16 << 20;

/// What the clients say.
#[derive(Debug, Clone)]
pub(crate) enum Speech {
    /// Upgrade, `connect`, `subscribe`.
    Protocol { upgrades: Upgrades, token: String, channel: String },
    /// The upgrade alone: any WebSocket server.
    Upgrade(Upgrade),
    /// This request, and nothing more: what comes are server-sent events.
    Events(Vec<u8>),
    /// Nothing: frames come without having been asked for.
    Bare,
}

/// The upgrades of a crowd that says something.
#[derive(Debug, Clone)]
pub(crate) struct Upgrades {
    pub(crate) json: Upgrade,
    pub(crate) protobuf: Upgrade,
    pub(crate) encoding: Encoding,
    /// permessage-deflate is offered in both.
    pub(crate) compressed: bool,
}

impl Upgrades {
    fn is_protobuf(&self, index: u32) -> bool {
        match self.encoding {
            Encoding::Json => false,
            Encoding::Protobuf => true,
            Encoding::Mixed => index % 2 == 1,
        }
    }

    fn of(&self, index: u32) -> &Upgrade {
        if self.is_protobuf(index) { &self.protobuf } else { &self.json }
    }
}

/// How a crowd is led.
#[derive(Debug)]
pub(crate) struct Manners {
    pub(crate) door: Door,
    pub(crate) speech: Speech,
    /// How long one client may take until it is in.
    pub(crate) patience: Nanos,
    pub(crate) messages: Messages,
}

#[derive(Debug)]
pub(crate) struct Crowd {
    manners: Manners,
    clock: Clock,
    registry: Registry,
    members: Vec<Member>,
    /// Who began to connect and may not be in yet, oldest first.
    coming: VecDeque<u32>,
    counts: Counts,
    /// From beginning to connect to being in.
    joined: Histogram,
    ledger: Ledger,
    troubles: Troubles,
    /// Heads and events that came in pieces; there are few.
    heads: HashMap<u32, Vec<u8>>,
    input: Box<[u8]>,
    /// For the whole crowd.
    inflater: Inflater,
    output: Vec<u8>,
    ramp_began: Nanos,
    /// Where the masks of frames come from; they need not be secret here.
    mask: u32,
    leaving: Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Who goes now goes because it was told to.
    Yes,
}

/// How the crowd stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Between the first packet and being in.
    pub(crate) coming: u32,
    pub(crate) ready: u32,
    /// Could not come in.
    pub(crate) failed: u32,
    /// Of those, how many since the last one that could.
    pub(crate) failed_in_a_row: u32,
    /// Were in and are not any more.
    pub(crate) lost: u32,
    pub(crate) pings: u64,
    /// Seconds between pings as the server announced them; 0 when it did not.
    pub(crate) ping_interval: u32,
    /// The bytes of a frame that carried one publication.
    pub(crate) frame_bytes: usize,
}

impl Crowd {
    pub(crate) fn new(manners: Manners, registry: Registry, clock: Clock) -> Self {
        Self {
            manners,
            clock,
            registry,
            members: Vec::new(),
            coming: VecDeque::new(),
            counts: Counts::default(),
            joined: Histogram::new(),
            ledger: Ledger::new(),
            troubles: Troubles::default(),
            heads: HashMap::new(),
            input: vec![0; READ_BUFFER].into_boxed_slice(),
            inflater: Inflater::new(MESSAGE_MAX),
            output: Vec::new(),
            ramp_began: clock.now(),
            mask: 0x9e37_79b9,
            leaving: Leaving::No,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many clients have begun, whatever became of them.
    pub(crate) fn begun(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn joined(&self) -> &Histogram {
        &self.joined
    }

    pub(crate) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    pub(crate) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub(crate) fn messages(&self) -> &Messages {
        &self.manners.messages
    }

    /// Times of joining are counted afresh from here.
    pub(crate) fn begin_ramp(&mut self) {
        self.ramp_began = self.clock.now();
        self.joined = Histogram::new();
        self.counts.failed_in_a_row = 0;
    }

    /// Reckons up what everyone has not got of the round that ends.
    pub(crate) fn end_round(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.step == Step::Ready) {
            self.ledger.settle(&mut member.place);
        }
    }

    /// Begins to connect one more client.
    pub(crate) fn begin_next(&mut self) {
        let index = self.begun();
        let began_us = (self.clock.now() - self.ramp_began) / 1000;
        self.members.push(Member {
            stream: None,
            step: Step::Connecting,
            began_us: u32::try_from(began_us).unwrap_or(u32::MAX),
            decoder: throng_wire::websocket::Decoder::default(),
            place: self.ledger.place(),
        });
        self.counts.coming += 1;
        self.coming.push_back(index);
        let opened = self.manners.door.open(index).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.registry.register(&mut stream, Token(index as usize), interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => self.member(index).stream = Some(stream),
            Err(error) => self.fail(index, Trouble::of_io(Step::Connecting.name(), error)),
        }
    }

    /// Gives up on whoever has been coming for too long.
    pub(crate) fn expire(&mut self) {
        let now = self.clock.now();
        while let Some(&index) = self.coming.front() {
            let ramp_began = self.ramp_began;
            let patience = self.manners.patience;
            let member = self.member(index);
            let step = member.step;
            if matches!(step, Step::Ready | Step::Gone) {
                self.coming.pop_front();
                continue;
            }
            if now < ramp_began + u64::from(member.began_us) * 1000 + patience {
                return;
            }
            let seconds = patience / 1_000_000_000;
            self.fail(index, Trouble::Timeout { step: step.name(), seconds });
        }
    }

    pub(crate) fn on_event(&mut self, event: &Readiness) {
        // The token was made from an index.
        let index = u32::try_from(event.token().0).unwrap_or(u32::MAX);
        let Some(member) = self.members.get(index as usize) else { return };
        let step = member.step;
        let outcome = match step {
            Step::Gone => return,
            Step::Connecting if !event.is_writable() => return,
            Step::Connecting => self.connected(index),
            _ if event.is_readable() => self.read(index, event),
            _ => return,
        };
        if let Err(trouble) = outcome {
            self.fail(index, trouble);
        }
    }

    /// Sends everyone a close frame. Who does not answer is dropped by [`Self::drop_rest`].
    pub(crate) fn leave(&mut self) {
        self.leaving = Leaving::Yes;
        for index in 0..self.begun() {
            if self.member(index).step != Step::Ready {
                continue;
            }
            if matches!(self.manners.speech, Speech::Bare | Speech::Events(_)) {
                self.fail(index, Trouble::Cut { step: Step::Gone.name() });
                continue;
            }
            let mask = self.next_mask();
            self.output.clear();
            put_client_close(mask, 1000, "", &mut self.output);
            if let Err(trouble) = self.flush(index) {
                self.fail(index, trouble);
            }
        }
    }

    /// Cuts who is still there. Without lingering, so that no port is kept for a minute.
    pub(crate) fn drop_rest(&mut self) {
        for member in &mut self.members {
            if let Some(stream) = member.stream.take() {
                let linger = Some(std::time::Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(linger).ok(); // it is closed either way
            }
            member.step = Step::Gone;
        }
        self.counts.ready = 0;
        self.counts.coming = 0;
    }

    fn member(&mut self, index: u32) -> &mut Member {
        &mut self.members[index as usize]
    }

    fn connected(&mut self, index: u32) -> Result<(), Trouble> {
        let connecting = |error| Trouble::of_io(Step::Connecting.name(), error);
        let stream = self.member(index).stream.as_ref();
        let Some(error) = stream.map(mio::net::TcpStream::take_error) else { return Ok(()) };
        if let Some(error) = error.map_err(connecting)? {
            return Err(connecting(error));
        }
        let request = match &self.manners.speech {
            Speech::Bare => {
                self.join(index);
                return Ok(());
            }
            Speech::Protocol { upgrades, .. } => &upgrades.of(index).request,
            Speech::Upgrade(upgrade) => &upgrade.request,
            Speech::Events(request) => request,
        };
        self.output.clear();
        self.output.extend_from_slice(request);
        self.member(index).step = Step::Upgrading;
        self.flush(index)
    }

    fn read(&mut self, index: u32, event: &Readiness) -> Result<(), Trouble> {
        // Taken out for the while, so that what is read can be acted upon.
        let mut input = mem::take(&mut self.input);
        let outcome = self.read_into(index, event, &mut input);
        self.input = input;
        outcome
    }

    fn read_into(
        &mut self,
        index: u32,
        event: &Readiness,
        input: &mut [u8],
    ) -> Result<(), Trouble> {
        loop {
            let member = self.member(index);
            let step = member.step.name();
            let Some(stream) = &mut member.stream else { return Ok(()) };
            let read = match stream.read(input) {
                Ok(0) => return Err(Trouble::Cut { step }),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::of_io(step, error)),
            };
            self.take_in(index, &mut input[..read])?;
            // epoll(7): a short read has emptied the socket, so its next readiness is an event
            // of its own; only an end that is already known must be read now.
            if read < input.len() && !event.is_read_closed() {
                return Ok(());
            }
        }
    }

    fn take_in(&mut self, index: u32, bytes: &mut [u8]) -> Result<(), Trouble> {
        let mut at = 0;
        if self.member(index).step == Step::Upgrading {
            match self.upgraded(index, bytes)? {
                Some(size) => at = size,
                None => return Ok(()),
            }
        }
        let now = self.clock.now();
        if matches!(self.manners.speech, Speech::Events(_)) {
            return self.events(index, &bytes[at..], now);
        }
        let mut decoder = mem::take(&mut self.member(index).decoder);
        // Taken out for the while, as the decoder is.
        let mut inflater = mem::replace(&mut self.inflater, Inflater::new(MESSAGE_MAX));
        let is_compressed = match &self.manners.speech {
            Speech::Protocol { upgrades, .. } => upgrades.compressed,
            _ => false,
        };
        loop {
            let limits = Limits { message_max: MESSAGE_MAX };
            let deflated = match is_compressed {
                true => Deflated::Inflated(&mut inflater),
                false => Deflated::Refused,
            };
            let step = decoder.next_with(&mut bytes[at..], Role::Client, limits, deflated)?;
            at += step.consumed;
            let (deflated, consumed) = (step.deflated, step.consumed);
            match step.event {
                None => break,
                Some(Event::Text(text)) => self.text(index, text, now)?,
                Some(Event::Binary(frame)) => self.binary(index, frame, now)?,
                Some(Event::Ping(payload)) => {
                    self.counts.pings += 1;
                    self.send(index, Opcode::Pong, payload)?;
                }
                Some(Event::Close(said)) => {
                    let (code, reason) = said.unwrap_or((1005, "no code"));
                    return Err(Trouble::Closed { code, reason: reason.to_owned() });
                }
                Some(Event::Pong(_)) => {}
            }
            if deflated {
                // Most frames come whole.
                self.counts.frame_bytes = consumed;
            }
        }
        self.inflater = inflater;
        self.member(index).decoder = decoder;
        Ok(())
    }

    /// How many of these bytes, the last of the head, belong to it.
    fn upgraded(&mut self, index: u32, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        let mut head = self.heads.remove(&index).unwrap_or_default();
        let before = head.len();
        head.extend_from_slice(bytes);
        let size = match &self.manners.speech {
            Speech::Protocol { upgrades, .. } => upgrades.of(index).check(&head)?,
            Speech::Upgrade(upgrade) => upgrade.check(&head)?,
            Speech::Events(_) => Head::with_status(&head, 200)?.map(|head| head.size),
            Speech::Bare => return Ok(Some(0)),
        };
        let Some(size) = size else {
            self.heads.insert(index, head);
            return Ok(None);
        };
        match &self.manners.speech {
            Speech::Protocol { upgrades, token, .. } if upgrades.is_protobuf(index) => {
                let command = binary::connect(token);
                self.send(index, Opcode::Binary, &command)?;
                self.member(index).step = Step::Greeting;
            }
            Speech::Protocol { token, .. } => {
                let token = if token.is_empty() {
                    String::new()
                } else {
                    format!("\"token\":{},", quoted(token))
                };
                let command =
                    format!("{{\"id\":1,\"connect\":{{{token}\"name\":\"throng-load\"}}}}");
                self.send(index, Opcode::Text, command.as_bytes())?;
                self.member(index).step = Step::Greeting;
            }
            Speech::Upgrade(_) | Speech::Bare => self.join(index),
            Speech::Events(_) => self.member(index).step = Step::Greeting,
        }
        Ok(Some(size - before))
    }

    /// Events, the last of which may be there in part only.
    fn events(&mut self, index: u32, bytes: &[u8], now: Nanos) -> Result<(), Trouble> {
        let mut kept = self.heads.remove(&index).unwrap_or_default();
        let bytes = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            if let Some(message) = line.strip_prefix(b"data: ") {
                let message = std::str::from_utf8(message)
                    .map_err(|error| Trouble::Violation(error.to_string()))?;
                self.event(index, message, now)?;
            }
        }
        let rest = &bytes[end..];
        if rest.len() > MESSAGE_MAX {
            return Err(Trouble::Violation("an event does not end".to_owned()));
        }
        if !rest.is_empty() {
            self.heads.insert(index, rest.to_vec());
        }
        Ok(())
    }

    /// A push without anything around it.
    fn event(&mut self, index: u32, message: &str, now: Nanos) -> Result<(), Trouble> {
        if message == "{}" {
            self.counts.pings += 1;
            return Ok(());
        }
        if let Some(number) = self.manners.messages.number(message) {
            self.counts.frame_bytes = message.len() + "data: \n\n".len();
            let place = &mut self.members[index as usize].place;
            self.ledger.receive(place, number, now);
            return Ok(());
        }
        let push: Push = serde_json::from_str(message)
            .map_err(|error| Trouble::Violation(format!("{error} in {message:.100}")))?;
        match push {
            Push { connect: Some(connected), .. } => {
                self.counts.ping_interval = connected.ping;
                self.join(index);
                Ok(())
            }
            Push { disconnect: Some(Notice { code, reason }), .. } => {
                Err(Trouble::Closed { code: u16::try_from(code).unwrap_or(0), reason })
            }
            Push { unsubscribe: Some(Notice { code, reason }), .. } => {
                Err(Trouble::Unsubscribed { code, reason })
            }
            _ => Ok(()),
        }
    }

    /// One message of the server: replies and pushes, one a line.
    fn text(&mut self, index: u32, text: &str, now: Nanos) -> Result<(), Trouble> {
        if matches!(self.manners.speech, Speech::Upgrade(_)) {
            return Ok(());
        }
        for line in text.split('\n') {
            match line {
                "" => {}
                "{}" => {
                    self.counts.pings += 1;
                    self.send(index, Opcode::Text, b"{}")?;
                }
                _ => {
                    let Some(number) = self.manners.messages.number(line) else {
                        self.reply(index, line)?;
                        continue;
                    };
                    if line.len() == text.len() {
                        self.counts.frame_bytes = frame_bytes(text.len());
                    }
                    let place = &mut self.members[index as usize].place;
                    self.ledger.receive(place, number, now);
                }
            }
        }
        Ok(())
    }

    /// The same in Protobuf: each behind its length.
    fn binary(&mut self, index: u32, frame: &[u8], now: Nanos) -> Result<(), Trouble> {
        if matches!(self.manners.speech, Speech::Upgrade(_)) {
            return Ok(());
        }
        let mut rest = frame;
        while !rest.is_empty() {
            let violation = || Trouble::Violation("a message is no Protobuf".to_owned());
            let (message, behind) = binary::message(rest).ok_or_else(violation)?;
            rest = behind;
            if message.is_empty() {
                self.counts.pings += 1;
                self.send(index, Opcode::Binary, binary::PONG)?;
            } else if let Some(number) = self.manners.messages.number(message) {
                self.counts.frame_bytes = frame_bytes(frame.len());
                let place = &mut self.members[index as usize].place;
                self.ledger.receive(place, number, now);
            } else {
                self.binary_reply(index, &binary::read(message).ok_or_else(violation)?)?;
            }
        }
        Ok(())
    }

    fn binary_reply(&mut self, index: u32, said: &binary::Said<'_>) -> Result<(), Trouble> {
        let words = |notice: &binary::Notice<'_>| {
            let code = u32::try_from(notice.code).unwrap_or(0);
            (code, String::from_utf8_lossy(notice.words).into_owned())
        };
        if let Some((code, reason)) = said.unsubscribed.as_ref().map(words) {
            return Err(Trouble::Unsubscribed { code, reason });
        }
        if let Some((code, reason)) = said.disconnected.as_ref().map(words) {
            return Err(Trouble::Closed { code: u16::try_from(code).unwrap_or(0), reason });
        }
        let step = self.member(index).step;
        if let Some((code, message)) = said.error.as_ref().map(words) {
            let command = if step == Step::Greeting { "connect" } else { "subscribe" };
            return Err(Trouble::Command { command, code, message });
        }
        match (step, &self.manners.speech) {
            (Step::Greeting, Speech::Protocol { channel, .. }) if said.id == 1 => {
                let subscribe = binary::subscribe(channel);
                self.counts.ping_interval = u32::try_from(said.ping.unwrap_or(0)).unwrap_or(0);
                self.send(index, Opcode::Binary, &subscribe)?;
                self.member(index).step = Step::Joining;
            }
            (Step::Joining, _) if said.id == 2 => self.join(index),
            _ => {}
        }
        Ok(())
    }

    fn reply(&mut self, index: u32, line: &str) -> Result<(), Trouble> {
        let reply: Reply = serde_json::from_str(line)
            .map_err(|error| Trouble::Violation(format!("{error} in {line:.100}")))?;
        if let Some(push) = reply.push {
            return match push {
                Push { unsubscribe: Some(Notice { code, reason }), .. } => {
                    Err(Trouble::Unsubscribed { code, reason })
                }
                Push { disconnect: Some(Notice { code, reason }), .. } => {
                    Err(Trouble::Closed { code: u16::try_from(code).unwrap_or(0), reason })
                }
                _ => Ok(()),
            };
        }
        let step = self.member(index).step;
        let command = if step == Step::Greeting { "connect" } else { "subscribe" };
        if let Some(Notice { code, reason }) = reply.error {
            return Err(Trouble::Command { command, code, message: reason });
        }
        match (step, &self.manners.speech) {
            (Step::Greeting, Speech::Protocol { channel, .. }) => {
                let subscribe =
                    format!("{{\"id\":2,\"subscribe\":{{\"channel\":{}}}}}", quoted(channel));
                self.counts.ping_interval = reply.connect.map_or(0, |connect| connect.ping);
                self.send(index, Opcode::Text, subscribe.as_bytes())?;
                self.member(index).step = Step::Joining;
            }
            (Step::Joining, _) if reply.id == 2 => self.join(index),
            _ => {}
        }
        Ok(())
    }

    fn join(&mut self, index: u32) {
        let took = (self.clock.now() - self.ramp_began)
            .saturating_sub(u64::from(self.member(index).began_us) * 1000);
        self.joined.add(took);
        let place = self.ledger.place();
        let member = self.member(index);
        member.step = Step::Ready;
        member.place = place;
        self.counts.coming -= 1;
        self.counts.ready += 1;
        self.counts.failed_in_a_row = 0;
    }

    fn fail(&mut self, index: u32, trouble: Trouble) {
        let member = &mut self.members[index as usize];
        let step = mem::replace(&mut member.step, Step::Gone);
        // Closing takes it out of the poll as well.
        member.stream = None;
        self.heads.remove(&index);
        match step {
            Step::Gone => return,
            Step::Ready => {
                self.counts.ready -= 1;
                if self.leaving == Leaving::Yes {
                    return;
                }
                self.counts.lost += 1;
                self.ledger.settle(&mut member.place);
            }
            _ => {
                self.counts.coming -= 1;
                self.counts.failed += 1;
                self.counts.failed_in_a_row += 1;
            }
        }
        self.troubles.note(index + 1, trouble);
    }

    fn send(&mut self, index: u32, opcode: Opcode, payload: &[u8]) -> Result<(), Trouble> {
        let mask = self.next_mask();
        self.output.clear();
        put_client_frame(opcode, mask, payload, &mut self.output);
        self.flush(index)
    }

    /// Writes what is to go out. A few hundred bytes always fit into a socket that was just
    /// opened, or whose server reads; one that does not is the trouble we look for.
    fn flush(&mut self, index: u32) -> Result<(), Trouble> {
        let Member { stream: Some(stream), step, .. } = &mut self.members[index as usize] else {
            return Ok(());
        };
        let written =
            stream.write(&self.output).map_err(|error| Trouble::of_io(step.name(), error))?;
        if written < self.output.len() {
            let source = ErrorKind::WriteZero.into();
            return Err(Trouble::Io { step: step.name(), source });
        }
        Ok(())
    }

    fn next_mask(&mut self) -> [u8; 4] {
        // xorshift32
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask.to_le_bytes()
    }
}

impl Counts {
    pub(crate) fn interval(&self) -> Option<Nanos> {
        (self.ping_interval > 0).then(|| u64::from(self.ping_interval) * 1_000_000_000)
    }
}

/// The bytes on the wire of an unmasked frame (RFC 6455 5.2).
fn frame_bytes(payload: usize) -> usize {
    payload + if payload < 126 { 2 } else { 4 }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: u32,
    error: Option<Notice>,
    connect: Option<Connected>,
    push: Option<Push>,
}

#[derive(Deserialize)]
struct Connected {
    #[serde(default)]
    ping: u32,
}

#[derive(Deserialize)]
struct Push {
    connect: Option<Connected>,
    unsubscribe: Option<Notice>,
    disconnect: Option<Notice>,
}

#[derive(Deserialize)]
struct Notice {
    #[serde(default)]
    code: u32,
    #[serde(default, alias = "message")]
    reason: String,
}

/// How many clients came in per second.
pub(crate) fn rate(clients: u32, took: Nanos) -> f64 {
    f64::from(clients) / seconds(took).max(1e-9)
}
