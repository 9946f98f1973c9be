//! Restarts of the real binary: who is connected stays, and what goes wrong changes nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use throng_load::client::{Client, Manner};

mod surroundings;

use crate::{Dir, Ran, command};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a process with 64 descriptors can take over.
const CROWD: usize = 60;
const BINARY: &str = env!("CARGO_BIN_EXE_throng");

/// A server of the real binary, whichever process it is at the time.
struct Server {
    dir: Dir,
    /// Where its control socket is.
    runtime: PathBuf,
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // All at once: one that handed over comes back when its successor is killed at once.
        for pid in self.processes() {
            kill_process(pid, Signal::KILL).ok(); // it may have ended
        }
        self.child.kill().ok(); // as above
        self.child.wait().ok();
    }
}

impl Server {
    fn start() -> Self {
        Self::with(&[], |_| {})
    }

    fn with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        Self::of(Command::new(BINARY), arguments, change)
    }

    fn of(command: Command, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let dir = Dir::new();
        let runtime = dir.0.clone();
        Self::at((dir, runtime), command, arguments, change)
    }

    fn at(
        (dir, runtime): (Dir, PathBuf),
        mut command: Command,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let port = free_port();
        dir.write("throng.toml", &config(port));
        let log = fs::File::create(dir.0.join("log")).unwrap();
        command.args(["serve", "-c", "throng.toml"]).args(arguments).current_dir(&dir.0);
        command.env_clear().env("XDG_RUNTIME_DIR", &runtime).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log);
        change(&mut command);
        let child = command.spawn().unwrap();
        let server = Self { dir, runtime, child, port };
        server.logs("listening on", 1);
        until("no control socket", || (server.pids().len() == 1).then_some(()));
        server
    }

    /// Processes that have a control socket: one, but for a moment.
    fn pids(&self) -> Vec<u32> {
        let Ok(files) = fs::read_dir(self.runtime.join("throng")) else { return Vec::new() };
        let names = files.map_while(Result::ok).map(|file| file.file_name());
        names.filter_map(|name| name.to_str()?.strip_suffix(".sock")?.parse().ok()).collect()
    }

    /// Every process that was started here, by its environment.
    fn processes(&self) -> Vec<Pid> {
        let own = format!("XDG_RUNTIME_DIR={}\0", self.runtime.display());
        let pids = fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| String::from_utf8_lossy(&all).contains(&own))
        };
        pids.filter(ours).filter_map(pid_of).collect()
    }

    /// The process that serves.
    fn pid(&self) -> u32 {
        until("not one process", || match self.pids()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.0.join("log")).unwrap()
    }

    /// Waits until words were logged so many times; the last line with them.
    fn logs(&self, wanted: &str, times: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains(wanted)).collect();
            if lines.len() >= times {
                return lines[times - 1].to_owned();
            }
            assert!(Instant::now() < deadline, "no {wanted:?} in {log}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let pid = self.pid().to_string();
        let mut command = command(&self.dir.0, arguments);
        command.args(["--pid", &pid]).env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }

    fn ask(&self, arguments: &[&str]) -> Ran {
        Ran::new(&self.command(arguments).output().unwrap())
    }

    /// A restart that must succeed.
    fn restart(&self, arguments: &[&str]) -> Value {
        let ran = self.ask(&[&["restart", "--json"], arguments].concat());
        let said: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
        assert_eq!(ran.status, 0, "{said} {}", self.log());
        let outcome = said["outcome"].clone();
        assert_eq!(outcome["done"], true, "{outcome}");
        outcome
    }

    /// A program for `--binary` that is a script of ours around the real one.
    fn wrapper(&self, name: &str, script: &str) -> String {
        wrapper(&self.dir.0, name, script)
    }

    fn connect(&self) -> Subscriber {
        let url = format!("ws://127.0.0.1:{}/connection/websocket", self.port);
        let manner = Manner { timeout: PATIENCE, ..Manner::default() };
        let mut client = Client::connect(&url, &manner).unwrap();
        client.greet("", PATIENCE).unwrap();
        let reply = client.subscribe("news", PATIENCE).unwrap();
        Subscriber { client, epoch: reply["epoch"].as_str().unwrap().to_owned() }
    }

    fn api(&self) -> Api {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Api(stream)
    }

    /// Publishes on a connection of its own; the offset.
    fn publish(&self, data: &str) -> u64 {
        let (_, answer) = self.api().call("publish", &json!({"channel": "news", "data": data}));
        answer["result"]["offset"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// Whoever is connected still gets what is published.
    fn reaches<'a>(
        &self,
        clients: impl IntoIterator<Item = &'a mut Subscriber>,
        data: &str,
    ) -> u64 {
        let offset = self.publish(data);
        for client in clients {
            assert_eq!(client.hear(), (offset, data.to_owned()));
        }
        offset
    }
}

