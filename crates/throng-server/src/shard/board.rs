//! A shard before it serves: sockets from another process come aboard, then what was written down of
//! their connections.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use mio::net::TcpStream;
use mio::{Interest, Token};
use throng_hub::request::Now;
use throng_hub::state::sealed::{self, Piece, Unreadable};
use throng_hub::state::{Corrupt, Fields, Record};
use throng_limits::Permit;
use throng_wire::framing::Framing;
use throng_wire::websocket::Decoder;

use super::conn::{Conn, Flags, Link, State};
use super::crowd::{Witness, Witnessing, make_ready};
use super::record::{AHEAD, Ahead, CONNECTION, COUNTERS, FRAMES, NUMBER, SESSION, SHARED, Written};
use super::turn::{Shard, slot_of};
use super::{ConnRef, Handler, NEVER};
use crate::addresses::Addresses;

/// How long the other process is told what is used here: three times as long as it holds its
/// duplicates, since its clock may have begun later.
const WITNESSED: Duration = Duration::from_secs(15);

/// A socket whose state is still to come.
#[derive(Debug)]
pub struct Reserved {
    /// The connection's number.
    pub number: u64,
    pub socket: std::net::TcpStream,
    pub permit: Permit,
}

/// What a shard is told before it serves.
pub enum Boarding {
    /// These sockets have come.
    Reserve(Vec<Reserved>),
    /// This is what was written down, some of it or all that is left.
    Load(LoadOrder),
    /// Now it serves. Who is told of every connection that it uses, if the other process may come
    /// back.
    Serve(Option<Witness>),
}

impl std::fmt::Debug for Boarding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reserve(_) => "Reserve",
            Self::Load(_) => "Load",
            Self::Serve(_) => "Serve",
        })
    }
}

/// What was written down, and where the result goes.
#[derive(Debug, Clone)]
pub struct LoadOrder {
    pub manifests: Arc<Vec<Manifest>>,
    /// Which of the shards this one is.
    pub shard: usize,
    /// Whether everything is there after it.
    pub is_last: bool,
    pub addresses: Addresses,
    pub done: Sender<Result<Boarded, NotAboard>>,
}

/// Who came aboard one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Boarded {
    pub connections: u64,
    /// Sockets of connections that had ended meanwhile, in the last load.
    pub closed: u64,
}

/// Why a shard cannot take over.
#[derive(Debug)]
pub enum NotAboard {
    Corrupt(Corrupt),
    /// A connection's socket has not come.
    NoSocket(u64),
    /// A socket could not be watched.
    Register(io::Error),
}

/// A shard's piece, looked through: where each connection stands in it, by the shard that it goes
/// to.
#[derive(Debug)]
pub struct Manifest {
    bytes: Arc<Vec<u8>>,
    /// Which of the other process's shards wrote it.
    from: usize,
    shared: Range<usize>,
    counters: Range<usize>,
    frames: Vec<Bytes>,
    /// With their numbers.
    connections: Vec<Vec<(u64, Range<usize>)>>,
    ahead: Ahead,
    /// Those of `ahead` that have gone, by the shard that they were in.
    gone: Vec<Vec<u64>>,
}

impl Manifest {
    /// Looks through a piece of the other process's shard `from`. `shard_of` says for a connection's number which of the `shards` it
    /// goes to; none: its socket has not come.
    ///
    /// # Errors
    /// When the piece cannot be read, or a socket is missing.
    pub fn read(
        (bytes, from): (Arc<Vec<u8>>, usize),
        shards: usize,
        now: Now,
        shard_of: &dyn Fn(u64) -> Option<usize>,
    ) -> Result<Self, Unloadable> {
        let mut manifest = Self {
            bytes: Arc::clone(&bytes),
            from,
            shared: 0..0,
            counters: 0..0,
            frames: Vec::new(),
            connections: vec![Vec::new(); shards],
            ahead: Ahead::default(),
            gone: vec![Vec::new(); shards],
        };
        let mut missing = None;
        sealed::open(&bytes, Piece::Shard, now, |mut fields| {
            while let Some(field) = fields.field()? {
                match field.tag {
                    SHARED => manifest.shared = field.range(),
                    COUNTERS => manifest.counters = field.range(),
                    FRAMES => manifest.frames.push(Bytes::copy_from_slice(field.bytes()?)),
                    CONNECTION => {
                        let number = number(&mut field.fields("a connection")?)?;
                        let place =
                            shard_of(number).and_then(|shard| manifest.connections.get_mut(shard));
                        match place {
                            Some(place) => place.push((number, field.range())),
                            None => missing = missing.or(Some(number)),
                        }
                    }
                    AHEAD => manifest.ahead = Ahead::take_fields(field.fields(Ahead::WHAT)?)?,
                    _ => field.pass()?,
                }
            }
            Ok(())
        })
        .map_err(Unloadable::Unreadable)?;
        for number in &manifest.ahead.gone {
            match shard_of(*number).and_then(|shard| manifest.gone.get_mut(shard)) {
                Some(gone) => gone.push(*number),
                None => missing = missing.or(Some(*number)),
            }
        }
        missing.map_or(Ok(manifest), |number| Err(Unloadable::NoSocket(number)))
    }

