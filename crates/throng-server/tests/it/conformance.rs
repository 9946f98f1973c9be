//! What RFC 6455 demands, over real sockets, from the example that echoes: while it hands everything
//! over to a new process ten times a second, in the middle of a header, a mask, a payload, a
//! character, a message, and of what is not read yet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};
use throng_wire::websocket::{Decoder, Event, Limits, Opcode, Role, put_client_frame};

use crate::client::{HANDSHAKE, dial, read_answer, request};
use crate::server::PATIENCE;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
/// More than sockets hold of what is not read.
const LARGE_BYTES: usize = 16 << 20;

/// The example, in whichever process it is.
struct Echo {
    first: Child,
    address: SocketAddr,
    served: Arc<(Mutex<usize>, Condvar)>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Each process is of the first one's group.
        let group = i32::try_from(self.first.id()).ok().and_then(Pid::from_raw);
        kill_process_group(group.unwrap(), Signal::KILL).ok(); // it may have ended
        self.first.wait().ok(); // as above
    }
}

impl Echo {
    fn start() -> Self {
        let tests = std::env::current_exe().unwrap();
        let example: PathBuf = tests.parent().unwrap().with_file_name("examples").join("echo");
        let mut first = Command::new(&example)
            .args(["127.0.0.1:0", "--restart-every", "0.1"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
        let said = lines.next().unwrap().unwrap();
        let address = said.rsplit_once(' ').unwrap().1.parse().unwrap();
        let served = Arc::<(Mutex<usize>, Condvar)>::default();
        let counted = Arc::clone(&served);
        std::thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                *counted.0.lock().unwrap() += 1;
                counted.1.notify_all();
            }
        });
        Self { first, address, served }
    }

    /// Waits for a restart that began after this was called: one may be under way.
    fn restarted(&self) {
        let (served, changed) = &*self.served;
        let count = served.lock().unwrap();
        let wanted = *count + 2;
        let (count, _) =
            changed.wait_timeout_while(count, PATIENCE, |count| *count < wanted).unwrap();
        assert!(*count >= wanted, "the example does not hand over");
    }

    fn connect(&self) -> TcpStream {
        let mut stream = dial(self.address);
        stream.write_all(request("GET /", HANDSHAKE).as_bytes()).unwrap();
        let (answer, behind) = read_answer(&mut stream);
        assert_eq!((answer.status, behind.len()), (101, 0), "{}", answer.head);
        stream
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// With this code; none: the peer gave none.
    Close(Option<u16>),
}

/// Everything that is said until the end, or until as much as is awaited.
fn heard(stream: &mut TcpStream, wanted: &[Heard]) -> Vec<Heard> {
    let limits = Limits { message_max: LARGE_BYTES };
    let (mut decoder, mut heard, mut piece) = (Decoder::new(), Vec::new(), vec![0; 65_536]);
    while heard.len() < wanted.len() {
        let got = stream.read(&mut piece).unwrap();
        assert!(got > 0, "it ended after {heard:?}");
        let mut at = 0;
        while at < got {
            let step = decoder.next(&mut piece[at..got], Role::Client, limits).unwrap();
            at += step.consumed;
            let Some(event) = step.event else { break };
            heard.push(match event {
                Event::Text(text) => Heard::Text(text.as_bytes().to_vec()),
                Event::Binary(bytes) => Heard::Binary(bytes.to_vec()),
                Event::Pong(bytes) => Heard::Pong(bytes.to_vec()),
                Event::Close(body) => Heard::Close(body.map(|(code, _)| code)),
                Event::Ping(_) => panic!("the example does not ping"),
            });
        }
    }
    heard
}

/// A frame of a client: any first byte, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_client_frame(Opcode::Text, MASK, payload, &mut bytes);
    bytes[0] = first;
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], reason].concat())
}

const PROTOCOL: Heard = Heard::Close(Some(1002));
const NOT_UTF_8: Heard = Heard::Close(Some(1007));

/// What a client says, and what it is to hear.
type Vector = (Vec<u8>, Vec<Heard>);

fn text(text: &[u8]) -> Heard {
    Heard::Text(text.to_vec())
}

fn pong(payload: &[u8]) -> Heard {
    Heard::Pong(payload.to_vec())
}

/// Adds a vector.
type Adding<'a> = dyn FnMut(&[Vec<u8>], &[Heard]) + 'a;

/// RFC 6455, by what its sections are about.
fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut is = |frames: &[Vec<u8>], wanted: &[Heard]| {
        vectors.push((frames.concat(), wanted.to_vec()));
    };
    messages(&mut is);
    control(&mut is);
    vectors
}

