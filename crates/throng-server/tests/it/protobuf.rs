//! Protobuf beside JSON: over a WebSocket, over an HTTP stream, and in one channel together.
//!
//! Messages are written by hand here, so that the codec is not its own witness; that the official
//! SDK understands what it is answered is another test's matter.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use throng_wire::websocket::{Decoder, Event, Limits, Opcode, Role, put_client_frame};

use crate::client::{Client, HANDSHAKE, api, dial, post, read_answer, request};
use crate::server::Server;

const OPEN: &str = "
http_stream.enabled = true
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
history_size = 10
history_ttl = \"60s\"
";
const PROTOBUF: (&str, &str) = ("Sec-WebSocket-Protocol", "centrifuge-protobuf");

/// A field of bytes, a text or a message, whose length is one byte.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn delimited(message: &[u8]) -> Vec<u8> {
    [&[u8::try_from(message.len()).unwrap()][..], message].concat()
}

/// A command: its id, the request's number, and its fields.
fn command(id: u8, number: u8, fields: &[u8]) -> Vec<u8> {
    delimited(&[&[8, id][..], &field(number, fields)].concat())
}

fn publish(id: u8, channel: &str, data: &[u8]) -> Vec<u8> {
    command(id, 7, &[field(1, channel.as_bytes()), field(2, data)].concat())
}

/// The message behind its length, and the size of both; none where it is not whole yet.
fn undelimited(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (len, head) = match bytes {
        [low @ 0x80..=0xff, high, ..] => (usize::from(low & 0x7f) + usize::from(*high) * 128, 2),
        [len, ..] => (usize::from(*len), 1),
        [] => return None,
    };
    Some((bytes.get(head..head + len)?.to_vec(), head + len))
}

fn holds(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}

/// A client that speaks Protobuf on a WebSocket.
struct Binary {
    stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
}

impl Binary {
    fn upgrade(server: &Server, path: &str, headers: &[(&str, &str)]) -> (Self, String) {
        let mut stream = dial(server.address);
        let all = [HANDSHAKE, headers].concat();
        stream.write_all(request(&format!("GET {path}"), &all).as_bytes()).unwrap();
        let (answer, input) = read_answer(&mut stream);
        assert_eq!(answer.status, 101, "{answer:?}");
        (Self { stream, decoder: Decoder::new(), input }, answer.head)
    }

