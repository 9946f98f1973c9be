//! A crowd that is handed from process to process: clients with live traffic, some of which are in
//! the middle of a frame at any moment, while the server restarts again and again. Says how many
//! connections closed, what was lost, doubled or out of order, and how long everybody waited.
//!
//! ```text
//! cargo run --release -p throng-load --example restarts -- THRONG 127.0.0.1:8000 PID [CLIENTS] [RESTARTS]
//! ```
//!
//! The server has a channel namespace `kept` with history and recovery, lets everybody subscribe and
//! publish, and needs no key for its API (benches/restarts.toml).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::panic_in_result_fn,
    reason = "an example that prints and stops at the first thing that is wrong"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use throng_wire::websocket::{Opcode, put_client_frame, request_key};

/// Clients of the crowd on one connection each, which only listen and count offsets.
const CHANNELS: usize = 10;
/// Clients that send every frame in pieces, so that some are halfway whenever a process freezes.
const SPLITTERS: usize = 50;
/// Publishers, each on a connection that it keeps.
const PUBLISHERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What everybody counts.
#[derive(Default)]
struct Count {
    closed: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    received: AtomicU64,
    published: AtomicU64,
    failed: AtomicU64,
    reconnected: AtomicU64,
    echoed: AtomicU64,
    worst_pause_us: AtomicU64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |text| text.parse().unwrap());
    let (program, address) = (arguments[1].clone(), arguments[2].clone());
    let (mut pid, clients, restarts) = (number(3, 0), number(4, 15_000), number(5, 20));
    throng_limits::raise::raise_open_files().unwrap();
    let count = Arc::new(Count::default());
    let going = Arc::new(AtomicBool::new(true));

    let begun = Instant::now();
    let crowd = Crowd::enter(&address, clients);
    println!("crowd      {clients} clients in {:.1} s", begun.elapsed().as_secs_f64());
    let mut threads = vec![crowd.listen(&count, &going)];
    for number in 0..SPLITTERS {
        threads.push(split(&address, number, &count, &going));
    }
    for number in 0..PUBLISHERS {
        threads.push(publish(&address, number, &count, &going));
    }

    let mut frozen = Vec::new();
    for restart in 1..=restarts {
        thread::park_timeout(Duration::from_millis(500));
        let output = Command::new(&program)
            .args(["restart", "--json", "--pid", &pid.to_string()])
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let outcome = &said["outcome"];
        assert!(output.status.success(), "restart {restart}: {outcome}");
        pid = usize::try_from(outcome["to"]["pid"].as_u64().unwrap()).unwrap();
        frozen.push(outcome["frozen_us"].as_u64().unwrap());
    }
    thread::park_timeout(Duration::from_secs(1));
    going.store(false, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    frozen.sort_unstable();
    let ms = |us: u64| us as f64 / 1000.0;
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "restarts   {restarts}: frozen {:.1} ms at the median ({:.2} ms per 10,000 connections), {:.1} at most",
        ms(frozen[frozen.len() / 2]),
        ms(frozen[frozen.len() / 2]) * 10_000.0 / clients as f64,
        ms(frozen[frozen.len() - 1]),
    );
    println!(
        "clients    closed {}, received {}, lost {}, doubled or out of order {}",
        get(&count.closed),
        get(&count.received),
        get(&count.lost),
        get(&count.doubled)
    );
    println!(
        "split      {} frames sent in pieces were answered; the longest wait for one was {:.0} ms",
        get(&count.echoed),
        ms(get(&count.worst_pause_us))
    );
    println!(
        "publishers published {}, failed {}, told to come again on a new connection {}",
        get(&count.published),
        get(&count.failed),
        get(&count.reconnected)
    );
    println!("server     pid {pid}");
}

/// Many clients on one thread, read in turn.
struct Crowd(Vec<Listener>);

struct Listener {
    socket: TcpStream,
    seen: Vec<u8>,
    /// The offset that is due next; 0 until the first publication.
    due: u64,
}

