//! A whole server but for its listeners, whose shards take their turns one after the other under a
//! clock that is turned by hand; clients sit at the other ends of socket pairs, where what is
//! written is there at once.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use throng_hub::request::{Answer, Now, Publish, Request, Retention};
use throng_hub::state::sealed::{self, Piece};
use throng_limits::Budget;
use throng_wire::framing::Framing;
use throng_wire::websocket::{
    Decoder, Deflated, Deflater, Effort, Event, Inflater, Limits, Opcode, Role, Window,
    put_client_frame, put_frame,
};
use tokio::runtime::Runtime;

use crate::clock::Clock;
use crate::config::Settings;
use crate::front::Front;
use crate::front::address::{ClientAddress, ToldBy};
use crate::handoff::loading::give_up_calls;
use crate::handoff::{Cargo, Courier, Incoming, Parcel, arrival, common};
use crate::log::Log;
use crate::serve::{Parts, Seats, assemble};
use crate::session::{Kind, Open, Order, Target, retention};
use crate::sessions::Sessions;
use crate::shard::by_hand::ByHand;
use crate::shard::{Adopt, CopyOrder, Manifest, Post, Reserved, Shard, Tally};

const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const MASK: [u8; 4] = [7, 0, 99, 200];
/// Turns until a world must be still.
const TURNS_MAX: usize = 10_000;

/// A client, and all that it has ever heard.
pub(super) struct Client {
    socket: Option<UnixStream>,
    pub(super) heard: Vec<u8>,
    /// It does not read.
    pub(super) is_stalled: bool,
    /// The rest of what it is in the middle of saying.
    rest: Vec<u8>,
    /// Up to where it has looked for pings.
    looked: usize,
    /// It is sent a response, and has nothing more to say.
    is_mute: bool,
    /// permessage-deflate was agreed on.
    is_deflated: bool,
    /// It has said who it is.
    pub(super) is_introduced: bool,
    pub(super) number: u64,
}

pub(super) struct World {
    pub(super) front: Arc<Front>,
    shards: Vec<Shard<Sessions>>,
    hand: &'static AtomicU64,
    pub(super) clients: Vec<Client>,
    runtime: Arc<Runtime>,
    pub(super) settings: Arc<Settings>,
    budget: Budget,
    /// The one that is being prepared to go on.
    heir: Option<Box<Heir>>,
    next_shard: usize,
    /// Fields that were written down, by how deep in a connection's record.
    pub(super) written: BTreeSet<(u8, u8)>,
}

/// A world that does not serve yet.
pub(super) struct Heir {
    world: World,
    aboard: Vec<ByHand>,
    /// Which shard each connection's socket went to.
    placed: HashMap<u64, usize>,
}

/// Keeps copies of sockets, and what was told of connections, with the shard that did.
#[derive(Default)]
pub(super) struct Crate(pub(super) Mutex<Vec<Incoming>>, pub(super) Mutex<Vec<(usize, Vec<u8>)>>);

impl Courier for Crate {
    fn is_ready(&self) -> bool {
        true
    }

    fn send(&self, batch: &[Parcel<'_>]) -> io::Result<()> {
        if batch.len() > crate::shard::BATCH_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for Parcel { number, cookie, shard, socket } in batch {
            let (number, cookie, shard) = (*number, *cookie, *shard);
            let socket = socket.try_clone_to_owned()?;
            self.0.lock().push(Incoming { number, cookie, shard, socket });
        }
        Ok(())
    }

    fn tell(&self, shard: u16, piece: Vec<u8>) -> io::Result<()> {
        self.1.lock().push((shard.into(), piece));
        Ok(())
    }
}

/// A publish of nothing but data.
pub(super) fn publication(channel: &str, data: Bytes, retention: Retention) -> Publish {
    Publish {
        channel: channel.into(),
        data,
        info: None,
        tags: Box::default(),
        draw: None,
        skip_history: false,
        delta: false,
        idempotency_key: None,
        version: 0,
        version_epoch: Box::default(),
        retention,
    }
}

pub(super) fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_current_thread().build().unwrap())
}

