//! What stalled clients cost: a crowd that stops reading beside one that reads, while much is
//! published. Says how far the server grew, when the kernel's memory came back, and whether those
//! who read got everything.
//!
//! ```text
//! cargo run --release -p throng-load --example stalled -- 127.0.0.1:8000 PID [MB] [MB/s] [KB a message]
//! ```

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    clippy::panic_in_result_fn,
    reason = "an example that prints and stops at the first thing that is wrong"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use throng_limits::facts::memory;
use throng_limits::facts::process::descriptors;
use throng_wire::websocket::{Opcode, put_client_frame, request_key};

const STALLED: usize = 1000;
const READING: usize = 100;
const CHANNEL: &str = "load";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: u64| arguments.get(at).map_or(or, |text| text.parse().unwrap());
    let address = arguments.get(1).expect("the server's address").clone();
    let (pid, total_mb, rate_mb, size_kb) =
        (u32::try_from(number(2, 0)).unwrap(), number(3, 100), number(4, 20), number(5, 16));
    throng_limits::raise::raise_open_files().unwrap();

    let stalled: Vec<TcpStream> = (0..STALLED).map(|_| enter(&address)).collect();
    let data = format!("\"{}\"", "x".repeat(usize::try_from(size_kb).unwrap() * 1024));
    let messages = total_mb * 1024 / size_kb;
    let got = Arc::new(AtomicU64::new(0));
    let whole = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..READING)
        .map(|_| {
            let socket = enter(&address);
            let (got, whole) = (Arc::clone(&got), Arc::clone(&whole));
            let wanted = messages * (data.len() as u64);
            thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || {
                    if read_all(socket, wanted, &got) {
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .unwrap()
        })
        .collect();

    let before = memory(pid).unwrap().resident;
    let kernel_before = kernel_memory();
    println!("before     server {:.1} MB, TCP {:.1} MB", mb(before), mb(kernel_before));
    let watching = Arc::new(AtomicBool::new(true));
    let peaks = watch(pid, Arc::clone(&watching));
    let start = Instant::now();
    publish(&address, &data, messages, rate_mb);
    let published = start.elapsed();
    for reader in readers {
        reader.join().unwrap();
    }
    println!(
        "published  {total_mb} MB in {messages} messages within {:.1} s; {READING} readers had all after {:.1} s: {} of {READING}, {:.0} MB in all",
        published.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        whole.load(Ordering::Relaxed),
        mb(got.load(Ordering::Relaxed)),
    );
    let settled = Instant::now();
    while descriptors(pid).unwrap() > STALLED as u64 && settled.elapsed() < Duration::from_secs(20)
    {
        thread::park_timeout(Duration::from_millis(20));
    }
    let closed = start.elapsed();
    // What is left is what the stalled clients were sent and have not read: theirs, not the
    // server's.
    let left = kernel_memory().saturating_sub(kernel_before);
    let unread: u64 =
        stalled.iter().map(|socket| rustix::io::ioctl_fionread(socket).unwrap_or(0)).sum();
    watching.store(false, Ordering::Relaxed);
    let (server_peak, kernel_peak) = peaks.join().unwrap();
    println!(
        "peak       server +{:.1} MB, TCP +{:.1} MB",
        mb(server_peak.saturating_sub(before)),
        mb(kernel_peak.saturating_sub(kernel_before))
    );
    println!(
        "closed     the stalled ones were gone from the server {:.1} s after the first publication; server +{:.1} MB",
        closed.as_secs_f64(),
        mb(memory(pid).unwrap().resident.saturating_sub(before)),
    );
    println!(
        "           TCP +{:.1} MB, with {:.1} MB unread in the stalled clients' own buffers",
        mb(left),
        mb(unread)
    );
    drop(stalled);
    thread::park_timeout(Duration::from_millis(500));
    println!("dropped    TCP +{:.1} MB", mb(kernel_memory().saturating_sub(kernel_before)));
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Connects, subscribes, and reads up to the subscribe reply.
fn enter(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    let key = request_key([7; 16]);
    write!(socket, "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").unwrap();
    let mut frame = Vec::new();
    let commands = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{CHANNEL}\"}}}}"
    );
    put_client_frame(Opcode::Text, [1, 2, 3, 4], commands.as_bytes(), &mut frame);
    socket.write_all(&frame).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0; 1];
    while !seen.ends_with(b"\"subscribe\":{}}") {
        socket.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    socket
}

/// Reads until all payloads have come. Counts the payload's letter, which nothing else has in
/// such numbers.
fn read_all(mut socket: TcpStream, wanted: u64, got: &AtomicU64) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes: u64 = 0;
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    while bytes < wanted {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(n) => {
                bytes += n as u64;
                got.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    }
    true
}

fn publish(address: &str, data: &str, messages: u64, rate_mb: u64) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let body = format!("{{\"channel\":\"{CHANNEL}\",\"data\":{data}}}");
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let pause = Duration::from_secs_f64(data.len() as f64 / 1e6 / rate_mb as f64);
    let mut due = Instant::now();
    for _ in 0..messages {
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(early);
        }
        due += pause;
        socket.write_all(request.as_bytes()).unwrap();
        answer(&mut socket).unwrap();
    }
}

/// Reads one answer, which must be a result.
fn answer(socket: &mut TcpStream) -> io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let got = socket.read(&mut buffer)?;
        seen.extend_from_slice(&buffer[..got]);
        let text = String::from_utf8_lossy(&seen);
        if text.ends_with("{\"result\":{}}") {
            return Ok(());
        }
        assert!(got > 0 && !text.contains("\"error\""), "{text}");
    }
}

/// Bytes of socket buffers in this network namespace.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let pages: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

fn watch(pid: u32, watching: Arc<AtomicBool>) -> thread::JoinHandle<(u64, u64)> {
    thread::spawn(move || {
        let mut peaks = (0, 0);
        while watching.load(Ordering::Relaxed) {
            let resident = memory(pid).map_or(0, |memory| memory.resident);
            peaks = (peaks.0.max(resident), peaks.1.max(kernel_memory()));
            thread::park_timeout(Duration::from_millis(20));
        }
        peaks
    })
}
