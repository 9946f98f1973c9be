//! Logs and the room that they have: on machines that were written down, and on a disk of our own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use throng_limits::Tree;
use throng_limits::doctor::logs::Pace;
use throng_limits::doctor::{Ask, Finding, Severity, diagnose, gather};

use crate::tree::{Machine, read};

/// What the check says about a process, whose log grew since an earlier look, where there was one.
fn said(tree: &Tree, pid: u32, pace: Option<(&mut Pace, u64)>) -> Option<Finding> {
    let mut facts = gather(tree, pid, &Ask::default()).unwrap();
    if let Some((pace, at_ms)) = pace {
        pace.fill(at_ms, &mut facts.open.files);
    }
    diagnose(&facts).findings.into_iter().find(|finding| finding.check == "log_disk")
}

#[test]
fn a_disk_that_a_log_has_filled_is_said_of_a_tree_and_of_its_copy() {
    let machine = Machine::compose(&read("log-full", "tree"));
    let found = said(&machine.tree(), 4121, None).unwrap();
    assert_eq!(found.severity, Severity::Tight);
    assert_eq!(
        found.what,
        "cannot write to /srv/push.log: its disk is full; the file has 99.6 GiB"
    );
    // A copy of the copy says the same.
    let dir = std::env::temp_dir().join(format!("throng-log-copy-{}", std::process::id()));
    let recording = machine.tree().recording(&dir).unwrap();
    assert_eq!(said(&recording, 4121, None), Some(found.clone()));
    recording.finish_recording().unwrap();
    let copy = Tree::at(dir.join("proc"), dir.join("root"));
    let copied = said(&copy, 4121, None);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(copied, Some(found));
}

/// Root still has the part of the disk that is kept for it.
#[test]
fn what_is_kept_for_root_is_room_for_root() {
    let text = read("log-full", "tree").replace("python3 1000", "python3 0");
    let found = said(&Machine::compose(&text).tree(), 4121, None).unwrap();
    assert!(found.what.ends_with("and 5.0 GiB are left"), "{}", found.what);
}

/// One that is gone would be waited for.
#[test]
fn a_disk_of_another_machine_is_not_asked_and_said_to_be_so() {
    let mounts = "file 2026-11-03T08:00 /proc/4121/mountinfo\n    \
                  29 1 0:52 / /srv rw - nfs4 files:/srv rw\n";
    let machine = Machine::compose(&(read("log-full", "tree") + mounts));
    assert_eq!(said(&machine.tree(), 4121, None), None);
    let facts = gather(&machine.tree(), 4121, &Ask::default()).unwrap();
    let unseen = facts.unseen.iter().find(|each| each.what == "what room is left for 2 files");
    assert!(unseen.unwrap().why.contains("another machine"), "{:?}", facts.unseen);
}

/// A shell that writes what it is told to, on a disk of 1 MiB that nobody else sees.
struct Writer {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Writer {
    /// None, with the reason on the screen, where nothing may be mounted.
    fn start() -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("throng-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let script = format!(
            "mount -t tmpfs -o size=1m none {at} && exec 3>>{at}/push.log && echo $$ && \
             while read -r bytes; do head -c $bytes /dev/zero >&3 2>/dev/null; echo $?; done"
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| println!("skipped: unshare: {error}"))
            .ok()?;
        let (told, says) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut writer = Self { child, told, says: BufReader::new(says) };
        let pid = writer.line();
        std::fs::remove_dir(&dir).ok(); // busy where the mount is seen here, too
        if pid.is_empty() {
            println!("skipped: no disk may be mounted in a namespace here");
            return None;
        }
        assert_eq!(pid.trim(), writer.child.id().to_string());
        Some(writer)
    }

    /// Writes so many bytes to the log, and whether they found room.
    fn write(&mut self, bytes: u32) -> bool {
        writeln!(self.told, "{bytes}").unwrap();
        self.line().trim() == "0"
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line
    }

    fn said(&self, pace: Option<(&mut Pace, u64)>) -> Option<Finding> {
        said(&Tree::live(), self.child.id(), pace)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended by itself
        self.child.wait().ok();
    }
}

#[test]
fn a_log_fills_a_real_disk_and_what_is_printed_empties_it() {
    let Some(mut writer) = Writer::start() else { return };
    let mut pace = Pace::default();
    assert_eq!(writer.said(Some((&mut pace, 0))), None);
    assert!(writer.write(256 << 10));
    let found = writer.said(Some((&mut pace, 2_000))).unwrap();
    assert_eq!(found.severity, Severity::Tight);
    let wanted = "has 256 KiB, grows by 128 KiB a second, and 768 KiB are left: full in 6 s";
    assert!(found.what.ends_with(wanted), "{}", found.what);

    assert!(!writer.write(4 << 20), "a disk of 1 MiB took more");
    let found = writer.said(None).unwrap();
    assert!(found.what.starts_with("cannot write to "), "{}", found.what);

    let now = found.now.unwrap().replace("sudo ", "");
    let status = Command::new("sh").args(["-c", &now]).status().unwrap();
    assert!(status.success(), "{now}: {status}");
    assert_eq!(writer.said(None), None);
    // The file of logrotate's is printed as it reads it.
    let printed = found.for_good[1].split(" | sudo tee ").next().unwrap().to_owned();
    let output = Command::new("sh").args(["-c", &printed]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().map(str::trim).collect();
    assert!(lines[0].ends_with("/push.log\" {"), "{printed}");
    assert_eq!(lines[1..], ["size 100M", "rotate 3", "copytruncate", "missingok", "}"]);
    assert!(writer.write(64 << 10), "what was emptied has room");
}
