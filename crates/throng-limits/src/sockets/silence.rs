//! How long connections have been silent: a crowd that works, a crowd that only keeps seats warm,
//! or peers that are gone without a word.

use std::fmt::Write;

use super::state::State;

/// When one connection last spoke and heard, from the kernel's `tcp_info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spoken {
    /// Milliseconds since data was last sent.
    pub sent_ms: u32,
    /// Milliseconds since data last came.
    pub received_ms: u32,
    /// Milliseconds since the peer last acknowledged anything, keep-alives included.
    pub heard_ms: u32,
    /// Segments that the peer has not acknowledged.
    pub unacked: u32,
    /// Bytes that ever came (Linux 4.1).
    pub bytes_received: Option<u64>,
}

/// One connection of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) inode: u32,
    pub(super) state: State,
    pub(super) spoken: Spoken,
}

impl Spoken {
    /// Milliseconds since data went in either direction.
    #[must_use]
    pub fn silent_ms(self) -> u32 {
        self.sent_ms.min(self.received_ms)
    }
}

/// Silent longer than this is idle: every sort of live push sends a ping at least once a minute.
const IDLE_MS: u32 = 60_000;
/// Silent longer than this is nearly for ever.
const LONG_MS: u32 = 600_000;
/// Nothing acknowledged for this long, with something to acknowledge: several retransmissions.
const LOST_MS: u32 = 15_000;

/// What a sample of connections has to say about silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// How many were asked.
    pub sample: u32,
    /// Of how many.
    pub of: u32,
    /// No data in either direction for a minute.
    pub idle: u32,
    /// The same for ten minutes.
    pub long: u32,
    /// Connected, and never sent a byte.
    pub mute: u32,
    /// The peer has something to acknowledge and does not: it is probably gone.
    pub lost: u32,
    /// The silence of the one in the middle, in milliseconds.
    pub median_ms: u32,
}

impl Silence {
    /// A number of the sample as its share of all.
    #[must_use]
    pub fn share(&self, part: u32) -> u32 {
        let scaled = u64::from(part) * u64::from(self.of) / u64::from(self.sample.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX)
    }
}

/// Sums up a sample of so many connections.
#[must_use]
pub fn silence(sample: &[Spoken], of: u32) -> Silence {
    let count = |which: &dyn Fn(&Spoken) -> bool| {
        let found = sample.iter().filter(|spoken| which(spoken)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    let mut silences: Vec<u32> = sample.iter().map(|spoken| spoken.silent_ms()).collect();
    silences.sort_unstable();
    Silence {
        sample: count(&|_| true),
        of,
        idle: count(&|spoken| spoken.silent_ms() >= IDLE_MS),
        long: count(&|spoken| spoken.silent_ms() >= LONG_MS),
        mute: count(&|spoken| spoken.bytes_received == Some(0)),
        lost: count(&|spoken| spoken.unacked > 0 && spoken.heard_ms >= LOST_MS),
        median_ms: silences.get(silences.len() / 2).copied().unwrap_or_default(),
    }
}

/// A sample as a captured tree keeps it: the kernel has no text for this.
pub(super) fn kept(samples: &[Sample]) -> String {
    let mut text =
        String::from("inode state sent_ms received_ms heard_ms unacked bytes_received\n");
    for Sample { inode, state, spoken } in samples {
        let bytes = spoken.bytes_received.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        // Writing to a string does not fail.
        writeln!(
            text,
            "{inode} {} {} {} {} {} {bytes}",
            state.number(),
            spoken.sent_ms,
            spoken.received_ms,
            spoken.heard_ms,
            spoken.unacked,
        )
        .ok();
    }
    text
}

/// What [`kept`] wrote.
pub(super) fn kept_rows(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split(' ');
        let inode = columns.next()?.parse().ok()?;
        let state = State::from_number(columns.next()?.parse().ok()?)?;
        let spoken = Spoken {
            sent_ms: columns.next()?.parse().ok()?,
            received_ms: columns.next()?.parse().ok()?,
            heard_ms: columns.next()?.parse().ok()?,
            unacked: columns.next()?.parse().ok()?,
            bytes_received: columns.next()?.parse().ok(),
        };
        Some(Sample { inode, state, spoken })
    })
}

#[cfg(test)]
mod tests;
