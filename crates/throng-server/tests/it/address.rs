//! The client's real address: who is believed, and who is not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::{Client, HANDSHAKE, SOCKET, dial, http, read_answer, request};
use crate::server::Server;

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1/32\"]\n";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Provokes a line of the log about this client.
fn show(client: &mut Client) {
    client.say(r#"{"id":1,"subscribe":{"channel":"news"}}"#);
    assert_eq!(client.close().0, 3501);
}

/// The address that a client with these headers is seen at.
fn seen(toml: &str, headers: &[(&str, &str)]) -> String {
    let server = Server::without_witness(toml);
    let mut client = Client::upgrade(server.address, SOCKET, headers, b"").unwrap();
    show(&mut client);
    address_in(&server)
}

fn address_in(server: &Server) -> String {
    server.logged("  addr=");
    let log = server.log();
    let address = log.split_once("  addr=").unwrap().1;
    address.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_forged_header_changes_nothing() {
    let forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Forwarded-For", "127.0.0.1"),
    ];
    assert_eq!(seen("", &forged), "127.0.0.1");
    // One's own address is no proxy's because others are.
    let others = "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n";
    assert_eq!(seen(others, &forged), "127.0.0.1");
    assert_eq!(seen(&format!("{TRUSTED}client_address_header = \"none\"\n"), &forged), "127.0.0.1");
}

#[test]
fn a_trusted_proxys_word_counts_in_the_one_header_that_is_configured() {
    let headers = [
        ("X-Forwarded-For", "6.6.6.6, 203.0.113.7"),
        ("X-Real-IP", "203.0.113.8"),
        ("Forwarded", "for=6.6.6.6, for=\"[2001:db8::9]:4711\""),
    ];
    let with = |name: &str| format!("{TRUSTED}client_address_header = \"{name}\"\n");
    assert_eq!(seen(TRUSTED, &headers), "203.0.113.7");
    assert_eq!(seen(&with("x-forwarded-for"), &headers), "203.0.113.7");
    assert_eq!(seen(&with("X-Real-IP"), &headers), "203.0.113.8");
    assert_eq!(seen(&with("forwarded"), &headers), "2001:db8::9");
    assert_eq!(seen(TRUSTED, &[]), "127.0.0.1");
    assert_eq!(seen(TRUSTED, &[("X-Forwarded-For", "6.6.6.6, nonsense")]), "127.0.0.1");
}

fn handshake() -> Vec<u8> {
    request(&format!("GET {SOCKET}"), HANDSHAKE).into_bytes()
}

fn v1() -> Vec<u8> {
    b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n".to_vec()
}

fn v2(command: u8, additions: usize) -> Vec<u8> {
    let length = u16::try_from(12 + additions).unwrap().to_be_bytes();
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    [V2_BEGIN, &[command, 0x11], &length, &addresses, &vec![0; additions]].concat()
}

fn speaking(protocol: &str) -> Server {
    Server::without_witness(&format!("{TRUSTED}http_server.proxy_protocol = \"{protocol}\"\n"))
}

#[test]
fn a_proxy_header_tells_the_address_and_what_follows_is_http() {
    for (protocol, header, seen) in [
        ("v1", v1(), "203.0.113.7"),
        ("v2", v2(0x21, 0), "203.0.113.7"),
        ("v2", v2(0x21, 3000), "203.0.113.7"),
        ("on", v1(), "203.0.113.7"),
        ("on", v2(0x21, 0), "203.0.113.7"),
        ("v2", v2(0x20, 0), "127.0.0.1"),
        ("v1", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let server = speaking(protocol);
        // All in one packet: header, request, and the first frame.
        let mut first = Vec::new();
        throng_wire::websocket::put_client_frame(
            throng_wire::websocket::Opcode::Text,
            [1, 2, 3, 4],
            br#"{"id":1,"connect":{}}"#,
            &mut first,
        );
        let all = [header, handshake(), first].concat();
        let mut client = Client::upgrade_over(dial(server.address), &all).unwrap();
        assert!(client.hear().contains("\"connect\""));
        client.say(r#"{"id":2,"connect":{}}"#);
        assert_eq!(client.close().0, 3501);
        assert_eq!(address_in(&server), seen, "{protocol}");
    }
}

#[test]
fn a_header_that_comes_byte_by_byte_is_the_same() {
    for (protocol, header) in [("v1", v1()), ("v2", v2(0x21, 40))] {
        let server = speaking(protocol);
        let mut stream = dial(server.address);
        for byte in header.iter().chain(&handshake()[..30]) {
            stream.write_all(&[*byte]).unwrap();
            std::thread::yield_now();
        }
        let mut client = Client::upgrade_over(stream, &handshake()[30..]).unwrap();
        show(&mut client);
        assert_eq!(address_in(&server), "203.0.113.7", "{protocol}");
    }
}

#[test]
fn who_a_proxy_introduces_cannot_forge_a_header_either() {
    let server = speaking("v1");
    let forged = [HANDSHAKE, &[("X-Forwarded-For", "6.6.6.6")]].concat();
    let forged = request(&format!("GET {SOCKET}"), &forged).into_bytes();
    let mut client = Client::upgrade_over(dial(server.address), &[v1(), forged].concat()).unwrap();
    show(&mut client);
    assert_eq!(address_in(&server), "203.0.113.7");
}

/// Whether the server ended the connection without an answer.
fn is_closed(mut stream: TcpStream) -> bool {
    let mut piece = [0; 100];
    match stream.read(&mut piece) {
        Ok(got) => got == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn closed_after(address: SocketAddr, bytes: &[u8]) {
    let mut stream = dial(address);
    stream.write_all(bytes).unwrap();
    assert!(is_closed(stream), "{}", bytes.escape_ascii());
}

#[test]
fn who_should_begin_with_a_proxy_header_and_does_not_is_closed_and_told_of() {
    let server = speaking("v2");
    closed_after(server.address, &handshake());
    server.logged(
        "a connection from 127.0.0.1 was closed: it does not begin with a PROXY header, and \
         http_server.proxy_protocol = \"v2\"",
    );
    closed_after(server.address, &[v1(), handshake()].concat());
    server.logged("its PROXY header has the other version");
    closed_after(server.address, &[V2_BEGIN, &[0x21, 0x11, 0, 3, 1, 2, 3]].concat());
    server.logged("its PROXY header is malformed");
    closed_after(server.address, &[V2_BEGIN, &[0x21, 0x11, 0xff, 0xff]].concat());
    server.logged("its PROXY header is too long");
    // A check of whether the port is open is nobody's mistake.
    drop(dial(server.address));
    for _ in 0..50 {
        closed_after(server.address, b"GET / HTTP/1.1\r\n");
    }
    assert!(server.log().lines().count() <= 6, "{}", server.log());
    let mut client =
        Client::upgrade_over(dial(server.address), &[v2(0x21, 0), handshake()].concat()).unwrap();
    show(&mut client);
}

#[test]
fn a_header_that_never_ends_has_the_time_of_a_requests_head() {
    let toml = "http_server.header_timeout = \"200ms\"\nhttp_server.proxy_protocol = \"on\"\n";
    let server = Server::without_witness(&format!("{TRUSTED}{toml}"));
    closed_after(server.address, b"PROXY TCP4 1.2.3.4");
    server.logged("its PROXY header did not come in time");
}

#[test]
fn a_stranger_cannot_introduce_anybody() {
    let toml = "trusted_proxies = [\"10.0.0.1\"]\nhttp_server.proxy_protocol = \"on\"\n";
    let server = Server::without_witness(toml);
    closed_after(server.address, &[v1(), handshake()].concat());
    server.logged(
        "a connection from 127.0.0.1 was closed: it is not one of trusted_proxies, and \
         http_server.proxy_protocol = \"on\" lets in nobody else; if it is your proxy, add \
         \"127.0.0.1/32\" to trusted_proxies",
    );
}

#[test]
fn a_proxy_that_nobody_declared_is_told_of_once_with_the_line_to_add() {
    let server = Server::without_witness("health.enabled = true\n");
    let asked = request("GET /health", &[("Host", "a"), ("X-Forwarded-For", "203.0.113.7")]);
    for _ in 0..60 {
        assert_eq!(http(server.address, asked.as_bytes()).status, 200);
    }
    server.logged(
        "20 connections from 127.0.0.1 carry X-Forwarded-For, but trusted_proxies is empty, so \
         login checks see 127.0.0.1 for everyone; if that is your nginx: \
         trusted_proxies = [\"127.0.0.1/32\"]",
    );
    assert_eq!(server.log().matches("trusted_proxies").count(), 2, "{}", server.log());
    let declared = Server::without_witness(&format!("health.enabled = true\n{TRUSTED}"));
    for _ in 0..30 {
        assert_eq!(http(declared.address, asked.as_bytes()).status, 200);
    }
    assert!(!declared.log().contains("connections from"), "{}", declared.log());
    let elsewhere = request("GET /health", &[("Host", "a"), ("X-Real-IP", "203.0.113.7")]);
    for _ in 0..30 {
        assert_eq!(http(declared.address, elsewhere.as_bytes()).status, 200);
    }
    declared.logged("20 connections from 127.0.0.1 carry X-Real-IP, but no X-Forwarded-For");
}

#[test]
fn a_request_without_upgrade_is_told_what_nginx_must_be_told() {
    let server = Server::without_witness("");
    let answer =
        http(server.address, request(&format!("GET {SOCKET}"), &[("Host", "a")]).as_bytes());
    assert_eq!(answer.status, 426);
    for line in [
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection \"upgrade\";",
        "proxy_set_header Host $host;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ] {
        assert!(answer.body.contains(line), "{}", answer.body);
    }
}

#[test]
fn a_proxy_header_that_nobody_wants_is_told_of() {
    for (header, version) in [(v1(), "v1"), (v2(0x21, 0), "v2")] {
        let server = Server::without_witness("");
        let mut stream = dial(server.address);
        stream.write_all(&[header, handshake()].concat()).unwrap();
        server.logged(&format!(
            "a connection from 127.0.0.1 was closed: it begins with a PROXY header, and \
             http_server.proxy_protocol is \"off\"; if it is your proxy: \
             http_server.proxy_protocol = \"{version}\" and trusted_proxies = [\"127.0.0.1/32\"]"
        ));
    }
}

#[test]
fn a_proxy_may_use_one_connection_for_many_clients() {
    let server = Server::without_witness(&format!("{TRUSTED}health.enabled = true\n"));
    let mut stream = dial(server.address);
    for ip in ["203.0.113.1", "203.0.113.2"] {
        let asked = request("POST /api/info", &[("Host", "a"), ("X-Forwarded-For", ip)]);
        stream.write_all(asked.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).0.status, 401);
        server.logged(&format!("addr={ip}\n"));
    }
    let headers = [HANDSHAKE, &[("X-Forwarded-For", "203.0.113.7")]].concat();
    let asked = request(&format!("GET {SOCKET}"), &headers).into_bytes();
    show(&mut Client::upgrade_over(stream, &asked).unwrap());
    server.logged("addr=203.0.113.7\n");
}
