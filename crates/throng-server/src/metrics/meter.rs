//! What is counted, and where: by each shard for itself, by the front, and by processes before.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_hub::done::Done;
use throng_hub::registry::{Contents, Tally};
use throng_limits::growth::Sample;

use super::cells::{COMMANDS, Cell, FAN_OUT, Flow, RECOVERED, REQUESTS, Spread};
use super::frame::{FRAMES, Frame, LIBRARIES, METHODS};
use super::rare::Rare;
use crate::clock::Clock;
use crate::control::Transport;

/// How many transports there are.
pub(super) const TRANSPORTS: usize = 7;
/// Looks at the room for clients that are kept, one every [`LOOK_S`] seconds: some ten minutes.
const LOOKS_MAX: usize = 120;
const LOOK_S: u64 = 5;

/// What one shard counts. Only its own thread writes it, so that counting costs no other core
/// anything; what wants to be seen reads it at any time, the shard stuck or not.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Meter {
    pub(super) sent: [[Flow; FRAMES]; TRANSPORTS],
    pub(super) received: [[Flow; FRAMES]; TRANSPORTS],
    pub(super) commands: [Spread; METHODS],
    pub(super) pings: [Spread; TRANSPORTS],
    pub(super) fan_out: Spread,
    /// Whether it worked, and whether there was anything to recover.
    pub(super) recoveries: [[Cell; 2]; 2],
    pub(super) recovered: Spread,
    pub(super) accepted: [[Cell; LIBRARIES.len()]; TRANSPORTS],
    pub(super) left: Cell,
    pub(crate) subscribed: Cell,
    /// Publications that tags filters held back.
    pub(super) withheld: Cell,
    pub(crate) rare: Rare,
    /// Connected clients; they are counted again where they come from another process.
    pub(super) clients: [Cell; TRANSPORTS],
    /// As the shard's own counters were in the last second; those move by themselves.
    pub(crate) panics: Cell,
    pub(crate) resets: Cell,
    pub(crate) late_answers: Cell,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            sent: Default::default(),
            received: Default::default(),
            commands: std::array::from_fn(|_| Spread::new(COMMANDS)),
            pings: std::array::from_fn(|_| Spread::new(COMMANDS)),
            fan_out: Spread::new(FAN_OUT),
            recoveries: Default::default(),
            recovered: Spread::new(RECOVERED),
            accepted: Default::default(),
            left: Cell::default(),
            subscribed: Cell::default(),
            withheld: Cell::default(),
            rare: Rare::default(),
            clients: Default::default(),
            panics: Cell::default(),
            resets: Cell::default(),
            late_answers: Cell::default(),
        }
    }
}

impl Meter {
    /// A message was said to a client.
    pub(crate) fn sent(&self, transport: Transport, frame: Frame, bytes: usize) {
        self.sent[transport as usize][frame as usize].add(1, bytes);
    }

    /// What a fan-out says to one client.
    pub(crate) fn delivered(&self, transport: Transport, bytes: usize, contents: Contents<'_>) {
        let sent = &self.sent[transport as usize];
        let Tally { publications, joins, leaves } = match contents {
            Contents::Publication => return sent[Frame::PushPublication as usize].add(1, bytes),
            Contents::Several(tally) => tally,
        };
        let counted = [
            (Frame::PushPublication, publications),
            (Frame::PushJoin, joins),
            (Frame::PushLeave, leaves),
        ];
        for (frame, amount) in counted {
            if amount.messages > 0 {
                sent[frame as usize].add(amount.messages.into(), amount.bytes);
            }
        }
    }

    /// A client said something.
    pub(crate) fn received(&self, transport: Transport, frame: Frame, bytes: usize) {
        self.received[transport as usize][frame as usize].add(1, bytes);
    }

    /// A command of this method was done with after so many microseconds.
    pub(crate) fn handled(&self, method: Frame, took_us: u64) {
        if let Some(times) = self.commands.get(method as usize) {
            times.observe(took_us);
        }
    }

    /// A ping was answered.
    pub(crate) fn answered(&self, transport: Transport, took_us: u64) {
        self.pings[transport as usize].observe(took_us);
    }

    /// The last of this shard's subscribers was written to, so long after the publication came.
    pub(crate) fn fanned_out(&self, took_us: u64) {
        self.fan_out.observe(took_us);
    }