impl Crowd {
    fn enter(address: &str, clients: usize) -> Self {
        let enter = |number: usize| {
            let (socket, seen) = enter(address, &format!("kept:{}", number % CHANNELS));
            socket.set_nonblocking(true).unwrap();
            Listener { socket, seen, due: 0 }
        };
        Self((0..clients).map(enter).collect())
    }

    fn listen(mut self, count: &Arc<Count>, going: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
        let (count, going) = (Arc::clone(count), Arc::clone(going));
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // One more round when it is over: what was sent until then has arrived.
            let mut last = false;
            while !last {
                last = !going.load(Ordering::Relaxed);
                self.0.retain_mut(|listener| listener.read(&mut buffer, &count));
                thread::park_timeout(Duration::from_millis(5));
            }
        })
    }
}

impl Listener {
    /// Whether the connection is still there.
    fn read(&mut self, buffer: &mut [u8], count: &Count) -> bool {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => break,
                Ok(read) => self.seen.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.take(count);
                    return true;
                }
                Err(_) => break,
            }
        }
        count.closed.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Looks at every whole frame that has come.
    fn take(&mut self, count: &Count) {
        let (mut at, mut offsets, mut pings) = (0, Vec::new(), 0);
        while let Some((text, end)) = frame(&self.seen, at) {
            at = end;
            let lines = text.split(|byte| *byte == b'\n');
            pings += lines.clone().filter(|line| *line == b"{}").count();
            offsets.extend(lines.filter_map(offset_of));
        }
        self.seen.drain(..at);
        for _ in 0..pings {
            let mut pong = Vec::new();
            put_client_frame(Opcode::Text, [9, 8, 7, 6], b"{}", &mut pong);
            self.socket.write_all(&pong).unwrap();
        }
        offsets.into_iter().for_each(|offset| self.note(offset, count));
    }

    fn note(&mut self, offset: u64, count: &Count) {
        count.received.fetch_add(1, Ordering::Relaxed);
        if self.due != 0 && offset < self.due {
            count.doubled.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.due != 0 {
            count.lost.fetch_add(offset - self.due, Ordering::Relaxed);
        }
        self.due = offset + 1;
    }
}

/// The payload of the unmasked frame that begins at a place, and where it ends.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(at..at + 2)?;
    assert_eq!(head[0] & 0x0f, 1, "a text frame, not {head:?}");
    let (length, from) = match head[1] {
        126 => {
            let more = bytes.get(at + 2..at + 4)?;
            (usize::from(u16::from_be_bytes([more[0], more[1]])), at + 4)
        }
        127 => {
            let more = bytes.get(at + 2..at + 10)?;
            let length = u64::from_be_bytes(more.try_into().unwrap());
            (usize::try_from(length).unwrap(), at + 10)
        }
        short => (usize::from(short), at + 2),
    };
    Some((bytes.get(from..from + length)?, from + length))
}

fn offset_of(line: &[u8]) -> Option<u64> {
    const MARK: &[u8] = b"\"offset\":";
    let at = line.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) * 10 + u64::from(digit - b'0')))
}

/// Connects and subscribes; what came behind the reply is kept.
fn enter(address: &str, channel: &str) -> (TcpStream, Vec<u8>) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let key = request_key([7; 16]);
    write!(socket, "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").unwrap();
    let mut out = Vec::new();
    let commands = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"
    );
    put_client_frame(Opcode::Text, [1, 2, 3, 4], commands.as_bytes(), &mut out);
    socket.write_all(&out).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        let got = socket.read(&mut buffer).unwrap();
        assert!(got > 0, "the server ended the connection");
        seen.extend_from_slice(&buffer[..got]);
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    seen.drain(..head);
    loop {
        let mut at = 0;
        while let Some((text, end)) = frame(&seen, at) {
            at = end;
            if text.windows(6).any(|window| window == b"\"id\":2") {
                assert!(!text.windows(7).any(|window| window == b"\"error\""), "{text:?}");
                seen.drain(..at);
                return (socket, seen);
            }
        }
        let got = socket.read(&mut buffer).unwrap();
        assert!(got > 0, "the server ended the connection");
        seen.extend_from_slice(&buffer[..got]);
    }
}

