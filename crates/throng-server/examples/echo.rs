//! A shard that echoes: the connection core without a protocol, for conformance suites such as
//! Autobahn's and for latency figures.
//!
//! ```text
//! cargo run --release -p throng-server --example echo -- 127.0.0.1:9001
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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
use throng_wire::websocket::{Limits, Opcode, accept_key};

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
        // A session is nothing, here and anywhere.
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    throng_limits::raise::raise_open_files().map_err(io::Error::other)?;
    let event_loop = event_loop()?;
    let mailbox = Arc::clone(&event_loop.1);
    let setup = ShardSetup {
        bounds: Bounds {
            // Autobahn sends messages of 16 MiB.
            message: Limits { message_max: 64 << 20 },
            outbox_bytes_max: 256 << 20,
            incomplete_message: Duration::from_secs(60),
            close: Duration::from_secs(5),
        },
        allowance: Allowance::new(1 << 30),
        log: Log::silent(),
        seed: 1,
    };
    let shard = Shard::new(event_loop, setup, Clock::start(), Echo);
    std::thread::spawn(move || shard.run());
    let listener = TcpListener::bind(&address)?;
    let clients = Budget::new(1_000_000);
    for number in 1.. {
        let (mut socket, _) = listener.accept()?;
        let Some(permit) = clients.try_client() else { continue };
        match upgrade(&mut socket) {
            Ok((head, read_ahead)) => {
                let adopt = Adopt {
                    socket,
                    permit,
                    address: None,
                    head,
                    framing: Framing::WebSocket,
                    read_ahead,
                    number,
                    open: (),
                };
                hand_over(&mailbox, adopt)?;
            }
            // A conformance suite's odd handshake is its own affair.
            Err(_) => continue,
        }
    }
    Ok(())
}

fn hand_over(mailbox: &Mailbox<(), ()>, adopt: Adopt<()>) -> io::Result<()> {
    adopt.socket.set_nodelay(true)?;
    adopt.socket.set_nonblocking(true)?;
    mailbox.post(Post::Adopt(Box::new(adopt)));
    Ok(())
}

/// Reads a handshake's head. Returns the answer, and what came behind the head.
fn upgrade(socket: &mut TcpStream) -> io::Result<(Bytes, Bytes)> {
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
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let Some(key) = key else {
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        return Err(io::ErrorKind::InvalidData.into());
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(&key)
    );
    Ok((answer.into(), Bytes::copy_from_slice(&head[end..])))
}
