//! A WebSocket client for one person at a terminal: text messages over a blocking socket.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use crate::api;
use crate::failure::Failure;
use crate::place::Place;

/// A message larger than this is none of the server's.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    /// The close code, and the reason.
    Closed(u16, String),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: BufReader<S>,
}

impl WebSocket<TcpStream> {
    /// Connects to the WebSocket at this path.
    pub(crate) fn connect(place: &Place, path: &str) -> Result<Self, Failure> {
        let stream = api::connect(place)?;
        let name = place.name();
        let request = format!(
            "GET {}{path} HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHRocm9uZyBjbWQuLg==\r\n\r\n",
            place.prefix,
        );
        let mut stream = BufReader::new(stream);
        let status = stream
            .get_mut()
            .write_all(request.as_bytes())
            .and_then(|()| api::head(&mut stream))
            .map_err(|error| Failure::could_not_run(format!("{name} did not answer: {error}")))?
            .0;
        if status != 101 {
            return Err(Failure::could_not_run(format!(
                "{name} refused the WebSocket with HTTP {status} (throng explain {status})"
            )));
        }
        Ok(Self { stream })
    }
}

impl<S: Read + Write> WebSocket<S> {
    /// Sends a text.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.send_frame(0x1, text.as_bytes())
    }

    /// Waits for what comes next; pings are answered on the way.
    pub(crate) fn receive(&mut self) -> io::Result<Message> {
        let mut message = Vec::new();
        loop {
            let (fin, opcode) = self.receive_frame(&mut message)?;
            match opcode {
                0x8 => {
                    let code = match message.as_slice() {
                        [high, low, ..] => u16::from_be_bytes([*high, *low]),
                        _ => 1005,
                    };
                    let reason = message.get(2..).unwrap_or_default();
                    return Ok(Message::Closed(code, String::from_utf8_lossy(reason).into_owned()));
                }
                _ if fin => {
                    let text = String::from_utf8(message);
                    return text.map(Message::Text).map_err(|_| io::Error::other("not text"));
                }
                _ => {}
            }
        }
    }

    /// Appends a frame's payload; control frames but the close are dealt with.
    fn receive_frame(&mut self, message: &mut Vec<u8>) -> io::Result<(bool, u8)> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head)?;
            let (fin, opcode) = (head[0] & 0x80 != 0, head[0] & 0x0f);
            let length = match head[1] & 0x7f {
                126 => {
                    let mut wide = [0; 2];
                    self.stream.read_exact(&mut wide)?;
                    u64::from(u16::from_be_bytes(wide))
                }
                127 => {
                    let mut wide = [0; 8];
                    self.stream.read_exact(&mut wide)?;
                    u64::from_be_bytes(wide)
                }
                short => u64::from(short),
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MESSAGE_BYTES_MAX - message.len() {
                return Err(io::Error::other("a message of more than 64 MiB"));
            }
            // RFC 6455 5.5: control frames may come between the fragments of a message.
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload)?;
            match opcode {
                0x9 => self.send_frame(0xa, &payload)?,
                0xa => {}
                0x8 => {
                    *message = payload;
                    return Ok((true, opcode));
                }
                _ => {
                    message.extend(payload);
                    return Ok((fin, opcode));
                }
            }
        }
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            // RFC 6455 5.3: a client masks; the mask guards proxies against a page's scripts, and
            // here is none, so it may be zero.
            length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap_or(0)),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.get_mut().write_all(&frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server sends, and what was sent to it.
    struct Tape {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Tape {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.input.read(bytes)
        }
    }

    impl Write for Tape {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn socket(input: &[u8]) -> WebSocket<Tape> {
        let tape = Tape { input: io::Cursor::new(input.to_vec()), output: Vec::new() };
        WebSocket { stream: BufReader::new(tape) }
    }

    #[test]
    fn fragments_make_one_message_and_pings_are_answered_between() {
        let mut socket = socket(b"\x01\x02he\x89\x01p\x80\x01y\x88\x05\x0b\xb9bye");
        assert_eq!(socket.receive().unwrap(), Message::Text("hey".to_owned()));
        assert_eq!(socket.stream.get_ref().output, b"\x8a\x81\0\0\0\0p");
        assert_eq!(socket.receive().unwrap(), Message::Closed(3001, "bye".to_owned()));
        assert!(socket.receive().is_err());
    }

    #[test]
    fn what_is_sent_is_masked_and_has_its_length() {
        let mut socket = socket(b"");
        socket.send(&"x".repeat(200)).unwrap();
        let sent = &socket.stream.get_ref().output;
        assert_eq!(sent[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
        assert_eq!(sent.len(), 208);
    }
}
