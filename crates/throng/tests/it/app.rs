//! An application that is asked: it keeps what it was sent, byte for byte, and answers with a
//! closure.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct App {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

type Answering = dyn Fn(&str) -> String + Send + Sync;

impl App {
    /// Answers each request with what the closure makes of it: a status and a body.
    pub(crate) fn start(answering: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let app = Self { port, seen: Arc::clone(&seen) };
        let answering: Arc<Answering> = Arc::new(move |request| {
            let (status, body) = answering(request);
            let length = body.len();
            format!("HTTP/1.1 {status} X\r\nX-App: yes\r\nContent-Length: {length}\r\n\r\n{body}")
        });
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answering, seen) = (Arc::clone(&answering), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &*answering, &seen));
            }
        });
        app
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answering: &Answering, seen: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            let length: usize = length.parse().unwrap();
            (body.len() >= length).then_some(head.len() + 4 + length)
        });
        let Some(size) = whole else {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(got) => bytes.extend_from_slice(&piece[..got]),
            }
            continue;
        };
        let request = text[..size].to_owned();
        bytes.drain(..size);
        seen.lock().unwrap().push(request.clone());
        let answer = answering(&request);
        // Who asks may have given up.
        stream.write_all(answer.as_bytes()).ok();
    }
}