impl World {
    pub(super) fn new(settings: &Arc<Settings>, shards: usize, runtime: &Arc<Runtime>) -> Self {
        let hand: &AtomicU64 = Box::leak(Box::new(AtomicU64::new(1_000_500)));
        Self::at(settings, shards, runtime, hand)
    }

    fn at(
        settings: &Arc<Settings>,
        shards: usize,
        runtime: &Arc<Runtime>,
        hand: &'static AtomicU64,
    ) -> Self {
        let mut own = Settings::clone(settings);
        own.limits.shards = shards;
        let own = Arc::new(own);
        let budget = Budget::new(100_000);
        let log = Log::silent();
        let seats = Seats { log: &log, clock: Clock::by_hand(hand), budget: budget.clone() };
        let parts = assemble(&own, &seats, runtime.handle(), String::new()).unwrap();
        let Parts { front, shards } = parts;
        Self {
            front,
            shards,
            hand,
            clients: Vec::new(),
            runtime: Arc::clone(runtime),
            settings: Arc::clone(settings),
            budget,
            heir: None,
            next_shard: 0,
            written: BTreeSet::new(),
        }
    }

    /// A client comes.
    pub(super) fn join(&mut self, kind: Kind) -> usize {
        self.join_by(kind, Framing::WebSocket, None)
    }

    /// A client comes by a response, or by WebSocket.
    pub(super) fn join_by(
        &mut self,
        kind: Kind,
        framing: Framing,
        connect: Option<String>,
    ) -> usize {
        self.join_over(kind, (framing, None), connect)
    }

