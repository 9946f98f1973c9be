//! Real sockets and real threads: a crowd is served by one set of shards after the other while it
//! talks, and everybody hears everything once and in order.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use throng_hub::request::{Answer, Request};
use throng_limits::Budget;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Decoder, Event, Limits, Opcode, Role, put_client_frame};
use tokio::runtime::Runtime;

use super::property::{settings, token};
use super::world::{Crate, publication};
use crate::clock::Clock;
use crate::config::Settings;
use crate::front::Front;
use crate::front::address::{ClientAddress, ToldBy};
use crate::handoff::freezing::CannotFreeze;
use crate::handoff::{
    Courier, Freezer, Frozen, LoadError, Loaded, Loading, Outlet, Parcel, Patience, Serving,
};
use crate::log::Log;
use crate::serve::{Parts, Seats, assemble, start_shards};
use crate::session::{Kind, Open, retention};
use crate::shard::{Adopt, Post, Touch};

/// Far more than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);
const PATIENT: Patience =
    Patience { requests: LONG, calm: Duration::from_millis(50), shards: LONG };
/// Clients of the crowd.
const CLIENTS: usize = 12;
/// What each client says, at least, and what is said to all.
const MESSAGES: u64 = 60;

/// A server that serves, in this process.
pub(super) struct Server {
    pub(super) front: Arc<Front>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

/// What is left after a commit goes to the next server.
struct ToNext(Mutex<Option<Serving>>);

impl Outlet for ToNext {
    fn arrival(&self, state: Vec<u8>, socket: OwnedFd) {
        self.0.lock().as_ref().unwrap().arrive(&state, socket).unwrap();
    }

    fn backend_answer(&self, _answer: Vec<u8>) {}

    fn call(
        &self,
        _method: &str,
        _asks: crate::front::Asks,
        _body: &[u8],
    ) -> tokio::sync::oneshot::Receiver<(u16, Vec<u8>)> {
        unreachable!("no request of the API is under way")
    }
}

pub(super) fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap())
}

fn parts(settings: &Arc<Settings>, shards: usize, clock: Clock, runtime: &Runtime) -> Parts {
    let mut own = Settings::clone(settings);
    own.limits.shards = shards;
    let log = Log::silent();
    let seats = Seats { log: &log, clock, budget: Budget::new(100_000) };
    assemble(&Arc::new(own), &seats, runtime.handle(), String::new()).unwrap()
}

impl Server {
    pub(super) fn start(settings: &Arc<Settings>, shards: usize, runtime: &Runtime) -> Self {
        let Parts { front, shards } = parts(settings, shards, Clock::start(), runtime);
        let threads = start_shards(shards, &Log::silent()).unwrap();
        Self { front, threads }
    }

    /// Takes a socket in that needs no upgrade.
    pub(super) fn receive(&self, socket: TcpStream, read_ahead: Bytes, shard: usize) {
        let open = Open {
            kind: Kind::Bidirectional,
            native_ping: false,
            user: None,
            connect: None,
            address: ClientAddress { ip: "127.0.0.1".parse().unwrap(), told_by: ToldBy::Socket },
            headers: Box::default(),
            no_cookie: None,
            session: None,
            head: None,
        };
        let permit = self.front.clients.try_client().unwrap();
        let (number, head, address) = (self.front.number(), Bytes::new(), None);
        let framing = Framing::WebSocket;
        let deflate = None;
        let adopt =
            Adopt { socket, permit, address, head, framing, deflate, read_ahead, number, open };
        let shards = &self.front.common.shards;
        shards[shard % shards.len()].post(Post::Adopt(Box::new(adopt)));
    }

    /// Everything up to the freeze, and the freeze.
    pub(super) fn prepare(
        &self,
        settings: &Arc<Settings>,
        shards: usize,
        runtime: &Runtime,
    ) -> (Loading, Frozen, Arc<Crate>) {
        let freezer = Freezer::new(Arc::clone(&self.front));
        let sockets = Arc::new(Crate::default());
        let courier = Arc::clone(&sockets) as Arc<dyn Courier>;
        let clock = Clock::resume(freezer.uptime_ms());
        let loading = Loading::prepare(parts(settings, shards, clock, runtime)).unwrap();
        freezer.copy_ahead(&courier).wait(LONG).unwrap();
        loading.adopt(std::mem::take(&mut *sockets.0.lock())).unwrap();
        for chunk in freezer.snapshot() {
            loading.snapshot(&chunk).unwrap();
        }
        // All of them, and then those that have changed.
        for _ in 0..2 {
            freezer.tell_ahead(&courier).wait(LONG).unwrap();
            for (shard, piece) in std::mem::take(&mut *sockets.1.lock()) {
                loading.ahead(shard, piece).unwrap();
            }
        }
        let frozen = freezer.freeze(&courier, PATIENT).unwrap();
        (loading, frozen, sockets)
    }

