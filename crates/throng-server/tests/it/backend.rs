//! The application's backend over real sockets: what it is sent, and what its answers and its
//! failures do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::client::{Client, SOCKET, api};
use crate::server::Server;

const CONNECT: &str = r#"{"id":1,"connect":{"data":{"a":1}}}"#;

/// What a backend does with a request.
type Answering = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: serde_json::Value,
}

/// An application that answers with a closure, each connection in a thread of its own.
struct Backend {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    fn start(answering: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (Arc::clone(&backend.seen), Arc::clone(&backend.connections));
        let answering: Arc<Answering> = Arc::new(answering);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (answering, seen) = (Arc::clone(&answering), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &*answering, &seen));
            }
        });
        backend
    }

    /// A backend that always answers 200 with this.
    fn saying(body: &'static str) -> Self {
        Self::start(move |_, stream| answer(stream, 200, body))
    }

    fn connect_options(&self, more: &str) -> String {
        format!(
            "client.proxy.connect.enabled = true\n\
             client.proxy.connect.endpoint = \"http://127.0.0.1:{}/connect\"\n{more}",
            self.port
        )
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answering: &Answering, seen: &Mutex<Vec<Request>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(got) => bytes.extend_from_slice(&piece[..got]),
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap()
            .parse()
            .unwrap();
        while bytes.len() < end + length {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(got) => bytes.extend_from_slice(&piece[..got]),
            }
        }
        let body = serde_json::from_slice(&bytes[end..end + length]).unwrap();
        bytes.drain(..end + length);
        let request = Request { head, body };
        seen.lock().unwrap().push(request.clone());
        answering(&request, &mut stream);
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    // The server may have given up.
    stream.write_all(format!("{head}{body}").as_bytes()).ok();
}

/// Says hello with these headers; the first thing that is heard.
fn hello(server: &Server, headers: &[(&str, &str)]) -> (Client, String) {
    let mut client = Client::upgrade(server.address, SOCKET, headers, b"").unwrap();
    client.say(CONNECT);
    let heard = client.hear();
    (client, heard)
}

#[test]
fn the_backend_says_who_a_client_is_over_one_connection() {
    let backend = Backend::saying(r#"{"result":{"user":"ann","data":{"hi":1}}}"#);
    let options = backend.connect_options(
        "client.proxy.connect.http_headers = [\"cookie\", \"X-Forwarded-For\"]\n\
         client.proxy.connect.http.static_headers = {X-Key = \"k\"}\n",
    );
    let server = Server::without_witness(&options);
    let headers = [("Cookie", "session=SECRET"), ("X-Forwarded-For", "6.6.6.6"), ("X-Other", "o")];
    for _ in 0..3 {
        let (_, heard) = hello(&server, &headers);
        assert!(heard.contains(r#""data":{"hi":1}"#), "{heard}");
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "connections are kept");
    let Request { head, body } = &seen[0];
    assert!(head.starts_with("post /connect http/1.1\r\n"), "{head}");
    for line in ["content-type: application/json", "cookie: session=secret", "x-key: k"] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    assert!(!head.contains("6.6.6.6") && !head.contains("x-other"), "{head}");
    assert_eq!((&body["transport"], &body["data"]["a"]), (&"websocket".into(), &1.into()));
    assert_eq!(body["client"].as_str().unwrap().len(), 36);
    let log = server.stop();
    assert!(!log.contains("SECRET"), "{log}");
}

/// Answers that lead elsewhere, are too large, or do not end, and what the log says of each.
fn endless_answers() -> Vec<(&'static str, Box<Answering>)> {
    vec![
        (
            "answered 302, a redirect, which is not followed",
            Box::new(|_, stream| {
                let head =
                    "HTTP/1.1 302 Found\r\nLocation: /login?SECRET\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(head.as_bytes()).ok();
            }),
        ),
        (
            "answered with a head of more than 65536 bytes",
            Box::new(|_, stream| {
                let head = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
                stream.write_all(head.as_bytes()).ok();
            }),
        ),
        (
            "answered more than 1048576 bytes",
            Box::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok();
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                // Without an end, until it is hung up on.
                for _ in 0..10_000 {
                    if stream.write_all(chunk.as_bytes()).is_err() {
                        return;
                    }
                }
            }),
        ),
        (
            "did not answer within 300ms",
            Box::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").ok();
                // A byte now and then is no answer either.
                while stream.write_all(b" ").is_ok() {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            }),
        ),
    ]
}

