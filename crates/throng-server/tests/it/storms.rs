//! What comes too often, too slowly, too large or from too near: each has a bound, an answer and a line.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, HANDSHAKE, SOCKET, dial, http, read_answer, request};
use crate::server::{PATIENCE, Server};

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1/32\"]\n";
const ONE_PER_ADDRESS: &str =
    "limits.per_address.connections = 1\nlimits.per_address.exempt_private = false\n";
const WORDS: &str = r#"{"error":"too many connections of your address"}"#;

fn upgrade(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Client, Answer> {
    Client::upgrade(address, SOCKET, headers, b"")
}

/// Asks for an upgrade behind a PROXY header.
fn introduced(address: SocketAddr, ip: &str) -> Result<Client, Answer> {
    let asked = request(&format!("GET {SOCKET}"), HANDSHAKE);
    let all = format!("PROXY TCP4 {ip} 198.51.100.1 4711 443\r\n{asked}");
    Client::upgrade_over(dial(address), all.as_bytes())
}

/// Tries until somebody who left is seen to have left.
fn in_the_end<T, E>(mut get: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match get() {
            Ok(got) => return got,
            Err(_) => assert!(Instant::now() < deadline),
        }
    }
}

/// Waits until the server ends a connection.
fn ends(mut stream: &TcpStream) {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it is still open: {error}"),
        }
    }
}

#[test]
fn a_client_too_many_of_an_address_is_503_and_has_the_place_of_one_that_left() {
    let server = Server::without_witness(ONE_PER_ADDRESS);
    let one = upgrade(server.address, &[]).ok().unwrap();
    let refused = upgrade(server.address, &[]).err().unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, WORDS));
    assert!(refused.head.contains("Retry-After: "), "{refused:?}");
    server.logged("limits.per_address.connections is reached");
    drop(one);
    let _two = in_the_end(|| upgrade(server.address, &[]));
    server.stop();
}

#[test]
fn connections_that_never_become_clients_count_for_their_address() {
    let server = Server::without_witness(&format!("{ONE_PER_ADDRESS}health.enabled = true\n"));
    let mut one = dial(server.address);
    let ask = request("GET /health", &[("Host", "a")]);
    one.write_all(ask.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut one).0.status, 200);
    for refused in
        [http(server.address, ask.as_bytes()), upgrade(server.address, &[]).err().unwrap()]
    {
        assert_eq!((refused.status, refused.body.as_str()), (503, WORDS));
    }
    // The one that is there may go on, and may become a client without being counted twice.
    one.write_all(ask.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut one).0.status, 200);
    let handshake = request(&format!("GET {SOCKET}"), HANDSHAKE);
    let client = Client::upgrade_over(one, handshake.as_bytes()).ok().unwrap();
    assert!(upgrade(server.address, &[]).is_err());
    drop(client);
    in_the_end(|| upgrade(server.address, &[]));
    server.stop();
}

#[test]
fn more_of_an_address_than_its_rate_are_503() {
    let options = "limits.per_address.rate = 2\nlimits.per_address.exempt_private = false\n";
    let server = Server::without_witness(options);
    let outcomes: Vec<_> = (0..20).map(|_| upgrade(server.address, &[])).collect();
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(refused.clone().count() >= 10 && refused.clone().all(|answer| answer.body == WORDS));
    server.logged("limits.per_address.rate is reached");
    server.stop();
}

#[test]
fn a_trusted_proxys_connections_are_not_counted_but_those_behind_it_are() {
    let server = Server::without_witness(&format!("{TRUSTED}{ONE_PER_ADDRESS}"));
    let _proxys_own: Vec<_> = (0..3).map(|_| upgrade(server.address, &[]).ok().unwrap()).collect();
    let behind = |ip| upgrade(server.address, &[("X-Forwarded-For", ip)]);
    let _one = behind("203.0.113.7").ok().unwrap();
    assert_eq!(behind("203.0.113.7").err().unwrap().body, WORDS);
    let _other = behind("203.0.113.8").ok().unwrap();
    server.stop();

    let spoken = format!("{TRUSTED}{ONE_PER_ADDRESS}http_server.proxy_protocol = \"v1\"\n");
    let server = Server::without_witness(&spoken);
    let _one = introduced(server.address, "203.0.113.7").ok().unwrap();
    assert_eq!(introduced(server.address, "203.0.113.7").err().unwrap().body, WORDS);
    let _other = introduced(server.address, "203.0.113.8").ok().unwrap();
    server.stop();
}

