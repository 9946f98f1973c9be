//! A server that is full: who is in stays, who is not is told, and the API answers all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use throng_load::client::{Client, Manner};

use crate::Dir;

const PATIENCE: Duration = Duration::from_secs(20);
/// A client that finds the server full is told within this.
const TOLD: Duration = Duration::from_secs(1);
const SILENT: usize = 150;
/// Those who come at once and do not fit.
const EXCESS: usize = 250;
/// Handshakes that are begun and not ended: several times as many as there are descriptors.
const HALF_OPEN: usize = 1000;
const UPGRADE: &str = "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A server of the real binary under a limit; killed when the test is over.
struct Running {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}

impl Running {
    fn start(dir: &Dir, limit: &str, config: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = {port}\n[client]\ninsecure = true\n\
             [http_api]\ninsecure = true\n[health]\nenabled = true\n[limits]\nshards = 2\n{config}"
        );
        dir.write("throng.toml", &text);
        let log = dir.0.join("log");
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit {limit}; exec \"$0\" serve -c throng.toml")])
            .arg(env!("CARGO_BIN_EXE_throng"))
            .current_dir(&dir.0)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let running = Self { child, port, log };
        running.logs("listening on");
        running
    }

    /// Waits for a line of the log.
    fn logs(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "no {wanted:?} in {log}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn connect(&self) -> Option<Client> {
        let url = format!("ws://127.0.0.1:{}/connection/websocket", self.port);
        let mut client = Client::connect(&url, &Manner::default()).ok()?;
        client.greet("", PATIENCE).ok()?;
        client.subscribe("news", PATIENCE).unwrap();
        Some(client)
    }

    /// As many clients as fit.
    fn fill(&self) -> Vec<Client> {
        let begin = Instant::now();
        let clients: Vec<_> = std::iter::from_fn(|| self.connect()).collect();
        assert!(begin.elapsed() < PATIENCE);
        clients
    }

    fn open(&self) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let stream = TcpStream::connect_timeout(&address, TOLD)?;
        stream.set_read_timeout(Some(TOLD))?;
        Ok(stream)
    }

    /// What a request is answered with, in time; empty for a reset.
    fn ask(&self, request: &str) -> String {
        String::from_utf8(self.ask_bytes(request)).unwrap()
    }

    fn ask_bytes(&self, request: &str) -> Vec<u8> {
        let mut answer = Vec::new();
        // A reset may come as early as while connecting.
        let asked = self.open().and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)
        });
        match asked {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => answer,
        }
    }

    fn upgrade(&self) -> String {
        String::from_utf8(self.upgrade_bytes()).unwrap()
    }

    fn upgrade_bytes(&self) -> Vec<u8> {
        self.ask_bytes(UPGRADE)
    }

    fn publish(&self, number: usize) {
        let body = format!(r#"{{"channel":"news","data":{number}}}"#);
        let answer = self.ask(&format!(
            "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    fn is_healthy(&self) {
        let answer =
            self.ask("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// A publication reaches everybody.
    fn reaches(&self, clients: &mut [Client], number: usize) {
        self.publish(number);
        let wanted = format!(r#""data":{number}"#);
        for client in clients {
            let deadline = Instant::now() + PATIENCE;
            while !client.next_line(PATIENCE).unwrap().expect("open").contains(&wanted) {
                assert!(Instant::now() < deadline);
            }
        }
    }

    fn set_limit(&self, soft: u64, hard: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_child(&self.child);
        let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    }
}

#[test]
fn the_crowd_stays_the_excess_is_told_and_the_api_answers() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 256", "");
    let said = server.logs("listening on");
    assert!(
        said.contains("limit of 256 descriptors (set where this process was started)"),
        "{said}"
    );
    let mut clients = server.fill();
    assert!(said.contains(&format!("room for {} clients", clients.len())), "{said}");
    assert!(clients.len() >= 180, "{} fit", clients.len());
    for number in 0..100 {
        let answer = server.upgrade();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
        assert!(answer.ends_with(r#"{"error":"server full"}"#), "{answer}");
        server.publish(number);
        server.is_healthy();
    }
    server.reaches(&mut clients, 1000);
    // Whoever leaves makes room for one.
    drop(clients.pop());
    let deadline = Instant::now() + PATIENCE;
    let one = std::iter::repeat_with(|| server.connect()).flatten().next();
    assert!(one.is_some() && Instant::now() < deadline);
    let refusals = server.log().lines().filter(|line| line.contains("503 ")).count();
    assert!(refusals <= 10, "one line for many: {}", server.log());
}

#[test]
fn a_flood_that_says_nothing_does_not_lock_out_the_api() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 256", "");
    let mut clients = server.fill();
    let mut flood: Vec<_> = (0..SILENT).map(|_| server.open().unwrap()).collect();
    for number in 0..20 {
        server.publish(number);
        server.is_healthy();
    }
    server.reaches(&mut clients, 1000);
    // The longest silent was reset, which is what its end reads.
    let first = flood[0].read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(first, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_page_can_read_why_it_was_refused() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 256", "clients = 1\nrefuse = \"close\"\n");
    let _clients = server.fill();
    let answer = server.upgrade_bytes();
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    // RFC 6455 5.5.1: a close of 2 + 11 bytes, 3013 in network order.
    assert!(answer.ends_with(b"\x88\x0d\x0b\xc5server full"), "{answer:?}");
}

#[test]
fn at_a_limit_of_1024_no_more_than_70_are_kept_from_the_clients() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 1024", "");
    let said = server.logs("listening on");
    let mut clients = server.fill();
    // What this process leaks into its children is theirs: it is counted, and nobody's fault.
    let room = 1024 - clients.len();
    assert!(room <= 70, "{room} are kept: {said}");
    assert!(said.contains(&format!("room for {} clients", clients.len())), "{said}");
    // Each of those who do not fit comes back twice, many at a time.
    let begin = Instant::now();
    for _ in 0..2 {
        let mut excess: Vec<TcpStream> = (0..EXCESS).map(|_| server.open().unwrap()).collect();
        for stream in &mut excess {
            stream.write_all(UPGRADE.as_bytes()).unwrap();
        }
        for mut stream in excess {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = String::new();
            match stream.read_to_string(&mut answer) {
                Ok(_) => assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        server.publish(0);
        server.is_healthy();
    }
    let lines = server.log().lines().filter(|line| line.contains("503 ")).count() as u64;
    assert!(
        lines <= 1 + begin.elapsed().as_secs() / 10,
        "one line in ten seconds: {}",
        server.log()
    );
    server.reaches(&mut clients, 1);
}

#[test]
fn slow_handshakes_do_not_take_the_clients_places() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 256", "");
    let mut clients = vec![server.connect().unwrap()];
    let mut slow = Vec::new();
    for number in 0..HALF_OPEN {
        // The kernel may still be on its way with those that were cut off.
        let Ok(mut stream) = server.open() else { continue };
        stream.write_all(b"GET /connection/websocket HTTP/1.1\r\nHost: a\r\n").ok();
        slow.push(stream);
        if number % 100 == 0 {
            server.publish(number);
            clients.push(server.connect().expect("a client is let in"));
        }
    }
    server.is_healthy();
    server.reaches(&mut clients, HALF_OPEN);
    let said = server.logs("connections are reset to make room for others");
    let lines = server.log().lines().count();
    assert!(lines < 10, "{said}: {}", server.log());
}

#[test]
fn a_limit_that_is_changed_from_outside_holds_at_once_and_nobody_is_kicked() {
    let dir = Dir::new();
    let server = Running::start(&dir, "-n 1000", "");
    server.set_limit(128, 1000);
    server.logs("the limit is 128 descriptors now");
    let mut clients = server.fill();
    assert!(clients.len() < 128);
    // Less than there is: nobody more gets in, and nobody is thrown out.
    server.set_limit(64, 1000);
    server.logs("the limit is 64 descriptors now");
    assert!(server.upgrade().starts_with("HTTP/1.1 503 ") || server.upgrade().is_empty());
    assert!(server.connect().is_none());
    server.set_limit(1000, 1000);
    // Those who wait, which is: come back until they are let in.
    let deadline = Instant::now() + PATIENCE;
    let waiting: Vec<_> = std::iter::repeat_with(|| server.connect())
        .take_while(|_| Instant::now() < deadline)
        .flatten()
        .take(100)
        .collect();
    assert_eq!(waiting.len(), 100);
    clients.extend(waiting);
    server.reaches(&mut clients, 1);
}

#[test]
fn strict_does_not_start_with_less_than_was_wanted_and_does_with_what_it_advises() {
    let dir = Dir::new();
    let strict = "clients = 2000\nstrict = true\n";
    dir.write(
        "throng.toml",
        &format!("[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[limits]\n{strict}"),
    );
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 256; exec \"$0\" serve -c throng.toml"])
        .arg(env!("CARGO_BIN_EXE_throng"))
        .current_dir(&dir.0)
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("limits.clients = 2000 do not fit: the limit of 256"), "{said}");
    let (_, fix) = said.split_once("to have them, run: ulimit ").unwrap();
    let (limit, rest) = fix.split_once(" before it starts").unwrap();
    assert!(rest.ends_with(" - or unset limits.strict to start with fewer\n"), "{said}");
    let server = Running::start(&dir, limit, strict);
    assert!(server.logs("listening on").contains("room for 2,000 clients"), "{}", server.log());
}

#[test]
fn who_wants_a_long_response_is_told_too_that_none_fits() {
    let dir = Dir::new();
    let config = "clients = 1\n[uni_sse]\nenabled = true\n[http_stream]\nenabled = true\n";
    let server = Running::start(&dir, "-n 256", config);
    let mut clients = server.fill();
    let answer = server.ask("GET /connection/uni_sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "), "{answer}");
    // One whose body comes in pieces, or is too long to be waited for here, is told as well.
    for length in [2, 20_000] {
        let body = " ".repeat(length);
        let answer = server.ask(&format!(
            "POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{length}: {answer}");
    }
    server.is_healthy();
    server.reaches(&mut clients, 1);
}
