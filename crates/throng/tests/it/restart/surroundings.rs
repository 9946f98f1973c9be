//! Restarts where the world around is not as usual: another version, a full disk, a container's first
//! process, a port that is taken, requests in progress, and somebody who watches.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Where the last digit is another.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn other_version() -> String {
    let (rest, last) = VERSION.split_at(VERSION.len() - 1);
    format!("{rest}{}", if last == "9" { "8" } else { "9" })
}

/// The real program at another path, with another version number in the one place that has it.
fn of_another_version(path: &Path) {
    let marked = |version: &str| format!("throng version {version} throng").into_bytes();
    let (own, other) = (marked(VERSION), marked(&other_version()));
    let mut program = fs::read(BINARY).unwrap();
    let places: Vec<usize> = memchr_all(&program, &own);
    assert_eq!(places.len(), 1, "the version is in one place");
    program[places[0]..][..other.len()].copy_from_slice(&other);
    let draft = path.with_extension("draft");
    fs::write(&draft, program).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&draft, path).unwrap();
}

fn memchr_all(text: &[u8], wanted: &[u8]) -> Vec<usize> {
    let first = wanted[0];
    let candidates = text.iter().enumerate().filter(|(_, byte)| **byte == first);
    candidates.map(|(at, _)| at).filter(|at| text[*at..].starts_with(wanted)).collect()
}

#[test]
fn a_later_version_takes_over_and_what_it_adds_is_no_hindrance_on_the_way_back() {
    let server = Server::start();
    let mut clients = [server.connect(), server.connect()];
    server.reaches(&mut clients, "before");
    let later = server.dir.0.join("throng-later");
    of_another_version(&later);
    let later = server
        .wrapper("later", &format!("THRONG_RESTART_FAULT=later exec {} \"$@\"", later.display()));
    let ran = server.ask(&["restart", "--binary", &later]);
    assert_eq!(ran.status, 0, "{} {}", ran.err, server.log());
    let versions = format!("(from throng {VERSION} to {})", other_version());
    assert!(ran.out.contains(&versions), "{}", ran.out);
    server.reaches(&mut clients, "later");
    let ran = server.ask(&["status", "--json"]);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["version"], other_version().as_str());
    // What it hands over has a higher minor version, and in every record fields that nobody knows.
    let earlier = server.wrapper("earlier", "unset THRONG_RESTART_FAULT; exec $T \"$@\"");
    let outcome = server.restart(&["--binary", &earlier]);
    assert_eq!(outcome["from"]["version"], other_version().as_str());
    assert_eq!(outcome["to"]["version"], VERSION);
    server.reaches(&mut clients, "back");
    let history = r#"{"channel":"news","limit":-1}"#;
    let all = clients[0].client.command("history", history, PATIENCE).unwrap();
    let data: Vec<_> = all["publications"].as_array().unwrap().iter().map(|p| &p["data"]).collect();
    assert_eq!(data, ["before", "later", "back"]);
    assert_eq!(server.connect().epoch, clients[0].epoch);
}

/// A disk of some KiB that only those see who are put into its mount namespace.
struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill().ok(); // it may have ended
        self.holder.wait().ok();
    }
}

impl SmallDisk {
    /// None, where this user may not mount.
    fn mounted_on(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let script = "mount -t tmpfs -o size=64k,nr_inodes=16,mode=0700 none \"$0\" && \
                      echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(&at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 8];
        let mounted = holder.stdout.as_mut().unwrap().read_exact(&mut said).is_ok();
        let disk = Self { holder, at };
        mounted.then_some(disk)
    }

    /// As everybody sees it.
    fn path(&self) -> PathBuf {
        let relative = self.at.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(relative)
    }

    /// Until not one byte and not one name more fits.
    fn fill(&self) {
        fs::write(self.path().join("full"), vec![b'x'; 1 << 20]).unwrap_err();
        let names = (0..).map(|number| fs::File::create_new(self.path().join(number.to_string())));
        let names = names.take_while(Result::is_ok).count();
        assert!(names < 16, "{names}");
    }

    /// Does it while whatever room there is for a moment is taken at once.
    fn full_during<T>(&self, it: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 100.. {
                    fs::File::create_new(self.path().join(number.to_string())).ok(); // mostly full
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::yield_now();
                }
            });
            let done = it();
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    fn free(&self) {
        for file in fs::read_dir(self.path()).unwrap().map_while(Result::ok) {
            if file.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()) {
                fs::remove_file(file.path()).unwrap();
            }
        }
        fs::remove_file(self.path().join("full")).unwrap();
    }
}

#[test]
fn a_full_disk_hinders_no_restart_and_the_control_socket_comes_when_there_is_room() {
    let dir = Dir::new();
    let Some(disk) = SmallDisk::mounted_on(dir.0.join("disk")) else {
        eprintln!("skipped: a disk of its own needs unshare --mount, which this user may not");
        return;
    };
    let (pid_file, log) = (disk.path().join("pid"), disk.path().join("log"));
    let mut server = Server::at((dir, disk.path()), Command::new(BINARY), &[], |command| {
        command.env("THRONG_PID_FILE", &pid_file);
    });
    let mut client = server.connect();
    let named = |path: &Path| fs::read_to_string(path).unwrap().trim().parse::<u32>().unwrap();
    until("no pid file", || (named(&pid_file) == server.pid()).then_some(()));
    // From here on the log goes there as well.
    let config = format!("log.file = {:?}\n{}", log.to_str().unwrap(), config(server.port));
    server.dir.write("throng.toml", &config);
    server.restart(&[]);
    until("no new pid file", || (named(&pid_file) == server.pid()).then_some(()));
    let before = server.pid();
    disk.fill();
    let outcome = disk.full_during(|| server.restart(&[]));
    assert_eq!(outcome["connections"], 1);
    server.reaches([&mut client], "full");
    assert_eq!(named(&pid_file), before, "there is no room for another");
    ends(before);
    disk.free();
    // As soon as there is room, it is found again.
    assert_eq!(json!(server.pid()), outcome["to"]["pid"]);
    server.restart(&[]);
    server.reaches([&mut client], "free");
    until("no pid file at last", || (named(&pid_file) == server.pid()).then_some(()));
    send(server.pid(), Signal::TERM);
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    until("the pid file stays", || (!pid_file.exists()).then_some(()));
    status(&mut server.child);
}

