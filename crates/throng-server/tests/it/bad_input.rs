//! Everything a stranger may send: each is answered or closed as the protocol says, and nobody
//! else is touched.

use std::io::{Read, Write};

use throng_wire::websocket::{Opcode, put_client_frame};

use crate::client::{Client, HANDSHAKE, SOCKET, api, dial, http, post, request};
use crate::server::{KEY, Server};

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    HANDSHAKE.iter().copied().filter(|(each, _)| *each != name).collect()
}

#[test]
fn malformed_http_is_answered_or_dropped() {
    let mut server = Server::start("");
    for bytes in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /connection/websocket HTTP/1.1\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
    ] {
        let answer = http(server.address, bytes.as_bytes());
        assert!((400..=505).contains(&answer.status), "{bytes:?}: {answer:?}");
        server.witness();
    }
    server.logged("400 a request was refused: what came is not a request of HTTP");
    let many: Vec<(&str, &str)> = (0..200).map(|_| ("X-Many", "1")).collect();
    assert_eq!(http(server.address, request("GET /", &many).as_bytes()).status, 431);
    let long = "x".repeat(40_000);
    let answer = http(server.address, request(&format!("GET /{long}"), &[]).as_bytes());
    assert!([414, 431].contains(&answer.status), "{answer:?}");
    assert_eq!(http(server.address, request("GET /nothing", &[]).as_bytes()).status, 404);
    // Gone in the middle of a request.
    let mut stream = dial(server.address);
    stream.write_all(b"GET / HTTP/1.1\r\nHos").unwrap();
    drop(stream);
    server.stop();
}

#[test]
fn a_handshake_that_is_none_is_told_why() {
    let server = Server::start("");
    let ask = |line: &str, headers: &[(&str, &str)]| {
        http(server.address, request(line, headers).as_bytes())
    };
    let get = format!("GET {SOCKET}");
    for missing in ["Upgrade", "Connection"] {
        let answer = ask(&get, &without(missing));
        assert_eq!(answer.status, 426);
        assert!(answer.body.contains("proxy_set_header Upgrade $http_upgrade;"), "{answer:?}");
        assert!(answer.head.to_ascii_lowercase().contains("upgrade: websocket"), "{answer:?}");
    }
    assert_eq!(
        ask(&format!("POST {SOCKET}"), &[HANDSHAKE, &[("Content-Length", "0")]].concat()).status,
        426
    );
    let answer = ask(&get, &without("Sec-WebSocket-Version"));
    assert_eq!(answer.status, 426);
    assert!(answer.head.to_ascii_lowercase().contains("sec-websocket-version: 13"), "{answer:?}");
    let old = [without("Sec-WebSocket-Version"), vec![("Sec-WebSocket-Version", "8")]].concat();
    assert_eq!(ask(&get, &old).status, 426);
    assert_eq!(ask(&get, &without("Sec-WebSocket-Key")).status, 400);
    for key in ["short", "dGhlIHNhbXBsZSBub25jZQ", "!!!!!!!!!!!!!!!!!!!!!!=="] {
        let headers = [without("Sec-WebSocket-Key"), vec![("Sec-WebSocket-Key", key)]].concat();
        assert_eq!(ask(&get, &headers).status, 400, "{key}");
    }
    server.stop();
}

#[test]
fn a_page_from_elsewhere_is_refused_and_the_log_says_what_to_add() {
    let server = Server::start(r#"client.allowed_origins = ["https://*.example.com"]"#);
    let from = |origin: &str| {
        Client::upgrade(server.address, SOCKET, &[("Origin", origin)], b"").map(drop)
    };
    assert!(from("https://a.example.com").is_ok());
    for origin in ["https://evil.org", "null", "https://example.com.evil.org", "x\u{1f}y"] {
        let status = from(origin).unwrap_err().status;
        assert!([400, 403].contains(&status), "{origin}: {status}");
    }
    server
        .logged("403 a page of https://evil.org was refused: it is not in client.allowed_origins");
    server.stop();
}

#[test]
fn subprotocols_are_told_apart() {
    let server = Server::start("uni_websocket.enabled = true");
    let name = "Sec-WebSocket-Protocol";
    let offer = |value: &str| Client::upgrade(server.address, SOCKET, &[(name, value)], b"");
    assert!(offer("").is_ok());
    assert!(offer("centrifuge-json").is_ok());
    assert!(offer("something-else").is_ok());
    assert!(offer("centrifuge-protobuf, centrifuge-json").is_ok());
    let answer = Client::upgrade(
        server.address,
        "/connection/uni_websocket",
        &[(name, "centrifuge-protobuf")],
        b"",
    );
    let answer = answer.err().unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("speaks JSON only"), "{answer:?}");
    server.stop();
}