#[test]
fn what_the_internal_port_lets_in_is_not_counted() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let internal = format!("http_server.internal_port = \"{port}\"\nhealth.enabled = true\n");
    let server = Server::without_witness(&format!("{internal}{ONE_PER_ADDRESS}"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = request("GET /health", &[("Host", "a")]);
    let mut open: Vec<_> = (0..3).map(|_| dial(address)).collect();
    for stream in &mut open {
        stream.write_all(ask.as_bytes()).unwrap();
        assert_eq!(read_answer(stream).0.status, 200);
    }
    server.stop();
}

#[test]
fn a_full_server_refuses_behind_a_proxy_header_too() {
    let spoken = format!("{TRUSTED}http_server.proxy_protocol = \"on\"\nlimits.clients = 1\n");
    let server = Server::without_witness(&spoken);
    let _one = introduced(server.address, "203.0.113.7").ok().unwrap();
    for _ in 0..20 {
        let refused = introduced(server.address, "203.0.113.8").err().unwrap();
        assert_eq!((refused.status, refused.body.as_str()), (503, r#"{"error":"server full"}"#));
        assert!(refused.head.contains("\r\nRetry-After: "), "written by the lane: {refused:?}");
    }
    // Byte by byte it is the same.
    let mut stream = dial(server.address);
    let asked = request(&format!("GET {SOCKET}"), HANDSHAKE);
    for byte in format!("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n{asked}").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream).0.status, 503);
    // Whoever has no header is told of it as ever.
    let mut stream = dial(server.address);
    stream.write_all(asked.as_bytes()).unwrap();
    ends(&stream);
    server.logged("it does not begin with a PROXY header");
    server.stop();

    let server = Server::without_witness(&format!("{spoken}limits.refuse = \"close\"\n"));
    let _one = introduced(server.address, "203.0.113.7").ok().unwrap();
    let mut told = introduced(server.address, "203.0.113.8").ok().unwrap();
    assert_eq!(told.close(), (3013, "server full".to_owned()));
    server.stop();
}

#[test]
fn arrivals_over_the_rate_are_told_so_and_the_next_second_has_room_again() {
    let server = Server::without_witness("client.connection_rate_limit = 5\nhealth.enabled = true");
    let mut let_in = 0;
    let refused = loop {
        match upgrade(server.address, &[]) {
            Ok(_) => let_in += 1,
            Err(answer) => break answer,
        }
    };
    // A slow machine may take more than a second for them; it never lets in fewer.
    assert!(let_in >= 5, "{let_in}");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.body, r#"{"error":"too many clients come at once"}"#);
    // What is no client is served meanwhile.
    let health = request("GET /health", &[("Host", "a")]);
    assert_eq!(http(server.address, health.as_bytes()).status, 200);
    in_the_end(|| upgrade(server.address, &[]));
    server.logged("more come than client.connection_rate_limit allows");
    server.stop();
}

#[test]
fn a_head_has_one_deadline_however_its_bytes_come() {
    let options = "http_server.header_timeout = \"300ms\"\nhttp_server.keep_alive_timeout = \"400ms\"\n\
                   health.enabled = true";
    let mut server = Server::start(options);
    let trickle = |mut stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").ok();
        loop {
            // Each byte would begin a deadline anew that counts from the last one.
            let sent = stream.write_all(b"x");
            match stream.read(&mut [0; 512]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && sent.is_ok() => {
                    assert!(Instant::now() < deadline, "it may go on for ever");
                }
                // An answer, an end or a reset.
                _ => return,
            }
        }
    };
    trickle(&dial(server.address));
    server.logged("408 a request was refused: the request's head did not come in time");
    // The second request of a connection has no more time than a connection may be idle.
    let mut again = dial(server.address);
    again.write_all(request("GET /health", &[("Host", "a")]).as_bytes()).unwrap();
    assert_eq!(read_answer(&mut again).0.status, 200);
    trickle(&again);
    server.witness();
    server.stop();
}

#[test]
fn an_idle_connection_is_kept_for_a_while_and_not_longer() {
    let server = Server::without_witness(
        "http_server.header_timeout = \"200ms\"\nhttp_server.keep_alive_timeout = \"300ms\"\n\
         health.enabled = true",
    );
    let mut stream = dial(server.address);
    for _ in 0..2 {
        stream.write_all(request("GET /health", &[("Host", "a")]).as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).0.status, 200);
    }
    ends(&stream);
    // And one that never says anything.
    ends(&dial(server.address));
    server.stop();
}

#[test]
fn a_client_that_never_introduces_itself_has_one_deadline_too() {
    let server = Server::without_witness("client.stale_close_delay = \"1s\"");
    let mut client = upgrade(server.address, &[]).ok().unwrap();
    // A ping of WebSocket is no introduction.
    client.send(b"\x89\x80\x00\x00\x00\x00");
    assert_eq!(client.close().0, 3502);
    server.stop();
}

#[test]
fn a_megabyte_of_headers_is_cut_short() {
    let mut server = Server::start("");
    let line = format!("X-Large: {}\r\n", "x".repeat(1000));
    for begin in [format!("GET {SOCKET} HTTP/1.1\r\n"), "GET / HTTP/1.1\r\n".to_owned()] {
        let mut stream = dial(server.address);
        stream.write_all(begin.as_bytes()).unwrap();
        let mut sent = 0;
        while sent < 1 << 20 && stream.write_all(line.as_bytes()).is_ok() {
            sent += line.len();
        }
        // The answer may be overtaken by the reset, since nobody reads the rest.
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 431");
        }
        server.witness();
    }
    server.logged("431 a request was refused: the request's head is too large");
    server.stop();
}

#[test]
fn a_megabyte_of_headers_is_cut_short_where_the_server_is_full() {
    let server = Server::without_witness("limits.clients = 1");
    let _one = upgrade(server.address, &[]).ok().unwrap();
    let large = format!("X-Large: {}\r\n", "x".repeat(1 << 20));
    let mut stream = dial(server.address);
    // It may be cut off in the middle.
    stream.write_all(format!("GET {SOCKET} HTTP/1.1\r\n{large}").as_bytes()).ok();
    ends(&stream);
    assert_eq!(upgrade(server.address, &[]).err().unwrap().status, 503);
    server.stop();
}
