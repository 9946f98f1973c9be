//! What a running server tells about itself and its clients.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use throng_load::client::{Client, Manner};

use crate::{Dir, Ran, command};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What one publication brings; a client's own limit for messages is above it.
const PUBLICATION_BYTES: usize = 512 * 1024;
/// More than any kernel keeps for one socket, and then what the server queues.
const PUBLICATIONS_MAX: usize = 100;

/// A server of the real binary with a runtime directory of its own.
pub(crate) struct Running {
    pub(crate) dir: Dir,
    child: Child,
    pub(crate) port: u16,
    log: Arc<Mutex<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}

impl Running {
    pub(crate) fn start(client: &str) -> Self {
        Self::with(client, "")
    }

    /// With more in `[client]`, and more sections.
    pub(crate) fn with(client: &str, more: &str) -> Self {
        let dir = Dir::new();
        let config = format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[http_api]\ninsecure = true\n\
             [health]\nenabled = true\n[client]\nallowed_origins = [\"https://example.com\"]\n\
             {client}\n[client.token]\nhmac_secret_key = \"0123456789abcdef0123456789abcdef\"\n\
             [websocket]\nmessage_size_limit = 1048576\n\
             [channel.without_namespace]\nallow_subscribe_for_client = true\n\
             allow_publish_for_client = true\n{more}"
        );
        dir.write("throng.toml", &config);
        let mut command = command(&dir.0, &["serve", "-c", "throng.toml"]);
        command.env("XDG_RUNTIME_DIR", &dir.0).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                break rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            }
        };
        // Its log is read on, so that it never waits for us.
        let lines = Arc::<Mutex<String>>::default();
        let running = Self { dir, child, port, log: Arc::clone(&lines) };
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while !running.socket().exists() {
            assert!(Instant::now() < deadline, "no control socket");
            std::thread::yield_now();
        }
        running
    }

    fn socket(&self) -> PathBuf {
        self.dir.0.join("throng").join(format!("{}.sock", self.child.id()))
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Asks this server.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        let pid = self.child.id().to_string();
        let mut command = command(&self.dir.0, arguments);
        command.args(["--pid", &pid]).env("XDG_RUNTIME_DIR", &self.dir.0);
        Ran::new(&command.output().unwrap())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ask(arguments);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""));
        serde_json::from_str(&ran.out).unwrap()
    }

    fn client(&self, user: &str) -> Client {
        let token = self.dir.throng(&["token", "--user", user, "-c", "throng.toml", "--json"]);
        let token: Value = serde_json::from_str(&token.out).unwrap();
        let url = format!("ws://127.0.0.1:{}/connection/websocket", self.port);
        let mut client = Client::connect(&url, &Manner::default()).unwrap();
        client.greet(token["token"].as_str().unwrap(), PATIENCE).unwrap();
        client
    }
}

