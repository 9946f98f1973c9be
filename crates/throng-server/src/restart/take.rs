//! The new process's side of a restart: receives, prepares, loads, and serves; or ends.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::runtime::Handle;

use crate::front::Door;
use crate::handoff::{Cargo, Incoming, Loaded, Loading, Serving};
use crate::log::{Log, line};

use super::channel::{Channel, ChannelError, Deadline, sealed, unsealed};
use super::fault::{self, Fault};
use super::heir::Proof;
use super::manager::{HANDOFF_VARIABLE, KEEPER_VARIABLE};
use super::message::{Call, Doorway, FromNew, FromOld, Hello, Tag};
use super::touched::Touched;

/// How long the old process may be silent: it works for seconds between two messages at most.
const SILENCE: Duration = Duration::from_secs(60);
/// How long an answer may take to be sent.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the ear for what comes after the commit sleeps at a time.
const LISTEN: Duration = Duration::from_secs(3600);

/// What this process was started with, beside its arguments.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The way to the process that it takes over from.
    pub(crate) predecessor: Option<Channel>,
    /// The way to the keeper.
    pub(crate) keeper: Option<OwnedFd>,
}

impl Inherited {
    /// Takes the channel off the standard input, where the environment says that it is one.
    ///
    /// # Errors
    /// When the standard input is closed.
    pub(crate) fn claim() -> io::Result<Self> {
        let set = |name| std::env::var_os(name).is_some_and(|value| value == "stdin");
        let (handed, kept) = (set(HANDOFF_VARIABLE), set(KEEPER_VARIABLE));
        if !handed && !kept {
            return Ok(Self::default());
        }
        // Above the three that every program has, and not for our own children.
        let channel = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(if handed {
            Self { predecessor: Some(Channel::new(channel)), keeper: None }
        } else {
            Self { predecessor: None, keeper: Some(channel) }
        })
    }
}

/// Why nothing was taken over; the process ends, and the other goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("nothing was taken over: {0}")]
    Failed(String),
    #[error("the process before this one has changed its mind: {0}")]
    Left(String),
}

impl From<ChannelError> for TakeError {
    fn from(error: ChannelError) -> Self {
        Self::Left(error.to_string())
    }
}

/// What the conversation comes to.
pub(crate) enum Taken {
    /// It was a rehearsal.
    Rehearsed,
    /// All of it, loaded: acknowledge with [`Taking::serve`].
    Everything(Loaded),
}

/// The conversation with the old process.
pub(crate) struct Taking {
    channel: Channel,
    /// How long the server has been up, whichever process it was.
    pub(crate) uptime_ms: u64,
    pub(crate) keeper: Option<OwnedFd>,
    pub(crate) listeners: Vec<(Door, TcpListener)>,
    /// Where the connections go that this process uses.
    pub(crate) touched: Option<Touched>,
    sockets: u64,
}

impl Taking {
    /// Introduces this process and hears what will be spoken, and where the listeners are.
    ///
    /// # Errors
    /// When the old process is gone.
    pub(crate) fn begin(channel: Channel, descriptors: u64) -> Result<Self, TakeError> {
        let mut proof = Proof::own();
        if fault::is_set(Fault::UnknownVersion) {
            proof.speaks = (9000, 9001);
        }
        let hello = Hello { proof, descriptors };
        let mut taking = Self {
            channel,
            uptime_ms: 0,
            keeper: None,
            listeners: Vec::new(),
            touched: None,
            sockets: 0,
        };
        taking.say(&FromNew::Hello(hello))?;
        let (welcome, mut with) = taking.next()?;
        let FromOld::Welcome { has_keeper, uptime_ms, speaks: _ } = welcome else {
            return Err(taking.refuse(format!("a welcome was awaited, and not {welcome:?}")));
        };
        taking.uptime_ms = uptime_ms;
        if has_keeper {
            taking.keeper = with.pop();
        }
        let (listeners, sockets) = taking.next()?;
        let FromOld::Listeners(doors) = listeners else {
            return Err(taking.refuse(format!("listeners were awaited, and not {listeners:?}")));
        };
        if doors.len() != sockets.len() {
            return Err(taking.refuse("listeners are missing".to_owned()));
        }
        let sockets = sockets.into_iter().map(TcpListener::from);
        taking.listeners = doors.into_iter().map(Door::from).zip(sockets).collect();
        Ok(taking)
    }