struct Subscriber {
    client: Client,
    epoch: String,
}

impl Subscriber {
    /// The next publication, on the same connection as ever.
    fn hear(&mut self) -> (u64, String) {
        let push = self.push();
        let publication = &push["push"]["pub"];
        let data = publication["data"].as_str().unwrap_or_else(|| panic!("{push}")).to_owned();
        (publication["offset"].as_u64().unwrap(), data)
    }

    fn push(&mut self) -> Value {
        loop {
            let line = self.client.next_line(PATIENCE).unwrap().expect("something in time");
            let push: Value = serde_json::from_str(&line).unwrap();
            if push.get("push").is_some() {
                return push;
            }
        }
    }
}

/// A connection to the API that is kept.
struct Api(TcpStream);

impl Api {
    /// The head of the answer, and its body.
    fn call(&mut self, method: &str, request: &Value) -> (String, Value) {
        let body = request.to_string();
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (head, body) = self.ask(&[head, body].concat());
        (head, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    fn ask(&mut self, request: &str) -> (String, String) {
        self.0.write_all(request.as_bytes()).unwrap();
        let (mut said, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let read = self.0.read(&mut piece).unwrap();
            said.extend(&piece[..read]);
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if read == 0 || length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                    return (head, body.to_owned());
                }
            }
            assert!(read > 0, "no whole answer: {text:?}");
        }
    }
}