#[test]
fn a_backend_that_fails_is_a_temporary_error_and_one_line_each() {
    let temporary =
        r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
    let (_keep, forever) = mpsc::channel::<()>();
    let forever = Mutex::new(forever);
    let mut answers: Vec<(&str, Box<Answering>)> = vec![
        ("answered 502", Box::new(|_, stream| answer(stream, 502, "bad gateway SECRET"))),
        ("answered what is not JSON", Box::new(|_, stream| answer(stream, 200, "<html>SECRET"))),
        (
            "hung up in the middle of its answer",
            Box::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"resu").unwrap();
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            }),
        ),
        (
            "hung up without an answer",
            Box::new(|_, stream| stream.shutdown(std::net::Shutdown::Both).unwrap()),
        ),
        (
            "answered what is not HTTP",
            Box::new(|_, stream| stream.write_all(b"SSH-2.0-SECRET\r\n\r\n").unwrap()),
        ),
        (
            "answered more than 1048576 bytes",
            Box::new(|_, stream| answer(stream, 200, &"x".repeat(2 << 20))),
        ),
        (
            "did not answer within 300ms",
            Box::new(move |_, _| {
                forever.lock().unwrap().recv_timeout(Duration::from_secs(5)).ok();
            }),
        ),
    ];
    answers.extend(endless_answers());
    for (line, answering) in answers {
        let backend = Backend::start(answering);
        let mut server = Server::without_witness(
            &backend.connect_options("client.proxy.connect.timeout = \"300ms\"\n"),
        );
        let (_, heard) = hello(&server, &[]);
        assert_eq!(heard, temporary, "{line}");
        server.logged(line);
        server.logged("client.proxy.connect.endpoint");
        server.witness();
        let log = server.stop();
        assert!(!log.contains("SECRET"), "{log}");
    }
    // Nobody listens at all.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::without_witness(&format!(
        "client.proxy.connect.enabled = true\nclient.proxy.connect.endpoint = \"http://127.0.0.1:{port}\"\n"
    ));
    assert_eq!(hello(&server, &[]).1, temporary);
    server.logged("cannot be connected to at 127.0.0.1");
    server.stop();
}

