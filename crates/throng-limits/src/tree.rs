//! Where the doctor reads: `/proc` and `/` of this machine, or a captured copy of both.
//!
//! Every fact goes through a [`Tree`]. So a diagnosis can be made on another machine than the one
//! that is ill, a test needs no kernel in a certain state, and a recording tree leaves behind
//! exactly what the diagnosis looked at, no more and no less.

mod record;
mod redact;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2, readlinkat, statvfs};

use crate::facts::FactError;
use record::{Index, Look, Noted, Recorder};

/// Bytes of one file of `/proc`: a table of 400,000 sockets, of 150 bytes each.
const PROC_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one file elsewhere: no configuration is longer, and a trap may have no end.
const ROOT_BYTES_MAX: u64 = 4 << 20;
/// Names in one directory: above the largest table of descriptors that anybody is given.
const NAMES_MAX: usize = 2 << 20;
/// Characters of one name that are shown: no screen is wider, and a name may have megabytes.
const PRINTABLE_CHARS_MAX: usize = 256;

/// stat(2): the unit of `st_blocks`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

/// Renames during one opening after which it is given up.
const RACES_MAX: usize = 16;

/// Where facts are read.
#[derive(Debug, Clone)]
pub struct Tree {
    proc: Side,
    root: Side,
    live: bool,
    now_s: Option<i64>,
    recorder: Option<Arc<Recorder>>,
}

/// What is known about a file without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// When it was last written, in seconds since 1970.
    pub mtime_s: i64,
    pub len: u64,
    /// Permissions and type, as `stat` gives them.
    pub mode: u32,
    pub is_dir: bool,
    pub uid: u32,
}

/// What a file takes, and what is left where it lies; all in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// What comes back when the file is emptied: holes in it take nothing.
    pub taken: u64,
    /// What is left on its file system for everybody.
    pub free: u64,
    /// What is left for root, for whom some file systems keep a part.
    pub free_for_root: u64,
    /// The size of the file system; zero where it has none.
    pub size: u64,
}

/// One of the two directories.
#[derive(Debug, Clone)]
struct Side {
    at: PathBuf,
    name: &'static str,
    bytes_max: u64,
    live: bool,
    index: Arc<Index>,
}

impl Tree {
    /// This machine, now.
    #[must_use]
    pub fn live() -> Self {
        Self {
            proc: Side::new("/proc", record::PROC, PROC_BYTES_MAX, None),
            root: Side::new("/", record::ROOT, ROOT_BYTES_MAX, None),
            live: true,
            now_s: None,
            recorder: None,
        }
    }

    /// Directories that look like `/proc` and `/`: captured, or composed by hand.
    #[must_use]
    pub fn at(proc: impl Into<PathBuf>, root: impl Into<PathBuf>) -> Self {
        let (proc, root) = (proc.into(), root.into());
        let live = proc == Path::new("/proc") && root == Path::new("/");
        if live {
            return Self::live();
        }
        let (proc_index, root_index) = (Index::load(&proc), Index::load(&root));
        let now_s = proc_index.now_s();
        Self {
            proc: Side::new(proc, record::PROC, PROC_BYTES_MAX, Some(proc_index)),
            root: Side::new(root, record::ROOT, ROOT_BYTES_MAX, Some(root_index)),
            live: false,
            now_s,
            recorder: None,
        }
    }

    /// The same tree, which from now on leaves a copy of all that is read in `dir/proc` and
    /// `dir/root`. Values that look like secrets are left out.
    ///
    /// # Errors
    /// When the directory is not empty, or cannot be made.
    pub fn recording(self, dir: &Path) -> io::Result<Self> {
        let recorder = Recorder::create(dir, self.now_s())?;
        Ok(Self { recorder: Some(Arc::new(recorder)), ..self })
    }

    /// Writes what the copy needs besides the files themselves. The first thing that could not be
    /// copied is the error.
    ///
    /// # Errors
    /// When a file of the copy could not be written.
    pub fn finish_recording(&self) -> io::Result<()> {
        self.recorder.as_ref().map_or(Ok(()), |recorder| recorder.finish())
    }

