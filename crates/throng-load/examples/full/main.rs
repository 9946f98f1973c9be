//! What happens to a server that is full: 3,000 clients under a limit of 1,024 descriptors, and
//! those who do not fit come back and back. Says who was let in, how fast the others were told,
//! what telling them cost beside a bare accept, read, 503, close loop, whether everybody inside
//! got every broadcast, and whether the API and /health answered.
//!
//! ```text
//! cargo run --release -p throng-load --example full -- target/release/throng
//! cargo run --release -p throng-load --example full -- target/release/throng --lift
//! cargo run --release -p throng-load --example full -- --at 127.0.0.1:8888/ws PID [LOG]
//! ```
//!
//! The first starts the server under `ulimit -n 1024`. `--lift` then raises the limit to 4,096
//! from outside and says when the rest of the crowd was in. The last looks at any other WebSocket
//! server that runs under such a limit.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    reason = "an example that prints and stops at the first thing that is wrong"
)]

mod bare;
mod crowd;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crowd::Crowd;
use throng_limits::facts::cpu_time;

const CLIENTS: usize = 3000;
const STORM: Duration = Duration::from_secs(10);
const CALLS: usize = 100;
/// How long an answer may take before it is counted as none.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => bare::serve(),
        Some("--at") => {
            let (address, path) = arguments[1].split_once('/').expect("ADDRESS/PATH");
            let pid = arguments[2].parse().unwrap();
            let log = arguments.get(3).map(PathBuf::from);
            let server = Server { address: address.parse().unwrap(), pid, log, child: None };
            measure(&server, &format!("/{path}"), false, false);
        }
        Some(program) => {
            let lift = arguments.iter().any(|argument| argument == "--lift");
            let server = Server::start(program, lift);
            measure(&server, "/connection/websocket", true, lift);
        }
        None => println!("see the first lines of this example's source"),
    }
}

struct Server {
    address: SocketAddr,
    pid: u32,
    log: Option<PathBuf>,
    child: Option<Child>,
}