#[test]
fn a_status_becomes_what_the_configuration_says() {
    let backend = Backend::start(|request, stream| {
        answer(stream, if request.head.contains("cookie") { 403 } else { 429 }, "");
    });
    let server = Server::without_witness(&backend.connect_options(
        "client.proxy.connect.http_headers = [\"Cookie\"]\n\
         client.proxy.connect.http.status_to_code_transforms = [\n\
         {status_code = 403, to_disconnect = {code = 4501, reason = \"forbidden\"}},\n\
         {status_code = 429, to_error = {code = 1429, message = \"slow\", temporary = true}}]\n",
    ));
    let (_, heard) = hello(&server, &[]);
    assert_eq!(heard, r#"{"id":1,"error":{"code":1429,"message":"slow","temporary":true}}"#);
    let mut client = Client::upgrade(server.address, SOCKET, &[("Cookie", "x")], b"").unwrap();
    client.say(CONNECT);
    assert_eq!(client.close(), (4501, "forbidden".to_owned()));
    server.stop();
}

#[test]
fn a_connection_that_the_backend_had_closed_or_half_of_it_is_no_failure() {
    for closed in [std::net::Shutdown::Both, std::net::Shutdown::Write] {
        // Every answer is its connection's last, and does not say so.
        let backend = Backend::start(move |_, stream| {
            answer(stream, 200, r#"{"result":{"user":"ann"}}"#);
            stream.shutdown(closed).unwrap();
        });
        let server = Server::without_witness(&backend.connect_options(""));
        for _ in 0..20 {
            let (_, heard) = hello(&server, &[]);
            assert!(heard.contains("\"connect\""), "{heard}");
        }
        assert!(!server.stop().contains("hung up"));
    }
}

#[test]
fn no_more_calls_are_under_way_than_allowed_and_the_rest_wait() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let backend = Backend::start({
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        let (_keep, never) = mpsc::channel::<()>();
        let (never, keep) = (Mutex::new(never), Mutex::new(_keep));
        move |_, stream| {
            let _ = &keep;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // A little while, so that calls would overlap.
            if let Ok(never) = never.try_lock() {
                never.recv_timeout(Duration::from_millis(20)).ok();
            }
            now.fetch_sub(1, Ordering::SeqCst);
            answer(stream, 200, r#"{"result":{"user":"ann"}}"#);
        }
    });
    let server = Server::without_witness(
        &backend.connect_options("client.proxy.connect.max_in_flight = 2\n"),
    );
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(server.address)).collect();
    for client in &mut clients {
        client.say(CONNECT);
    }
    for client in &mut clients {
        assert!(client.hear().contains("\"connect\""));
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
    server.stop();
}

#[test]
fn more_than_may_wait_are_answered_at_once() {
    let backend = Backend::start(|_, stream| {
        // Longer than the timeout: nothing is answered.
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        stream.read_exact(&mut byte).ok();
    });
    let server = Server::without_witness(&backend.connect_options(
        "client.proxy.connect.max_in_flight = 1\nclient.proxy.connect.timeout = \"2s\"\n",
    ));
    let mut clients: Vec<Client> = (0..15).map(|_| Client::connect(server.address)).collect();
    for client in &mut clients {
        client.say(CONNECT);
    }
    server.logged("max_in_flight allows no more");
    for client in &mut clients {
        assert!(client.hear().contains("\"code\":100"));
    }
    server.stop();
}

#[test]
fn commands_are_asked_about_and_a_connection_is_refreshed() {
    let backend = Backend::start(|request, stream| {
        let path = request.head.split(' ').nth(1).unwrap();
        let body = match path {
            "/rpc" => r#"{"result":{"data":{"sum":3}}}"#,
            "/publish" => r#"{"result":{"data":"polite"}}"#,
            "/subscribe" if request.body["channel"] == "yes" => r#"{"result":{}}"#,
            "/subscribe" => r#"{"error":{"code":1003,"message":"not you"}}"#,
            "/refresh" => r#"{"result":{}}"#,
            _ => r#"{"result":{"user":"ann","expire_at":1}}"#,
        };
        answer(stream, 200, body);
    });
    let at = |path: &str| format!("\"http://127.0.0.1:{}/{path}\"", backend.port);
    let server = Server::without_witness(&format!(
        "rpc.proxy.endpoint = {}\nrpc.without_namespace.proxy_enabled = true\n\
         channel.proxy.publish.endpoint = {}\nchannel.proxy.subscribe.endpoint = {}\n\
         channel.without_namespace.publish_proxy_enabled = true\n\
         channel.without_namespace.subscribe_proxy_enabled = true\n\
         client.proxy.refresh.enabled = true\nclient.proxy.refresh.endpoint = {}\n\
         client.insecure_skip_token_signature_verify = true\n",
        at("rpc"),
        at("publish"),
        at("subscribe"),
        at("refresh")
    ));
    let second = Duration::from_secs(1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let claims = format!("{{\"sub\":\"ann\",\"exp\":{}}}", (now + 2 * second).as_secs());
    let token = {
        use base64::Engine;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.x", part(r#"{"alg":"HS256"}"#), part(&claims))
    };
    let (mut client, _) = Client::connected(server.address, &token);
    client.say(r#"{"id":2,"rpc":{"method":"add","data":[1,2]}}"#);
    assert_eq!(client.hear(), r#"{"id":2,"rpc":{"data":{"sum":3}}}"#);
    client.say(r#"{"id":3,"subscribe":{"channel":"no"}}"#);
    assert_eq!(client.hear(), r#"{"id":3,"error":{"code":1003,"message":"not you"}}"#);
    client.say(r#"{"id":4,"subscribe":{"channel":"yes"}}"#);
    assert_eq!(client.hear(), r#"{"id":4,"subscribe":{}}"#);
    client.say(r#"{"id":5,"publish":{"channel":"yes","data":"rude"}}"#);
    let heard = [client.hear(), client.hear()];
    assert!(heard.iter().any(|each| each.contains(r#""data":"polite""#)), "{heard:?}");
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while !backend.seen().iter().any(|request| request.head.starts_with("post /refresh")) {
        assert!(std::time::Instant::now() < deadline, "no refresh came");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    client.say(r#"{"id":6,"rpc":{"method":"add"}}"#);
    assert!(client.hear().contains("\"id\":6"), "the connection goes on");
    server.stop();
}

#[test]
fn a_wave_of_reconnects_is_no_wave_on_the_backend_and_everybody_is_who_they_are() {
    let backend = Backend::start(|request, stream| {
        let user = request.head.split("cookie: user=").nth(1).map(|rest| rest.lines().next());
        let user = user.flatten().unwrap_or("nobody");
        answer(stream, 200, &format!("{{\"result\":{{\"user\":\"{user}\",\"data\":\"{user}\"}}}}"));
    });
    let server = Server::without_witness(&backend.connect_options(
        "client.proxy.connect.http_headers = [\"Cookie\"]\nclient.proxy.connect.cache_ttl = \"1m\"\n",
    ));
    for _ in 0..10 {
        let mut clients: Vec<(usize, Client)> = (0..40)
            .map(|number| {
                let cookie = format!("user=u{}", number % 10);
                let headers = [("Cookie", cookie.as_str())];
                (number % 10, Client::upgrade(server.address, SOCKET, &headers, b"").unwrap())
            })
            .collect();
        for (_, client) in &mut clients {
            client.say(CONNECT);
        }
        for (user, client) in &mut clients {
            let heard = client.hear();
            assert!(heard.contains(&format!("\"data\":\"u{user}\"")), "{heard}");
        }
    }
    assert_eq!(backend.seen().len(), 10);
    // Who is sent away is asked about again.
    assert_eq!(api(server.address, "disconnect", r#"{"user":"u3"}"#), r#"{"result":{}}"#);
    hello(&server, &[("Cookie", "user=u3")]);
    hello(&server, &[("Cookie", "user=u4")]);
    assert_eq!(backend.seen().len(), 11);
    // Without a credential each is asked about.
    let mut client = Client::connect(server.address);
    client.say(r#"{"id":1,"connect":{}}"#);
    client.hear();
    let mut client = Client::connect(server.address);
    client.say(r#"{"id":1,"connect":{}}"#);
    client.hear();
    assert_eq!(backend.seen().len(), 13);
    server.stop();
}

#[test]
fn known_users_return_while_the_application_restarts() {
    let up = Arc::new(AtomicUsize::new(1));
    let backend = Backend::start({
        let up = Arc::clone(&up);
        move |_, stream| match up.load(Ordering::SeqCst) {
            1 => answer(stream, 200, r#"{"result":{"user":"ann"}}"#),
            _ => answer(stream, 502, ""),
        }
    });
    let server = Server::without_witness(&backend.connect_options(
        "client.proxy.connect.http_headers = [\"Cookie\"]\n\
         client.proxy.connect.cache_ttl = \"1ms\"\nclient.proxy.connect.stale_if_error = \"1m\"\n",
    ));
    assert!(hello(&server, &[("Cookie", "a")]).1.contains("\"connect\""));
    up.store(0, Ordering::SeqCst);
    std::thread::park_timeout(Duration::from_millis(5));
    assert!(hello(&server, &[("Cookie", "a")]).1.contains("\"connect\""));
    assert!(hello(&server, &[("Cookie", "b")]).1.contains("\"code\":100"));
    server.logged("answered 502");
    server.stop();
}

/// Reconnects of the wave, and users behind it.
const WAVE: usize = 10_000;
const USERS: usize = 100;
/// Clients that connect at the same time.
const AT_ONCE: usize = 16;

/// A client of this address with this cookie, who says hello; whom it was told to be.
fn told(server: std::net::SocketAddr, from: [u8; 4], cookie: &str) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    // Reset at its end: ten thousand that linger would use up the ports.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::server::PATIENCE)).unwrap();
    let headers = [crate::client::HANDSHAKE, &[("Cookie", cookie)]].concat();
    let request = crate::client::request(&format!("GET {SOCKET}"), &headers);
    let mut client = Client::upgrade_over(stream, request.as_bytes()).unwrap();
    client.say(CONNECT);
    let reply: serde_json::Value = serde_json::from_str(&client.hear()).unwrap();
    reply["connect"]["data"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[test]
fn ten_thousand_reconnects_ask_about_each_of_a_hundred_users_and_nobody_is_somebody_else() {
    // It answers with user and address, so that a client knows whether both are its own.
    let backend = Backend::start(|request, stream| {
        let line = |name: &str| {
            let found = request.head.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap_or("none").to_owned()
        };
        let (user, from) = (line("cookie: user="), line("x-real-ip: "));
        answer(
            stream,
            200,
            &format!("{{\"result\":{{\"user\":\"{user}\",\"data\":\"{user} {from}\"}}}}"),
        );
    });
    let server = Server::without_witness(&backend.connect_options(
        "client.proxy.connect.http_headers = [\"Cookie\"]\nclient.proxy.connect.cache_ttl = \"10m\"\n\
         client.proxy.connect.timeout = \"20s\"\n",
    ));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= WAVE {
                        return;
                    }
                    // Half of the users are at one address, the others each at their own.
                    let user = number % USERS;
                    let host = if user < USERS / 2 { 7 } else { u8::try_from(user + 100).unwrap() };
                    let heard = told(server.address, [127, 0, 3, host], &format!("user=u{user}"));
                    assert_eq!(heard, format!("u{user} 127.0.3.{host}"));
                }
            });
        }
    });
    let asked = backend.seen().len();
    assert_eq!(asked, USERS, "each is asked about once, those who come together as well");
    server.stop();
}

#[test]
fn a_probe_is_told_where_it_is_seen_and_nobody_else_is() {
    let server = Server::without_witness("trusted_proxies = [\"127.0.0.2\"]\n");
    let seen = |from: [u8; 4], headers: &[(&str, &str)]| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&server.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(crate::server::PATIENCE)).unwrap();
        let headers = [crate::client::HANDSHAKE, headers].concat();
        let request = crate::client::request(&format!("GET {SOCKET}"), &headers);
        stream.write_all(request.as_bytes()).unwrap();
        let head = crate::client::read_answer(&mut stream).0.head;
        let line = head.lines().find_map(|line| line.strip_prefix("X-Throng-Address: "));
        line.map(str::to_owned)
    };
    const PROBE: (&str, &str) = ("X-Throng-Probe", "1");
    assert_eq!(seen([127, 0, 0, 1], &[]), None);
    assert_eq!(seen([127, 0, 0, 3], &[PROBE]).as_deref(), Some("127.0.0.3"));
    let forwarded = |address| [PROBE, ("X-Forwarded-For", address)];
    assert_eq!(seen([127, 0, 0, 2], &forwarded("203.0.113.7")).as_deref(), Some("203.0.113.7"));
    assert_eq!(seen([127, 0, 0, 2], &forwarded("10.1.2.3")).as_deref(), Some("private"));
    // Of a proxy that nobody declared the address is not told.
    assert_eq!(seen([127, 0, 0, 1], &forwarded("203.0.113.7")).as_deref(), Some("proxy"));
    server.stop();
}