    fn connected(server: &Server) -> Self {
        let (mut client, head) = Self::upgrade(server, "/connection/websocket", &[PROTOBUF]);
        assert!(head.contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"), "{head}");
        client.say(&command(1, 4, b""));
        let reply = client.hear();
        assert_eq!(reply[..3], [8, 1, 0x2a], "{reply:?}");
        client
    }

    fn say(&mut self, frame: &[u8]) {
        let mut bytes = Vec::new();
        put_client_frame(Opcode::Binary, [1, 2, 3, 4], frame, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message, which is alone in its frame.
    fn hear(&mut self) -> Vec<u8> {
        match self.next() {
            Ok(message) => message,
            Err(code) => panic!("closed with {code}"),
        }
    }

    /// The same, or the code of the close.
    fn next(&mut self) -> Result<Vec<u8>, u16> {
        loop {
            let limits = Limits { message_max: 1 << 20 };
            let step = self.decoder.next(&mut self.input, Role::Client, limits).unwrap();
            let heard = match step.event {
                Some(Event::Binary(frame)) => Some(Ok(frame.to_vec())),
                Some(Event::Close(close)) => Some(Err(close.unwrap().0)),
                Some(other) => panic!("{other:?}"),
                None => None,
            };
            let consumed = step.consumed;
            self.input.drain(..consumed);
            match heard {
                Some(Ok(frame)) => {
                    let (message, size) = undelimited(&frame).unwrap();
                    assert_eq!(size, frame.len(), "{frame:?}");
                    return Ok(message);
                }
                Some(Err(code)) => return Err(code),
                None => {}
            }
            let mut piece = [0; 4096];
            let got = self.stream.read(&mut piece).unwrap();
            assert!(got > 0, "the connection ended");
            self.input.extend_from_slice(&piece[..got]);
        }
    }
}

#[test]
fn both_encodings_share_a_channel() {
    let server = Server::start(OPEN);
    let mut binary = Binary::connected(&server);
    binary.say(&command(2, 5, &field(1, b"news")));
    let reply = binary.hear();
    assert!(reply.starts_with(&[8, 2, 0x32]), "{reply:?}");
    let (mut text, _) = Client::connected(server.address, "");
    text.say(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    text.hear();

    // What is JSON is the same in both, whoever says it.
    text.say(r#"{"id":3,"publish":{"channel":"news","data":{"a":1}}}"#);
    assert!(holds(&binary.hear(), &field(4, br#"{"a":1}"#)));
    let heard: Vec<Value> = (0..2).map(|_| serde_json::from_str(&text.hear()).unwrap()).collect();
    let push = heard.iter().find(|each| each["push"].is_object()).unwrap();
    assert_eq!(push["push"]["pub"]["data"], json!({ "a": 1 }));
    binary.say(&publish(3, "news", b"[2]"));
    let (push, reply) = (binary.hear(), binary.hear());
    assert!(holds(&push, &field(4, b"[2]")) || holds(&reply, &field(4, b"[2]")));
    let push: Value = serde_json::from_str(&text.hear()).unwrap();
    assert_eq!(push["push"]["pub"]["data"], json!([2]));

    // What is not is base64 for those who hear JSON, and itself for the others.
    binary.say(&publish(4, "news", b"\x00\xff{"));
    let (push, reply) = (binary.hear(), binary.hear());
    let wanted = field(4, b"\x00\xff{");
    assert!(holds(&push, &wanted) || holds(&reply, &wanted), "{push:?} {reply:?}");
    let push: Value = serde_json::from_str(&text.hear()).unwrap();
    assert_eq!(push["push"]["pub"]["data"], "AP97");
    let kept = api(server.address, "history", r#"{"channel":"news","limit":10}"#);
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["result"]["publications"][2]["data"], "AP97");
    binary.say(&command(5, 10, &[field(1, b"news"), vec![0x38, 10]].concat()));
    assert!(holds(&binary.hear(), &wanted));

    // And so for what a backend publishes.
    api(server.address, "publish", r#"{"channel":"news","b64data":"AQI="}"#);
    assert!(holds(&binary.hear(), &field(4, &[1, 2])));
    let push: Value = serde_json::from_str(&text.hear()).unwrap();
    assert_eq!(push["push"]["pub"]["data"], "AQI=");
    server.stop();
}

#[test]
fn several_commands_in_one_frame_are_answered_in_order() {
    let server = Server::start(OPEN);
    let (mut client, head) = Binary::upgrade(&server, "/connection/websocket?format=protobuf", &[]);
    assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}");
    let frame =
        [command(1, 4, b""), command(2, 5, &field(1, b"a")), command(3, 6, &field(1, b"a"))];
    client.say(&frame.concat());
    let ids: Vec<u8> = (0..3).map(|_| client.hear()[1]).collect();
    assert_eq!(ids, [1, 2, 3]);
    server.stop();
}

#[test]
fn what_is_no_command_closes_as_the_protocol_says() {
    let server = Server::start(OPEN);
    for frame in [&b""[..], b"\x05", b"\xff\xff", b"{\"id\":2}", &command(2, 5, b"\x0a\x01\xff")] {
        let mut client = Binary::connected(&server);
        client.say(frame);
        assert_eq!(client.next(), Err(3501), "{frame:?}");
    }
    server.logged("a command is not readable: byte");
    // An answer to a ping that was not sent.
    let mut client = Binary::connected(&server);
    client.say(b"\x00");
    assert_eq!(client.next(), Err(3501));
    server.stop();
}

#[test]
fn pings_are_one_byte() {
    let server =
        Server::without_witness("client.ping_interval = \"1s\"\nclient.pong_timeout = \"900ms\"");
    let mut client = Binary::connected(&server);
    assert_eq!(client.hear(), b"");
    client.say(b"\x00");
    assert_eq!(client.hear(), b"");
    // Who does not answer is closed.
    assert_eq!(client.next(), Err(3012));
    server.stop();
}

#[test]
fn an_http_stream_speaks_it_too() {
    let server = Server::start(OPEN);
    let body = command(1, 4, b"");
    let mut socket = dial(server.address);
    let length = body.len().to_string();
    let headers =
        [("Host", "a"), ("Content-Type", "application/octet-stream"), ("Content-Length", &*length)];
    let head = request("POST /connection/http_stream", &headers);
    socket.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let (answer, mut input) = read_answer(&mut socket);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut hear = || {
        loop {
            if let Some((message, size)) = undelimited(&input) {
                input.drain(..size);
                return message;
            }
            let mut piece = [0; 1024];
            let got = socket.read(&mut piece).unwrap();
            assert!(got > 0, "the stream ended");
            input.extend_from_slice(&piece[..got]);
        }
    };
    let reply = hear();
    // ConnectResult: session is field 9, node field 10.
    let at = |number: u8| {
        let start = reply.windows(2).rposition(|two| two == [number << 3 | 2, 36]).unwrap();
        reply[start + 2..start + 38].to_vec()
    };
    let (session, node) = (at(9), at(10));
    let say = |node: &[u8], data: &[u8]| {
        let body = [field(1, node), field(2, &session), field(3, data)].concat();
        let kind = [("Content-Type", "application/octet-stream")];
        post(server.address, "/emulation", &kind, &body).status
    };
    assert_eq!(say(&node, &command(2, 5, &field(1, b"news"))), 204);
    let reply = hear();
    assert!(reply.starts_with(&[8, 2, 0x32]), "{reply:?}");
    assert_eq!(say(b"another", b""), 404);
    api(server.address, "publish", r#"{"channel":"news","data":"hi"}"#);
    assert!(holds(&hear(), &field(4, br#""hi""#)));
    // What cannot be read ends the stream, and says so before.
    assert_eq!(say(b"", b"\x05"), 204);
    let farewell = hear();
    assert!(holds(&farewell, &[8, 0xad, 0x1b]) && holds(&farewell, b"bad request"), "{farewell:?}");
    server.stop();
}
