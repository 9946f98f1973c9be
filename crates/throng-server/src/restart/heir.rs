//! The new process as the old one sees it: started, listened to, and, if need be, ended.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use throng_hub::state::Version;
use tokio::sync::oneshot;

use super::channel::{Channel, ChannelError, Deadline, sealed, unsealed};
use super::fault::{self, Fault};
use super::manager::{HANDOFF_VARIABLE, KEEPER_VARIABLE};
use super::message::{CONVERSATION, Call, FromNew, FromOld, Hello};
use super::orphan;
use crate::front::Asks;

/// Messages of the new process that nobody has asked for yet; it speaks when spoken to.
const NEWS_MAX: usize = 64;
/// How long another process may take to start the new one.
const BIRTH: Duration = Duration::from_secs(10);
/// How long the ear sleeps at a time; the end of the other process wakes it.
const LISTEN: Duration = Duration::from_secs(3600);
/// What a proof, or a complaint of the program, may be in bytes: a pipe's worth.
const SAID_BYTES_MAX: u64 = 64 * 1024;
/// How long a request of the API may wait for its turn on the line.
const CALL: Duration = Duration::from_secs(2);
/// How often it is looked, while a program proves itself, whether that is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long what lies in a channel may take to be read: its reader does nothing else.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What is said of a new process that is gone, whether that is seen by listening or by speaking.
const ENDED: &str = "the new process ended without a word; its log says why";
/// The flag that makes a program load its configuration, say who it is, and end.
const PROVE_FLAG: &str = "--prove";

/// A program and what it is started with.
#[derive(Debug, Clone)]
pub struct Program {
    /// By its path, never by what this process runs from: what was installed there meanwhile is
    /// what is wanted.
    pub path: PathBuf,
    /// All but the name.
    pub arguments: Vec<OsString>,
}

/// What a program says of itself when it is asked for a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub version: String,
    /// The first and the last conversation that it speaks.
    pub speaks: (u32, u32),
    /// The version of the state that it reads, major and minor.
    pub state: (u8, u16),
}

impl Proof {
    /// What this program is.
    #[must_use]
    pub fn own() -> Self {
        let Version { major, minor } = Version::HERE;
        let (first, last) = CONVERSATION;
        let more = u16::from(fault::is_set(Fault::Later));
        Self {
            version: crate::version().to_owned(),
            speaks: (first, last + u32::from(more)),
            state: (major, minor + more),
        }
    }
}

impl Program {
    /// Runs the program for nothing but a look at its configuration and itself.
    ///
    /// # Errors
    /// In its own words, where it finds something wrong.
    pub(crate) fn prove(&self, patience: Duration, reins: &Reins) -> Result<Proof, String> {
        let name = self.path.display();
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .arg(PROVE_FLAG)
            .env_remove(HANDOFF_VARIABLE)
            .env_remove(KEEPER_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} cannot be run: {error}"))?;
        let ended = pidfd_of(child.id()).and_then(|pidfd| {
            let deadline = Instant::now() + patience;
            while !reins.is_off() && Instant::now() < deadline {
                if has_ended_in(&pidfd, LOOK.min(patience))? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        if !matches!(ended, Ok(true)) {
            child.kill().ok(); // it may have ended just now
            child.wait().ok();
            if reins.is_off() {
                return Err(CALLED_OFF.to_owned());
            }
            return Err(format!(
                "{name} did not say within {patience:?} whether it would start; try it: {name} \
                 serve … {PROVE_FLAG}"
            ));
        }
        let status = child.wait().map_err(|error| format!("{name} is lost: {error}"))?;
        let said = said(child.stdout.take());
        if !status.success() {
            let complaint = printable(&said_of(child.stderr.take()));
            return Err(format!("{name} would not start ({status}): {complaint}"));
        }
        serde_json::from_slice(&said)
            .map_err(|_| format!("{name} is not a throng that can take over from a running one"))
    }
}

fn said(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was said until an error is what there is.
        from.take(SAID_BYTES_MAX).read_to_end(&mut bytes).ok();
    }
    bytes
}

fn said_of(from: Option<impl Read>) -> String {
    String::from_utf8_lossy(&said(from)).trim().to_owned()
}

/// What another program printed, on one line and without control characters.
fn printable(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>());
    lines.collect::<Vec<_>>().join("; ")
}

/// What has been heard of the new process.
#[derive(Debug, Default)]
struct Heard {
    /// Batches that have arrived.
    got: u64,
    news: VecDeque<FromNew>,
    /// The number of the new process, where it is no child of this one.
    born: Option<u32>,
    /// The new process needs nobody to come back for it.
    settled: bool,
    /// Nothing more comes, and why.
    over: Option<String>,
}

/// The line to the new process; several threads speak on it.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Channel,
    heard: Mutex<Heard>,
    news: Condvar,
    calls: Mutex<Calls>,
}