    /// A client came back and asked for what it had missed.
    pub(crate) fn recovered(&self, is_recovered: bool, publications: usize) {
        self.recoveries[usize::from(is_recovered)][usize::from(publications > 0)].add(1);
        if is_recovered {
            self.recovered.observe(publications as u64);
        }
    }

    /// A client was subscribed.
    pub(crate) fn subscribed(&self) {
        self.subscribed.add(1);
    }

    /// Tags filters held so many publications back.
    pub(crate) fn withheld(&self, publications: u64) {
        if publications > 0 {
            self.withheld.add(publications);
        }
    }

    /// A client has connected, with a library of this number.
    pub(crate) fn accepted(&self, transport: Transport, library: u8) {
        let by_library = &self.accepted[transport as usize];
        by_library.get(usize::from(library)).unwrap_or(&by_library[0]).add(1);
        self.is_here(transport);
    }

    /// A client is here, wherever it was accepted.
    pub(crate) fn is_here(&self, transport: Transport) {
        self.clients[transport as usize].add(1);
    }

    /// Undoes [`Meter::is_here`].
    pub(crate) fn is_not_here(&self, transport: Transport) {
        self.clients[transport as usize].subtract(1);
    }

    /// A client that had connected is gone.
    pub(crate) fn left(&self, transport: Transport) {
        self.clients[transport as usize].subtract(1);
        self.left.add(1);
    }

    /// Every number that a restart hands over, with its family's number and its own. They are part
    /// of the state's format: none is ever given another meaning, and a distribution whose bounds
    /// change is a new family.
    pub(super) fn each(&self, f: &mut dyn FnMut(u8, usize, &Cell)) {
        for (at, frames) in self.sent.iter().enumerate() {
            for (frame, flow) in frames.iter().enumerate() {
                f(1, at * 64 + frame, &flow.messages);
                f(2, at * 64 + frame, &flow.bytes);
            }
        }
        for (at, frames) in self.received.iter().enumerate() {
            for (frame, flow) in frames.iter().enumerate() {
                f(3, at * 64 + frame, &flow.messages);
                f(4, at * 64 + frame, &flow.bytes);
            }
        }
        let mut spreads = |family, spreads: &[Spread]| {
            for (at, spread) in spreads.iter().enumerate() {
                spread.cells().enumerate().for_each(|(bucket, cell)| {
                    f(family, at * 32 + bucket, cell);
                });
            }
        };
        spreads(5, &self.commands);
        spreads(6, &self.pings);
        spreads(7, std::slice::from_ref(&self.fan_out));
        spreads(9, std::slice::from_ref(&self.recovered));
        for (at, cell) in self.recoveries.iter().flatten().enumerate() {
            f(8, at, cell);
        }
        for (at, libraries) in self.accepted.iter().enumerate() {
            libraries.iter().enumerate().for_each(|(library, cell)| f(10, at * 32 + library, cell));
        }
        f(11, 0, &self.subscribed);
        f(12, 0, &self.left);
        f(13, 0, &self.withheld);
    }
}

/// What the front counts; its threads share it.
#[derive(Debug)]
pub(crate) struct FrontMeter {
    /// By the place of a method of the API; the last are those that are none.
    pub(super) api: Vec<Spread>,
    pub(crate) rare: Rare,
}

impl FrontMeter {
    fn new(methods: usize) -> Self {
        Self { api: (0..=methods).map(|_| Spread::new(REQUESTS)).collect(), rare: Rare::default() }
    }

    /// A call of the API was answered.
    pub(crate) fn called(&self, method: usize, took_us: u64) {
        if let Some(times) = self.api.get(method).or_else(|| self.api.last()) {
            times.observe_shared(took_us);
        }
    }
}

/// Everything that is counted in a node.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) clock: Clock,
    pub(crate) shards: Vec<Arc<Meter>>,
    pub(crate) front: FrontMeter,
    /// What the shards of processes before this one counted.
    pub(super) before: Meter,
    pub(super) done_before: Mutex<Done>,
    pub(super) restarts: Cell,
    /// Lines that a full log cost processes before this one.
    pub(super) lines_lost_before: Cell,
    /// How long clients waited in the last restart, in milliseconds.
    pub(super) frozen_ms: Cell,
    /// When the process before this one froze, by the wall clock; 0: it did not.
    pub(super) frozen_at_ms: Cell,
    looks: Mutex<VecDeque<Sample>>,
    pub(super) seen: tokio::sync::Mutex<super::gather::Seen>,
}

