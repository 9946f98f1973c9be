//! What refusing costs at the least: accept, read, 503, close, and nothing else.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{io::BufRead, io::BufReader, net::SocketAddr};

const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n\
Content-Type: application/json\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{\"error\":\"server full\"}";

/// The loop in a process of its own, so that its processor time can be told apart.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("bare")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said: ChildStdout = child.stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Serves until it is killed.
pub(crate) fn serve() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr().unwrap());
    let mut head = [0; 4096];
    loop {
        let Ok((mut socket, _)) = listener.accept() else { continue };
        if socket.read(&mut head).is_ok_and(|got| got > 0) {
            socket.write_all(ANSWER).ok();
        }
    }
}