fn config(port: u16) -> String {
    format!(
        "[http_server]\naddress = \"127.0.0.1\"\nport = {port}\n[client]\ninsecure = true\n\
         [http_api]\ninsecure = true\n[health]\nenabled = true\n[limits]\nshards = 2\n\
         [shutdown]\nspread = \"200ms\"\n[channel.without_namespace]\nhistory_size = 100\n\
         history_ttl = \"600s\"\nforce_recovery = true\n"
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wrapper(dir: &Path, name: &str, script: &str) -> String {
    let path = dir.join(name);
    let text = format!("#!/bin/sh\nT={BINARY}\n{script}\n");
    // Under another name first: a file that is open for writing is not run.
    let draft = dir.join(format!("{name}.draft"));
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&draft, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The real binary at another path.
fn copied(path: &Path) -> String {
    let draft = path.with_extension("draft");
    fs::copy(BINARY, &draft).unwrap();
    fs::rename(&draft, path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn send(pid: u32, signal: Signal) {
    kill_process(pid_of(pid).unwrap(), signal).unwrap();
}

/// Waits for the end of a process that is not our child.
fn ends(pid: u32) {
    let pid = pid_of(pid).unwrap();
    let gone = || test_kill_process(pid).is_err() || is_zombie(pid);
    until("it does not end", || gone().then_some(()));
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// How a child ended.
fn status(child: &mut Child) -> i32 {
    until("it does not end", || child.try_wait().unwrap()).code().expect("no signal killed it")
}

#[test]
fn a_restart_keeps_clients_and_their_history() {
    let server = Server::start();
    let mut clients = [server.connect(), server.connect()];
    let mut kept = server.api();
    assert_eq!(server.reaches(&mut clients, "before"), 1);
    let (head, _) = kept.call("publish", &json!({"channel": "news", "data": "kept"}));
    assert!(!head.contains("connection: close"), "{head}");
    clients.iter_mut().for_each(|client| assert_eq!(client.hear(), (2, "kept".to_owned())));
    let before = server.pid();

    let outcome = server.restart(&[]);
    assert_eq!((&outcome["from"]["pid"], &outcome["connections"]), (&json!(before), &json!(2)));
    // To the old process, which has the new one answer.
    let (head, answer) = kept.call("publish", &json!({"channel": "news", "data": "forwarded"}));
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(answer["result"]["offset"], 3, "{answer}");
    clients.iter_mut().for_each(|client| assert_eq!(client.hear(), (3, "forwarded".to_owned())));
    assert_eq!(server.reaches(&mut clients, "after"), 4);
    assert_eq!(json!(server.pid()), outcome["to"]["pid"]);

    let mut late = server.connect();
    assert_eq!(late.epoch, clients[0].epoch);
    let all = late.client.command("history", r#"{"channel":"news","limit":-1}"#, PATIENCE).unwrap();
    let data: Vec<_> = all["publications"].as_array().unwrap().iter().map(|p| &p["data"]).collect();
    assert_eq!(data, ["before", "kept", "forwarded", "after"]);
    let said = server.logs("took over from pid", 1);
    assert!(said.contains(&format!("from pid {before}: 2 connections")), "{said}");
    let line = server.logs("listening on", 2);
    assert!(!line.contains("throng, pid"), "who had the limit first is no process of ours: {line}");
    ends(before);
    assert_eq!(server.reaches(&mut clients, "and again"), 5);
}

#[test]
fn a_rehearsal_proves_everything_and_changes_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let before = server.pid();
    let ran = server.ask(&["restart", "--dry-run"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    for step in ["checked", "started", "listening", "copied      1 connection", "ready"] {
        assert!(ran.err.contains(&format!("✓ {step}")), "{step} in {}", ran.err);
    }
    assert!(
        ran.out.starts_with("rehearsed: 1 connection would stay, none would be closed"),
        "{}",
        ran.out
    );
    assert_eq!(server.pid(), before);
    server.reaches([&mut client], "after");
    // And a real one after it.
    server.restart(&[]);
    server.reaches([&mut client], "restarted");
}

#[test]
fn a_person_is_shown_every_step_and_a_script_one_document() {
    let server = Server::start();
    let mut client = server.connect();
    let ran = server.ask(&["restart"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.err.contains("✓ committed   the new process serves 1 connection"), "{}", ran.err);
    assert!(ran.out.starts_with("restarted: 1 connection stayed, none was closed"), "{}", ran.out);
    let ran = server.ask(&["restart", "--json"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["outcome"]["why"], Value::Null);
    let steps: Vec<_> = said["steps"].as_array().unwrap().iter().map(|s| &s["step"]).collect();
    assert_eq!(
        steps,
        ["checked", "started", "listening", "copied", "history", "ready", "committed"]
    );
    server.reaches([&mut client], "after");
}

#[test]
fn an_upgrade_is_the_file_at_the_same_path_and_binary_goes_back() {
    let place = Dir::new();
    let [running, old] = ["throng", "throng-old"].map(|name| place.0.join(name));
    let (running, old) = (copied(&running), copied(&old));
    let server = Server::of(Command::new(&running), &[], |_| {});
    let mut client = server.connect();
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program(server.pid()), Path::new(&running));
    // As install(1) does: another file at the path of the one that runs.
    copied(Path::new(&running));
    assert!(program(server.pid()).to_str().unwrap().ends_with(" (deleted)"));
    server.restart(&[]);
    assert_eq!(program(server.pid()), Path::new(&running));
    server.reaches([&mut client], "upgraded");
    server.restart(&["--binary", &old]);
    assert_eq!(program(server.pid()), Path::new(&old));
    server.reaches([&mut client], "back again");
}

#[test]
fn a_signal_restarts_as_well() {
    let server = Server::start();
    let mut client = server.connect();
    let before = server.pid();
    send(before, Signal::USR2);
    server.logs("took over from pid", 1);
    ends(before);
    assert_ne!(server.pid(), before);
    server.reaches([&mut client], "after");
}

#[test]
fn of_two_restarts_at_once_one_is_refused_in_words() {
    let server = Server::start();
    let mut client = server.connect();
    let slow = server.wrapper(
        "slow",
        "cd \"$(dirname \"$0\")\"; : > begun; while [ ! -e go ]; do sleep 0.05; done; exec $T \"$@\"",
    );
    let mut first = server.command(&["restart", "--binary", &slow]).spawn().unwrap();
    until("it does not begin", || server.dir.0.join("begun").exists().then_some(()));
    let second = server.ask(&["restart"]);
    assert_eq!(second.status, 1);
    assert!(second.err.contains("a restart is under way already"), "{}", second.err);
    server.dir.write("go", "");
    assert_eq!(status(&mut first), 0, "{}", server.log());
    server.reaches([&mut client], "after");
}

#[test]
fn a_server_that_is_told_to_stop_in_the_middle_of_a_restart_stops() {
    let mut server = Server::start();
    let mut client = server.connect();
    let slow = server.wrapper(
        "slow",
        "case \"$*\" in *--prove*) exec $T \"$@\";; esac\n\
         : > \"$(dirname \"$0\")/begun\"; exec sleep 100",
    );
    let mut restart = server.command(&["restart", "--binary", &slow]);
    let mut restart = restart.stderr(Stdio::piped()).spawn().unwrap();
    until("it does not begin", || server.dir.0.join("begun").exists().then_some(()));
    send(server.pid(), Signal::TERM);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    assert_eq!(status(&mut restart), 1);
    let mut said = String::new();
    restart.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("the server was told to stop"), "{said}");
    let end = client.client.next_line(PATIENCE).unwrap_err();
    assert_eq!(end.code, Some(3001), "{end}");
}

#[test]
fn a_drain_ends_a_restart_that_is_under_way() {
    let server = Server::start();
    let slow = server.wrapper(
        "slow",
        "case \"$*\" in *--prove*) exec $T \"$@\";; esac\n\
         : > \"$(dirname \"$0\")/begun\"; exec sleep 100",
    );
    let mut restart = server.command(&["restart", "--binary", &slow]);
    let restart = restart.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    until("it does not begin", || server.dir.0.join("begun").exists().then_some(()));
    let ran = server.ask(&["drain", "--over", "1s"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let ran = Ran::new(&restart.wait_with_output().unwrap());
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(ran.err.contains("told to stop or to drain"), "{}", ran.err);
}

#[test]
fn a_changed_port_is_listened_on_and_who_came_by_the_old_one_stays() {
    let mut server = Server::start();
    let mut old = server.connect();
    let port = free_port();
    server.dir.write("throng.toml", &config(port));
    server.restart(&[]);
    let before = std::mem::replace(&mut server.port, port);
    until("not there", || TcpStream::connect(("127.0.0.1", port)).ok());
    let mut new = server.connect();
    server.reaches([&mut old, &mut new], "after");
    until("the old port is still listened on", || {
        TcpStream::connect(("127.0.0.1", before)).is_err().then_some(())
    });
    server.reaches([&mut old, &mut new], "at last");
}

/// What goes wrong before the acknowledgement: the words of the failure.
fn changes_nothing(server: &Server, clients: &mut [Subscriber], binary: &str, words: &str) {
    let before = server.pid();
    let ran = server.ask(&["restart", "--binary", binary]);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{binary}: {}", ran.err);
    assert!(ran.err.contains(words), "{binary}: {words:?} in {}", ran.err);
    assert!(ran.err.contains(&format!("nothing has changed: pid {before} serves")), "{}", ran.err);
    assert_eq!(server.pid(), before, "{binary}");
    server.reaches(clients, binary);
    assert!(server.connect().client.next_line(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_program_that_is_no_good_changes_nothing() {
    let server = Server::start();
    let mut clients = [server.connect(), server.connect()];
    let mut check = |binary: &str, words| changes_nothing(&server, &mut clients, binary, words);
    check("/nowhere/throng", "/nowhere/throng cannot be run");
    check("/bin/true", "is not a throng");
    let broken = server.wrapper("broken", "echo 'no such library' >&2; exit 3");
    check(&broken, "would not start (exit status: 3): no such library");
    let crashing =
        server.wrapper("crashing", "case \"$*\" in *--prove*) exec $T \"$@\";; esac; exit 3");
    check(&crashing, "ended without a word");
    server.dir.write("throng.toml", "[http_server]\nport = \"many\"\n");
    check(BINARY, "throng.toml:2: http_server.port = \"many\"");
    server.dir.write("throng.toml", &config(server.port));
    drop(clients);
    server.restart(&[]);
}

#[test]
fn a_new_process_that_fails_before_it_serves_changes_nothing() {
    let server = Server::start();
    let mut clients = [server.connect(), server.connect()];
    for (fault, words) in [
        ("unknown-version", "cannot take over from"),
        ("exit-before-ready", "ended without a word"),
        ("exit-after-ready", "ended without a word"),
        ("corrupt", "do not add up"),
        ("corrupt-ahead", "do not add up"),
        ("truncated", "do not add up"),
        ("exit-before-ack", "ended without a word"),
        ("hang-before-ack", "did not answer within"),
    ] {
        let script = format!("THRONG_RESTART_FAULT={fault} exec $T \"$@\"");
        let binary = server.wrapper(fault, &script);
        changes_nothing(&server, &mut clients, &binary, words);
    }
    server.restart(&[]);
    server.reaches(&mut clients, "after");
}

#[test]
fn a_new_process_that_hangs_at_its_start_changes_nothing() {
    let server = Server::start();
    let mut clients = [server.connect()];
    let hanging = server
        .wrapper("hanging", "case \"$*\" in *--prove*) exec $T \"$@\";; esac; exec sleep 100");
    changes_nothing(&server, &mut clients, &hanging, "did not answer within");
}

#[test]
fn a_restart_works_when_not_one_more_client_fits() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", BINARY]);
    let server = Server::of(limited, &[], |_| {});
    let url = format!("ws://127.0.0.1:{}/connection/websocket", server.port);
    let manner = Manner { timeout: PATIENCE, ..Manner::default() };
    let mut clients: Vec<Client> = Vec::new();
    while let Ok(client) = Client::connect(&url, &manner) {
        clients.push(client);
    }
    let full = clients.len() as u64;
    assert!(full > 100, "{full}");
    for _ in 0..2 {
        assert_eq!(server.restart(&[])["connections"], full, "{}", server.log());
    }
    for client in &mut clients {
        client.greet("", PATIENCE).unwrap();
    }
}

#[test]
fn a_limit_that_the_new_process_does_not_have_changes_nothing() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..CROWD).map(|_| server.connect()).collect();
    let poor = server.wrapper("poor", "ulimit -n 64; exec $T \"$@\"");
    changes_nothing(&server, &mut clients, &poor, "limit");
    server.restart(&[]);
    server.reaches(&mut clients, "after");
}

#[test]
fn who_was_not_touched_by_a_new_process_that_died_goes_on() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    server.reaches(&mut clients, "before");
    let before = server.pid();
    let binary = server.wrapper("dying", "THRONG_RESTART_FAULT=exit-after-ack exec $T \"$@\"");
    server.ask(&["restart", "--binary", &binary]);
    let said = server.logs("this one serves again", 1);
    assert!(said.contains("4 connections it had not touched go on, 0 are cut off"), "{said}");
    // Each is told that its offsets are worth nothing any more, on the same connection.
    for client in &mut clients {
        let push = client.push();
        assert!(push["push"]["unsubscribe"]["code"].as_u64().unwrap() >= 2500, "{push}");
        let again = client.client.subscribe("news", PATIENCE).unwrap();
        assert_ne!(again["epoch"], client.epoch.as_str(), "a new epoch");
    }
    assert_eq!(server.pid(), before);
    server.reaches(&mut clients, "after");
    let mut new = server.connect();
    server.reaches([&mut new], "new");
    // And a restart after all of it.
    server.restart(&[]);
    server.reaches([&mut new], "restarted");
}

#[test]
fn who_was_touched_by_a_new_process_that_died_is_cut_off() {
    let patient = |command: &mut Command| {
        command.env("THRONG_RESTART_FAULT", "patient");
    };
    let server = Server::with(&[], patient);
    let (mut silent, mut talking) = (server.connect(), server.connect());
    let outcome = server.restart(&[]);
    talking.client.command("history", r#"{"channel":"news"}"#, PATIENCE).unwrap();
    send(u32::try_from(outcome["to"]["pid"].as_u64().unwrap()).unwrap(), Signal::KILL);
    let said = server.logs("this one serves again", 1);
    assert!(said.contains("1 connections it had not touched go on, 1 are cut off"), "{said}");
    assert!(talking.client.next_line(PATIENCE).is_err());
    assert!(silent.push()["push"].get("unsubscribe").is_some());
    silent.client.subscribe("news", PATIENCE).unwrap();
    server.reaches([&mut silent], "after");
}

#[test]
fn behind_a_keeper_the_process_that_was_started_stays() {
    let mut server = Server::with(&["--keeper", "always"], |_| {});
    let mut client = server.connect();
    let keeper = server.child.id();
    let mut before = server.pid();
    assert_ne!(before, keeper);
    for number in 0..3 {
        server.restart(&[]);
        ends(before);
        assert!(server.child.try_wait().unwrap().is_none(), "the keeper stays");
        before = server.pid();
        server.reaches([&mut client], &number.to_string());
    }
    // Whoever asks the keeper to stop gets the server stopped, and its status.
    send(keeper, Signal::TERM);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    ends(before);
}

#[test]
fn a_keeper_stays_when_a_new_process_dies_and_the_old_one_comes_back() {
    let mut server = Server::with(&["--keeper", "always"], |_| {});
    let _client = server.connect();
    let before = server.pid();
    let binary = server.wrapper("dying", "THRONG_RESTART_FAULT=exit-after-ack exec $T \"$@\"");
    server.ask(&["restart", "--binary", &binary]);
    server.logs("this one serves again", 1);
    server.restart(&[]);
    ends(before);
    assert!(server.child.try_wait().unwrap().is_none());
    send(server.child.id(), Signal::TERM);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
}

#[test]
fn a_server_whose_keeper_is_killed_ends() {
    let mut server = Server::with(&["--keeper", "always"], |_| {});
    server.restart(&[]);
    let mut client = server.connect();
    let serving = server.pid();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.logs("the parent that stays was killed", 1);
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    ends(serving);
}

#[test]
fn a_manager_that_would_see_the_end_is_told_of_before_anything_is_done() {
    let server = Server::with(&["--keeper", "never"], |command| {
        command.env("SUPERVISOR_ENABLED", "1");
    });
    let mut client = server.connect();
    let ran = server.ask(&["restart"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("supervisord would take it for the end"), "{}", ran.err);
    server.reaches([&mut client], "after");
}

#[test]
fn systemd_is_told_of_the_new_main_process() {
    let place = Dir::new();
    let path = place.0.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::with(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let told = || {
        let mut bytes = [0; 256];
        let read = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    let outcome = server.restart(&[]);
    // Not before the old process would not come back any more.
    assert_eq!(told(), format!("MAINPID={}\nREADY=1", outcome["to"]["pid"]));
    assert_eq!(json!(server.pid()), outcome["to"]["pid"]);
    // Of a main process that is no child of its own it would not see the end.
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    assert!(!status.contains(&format!("PPid:\t{}\n", server.child.id())), "{status}");
}

#[test]
fn a_signal_to_the_process_that_has_just_handed_over_reaches_the_new_one() {
    let mut server = Server::start();
    let mut client = server.connect();
    let outcome = server.restart(&[]);
    send(server.child.id(), Signal::TERM);
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    // It went first.
    let new = pid_of(u32::try_from(outcome["to"]["pid"].as_u64().unwrap()).unwrap()).unwrap();
    assert!(test_kill_process(new).is_err() || is_zombie(new), "{}", server.log());
}

#[test]
fn who_stops_the_new_process_at_once_has_stopped_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let outcome = server.restart(&[]);
    send(u32::try_from(outcome["to"]["pid"].as_u64().unwrap()).unwrap(), Signal::TERM);
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    drop(client);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    assert!(!server.log().contains("this one serves again"), "{}", server.log());
}

#[test]
fn behind_a_keeper_too_a_stop_right_after_a_restart_is_a_stop() {
    let mut server = Server::with(&["--keeper", "always"], |_| {});
    server.restart(&[]);
    send(server.child.id(), Signal::TERM);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    assert!(!server.log().contains("this one serves again"), "{}", server.log());
}

#[test]
fn a_signal_to_keeper_and_server_is_one_and_closes_at_the_pace() {
    let mut server = Server::with(&["--keeper", "always"], |_| {});
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let serving = server.pid();
    // As the kernel does with Ctrl-C, and supervisord with stopasgroup.
    send(server.child.id(), Signal::TERM);
    send(serving, Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    }
    drop(clients);
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
    assert!(!server.log().contains("a second signal: everybody"), "{}", server.log());
}

#[test]
fn of_three_processes_the_first_does_not_come_back_when_the_second_dies() {
    let server = Server::with(&[], |command| {
        command.env("THRONG_RESTART_FAULT", "patient");
    });
    let mut clients = [server.connect(), server.connect()];
    let first = server.pid();
    let second = server.restart(&[])["to"]["pid"].as_u64().unwrap();
    server.restart(&[]);
    send(u32::try_from(second).unwrap(), Signal::KILL);
    // It has nothing to wait for any more, and ends long before its parachute would.
    ends(first);
    server.reaches(&mut clients, "after");
    assert!(!server.log().contains("this one serves again"), "{}", server.log());
    server.restart(&[]);
    server.reaches(&mut clients, "again");
}

#[test]
fn a_drain_closes_everybody_at_a_pace_and_lets_nobody_in() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let begun = Instant::now();
    let ran = server.ask(&["drain", "--over", "2s", "--json"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{}", server.log());
    assert!(begun.elapsed() >= Duration::from_secs(1), "evenly, and not at once");
    let drained: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&drained["closed"], &drained["left"]), (&json!(20), &json!(0)));
    for client in &mut clients {
        assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    }
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(server.api().ask(health).0.starts_with("http/1.1 503"));
    let url = format!("ws://127.0.0.1:{}/connection/websocket", server.port);
    let refused = Client::connect(&url, &Manner::default()).unwrap_err();
    assert_eq!(refused.code, Some(503), "{refused}");
    // What is published is still taken.
    server.publish("nobody hears it");
    // A new process would let clients in.
    let ran = server.ask(&["restart"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("this server is drained"), "{}", ran.err);
    assert!(server.api().ask(health).0.starts_with("http/1.1 503"));
    let ran = server.ask(&["drain", "--over", "soon"]);
    assert!(ran.err.contains("--over soon: must be a duration"), "{}", ran.err);
}
