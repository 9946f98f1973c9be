//! What a full reading of one process costs on a crowded machine, beside `ss -tanp` and `lsof`.
//!
//!     cargo run --release -p throng-limits --example crowded [-- --no-ss]
//!
//! Six processes hold 100,000 sockets among them, in pairs over loopback; one of them, with 19,000
//! connections behind a listener and all of them in an epoll, is looked at. Each way of looking is
//! a process of its own, and what counts is the processor time that the kernel charges for it.
//! `ss -tanp` may take minutes; `--no-ss` leaves it out.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use throng_limits::descriptors::{Descriptors, count, descriptors, watches};
use throng_limits::sockets::{Sockets, open_and_sockets, sockets};
use throng_limits::{Tree, raise};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// Connections of each pair of processes: the one that is looked at first. No process may have
/// more than 20,000 descriptors on the machines that this runs on.
const PAIRS: [u32; 3] = [19_000, 19_800, 11_300];
/// How often the quick ways are taken; the kernel counts in hundredths of a second.
const ROUNDS: u32 = 20;
const LSOF_ROUNDS: u32 = 3;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => bench(true),
        ["--no-ss"] => bench(false),
        ["hold", connections] => hold(connections.parse()?),
        ["connect", to, connections] => connect(to.parse()?, connections.parse()?),
        ["look", pid] => {
            let pid = pid.parse()?;
            look(pid, |tree| {
                let (open, found) = open_and_sockets(tree, pid, u64::MAX);
                Ok((open?, found))
            })
        }
        ["look-at-each", pid] => {
            let pid = pid.parse()?;
            look(pid, |tree| {
                let open = descriptors(tree, pid)?;
                let found = sockets(tree, pid, Some(&open));
                Ok((open, found))
            })
        }
        _ => Err("unknown arguments; the only option is --no-ss".into()),
    }
}

/// A process that serves.
fn hold(connections: u32) -> Done {
    raise::raise_open_files()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Who finds a full queue tries again after a second: on a busy machine that would take hours.
    rustix::net::listen(&listener, 4096)?;
    say(&listener.local_addr()?.to_string())?;
    let watching = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut held = Vec::new();
    for number in 0..connections {
        let (connection, _) = listener.accept()?;
        let data = epoll::EventData::new_u64(u64::from(number));
        epoll::add(&watching, &connection, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        held.push(connection);
    }
    wait_for_the_end()
}

/// A process of clients.
fn connect(to: SocketAddr, connections: u32) -> Done {
    raise::raise_open_files()?;
    let held: Result<Vec<_>, _> = (0..connections).map(|_| TcpStream::connect(to)).collect();
    let _held = held?;
    wait_for_the_end()
}

/// The whole of our own reading: `read` is how the descriptors and sockets are.
fn look(pid: u32, read: impl Fn(&Tree) -> Done<(Descriptors, Sockets)>) -> Done {
    let tree = Tree::live();
    let number = count(&tree, pid)?;
    let (open, found) = read(&tree)?;
    let watched = watches(&tree, pid, &open);
    let owned = found.owned.ok_or("its descriptors cannot be seen")?;
    say(&format!(
        "{number} descriptors ({} counted), {} sockets, {} connections in, {} peers, watched by epoll: {:?}, way \
         {:?}, {} waiting",
        open.crowd.len(),
        owned.sockets,
        owned.inbound,
        owned.peers_in_all,
        watched.epoll,
        found.way,
        found.listeners.iter().map(|listener| listener.waiting).sum::<u32>(),
    ))
}

fn bench(with_ss: bool) -> Done {
    let mut crowd = Vec::new();
    let mut target = None;
    for connections in PAIRS {
        let mut server = start(&["hold", &connections.to_string()])?;
        let address = heard(&mut server)?;
        let mut clients = start(&["connect", &address, &connections.to_string()])?;
        for child in [&mut server, &mut clients] {
            let ready = heard(child)?;
            say(&format!("pid {} with {connections} connections: {ready}", child.id()))?;
        }
        target.get_or_insert(server.id());
        crowd.extend([server, clients]);
    }
    let target = target.ok_or("no process")?.to_string();
    let own = std::env::current_exe()?;
    let own = own.to_str().ok_or("the path of this program is not UTF-8")?;
    for way in ["look", "look-at-each"] {
        say(&String::from_utf8(Command::new(own).args([way, &target]).output()?.stdout)?)?;
    }
    say("way                 rounds   wall      CPU   (of one round)")?;
    // Before and behind each of the others: a machine is busier at one time than at another.
    let ours = || measured("this reading", ROUNDS, &[own, "look", &target]);
    let first = ours()?;
    measured("each looked at", ROUNDS, &[own, "look-at-each", &target])?;
    let lsof = measured("lsof -nP -p", LSOF_ROUNDS, &["lsof", "-nP", "-p", &target])?;
    let second = ours()?;
    let times = |theirs: Duration, a: Duration, b: Duration| {
        2.0 * theirs.as_secs_f64() / (a + b).as_secs_f64()
    };
    say(&format!("lsof / ours: {:.1}", times(lsof, first, second)))?;
    if with_ss {
        let ss = measured("ss -tanp", 1, &["ss", "-tanp"])?;
        let third = ours()?;
        say(&format!("ss / ours: {:.0}", times(ss, second, third)))?;
    }
    for mut child in crowd {
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(())
}

/// Runs a command some times; gives the processor time of one.
fn measured(name: &str, rounds: u32, command: &[&str]) -> Done<Duration> {
    let (before, begun) = (children_time()?, Instant::now());
    for _ in 0..rounds {
        let (program, arguments) = command.split_first().ok_or("no command")?;
        let mut run = Command::new(program);
        let status = run.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.map_err(|error| format!("{program}: {error}"))?;
    }
    let wall = begun.elapsed() / rounds;
    let cpu = (children_time()? - before) / rounds;
    let (wall_s, cpu_s) = (wall.as_secs_f64(), cpu.as_secs_f64());
    say(&format!("{name:20} {rounds:5} {wall_s:7.3} s {cpu_s:7.3} s"))?;
    Ok(cpu)
}

/// Processor time of all children that have ended.
fn children_time() -> Done<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    // proc(5): state is field 3, cutime 16, cstime 17, in hundredths of a second.
    let fields = behind_name.split_whitespace().skip(13).take(2);
    let ticks: u64 = fields.map(|field| field.parse().unwrap_or(0_u64)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn start(arguments: &[&str]) -> Done<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// The next line that a child says.
fn heard(child: &mut Child) -> Done<String> {
    let mut line = Vec::new();
    let output = child.stdout.as_mut().ok_or("it has no output")?;
    // Byte by byte: what comes after the line stays in the pipe.
    let mut byte = [0];
    while output.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?)
}

/// Holds what it has until whoever started it lets go.
fn wait_for_the_end() -> Done {
    say("ready")?;
    let mut line = String::new();
    BufReader::new(stdin()).read_line(&mut line)?;
    Ok(())
}

fn say(line: &str) -> Done {
    writeln!(stdout(), "{}", line.trim_end())?;
    Ok(stdout().flush()?)
}
