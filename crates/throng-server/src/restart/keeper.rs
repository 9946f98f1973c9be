//! The parent that stays: for managers that know a server by the number of one process.
//!
//! It never serves. It starts the server, passes signals on to whichever process serves, hears of
//! a new one through a channel, and ends as that one ends.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_child_subreaper, wait,
};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::channel::{Channel, ChannelError, Deadline};
use super::heir::Program;
use super::manager::{HANDOFF_VARIABLE, KEEPER_VARIABLE};

/// News of the serving process that may wait to be read; there is one at a restart.
const NEWS_MAX: usize = 16;
/// How long the listener to the channel sleeps at a time; it has nothing else to do.
const LISTEN: Duration = Duration::from_secs(3600);
/// Processes that ended before anybody said that they serve, and how: restarts that failed.
const ENDED_MAX: usize = 64;
/// How long the news of a process that serves may lag behind the end of another. Where no process
/// is left, the end of the channel tells so at once.
const NEWS_LAG: Duration = Duration::from_secs(10);

/// What a serving process tells its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    /// This process serves from now on.
    Serving(i32),
}

impl News {
    pub(crate) fn serving(pid: u32) -> Self {
        // The kernel gives no number above 2^22 (PID_MAX_LIMIT).
        Self::Serving(i32::try_from(pid).unwrap_or(0))
    }
}

/// Tells the keeper something, on its channel.
pub(crate) fn tell(keeper: &OwnedFd, news: &News) -> io::Result<()> {
    let channel = Channel::new(keeper.try_clone()?);
    channel.send(news, &[], Deadline::after(NEWS_LAG)).map_err(io::Error::other)
}

/// Told when the keeper is gone, which says nothing on its channel before.
pub(crate) fn end_of(keeper: &OwnedFd) -> io::Result<oneshot::Receiver<()>> {
    let channel = Channel::new(keeper.try_clone()?);
    let (tell, end) = oneshot::channel();
    let wait = move || {
        loop {
            match channel.receive::<News>(Deadline::after(LISTEN)) {
                Ok(_) | Err(ChannelError::Silent(_) | ChannelError::Unreadable(_)) => {}
                Err(ChannelError::Gone) => {
                    tell.send(()).ok(); // the server may be ending, too
                    return;
                }
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("keeper-ear".to_owned()).spawn(wait)?;
    Ok(end)
}

/// The signals that are passed on.
const PASSED: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// How the server behind the keeper ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or 128 and the signal's number, as shells have it.
    pub status: u8,
}

/// Starts the program behind this process and stays until the last process that served ends.
///
/// # Errors
/// When it cannot be started or watched.
pub fn keep(program: Program) -> io::Result<Ended> {
    // A server that hands over exits before its successor does: its child becomes ours.
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (pass, signals) = mpsc::channel(NEWS_MAX);
        for (kind, passed) in PASSED {
            let mut coming = signal(kind)?;
            let pass = pass.clone();
            tokio::spawn(async move {
                while coming.recv().await.is_some() && pass.send(passed).await.is_ok() {}
            });
        }
        let mut ends = signal(SignalKind::child())?;
        let (channel, other) = Channel::pair()?;
        let first = start(&program, other)?;
        let mut kept =
            Kept { serving: first, ended: HashMap::new(), news: listen(channel)?, signals };
        kept.watch(&mut ends).await
    })
}

fn start(program: &Program, channel: OwnedFd) -> io::Result<Pid> {
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .env(KEEPER_VARIABLE, "stdin")
        .env_remove(HANDOFF_VARIABLE)
        .stdin(Stdio::from(channel))
        .spawn()?;
    // Reaped by its number, like its successors, which are no children of this handle's.
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the process has no number"))
}

/// Reads the channel in a thread of its own: it ends with the last process that holds the other
/// end.
fn listen(channel: Channel) -> io::Result<mpsc::Receiver<News>> {
    let (tell, news) = mpsc::channel(NEWS_MAX);
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        loop {
            match channel.receive(Deadline::after(LISTEN)) {
                Ok((said, _)) => {
                    if tell.blocking_send(said).is_err() {
                        return;
                    }
                }
                Err(ChannelError::Silent(_) | ChannelError::Unreadable(_)) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(news)
}

struct Kept {
    serving: Pid,
    /// Those who ended without serving, as far as was known then.
    ended: HashMap<Pid, (Ended, Instant)>,
    news: mpsc::Receiver<News>,
    signals: mpsc::Receiver<Signal>,
}

impl Kept {
    async fn watch(&mut self, ends: &mut tokio::signal::unix::Signal) -> io::Result<Ended> {
        loop {
            tokio::select! {
                // News before ends: a process says that it serves before the other one ends.
                biased;
                Some(News::Serving(pid)) = self.news.recv() => {
                    if let Some(pid) = Pid::from_raw(pid) {
                        self.serving = pid;
                        // It may have ended before its news was read; then another may be back.
                        if let Some(ended) = self.end().await {
                            return Ok(ended);
                        }
                    }
                }
                Some(passed) = self.signals.recv() => {
                    // It may be ending just now; then its end is what comes next.
                    kill_process(self.serving, passed).ok();
                }
                _ = ends.recv() => {
                    let last = self.reap()?;
                    if let Some(ended) = self.end().await.or(last) {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    /// Takes note of every process that has ended. The last one's end, where none is left: then it is
    /// that of the server, whoever was said to serve.
    fn reap(&mut self) -> io::Result<Option<Ended>> {
        let mut last = None;
        let now = Instant::now();
        // What is older says nothing of a process that has the same number today.
        self.ended.retain(|_, (_, at)| now.duration_since(*at) < NEWS_LAG);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if self.ended.len() == ENDED_MAX {
                        self.ended.clear();
                    }
                    let ended = Ended { status: status_of(status) };
                    self.ended.insert(pid, (ended, now));
                    last = Some(ended);
                }
                Ok(None) => return Ok(None),
                Err(rustix::io::Errno::CHILD) => return Ok(last),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How the serving process ended, unless another one serves by now.
    async fn end(&mut self) -> Option<Ended> {
        loop {
            let (ended, _) = *self.ended.get(&self.serving)?;
            let Ok(Some(News::Serving(pid))) =
                tokio::time::timeout(NEWS_LAG, self.news.recv()).await
            else {
                return Some(ended);
            };
            self.serving = Pid::from_raw(pid)?;
        }
    }
}

fn status_of(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}