impl Meters {
    /// Those of so many shards.
    pub(crate) fn new(clock: Clock, shards: usize, api_methods: usize) -> Self {
        Self {
            clock,
            shards: (0..shards).map(|_| Arc::default()).collect(),
            front: FrontMeter::new(api_methods),
            before: Meter::default(),
            done_before: Mutex::default(),
            restarts: Cell::default(),
            lines_lost_before: Cell::default(),
            frozen_ms: Cell::default(),
            frozen_at_ms: Cell::default(),
            looks: Mutex::default(),
            seen: tokio::sync::Mutex::default(),
        }
    }

    /// What the shard of this number counts.
    pub(crate) fn shard(&self, number: u16) -> Arc<Meter> {
        self.shards.get(usize::from(number)).cloned().unwrap_or_default()
    }

    /// Those of all shards, and of processes before.
    pub(super) fn all(&self) -> impl Iterator<Item = &Meter> {
        self.shards.iter().map(|meter| &**meter).chain([&self.before])
    }

    /// From now on this process serves what another one handed over.
    pub(crate) fn took_over(&self) {
        let waited = self.clock.now().unix_ms.saturating_sub_unsigned(self.frozen_at_ms.get());
        self.frozen_ms.set(u64::try_from(waited).unwrap_or(0));
    }

    /// Takes note of how many more clients fit.
    pub(crate) fn look(&self, free: u64) {
        let at_ms = self.clock.now().mono_ms;
        let mut looks = self.looks.lock();
        if looks.back().is_some_and(|last| at_ms < last.at_ms + LOOK_S * 1000) {
            return;
        }
        if looks.len() == LOOKS_MAX {
            looks.pop_front();
        }
        // What grows is what is gone; a ceiling that comes down is gone, too.
        let gone = (u64::from(u32::MAX)).saturating_sub(free);
        looks.push_back(Sample { at_ms, open: gone, ..Sample::default() });
    }

    /// Seconds until no more client fits, if it goes on as it did; none while it does not grow.
    pub(super) fn full_in_s(&self, free: u64) -> Option<f64> {
        if free == 0 {
            return Some(0.0);
        }
        let looks: Vec<Sample> = self.looks.lock().iter().copied().collect();
        let full_in_ms = throng_limits::growth::trend(&looks, free)?.full_in_ms?;
        Some(std::time::Duration::from_millis(full_in_ms).as_secs_f64())
    }
}

#[cfg(test)]
impl Meter {
    pub(crate) fn rare_counts(&self) -> std::collections::BTreeMap<super::rare::Key, u64> {
        let mut counts = std::collections::BTreeMap::new();
        self.rare.add_to(&mut counts);
        counts
    }

    pub(crate) fn sent_messages(&self, transport: Transport, frame: Frame) -> u64 {
        self.sent[transport as usize][frame as usize].messages.get()
    }

    pub(crate) fn received_messages(&self, transport: Transport, frame: Frame) -> u64 {
        self.received[transport as usize][frame as usize].messages.get()
    }

    fn sum_of(spread: &Spread) -> super::cells::Sum {
        let mut sum = super::cells::Sum::default();
        spread.add_to(&mut sum);
        sum
    }

    pub(crate) fn handled_commands(&self, method: Frame) -> u64 {
        Self::sum_of(&self.commands[method as usize]).count()
    }

    /// Those that took a second.
    pub(crate) fn slow_commands(&self, method: Frame) -> u64 {
        Self::sum_of(&self.commands[method as usize]).sum / 1_000_000
    }

    /// How many there were, and the microseconds of all.
    pub(crate) fn pongs(&self, transport: Transport) -> (u64, u64) {
        let sum = Self::sum_of(&self.pings[transport as usize]);
        (sum.count(), sum.sum)
    }

    pub(crate) fn recovery_counts(&self) -> [[u64; 2]; 2] {
        [0, 1].map(|at| [0, 1].map(|some| self.recoveries[at][some].get()))
    }
}
