//! permessage-deflate (RFC 7692) over real sockets: what is agreed on, what is compressed then, and what
//! becomes of those who send what they should not.
//!
//! Payloads are compressed and inflated here with the same library, but frames are read by hand, so that
//! what is on the wire is seen.

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use throng_wire::websocket::{Opcode, put_client_frame};

use crate::client::{Client, HANDSHAKE, SOCKET, api, dial, http, read_answer, request};
use crate::server::Server;

const OPEN: &str = "
websocket.compression = true
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
const OFFER: (&str, &str) =
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
const PROTOBUF: (&str, &str) = ("Sec-WebSocket-Protocol", "centrifuge-protobuf");
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const DEFLATED: u8 = 0x40;

/// A frame as it came: its first byte, and its payload.
type Frame = (u8, Vec<u8>);

/// A client that sees frames.
struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    /// One that was let in with these headers; and the head of the answer.
    fn upgrade(server: &Server, path: &str, headers: &[(&str, &str)]) -> (Self, String) {
        let mut stream = dial(server.address);
        let all = [HANDSHAKE, headers].concat();
        stream.write_all(request(&format!("GET {path}"), &all).as_bytes()).unwrap();
        let (answer, input) = read_answer(&mut stream);
        assert_eq!(answer.status, 101, "{answer:?}");
        (Self { stream, input }, answer.head)
    }

    /// One that has agreed on compression and subscribes to `news`.
    fn deflated(server: &Server) -> Self {
        let (mut wire, head) = Self::upgrade(server, SOCKET, &[OFFER]);
        assert!(head.contains("Sec-WebSocket-Extensions: permessage-deflate;"), "{head}");
        wire.say(TEXT, br#"{"id":1,"connect":{}}"#);
        wire.say(TEXT, br#"{"id":2,"subscribe":{"channel":"news"}}"#);
        assert!(wire.text().contains(r#""id":1"#));
        assert!(wire.text().contains(r#""id":2"#));
        wire
    }

    /// Says one frame with this first byte.
    fn say(&mut self, first: u8, payload: &[u8]) {
        let mut frame = Vec::new();
        put_client_frame(Opcode::Text, [7, 1, 0, 200], payload, &mut frame);
        frame[0] = first;
        self.stream.write_all(&frame).unwrap();
    }

    fn frame(&mut self) -> Frame {
        loop {
            let (head, len) = match self.input[..] {
                [_, 126, high, low, ..] => (4, usize::from(high) << 8 | usize::from(low)),
                [_, len @ ..=125, ..] => (2, usize::from(len)),
                [_, 127, ..] => panic!("nothing here is so long"),
                _ => (2, usize::MAX),
            };
            if self.input.len().checked_sub(head).is_some_and(|there| there >= len) {
                let rest = self.input.split_off(head + len);
                let frame = std::mem::replace(&mut self.input, rest);
                return (frame[0], frame[head..].to_vec());
            }
            let mut piece = [0; 16_384];
            let got = self.stream.read(&mut piece).unwrap();
            assert!(got > 0, "the connection ended");
            self.input.extend_from_slice(&piece[..got]);
        }
    }

    /// The next message, inflated if it was compressed.
    fn text(&mut self) -> String {
        let (first, payload) = self.frame();
        String::from_utf8(if first & DEFLATED > 0 { inflated(&payload) } else { payload }).unwrap()
    }

    /// The code of the close, which is the next thing.
    fn closed(&mut self) -> u16 {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88, "{}", String::from_utf8_lossy(&payload));
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + 100);
    let mut compress = Compress::new(Compression::new(9), false);
    compress.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    payload
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 << 20);
    let mut decompress = Decompress::new(false);
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    decompress.decompress_vec(&whole, &mut message, FlushDecompress::Sync).unwrap();
    message
}

/// A publish command that compresses well; its data is so many words.
fn publish(id: u32, words: usize) -> String {
    let data = "compressible ".repeat(words);
    format!(r#"{{"id":{id},"publish":{{"channel":"news","data":"{data}"}}}}"#)
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let server = Server::start("");
    let (mut wire, head) = Wire::upgrade(&server, SOCKET, &[OFFER]);
    assert!(!head.to_ascii_lowercase().contains("sec-websocket-extensions"), "{head}");
    wire.say(TEXT | DEFLATED, &deflated(br#"{"id":1,"connect":{}}"#));
    assert_eq!(wire.closed(), 1002);
    // Nobody looks at a header that means nothing then.
    let (_, head) = Wire::upgrade(&server, SOCKET, &[("Sec-WebSocket-Extensions", "=;=")]);
    assert!(!head.to_ascii_lowercase().contains("sec-websocket-extensions"), "{head}");
    server.stop();
}

#[test]
fn who_offers_nothing_or_what_cannot_be_is_served_as_always() {
    let server = Server::start(OPEN);
    for headers in [
        &[][..],
        &[("Sec-WebSocket-Extensions", "")],
        &[("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=8")],
    ] {
        let (mut wire, head) = Wire::upgrade(&server, SOCKET, headers);
        assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
        wire.say(TEXT, br#"{"id":1,"connect":{}}"#);
        assert_eq!(wire.frame().0, TEXT);
    }
    let two = [
        ("Sec-WebSocket-Extensions", "bzip, permessage-deflate; unknown"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=10"),
    ];
    let (_, head) = Wire::upgrade(&server, SOCKET, &two);
    let answer = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                  client_no_context_takeover; server_max_window_bits=9\r\n";
    assert!(head.contains(answer), "{head}");
    let malformed = [HANDSHAKE, &[("Sec-WebSocket-Extensions", "permessage-deflate;")]].concat();
    let answer = http(server.address, request(&format!("GET {SOCKET}"), &malformed).as_bytes());
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Sec-WebSocket-Extensions"), "{answer:?}");
    server.stop();
}

#[test]
fn what_gets_shorter_is_compressed_for_who_agreed_on_it_and_for_nobody_else() {
    let server = Server::start(OPEN);
    let mut wire = Wire::deflated(&server);
    let (mut plain, _) = Client::connected(server.address, "");
    plain.say(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    plain.hear();
    // One with a window smaller than the usual is sent publications as they are, and replies not.
    let small = ("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=9");
    let (mut small, _) = Wire::upgrade(&server, SOCKET, &[small]);
    small.say(TEXT, br#"{"id":1,"connect":{}}"#);
    small.say(TEXT, br#"{"id":2,"subscribe":{"channel":"news"}}"#);
    small.text();
    small.text();
    // In Protobuf, on the same channel.
    let (mut binary, _) = Wire::upgrade(&server, SOCKET, &[OFFER, PROTOBUF]);
    binary.say(BINARY, b"\x04\x08\x01\x22\x00");
    binary.say(BINARY, b"\x0a\x08\x02\x2a\x06\x0a\x04news");
    assert_eq!((binary.frame().0 | DEFLATED, binary.frame().0), (0xc2, BINARY));

    let data = "compressible ".repeat(200);
    api(server.address, "publish", &format!(r#"{{"channel":"news","data":"{data}"}}"#));
    let (first, payload) = wire.frame();
    assert_eq!(first, TEXT | DEFLATED);
    assert!(payload.len() < 200, "{} bytes", payload.len());
    let heard = plain.hear();
    assert!(heard.contains(&data));
    assert_eq!(String::from_utf8(inflated(&payload)).unwrap(), heard);
    let (first, payload) = small.frame();
    assert_eq!((first, String::from_utf8(payload).unwrap()), (TEXT, heard));
    let (first, payload) = binary.frame();
    assert_eq!(first, BINARY | DEFLATED);
    let message = inflated(&payload);
    assert!(message.windows(data.len()).any(|window| window == data.as_bytes()));

    // What is short stays as it is; so does what does not get shorter.
    api(server.address, "publish", r#"{"channel":"news","data":"x"}"#);
    assert_eq!(wire.frame().0, TEXT);
    // A reply is compressed with the window of who asked.
    for wire in [&mut wire, &mut small] {
        wire.say(TEXT, br#"{"id":3,"history":{"channel":"news","limit":5}}"#);
        let (first, payload) = loop {
            match wire.frame() {
                (TEXT, _) => {}
                other => break other,
            }
        };
        assert_eq!(first, TEXT | DEFLATED);
        assert!(String::from_utf8(inflated(&payload)).unwrap().contains(&data));
    }
    server.stop();
}

#[test]
fn what_comes_compressed_is_inflated_whole_and_in_fragments() {
    let server = Server::start(OPEN);
    let mut wire = Wire::deflated(&server);
    wire.say(TEXT | DEFLATED, &deflated(publish(3, 2000).as_bytes()));
    let said = [wire.text(), wire.text()];
    assert!(said.iter().any(|text| text.contains(&"compressible ".repeat(2000))));
    assert!(said.iter().any(|text| text.contains(r#""id":3"#)));
    // In three frames, with a ping between them.
    let payload = deflated(publish(4, 100).as_bytes());
    wire.say(0x01 | DEFLATED, &payload[..5]);
    wire.say(0x89, b"there?");
    wire.say(0x00, &payload[5..11]);
    wire.say(0x80, &payload[11..]);
    assert_eq!(wire.frame(), (0x8a, b"there?".to_vec()));
    let said = [wire.text(), wire.text()];
    assert!(said.iter().any(|text| text.contains(r#""id":4"#)), "{said:?}");
    // A plain one is as good, and one that is empty as bad as ever.
    wire.say(TEXT, publish(5, 1).as_bytes());
    wire.text();
    wire.text();
    wire.say(TEXT | DEFLATED, &[0]);
    assert_eq!(wire.closed(), 3501);
    server.stop();
}

#[test]
fn a_bomb_is_closed_with_1009_and_what_is_no_compression_with_1007() {
    let mut server = Server::start(OPEN);
    // Ten times websocket.message_size_limit, which is 65,536.
    let mut wire = Wire::deflated(&server);
    wire.say(TEXT | DEFLATED, &deflated(&vec![b' '; 655_361]));
    assert_eq!(wire.closed(), 1009);
    server.logged("more than websocket.decompressed_message_size_limit, which is 655360");
    let bomb = deflated(&vec![b' '; 60 << 20]);
    assert!(bomb.len() < 65_536, "{} bytes travel", bomb.len());
    let mut wire = Wire::deflated(&server);
    wire.say(TEXT | DEFLATED, &bomb);
    assert_eq!(wire.closed(), 1009);
    for (first, payload, code) in [
        (TEXT | DEFLATED, &b"not compressed"[..], 1007),
        (TEXT | DEFLATED, &deflated(b"\xff\xfe in quite a long text"), 1007),
        (0x89 | DEFLATED, b"", 1002),
        (0x80 | DEFLATED, b"", 1002),
        (TEXT | 0x20, b"", 1002),
    ] {
        let mut wire = Wire::deflated(&server);
        wire.say(first, payload);
        assert_eq!(wire.closed(), code, "{first:#x}");
    }
    server.witness();
    server.stop();
}

#[test]
fn limits_and_sizes_are_as_they_are_set() {
    let server = Server::start(&OPEN.replace(
        "websocket.compression = true",
        "
websocket.compression = true
websocket.compression_min_size = 1000
websocket.compression_level = 9
websocket.message_size_limit = 500
websocket.decompressed_message_size_limit = 2000
uni_websocket.enabled = true
uni_websocket.compression = true
",
    ));
    let mut wire = Wire::deflated(&server);
    wire.say(TEXT | DEFLATED, &deflated(publish(3, 100).as_bytes()));
    let mut firsts = [wire.frame().0, wire.frame().0];
    firsts.sort_unstable();
    // The publication of 1,300 bytes, and the short reply.
    assert_eq!(firsts, [TEXT, TEXT | DEFLATED]);
    wire.say(TEXT, publish(4, 20).as_bytes());
    assert_eq!([wire.frame().0, wire.frame().0], [TEXT; 2]);
    // In plain text not even that may travel.
    wire.say(TEXT, publish(5, 100).as_bytes());
    assert_eq!(wire.closed(), 1009);
    let mut wire = Wire::deflated(&server);
    wire.say(TEXT | DEFLATED, &deflated(publish(3, 200).as_bytes()));
    assert_eq!(wire.closed(), 1009);

    let (mut uni, head) = Wire::upgrade(&server, "/connection/uni_websocket", &[OFFER]);
    assert!(head.contains("Sec-WebSocket-Extensions: permessage-deflate;"), "{head}");
    uni.say(TEXT | DEFLATED, &deflated(br#"{"subs":{"news":{}}}"#));
    assert!(uni.text().contains(r#""connect""#));
    api(server.address, "publish", &format!(r#"{{"channel":"news","data":"{}"}}"#, "a".repeat(99)));
    let (first, payload) = uni.frame();
    assert_eq!(first, TEXT | DEFLATED);
    assert!(String::from_utf8(inflated(&payload)).unwrap().contains(&"a".repeat(99)));
    server.stop();
}
