//! What slow handshakes do to others: 5,000 connections from 500 addresses send a byte a second each
//! and come back when they are cut off, while a normal client connects again and again. Says how
//! long connecting took, and what became of the slow ones.
//!
//! ```text
//! cargo run --release -p throng-load --example slow -- 127.0.0.1:8000 PID [SLOW] [SECONDS]
//! ```

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    reason = "an example that prints and stops at the first thing that is wrong"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use throng_limits::facts::{cpu_time, memory, process::descriptors};
use throng_wire::websocket::request_key;

const ADDRESSES: usize = 500;
const BYTE_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |text| text.parse().unwrap());
    let address: SocketAddr = arguments.get(1).expect("the server's address").parse().unwrap();
    let pid = u32::try_from(number(2, 0)).unwrap();
    let (count, seconds) = (number(3, 5000), number(4, 15));
    throng_limits::raise::raise_open_files().unwrap();

    let alone = Normal::start(address);
    thread::park_timeout(Duration::from_secs(3));
    say("alone", &alone.finish());

    let mut slow = Slow::new(address, count);
    // Until all are there, and past the first deadline of the server.
    slow.live(Duration::from_secs(3));
    println!("slow         {} of {count} connections are open", slow.open());
    let normal = Normal::start(address);
    let (cpu, begin) = (cpu_time(pid).unwrap(), Instant::now());
    slow.live(Duration::from_secs(seconds as u64));
    let took = normal.finish();
    let core = (cpu_time(pid).unwrap() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
    say("among them", &took);
    println!(
        "slow         {} open at the end; {} were cut off, {} were answered, and came back",
        slow.open(),
        slow.cut,
        slow.answered
    );
    println!(
        "server       {core:.1} % of a core, {:.1} MB, {} descriptors",
        memory(pid).unwrap().resident as f64 / 1e6,
        descriptors(pid).unwrap()
    );
}

fn request(address: SocketAddr) -> String {
    let key = request_key([7; 16]);
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
}

struct Slow {
    address: SocketAddr,
    request: Vec<u8>,
    poll: Poll,
    sockets: Vec<Option<(mio::net::TcpStream, usize)>>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    cut: u64,
    answered: u64,
}

impl Slow {
    fn new(address: SocketAddr, count: usize) -> Self {
        let now = Instant::now();
        Self {
            address,
            request: request(address).into_bytes(),
            poll: Poll::new().unwrap(),
            sockets: (0..count).map(|_| None).collect(),
            // Spread over a second, as they would be.
            due: (0..count)
                .map(|one| Reverse((now + BYTE_EVERY.mul_f64(one as f64 / count as f64), one)))
                .collect(),
            cut: 0,
            answered: 0,
        }
    }

    fn open(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    fn live(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut events = Events::with_capacity(1024);
        while Instant::now() < end {
            while let Some(Reverse((at, one))) = self.due.peek().copied() {
                if at > Instant::now() {
                    break;
                }
                self.due.pop();
                self.turn(one);
                self.due.push(Reverse((at + BYTE_EVERY, one)));
            }
            self.poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
            for event in &events {
                self.hear(event.token().0);
            }
        }
    }

    /// Sends the next byte, or begins.
    fn turn(&mut self, one: usize) {
        match &mut self.sockets[one] {
            Some((socket, sent)) => {
                // A byte that cannot be sent was the last: reading tells.
                socket.write_all(&self.request[*sent..=*sent]).ok();
                *sent = (*sent + 1).min(self.request.len() - 1);
            }
            None => {
                let from = one % ADDRESSES;
                let octet = |number: usize| u8::try_from(number).unwrap();
                let from = Ipv4Addr::new(127, 1, octet(from / 250), octet(from % 250 + 1));
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
                socket.set_nonblocking(true).unwrap();
                match socket.connect(&self.address.into()) {
                    Err(error) if error.raw_os_error() != Some(115) => panic!("{error}"),
                    _ => {}
                }
                let mut socket = mio::net::TcpStream::from_std(socket.into());
                self.poll.registry().register(&mut socket, Token(one), Interest::READABLE).unwrap();
                self.sockets[one] = Some((socket, 0));
            }
        }
    }

    fn hear(&mut self, one: usize) {
        let Some((socket, _)) = &mut self.sockets[one] else { return };
        let mut answer = [0; 512];
        match socket.read(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(count) if count > 0 => self.answered += 1,
            Ok(_) | Err(_) => self.cut += 1,
        }
        self.sockets[one] = None;
    }
}

/// A client that connects, is let in, leaves, and does so again.
struct Normal {
    going: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Result<Duration, String>>>,
}

impl Normal {
    fn start(address: SocketAddr) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let thread = {
            let going = Arc::clone(&going);
            thread::spawn(move || {
                let mut took = Vec::new();
                while going.load(Ordering::Relaxed) {
                    took.push(enter(address));
                    thread::park_timeout(PAUSE);
                }
                took
            })
        };
        Self { going, thread }
    }

    fn finish(self) -> Vec<Result<Duration, String>> {
        self.going.store(false, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn enter(address: SocketAddr) -> Result<Duration, String> {
    let begin = Instant::now();
    let enter = || -> std::io::Result<[u8; 12]> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(request(address).as_bytes())?;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer)?;
        Ok(answer)
    };
    match enter() {
        Ok(answer) if answer.ends_with(b" 101") => Ok(begin.elapsed()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn say(when: &str, took: &[Result<Duration, String>]) {
    let mut well: Vec<f64> =
        took.iter().flatten().map(|time| time.as_secs_f64() * 1000.0).collect();
    well.sort_by(f64::total_cmp);
    let at = |part: f64| {
        well.get((well.len() as f64 * part) as usize).or(well.last()).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{when:<12} {} of {} normal clients were let in, within {:.1} ms (p50), {:.1} (p99), {:.1} (all)",
        well.len(),
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    if let Some(Err(why)) = took.iter().find(|one| one.is_err()) {
        println!("{:<12} for one of the others: {why}", "");
    }
}