    /// Whether this is the machine we run on, where sockets can be asked and limits be raised.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether a copy is being made.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// The time of the tree, in seconds since 1970: now, or when it was captured.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        self.now_s.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
    }

    /// The text of a file below `/proc`, such as `4121/limits`. Bytes that are no UTF-8 are
    /// replaced.
    ///
    /// # Errors
    /// When it is not there, not for us, not a file, or has no end.
    pub fn read_proc(&self, rel: &str) -> Result<String, FactError> {
        self.read(&self.proc, rel)
    }

    /// The text of a file, such as `/etc/security/limits.conf`.
    ///
    /// # Errors
    /// When it is not there, not for us, not a file, or has no end.
    pub fn read_root(&self, abs: &str) -> Result<String, FactError> {
        self.read(&self.root, abs)
    }

    /// The names in a directory below `/proc`, sorted; `""` is `/proc` itself.
    ///
    /// # Errors
    /// When it is not there, or not for us.
    pub fn list_proc(&self, rel: &str) -> Result<Vec<String>, FactError> {
        self.list(&self.proc, rel)
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// When it is not there, or not for us.
    pub fn list_root(&self, abs: &str) -> Result<Vec<String>, FactError> {
        self.list(&self.root, abs)
    }

    /// Where a link below `/proc` points, such as `4121/fd/7`.
    ///
    /// # Errors
    /// When it is not there, not for us, or no link.
    pub fn link_proc(&self, rel: &str) -> Result<String, FactError> {
        self.link(&self.proc, rel)
    }

    /// Where a link points.
    ///
    /// # Errors
    /// When it is not there, not for us, or no link.
    pub fn link_root(&self, abs: &str) -> Result<String, FactError> {
        self.link(&self.root, abs)
    }

    /// What is known about a file below `/proc`.
    ///
    /// # Errors
    /// When it is not there, or not for us.
    pub fn meta_proc(&self, rel: &str) -> Result<Meta, FactError> {
        self.meta(&self.proc, rel)
    }

    /// What is known about a file.
    ///
    /// # Errors
    /// When it is not there, or not for us.
    pub fn meta_root(&self, abs: &str) -> Result<Meta, FactError> {
        self.meta(&self.root, abs)
    }

    /// What a file takes and what is left where it lies, such as that of `4121/fd/7`. A server of
    /// files that does not answer is waited for.
    ///
    /// # Errors
    /// When it is not there, not for us, or not a plain file.
    pub fn space_proc(&self, rel: &str) -> Result<Space, FactError> {
        let path = tame(rel);
        let done = self.proc.space(&path);
        let note = done.as_ref().map(|space| Noted::Space(*space));
        self.note(&self.proc, &path, Look::Space, note);
        done.map_err(|error| self.proc.error(&path, error))
    }

    /// Leaves something in the copy that did not come from a file, such as what the kernel said
    /// over a socket; a captured tree gives it back by `read_proc`. Nothing where no copy is made.
    pub fn record_proc(&self, rel: &str, text: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.note(self.proc.name, &tame(rel), Noted::File(text));
        }
    }

    fn read(&self, side: &Side, path: &str) -> Result<String, FactError> {
        let path = tame(path);
        let done = side.read(&path);
        let note = done.as_deref().map(Noted::File);
        self.note(side, &path, Look::Read, note);
        done.map_err(|error| side.error(&path, error))
    }

    fn list(&self, side: &Side, path: &str) -> Result<Vec<String>, FactError> {
        let path = tame(path);
        let done = side.list(&path);
        let note = done.as_deref().map(Noted::Listing);
        self.note(side, &path, Look::List, note);
        done.map_err(|error| side.error(&path, error))
    }

    fn link(&self, side: &Side, path: &str) -> Result<String, FactError> {
        let path = tame(path);
        let done = side.link(&path);
        let note = done.as_deref().map(Noted::Link);
        self.note(side, &path, Look::Link, note);
        done.map_err(|error| side.error(&path, error))
    }

    fn meta(&self, side: &Side, path: &str) -> Result<Meta, FactError> {
        let path = tame(path);
        let done = side.meta(&path);
        let note = done.as_ref().map(|meta| Noted::Meta(*meta));
        self.note(side, &path, Look::Meta, note);
        done.map_err(|error| side.error(&path, error))
    }

    fn note(&self, side: &Side, path: &str, look: Look, done: Result<Noted<'_>, &io::Error>) {
        let Some(recorder) = &self.recorder else { return };
        match done {
            Ok(noted) => recorder.note(side.name, path, noted),
            Err(error) => recorder.note_error(side.name, path, look, error),
        }
    }
}

impl Side {
    fn new(
        at: impl Into<PathBuf>,
        name: &'static str,
        bytes_max: u64,
        index: Option<Index>,
    ) -> Self {
        let live = index.is_none();
        Self { at: at.into(), name, bytes_max, live, index: Arc::new(index.unwrap_or_default()) }
    }

