//! A client over a blocking socket: WebSocket with the handshake by hand, and plain HTTP.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use throng_wire::websocket::{
    Decoder, Event, Limits, Opcode, Role, put_client_close, put_client_frame,
};

use crate::server::{KEY, PATIENCE};

const MASK: [u8; 4] = [1, 2, 3, 4];
pub(crate) const SOCKET: &str = "/connection/websocket";
pub(crate) const HANDSHAKE: &[(&str, &str)] = &[
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// What an HTTP request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Close(u16, String),
}

/// A WebSocket client. It answers the server's pings by itself.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
    heard: VecDeque<Heard>,
    ended: bool,
}

pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A request's text, without a body.
pub(crate) fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let fields: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line} HTTP/1.1\r\n{fields}\r\n")
}

/// Reads one answer, and what came behind it.
pub(crate) fn read_answer(stream: &mut TcpStream) -> (Answer, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let got = stream.read(&mut piece).unwrap();
        assert!(got > 0, "the connection ended in {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..got]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut rest = bytes.split_off(end);
    while rest.len() < length {
        let got = stream.read(&mut piece).unwrap();
        assert!(got > 0, "the body broke off");
        rest.extend_from_slice(&piece[..got]);
    }
    let behind = rest.split_off(length);
    (Answer { status, head, body: String::from_utf8(rest).unwrap() }, behind)
}

/// Sends any bytes, and reads one answer.
pub(crate) fn http(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = dial(address);
    stream.write_all(bytes).unwrap();
    read_answer(&mut stream).0
}

/// Posts a body with these headers.
pub(crate) fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let length = body.len().to_string();
    let all: Vec<(&str, &str)> = [("Host", "localhost"), ("Content-Length", &length)]
        .into_iter()
        .chain(headers.iter().copied())
        .collect();
    let mut bytes = request(&format!("POST {path}"), &all).into_bytes();
    bytes.extend_from_slice(body);
    http(address, &bytes)
}

/// Calls the server API; its answer's body.
pub(crate) fn api(address: SocketAddr, method: &str, body: &str) -> String {
    let answer = post(address, &format!("/api/{method}"), &[("X-API-Key", KEY)], body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

impl Client {
    /// A client over the bidirectional transport, which must be let in.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::upgrade(address, SOCKET, &[], b"").unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// A client that has connected with this token, or without one.
    pub(crate) fn connected(address: SocketAddr, token: &str) -> (Self, String) {
        let mut client = Self::connect(address);
        client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        let reply: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
        let id = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}"));
        (client, id.to_owned())
    }

    /// Asks for an upgrade with more headers, and with bytes sent along with the request.
    pub(crate) fn upgrade(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        along: &[u8],
    ) -> Result<Self, Answer> {
        let mut bytes =
            request(&format!("GET {path}"), &[HANDSHAKE, headers].concat()).into_bytes();
        bytes.extend_from_slice(along);
        Self::upgrade_over(dial(address), &bytes)
    }

    /// Asks for an upgrade with this request, on a connection that is there already.
    pub(crate) fn upgrade_over(mut stream: TcpStream, bytes: &[u8]) -> Result<Self, Answer> {
        stream.write_all(bytes).unwrap();
        let (answer, input) = read_answer(&mut stream);
        if answer.status != 101 {
            return Err(answer);
        }
        assert!(answer.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer:?}");
        Ok(Self { stream, decoder: Decoder::new(), input, heard: VecDeque::new(), ended: false })
    }

    pub(crate) fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        put_client_frame(Opcode::Text, MASK, text.as_bytes(), &mut frame);
        self.send(&frame);
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // Who is being closed may find the socket gone; what it hears tells.
        self.stream.write_all(bytes).ok();
    }

    /// The next message.
    pub(crate) fn hear(&mut self) -> String {
        match self.next() {
            Some(Heard::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The next message, or none where the connection ends instead.
    pub(crate) fn hear_or_end(&mut self) -> Option<String> {
        match self.next() {
            Some(Heard::Text(text)) => Some(text),
            Some(Heard::Close(..)) | None => None,
        }
    }

    /// Waits for the close, over messages that come before it.
    pub(crate) fn close(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Some(Heard::Text(_)) => {}
                Some(Heard::Close(code, reason)) => {
                    let mut frame = Vec::new();
                    put_client_close(MASK, code, "", &mut frame);
                    self.send(&frame);
                    return (code, reason);
                }
                None => panic!("the connection ended without a close"),
            }
        }
    }

    fn next(&mut self) -> Option<Heard> {
        let mut piece = [0; 16 * 1024];
        loop {
            self.decode();
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            if self.ended {
                return None;
            }
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(got) => self.input.extend_from_slice(&piece[..got]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    self.ended = true;
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    fn decode(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        let mut pings = 0;
        loop {
            let limits = Limits { message_max: 1 << 26 };
            let step = self.decoder.next(&mut input[at..], Role::Client, limits).unwrap();
            match step.event {
                None => break,
                Some(Event::Text("{}")) => pings += 1,
                Some(Event::Text(text)) => self.heard.push_back(Heard::Text(text.to_owned())),
                Some(Event::Close(close)) => {
                    let (code, reason) = close.unwrap_or((1005, ""));
                    self.heard.push_back(Heard::Close(code, reason.to_owned()));
                }
                Some(_) => {}
            }
            at += step.consumed;
        }
        for _ in 0..pings {
            self.say("{}");
        }
    }
}
