//! One client that blocks: for `throng subscribe`, and to feel what a neighbour of a burst feels.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use throng_wire::websocket::{
    Decoder, Event, Limits, Opcode, Role, put_client_close, put_client_frame, request_key,
};

use crate::handshake::{Head, Upgrade};
use crate::message::quoted;
use crate::target::Target;

/// What one read takes in.
const READ_BUFFER: usize = 16 * 1024;
/// What a server may send in one message.
const MESSAGE_MAX: usize = 16 << 20;

/// What a client speaks over: a socket, or something around one, such as TLS.
pub trait Stream: Read + Write + std::fmt::Debug + Send {
    /// The socket beneath, for its timeouts.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: Box<dyn Stream>,
    /// The head of the server's answer to the upgrade.
    head: Vec<u8>,
    decoder: Decoder,
    /// Lines that came and were not asked for yet.
    lines: VecDeque<String>,
    /// Set when the server said that this is the end.
    closed: Option<(u16, String)>,
    next_id: u32,
    mask: u32,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Manner {
    /// How long each step may take.
    pub timeout: Duration,
    /// Further header lines of the upgrade, each ended by CR LF.
    pub headers: String,
    /// Where the key and the masks come from; they protect caches between, not secrets.
    pub seed: u32,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            headers: String::new(),
            seed: std::process::id() | 1,
        }
    }
}

/// The steps of a client, as they are named when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Resolve,
    Connect,
    Upgrade,
    Send,
    Receive,
    Command(&'static str),
}

/// A step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .step.name())]
pub struct ClientError {
    pub step: Step,
    pub why: String,
    /// The status of an upgrade that was refused, the code of an error reply or of a close.
    pub code: Option<u32>,
}

impl Step {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "finding the server",
            Self::Connect => "connecting",
            Self::Upgrade => "upgrading to WebSocket",
            Self::Send => "sending",
            Self::Receive => "receiving",
            Self::Command(command) => command,
        }
    }

    fn failed(self, why: impl std::fmt::Display) -> ClientError {
        ClientError { step: self, why: why.to_string(), code: None }
    }
}

