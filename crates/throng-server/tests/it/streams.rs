//! The transports that are one long HTTP response.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::client::{Answer, api, dial, http, post, read_answer, request};
use crate::server::Server;

const OPEN: &str = "
uni_sse.enabled = true
uni_http_stream.enabled = true
sse.enabled = true
http_stream.enabled = true
init.enabled = true
client.allowed_origins = [\"https://page.example\"]
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
history_size = 10
history_ttl = \"60s\"
";
/// `{"subs":{"news":{}}}`
const NEWS: &str = "cf_connect=%7B%22subs%22%3A%7B%22news%22%3A%7B%7D%7D%7D";

/// A response that goes on.
struct Stream {
    socket: TcpStream,
    head: String,
    /// Read and not yet asked for.
    input: Vec<u8>,
    events: bool,
}

impl Stream {
    /// Sends a request, which must be answered with a stream.
    fn open(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut socket = dial(address);
        socket.write_all(bytes).unwrap();
        Self::answered(socket)
    }

    fn answered(mut socket: TcpStream) -> Self {
        let (answer, mut input) = read_answer(&mut socket);
        assert_eq!(answer.status, 200, "{answer:?}");
        let events = answer.head.contains("text/event-stream");
        if events {
            while input.len() < 2 {
                let mut some = [0; 2];
                let got = socket.read(&mut some).unwrap();
                input.extend_from_slice(&some[..got]);
            }
            assert_eq!(&input[..2], b"\r\n");
            input.drain(..2);
        }
        Self { socket, head: answer.head, input, events }
    }

    fn get(address: SocketAddr, target: &str) -> Self {
        let line = format!("GET {target}");
        Self::open(address, request(&line, &[("Host", "localhost")]).as_bytes())
    }

    fn post(address: SocketAddr, path: &str, body: &str) -> Self {
        let length = body.len().to_string();
        let head = request(&format!("POST {path}"), &[("Host", "a"), ("Content-Length", &length)]);
        Self::open(address, format!("{head}{body}").as_bytes())
    }

    /// The next message that is no ping; none at the end of the stream.
    fn next(&mut self) -> Option<String> {
        loop {
            let end: &[u8] = if self.events { b"\n\n" } else { b"\n" };
            if let Some(at) = self.input.windows(end.len()).position(|bytes| bytes == end) {
                let message: Vec<u8> = self.input.drain(..at + end.len()).collect();
                let message = String::from_utf8(message).unwrap();
                let message = message.trim_end_matches('\n');
                let message = if self.events {
                    message.strip_prefix("data: ").unwrap_or_else(|| panic!("{message:?}"))
                } else {
                    message
                };
                if message == "{}" {
                    continue;
                }
                return Some(message.to_owned());
            }
            let mut piece = [0; 16_384];
            match self.socket.read(&mut piece).unwrap() {
                0 => {
                    assert!(self.input.is_empty(), "the stream ended within a message");
                    return None;
                }
                got => self.input.extend_from_slice(&piece[..got]),
            }
        }
    }

    fn hear(&mut self) -> String {
        self.next().expect("the stream ended")
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn publish(server: &Server, data: &str) {
    api(server.address, "publish", &format!(r#"{{"channel":"news","data":{data}}}"#));
}

#[test]
fn an_event_source_needs_no_library() {
    let mut server = Server::start(OPEN);
    let mut plain = Stream::get(server.address, "/connection/uni_sse");
    assert!(json(&plain.hear())["connect"]["session"].is_string());
    let mut one = Stream::get(server.address, &format!("/connection/uni_sse?{NEWS}"));
    let connect = json(&one.hear());
    assert!(connect["connect"]["client"].is_string() && connect["connect"]["pong"].is_null());
    for field in [
        "Content-Type: text/event-stream; charset=utf-8",
        "Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0",
        "Pragma: no-cache",
        "X-Accel-Buffering: no",
        "Connection: close",
        "Date: ",
    ] {
        assert!(one.head.contains(field), "{field} is not in {}", one.head);
    }
    let mut two = Stream::post(server.address, "/connection/uni_sse", r#"{"subs":{"news":{}}}"#);
    two.hear();
    // Line breaks within a payload are no ends of an event.
    publish(&server, "{\r\n\"a\":\n1}");
    publish(&server, "2");
    for stream in [&mut one, &mut two] {
        assert_eq!(json(&stream.hear())["pub"]["data"]["a"], 1);
        assert_eq!(json(&stream.hear())["pub"]["data"], 2);
    }
    server.witness();
    api(server.address, "disconnect", r#"{"user":""}"#);
    let farewell = r#"{"disconnect":{"code":3503,"reason":"force disconnect"}}"#;
    for stream in [&mut one, &mut two, &mut plain] {
        assert_eq!(stream.hear(), farewell);
        assert_eq!(stream.next(), None);
    }
}

#[test]
fn lines_come_to_clients_of_http_1_0_too() {
    let server = Server::start(OPEN);
    let path = "/connection/uni_http_stream";
    let mut new = Stream::post(server.address, path, r#"{"subs":{"news":{}}}"#);
    assert!(new.head.contains("Content-Type: application/x-ndjson"), "{}", new.head);
    let body = r#"{"subs":{"news":{}}}"#;
    let old = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut old = Stream::open(server.address, old.as_bytes());
    for stream in [&mut new, &mut old] {
        assert!(json(&stream.hear())["connect"]["subs"]["news"].is_object());
    }
    publish(&server, "1");
    assert_eq!(new.hear(), old.hear());
    // A stream ends with its server, and is told why.
    server.stop();
    for stream in [&mut new, &mut old] {
        assert_eq!(
            stream.hear(),
            r#"{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}"#
        );
        assert_eq!(stream.next(), None);
    }
}

#[test]
fn what_comes_behind_the_request_is_ignored_and_its_end_ends_the_stream() {
    let mut server = Server::start(OPEN);
    let info = |clients: u32| format!(r#""num_clients":{clients},"#);
    server.becomes("info", "{}", &info(1));
    let get = request("GET /connection/uni_sse", &[("Host", "a")]);
    let mut stream = Stream::open(server.address, format!("{get}{get}").as_bytes());
    stream.hear();
    server.becomes("info", "{}", &info(2));
    let flood = get.repeat(10_000);
    stream.socket.write_all(flood.as_bytes()).unwrap();
    server.witness();
    stream.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.next(), None);
    server.becomes("info", "{}", &info(1));
    server.stop();
}

#[test]
fn what_is_no_request_for_a_stream_is_told_so() {
    let server = Server::start(&format!("uni_sse.max_request_body_size = 100\n{OPEN}"));
    let at = |method: &str, path: &str| {
        http(server.address, request(&format!("{method} {path}"), &[("Host", "a")]).as_bytes())
    };
    let answer = at("GET", "/connection/uni_http_stream");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: POST, OPTIONS"), "{}", answer.head);
    assert_eq!(at("PUT", "/connection/uni_sse").status, 405);
    let answer = at("GET", "/connection/uni_sse?cf_connect=%7B%22subs%22%3A1%7D");
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with("the connect request is not readable: byte "), "{answer:?}");
    assert_eq!(at("GET", "/connection/sse").status, 400);
    let answer = post(server.address, "/connection/uni_sse", &[], &[b' '; 101]);
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("uni_sse.max_request_body_size"), "{answer:?}");
    let protobuf = [("Content-Type", "application/octet-stream")];
    let answer = post(server.address, "/connection/uni_http_stream", &protobuf, b"\x00");
    assert!(answer.status == 400 && answer.body.contains("speaks JSON only"), "{answer:?}");
    server.stop();
    let server = Server::start("");
    let off = http(server.address, request("GET /connection/uni_sse", &[]).as_bytes());
    assert_eq!((off.status, off.body.as_str()), (404, "uni_sse.enabled is off\n"));
    server.stop();
}

#[test]
fn pages_of_allowed_origins_may_read_the_answers_and_others_get_none() {
    let server = Server::start(OPEN);
    let ask = |method: &str, path: &str, origin: &str| -> Answer {
        let headers = [
            ("Host", "a"),
            ("Origin", origin),
            ("Access-Control-Request-Headers", "x-one, x-two"),
            ("Content-Length", "0"),
        ];
        let mut socket = dial(server.address);
        socket.write_all(request(&format!("{method} {path}"), &headers).as_bytes()).unwrap();
        read_answer(&mut socket).0
    };
    let allows = |answer: &Answer| {
        let head = answer.head.to_ascii_lowercase();
        head.contains("access-control-allow-origin: https://page.example\r\n")
            && head.contains("access-control-allow-credentials: true\r\n")
            && head.contains("access-control-allow-headers: x-one, x-two\r\n")
            && head.contains("vary: origin\r\n")
    };
    for path in ["uni_sse", "uni_http_stream", "sse", "http_stream"] {
        let path = format!("/connection/{path}");
        let answer = ask("OPTIONS", &path, "https://page.example");
        assert!(answer.status == 204 && allows(&answer), "{path}: {answer:?}");
        assert!(answer.head.contains("access-control-max-age: 300"), "{answer:?}");
        let wrong = ask("DELETE", &path, "https://page.example");
        assert!(wrong.status == 405 && allows(&wrong), "{path}: {wrong:?}");
        for method in ["OPTIONS", "POST"] {
            let answer = ask(method, &path, "https://evil.example");
            let shown = answer.head.to_ascii_lowercase();
            assert!(answer.status == 403 && !shown.contains("access-control"), "{answer:?}");
        }
    }
    for (method, path) in [("GET", "/connection/uni_sse"), ("POST", "/connection/uni_http_stream")]
    {
        let answer = ask(method, path, "https://page.example");
        assert!(answer.status == 200 && allows(&answer), "{path}: {answer:?}");
    }
    server.stop();
}

#[test]
fn who_does_not_read_is_closed_with_3008_and_the_others_hear_on() {
    let mut server = Server::start(&format!("client.queue_max_size = 100000\n{OPEN}"));
    let mut slow = Stream::get(server.address, &format!("/connection/uni_sse?{NEWS}"));
    slow.hear();
    let mut quick = Stream::get(server.address, &format!("/connection/uni_sse?{NEWS}"));
    quick.hear();
    let long = format!("\"{}\"", "x".repeat(60_000));
    let mut published = 0;
    while !server.log().contains("3008") {
        assert!(published < 1000, "the kernel takes everything");
        publish(&server, &long);
        assert_eq!(json(&quick.hear())["pub"]["data"].as_str().unwrap().len(), 60_000);
        published += 1;
    }
    server.witness();
    server.stop();
}

/// The stream of a client that has connected, and its session and node.
fn emulated(address: SocketAddr, transport: &str) -> (Stream, Value) {
    let body = r#"{"id":1,"connect":{}}"#;
    let mut stream = Stream::post(address, &format!("/connection/{transport}"), body);
    let reply = json(&stream.hear());
    assert!(reply["id"] == 1 && reply["connect"]["pong"] == true, "{reply}");
    let at = reply["connect"].clone();
    assert_eq!(at["session"].as_str().unwrap().len(), 36);
    (stream, at)
}

/// Says commands for a client. Returns the status.
fn say(address: SocketAddr, at: &Value, data: &str) -> u16 {
    let body = serde_json::json!({ "session": at["session"], "node": at["node"], "data": data });
    post(address, "/emulation", &[], body.to_string().as_bytes()).status
}

#[test]
fn what_is_said_at_emulation_reaches_its_session_in_order() {
    let mut server = Server::start(OPEN);
    for transport in ["sse", "http_stream"] {
        let (mut stream, at) = emulated(server.address, transport);
        let (mut other, others) = emulated(server.address, transport);
        assert_eq!(say(server.address, &at, r#"{"id":2,"subscribe":{"channel":"news"}}"#), 204);
        assert!(json(&stream.hear())["subscribe"].is_object());
        // More than one turn's share, in requests of several commands.
        let mut id = 3;
        for _ in 0..30 {
            let lines: Vec<String> = (0..10)
                .map(|more| {
                    let id = id + more;
                    let publish = format!(r#"{{"channel":"news","data":{id}}}"#);
                    format!(r#"{{"id":{id},"publish":{publish}}}"#)
                })
                .collect();
            id += 10;
            assert_eq!(say(server.address, &at, &lines.join("\n")), 204);
        }
        let (mut replies, mut pushes) = (Vec::new(), Vec::new());
        while replies.len() + pushes.len() < 600 {
            let message = json(&stream.hear());
            match message["id"].as_u64() {
                Some(id) => replies.push(id),
                None => pushes.push(message["push"]["pub"]["data"].as_u64().unwrap()),
            }
        }
        let all: Vec<u64> = (3..303).collect();
        assert_eq!((&replies, &pushes), (&all, &all));
        // A bad command ends the session that it is for, and tells it why.
        assert_eq!(say(server.address, &at, "nonsense"), 204);
        let farewell = json(&stream.hear());
        assert_eq!(farewell["push"]["disconnect"]["code"], 3501, "{farewell}");
        assert_eq!(stream.next(), None);
        assert_eq!(say(server.address, &at, "{}"), 204, "who is gone is not told from nobody");
        server.witness();
        let disconnect = serde_json::json!({ "user": "", "session": others["session"] });
        api(server.address, "disconnect", &disconnect.to_string());
        assert_eq!(json(&other.hear())["push"]["disconnect"]["code"], 3503);
        assert_eq!(other.next(), None);
    }
    server.stop();
}

#[test]
fn what_is_wrong_with_a_request_to_emulation_is_told() {
    let server = Server::start(&format!("emulation.max_request_body_size = 1000\n{OPEN}"));
    let (mut stream, at) = emulated(server.address, "sse");
    let (_, other) = emulated(server.address, "sse");
    assert!(at["session"] != other["session"] && at["node"] == other["node"]);
    let nobody = serde_json::json!({ "session": "f0000000-0000-4000-8000-000000000000" });
    assert_eq!(say(server.address, &nobody, "{}"), 400, "null is no node");
    let nobody = serde_json::json!({ "session": nobody["session"], "node": at["node"] });
    assert_eq!(say(server.address, &nobody, "{}"), 204);
    // Half of a secret is none of it.
    let (half, _) = at["session"].as_str().unwrap().split_at(19);
    let guessed = format!("{half}0000-000000000000");
    let guessed = serde_json::json!({ "session": guessed, "node": at["node"] });
    assert_eq!(say(server.address, &guessed, r#"{"id":9,"rpc":{"method":"x"}}"#), 204);
    let unreadable = serde_json::json!({ "session": "x", "node": "" });
    assert_eq!(say(server.address, &unreadable, "{}"), 204);
    let elsewhere = serde_json::json!({ "session": at["session"], "node": "another" });
    assert_eq!(say(server.address, &elsewhere, "{}"), 404);
    let send = |body: &[u8]| post(server.address, "/emulation", &[], body);
    for body in ["", "[]", r#"{"session":"a"}"#, r#"{"session":1,"data":"{}"}"#] {
        let answer = send(body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.starts_with("the body does not hold session, node"), "{answer:?}");
    }
    assert_eq!(send(&[b' '; 1001]).status, 413);
    let protobuf = [("Content-Type", "application/octet-stream")];
    let answer = post(server.address, "/emulation", &protobuf, b"\x00");
    assert!(answer.status == 400 && answer.body.contains("byte 1: is no number"), "{answer:?}");
    let ask = |line: &str| http(server.address, request(line, &[("Host", "a")]).as_bytes());
    assert_eq!(ask("GET /emulation").status, 405);
    assert_eq!(ask("GET /connection/init").status, 204);
    assert_eq!(ask("POST /connection/init").status, 405);
    // None of it was for the one who is here.
    assert_eq!(say(server.address, &at, r#"{"id":2,"rpc":{"method":"x"}}"#), 204);
    let reply = json(&stream.hear());
    assert!(reply["id"] == 2 && reply["error"]["code"] == 108, "{reply}");
    server.stop();
    let server = Server::start("uni_sse.enabled = true");
    let off = post(server.address, "/emulation", &[], b"{}");
    assert_eq!(off.status, 404, "{off:?}");
    server.stop();
}
