//! The channel between two processes of one server: messages in JSON, with descriptors beside them.
//!
//! A `SOCK_SEQPACKET` pair keeps the borders of messages, and tells by its end that the other
//! process is gone. Whatever is large travels as a sealed memory file, so a message is small.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors of one message. The kernel takes no more (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;
/// Bytes of one message: 253 numbers of a connection and what surrounds them are a tenth of it.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A state larger than this is not read: it would not fit into what such a server has.
const STATE_BYTES_MAX: u64 = 64 << 30;
/// How long the kernel is given when too many descriptors of this user are on their way.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(2);

/// One end of the channel. Several threads may send; one receives.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Why nothing came, or could be sent.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the other process is gone")]
    Gone,
    #[error("the other process said nothing for {0:?}")]
    Silent(Duration),
    #[error(
        "only {0} of a message's descriptors arrived: the limit on open files of the receiving \
         process does not allow more"
    )]
    Descriptors(usize),
    #[error("a message of the other process is not readable: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Gone,
            error => Self::Io(error.into()),
        }
    }
}

impl Channel {
    /// Two ends; the second is meant for a child, as its standard input.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(own), other))
    }

    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a message and the descriptors that it speaks of. The receiver gets duplicates.
    ///
    /// # Errors
    /// When the other process is gone or takes nothing until the deadline.
    pub fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message).map_err(io::Error::from)?;
        debug_assert!(text.len() <= MESSAGE_BYTES_MAX && descriptors.len() <= DESCRIPTORS_MAX);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        loop {
            self.wait(PollFlags::OUT, deadline)?;
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(&text)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // unix(7): too many descriptors of this user are in flight; they are taken in a
                // moment, and the socket is writable all the while.
                Err(Errno::TOOMANYREFS) => std::thread::park_timeout(IN_FLIGHT_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message, and the descriptors that came with it.
    ///
    /// # Errors
    /// When none comes until the deadline, the other process is gone, or descriptors are missing.
    pub fn receive<T: DeserializeOwned>(
        &self,
        deadline: Deadline,
    ) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let (bytes, descriptors) = loop {
            self.wait(PollFlags::IN, deadline)?;
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let received = match recvmsg(&self.socket, &mut into, &mut control, flags) {
                Ok(received) => received,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let descriptors = drained(&mut control);
            // unix(7): what does not fit under the limit is closed, and only this tells.
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(ChannelError::Descriptors(descriptors.len()));
            }
            if received.bytes == 0 {
                return Err(ChannelError::Gone);
            }
            break (received.bytes, descriptors);
        };
        let message = serde_json::from_slice(&buffer[..bytes])
            .map_err(|error| ChannelError::Unreadable(error.to_string()))?;
        Ok((message, descriptors))
    }

    fn wait(&self, flags: PollFlags, deadline: Deadline) -> Result<(), ChannelError> {
        loop {
            let mut polled = [PollFd::new(&self.socket, flags)];
            match poll(&mut polled, Some(&deadline.left())) {
                Ok(0) => return Err(ChannelError::Silent(deadline.whole)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn drained(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    descriptors
}

/// Until when a step may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    /// All of what there was, for the sentence that says it was not enough.
    whole: Duration,
}

impl Deadline {
    pub fn after(whole: Duration) -> Self {
        Self { at: Instant::now() + whole, whole }
    }

    fn left(self) -> Timespec {
        let left = self.at.saturating_duration_since(Instant::now());
        // A duration that does not fit is longer than anybody waits.
        Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
    }
}

/// Puts a state into a memory file that nobody can change any more.
///
/// # Errors
/// When there is no descriptor or memory left.
pub fn sealed(name: &str, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create(name, flags)?);
    for part in parts {
        file.write_all(part)?;
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Reads a state out of a sealed memory file.
///
/// # Errors
/// When it is not sealed (somebody could change it while it is read), or not readable.
pub fn unsealed(file: OwnedFd) -> io::Result<Vec<u8>> {
    if !fcntl_get_seals(&file)?.contains(SealFlags::WRITE | SealFlags::SHRINK) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the state is not sealed"));
    }
    let mut file = std::fs::File::from(file);
    let length = file.metadata()?.len();
    if length > STATE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the state is too large"));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
