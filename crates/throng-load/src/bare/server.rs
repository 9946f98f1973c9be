//! The loop itself: accepts, writes, reads what comes and forgets it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use throng_wire::websocket::{Opcode, put_frame};

use crate::link::Link;

/// As many as a crowd may have under way: none is to wait for the kernel's second try.
const BACKLOG: i32 = 4096;
const EVENTS_PER_TURN: usize = 1024;
/// What answers to pings are read into: a whole burst of them at once.
const READ_BUFFER: usize = 4096;

const CLIENTS: Token = Token(usize::MAX - 1);
const CONTROL: Token = Token(usize::MAX - 2);
const LOAD: Token = Token(usize::MAX - 3);
const CROWD: Token = Token(usize::MAX - 4);

struct Loop {
    poll: Poll,
    listener: TcpListener,
    control: TcpListener,
    /// The load that measures; when it ends, so does the loop.
    load: Link,
    /// The crowd's line, by which it orders frames.
    crowd: Option<Link>,
    sockets: Vec<Option<TcpStream>>,
    frame: Vec<u8>,
    /// Seconds between two pings to one socket; 0 for no pings.
    ping_interval: usize,
    /// The second of the sweep.
    tick: usize,
}

/// Serves until the load ends.
pub(super) fn serve(load: Link) -> io::Result<()> {
    // The load itself says when the limit does not suffice.
    throng_limits::raise::raise_open_files().map_err(io::Error::other)?;
    let mut this = Loop {
        poll: Poll::new()?,
        listener: listen()?,
        control: listen()?,
        load,
        crowd: None,
        sockets: Vec::new(),
        frame: Vec::new(),
        ping_interval: 0,
        tick: 0,
    };
    let registry = this.poll.registry();
    registry.register(&mut this.listener, CLIENTS, Interest::READABLE)?;
    registry.register(&mut this.control, CONTROL, Interest::READABLE)?;
    this.load.register(registry, LOAD)?;
    let clients = this.listener.local_addr()?;
    this.load.send(&format!("{clients} {} {}", this.control.local_addr()?, std::process::id()))?;
    this.run()
}

fn listen() -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let second = Duration::from_secs(1);
        let mut sweep_at = Instant::now() + second;
        while !self.load.ended() {
            let wait = (self.ping_interval > 0)
                .then(|| sweep_at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                match event.token() {
                    CLIENTS => self.accept()?,
                    CONTROL => self.accept_control()?,
                    LOAD | CROWD => self.take_orders(event.token())?,
                    Token(index) => self.read(index),
                }
            }
            if self.ping_interval > 0 && Instant::now() >= sweep_at {
                sweep_at = Instant::now() + second;
                self.sweep();
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.sockets.len());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            self.sockets.push(Some(stream));
        }
    }

    fn accept_control(&mut self) -> io::Result<()> {
        let (stream, _) = match self.control.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            accepted => accepted?,
        };
        let mut link = Link::new(stream.into())?;
        link.register(self.poll.registry(), CROWD)?;
        self.crowd = Some(link);
        Ok(())
    }

    fn take_orders(&mut self, from: Token) -> io::Result<()> {
        loop {
            let link = if from == LOAD { Some(&mut self.load) } else { self.crowd.as_mut() };
            let Some(link) = link else { return Ok(()) };
            link.on_event()?;
            let Some(line) = link.next_line() else { return Ok(()) };
            if let Some(text) = line.strip_prefix("publish ") {
                self.frame.clear();
                put_frame(Opcode::Text, text.as_bytes(), &mut self.frame);
                self.write_to_all();
            } else if let Some(seconds) = line.strip_prefix("ping ") {
                self.ping_interval = seconds.parse().map_err(io::Error::other)?;
            }
        }
    }

    /// One write per socket and message: what is compared with.
    fn write_to_all(&mut self) {
        for socket in &mut self.sockets {
            write(socket, &self.frame);
        }
    }

    /// Pings the part of the sockets whose second it is.
    fn sweep(&mut self) {
        self.frame.clear();
        put_frame(Opcode::Text, b"{}", &mut self.frame);
        let of_this_second = self.sockets.iter_mut().skip(self.tick).step_by(self.ping_interval);
        for socket in of_this_second {
            write(socket, &self.frame);
        }
        self.tick = (self.tick + 1) % self.ping_interval;
    }

    fn read(&mut self, index: usize) {
        let Some(slot) = self.sockets.get_mut(index) else { return };
        let Some(socket) = slot else { return };
        let mut input = [0; READ_BUFFER];
        loop {
            match socket.read(&mut input) {
                Ok(0) => break,
                Ok(read) if read < READ_BUFFER => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        *slot = None;
    }
}

/// A frame either fits, or the socket is given up: the crowd then tells of a loss.
fn write(socket: &mut Option<TcpStream>, frame: &[u8]) {
    let Some(stream) = socket else { return };
    if stream.write(frame).ok() != Some(frame.len()) {
        *socket = None;
    }
}