/// Requests of the API that the new process is answering.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
}

/// The answer to a request of the API: its status and body.
pub(crate) type Reply = (u16, Vec<u8>);

impl Line {
    pub(crate) fn say(
        &self,
        message: &FromOld,
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), String> {
        self.channel.send(message, descriptors, deadline).map_err(|error| {
            let gone = matches!(error, ChannelError::Gone);
            if gone {
                self.hear_last();
            }
            // What the other process said last is the better reason.
            let plain = || if gone { ENDED.to_owned() } else { error.to_string() };
            self.refusal().unwrap_or_else(plain)
        })
    }

    /// Waits until all is heard that was said before the other end was closed, which it is: what it
    /// said last may still lie in the channel.
    fn hear_last(&self) {
        let deadline = Instant::now() + LAST_WORD;
        let mut heard = self.heard.lock();
        while heard.over.is_none() && !self.news.wait_until(&mut heard, deadline).timed_out() {}
    }

    /// Passes a request of the API on; its answer is nothing when the new process is gone. There are
    /// no more of them than this process had connections at the commit.
    pub(crate) fn call(&self, method: &str, asks: Asks, body: &[u8]) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut calls = self.calls.lock();
            calls.last += 1;
            let id = calls.last;
            calls.waiting.insert(id, reply);
            id
        };
        let message = FromOld::Call(Call { id, method: method.to_owned(), asks });
        let sent = sealed("throng", &[body])
            .map_err(|error| error.to_string())
            .and_then(|body| self.say(&message, &[body.as_fd()], Deadline::after(CALL)));
        if sent.is_err() {
            self.calls.lock().waiting.remove(&id);
        }
        answer
    }

    fn replied(&self, id: u64, status: u16, with: Vec<OwnedFd>) {
        let waiting = self.calls.lock().waiting.remove(&id);
        let body = with.into_iter().next().and_then(|body| unsealed(body).ok());
        if let (Some(waiting), Some(body)) = (waiting, body) {
            waiting.send((status, body)).ok(); // who asked may be gone
        }
    }

    /// Ends every waiting for the new process, for a reason of this one's own.
    pub(crate) fn hang_up(&self, why: &str) {
        self.heard.lock().over = Some(why.to_owned());
        self.news.notify_all();
    }

    /// Whether the new process has said that nobody is to come back for it.
    pub(crate) fn is_settled(&self) -> bool {
        self.heard.lock().settled
    }

    /// Why the new process ended, if it said so.
    fn refusal(&self) -> Option<String> {
        let mut heard = self.heard.lock();
        let at = heard.news.iter().position(|news| matches!(news, FromNew::Refused(_)))?;
        match heard.news.remove(at) {
            Some(FromNew::Refused(why)) => Some(why),
            _ => None,
        }
    }

    /// Batches that have arrived. None: nothing more comes.
    pub(crate) fn got(&self) -> Option<u64> {
        let heard = self.heard.lock();
        heard.over.is_none().then_some(heard.got)
    }

    /// Waits for the number of the new process, where another one starts it.
    fn born(&self, patience: Duration) -> Result<u32, String> {
        self.until(patience, |heard| heard.born.map(Ok))
    }

    /// Waits until so many batches have arrived.
    pub(crate) fn wait_for(&self, batches: u64, patience: Duration) -> Result<(), String> {
        self.until(patience, |heard| (heard.got >= batches).then_some(Ok(())))
    }

    /// What the new process says next.
    pub(crate) fn next(&self, patience: Duration) -> Result<FromNew, String> {
        self.until(patience, |heard| match heard.news.pop_front() {
            Some(FromNew::Refused(why)) => Some(Err(why)),
            other => other.map(Ok),
        })
    }

    fn until<T>(
        &self,
        patience: Duration,
        mut found: impl FnMut(&mut Heard) -> Option<Result<T, String>>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + patience;
        let mut heard = self.heard.lock();
        loop {
            if let Some(found) = found(&mut heard) {
                return found;
            }
            if let Some(FromNew::Refused(why)) = heard.news.front() {
                return Err(why.clone());
            }
            if let Some(why) = &heard.over {
                return Err(why.clone());
            }
            if self.news.wait_until(&mut heard, deadline).timed_out() {
                return Err(format!("the new process did not answer within {patience:?}"));
            }
        }
    }

    /// Hears everything, until the other end is closed.
    fn listen(&self) {
        loop {
            let heard = self.channel.receive::<FromNew>(Deadline::after(LISTEN));
            if let Ok((FromNew::Reply { id, status }, with)) = heard {
                self.replied(id, status, with);
                continue;
            }
            let mut state = self.heard.lock();
            if state.over.is_some() {
                return;
            }
            match heard {
                Ok((FromNew::Got(_), _)) => {
                    state.got += 1;
                }
                Ok((FromNew::Settled, _)) => state.settled = true,
                Ok((FromNew::Born { pid }, _)) => state.born = Some(pid),
                Ok((said, _)) if state.news.len() < NEWS_MAX => state.news.push_back(said),
                Err(ChannelError::Silent(_)) => continue,
                Ok(_) => state.over = Some("the new process talks without end".to_owned()),
                Err(ChannelError::Gone) => {
                    state.over = Some(ENDED.to_owned());
                }
                Err(error) => state.over = Some(error.to_string()),
            }
            let over = state.over.is_some();
            drop(state);
            self.news.notify_all();
            if over {
                // Nobody answers them any more.
                self.calls.lock().waiting.clear();
                return;
            }
        }
    }
}

