//! A shard that echoes: the connection core without a protocol, for conformance suites such as
//! Autobahn's and for latency figures.
//!
//! ```text
//! cargo run --release -p throng-server --example echo -- 127.0.0.1:9001
//! ```
//!
//! With `--restart-every 1` it hands everything over to a new process of its own every second, as a
//! server does at `throng restart`, and that one to the next. Each says on stdout where it listens.

#[path = "echo/moving.rs"]
mod moving;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use throng_hub::state::{Corrupt, Fields};
use throng_limits::Budget;
use throng_server::allowance::Allowance;
use throng_server::clock::Clock;
use throng_server::codes::Disconnect;
use throng_server::log::Log;
use throng_server::shard::{
    Adopt, Bounds, ConnRef, Crowd, Gone, Handler, Mailbox, Message, NEVER, Out, Post, Shard,
    ShardSetup, Taken, WakeAt, event_loop,
};
use throng_wire::framing::Framing;
use throng_wire::websocket::{Agreed, Limits, Opcode, accept_key, negotiate};

/// Says back what it is told.
#[derive(Debug)]
struct Echo;

impl Handler for Echo {
    type Session = ();
    type Open = ();
    type Mail = ();

    fn open(&mut self, _: &mut Out<'_>, (): ()) {}

    fn message(&mut self, out: &mut Out<'_>, (): &mut (), message: Message<'_>) -> Taken {
        match message {
            Message::Text(text) => out.frame(Opcode::Text, text.as_bytes()),
            Message::Binary(data) => out.frame(Opcode::Binary, data),
            Message::Ping | Message::Pong(_) => {}
        }
        Taken::All
    }

    fn proceed(&mut self, _: &mut Out<'_>, (): &mut ()) -> Taken {
        Taken::All
    }

    fn wake(&mut self, _: &mut Out<'_>, (): &mut ()) -> WakeAt {
        NEVER
    }

    fn mail(&mut self, _: &mut Crowd<()>, (): ()) {}

    fn settle(&mut self, _: &mut Crowd<()>) {}

    fn has_work(&self) -> bool {
        false
    }

    fn work(&mut self, _: &mut Crowd<()>, _: usize) {}

    fn closed(&mut self, _: Gone, (): (), _: &Disconnect) {}

    fn tick(&mut self, _: &mut Crowd<()>) {}

    fn take_session(&mut self, _: (ConnRef, Framing), _: Fields<'_>) -> Result<(), Corrupt> {
        // A session is nothing, here and in the process before.
        Ok(())
    }
}

/// What it was called with.
struct Arguments {
    address: String,
    /// How long each process serves; none: for ever.
    restart_every: Option<Duration>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut read = Self { address: "127.0.0.1:9001".to_owned(), restart_every: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--restart-every" {
                let seconds = arguments.next().ok_or("--restart-every: how many seconds?")?;
                read.restart_every = Some(Duration::try_from_secs_f64(seconds.parse()?)?);
            } else {
                read.address = argument;
            }
        }
        Ok(read)
    }
}

/// Where the shard gets its letters; neither those nor new connections have anything to say.
type Letters = Arc<Mailbox<(), ()>>;

/// A process that echoes.
struct Echoing {
    listener: TcpListener,
    mailbox: Letters,
    shard: JoinHandle<io::Result<()>>,
    clock: Clock,
    clients: Budget,
    /// The number of the connection that came last.
    last: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, restart_every } = Arguments::read()?;
    throng_limits::raise::raise_open_files()?;
    let mut echoing = match moving::predecessor()? {
        Some(channel) => moving::take_over(&channel)?,
        None => begin(&address)?,
    };
    let mut out = io::stdout();
    writeln!(out, "pid {} on {}", std::process::id(), echoing.listener.local_addr()?)?;
    out.flush()?;
    echoing.accept_for(restart_every)?;
    moving::hand_over(echoing)
}

fn begin(address: &str) -> Result<Echoing, Box<dyn Error>> {
    let clock = Clock::start();
    let (shard, mailbox) = shard(clock)?;
    let shard = std::thread::spawn(move || shard.run());
    let listener = TcpListener::bind(address)?;
    // Who has gone again when it is looked for is not waited for.
    listener.set_nonblocking(true)?;
    Ok(Echoing { listener, mailbox, shard, clock, clients: budget(), last: 0 })
}

fn budget() -> Budget {
    Budget::new(1_000_000)
}

/// A shard of which nothing runs yet.
fn shard(clock: Clock) -> io::Result<(Shard<Echo>, Letters)> {
    let event_loop = event_loop()?;
    let mailbox = Arc::clone(&event_loop.1);
    let setup = ShardSetup {
        bounds: Bounds {
            // Autobahn sends messages of 16 MiB.
            message: Limits { message_max: 64 << 20 },
            inflated_max: 64 << 20,
            outbox_bytes_max: 256 << 20,
            incomplete_message: Duration::from_secs(60),
            close: Duration::from_secs(5),
        },
        allowance: Allowance::new(1 << 30),
        log: Log::silent(),
        seed: 1,
    };
    Ok((Shard::new(event_loop, setup, clock, Echo), mailbox))
}

impl Echoing {
    /// Lets in who comes, for so long.
    fn accept_for(&mut self, patience: Option<Duration>) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        loop {
            let left = patience.map(|patience| patience.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let left = left.map(Timespec::try_from).transpose()?;
            poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], left.as_ref())?;
            match self.listener.accept() {
                // A conformance suite's odd handshake is its own affair.
                Ok((socket, _)) => self.let_in(socket).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn let_in(&mut self, mut socket: TcpStream) -> io::Result<()> {
        let Some(permit) = self.clients.try_client() else { return Ok(()) };
        let Upgraded { head, agreed, read_ahead } = upgrade(&mut socket)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        self.last += 1;
        self.mailbox.post(Post::Adopt(Box::new(Adopt {
            socket,
            permit,
            address: None,
            head,
            framing: Framing::WebSocket,
            deflate: agreed.map(|agreed| agreed.window),
            read_ahead,
            number: self.last,
            open: (),
        })));
        Ok(())
    }
}

/// What became of a handshake.
struct Upgraded {
    /// The answer.
    head: Bytes,
    agreed: Option<Agreed>,
    /// What came behind the request's head.
    read_ahead: Bytes,
}

/// Reads a handshake's head.
fn upgrade(socket: &mut TcpStream) -> io::Result<Upgraded> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    let end = loop {
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let got = socket.read(&mut buffer)?;
        if got == 0 || head.len() > 16_384 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&buffer[..got]);
    };
    let text = String::from_utf8_lossy(&head[..end]);
    let values = |wanted: &'static str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    let agreed = negotiate(values("sec-websocket-extensions").map(str::as_bytes));
    let (Some(key), Ok(agreed)) = (values("sec-websocket-key").next(), agreed) else {
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        return Err(io::ErrorKind::InvalidData.into());
    };
    let extensions = agreed.map_or_else(String::new, |agreed| {
        format!("Sec-WebSocket-Extensions: {}\r\n", agreed.answer())
    });
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{extensions}\r\n",
        accept_key(key)
    );
    let read_ahead = Bytes::copy_from_slice(&head[end..]);
    Ok(Upgraded { head: answer.into(), agreed, read_ahead })
}