    /// How many connections there are with those that went ahead, where it says so.
    pub fn connections(&self) -> Option<u64> {
        self.ahead.connections
    }

    /// How many connections are written down here.
    pub fn len(&self) -> usize {
        self.connections.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What there is for one of the shards: who has gone, and who has come.
    fn parts(&self, shard: usize) -> (&[u64], &[(u64, Range<usize>)]) {
        let gone = self.gone.get(shard).map_or(&[][..], Vec::as_slice);
        (gone, self.connections.get(shard).map_or(&[][..], Vec::as_slice))
    }

    fn fields(&self, range: &Range<usize>, what: &'static str, now: Now) -> Fields<'_> {
        let bytes = self.bytes.get(range.clone()).unwrap_or_default();
        Fields::new(bytes, range.start, what, now)
    }
}

/// Why a piece is of no use.
#[derive(Debug)]
pub enum Unloadable {
    Unreadable(Unreadable),
    NoSocket(u64),
}

/// A connection's number, which comes first.
fn number(fields: &mut Fields<'_>) -> Result<u64, Corrupt> {
    match fields.field()? {
        Some(field) if field.tag == NUMBER => field.number(),
        _ => Err(fields.corrupt("it does not begin with its number")),
    }
}

/// Who is coming aboard.
#[derive(Debug, Default)]
pub(super) struct Aboard {
    /// Slots of sockets that wait for their state, by number.
    waiting: HashMap<u64, usize, FixedState>,
    /// Slots of connections that are there.
    seated: HashMap<u64, usize, FixedState>,
    /// How many pieces have come of each of the other process's shards.
    pieces: Vec<u64>,
}

impl Aboard {
    /// Whether a piece is the next of its shard. One that is not is for others, or of no use.
    fn goes_on(&mut self, manifest: &Manifest) -> bool {
        if self.pieces.len() <= manifest.from {
            self.pieces.resize(manifest.from + 1, 0);
        }
        let Some(pieces) = self.pieces.get_mut(manifest.from) else { return false };
        let is_next = *pieces == manifest.ahead.pieces;
        *pieces += u64::from(is_next);
        is_next
    }
}

impl<H: Handler> Shard<H> {
    /// Waits for what comes from another process, and serves when told so. Ends without a word to
    /// any peer when the sender is gone.
    ///
    /// # Errors
    /// When the kernel's event queue fails, which no connection can cause.
    pub fn board(mut self, from: &Receiver<Boarding>) -> io::Result<()> {
        let mut aboard = Aboard::default();
        let mut failed = None;
        while let Ok(boarding) = from.recv() {
            match boarding {
                Boarding::Reserve(list) => {
                    self.handler.expect(aboard.waiting.len() + list.len());
                    for each in list {
                        let reserved = self.reserve(each, &mut aboard);
                        failed = failed.or(reserved.err());
                    }
                }
                Boarding::Load(order) => {
                    let loaded = match failed.take() {
                        Some(error) => Err(NotAboard::Register(error)),
                        None => self.load(&order, &mut aboard),
                    };
                    // Nobody waits for it: then nobody says either that it is to serve.
                    order.done.send(loaded).ok();
                }
                Boarding::Serve(witness) => {
                    self.read_clock();
                    let until = self.crowd.time.instant + WITNESSED;
                    self.crowd.witness = witness.map(|witness| Witnessing { witness, until });
                    self.thaw();
                    return self.run();
                }
            }
        }
        Ok(())
    }

    /// Gives a socket its slot and watches it. Nothing is read, and no event is taken, before the
    /// shard serves.
    pub(super) fn reserve(&mut self, reserved: Reserved, aboard: &mut Aboard) -> io::Result<()> {
        let Reserved { number, socket, permit } = reserved;
        let mut socket = TcpStream::from_std(socket);
        let key = self.crowd.conns.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(key), interest)?;
        let link = Link {
            socket,
            form: 0,
            framing: Framing::WebSocket,
            deflate: None,
            state: State::Dead,
            flags: Flags::default(),
            number,
            decoder: Decoder::new(),
            outbox: None,
            stash: None,
            wake_s: NEVER,
            deadline_s: NEVER,
            accounted: 0,
            _permit: permit,
            _address: None,
        };
        self.crowd.conns.insert(Conn { link, session: None });
        if self.crowd.due.len() <= key {
            self.crowd.due.resize(key + 1, NEVER);
        }
        if let Some(before) = aboard.waiting.insert(number, key) {
            // The same connection came twice: the later one counts.
            drop(self.crowd.conns.try_remove(before));
        }
        Ok(())
    }

    /// Takes in what was written down.
    pub(super) fn load(
        &mut self,
        order: &LoadOrder,
        aboard: &mut Aboard,
    ) -> Result<Boarded, NotAboard> {
        self.read_clock();
        let now = self.crowd.now();
        let mut boarded = Boarded::default();
        // First all go who are not as they were told: then what comes is as it was there.
        let mut meant = Vec::with_capacity(order.manifests.len());
        for manifest in order.manifests.iter() {
            let (from, shard) = (manifest.from, order.shard);
            let is_of_nobody = shard == 0 && from >= manifest.connections.len();
            if order.is_last && (from == shard || is_of_nobody) {
                self.add_counters(manifest, now).map_err(NotAboard::Corrupt)?;
            }
            let (gone, come) = manifest.parts(shard);
            if !aboard.goes_on(manifest) {
                if gone.is_empty() && come.is_empty() {
                    continue;
                }
                let fields = manifest.fields(&(0..0), Ahead::WHAT, now);
                return Err(NotAboard::Corrupt(
                    fields.corrupt("pieces before this one are missing"),
                ));
            }
            for number in gone {
                let key = aboard.seated.remove(number).ok_or(NotAboard::NoSocket(*number))?;
                self.unseat(key, now);
                drop(self.crowd.conns.try_remove(key));
                boarded.closed += 1;
            }
            for (number, _) in come {
                if let Some(key) = aboard.seated.remove(number) {
                    self.unseat(key, now);
                    aboard.waiting.insert(*number, key);
                }
            }
            meant.push(manifest);
        }
        for manifest in meant {
            let shared = manifest.fields(&manifest.shared, "what sessions share", now);
            self.handler.take_shared(manifest.from, shared).map_err(NotAboard::Corrupt)?;
            for (number, range) in manifest.parts(order.shard).1 {
                let key = aboard.waiting.remove(number).ok_or(NotAboard::NoSocket(*number))?;
                aboard.seated.insert(*number, key);
                let fields = manifest.fields(range, "a connection", now);
                let place = fields.clone();
                self.take_connection(fields, manifest, (&order.addresses, key))?;
                let at_rest = || self.crowd.conns.get(key).is_some_and(|c| c.link.is_at_rest());
                if !order.is_last && !at_rest() {
                    let why = "it went ahead, and is in the middle of something";
                    return Err(NotAboard::Corrupt(place.corrupt(why)));
                }
            }
        }
        boarded.connections = aboard.seated.len() as u64;
        if order.is_last {
            // Who ended after its socket was copied: the other process has said so to the peer.
            for (_, key) in aboard.waiting.drain() {
                drop(self.crowd.conns.try_remove(key));
                boarded.closed += 1;
            }
            self.handler.settle_in(&mut self.crowd).map_err(NotAboard::Corrupt)?;
        }
        Ok(boarded)
    }

    /// What was told of a connection holds no more: its socket waits for another state.
    fn unseat(&mut self, key: usize, now: Now) {
        let Some(conn) = self.crowd.conns.get_mut(key) else { return };
        let held = conn.link.held_bytes();
        let (number, framing, session) = (conn.link.number, conn.link.framing, conn.session.take());
        conn.link.empty();
        self.crowd.due[key] = NEVER;
        self.crowd.give(held);
        if let Some(session) = session {
            let conn = ConnRef { slot: slot_of(key), number };
            self.handler.drop_session((conn, framing), session, now);
        }
    }

    fn add_counters(&mut self, manifest: &Manifest, now: Now) -> Result<(), Corrupt> {
        let fields = manifest.fields(&manifest.counters, "a shard's counters", now);
        self.crowd.counters.add(fields)
    }

    fn take_connection(
        &mut self,
        mut fields: Fields<'_>,
        manifest: &Manifest,
        (addresses, key): (&Addresses, usize),
    ) -> Result<(), NotAboard> {
        let number = number(&mut fields).map_err(NotAboard::Corrupt)?;
        let slot = slot_of(key);
        let written = Written::take(fields, &manifest.frames).map_err(NotAboard::Corrupt)?;
        let Some(conn) = self.crowd.conns.get_mut(key) else {
            return Err(NotAboard::NoSocket(number));
        };
        let session = written.fill(&mut conn.link, addresses);
        let framing = conn.link.framing;
        conn.link.flags.set(Flags::UNTOUCHED);
        let (waits, link) = (conn.link.waiting_bytes(), &mut conn.link);
        self.crowd.due[key] = link.due_s();
        if link.stash.is_some() || link.flags.has(Flags::MORE | Flags::READABLE) {
            make_ready(link, slot, &mut self.crowd.ready);
        }
        if link.outbox.is_some() {
            self.crowd.unsent.push(slot);
        }
        self.crowd.take(waits);
        self.crowd.account(slot);
        if let Some(field) = session {
            let conn = ConnRef { slot, number };
            let session = field
                .fields("a session")
                .and_then(|fields| self.handler.take_session((conn, framing), fields))
                .map_err(NotAboard::Corrupt)?;
            if let Some(conn) = self.crowd.conns.get_mut(key) {
                conn.session = Some(session);
            }
        }
        debug_assert_eq!(SESSION, 13, "a tag is never given to something else");
        Ok(())
    }
}