    /// Another set of shards goes on.
    fn restart(
        self,
        settings: &Arc<Settings>,
        shards: usize,
        runtime: &Arc<Runtime>,
    ) -> (Self, Loaded) {
        let (loading, mut frozen, sockets) = self.prepare(settings, shards, runtime);
        loading.adopt(std::mem::take(&mut *sockets.0.lock())).unwrap();
        let loaded = loading.load(frozen.take_cargo()).unwrap();
        let outlet = Arc::new(ToNext(Mutex::new(None)));
        let parachute = frozen.give_up(Arc::clone(&outlet) as Arc<dyn Outlet>);
        let serving = loading.serve(None);
        let front = Arc::clone(&serving.front);
        let threads = {
            let mut serving = serving;
            let threads = std::mem::take(&mut serving.threads);
            *outlet.0.lock() = Some(serving);
            threads
        };
        drop(parachute);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
        (Self { front, threads }, loaded)
    }

    /// A restart that fails: what was written down is damaged.
    fn fail_to_restart(&self, settings: &Arc<Settings>, runtime: &Runtime) -> LoadError {
        let (loading, mut frozen, sockets) = self.prepare(settings, 2, runtime);
        loading.adopt(std::mem::take(&mut *sockets.0.lock())).unwrap();
        let mut cargo = frozen.take_cargo();
        let middle = cargo.shards[0].len() / 2;
        cargo.shards[0][middle] ^= 1;
        let error = loading.load(cargo).unwrap_err();
        drop(loading);
        frozen.resume();
        Freezer::new(Arc::clone(&self.front)).forget_copies();
        error
    }
}

/// Publishes as the API does, wherever the server is.
fn publish(front: &Mutex<Arc<Front>>, runtime: &Runtime, channel: &str, data: String) {
    loop {
        let here = Arc::clone(&front.lock());
        let Ok(_pass) = runtime.block_on(here.common.pause.enter()) else {
            std::thread::yield_now();
            continue;
        };
        let settings = here.settings();
        let resolved = settings.channel.resolve(channel).unwrap();
        let publish = publication(channel, data.into(), retention(resolved.options));
        let request = Request::Publish(publish);
        let (to, mut answer) = here.common.desk.ask();
        here.common.node.call(request, to, here.clock.now());
        assert!(matches!(answer.try_recv(), Ok(Answer::Published(Ok(_)))));
        return;
    }
}

/// A client that talks all the time, in halves of frames, and checks what it hears.
struct Talker {
    socket: TcpStream,
    name: usize,
    said: u64,
    /// Replies, own publications, and publications to all that were heard.
    heard: [u64; 3],
    decoder: Decoder,
}