/// Asks until the answer is what is waited for.
pub(crate) fn until(mut f: impl FnMut() -> Option<Value>) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(Instant::now() < deadline, "it never came");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_healthy_server_says_so_on_a_socket_for_its_user_alone() {
    let server = Running::start("");
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.socket()), 0o600);
    assert_eq!(mode(&server.dir.0.join("throng")), 0o700);
    let ran = server.ask(&["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("healthy\n\nserver "), "{}", ran.out);
    let status = server.json(&["status", "--json"]);
    assert_eq!(status["pid"], server.child.id());
    assert!(status["clients"]["ceiling"].as_u64().unwrap() > 0);
    let ran = server.dir.throng(&["status", "--pid", "4194999"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("no server with the pid 4194999"), "{}", ran.err);
}

#[test]
fn a_full_server_is_not_ready_and_counts_whom_it_refuses() {
    let server = Running::start("connection_limit = 1");
    let _ann = server.client("ann");
    let url = format!("ws://127.0.0.1:{}/connection/websocket", server.port);
    assert_eq!(Client::connect(&url, &Manner::default()).unwrap_err().code, Some(503));
    let ran = server.ask(&["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    assert!(ran.out.starts_with("NOT HEALTHY: the server is full"), "{}", ran.out);
    assert!(ran.out.contains("server full       1            1\n"), "{}", ran.out);
    let who = server.json(&["who", "--json"]);
    assert_eq!(who["closes"]["turned_away"][0]["status"], 503);
    let health = |path: &str| {
        let url = format!("ws://127.0.0.1:{}{path}", server.port);
        let refused = Client::connect(&url, &Manner::default()).unwrap_err();
        (refused.code, refused.why)
    };
    assert_eq!(health("/health").0, Some(200));
    assert_eq!(health("/health/live").0, Some(200));
    let (code, why) = health("/health/ready?verbose");
    assert_eq!(code, Some(503));
    assert!(why.contains("\"full\":true"), "{why}");
}

#[test]
fn who_lists_clients_by_user_and_channel_and_says_who_came_back() {
    let server = Running::start("");
    let mut ann = server.client("ann");
    ann.subscribe("news", PATIENCE).unwrap();
    let bob = server.client("bob");
    assert_eq!(server.json(&["who", "--json"])["count"], 2);
    let who = server.json(&["who", "--channel", "news", "--json"]);
    assert_eq!((&who["count"], &who["clients"][0]["user"]), (&1.into(), &"ann".into()));
    assert_eq!(who["clients"][0]["channels"][0], "news");
    assert_eq!(server.json(&["who", "--user", "bob", "--json"])["count"], 1);
    bob.close();
    let gone = |came_back: bool| {
        until(|| {
            let who = server.json(&["who", "--user", "bob", "--json"]);
            let bob = who["closes"]["left"].get(0)?.clone();
            (bob["came_back"] == came_back).then_some(bob)
        })
    };
    assert_eq!(gone(false)["code"], 3000);
    let _bob = server.client("bob");
    gone(true);
    let text = server.ask(&["who"]).out;
    assert!(text.contains("connected: 2 clients\nuser ") && text.contains("3000 "), "{text}");
}

/// Publishes until the one client of the channel, ann's, is seen as slow and then closed for it.
fn publish_until_closed(server: &Running) {
    let mut writer = server.client("bob");
    let data = "x".repeat(PUBLICATION_BYTES);
    let publish = format!("{{\"channel\":\"news\",\"data\":\"{data}\"}}");
    let mut seen_before = false;
    for _ in 0..PUBLICATIONS_MAX {
        writer.command("publish", &publish, PATIENCE).unwrap();
        let who = server.json(&["who", "--slow", "--json"]);
        if who["count"] == 1 {
            assert_eq!(who["clients"][0]["user"], "ann");
            assert!(who["clients"][0]["waiting_bytes"].as_u64().unwrap() > 0);
            seen_before = true;
        }
        if let Some(left) = who["closes"]["left"].get(0) {
            assert!(seen_before, "closed before it was seen as slow");
            assert_eq!((&left["user"], &left["code"]), (&"ann".into(), &3008.into()));
            let why = left["why"].as_str().unwrap();
            assert!(why.contains("`client.queue_max_size`"), "{why}");
            return;
        }
    }
    panic!("a client that does not read was never closed");
}

#[test]
fn a_client_that_stops_reading_is_seen_before_its_close_and_after() {
    let server = Running::start("queue_max_size = 8388608");
    let mut stopped = server.client("ann");
    stopped.subscribe("news", PATIENCE).unwrap();
    publish_until_closed(&server);
}

#[test]
fn a_process_that_is_stopped_is_seen_before_its_close_and_after() {
    let server = Running::start("queue_max_size = 8388608");
    let token = server.dir.throng(&["token", "--user", "ann", "-c", "throng.toml", "--json"]);
    let token: Value = serde_json::from_str(&token.out).unwrap();
    let url = format!("http://127.0.0.1:{}", server.port);
    let token = token["token"].as_str().unwrap();
    let mut subscriber =
        command(&server.dir.0, &["subscribe", "news", "--url", &url, "--token", token])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    until(|| {
        let who = server.json(&["who", "--channel", "news", "--json"]);
        (who["count"] == 1).then_some(Value::Null)
    });
    signal(&subscriber, Signal::STOP);
    publish_until_closed(&server);
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_server_that_stops_is_alive_but_neither_ready_nor_healthy() {
    // A client that does not answer its close keeps the stop from ending.
    let server = Running::with("", "[limits]\nclose_timeout = \"20s\"\n");
    let _ann = server.client("ann");
    let health = |path: &str| {
        let url = format!("ws://127.0.0.1:{}{path}", server.port);
        let refused = Client::connect(&url, &Manner::default()).unwrap_err();
        (refused.code, refused.why)
    };
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(health(path).0, Some(200), "{path}");
    }
    signal(&server.child, Signal::TERM);
    let why = until(|| {
        let (code, why) = health("/health/ready?verbose");
        (code == Some(503)).then_some(Value::String(why))
    });
    let why = why.as_str().unwrap();
    assert!(why.contains("\"draining\":true") && why.contains("the server is stopping"), "{why}");
    assert_eq!(health("/health/live").0, Some(200));
    assert_eq!(health("/health").0, Some(503));
    assert_eq!(health("/connection/websocket").0, Some(503), "nobody new comes in");
}

#[test]
fn a_probe_walks_through_every_step_and_names_the_first_that_fails() {
    let server = Running::start("");
    let token = server.dir.throng(&["token", "--user", "ann", "-c", "throng.toml", "--json"]);
    let token: Value = serde_json::from_str(&token.out).unwrap();
    let place = format!("127.0.0.1:{}", server.port);
    let probe = |more: &[&str]| {
        let mut arguments = vec!["probe", &place];
        arguments.extend(more);
        server.dir.throng(&arguments)
    };
    let good = ["--origin", "https://example.com", "--token", token["token"].as_str().unwrap()];
    let ran = probe(&[&good[..], &["--hold", "1"]].concat());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{}", ran.out);
    let steps: Vec<&str> = ran.out.lines().filter_map(|l| l.strip_prefix("✓ ")).collect();
    assert_eq!(steps.len(), 7, "{}", ran.out);
    assert!(ran.out.contains("  throng sees this client at 127.0.0.1\n"), "{}", ran.out);
    assert!(ran.out.ends_with("\nA client can connect, and stays connected.\n"), "{}", ran.out);

    let ran = probe(&["--origin", "https://evil.example"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    assert!(ran.out.contains("✗ origin "), "{}", ran.out);
    assert!(
        ran.out.ends_with("\n    allowed_origins = [\"https://evil.example\"]\n"),
        "{}",
        ran.out
    );

    let ran = probe(&["--json"]);
    assert_eq!(ran.status, 1);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["ok"], &report["failure"]["step"]), (&false.into(), &"connect".into()));
    assert!(report["failure"]["advice"].as_str().unwrap().contains("--token"));

    let elsewhere = format!("http://{place}/elsewhere");
    let ran = server.dir.throng(&["probe", &elsewhere]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("Nothing is at /elsewhere"), "{}", ran.out);
    assert_eq!(server.dir.throng(&["probe", "gopher://example.com"]).status, 2);
}