    /// Takes in everything that comes ahead, and then everything else.
    ///
    /// # Errors
    /// When something is wrong with it, which the old process is told.
    pub(crate) fn receive(&mut self, loading: &Loading) -> Result<Taken, TakeError> {
        self.say(&FromNew::Got(self.listeners.len() as u64))?;
        loop {
            let (message, with) = self.next()?;
            match message {
                FromOld::Sockets(tags) => self.adopt(loading, &tags, with)?,
                FromOld::History => {
                    let chunk = self.file(with)?;
                    let loaded = loading.snapshot(&chunk);
                    loaded.map_err(|error| self.refuse(error.to_string()))?;
                    self.say(&FromNew::Got(1))?;
                }
                FromOld::Connections { shard } => {
                    let mut piece = self.file(with)?;
                    if fault::is_set(Fault::CorruptAhead) {
                        flip(&mut piece);
                    }
                    let loaded = loading.ahead(shard, piece);
                    loaded.map_err(|error| self.refuse(error.to_string()))?;
                    self.say(&FromNew::Got(1))?;
                }
                FromOld::Ahead if fault::is_set(Fault::ExitBeforeReady) => std::process::abort(),
                FromOld::Ahead => {
                    self.say(&FromNew::Ready { sockets: self.sockets })?;
                    fault::strike(Fault::ExitAfterReady);
                }
                FromOld::Enough => return Ok(Taken::Rehearsed),
                FromOld::Cargo { shards } => {
                    self.touched = with.into_iter().next().map(Touched::of);
                    let cargo = self.cargo(shards)?;
                    let loaded = loading.load(cargo);
                    let loaded = loaded.map_err(|error| self.refuse(error.to_string()))?;
                    return Ok(Taken::Everything(loaded));
                }
                other => return Err(self.refuse(format!("nobody asked for {other:?}"))),
            }
        }
    }

    fn adopt(
        &mut self,
        loading: &Loading,
        tags: &[Tag],
        sockets: Vec<OwnedFd>,
    ) -> Result<(), TakeError> {
        if tags.len() != sockets.len() {
            let (wanted, arrived) = (tags.len(), sockets.len());
            return Err(self.refuse(format!(
                "{wanted} sockets were sent and {arrived} arrived: the limit on open files of the \
                 new process is too low"
            )));
        }
        let count = sockets.len() as u64;
        let incoming = tags.iter().zip(sockets).map(|(tag, socket)| {
            let Tag { number, cookie, shard } = *tag;
            Incoming { number, cookie, shard, socket }
        });
        let adopted = loading.adopt(incoming.collect());
        adopted.map_err(|error| self.refuse(error.to_string()))?;
        self.sockets += count;
        self.say(&FromNew::Got(count))
    }

    fn cargo(&mut self, shards: usize) -> Result<Cargo, TakeError> {
        let mut parts = Vec::new();
        // Changes, what all share, and the shards.
        while parts.len() < shards.saturating_add(2) {
            let (FromOld::Part, with) = self.next()? else {
                return Err(self.refuse("a part of the state is missing".to_owned()));
            };
            parts.push(damaged(self.file(with)?));
        }
        let mut parts = parts.into_iter();
        let (changes, common) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Ok(Cargo { changes, common, shards: parts.collect() })
    }

    fn file(&self, mut with: Vec<OwnedFd>) -> Result<Vec<u8>, TakeError> {
        let file =
            with.pop().ok_or_else(|| self.refuse("a state came without its file".to_owned()));
        unsealed(file?).map_err(|error| self.refuse(format!("a state is not readable: {error}")))
    }

    fn next(&self) -> Result<(FromOld, Vec<OwnedFd>), TakeError> {
        self.channel.receive(Deadline::after(SILENCE)).map_err(|error| match error {
            ChannelError::Gone | ChannelError::Silent(_) => error.into(),
            error => self.refuse(error.to_string()),
        })
    }

    fn say(&self, message: &FromNew) -> Result<(), TakeError> {
        Ok(self.channel.send(message, &[], Deadline::after(ANSWER))?)
    }

    /// Tells the old process why this one ends.
    pub(crate) fn refuse(&self, why: String) -> TakeError {
        // If it is gone, there is nobody to tell.
        self.channel.send(&FromNew::Refused(why.clone()), &[], Deadline::after(ANSWER)).ok();
        TakeError::Failed(why)
    }

    /// The acknowledgement: from here on this process serves, and the other never again.
    ///
    /// # Errors
    /// When the other is gone already, which has to be taken for a change of its mind.
    pub(crate) fn acknowledge(&self, connections: u64) -> Result<(), TakeError> {
        self.say(&FromNew::Serving { connections })
    }

