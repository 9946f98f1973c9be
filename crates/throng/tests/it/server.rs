//! A server that plays one answer, so that the command's own words can be tested without another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Receiver<String>,
}

impl Server {
    /// Answers one HTTP request.
    pub(crate) fn answering(status: u16, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        Self::start(move |mut stream| {
            let request = request(&mut stream);
            stream.write_all(answer.as_bytes()).ok(); // the test says what it missed
            request
        })
    }

    /// Upgrades one connection, sends these texts, and closes with 3001.
    pub(crate) fn speaking(texts: &[&str]) -> Self {
        let mut frames = Vec::new();
        for text in texts {
            frames.extend([0x81, u8::try_from(text.len()).unwrap()]);
            frames.extend(text.as_bytes());
        }
        frames.extend([0x88, 10, 0x0b, 0xb9]);
        frames.extend(b"shutdown");
        Self::start(move |mut stream| {
            let mut said = request(&mut stream);
            let key = said.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
            let accept = throng_wire::websocket::accept_key(key.unwrap());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let mut commands = [0; 4096];
            let read = stream.read(&mut commands).unwrap();
            said.push_str(&unmasked(&commands[..read]));
            stream.write_all(&frames).ok(); // the client may have enough before the end
            // Until the client is gone: it still answers the ping.
            while stream.read(&mut commands).is_ok_and(|read| read > 0) {}
            said
        })
    }

    /// What the command sent.
    pub(crate) fn request(&self) -> String {
        self.requests.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn start(serve: impl FnOnce(TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, requests) = channel();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            // Gone when the test drops its end, or with the first connection.
            for _ in 0..2000 {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    send.send(serve(stream)).ok(); // the test may not care
                    return;
                }
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self { port, requests }
    }
}

/// What a client's first frame says (RFC 6455 5.2, 5.3).
fn unmasked(frame: &[u8]) -> String {
    let at = if frame[1] & 0x7f == 126 { 4 } else { 2 };
    let (mask, payload) = frame[at..].split_at(4);
    let bytes: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    String::from_utf8(bytes).unwrap()
}

fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).unwrap();
        bytes.extend(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length || read == 0 {
                return text;
            }
        }
    }
}