    /// One who may have agreed on permessage-deflate.
    pub(super) fn join_over(
        &mut self,
        kind: Kind,
        (framing, deflate): (Framing, Option<Window>),
        connect: Option<String>,
    ) -> usize {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        // So small that a client who does not read is noticed.
        socket2::SockRef::from(&near).set_send_buffer_size(4608).unwrap();
        let number = self.front.number();
        let adopt = Adopt {
            socket: OwnedFd::from(near).into(),
            permit: self.budget.try_client().unwrap(),
            address: None,
            head: Bytes::from_static(HEAD),
            framing,
            deflate,
            read_ahead: Bytes::new(),
            number,
            open: Open {
                kind,
                native_ping: false,
                user: None,
                connect: connect.map(Bytes::from),
                address: ClientAddress {
                    ip: "192.0.2.1".parse().unwrap(),
                    told_by: ToldBy::Socket,
                },
                headers: Box::default(),
                no_cookie: None,
                head: None,
                session: None,
            },
        };
        self.next_shard += 1;
        let shard = self.next_shard % self.shards.len();
        self.front.common.shards[shard].post(Post::Adopt(Box::new(adopt)));
        let mut client = Client::at(far, number);
        client.is_mute = framing.is_response();
        client.is_deflated = deflate.is_some();
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// A client says a text, or, with `cut`, only so many bytes of its frame for now.
    pub(super) fn say(&mut self, at: usize, text: &str, cut: Option<usize>) {
        let (first, payload) = self.deflated(at, text);
        let mut frame = Vec::new();
        put_client_frame(Opcode::Text, MASK, &payload, &mut frame);
        frame[0] = first;
        self.say_bytes(at, frame, cut);
    }

    /// A text as a client puts it into one frame: compressed, if that was agreed on and makes it
    /// shorter. The frame's first byte, and its payload.
    pub(super) fn deflated(&self, at: usize, text: &str) -> (u8, Vec<u8>) {
        let mut frame = Vec::new();
        if self.clients[at].is_deflated {
            let how = (Effort::default(), Window::Usual);
            Deflater::new().put_frame(Opcode::Text, text.as_bytes(), how, &mut frame);
        } else {
            put_frame(Opcode::Text, text.as_bytes(), &mut frame);
        }
        let head = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        (frame[0], frame.split_off(head))
    }

    pub(super) fn say_bytes(&mut self, at: usize, bytes: Vec<u8>, cut: Option<usize>) {
        let client = &mut self.clients[at];
        if client.is_mute {
            return;
        }
        let mut all = std::mem::take(&mut client.rest);
        let first = all.len();
        all.extend(bytes);
        if let Some(cut) = cut {
            client.rest = all.split_off((first + cut).min(all.len()));
        }
        client.write(&all);
    }

    /// A client goes without a word.
    pub(super) fn hang_up(&mut self, at: usize) {
        self.clients[at].socket = None;
    }

    /// Publishes as the API does.
    pub(super) fn publish(&self, channel: &str, data: &str, key: Option<&str>) -> String {
        let Ok(resolved) = self.settings.channel.resolve(channel) else { return String::new() };
        let retention = retention(resolved.options);
        let publish = Publish {
            delta: resolved.options.delta_publish,
            idempotency_key: key.map(Box::from),
            ..publication(channel, Bytes::copy_from_slice(data.as_bytes()), retention)
        };
        let request = Request::Publish(publish);
        match self.ask(request) {
            Answer::Published(Ok(published)) => {
                format!("{:?}", published.position.map(|position| position.offset))
            }
            other => panic!("{other:?}"),
        }
    }

    /// Asks the node, which answers at once.
    pub(super) fn ask(&self, request: Request) -> Answer {
        let (to, mut answer) = self.front.common.desk.ask();
        self.front.common.node.call(request, to, self.front.clock.now());
        answer.try_recv().unwrap()
    }

    /// Gives a user's connections an order.
    pub(super) fn order(&self, user: &str, order: Order) {
        let target = Target { user: user.into(), ..Target::default() };
        self.front.common.order(target, order, 0);
    }

    /// Some turns, after which much may be in the middle.
    pub(super) fn turns(&mut self, count: usize) {
        for turn in 0..count {
            let shard = turn % self.shards.len();
            self.shards[shard].step();
        }
    }

    /// Takes turns, and lets clients read, until nothing happens any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut moves = false;
            for shard in &mut self.shards {
                moves |= shard.step();
            }
            for client in &mut self.clients {
                moves |= client.read();
            }
            if !moves {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Time passes, second by second.
    pub(super) fn pass(&mut self, seconds: u32) {
        // Who is in the middle of a frame cannot answer a ping.
        for at in 0..self.clients.len() {
            self.say_bytes(at, Vec::new(), None);
            self.settle();
        }
        for _ in 0..seconds {
            self.hand.fetch_add(1000, Ordering::Relaxed);
            self.front.common.node.sweep(self.front.clock.now());
            self.settle();
            for client in &mut self.clients {
                client.answer_pings();
            }
            self.settle();
        }
    }

    /// What there is goes ahead to a world with so many shards; what is there already, as it is now.
    pub(super) fn go_ahead(&mut self, shards: usize) {
        let mut heir = match self.heir.take() {
            Some(heir) => heir,
            None => {
                let heir = Heir::at(&self.settings, shards, &self.runtime, self.hand);
                let mut snapshot = self.front.common.memory.snapshot();
                let now = self.front.clock.now();
                while let Some(chunk) = snapshot.next_at(now) {
                    heir.world.front.common.memory.load(&chunk, Piece::Snapshot, now).unwrap();
                }
                Box::new(heir)
            }
        };
        let (sockets, pieces) = self.tell();
        heir.take_sockets(sockets);
        for (from, piece) in pieces {
            heir.take_pieces(vec![(from, piece)], false).unwrap();
        }
        self.heir = Some(heir);
    }

    /// Copies of the sockets that were not copied yet, and what connections are that were not told as
    /// they are now.
    pub(super) fn tell(&mut self) -> (Vec<Incoming>, Vec<(usize, Vec<u8>)>) {
        let told = Arc::new(Crate::default());
        for (at, shard) in (0..).zip(&mut self.shards) {
            let courier = || Arc::clone(&told) as Arc<dyn Courier>;
            let tally = || Tally::new(1);
            shard.copy_by_hand(CopyOrder::Send { shard: at, courier: courier(), tally: tally() });
            shard.copy_by_hand(CopyOrder::Tell { shard: at, courier: courier(), tally: tally() });
        }
        let (sockets, pieces) = (&mut *told.0.lock(), &mut *told.1.lock());
        for (_, piece) in pieces.iter() {
            note_fields(piece, &mut self.written);
        }
        (std::mem::take(sockets), std::mem::take(pieces))
    }

    /// Everything stops. Returns what is written down, and copies of all sockets.
    pub(super) fn freeze(&mut self) -> (Cargo, Vec<Incoming>) {
        loop {
            for shard in &mut self.shards {
                shard.empty();
            }
            let quiet = self.front.common.shards.iter().all(|mailbox| mailbox.is_empty());
            if quiet && !self.front.common.node.is_waiting() {
                break;
            }
        }
        let now = self.front.clock.now();
        let courier = Crate::default();
        let shards: Vec<Vec<u8>> =
            (0..).zip(&mut self.shards).map(|(at, shard)| shard.dump(&courier, at)).collect();
        for piece in &shards {
            note_fields(piece, &mut self.written);
        }
        let changes = self.front.common.memory.changes(now);
        let common = common::put(&self.front, now);
        (Cargo { changes, common, shards }, courier.0.into_inner())
    }

    /// It was for nothing.
    pub(super) fn resume(&mut self) {
        self.begin();
        self.front.common.memory.forget_snapshot();
        self.heir = None;
        for shard in &mut self.shards {
            shard.copy_by_hand(CopyOrder::Forget);
        }
    }

    /// Another world with so many shards goes on from here.
    pub(super) fn move_to(mut self, shards: usize) -> Self {
        let heir = self.heir.take().unwrap_or_else(|| {
            Box::new(Heir::at(&self.settings, shards, &self.runtime, self.hand))
        });
        assert_eq!(heir.world.shards.len(), shards);
        let (cargo, sockets) = self.freeze();
        let mut next = heir.load(cargo, sockets).unwrap();
        next.clients = std::mem::take(&mut self.clients);
        next.written = std::mem::take(&mut self.written);
        // The old world ends: its descriptors are closed, which nobody must notice.
        drop(self);
        next.begin();
        next
    }

    /// A connection that another world has upgraded.
    pub(super) fn arrive(&mut self, state: &[u8]) -> usize {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        arrival::take(&self.front, state, near.into()).unwrap();
        self.clients.push(Client::at(far, 0));
        self.clients.len() - 1
    }

    /// No more answers come from the other world.
    pub(super) fn give_up_calls(&self) {
        give_up_calls(&self.front.common);
    }

    /// The world that took over is dead.
    pub(super) fn take_back(&mut self, keeps: impl Fn(u64) -> bool + Send + Sync + 'static) {
        self.front.common.memory.begin_anew(self.front.clock.now());
        self.front.common.node.begin_maps_anew();
        let keeps = move |number, _: std::os::fd::BorrowedFd<'_>| keeps(number);
        for shard in &mut self.shards {
            shard.take_back_by_hand(&keeps);
        }
        self.begin();
    }

    /// Open connections, and bytes that wait for them.
    pub(super) fn crowd_size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(Shard::crowd_size);
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    /// After a load: everything goes on.
    pub(super) fn begin(&mut self) {
        for shard in &mut self.shards {
            shard.resume_turns();
        }
    }

    /// Takes in what another world wrote down, of which nothing went ahead.
    pub(super) fn load(self, cargo: Cargo, sockets: Vec<Incoming>) -> Result<Self, String> {
        Heir::of(self).load(cargo, sockets)
    }

    /// All that can be seen of the world from inside, but names that are drawn by lot.
    pub(super) fn facts(&self) -> String {
        let common = &self.front.common;
        let (open, held) = self.crowd_size();
        let clients = common.clients.load(Ordering::Relaxed);
        let published = common.published.load(Ordering::Relaxed);
        let Answer::Channels(channels) = self.ask(Request::Channels { pattern: None }) else {
            panic!("another answer")
        };
        let mut presences = Vec::new();
        for (channel, _) in &channels {
            let request = Request::Presence { channel: Arc::clone(channel) };
            let Answer::Presence(Ok(list)) = self.ask(request) else { panic!("another answer") };
            let mut users: Vec<_> = list.iter().map(|info| info.user.to_string()).collect();
            users.sort();
            presences.push(users);
        }
        let counts = common.node.counts();
        let closes = common.ring.closed_by_code(self.front.clock.now());
        let used = common.allowance.used();
        format!(
            "{open} open, {held} held, {used} used, {clients} connected, {published} published, \
             {channels:?}, {presences:?}, {counts:?}, {closes:?}, {} permits",
            self.budget.open()
        )
    }
}

impl Heir {
    fn at(
        settings: &Arc<Settings>,
        shards: usize,
        runtime: &Arc<Runtime>,
        hand: &'static AtomicU64,
    ) -> Self {
        Self::of(World::at(settings, shards, runtime, hand))
    }

    /// A world that has not begun.
    pub(super) fn of(world: World) -> Self {
        let aboard = world.shards.iter().map(|_| ByHand::default()).collect();
        Self { world, aboard, placed: HashMap::new() }
    }

    pub(super) fn take_sockets(&mut self, sockets: Vec<Incoming>) {
        let world = &mut self.world;
        let mut lists: Vec<Vec<Reserved>> = world.shards.iter().map(|_| Vec::new()).collect();
        for Incoming { number, socket, .. } in sockets {
            // One shard's connections go to several, and several shards' to one.
            let shard = usize::try_from(number).unwrap() % lists.len();
            self.placed.insert(number, shard);
            let permit = world.budget.try_client().unwrap();
            lists[shard].push(Reserved { number, socket: socket.into(), permit });
        }
        for ((shard, list), aboard) in world.shards.iter_mut().zip(lists).zip(&mut self.aboard) {
            shard.take_sockets(list, aboard);
        }
    }

    /// Takes in what shards wrote.
    pub(super) fn take_pieces(
        &mut self,
        pieces: Vec<(usize, Vec<u8>)>,
        is_last: bool,
    ) -> Result<(), String> {
        let world = &mut self.world;
        let now = world.front.clock.now();
        let (placed, count) = (&self.placed, world.shards.len());
        let mut manifests = Vec::new();
        for (from, piece) in pieces {
            let shard_of = |number| placed.get(&number).copied();
            let read = Manifest::read((Arc::new(piece), from), count, now, &shard_of);
            manifests.push(read.map_err(|error| format!("{error:?}"))?);
        }
        let told: Option<u64> = manifests.iter().map(Manifest::connections).sum();
        let manifests = Arc::new(manifests);
        let mut connections = 0;
        for (at, (shard, aboard)) in world.shards.iter_mut().zip(&mut self.aboard).enumerate() {
            let boarded = shard
                .take_over(&manifests, (at, &world.front.addresses), (aboard, is_last))
                .map_err(|error| format!("{error:?}"))?;
            connections += boarded.connections;
        }
        if let Some(told) = told.filter(|told| is_last && *told != connections) {
            return Err(format!("{told} were told and {connections} have come"));
        }
        Ok(())
    }

    /// Takes in all that is left.
    pub(super) fn load(mut self, cargo: Cargo, sockets: Vec<Incoming>) -> Result<World, String> {
        self.take_sockets(sockets);
        let common = &self.world.front.common;
        let now = self.world.front.clock.now();
        let changed = common.memory.load(&cargo.changes, Piece::Changes, now);
        changed.map_err(|error| error.to_string())?;
        common::take(&self.world.front, &cargo.common, now).map_err(|error| error.to_string())?;
        self.take_pieces(cargo.shards.into_iter().enumerate().collect(), true)?;
        let common = &self.world.front.common;
        common.node.stand(&std::mem::take(&mut *common.stands.lock()));
        Ok(self.world)
    }
}

/// Which fields the connections of a piece have: theirs are at depth 1, their sessions' at depth 2.
fn note_fields(piece: &[u8], into: &mut BTreeSet<(u8, u8)>) {
    sealed::open(piece, Piece::Shard, Now::default(), |mut fields| {
        while let Some(field) = fields.field()? {
            if field.tag != 2 {
                continue;
            }
            let mut connection = field.fields("a connection")?;
            while let Some(field) = connection.field()? {
                into.insert((1, field.tag));
                if field.tag != 13 {
                    continue;
                }
                let mut parts = field.fields("a session and its subscriptions")?;
                while let Some(part) = parts.field()?.filter(|part| part.tag == 1) {
                    let mut session = part.fields("a session")?;
                    while let Some(field) = session.field()? {
                        into.insert((2, field.tag));
                    }
                }
            }
        }
        Ok(())
    })
    .unwrap();
}

impl Client {
    fn at(socket: UnixStream, number: u64) -> Self {
        Self {
            socket: Some(socket),
            heard: Vec::new(),
            is_stalled: false,
            rest: Vec::new(),
            looked: 0,
            is_mute: false,
            is_deflated: false,
            is_introduced: false,
            number,
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        let Some(socket) = &mut self.socket else { return };
        while !bytes.is_empty() {
            match socket.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                // The server has closed, or does not read now: what does not fit is left out, in
                // every run alike.
                Err(_) => return,
            }
        }
    }

    /// Reads what is there. Returns whether that was anything.
    fn read(&mut self) -> bool {
        if self.is_stalled {
            return false;
        }
        let Some(socket) = &mut self.socket else { return false };
        let before = self.heard.len();
        let mut buffer = [0; 4096];
        while let Ok(got @ 1..) = socket.read(&mut buffer) {
            self.heard.extend_from_slice(&buffer[..got]);
        }
        self.heard.len() > before
    }

    fn answer_pings(&mut self) {
        let new = &self.heard[self.looked..];
        if !self.is_mute && new.windows(4).any(|window| window == b"\x81\x02{}") {
            let mut frame = Vec::new();
            put_client_frame(Opcode::Text, MASK, b"{}", &mut frame);
            self.write(&frame);
        }
        self.looked = self.heard.len();
    }

    /// How much it heard.
    pub(super) fn heard_bytes(&self) -> usize {
        self.heard.len()
    }

    /// The epoch that it heard last.
    pub(super) fn epoch(&self) -> Option<String> {
        let mark = b"\"epoch\":\"";
        let heard = self.inflated();
        let at = heard.windows(mark.len()).rposition(|window| window == mark)? + mark.len();
        Some(String::from_utf8_lossy(heard.get(at..at + 8)?).into_owned())
    }

    /// All that it heard, as it would have been without compression.
    fn inflated(&self) -> Vec<u8> {
        if !self.is_deflated {
            return self.heard.clone();
        }
        let mut plain = HEAD.to_vec();
        let mut heard = self.heard.get(HEAD.len()..).unwrap_or_default().to_vec();
        let (mut rest, limits) = (heard.as_mut_slice(), Limits { message_max: 1 << 24 });
        let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new(1 << 24));
        loop {
            let deflated = Deflated::Inflated(&mut inflater);
            let step = decoder.next_with(rest, Role::Client, limits, deflated).unwrap();
            let consumed = step.consumed;
            match step.event {
                None => return plain,
                Some(Event::Text(text)) => put_frame(Opcode::Text, text.as_bytes(), &mut plain),
                Some(other) => plain.extend(format!("{other:?}").bytes()),
            }
            rest = &mut rest[consumed..];
        }
    }

    /// All that it heard, with numbers for names that are drawn by lot.
    pub(super) fn told(&self) -> String {
        let text: String = self.inflated().iter().map(|byte| char::from(*byte)).collect();
        let lots = regex_lite::Regex::new(
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\"epoch\":\"[A-Za-z]{8}\"",
        )
        .unwrap();
        let mut names: Vec<String> = Vec::new();
        lots.replace_all(&text, |found: &regex_lite::Captures<'_>| {
            let found = found[0].to_owned();
            let at = names.iter().position(|name| *name == found).unwrap_or_else(|| {
                names.push(found);
                names.len() - 1
            });
            format!("<{at}>")
        })
        .into_owned()
    }
}