impl Server {
    fn start(program: &str, lift: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("throng-full-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = {port}\n[client]\ninsecure = true\n\
             [http_api]\ninsecure = true\n[health]\nenabled = true\n"
        );
        fs::write(dir.join("throng.toml"), config).unwrap();
        let log = dir.join("log");
        let limit = if lift { "-n 4096" } else { "-n 1024" };
        let program = fs::canonicalize(program).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit {limit}; exec \"$0\" serve -c throng.toml")])
            .arg(program)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < PATIENCE, "{}", fs::read_to_string(&log).unwrap());
            thread::park_timeout(Duration::from_millis(10));
        }
        let server = Self { address, pid: child.id(), log: Some(log), child: Some(child) };
        if lift {
            server.limit(1024, 4096);
            thread::park_timeout(Duration::from_secs(2));
        }
        server
    }

    fn limit(&self, soft: u64, hard: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap());
        let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    fn log_size(&self) -> (usize, usize) {
        let text = self.log.as_ref().map(|log| fs::read(log).unwrap()).unwrap_or_default();
        (text.iter().filter(|byte| **byte == b'\n').count(), text.len())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn measure(server: &Server, path: &str, speaks: bool, lift: bool) {
    throng_limits::raise::raise_open_files().unwrap();
    let mut crowd = Crowd::new(server.address, path, speaks, CLIENTS);
    let mut growth = (0, Instant::now());
    crowd.live(Duration::from_secs(30), |crowd| {
        if crowd.inside() > growth.0 {
            growth = (crowd.inside(), Instant::now());
        }
        growth.1.elapsed() > Duration::from_secs(3) && crowd.settled()
    });
    let inside = crowd.inside();
    println!("clients      {inside} of {CLIENTS} are in");
    say_told("at first", &crowd);

    crowd.forget();
    let caller = Caller::start(server.address, speaks, Duration::from_secs(1));
    let (log, cpu, begin) = (server.log_size(), cpu_time(server.pid).unwrap(), Instant::now());
    crowd.live(STORM, |_| false);
    let took = begin.elapsed();
    let core = share(cpu_time(server.pid).unwrap() - cpu, took);
    let (lines, bytes) = (server.log_size().0 - log.0, server.log_size().1 - log.1);
    let called = caller.finish();
    crowd.live(Duration::from_secs(5), |crowd| crowd.heard(called.published) == inside);
    say_told("in the storm", &crowd);
    println!("cpu          {core:.2} % of a core, over {:.1} s", took.as_secs_f64());
    println!("log          {lines} lines, {bytes} bytes");
    say_inside(&crowd, speaks, inside, &called);

    crowd.forget();
    let caller = Caller::start(server.address, speaks, Duration::from_millis(20));
    crowd.live(Duration::from_secs(60), |_| caller.calls.load(Ordering::Relaxed) as usize >= CALLS);
    let called = caller.finish();
    crowd.live(Duration::from_secs(5), |crowd| crowd.heard(called.published) == inside);
    say_inside(&crowd, speaks, inside, &called);

    if lift {
        lifted(server, &mut crowd);
    }
    drop(crowd);

    let rival = bare::Bare::start();
    let mut excess = Crowd::new(rival.address, path, false, CLIENTS - inside);
    excess.live(Duration::from_secs(3), |_| false);
    excess.forget();
    let (cpu, begin) = (cpu_time(rival.pid()).unwrap(), Instant::now());
    excess.live(STORM, |_| false);
    let bare = share(cpu_time(rival.pid()).unwrap() - cpu, begin.elapsed());
    say_told("bare loop", &excess);
    println!("cpu          {bare:.2} % of a core for the bare loop: {:.2} of it", core / bare);
}

/// Raises the limit, and waits until the rest is in.
fn lifted(server: &Server, crowd: &mut Crowd) {
    let before = crowd.inside();
    let begin = Instant::now();
    server.limit(4096, 4096);
    crowd.live(Duration::from_secs(20), |crowd| crowd.inside() == CLIENTS);
    println!(
        "lifted       {} of {CLIENTS} in {:.2} s after prlimit, {before} before; {} dropped",
        crowd.inside(),
        begin.elapsed().as_secs_f64(),
        crowd.dropped()
    );
}

fn share(cpu: Duration, of: Duration) -> f64 {
    cpu.as_secs_f64() / of.as_secs_f64() * 100.0
}

fn say_told(when: &str, crowd: &Crowd) {
    let tally = &crowd.tally;
    let mut told = tally.told.clone();
    told.sort_by(f64::total_cmp);
    let at = |part: f64| told.get(((told.len() as f64) * part) as usize).or(told.last());
    let ms = |part: f64| at(part).map_or(f64::NAN, |seconds| seconds * 1000.0);
    println!(
        "{when:<12} {} attempts: {} told 503, {} reset, {} otherwise, {} left hanging; told within {:.1} ms (p50), {:.1} (p99), {:.0} (all)",
        tally.attempts,
        tally.refused,
        tally.reset,
        tally.other,
        tally.hanging,
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
}

fn say_inside(crowd: &Crowd, speaks: bool, inside: usize, called: &Called) {
    let Called { published, answered, longest, asked } = called;
    if speaks {
        println!(
            "inside       {} of {inside} got all of {published} broadcasts; {} were dropped",
            crowd.heard(*published),
            crowd.dropped()
        );
    }
    println!(
        "api          {answered} of {asked} calls on new connections answered, the longest in {:.1} ms",
        longest.as_secs_f64() * 1000.0
    );
}

/// Somebody who publishes, and asks how the server is, each time on a connection of its own.
struct Caller {
    calls: Arc<AtomicU32>,
    going: Arc<AtomicBool>,
    thread: JoinHandle<Called>,
}

#[derive(Default)]
struct Called {
    published: u32,
    asked: u32,
    answered: u32,
    longest: Duration,
}

impl Caller {
    fn start(address: SocketAddr, publishes: bool, pause: Duration) -> Self {
        let (going, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let thread = {
            let (going, calls) = (Arc::clone(&going), Arc::clone(&calls));
            thread::spawn(move || {
                let mut called = Called::default();
                while going.load(Ordering::Relaxed) {
                    if publishes {
                        let body = "{\"channel\":\"load\",\"data\":1}";
                        let head = format!("Content-Length: {}\r\n\r\n{body}", body.len());
                        if called.ask(address, "POST /api/publish", &head) {
                            called.published += 1;
                        }
                        called.ask(address, "GET /health", "\r\n");
                    } else {
                        called.ask(address, "GET /", "\r\n");
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    thread::park_timeout(pause);
                }
                called
            })
        };
        Self { calls, going, thread }
    }

    fn finish(self) -> Called {
        self.going.store(false, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap()
    }
}

impl Called {
    fn ask(&mut self, address: SocketAddr, line: &str, rest: &str) -> bool {
        self.asked += 1;
        let begin = Instant::now();
        let ask = || -> std::io::Result<bool> {
            let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            write!(socket, "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{rest}")?;
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer)?;
            Ok(answer.starts_with(b"HTTP/1.1 200 "))
        };
        let answered = ask().unwrap_or(false);
        self.longest = self.longest.max(begin.elapsed());
        self.answered += u32::from(answered);
        answered
    }
}
