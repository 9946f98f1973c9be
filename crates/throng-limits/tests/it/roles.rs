//! Processes that play a part: this test binary again, told by its environment what to be.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use throng_limits::Tree;
use throng_limits::descriptors::{count, descriptors};
use throng_limits::raise::raise_open_files;
use throng_limits::sockets::{raise_backlog, sockets};

const ROLE: &str = "THRONG_TEST_ROLE";

/// A process that plays a part until it is dropped.
pub(crate) struct Player {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Closing it is what ends the process.
    input: Option<ChildStdin>,
}

impl Player {
    pub(crate) fn start(role: &str) -> Self {
        Self::start_with(itself(), role)
    }

    /// Starts it by another command, such as one that enters a namespace first.
    pub(crate) fn start_with(mut command: Command, role: &str) -> Self {
        command.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take();
        Self { child, lines, input }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says about itself next: `name value`.
    pub(crate) fn says(&mut self, name: &str) -> String {
        loop {
            let line = self.lines.next().expect("it ended before it said so").unwrap();
            // The test harness, whose output this is too, says other things.
            if let Some(value) = line.strip_prefix(&format!("{name} ")) {
                return value.to_owned();
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.wait().ok();
    }
}

/// This binary, so that it runs nothing but the part.
pub(crate) fn itself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(PLAY);
    command
}

pub(crate) const PLAY: [&str; 4] = ["--ignored", "--exact", "--nocapture", "roles::plays_its_part"];

#[test]
#[ignore = "what the processes of the other tests run"]
fn plays_its_part() {
    let role = std::env::var(ROLE).expect("it is started by another test");
    let (name, rest) = role.split_once(' ').unwrap_or((&role, ""));
    let number = |place: usize| rest.split(' ').nth(place).unwrap().parse::<u32>().unwrap();
    match name {
        "never-accepts" => never_accepts(number(0)),
        "leaks" => leaks(number(0)),
        "connects" => connects(),
        "serves" => serves(number(0), number(1)),
        "hands-on" => hands_on(number(0)),
        "visits" => visits(number(0), number(1)),
        "looks" => looks(number(0)),
        "lengthens" => {
            let port = u16::try_from(number(1)).unwrap();
            say("said", &raise_backlog(number(0), port, number(2)).unwrap_err().to_string());
        }
        other => panic!("no such part: {other}"),
    }
}

fn say(name: &str, value: &str) {
    // At the start of a line, whatever the harness wrote before.
    let mut out = stdout().lock();
    writeln!(out, "\n{name} {value}").unwrap();
    out.flush().unwrap();
}

fn wait_for_the_end() {
    say("ready", "now");
    for line in std::io::stdin().lines() {
        line.unwrap();
    }
}

/// Listens with a queue of so many, and takes none of them.
fn never_accepts(backlog: u32) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&listener, i32::try_from(backlog).unwrap()).unwrap();
    say(
        "port",
        &TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap().port().to_string(),
    );
    wait_for_the_end();
}

/// Accepts so many and never closes one, and is careless with all else, too.
fn leaks(connections: u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    say("port", &listener.local_addr().unwrap().port().to_string());
    let _held: Vec<_> = (0..connections).map(|_| listener.accept().unwrap()).collect();
    let _fresh: Vec<_> =
        (0..50).map(|_| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()).collect();
    let _pairs: Vec<_> = (0..10).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    let _pipes: Vec<_> = (0..4).map(|_| std::io::pipe().unwrap()).collect();
    let flags = rustix::event::epoll::CreateFlags::CLOEXEC;
    let _epolls: Vec<_> = (0..3).map(|_| rustix::event::epoll::create(flags).unwrap()).collect();
    let _event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let path = std::env::temp_dir().join(format!("throng-log-{}", std::process::id()));
    std::fs::write(&path, [0; 1000]).unwrap();
    let _logs: Vec<_> = (0..6).map(|_| File::open(&path).unwrap()).collect();
    std::fs::remove_file(&path).unwrap();
    wait_for_the_end();
}

/// Listens, accepts so many, and opens as many files after them.
fn serves(connections: u32, files: u32) {
    let _crowd = accepted(connections);
    let _files: Vec<_> = (0..files).map(|_| File::open("/dev/null").unwrap()).collect();
    wait_for_the_end();
}

/// Accepts so many, leaves all of them to a child, and has as many files in their stead.
fn hands_on(connections: u32) {
    let crowd = accepted(connections);
    for connection in &crowd {
        rustix::io::fcntl_setfd(connection, rustix::io::FdFlags::empty()).unwrap();
    }
    // It ends with what it reads from.
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    drop(crowd);
    let _files: Vec<_> = (0..connections).map(|_| File::open("/dev/null").unwrap()).collect();
    wait_for_the_end();
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn accepted(connections: u32) -> Vec<TcpStream> {
    raise_open_files().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // Who finds a full queue tries again only after a second.
    listen(&listener, 4096).unwrap();
    say("port", &listener.local_addr().unwrap().port().to_string());
    let crowd = (0..connections).map(|_| listener.accept().unwrap().0).collect();
    // It stays open as long as the process.
    std::mem::forget(listener);
    crowd
}

/// Connects to a port so many times.
fn visits(port: u32, connections: u32) {
    raise_open_files().unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()));
    let _held: Vec<_> = (0..connections).map(|_| TcpStream::connect(to).unwrap()).collect();
    wait_for_the_end();
}

/// Connects to a listener of its own until there is no port left.
fn connects() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).unwrap();
    let to = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let error = loop {
        assert!(held.len() < 1000, "more connections than ports");
        match TcpStream::connect(to) {
            Ok(connection) => held.push((connection, listener.accept().unwrap())),
            Err(error) => break error,
        }
    };
    say("connections", &held.len().to_string());
    say("error", &error.kind().to_string());
    wait_for_the_end();
}

/// Tells what it can see of a process.
fn looks(pid: u32) {
    let tree = Tree::live();
    say(
        "count",
        &count(&tree, pid).map_or_else(|error| error.to_string(), |count| count.to_string()),
    );
    let open = descriptors(&tree, pid);
    say(
        "denied",
        &open.as_ref().is_err_and(throng_limits::facts::FactError::is_denied).to_string(),
    );
    let found = sockets(&tree, pid, open.as_ref().ok());
    say("way", &format!("{:?}", found.way));
    say("owned", &found.owned.is_some().to_string());
    let ports: Vec<_> =
        found.listeners.iter().map(|listener| listener.local.port().to_string()).collect();
    say("ports", &ports.join(","));
    let waiting: HashMap<_, _> =
        found.listeners.iter().map(|own| (own.local.port(), own.waiting)).collect();
    say("waiting", &waiting.values().max().copied().unwrap_or_default().to_string());
    say(
        "unseen",
        &found.unseen.iter().map(|unseen| unseen.why.as_str()).collect::<Vec<_>>().join("; "),
    );
    say("root", &found.unseen.iter().any(|unseen| unseen.root_sees).to_string());
}