fn messages(is: &mut Adding<'_>) {
    // 5.2: every form of length; 5.3: masks.
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
        let letters = vec![b'*'; len];
        is(&[frame(0x81, &letters)], &[text(&letters)]);
        is(&[frame(0x82, &bytes)], &[Heard::Binary(bytes)]);
    }
    is(&[b"\x81\x85\0\0\0\0Hello".to_vec()], &[text(b"Hello")]);
    is(&[b"\x81\x05Hello".to_vec()], &[PROTOCOL]);
    // Reserved bits and opcodes, alone and after what was well.
    for first in [0x91, 0xA2, 0xC0, 0xC9, 0xF8, 0x83, 0x87, 0x8B, 0x8F] {
        is(&[frame(first, b"")], &[PROTOCOL]);
        is(&[frame(0x81, b"well"), frame(first, b"x")], &[text(b"well"), PROTOCOL]);
    }
    // 5.4: fragmentation.
    is(&[frame(0x01, b"frag"), frame(0x80, b"ment")], &[text(b"fragment")]);
    is(
        &[frame(0x02, b"\xFFra"), frame(0x00, b"gme"), frame(0x80, b"nt")],
        &[Heard::Binary(b"\xFFragment".to_vec())],
    );
    is(
        &[
            frame(0x01, b"one"),
            frame(0x89, b"ping 1"),
            frame(0x00, b"two"),
            frame(0x8A, b"pong"),
            frame(0x89, b"ping 2"),
            frame(0x80, b"three"),
        ],
        &[pong(b"ping 1"), pong(b"ping 2"), text(b"onetwothree")],
    );
    is(&[frame(0x01, b""), frame(0x00, b"middle"), frame(0x80, b"")], &[text(b"middle")]);
    is(&[frame(0x80, b"more")], &[PROTOCOL]);
    is(&[frame(0x01, b"one"), frame(0x81, b"two")], &[PROTOCOL]);
    is(&[frame(0x09, b"frag"), frame(0x80, b"ment")], &[PROTOCOL]);
    // 8.1: text is UTF-8, wherever it is cut.
    for valid in ["κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "\u{FFFF}\u{10000}\u{10FFFF}"] {
        is(&[frame(0x81, valid.as_bytes())], &[text(valid.as_bytes())]);
        let mut frames: Vec<_> = valid.bytes().map(|byte| frame(0x00, &[byte])).collect();
        frames.insert(0, frame(0x01, b""));
        frames.push(frame(0x80, b""));
        is(&frames, &[text(valid.as_bytes())]);
    }
    for invalid in [&b"\x80"[..], b"\xC0", b"\xED\xA0", b"\xF4\x90", b"\xF0\x8F", b"\xE2\x82 "] {
        is(&[frame(0x81, invalid)], &[NOT_UTF_8]);
        is(&[frame(0x01, &invalid[..1]), frame(0x80, &invalid[1..])], &[NOT_UTF_8]);
    }
    is(&[frame(0x81, b"\xF0\x9F\x99")], &[NOT_UTF_8]);
}

fn control(is: &mut Adding<'_>) {
    // 5.5: control frames.
    for len in [0, 1, 125] {
        let payload = vec![0xFE; len];
        is(&[frame(0x89, &payload)], &[pong(&payload)]);
    }
    is(&[frame(0x89, &[0xFE; 126])], &[PROTOCOL]);
    is(&[frame(0x8A, b"unasked"), frame(0x89, b"asked")], &[pong(b"asked")]);
    let pings: Vec<_> = (0..10).map(|number| frame(0x89, &[number])).collect();
    is(&pings, &(0..10).map(|number| pong(&[number])).collect::<Vec<_>>());
    // 7.1, 7.4: closing.
    for code in [1000, 1001, 1003, 1007, 1011, 3000, 3999, 4000, 4999] {
        is(&[close(code, b"why")], &[Heard::Close(Some(code))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000, 65_535] {
        is(&[close(code, b"")], &[PROTOCOL]);
    }
    is(&[frame(0x88, b"\x03")], &[PROTOCOL]);
    is(&[close(1000, b"\xFF")], &[NOT_UTF_8]);
    is(&[frame(0x01, b"one"), close(1000, b"")], &[Heard::Close(Some(1000))]);
    is(
        &[frame(0x81, b"last"), close(1000, b""), frame(0x81, b"late")],
        &[text(b"last"), Heard::Close(Some(1000))],
    );
}

/// Where a vector is cut: within its first header, within its mask, in the middle, at its end.
fn cuts(len: usize) -> [usize; 5] {
    [1, 4, len / 2, len - 1, len].map(|at| at.min(len))
}

#[test]
fn every_vector_is_answered_as_ever_with_restarts_in_the_midst_of_it() {
    let echo = Echo::start();
    let vectors = vectors();
    let mut cases: Vec<_> = vectors
        .iter()
        .flat_map(|vector| cuts(vector.0.len()).map(|cut| (echo.connect(), vector, cut)))
        .collect();
    // What does not fit into the sockets waits in the process, and moves with it.
    let large: Vec<u8> = (0..251).cycle().take(LARGE_BYTES).collect();
    let large: Vector = (frame(0x82, &large), vec![Heard::Binary(large)]);
    cases.push((echo.connect(), &large, LARGE_BYTES / 3));
    for (stream, (bytes, _), cut) in &mut cases {
        stream.write_all(&bytes[..*cut]).unwrap();
    }
    echo.restarted();
    for (stream, (bytes, _), cut) in &mut cases {
        // Where it was closed for what came first, there is nobody who takes the rest.
        stream.write_all(&bytes[*cut..]).ok();
    }
    echo.restarted();
    for (stream, (bytes, wanted), cut) in &mut cases {
        let got = heard(stream, wanted);
        let shown = &bytes[..bytes.len().min(40)];
        let said = || format!("{got:x?}").chars().take(400).collect::<String>();
        assert!(got == *wanted, "cut at {cut}: {shown:x?} is answered with {}", said());
    }
}
