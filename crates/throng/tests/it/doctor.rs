//! `throng doctor` on processes of this machine: what it says, what it raises, what it refuses.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Dir;

/// Generous: the machine may be busy with anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Makes of this program a server, for the tests that need a process to look at.
const SERVE: &str = "THRONG_TEST_SERVE";

/// Not a test by itself: a server that takes whoever it has a descriptor for, and keeps them.
#[test]
fn serves_where_it_is_told_to() {
    let Ok(port) = std::env::var(SERVE) else { return };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let mut crowd = Vec::new();
    loop {
        match listener.accept() {
            Ok(client) => crowd.push(client),
            // Without a descriptor it tries again, as servers do.
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// A server with so many descriptors, gone with the value.
struct Target {
    child: Child,
    port: u16,
}

impl Target {
    fn with_limit(limit: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = std::env::current_exe().unwrap();
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["--exact", "doctor::serves_where_it_is_told_to", "--nocapture"])
            .env(SERVE, port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let target = Self { child, port };
        until("the server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        target
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Clients that the kernel has connected, whether or not they were taken.
    fn crowd(&self, size: usize) -> Vec<TcpStream> {
        let connect = |_| TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        (0..size).map(connect).collect()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended by itself
        self.child.wait().ok();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}, within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn told(dir: &Dir, arguments: &[&str]) -> (i32, Value) {
    let ran = dir.throng(&[&["doctor", "--json"], arguments].concat());
    let value = serde_json::from_str(&ran.out);
    (ran.status, value.unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err)))
}

/// A hundred clients, and perhaps the one that asked whether it listens.
fn all_taken(dir: &Dir, pid: &str) -> Option<()> {
    let taken = told(dir, &[pid]).1["connections"].as_u64()?;
    (taken >= 100).then_some(())
}

#[test]
fn an_exhausted_server_is_full_and_raised_with_nobody_dropped() {
    let dir = Dir::new();
    let target = Target::with_limit("-Sn 64");
    let pid = target.pid();
    let crowd = target.crowd(100);
    let report = until("the server is full", || {
        let (status, report) = told(&dir, &[&pid]);
        (status == 1 && report["severity"] == "full").then_some(report)
    });
    assert_eq!(report["check"], "descriptors");
    let verdict = report["verdict"].as_str().unwrap();
    assert!(
        verdict.ends_with("cannot accept one more connection: 64 of 64 descriptors"),
        "{verdict}"
    );
    assert_eq!(report["ladder"][0]["resource"], "descriptors");
    assert_eq!(report["limit"]["soft"], 64);

    let screen = dir.throng(&["doctor", &pid]);
    assert_eq!(screen.status, 1);
    assert!(screen.out.starts_with("FULL    "), "{}", screen.out);
    for label in ["\nwhy     ", "\nnow     ", "\nfor good  ", "\nnext    ", "check  "] {
        assert!(screen.out.contains(label), "{label:?} in {}", screen.out);
    }
    assert!(screen.out.lines().count() < 24 && !screen.out.contains('\u{1b}'), "{}", screen.out);

    // Nobody is there to be asked.
    let refused = dir.throng(&["doctor", &pid, "--raise", "256"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.err.contains(&format!("throng doctor {pid} --raise 256 --yes")),
        "{}",
        refused.err
    );
    assert_eq!(told(&dir, &[&pid]).1["limit"]["soft"], 64);

    let raised = dir.throng(&["doctor", &pid, "--raise", "256", "--yes"]);
    assert!(raised.out.contains("from 64 (hard"), "{} {}", raised.out, raised.err);
    until("all are taken", || all_taken(&dir, &pid));
    let (status, report) = told(&dir, &[&pid]);
    assert_eq!((status, &report["severity"]), (0, &Value::from("fine")), "{report}");
    for mut client in crowd {
        client.set_nonblocking(true).unwrap();
        // Nobody was dropped: there is nothing to read, and no end either.
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_copy_gives_the_same_verdict_and_a_difference_says_what_changed() {
    let dir = Dir::new();
    let target = Target::with_limit("-Sn 64");
    let pid = target.pid();
    let _crowd = target.crowd(100);
    until("the server is full", || (told(&dir, &[&pid]).0 == 1).then_some(()));
    let live = dir.throng(&["doctor", &pid, "--capture", "a"]);
    assert!(live.out.contains("copied to a"), "{} {}", live.out, live.err);
    let verdict = live.out.lines().next().unwrap().to_owned();
    assert_eq!(dir.throng(&["doctor", &pid, "--capture", "a"]).status, 2);
    let raised = dir.throng(&["doctor", &pid, "--raise", "256", "--yes"]);
    assert!(raised.out.contains("raised"), "{} {}", raised.out, raised.err);
    until("all are taken", || all_taken(&dir, &pid));
    dir.throng(&["doctor", &pid, "--capture", "b"]);
    drop(target);

    let copy = dir.throng(&["doctor", &pid, "--proc", "a/proc", "--root", "a/root"]);
    assert_eq!(copy.status, 1);
    assert_eq!(copy.out.lines().next().unwrap(), verdict);
    let diff = dir.throng(&["doctor", "--diff", "a", "b"]);
    assert_eq!(diff.status, 0, "{} {}", diff.out, diff.err);
    assert!(diff.out.contains("limit on open files: 64 (hard"), "{}", diff.out);
    let refused = dir.throng(&["doctor", &pid, "--raise", "300", "--proc", "a/proc"]);
    assert!(refused.err.contains("a copy cannot be raised"), "{}", refused.err);
}

#[test]
fn the_queue_of_a_running_server_is_made_longer() {
    let dir = Dir::new();
    let target = Target::with_limit("-Sn 64");
    let pid = target.pid();
    let before = told(&dir, &[&pid]).1["open"]["listeners"][0]["backlog"].as_u64().unwrap();
    let wanted = (before + 1).to_string();
    let raised = dir.throng(&["doctor", &pid, "--raise-backlog", &wanted, "--yes"]);
    // Where the machine's somaxconn allows no more, it says so.
    let cut = raised.out.contains("cut by net.core.somaxconn");
    let after = told(&dir, &[&pid]).1["open"]["listeners"][0]["backlog"].as_u64().unwrap();
    assert!(after == before + 1 || cut, "{before} {after} {} {}", raised.out, raised.err);
}

#[test]
fn what_would_harm_is_refused_with_the_reason() {
    let dir = Dir::new();
    let target = Target::with_limit("-n 64");
    let pid = target.pid();
    let lower = dir.throng(&["doctor", &pid, "--raise", "32", "--yes"]);
    assert_eq!(lower.status, 2);
    assert!(lower.err.contains("not lowered here"), "{}", lower.err);
    let above = dir.throng(&["doctor", &pid, "--raise", "4000000000", "--yes"]);
    assert_eq!(above.status, 2);
    assert!(above.err.contains("fs.nr_open"), "{}", above.err);
    let parent = dir.throng(&["doctor", &pid, "--raise", "64", "--with-parent", "--yes"]);
    assert_eq!(parent.status, 2);
    assert!(parent.err.contains("no supervisor was found"), "{}", parent.err);
}

#[test]
fn connections_that_are_wanted_are_judged() {
    let dir = Dir::new();
    let target = Target::with_limit("-Sn 64");
    let pid = target.pid();
    assert_eq!(told(&dir, &[&pid, "--need", "20"]).0, 0);
    let (status, report) = told(&dir, &[&pid, "--need", "1500"]);
    assert_eq!((status, &report["check"]), (1, &Value::from("need")));
    assert_eq!(report["need"]["resource"], "descriptors");
    let port = target.port.to_string();
    let (status, report) = told(&dir, &["--port", &port, "--need", "1500"]);
    assert_eq!((status, &report["fits"]), (1, &Value::from(false)), "{report}");
    assert_eq!(report["chain"][0]["pids"][0].to_string(), pid);
}

#[test]
fn the_machine_is_ranked_and_a_watch_ends_when_it_is_told_to() {
    let dir = Dir::new();
    let target = Target::with_limit("-Sn 64");
    let (_, machine) = told(&dir, &[]);
    let processes = machine["processes"].as_array().unwrap();
    assert!(processes.iter().any(|row| row["pid"] == target.child.id()));
    let screen = dir.throng(&["doctor"]);
    assert!(screen.out.contains("this shell") && screen.out.lines().count() < 24, "{}", screen.out);
    let watched = dir.throng(&["doctor", &target.pid(), "--watch=1", "--looks", "2"]);
    assert_eq!((watched.status, watched.out.lines().count()), (0, 2), "{}", watched.out);
}

#[test]
fn what_is_not_there_could_not_be_looked_at() {
    let dir = Dir::new();
    for (arguments, reason) in [
        (vec!["doctor", "4294967"], "it is gone, or never was"),
        (vec!["doctor", "--name", "no\u{1b}such"], "no process is called no\\u{1b}such"),
        (vec!["doctor", "--unit", "no-such"], "no process runs in the unit no-such"),
        (vec!["doctor", "--port", "1"], "nobody listens on TCP port 1"),
        (vec!["doctor", "1", "--proc", "nowhere"], "it is gone, or never was"),
        (vec!["doctor", "--diff", "x", "y"], "x is no copy"),
        (vec!["doctor", "--watch"], "--watch needs a process"),
    ] {
        let ran = dir.throng(&arguments);
        assert_eq!(ran.status, 2, "{arguments:?}");
        assert!(ran.err.contains(reason), "{arguments:?}: {}", ran.err);
    }
    let explained = dir.throng(&["doctor", "--ceiling", "1013"]);
    assert_eq!(explained.status, 0);
    assert!(explained.out.contains("load generator"), "{}", explained.out);
}
