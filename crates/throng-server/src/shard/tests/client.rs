//! A client that blocks: what it says is made byte by byte, what it hears is decoded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use throng_wire::websocket::{
    Decoder, Deflated, Event, Inflater, Limits, Opcode, Role, put_client_frame,
};

const HEAR: Limits = Limits { message_max: 16 << 20 };

/// One end of a connection; the other is in the shard.
pub(super) struct Client {
    pub(super) number: u64,
    socket: TcpStream,
    decoder: Decoder,
    inflater: Inflater,
    /// permessage-deflate was agreed on.
    pub(super) is_deflated: bool,
    /// Read and not yet decoded.
    input: Vec<u8>,
}

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The end of the stream.
    End,
    /// The connection was reset.
    Reset,
}

impl Client {
    /// A client that has its upgrade answered with `head`.
    pub(super) fn new(number: u64, socket: TcpStream, head: &[u8]) -> Self {
        let (decoder, inflater, input) = (Decoder::new(), Inflater::new(16 << 20), Vec::new());
        let mut client = Self { number, socket, decoder, inflater, is_deflated: false, input };
        let mut answer = vec![0; head.len()];
        client.socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, head);
        client
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(super) fn end_writing(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Writes on the same connection, from elsewhere.
    pub(super) fn writer(&self) -> TcpStream {
        self.socket.try_clone().unwrap()
    }

    /// The next that comes; fails after some seconds of silence.
    pub(super) fn hear(&mut self) -> Heard {
        loop {
            let deflated = Deflated::Inflated(&mut self.inflater);
            let step =
                self.decoder.next_with(&mut self.input, Role::Client, HEAR, deflated).unwrap();
            assert!(self.is_deflated || !step.deflated);
            let consumed = step.consumed;
            let heard = step.event.map(|event| match event {
                Event::Text(text) => Heard::Text(text.to_owned()),
                Event::Binary(data) => Heard::Binary(data.to_vec()),
                Event::Ping(_) => Heard::Ping,
                Event::Pong(data) => Heard::Pong(data.to_vec()),
                Event::Close(status) => Heard::Close(status.map(|(code, _)| code)),
            });
            self.input.drain(..consumed);
            if let Some(heard) = heard {
                return heard;
            }
            let mut buffer = [0; 16_384];
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    assert!(!self.decoder.is_partial(), "the stream ended within a frame");
                    return Heard::End;
                }
                Ok(got) => self.input.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::Reset,
                Err(error) => panic!("nothing to hear: {error}"),
            }
        }
    }

    /// All that comes until the connection is over.
    pub(super) fn hear_to_the_end(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Heard::End | Heard::Reset)) {
            all.push(self.hear());
        }
        all
    }
}

/// A whole text message.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_client_frame(Opcode::Text, [9, 8, 7, 6], text.as_bytes(), &mut out);
    out
}

/// A frame with any first byte, masked with zeros.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, [0; 4], payload)
}

/// A frame with any first byte and mask.
pub(super) fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_client_frame(Opcode::Binary, mask, payload, &mut out);
    out[0] = first;
    out
}