    fn read(&self, path: &str) -> io::Result<String> {
        self.index.refused(Look::Read, path)?;
        let file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        // A pipe or a device in the place of a configuration may have no end, or never begin.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
        }
        let mut bytes = Vec::new();
        let read = file.take(self.bytes_max + 1).read_to_end(&mut bytes)?;
        // BOUNDED: one file.
        if u64::try_from(read).is_ok_and(|read| read > self.bytes_max) {
            let why = format!("it is larger than {} MiB", self.bytes_max >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.index.refused(Look::List, path)?;
        if let Some(names) = self.index.listing(path) {
            return Ok(names);
        }
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            // BOUNDED: one directory. What is beyond is not looked at.
            if names.len() < NAMES_MAX && !matches!(&*name, "." | ".." | record::INDEX) {
                names.push(name.into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn link(&self, path: &str) -> io::Result<String> {
        self.index.refused(Look::Link, path)?;
        if let Some(to) = self.index.link(path) {
            return Ok(to);
        }
        let to = match self.jail(path) {
            None => std::fs::read_link(self.full(path))?.to_string_lossy().into_owned(),
            Some(_) => {
                let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
                readlinkat(link, "", Vec::new())?.to_string_lossy().into_owned()
            }
        };
        Ok(to)
    }

    fn meta(&self, path: &str) -> io::Result<Meta> {
        self.index.refused(Look::Meta, path)?;
        if let Some(meta) = self.index.meta(path) {
            return Ok(meta);
        }
        let meta = match self.jail(path) {
            None => std::fs::metadata(self.full(path))?,
            Some(_) => File::from(self.open(path, OFlags::PATH)?).metadata()?,
        };
        Ok(Meta::from(&meta))
    }

    fn space(&self, path: &str) -> io::Result<Space> {
        self.index.refused(Look::Space, path)?;
        if let Some(space) = self.index.space(path) {
            return Ok(space);
        }
        // What the disk below a copy has left says nothing about the machine.
        if !self.live {
            return Err(io::ErrorKind::NotFound.into());
        }
        let at = self.full(path);
        let meta = std::fs::metadata(&at)?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
        }
        let room = statvfs(&at)?;
        let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
        Ok(Space {
            taken: meta.len().min(meta.blocks().saturating_mul(BLOCK_BYTES)),
            free: bytes(room.f_bavail),
            free_for_root: bytes(room.f_bfree),
            size: bytes(room.f_blocks),
        })
    }

    /// Opens a file. One that a stranger laid out is opened as if its directory were all there is.
    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let Some((jail, inside)) = self.jail(path) else {
            return Ok(rustix::fs::open(self.full(path), flags, Mode::empty())?);
        };
        let within = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(jail, within, Mode::empty())?;
        let inside = if inside.is_empty() { "." } else { inside };
        for _ in 0..RACES_MAX {
            // openat2(2): EAGAIN where something was renamed meanwhile.
            match openat2(&directory, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Err(rustix::io::Errno::AGAIN) => {}
                done => return Ok(done?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    /// The directory that links in a path must not lead out of, and the path within: a captured
    /// tree, or the root of a container's process.
    fn jail<'a>(&self, path: &'a str) -> Option<(PathBuf, &'a str)> {
        if !self.live {
            return Some((self.at.clone(), path));
        }
        let (pid, rest) = path.split_once('/')?;
        let inside = rest.strip_prefix("root/")?;
        let is_pid = pid.bytes().all(|byte| byte.is_ascii_digit());
        (self.name == record::PROC && is_pid).then(|| (self.at.join(pid).join("root"), inside))
    }

    fn full(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    /// An error that names the file as the machine has it, wherever the copy lies.
    fn error(&self, path: &str, error: io::Error) -> FactError {
        let machine = if self.name == record::PROC { "/proc/" } else { "/" };
        FactError::unreadable(Path::new(&format!("{machine}{path}")), error)
    }
}

impl From<&std::fs::Metadata> for Meta {
    fn from(meta: &std::fs::Metadata) -> Self {
        Self {
            mtime_s: meta.mtime(),
            len: meta.len(),
            mode: meta.mode(),
            is_dir: meta.is_dir(),
            uid: meta.uid(),
        }
    }
}

/// A stranger's text as it may be shown: on one line, of bounded length, and unable to speak to
/// the terminal or to reorder what stands beside it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        // BOUNDED: one name.
        if at == PRINTABLE_CHARS_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Characters that are not seen, or that change the order of those which are.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A path without its first slash, and without ways up: what is listed in a file, or in `/proc`, is
/// a stranger's word, and a copy must stay in its directory.
fn tame(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
