//! A small server of the protocol, with faults on demand: a thread per connection.
#![expect(clippy::unwrap_used, reason = "a panic here fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use throng_wire::websocket::{
    Decoder, Event, Limits, Opcode, Role, accept_key, put_close, put_frame,
};

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// 503 from this client on.
    Full(usize),
    /// The first subscriber does not get every third message.
    Loses,
    /// Every subscriber gets every message twice.
    Repeats,
    /// The subscribe command is refused.
    Denies,
    /// The upgrade is never answered.
    Silent,
    /// Every subscriber is closed with 3012 when the first message comes.
    Closes,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    upgraded: usize,
    published: usize,
    subscribers: Vec<TcpStream>,
}

type Shared = Arc<Mutex<State>>;

/// Starts a server and gives its address.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = State { fault, upgraded: 0, published: 0, subscribers: Vec::new() };
    let state = Arc::new(Mutex::new(state));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), Arc::clone(&state));
            // An end of a connection at any point is the end of its thread.
            std::thread::spawn(move || drop(serve(stream, &state)));
        }
    });
    address
}

fn serve(stream: TcpStream, state: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (first, fields) = head(&mut reader)?;
        if first.starts_with("GET") {
            return websocket(stream, &fields, state);
        }
        let length = field(&fields, "content-length").unwrap_or("0").parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let answer = if field(&fields, "x-api-key") == Some("wrong") {
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
        } else {
            publish(&serde_json::from_slice(&body)?, state);
            "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}"
        };
        (&stream).write_all(answer.as_bytes())?;
    }
}

fn head(reader: &mut BufReader<TcpStream>) -> std::io::Result<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return Ok((lines.remove(0), lines));
        }
        lines.push(line.trim().to_owned());
    }
}

fn field<'a>(fields: &'a [String], name: &str) -> Option<&'a str> {
    fields.iter().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn websocket(mut stream: TcpStream, fields: &[String], state: &Shared) -> std::io::Result<()> {
    let fault = {
        let mut state = state.lock().unwrap();
        state.upgraded += 1;
        match state.fault {
            Fault::Full(clients) if state.upgraded > clients => {
                let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull";
                return stream.write_all(answer.as_bytes());
            }
            fault => fault,
        }
    };
    if fault == Fault::Silent {
        return stream.read(&mut [0; 1]).map(drop);
    }
    let accept = accept_key(field(fields, "sec-websocket-key").unwrap());
    let head = format!("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (mut decoder, mut input) = (Decoder::default(), [0; 4096]);
    loop {
        let read = stream.read(&mut input)?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = &mut input[..read];
        loop {
            let step = decoder.next(rest, Role::Server, Limits { message_max: 4096 }).unwrap();
            let consumed = step.consumed;
            match step.event {
                None => break,
                Some(Event::Text(text)) => command(&stream, text, state)?,
                Some(Event::Close(_)) => return stream.shutdown(Shutdown::Both),
                Some(_) => {}
            }
            rest = &mut rest[consumed..];
        }
    }
}

fn command(mut stream: &TcpStream, text: &str, state: &Shared) -> std::io::Result<()> {
    let command: Value = serde_json::from_str(text).unwrap();
    let id = &command["id"];
    let mut state = state.lock().unwrap();
    let reply = if command.get("connect").is_some() {
        // A ping right behind the reply, as one frame: its answer is an empty command.
        let reply = json!({"id": id, "connect": {"client": "c", "ping": 1, "pong": true}});
        format!("{reply}\n{{}}")
    } else if command.get("unsubscribe").is_some() {
        json!({"id": id, "unsubscribe": {}}).to_string()
    } else if command.get("subscribe").is_none() {
        return Ok(());
    } else if state.fault == Fault::Denies {
        json!({"id": id, "error": {"code": 103, "message": "permission denied"}}).to_string()
    } else {
        state.subscribers.push(stream.try_clone()?);
        json!({"id": id, "subscribe": {}}).to_string()
    };
    stream.write_all(&frame(&reply))
}

fn publish(request: &Value, state: &Shared) {
    let mut state = state.lock().unwrap();
    let State { fault, published, subscribers, .. } = &mut *state;
    *published += 1;
    let push = format!(
        "{{\"push\":{{\"channel\":{},\"pub\":{{\"data\":{}}}}}}}",
        request["channel"], request["data"]
    );
    for (index, mut subscriber) in subscribers.iter().enumerate() {
        let bytes = match fault {
            Fault::Loses if index == 0 && *published % 3 == 0 => continue,
            Fault::Repeats => [frame(&push), frame(&push)].concat(),
            Fault::Closes => {
                let mut close = Vec::new();
                put_close(3012, "no pong", &mut close);
                close
            }
            _ => frame(&push),
        };
        subscriber.write_all(&bytes).ok(); // the client may be gone
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(Opcode::Text, text.as_bytes(), &mut frame);
    frame
}