#[test]
fn a_containers_first_process_stays_and_ends_the_server_when_it_is_told_to() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc"]);
    if !unshare.arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: a process 1 of its own needs unshare --pid, which this user may not");
        return;
    }
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", BINARY]);
    let mut server = Server::of(container, &[], |_| {});
    let mut client = server.connect();
    let children = |pid: u32| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    };
    let [first] = children(server.child.id())[..] else { panic!("one process 1") };
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &first.to_string(), "--pid", "--mount"]).args(arguments);
        command.env_clear().env("XDG_RUNTIME_DIR", &server.runtime).current_dir(&server.dir.0);
        Ran::new(&command.output().unwrap())
    };
    for number in 0..3 {
        let before = server.pid();
        let ran = inside(&[BINARY, "restart", "--json"]);
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        let said: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(said["outcome"]["from"]["pid"], before);
        assert_ne!(server.pid(), 1);
        server.reaches([&mut client], &number.to_string());
    }
    // What served before is gone, and reaped.
    until("more than one child", || (children(first).len() == 1).then_some(()));
    assert!(server.child.try_wait().unwrap().is_none());
    let ran = inside(&["/bin/kill", "-TERM", "1"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(client.client.next_line(PATIENCE).unwrap_err().code, Some(3001));
    assert_eq!(status(&mut server.child), 0, "{}", server.log());
}

#[test]
fn a_new_port_that_is_taken_changes_nothing() {
    let mut server = Server::start();
    let mut clients = [server.connect()];
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = server.port;
    server.dir.write("throng.toml", &config(taken.local_addr().unwrap().port()));
    changes_nothing(&server, &mut clients, BINARY, "cannot listen on 127.0.0.1");
    drop(taken);
    server.dir.write("throng.toml", &config(own));
    server.restart(&[]);
    server.port = own;
    server.reaches(&mut clients, "after");
}

#[test]
fn requests_in_progress_are_answered_and_kept_connections_move_on_with_the_next() {
    let server = Server::start();
    let mut client = server.connect();
    let [mut idle, mut asking, mut slow] = [(); 3].map(|()| server.api());
    for kept in [&mut idle, &mut asking, &mut slow] {
        let (head, _) = kept.ask(HEALTH);
        assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    }
    let body = r#"{"channel":"news","data":"slow"}"#;
    let (half, rest) = body.split_at(9);
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.0.write_all(format!("{head}{half}").as_bytes()).unwrap();
    let counted = "1 HTTP request in progress would be answered";
    until("it is not counted", || {
        let ran = server.ask(&["restart", "--dry-run"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        ran.out.contains(counted).then_some(())
    });
    let before = server.pid();
    assert_eq!(server.restart(&[])["requests"], 1);
    let (head, answer) = slow.ask(rest);
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert!(answer.contains(r#""offset":1"#), "{answer}");
    assert_eq!(client.hear(), (1, "slow".to_owned()));
    // What needs no answer of the new process as well.
    let (head, _) = asking.ask(HEALTH);
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    ends(before);
    assert_eq!(idle.0.read(&mut [0; 1]).unwrap(), 0, "it ends with the process, without a reset");
}

#[test]
fn a_drain_is_watched_on_a_terminal_and_told_in_one_line_elsewhere() {
    let script = |command: &str| {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
        script.stdin(Stdio::null());
        script
    };
    if !script("true").output().is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: a terminal needs script(1), which is not here");
        return;
    }
    let server = Server::start();
    let watched: Vec<_> = (0..1001).map(|_| server.connect()).collect();
    let pid = server.pid();
    let mut ran = script(&format!("{BINARY} drain --over 2s --pid {pid}"));
    let ran = Ran::new(&ran.env("XDG_RUNTIME_DIR", &server.runtime).output().unwrap());
    assert_eq!(ran.status, 0, "{}", ran.out);
    drop(watched);
    let (progress, end) = ran.out.trim_end().rsplit_once('\n').unwrap();
    assert!(end.starts_with("drained: 1,001 clients closed with 3001 in "), "{end}");
    let left = |shown: &str| shown.trim().strip_suffix(" left").unwrap().replace(',', "").parse();
    let shown: Vec<u32> = progress
        .split('\r')
        .filter(|shown| !shown.trim().is_empty())
        .map(|shown| left(shown).unwrap_or_else(|_| panic!("{shown:?}")))
        .collect();
    assert!(shown.len() > 3 && shown.is_sorted_by(|one, next| one >= next), "{shown:?}");
    assert_eq!(shown.last(), Some(&0), "{progress:?}");
    // Nothing of a shorter number is what a longer one left there.
    let widths: Vec<_> = progress.split('\r').map(str::len).filter(|width| *width > 1).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{progress:?}");

    let server = Server::start();
    let _client = server.connect();
    let ran = server.ask(&["drain", "--over", "1s"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("drained: 1 client closed with 3001 in "), "{}", ran.out);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
}