/// How whoever began a restart can end it.
#[derive(Debug, Default)]
pub(crate) struct Reins {
    is_off: AtomicBool,
    /// The line to the new process, once there is one.
    line: Mutex<Option<Arc<Line>>>,
}

/// Why a restart ended that was called off.
const CALLED_OFF: &str = "the server was told to stop or to drain";

impl Reins {
    /// Ends it as soon as it can still be ended.
    pub(crate) fn call_off(&self) {
        let line = self.line.lock();
        self.is_off.store(true, Ordering::Release);
        if let Some(line) = &*line {
            line.hang_up(CALLED_OFF);
        }
    }

    /// There is a line now.
    pub(crate) fn take(&self, line: &Arc<Line>) {
        *self.line.lock() = Some(Arc::clone(line));
        if self.is_off.load(Ordering::Acquire) {
            line.hang_up(CALLED_OFF);
        }
    }

    fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Acquire)
    }
}

/// The new process.
#[derive(Debug)]
pub(crate) struct Heir {
    pid: u32,
    /// None: it is a child of whoever this process is a child of.
    child: Option<Child>,
    pidfd: OwnedFd,
    pub(crate) line: Arc<Line>,
    ear: Option<std::thread::JoinHandle<()>>,
}

/// Whose child the new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// This process, until it ends.
    This,
    /// From its first moment whoever this process is a child of: a manager that is told of it waits
    /// for the end of nobody but a child of its own.
    Manager,
}