impl Client {
    /// Connects and upgrades. No command is sent yet.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn connect(url: &str, manner: &Manner) -> Result<Self, ClientError> {
        let target = Target::websocket(url).map_err(|failure| Step::Resolve.failed(failure.why))?;
        let connecting = |error| Step::Connect.failed(error);
        let stream =
            TcpStream::connect_timeout(&target.address, manner.timeout).map_err(connecting)?;
        Self::over(Box::new(stream), &target, manner)
    }

    /// Upgrades a connection that is there already. No command is sent yet.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn over(
        stream: Box<dyn Stream>,
        target: &Target,
        manner: &Manner,
    ) -> Result<Self, ClientError> {
        let connecting = |error| Step::Connect.failed(error);
        stream.socket().set_nodelay(true).map_err(connecting)?;
        stream.socket().set_write_timeout(Some(manner.timeout)).map_err(connecting)?;
        let mut client = Self {
            stream,
            head: Vec::new(),
            decoder: Decoder::default(),
            lines: VecDeque::new(),
            closed: None,
            next_id: 1,
            mask: manner.seed | 1,
        };
        let nonce: Vec<u8> = (0..4).flat_map(|_| client.next_mask()).collect();
        let nonce = nonce.try_into().expect("four masks of four bytes are sixteen");
        let upgrade = Upgrade::new(target, &request_key(nonce), &manner.headers);
        client.upgrade(&upgrade, manner.timeout)?;
        Ok(client)
    }

    /// A header of the server's answer to the upgrade; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        Head::parse(&self.head).ok().flatten()?.field(name)
    }

    /// Sends the `connect` command and waits for its reply.
    ///
    /// # Errors
    /// An error reply, or a close, with its code.
    pub fn greet(&mut self, token: &str, timeout: Duration) -> Result<Value, ClientError> {
        let token =
            if token.is_empty() { String::new() } else { format!("\"token\":{},", quoted(token)) };
        self.command("connect", &format!("{{{token}\"name\":\"throng\"}}"), timeout)
    }

    /// Sends the `subscribe` command and waits for its reply.
    ///
    /// # Errors
    /// An error reply, or a close, with its code.
    pub fn subscribe(&mut self, channel: &str, timeout: Duration) -> Result<Value, ClientError> {
        self.command("subscribe", &format!("{{\"channel\":{}}}", quoted(channel)), timeout)
    }

    /// Sends a command with its request as JSON and waits for its reply; pushes that come before
    /// it are kept for [`Self::next_line`].
    ///
    /// # Errors
    /// An error reply, or a close, with its code.
    pub fn command(
        &mut self,
        command: &'static str,
        request: &str,
        timeout: Duration,
    ) -> Result<Value, ClientError> {
        let step = Step::Command(command);
        let id = self.next_id;
        self.next_id += 1;
        self.send(&format!("{{\"id\":{id},\"{command}\":{request}}}"))?;
        let until = Instant::now() + timeout;
        let mut kept = VecDeque::new();
        let answer = loop {
            let Some(line) = self.next_line(until.saturating_duration_since(Instant::now()))?
            else {
                return Err(step.failed(format!("no reply within {timeout:?}")));
            };
            let mut reply: Value = serde_json::from_str(&line)
                .map_err(|error| step.failed(format!("{error} in the reply {line:.100}")))?;
            if reply.get("id").and_then(Value::as_u64) == Some(u64::from(id)) {
                break reply.as_object_mut().map(std::mem::take).unwrap_or_default();
            }
            kept.push_back(line);
        };
        kept.append(&mut self.lines);
        self.lines = kept;
        let mut answer = answer;
        if let Some(error) = answer.get("error") {
            let code = error.get("code").and_then(Value::as_u64);
            let code = code.and_then(|code| u32::try_from(code).ok());
            return Err(ClientError { code, ..step.failed(format!("error {error}")) });
        }
        Ok(answer.remove(command).unwrap_or_default())
    }

    /// Sends one text frame.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn send(&mut self, text: &str) -> Result<(), ClientError> {
        self.put(Opcode::Text, text.as_bytes())
    }

    /// The next line that the server sends, a reply or a push; `None` when there is none in time.
    /// Pings are answered on the way.
    ///
    /// # Errors
    /// When the connection ends: with the server's code, if it gave one.
    pub fn next_line(&mut self, timeout: Duration) -> Result<Option<String>, ClientError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            if let Some((code, reason)) = &self.closed {
                let why = format!("closed by the server with {code} ({reason})");
                return Err(ClientError {
                    code: Some(u32::from(*code)),
                    ..Step::Receive.failed(why)
                });
            }
            let mut input = [0; READ_BUFFER];
            let Some(read) = self.read(&mut input, until, Step::Receive)? else { return Ok(None) };
            self.take_in(&mut input[..read])?;
        }
    }

    /// Says goodbye. The connection is gone either way.
    pub fn close(mut self) {
        let mut frame = Vec::new();
        put_client_close(self.next_mask(), 1000, "", &mut frame);
        self.stream.write_all(&frame).ok(); // the server may have gone first
    }

    fn upgrade(&mut self, upgrade: &Upgrade, timeout: Duration) -> Result<(), ClientError> {
        let step = Step::Upgrade;
        self.stream.write_all(&upgrade.request).map_err(|error| step.failed(error))?;
        self.stream.flush().map_err(|error| step.failed(error))?;
        let until = Instant::now() + timeout;
        let mut answer = Vec::new();
        loop {
            let mut input = [0; READ_BUFFER];
            let Some(read) = self.read(&mut input, until, step)? else {
                return Err(step.failed(format!("no answer within {timeout:?}")));
            };
            answer.extend_from_slice(&input[..read]);
            let size = upgrade.check(&answer).map_err(|refusal| ClientError {
                code: refusal.status().map(u32::from),
                ..step.failed(refusal)
            })?;
            if let Some(size) = size {
                let taken = self.take_in(&mut answer[size..]);
                answer.truncate(size);
                self.head = answer;
                return taken;
            }
        }
    }

    /// How many bytes came; `None` when none came in time.
    fn read(
        &mut self,
        input: &mut [u8],
        until: Instant,
        step: Step,
    ) -> Result<Option<usize>, ClientError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = self.stream.socket().set_read_timeout(Some(left));
            timeout.map_err(|error| step.failed(error))?;
            match self.stream.read(input) {
                Ok(0) => return Err(step.failed("the server ended the connection")),
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Of TLS whose other side went without a word.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(step.failed("the server ended the connection"));
                }
                Err(error) => return Err(step.failed(error)),
            }
        }
    }

    fn take_in(&mut self, bytes: &mut [u8]) -> Result<(), ClientError> {
        let mut at = 0;
        let mut answers = Vec::new();
        loop {
            let limits = Limits { message_max: MESSAGE_MAX };
            let step = self
                .decoder
                .next(&mut bytes[at..], Role::Client, limits)
                .map_err(|violation| Step::Receive.failed(format!("{violation:?}")))?;
            at += step.consumed;
            match step.event {
                None => break,
                Some(Event::Text(text)) => {
                    for line in text.split('\n').filter(|line| !line.is_empty()) {
                        // Protocol: an empty reply is a ping, an empty command its answer.
                        if line == "{}" {
                            answers.push((Opcode::Text, b"{}".to_vec()));
                        } else {
                            self.lines.push_back(line.to_owned());
                        }
                    }
                }
                Some(Event::Ping(payload)) => answers.push((Opcode::Pong, payload.to_vec())),
                Some(Event::Close(said)) => {
                    let (code, reason) = said.unwrap_or((1005, "no code"));
                    self.closed = Some((code, reason.to_owned()));
                    break;
                }
                Some(Event::Pong(_) | Event::Binary(_)) => {}
            }
        }
        for (opcode, payload) in answers {
            self.put(opcode, &payload)?;
        }
        Ok(())
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        put_client_frame(opcode, self.next_mask(), payload, &mut frame);
        self.stream.write_all(&frame).map_err(|error| Step::Send.failed(error))?;
        self.stream.flush().map_err(|error| Step::Send.failed(error))
    }

    fn next_mask(&mut self) -> [u8; 4] {
        // xorshift32
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask.to_le_bytes()
    }
}