impl Talker {
    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        put_client_frame(Opcode::Text, [3, 1, 4, 1], text.as_bytes(), &mut frame);
        let cut = frame.len() * (self.name + 1) / (CLIENTS + 2);
        self.socket.write_all(&frame[..cut]).unwrap();
        std::thread::yield_now();
        self.socket.write_all(&frame[cut..]).unwrap();
    }

    fn hear(&mut self) {
        let mut buffer = [0; 16_384];
        let got = self.socket.read(&mut buffer).unwrap();
        assert!(got > 0, "client {} was closed", self.name);
        let mut input = &mut buffer[..got];
        loop {
            let limits = Limits { message_max: 1 << 20 };
            let step = self.decoder.next(input, Role::Client, limits).unwrap();
            let consumed = step.consumed;
            match step.event {
                None => return,
                Some(Event::Text(text)) => {
                    let heard = &mut self.heard;
                    text.lines().for_each(|line| check(line, heard, self.name));
                }
                other => panic!("{other:?}"),
            }
            input = &mut input[consumed..];
        }
    }

    fn talk(mut self, all_is_said: &AtomicBool) {
        let own = format!("own{}", self.name);
        self.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(&own)));
        self.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{own}"}}}}"#));
        self.say(r#"{"id":3,"subscribe":{"channel":"kept:all"}}"#);
        while self.heard[0] < 3 {
            self.hear();
        }
        while !(all_is_said.load(Ordering::SeqCst) && self.said >= MESSAGES) {
            self.said += 1;
            let (id, number) = (self.said + 3, self.said);
            self.say(&format!(r#"{{"id":{id},"publish":{{"channel":"{own}","data":{number}}}}}"#));
            while self.heard[0] < id || self.heard[1] < number {
                self.hear();
            }
        }
        while self.heard[2] < MESSAGES {
            self.hear();
        }
    }
}

/// One reply or push: it must be the next of its kind.
fn check(line: &str, [replies, own, all]: &mut [u64; 3], name: usize) {
    let number = |mark: &str| -> u64 {
        let rest = &line[line.find(mark).unwrap() + mark.len()..];
        let end = rest.find(|each: char| !each.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    };
    assert!(!line.contains("\"error\""), "{line}");
    if line.contains("\"id\":") {
        *replies += 1;
        assert_eq!(number("\"id\":"), *replies, "client {name}: {line}");
    } else if line.contains("kept:all") {
        *all += 1;
        assert_eq!(number("\"data\":"), *all, "client {name}: {line}");
        assert_eq!(number("\"offset\":"), *all, "client {name}: {line}");
    } else if line.contains("\"pub\"") {
        *own += 1;
        assert_eq!(number("\"data\":"), *own, "client {name}: {line}");
    } else {
        assert_eq!(line, "{}", "client {name}");
    }
}

#[test]
fn a_crowd_that_talks_notices_nothing_of_restarts_and_of_failed_ones() {
    let mut settings = Settings::clone(&settings());
    settings.client.ping_interval = Duration::ZERO;
    let settings = Arc::new(settings);
    let runtime = runtime();
    let mut server = Server::start(&settings, 2, &runtime);
    let front = Arc::new(Mutex::new(Arc::clone(&server.front)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let all_is_said = Arc::new(AtomicBool::new(false));
    let mut talkers = Vec::new();
    for name in 0..CLIENTS {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let (served, _) = listener.accept().unwrap();
        served.set_nonblocking(true).unwrap();
        server.receive(served, Bytes::new(), name);
        let talker = Talker { socket, name, said: 0, heard: [0; 3], decoder: Decoder::new() };
        let all_is_said = Arc::clone(&all_is_said);
        talkers.push(std::thread::spawn(move || talker.talk(&all_is_said)));
    }
    // Who has not subscribed yet would miss the first.
    let start = Instant::now();
    let subscribers = || server.front.common.node.counts().subscriptions;
    while subscribers() < 2 * CLIENTS {
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
    let publisher = std::thread::spawn({
        let (front, runtime, all) =
            (Arc::clone(&front), Arc::clone(&runtime), Arc::clone(&all_is_said));
        move || {
            for number in 1..=MESSAGES {
                publish(&front, &runtime, "kept:all", number.to_string());
                std::thread::yield_now();
            }
            all.store(true, Ordering::SeqCst);
        }
    });
    for shards in [3, 1, 2, 2] {
        let error = server.fail_to_restart(&settings, &runtime);
        assert!(error.to_string().contains("do not add up"), "{error}");
        let (next, loaded) = server.restart(&settings, shards, &runtime);
        server = next;
        *front.lock() = Arc::clone(&server.front);
        assert_eq!(loaded, Loaded { connections: CLIENTS as u64, closed: 0, awaited: 0 });
    }
    publisher.join().unwrap();
    for talker in talkers {
        talker.join().unwrap();
    }
}

/// Asks to connect, and waits for the answer.
fn greet(client: &mut TcpStream, user: &str) {
    let command = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(user));
    let mut frame = Vec::new();
    put_client_frame(Opcode::Text, [3, 1, 4, 1], command.as_bytes(), &mut frame);
    client.write_all(&frame).unwrap();
    let mut answer = [0; 4096];
    assert!(client.read(&mut answer).unwrap() > 0);
}

/// Whether nothing at all has come: no byte, and no end.
fn hears_nothing(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let heard = client.read(&mut [0]).map_err(|error| error.kind());
    client.set_nonblocking(false).unwrap();
    heard == Err(std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_connection_is_used_only_once_its_witness_knows_and_else_left_alone() {
    let mut settings = Settings::clone(&settings());
    settings.client.ping_interval = Duration::ZERO;
    let (settings, runtime) = (Arc::new(settings), runtime());
    let server = Server::start(&settings, 1, &runtime);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            let (served, _) = listener.accept().unwrap();
            served.set_nonblocking(true).unwrap();
            server.receive(served, Bytes::new(), 0);
            client
        })
        .collect();
    let (loading, mut frozen, sockets) = server.prepare(&settings, 1, &runtime);
    loading.adopt(std::mem::take(&mut *sockets.0.lock())).unwrap();
    loading.load(frozen.take_cargo()).unwrap();
    let parachute = frozen.give_up(Arc::new(ToNext(Mutex::new(None))) as Arc<dyn Outlet>);
    let told = Arc::new(Mutex::new(Vec::new()));
    let is_full = Arc::new(AtomicBool::new(false));
    let witness = {
        let (told, is_full) = (Arc::clone(&told), Arc::clone(&is_full));
        move |touch| {
            if is_full.load(Ordering::SeqCst) {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            told.lock().push(touch);
            Ok(())
        }
    };
    let serving = loading.serve(Some(Arc::new(witness)));
    greet(&mut clients[0], "ann");
    assert!(matches!(told.lock()[..], [Touch::Connection(_)]), "{:?}", told.lock());
    // The list takes no more: the next who speaks ends here, and hears nothing of it.
    is_full.store(true, Ordering::SeqCst);
    clients[1].write_all(&[0x81]).unwrap();
    let start = Instant::now();
    while serving.front.clients.open() > 2 {
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
    assert!(hears_nothing(&mut clients[1]) && hears_nothing(&mut clients[2]));
    is_full.store(false, Ordering::SeqCst);
    greet(&mut clients[2], "bob");
    assert_eq!(told.lock().len(), 2);
    // With the last duplicate goes the connection that nobody serves.
    drop(parachute);
    for thread in server.threads {
        thread.join().unwrap().unwrap();
    }
    assert!(!clients[1].read(&mut [0]).is_ok_and(|read| read > 0));
    for shard in &serving.front.common.shards {
        shard.post(Post::Stop);
    }
    drop(clients);
    for thread in serving.threads {
        thread.join().unwrap().unwrap();
    }
}

/// Takes nothing.
struct Broken;

impl Courier for Broken {
    fn is_ready(&self) -> bool {
        true
    }

    fn send(&self, _: &[Parcel<'_>]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn tell(&self, _: u16, _: Vec<u8>) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn what_cannot_be_frozen_goes_on() {
    let (settings, runtime) = (settings(), runtime());
    let server = Server::start(&settings, 2, &runtime);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let (served, _) = listener.accept().unwrap();
    served.set_nonblocking(true).unwrap();
    server.receive(served, Bytes::new(), 0);
    let mut talker = Talker { socket, name: 0, said: 0, heard: [0; 3], decoder: Decoder::new() };
    talker.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
    let freezer = Freezer::new(Arc::clone(&server.front));
    let whole = Arc::new(Crate::default()) as Arc<dyn Courier>;
    // A request that does not end.
    let pass = runtime.block_on(server.front.common.pause.enter()).unwrap();
    let hasty = Patience { requests: Duration::from_millis(5), ..PATIENT };
    let error = freezer.freeze(&whole, hasty).unwrap_err();
    assert!(matches!(error, CannotFreeze::Requests(_)), "{error}");
    drop(pass);
    // The other process is gone.
    let broken = Arc::new(Broken) as Arc<dyn Courier>;
    let error = freezer.freeze(&broken, PATIENT).unwrap_err();
    assert!(matches!(error, CannotFreeze::Copy(_)), "{error}");
    freezer.copy_ahead(&broken).wait(LONG).unwrap_err();
    let frozen = freezer.freeze(&whole, PATIENT).unwrap();
    assert_eq!(frozen.cargo().shards.len(), 2);
    frozen.resume();
    freezer.forget_copies();
    talker.say(r#"{"id":2,"unsubscribe":{"channel":"a"}}"#);
    while talker.heard[0] < 2 {
        talker.hear();
    }
    drop(talker);
    for shard in &server.front.common.shards {
        shard.post(Post::Stop);
    }
    for thread in server.threads {
        thread.join().unwrap().unwrap();
    }
}