    /// Takes what the old process finds left, until it ends. Returns the way to it.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn hear(self, late: Late) -> io::Result<Predecessor> {
        let channel = Arc::new(self.channel);
        let predecessor = Predecessor(Arc::clone(&channel));
        let hear = move || {
            loop {
                match channel.receive(Deadline::after(LISTEN)) {
                    Ok((message, with)) => late.take(&channel, message, with),
                    Err(ChannelError::Silent(_)) => {}
                    // It has ended; nothing more comes of what it had asked.
                    Err(_) => return late.serving.give_up_calls(),
                }
            }
        };
        std::thread::Builder::new().name("restart-ear".to_owned()).spawn(hear)?;
        Ok(predecessor)
    }
}

/// The process before this one, which holds a parachute, and may be gone by now.
#[derive(Debug, Clone)]
pub(crate) struct Predecessor(Arc<Channel>);

impl Predecessor {
    /// Tells it not to come back, whatever becomes of this process.
    pub(crate) fn settle(&self) {
        // If it is gone, it does not come back.
        self.0.send(&FromNew::Settled, &[], Deadline::after(ANSWER)).ok();
    }
}

/// A part as it arrives where a test wants it damaged.
fn damaged(mut part: Vec<u8>) -> Vec<u8> {
    if fault::is_set(Fault::Truncated) {
        part.truncate(part.len() / 2);
    }
    if fault::is_set(Fault::Corrupt) {
        flip(&mut part);
    }
    part
}

fn flip(part: &mut [u8]) {
    let half = part.len() / 2;
    if let Some(byte) = part.get_mut(half) {
        *byte ^= 0x10;
    }
}

/// Takes what comes from the old process after the commit.
pub(crate) struct Late {
    pub(crate) serving: Arc<Serving>,
    pub(crate) log: Log,
    pub(crate) runtime: Handle,
}

impl Late {
    fn take(&self, channel: &Arc<Channel>, message: FromOld, mut with: Vec<OwnedFd>) {
        let socket = (with.len() == 2).then(|| with.pop()).flatten();
        let state = with.pop().map(unsealed);
        let taken = match (message, state, socket) {
            (FromOld::Arrival, Some(Ok(state)), Some(socket)) => {
                self.serving.arrive(&state, socket).map_err(|error| error.to_string())
            }
            (FromOld::BackendAnswer, Some(Ok(answer)), None) => {
                let answered = self.serving.backend_answer(&answer);
                self.runtime.block_on(answered).map_err(|error| error.to_string())
            }
            (FromOld::Call(call), Some(Ok(body)), None) => {
                self.answer(Arc::clone(channel), call, body);
                Ok(())
            }
            _ => Err("not what it says it is".to_owned()),
        };
        if let Err(why) = taken {
            line!(
                self.log,
                Warn,
                "restart.late",
                "something that the process before this one sent is lost: {}",
                why
            );
        }
    }

    /// Answers a request of the API that came to the old process.
    fn answer(&self, channel: Arc<Channel>, call: Call, body: Vec<u8>) {
        let front = Arc::clone(&self.serving.front);
        self.runtime.spawn(async move {
            let Call { id, method, asks } = call;
            let answer = crate::front::call_api(&front, &method, &body, asks).await;
            let (parts, body) = answer.into_parts();
            let status = parts.status.as_u16();
            let Ok(body) = body.collect().await;
            let file = sealed("throng", &[&body.to_bytes()]);
            // If the old process is gone, so is who asked.
            file.map(|file| {
                let reply = FromNew::Reply { id, status };
                channel.send(&reply, &[file.as_fd()], Deadline::after(ANSWER))
            })
            .ok();
        });
    }
}

impl From<Doorway> for Door {
    fn from(doorway: Doorway) -> Self {
        match doorway {
            Doorway::Both => Self::Both,
            Doorway::Public => Self::Public,
            Doorway::Internal => Self::Internal,
            Doorway::GrpcApi => Self::GrpcApi,
            Doorway::UniGrpc => Self::UniGrpc,
        }
    }
}

impl From<Door> for Doorway {
    fn from(door: Door) -> Self {
        match door {
            Door::Both => Self::Both,
            Door::Public => Self::Public,
            Door::Internal => Self::Internal,
            Door::GrpcApi => Self::GrpcApi,
            Door::UniGrpc => Self::UniGrpc,
        }
    }
}
