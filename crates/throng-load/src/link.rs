//! Lines of text between the processes of one load, without blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A line is an order, an answer or one message; what does not end within this is none of them.
const LINE_MAX: usize = 1 << 20;
/// The other end is on this machine and waits for us.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// What is waited for without an event loop comes at once.
const LINE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    ended: bool,
}

impl Link {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(std::net::TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?)
    }

    pub(crate) fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(Self { stream, inbox: Vec::new(), outbox: Vec::new(), ended: false })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Sends a line, now or as soon as there is room.
    pub(crate) fn send(&mut self, line: &str) -> io::Result<()> {
        debug_assert!(!line.contains('\n'), "a line is one line");
        self.outbox.extend_from_slice(line.as_bytes());
        self.outbox.push(b'\n');
        self.flush()
    }

    /// Takes in and sends what can be, on an event for it.
    pub(crate) fn on_event(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut some = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(read) => self.inbox.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.inbox.len() > LINE_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    /// The next line that is all there.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        let end = self.inbox.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&self.inbox[..end]).into_owned();
        self.inbox.drain(..=end);
        Some(line)
    }

    /// Waits for a line where there is no event loop yet.
    pub(crate) fn wait_for_line(&mut self) -> io::Result<String> {
        let patience = Timespec::try_from(LINE_PATIENCE).map_err(io::Error::other)?;
        loop {
            if let Some(line) = self.next_line() {
                return Ok(line);
            }
            if self.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&patience))? == 0 {
                return Err(ErrorKind::TimedOut.into());
            }
            self.on_event()?;
        }
    }

    /// Whether the other end is gone.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