/// A client whose every command crosses in two pieces, a moment apart, and is answered.
fn split(
    address: &str,
    number: usize,
    count: &Arc<Count>,
    going: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let (address, count, going) = (address.to_owned(), Arc::clone(count), Arc::clone(going));
    let work = move || {
        let (mut socket, mut seen) = enter(&address, &format!("kept:split{number}"));
        let mut buffer = [0; 4096];
        let mut id = 2_u64;
        while going.load(Ordering::Relaxed) {
            id += 1;
            let mut out = Vec::new();
            let command =
                format!("{{\"id\":{id},\"history\":{{\"channel\":\"kept:split{number}\"}}}}");
            put_client_frame(Opcode::Text, [1, 2, 3, 4], command.as_bytes(), &mut out);
            let (first, rest) = out.split_at(out.len() / 2);
            socket.write_all(first).unwrap();
            thread::park_timeout(Duration::from_millis(7 + number as u64 % 5));
            socket.write_all(rest).unwrap();
            let asked = Instant::now();
            let wanted = format!("\"id\":{id}");
            loop {
                // Pings on the way are answered, whole.
                let mut found = false;
                let mut at = 0;
                while let Some((text, end)) = frame(&seen, at) {
                    at = end;
                    found |= text.windows(wanted.len()).any(|part| part == wanted.as_bytes());
                    if text == b"{}" {
                        let mut pong = Vec::new();
                        put_client_frame(Opcode::Text, [9, 8, 7, 6], b"{}", &mut pong);
                        socket.write_all(&pong).unwrap();
                    }
                }
                seen.drain(..at);
                if found {
                    break;
                }
                match socket.read(&mut buffer) {
                    Ok(got) if got > 0 => seen.extend_from_slice(&buffer[..got]),
                    _ => {
                        count.closed.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
            }
            let waited = u64::try_from(asked.elapsed().as_micros()).unwrap();
            count.worst_pause_us.fetch_max(waited, Ordering::Relaxed);
            count.echoed.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::Builder::new().stack_size(256 * 1024).spawn(work).unwrap()
}

/// Publishes on a connection that is kept until the server says otherwise.
fn publish(
    address: &str,
    number: usize,
    count: &Arc<Count>,
    going: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let (address, count, going) = (address.to_owned(), Arc::clone(count), Arc::clone(going));
    thread::spawn(move || {
        let mut socket = TcpStream::connect(&address).unwrap();
        let mut sent = 0;
        while going.load(Ordering::Relaxed) {
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            sent += 1;
            let channel = (number + sent * PUBLISHERS) % CHANNELS;
            let body = format!("{{\"channel\":\"kept:{channel}\",\"data\":{{\"n\":{sent}}}}}");
            let request = format!(
                "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            match ask(&mut socket, &request) {
                Some((true, closes)) => {
                    count.published.fetch_add(1, Ordering::Relaxed);
                    if closes {
                        count.reconnected.fetch_add(1, Ordering::Relaxed);
                        socket = TcpStream::connect(&address).unwrap();
                    }
                }
                _ => {
                    count.failed.fetch_add(1, Ordering::Relaxed);
                    socket = TcpStream::connect(&address).unwrap();
                }
            }
            thread::park_timeout(Duration::from_millis(40));
        }
    })
}

/// Whether a request was answered with a result, and whether the connection ends after it.
fn ask(socket: &mut TcpStream, request: &str) -> Option<(bool, bool)> {
    socket.write_all(request.as_bytes()).ok()?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let got = socket.read(&mut buffer).ok().filter(|got| *got > 0)?;
        seen.extend_from_slice(&buffer[..got]);
        let text = String::from_utf8_lossy(&seen);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1)?.lines().next()?.trim().parse().ok()?;
        if body.len() >= length {
            let good = head.starts_with("http/1.1 200") && body.contains("\"result\"");
            return Some((good, head.contains("connection: close")));
        }
    }
}