impl Heir {
    /// Starts the program, with one end of a channel as its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(program: &Program, parent: Parent) -> Result<Self, String> {
        let failed =
            |error: io::Error| format!("{} cannot be run: {error}", program.path.display());
        let (channel, other) = Channel::pair().map_err(failed)?;
        let mut command = match parent {
            Parent::This => Command::new(&program.path),
            Parent::Manager => orphan::of(&program.path),
        };
        let child = command
            .args(&program.arguments)
            .env(HANDOFF_VARIABLE, "stdin")
            .env_remove(KEEPER_VARIABLE)
            .stdin(Stdio::from(other))
            .spawn()
            .map_err(failed)?;
        // Holds the end of the channel that is the child's, which is closed to be told of its end.
        drop(command);
        let line = Arc::new(Line {
            channel,
            heard: Mutex::default(),
            news: Condvar::default(),
            calls: Mutex::default(),
        });
        let listening = Arc::clone(&line);
        let ear = std::thread::Builder::new()
            .name("restart-ear".to_owned())
            .spawn(move || listening.listen());
        let ear = match ear {
            Ok(ear) => Some(ear),
            Err(error) => {
                reap(child);
                return Err(failed(error));
            }
        };
        let (pid, child) = match parent {
            Parent::This => (child.id(), Some(child)),
            Parent::Manager => {
                let born = line.born(BIRTH);
                reap(child); // which has nothing more to do
                (born?, None)
            }
        };
        match pidfd_of(pid) {
            Ok(pidfd) => Ok(Self { pid, child, pidfd, line, ear }),
            Err(error) => {
                let gone = error.raw_os_error() == Some(Errno::SRCH.raw_os_error());
                let why = if gone { ENDED.to_owned() } else { failed(error) };
                // Where it is no child, the end of the channel tells it to end.
                if let Some(child) = child {
                    reap(child);
                }
                Err(why)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Who it says it is.
    pub(crate) fn introduced(&self, patience: Duration) -> Result<Hello, String> {
        match self.line.next(patience)? {
            FromNew::Hello(hello) => Ok(hello),
            other => Err(format!("the new process does not introduce itself, but says {other:?}")),
        }
    }

    /// Ends it. Whether it had said that it serves before it was gone: then it is too late.
    pub(crate) fn end(&mut self) -> bool {
        self.signal(Signal::KILL);
        while !self.has_ended_in(LISTEN) {}
        self.child.as_mut().map(Child::wait);
        self.hear_out();
        let heard = self.line.heard.lock();
        heard.news.iter().any(|news| matches!(news, FromNew::Serving { .. }))
    }

    /// Hears everything that it has said, where it has ended. Its end is left to be seen by whoever is
    /// its parent when this process has ended, too: that may be a keeper.
    pub(crate) fn hear_out(&mut self) {
        // Its end of the channel is closed, so the ear comes to the end of all there was.
        if let Some(ear) = self.ear.take() {
            ear.join().ok(); // a panic there is a bug that its own message told
        }
    }

    /// Tells it to stop, as this process was told.
    pub(crate) fn stop(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).ok(); // it may have ended
    }

    /// Whether it is gone.
    pub(crate) fn has_ended_in(&self, patience: Duration) -> bool {
        has_ended_in(&self.pidfd, patience).unwrap_or(false)
    }
}

fn reap(mut child: Child) {
    child.kill().ok(); // it may have ended
    child.wait().ok();
}

fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process has no number"))?;
    // pidfd_open(2) gives one that is closed on exec.
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for the end of a process.
fn has_ended_in(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        // The flag for a proof becomes the script's first argument, and is not looked at.
        let arguments = vec!["-c".into(), script.into(), "sh".into()];
        Program { path: "/bin/sh".into(), arguments }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_proof_is_what_the_program_prints() {
        let proof = shell(r#"echo '{"version":"9.9","speaks":[1,2],"state":[1,0],"more":1}'"#)
            .prove(PATIENCE, &Reins::default())
            .unwrap();
        assert_eq!((proof.version.as_str(), proof.speaks), ("9.9", (1, 2)));
    }

    #[test]
    fn a_program_that_complains_is_quoted_on_one_line() {
        let error = shell("printf 'bad: line 3\\n\\033[31mred' >&2; exit 2")
            .prove(PATIENCE, &Reins::default());
        let error = error.unwrap_err();
        assert!(error.contains("would not start") && error.contains("bad: line 3;"), "{error}");
        assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error:?}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_one_that_is_none_is_named() {
        let error = shell("exec sleep 100")
            .prove(Duration::from_millis(50), &Reins::default())
            .unwrap_err();
        assert!(error.contains("did not say within"), "{error}");
        let error = shell("echo hello").prove(PATIENCE, &Reins::default()).unwrap_err();
        assert!(error.contains("not a throng"), "{error}");
        let nothing = Program { path: "/nowhere/throng".into(), arguments: vec![] };
        let error = nothing.prove(PATIENCE, &Reins::default()).unwrap_err();
        assert!(error.starts_with("/nowhere/throng cannot be run"), "{error}");
    }

    #[test]
    fn an_heir_that_ends_without_a_word_is_told_from_one_that_says_nothing() {
        let mut mute = Heir::start(&shell("exec sleep 100"), Parent::This).unwrap();
        let error = mute.introduced(Duration::from_millis(20)).unwrap_err();
        assert!(error.contains("did not answer"), "{error}");
        assert!(!mute.has_ended_in(Duration::ZERO));
        assert!(!mute.end());
        let dead = Heir::start(&shell("exit 3"), Parent::This).unwrap();
        let error = dead.introduced(PATIENCE).unwrap_err();
        assert!(error.contains("ended without a word"), "{error}");
        assert!(dead.has_ended_in(PATIENCE));
    }
}
