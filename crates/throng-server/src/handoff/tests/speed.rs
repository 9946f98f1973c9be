//! How long everything stands still; measured when asked, and never judged by a test:
//!
//! ```text
//! cargo test --release -p throng-server --lib how_long_a_freeze_takes -- --ignored --nocapture
//! ```

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use throng_hub::request::{Request, Retention};
use throng_wire::websocket::{Opcode, put_client_frame};

use super::property::{settings, token};
use super::threads::{Server, runtime};
use super::world::publication;
use crate::config::Settings;

/// As many as fit, once here and once in the copy, below a limit of 20,000 descriptors.
const CONNECTIONS: usize = 9_000;
const ROUNDS: usize = 5;
/// Publications of the history, of a kilobyte each.
const HISTORY: usize = 500_000;

fn per_ten_thousand(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3 * 10_000.0 / CONNECTIONS as f64
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// A server with a crowd: each has a channel of its own and two that all have.
fn crowded(settings: &Arc<Settings>, runtime: &tokio::runtime::Runtime) -> (Server, UnixStream) {
    let server = Server::start(settings, 2, runtime);
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    // All of them are one socket, so that they cost one descriptor each; nobody talks on it.
    let drain = far.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut drain = drain;
        let mut buffer = vec![0; 1 << 20];
        while matches!(drain.read(&mut buffer), Ok(1..)) {}
    });
    for at in 0..CONNECTIONS {
        let mut said = Vec::new();
        let token = token(&format!("user{at}"));
        let mut say =
            |text: String| put_client_frame(Opcode::Text, [1, 2, 3, 4], text.as_bytes(), &mut said);
        say(format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        for channel in [format!("own{at}"), "plain".to_owned(), "kept:one".to_owned()] {
            say(format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        }
        let socket = OwnedFd::from(near.try_clone().unwrap());
        server.receive(socket.into(), Bytes::from(said), at);
    }
    let start = Instant::now();
    while server.front.common.node.counts().subscriptions < 3 * CONNECTIONS {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{:?}",
            server.front.common.node.counts()
        );
        std::thread::yield_now();
    }
    (server, far)
}

fn fill_history(server: &Server) {
    let data = Bytes::from("h".repeat(1000));
    let common = &server.front.common;
    for at in 0..HISTORY {
        let retention = Retention { size: 1000, ttl_ms: 3_600_000, meta_ttl_ms: 3_600_000 };
        let channel = format!("kept:h{}", at % 1000);
        let publish = publication(&channel, Bytes::copy_from_slice(&data), retention);
        let (to, _) = common.desk.ask();
        common.node.call(Request::Publish(publish), to, server.front.clock.now());
        common.desk.forget(to);
    }
}

fn measure(
    server: &Server,
    settings: &Arc<Settings>,
    runtime: &tokio::runtime::Runtime,
    what: &str,
) {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (loading, mut frozen, sockets) = server.prepare(settings, 2, runtime);
        let froze = frozen.since().elapsed();
        let load_cpu = cpu();
        loading.adopt(std::mem::take(&mut *sockets.0.lock())).unwrap();
        let cargo = frozen.take_cargo();
        let bytes: usize = cargo.shards.iter().map(Vec::len).sum();
        let more = cargo.changes.len() + cargo.common.len();
        let start = Instant::now();
        let loaded = loading.load(cargo).unwrap();
        let took = start.elapsed();
        let load_cpu = cpu() - load_cpu;
        assert_eq!(loaded.connections, CONNECTIONS as u64);
        drop((loading, frozen));
        // Its shards close their copies in threads of their own.
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        while open() > CONNECTIONS + 1000 {
            std::thread::yield_now();
        }
        crate::handoff::Freezer::new(Arc::clone(&server.front)).forget_copies();
        times.push((froze + took, froze, took, load_cpu, bytes / CONNECTIONS, more));
    }
    times.sort();
    for (all, froze, took, load_cpu, bytes, more) in &times {
        println!(
            "{what}: {:.2} ms per 10,000 connections: stop and write {:.2}, load {:.2} \
             (of processor time, {:.2}); {bytes} bytes each, {more} bytes beside",
            per_ten_thousand(*all),
            per_ten_thousand(*froze),
            per_ten_thousand(*took),
            per_ten_thousand(*load_cpu)
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn how_long_a_freeze_takes() {
    let mut settings = Settings::clone(&settings());
    settings.client.ping_interval = Duration::ZERO;
    let settings = Arc::new(settings);
    let runtime = runtime();
    let (server, far) = crowded(&settings, &runtime);
    measure(&server, &settings, &runtime, "without history");
    fill_history(&server);
    measure(&server, &settings, &runtime, "with 500 MB of history");
    drop(far);
    // Its threads end with the process: nobody is told anything.
    std::mem::forget(server);
}