#[test]
fn frames_that_break_websocket_are_closed_with_its_codes() {
    let mut server = Server::start("websocket.message_size_limit = 1000");
    let mut unmasked = Vec::new();
    throng_wire::websocket::put_frame(Opcode::Text, b"{}", &mut unmasked);
    let mut large = Vec::new();
    put_client_frame(Opcode::Text, [0; 4], &[b' '; 1001], &mut large);
    let mut not_utf8 = Vec::new();
    put_client_frame(Opcode::Text, [0; 4], &[0xff], &mut not_utf8);
    for (bytes, code) in [
        (unmasked.as_slice(), 1002),
        (&[0xf1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1002),
        (&[0x88, 0x81, 0, 0, 0, 0, 0], 1002),
        (&large, 1009),
        (&not_utf8, 1007),
    ] {
        let (mut client, _) = Client::connected(server.address, "");
        client.send(bytes);
        assert_eq!(client.close().0, code, "{bytes:?}");
        server.witness();
    }
    server.logged("1009 a message is larger than websocket.message_size_limit, which is 1000");
    server.logged("1002 the client broke WebSocket's rules: client frame is not masked");
    server.stop();
}

#[test]
fn commands_that_are_none_close_with_3501() {
    let mut server = Server::start("");
    for text in [
        "",
        "x",
        "[]",
        "1",
        "null",
        "{",
        "{\"id\":-1}",
        "{\"id\":1e99}",
        "{\"id\":2,\"ping\":{}}",
        "{\"id\":2,\"subscribe\":[]}",
        "{\"id\":2,\"subscribe\":{\"channel\":7}}",
        "{}{",
        "\u{0}",
        "{\"id\":2,\"connect\":{}}",
        "{\"id\":2,\"subscribe\":{}}",
        "{\"id\":2,\"publish\":{}}",
    ] {
        let (mut client, _) = Client::connected(server.address, "");
        client.say(text);
        assert_eq!(client.close().0, 3501, "{text:?}");
        server.witness();
    }
    let mut deep = "[".repeat(30_000);
    deep.insert_str(0, r#"{"id":2,"publish":{"channel":"witness:all","data":"#);
    let (mut client, _) = Client::connected(server.address, "");
    client.say(&deep);
    assert_eq!(client.close().0, 3501);
    let mut client = Client::connect(server.address);
    client.say(r#"{"id":1,"connect":"SECRET"}"#);
    assert_eq!(client.close().0, 3501);
    server.logged("3501 a command is not readable");
    assert!(!server.stop().contains("SECRET"));
}

#[test]
fn tokens_that_are_none_close_with_3500_and_stay_out_of_the_log() {
    let mut server = Server::start("");
    for token in [
        "SECRETx",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
        "eyJhbGciOiJIUzI1NiJ9.e30.SECRET",
    ] {
        let mut client = Client::connect(server.address);
        client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        assert_eq!(client.close().0, 3500, "{token}");
        server.witness();
    }
    server.logged("3500 the connection token is invalid");
    assert!(!server.stop().contains("SECRET"));
}

#[test]
fn channels_that_are_none_and_too_many_are_errors() {
    let mut server = Server::start(
        "client.channel_limit = 3\n[channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true",
    );
    let (mut client, _) = Client::connected(server.address, "");
    let long = "x".repeat(256);
    for (channel, code) in
        [("nwes:a", 102), ("a*", 107), ("caf\u{e9}", 107), (long.as_str(), 107), ("$a", 103)]
    {
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        let reply = client.hear();
        assert!(reply.starts_with(&format!(r#"{{"id":2,"error":{{"code":{code},"#)), "{reply}");
    }
    for number in 0..4 {
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"c{number}"}}}}"#));
        assert_eq!(client.hear().contains("\"code\":106"), number == 3);
    }
    client.say(r#"{"id":3,"publish":{"channel":"nwes:a","data":1}}"#);
    assert!(client.hear().contains("\"code\":102"));
    server.logged("103 $a: no subscription token, and a channel beginning with channel.private_prefix ($) needs one");
    server.witness();
    server.stop();
}

#[test]
fn commands_sent_along_with_the_handshake_are_answered_in_order() {
    let server = Server::start("");
    let mut along = Vec::new();
    put_client_frame(
        Opcode::Text,
        [0; 4],
        b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"witness:b\"}}",
        &mut along,
    );
    put_client_frame(
        Opcode::Text,
        [0; 4],
        b"{\"id\":3,\"presence\":{\"channel\":\"witness:b\"}}",
        &mut along,
    );
    let mut client = Client::upgrade(server.address, SOCKET, &[], &along).ok().unwrap();
    assert!(client.hear().starts_with(r#"{"id":1,"connect":{"#));
    assert_eq!(client.hear(), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(client.hear(), r#"{"id":3,"error":{"code":108,"message":"not available"}}"#);
    server.stop();
}

#[test]
fn the_server_api_refuses_what_it_must() {
    let mut server = Server::start("");
    let key = [("X-API-Key", KEY)];
    let status = |path: &str, headers: &[(&str, &str)], body: &str| {
        post(server.address, path, headers, body.as_bytes()).status
    };
    assert_eq!(status("/api/info", &[], "{}"), 401);
    assert_eq!(status("/api/info", &[("X-API-Key", "wrong")], "{}"), 401);
    assert_eq!(status("/api/info", &[("Authorization", "Bearer test-key")], "{}"), 401);
    assert_eq!(status("/api/info?api_key=test-ke", &[], "{}"), 401);
    assert_eq!(status("/api/info", &[("Authorization", "apikey test-key")], "{}"), 200);
    assert_eq!(status("/api/info?x=1&api_key=test%2Dkey", &[], "{}"), 200);
    assert_eq!(status("/api/dance", &key, "{}"), 404);
    assert_eq!(status("/apix", &key, "{}"), 404);
    for body in ["", "{", "nonsense", "[]", "null", "\"x\"", "{} {}"] {
        assert_eq!(status("/api/publish", &key, body), 400, "{body:?}");
    }
    for body in ["", "{", "{\"method\":\"info\",\"params\":{}}\n{"] {
        assert_eq!(status("/api", &key, body), 400, "{body:?}");
    }
    let get = http(server.address, request("GET /api/info", &[("Host", "a"), key[0]]).as_bytes());
    assert_eq!(get.status, 405);
    assert!(get.head.to_ascii_lowercase().contains("allow: post"), "{get:?}");
    let unauthorised = post(server.address, "/api/info", &[], b"{}");
    assert_eq!(unauthorised.body, "");
    server.logged("401 a call of the API was refused: the request has no key");
    let unknown = api(server.address, "publish", r#"{"channel":"nwes:a","data":1}"#);
    assert_eq!(unknown, r#"{"error":{"code":102,"message":"unknown channel"}}"#);
    for body in [
        "{}",
        r#"{"channel":"witness:a"}"#,
        r#"{"channel":"","data":1}"#,
        r#"{"channel":7,"data":1}"#,
        r#"{"channel":"witness:a","b64data":"!"}"#,
    ] {
        let answer = api(server.address, "publish", body);
        assert_eq!(answer, r#"{"error":{"code":107,"message":"bad request"}}"#, "{body}");
    }
    server.witness();
    server.stop();
}

#[test]
fn a_body_of_more_than_16_mib_is_refused_said_or_unsaid() {
    let server = Server::start("");
    let length = (16 * 1024 * 1024 + 1).to_string();
    let headers = [("Host", "a"), ("X-API-Key", KEY), ("Content-Length", &*length)];
    let said = http(server.address, request("POST /api/publish", &headers).as_bytes());
    assert_eq!(said.status, 413);
    let headers = [("Host", "a"), ("X-API-Key", KEY), ("Transfer-Encoding", "chunked")];
    let mut stream = dial(server.address);
    stream.write_all(request("POST /api/publish", &headers).as_bytes()).unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    let sender = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..17 {
            if (&sender).write_all(&chunk).is_err() {
                return;
            }
        }
    });
    // The refusal may meet bytes still on their way, and the connection be reset behind it.
    let mut answer = [0; 12];
    if stream.read_exact(&mut answer).is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    writer.join().unwrap();
    server.stop();
}
