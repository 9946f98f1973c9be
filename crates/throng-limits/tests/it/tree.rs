//! Small machines written down in one file each: processes, files, and when they were changed.
//!
//! ```text
//! Composed by hand from 1.3/9: supervisord that was never told a number.
//!
//! include debian
//! now 2026-11-28T18:00
//! process 812 1 supervisord 0 1024:524288 2026-11-03T08:00 /usr/bin/supervisord -n
//! cgroup /system.slice/supervisor.service
//! environ SUPERVISOR_ENABLED
//! file 2026-11-01T12:00 /etc/supervisor/supervisord.conf
//!     [supervisord]
//! ```
//!
//! The first line says from which rows of `trees/ROWS.tsv` it was composed.
//!
//! A process is its number, its parent's, its name, user, limits, start and command line. The cgroup,
//! the environment and `at` (a working directory) are those of the process above them. The lines of a
//! `log 3 02102001 /srv/push.log 1048576 0 0 4194304` is a file of that process: its descriptor, flags,
//! name, and in bytes what it takes, what is left for everybody and for root, and the disk. The lines of a
//! file are indented; `{BOM}` and `{CR}` stand for what an editor would not show.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use throng_limits::Tree;

/// A directory of its own, gone afterwards.
pub(crate) struct Machine(PathBuf);

impl Machine {
    /// Writes a machine out as files.
    pub(crate) fn compose(text: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("throng-tree-{}-{number}", std::process::id()));
        let machine = Self(dir);
        let mut files = Files::default();
        files.take(text);
        files.write(&machine.0);
        machine
    }

    /// Writes a copy that `throng doctor --capture` made out as files. In its one file each begins with
    /// `== ` and its path; the lines are indented; `{0}` stands for a zero byte, and `{NOEOL}` for no
    /// end of a last line.
    pub(crate) fn unpack(text: &str) -> Self {
        let machine = Self::compose("");
        let mut open = None;
        for line in text.lines().skip(1) {
            if let Some(path) = line.strip_prefix("== ") {
                let path = machine.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                open = Some(fs::File::create(path).unwrap());
            } else if let (Some(file), Some(line)) = (&mut open, line.strip_prefix("    ")) {
                let line = line.replace("{0}", "\0") + "\n";
                file.write_all(line.replace("{NOEOL}\n", "").as_bytes()).unwrap();
            }
        }
        machine
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree::at(self.0.join("proc"), self.0.join("root"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // the next run makes another
    }
}

#[derive(Default)]
struct Files {
    texts: HashMap<String, String>,
    links: String,
    metas: String,
    now_s: i64,
}

impl Files {
    fn take(&mut self, text: &str) {
        let mut pid = String::new();
        let mut open: Option<String> = None;
        for line in text.lines() {
            if let Some(content) = line.strip_prefix("    ").or(line.is_empty().then_some("")) {
                if let Some(text) = open.as_ref().and_then(|path| self.texts.get_mut(path)) {
                    text.push_str(&content.replace("{BOM}", "\u{feff}").replace("{CR}", "\r"));
                    text.push('\n');
                }
                continue;
            }
            open = None;
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "include" => self.take(&read(rest, "files")),
                "now" => self.now_s = seconds(rest),
                "nr_open" => self.put("proc/sys/fs/nr_open", rest),
                "process" => pid = self.process(rest),
                "cgroup" => self.put(&format!("proc/{pid}/cgroup"), &format!("0::{rest}\n")),
                "environ" => {
                    let names: String = rest.split(' ').map(|name| format!("{name}=x\0")).collect();
                    self.put(&format!("proc/{pid}/environ"), &names);
                }
                "weak" => self.append(&format!("proc/{pid}/status"), "CapBnd:\t000001fffeffffff\n"),
                "at" => writeln!(self.links, "link\t{pid}/cwd\t{rest}").unwrap(),
                "log" => {
                    let words: Vec<&str> = rest.split(' ').collect();
                    let [number, flags, name, space @ ..] = &words[..] else { panic!("{rest}") };
                    self.put(&format!("proc/{pid}/fd/{number}"), "");
                    self.put(
                        &format!("proc/{pid}/fdinfo/{number}"),
                        &format!("flags:\t{flags}\nmnt_id:\t29\n"),
                    );
                    let space = space.join("\t");
                    writeln!(self.links, "link\t{pid}/fd/{number}\t{name}").unwrap();
                    writeln!(self.links, "space\t{pid}/fd/{number}\t{space}").unwrap();
                }
                "file" => {
                    let (changed, path) = rest.split_once(' ').unwrap();
                    let bare = path.trim_start_matches('/');
                    let changed = seconds(changed);
                    writeln!(self.metas, "meta\t{bare}\t{changed}\t1\t100644\t0\t0").unwrap();
                    // What a container's process sees lies below /proc.
                    let side = if bare.starts_with("proc/") { "" } else { "root/" };
                    let path = format!("{side}{bare}");
                    self.put(&path, "");
                    open = Some(path);
                }
                // The sentence that says where the tree comes from.
                _ => {}
            }
        }
    }

    fn process(&mut self, rest: &str) -> String {
        let mut words = rest.splitn(7, ' ');
        let mut next = || words.next().unwrap().to_owned();
        let (pid, parent, name, uid, limit) = (next(), next(), next(), next(), next());
        let (started, command) = (seconds(&next()), next());
        let (soft, hard) = limit.split_once(':').unwrap();
        let at = |file: &str| format!("proc/{pid}/{file}");
        let limits = format!("{:<26}{soft:<21}{hard:<21}files     \n", "Max open files");
        self.put(&at("limits"), &limits);
        self.put(&at("comm"), &format!("{name}\n"));
        self.put(
            &at("status"),
            &format!("Name:\t{name}\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        );
        let ticks = started * 100;
        let zeros = "0 ".repeat(17);
        self.put(&at("stat"), &format!("{pid} ({name}) S {parent} {zeros}{ticks} 0\n"));
        self.put(&at("cmdline"), &(command.replace(' ', "\0") + "\0"));
        self.put(&at("cgroup"), "0::/\n");
        pid
    }

    fn put(&mut self, path: &str, text: &str) {
        self.texts.insert(path.to_owned(), text.to_owned());
    }

    fn append(&mut self, path: &str, text: &str) {
        self.texts.get_mut(path).unwrap().push_str(text);
    }

    fn write(mut self, dir: &Path) {
        self.put("proc/stat", "cpu 0\nbtime 0\n");
        let list = format!("now\t{}\n{}", self.now_s, self.links);
        self.put("proc/.tree", &list);
        let metas = std::mem::take(&mut self.metas);
        self.put("root/.tree", &metas);
        for (path, text) in &self.texts {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

/// The file of that name among the trees.
pub(crate) fn read(name: &str, ending: &str) -> String {
    let path = directory().join(format!("{name}.{ending}"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")
}

/// `2026-11-03T08:00` in seconds since 1970.
fn seconds(time: &str) -> i64 {
    let parts: Vec<i64> = time.split(['-', 'T', ':']).map(|part| part.parse().unwrap()).collect();
    let [year, month, day, hour, minute] = parts[..] else { panic!("{time} is no time") };
    // Days of whole years and months, as the calendar of our time has them.
    let days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let leap_day = i64::from(month > 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
        + days_before[usize::try_from(month - 1).unwrap()]
        + leap_day
        + day
        - 1;
    days * 86_400 + hour * 3600 + minute * 60
}
