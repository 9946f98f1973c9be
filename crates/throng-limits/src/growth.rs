//! What grows, how fast, and when it will be too much: a few looks at a process, one after another.

use crate::descriptors::{Kind, Kinds};
use crate::sockets::{State, States};

/// One look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, on any clock that only goes forward.
    pub at_ms: u64,
    /// Descriptors that are open.
    pub open: u64,
    /// Of which kinds; none where only their number is known.
    pub kinds: Option<Kinds>,
    /// In which states its TCP sockets are, where that is known.
    pub states: Option<States>,
    /// Its unhashed sockets, where that is known.
    pub unhashed: Option<u32>,
}

/// The last looks, thinned out as they become many: a day's watching is no longer than a minute's.
#[derive(Debug, Clone)]
pub struct History {
    samples: Vec<Sample>,
    /// Looks that are passed over between two that are kept.
    stride: u64,
    seen: u64,
}

/// BOUNDED: looks that are kept; the slope compares each with each.
const SAMPLES_MAX: usize = 128;
/// Fewer looks than this say nothing about a trend.
const SAMPLES_MIN: usize = 4;
/// The share of pairs, in percent, in which the later is larger than the earlier, less those in
/// which it is smaller, from which on it grows: chance gives zero, a staircase a hundred.
const STEADY_PERCENT: i64 = 50;
const MINUTE_MS: f64 = 60_000.0;

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Kind(Kind),
    State(State),
    Unhashed,
}

impl What {
    /// Its name for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.word(),
            Self::State(state) => state.word(),
            Self::Unhashed => "unhashed sockets",
        }
    }

    /// Whether growth of this alone is a leak: what nobody needs any more and nobody closes.
    /// Established connections are load, and a file or a pipe more may be either.
    #[must_use]
    pub fn is_waste(self) -> bool {
        matches!(
            self,
            Self::Unhashed | Self::Kind(Kind::DeletedFile) | Self::State(State::CloseWait)
        )
    }
}

/// How something grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    pub what: What,
    pub per_minute: f64,
}

/// What the looks say together.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// Descriptors per minute; below zero when they become fewer.
    pub per_minute: f64,
    /// Whether they grow steadily, and not up and down.
    pub grows: bool,
    /// When the last descriptor will be taken, if it goes on like this.
    pub full_in_ms: Option<u64>,
    /// What grows steadily, the fastest first.
    pub growing: Vec<Growth>,
}

impl Trend {
    /// What grows and is of no use to anybody.
    pub fn leaks(&self) -> impl Iterator<Item = &Growth> {
        self.growing.iter().filter(|growth| growth.what.is_waste())
    }
}

impl Default for History {
    fn default() -> Self {
        Self { samples: Vec::new(), stride: 1, seen: 0 }
    }
}

impl History {
    /// Adds a look. One that is not later than the last is passed over.
    pub fn add(&mut self, sample: Sample) {
        if self.samples.last().is_some_and(|last| last.at_ms >= sample.at_ms) {
            return;
        }
        let is_kept = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !is_kept {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            // Every second one goes, and from now on comes.
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = self.stride.saturating_mul(2);
        }
        self.samples.push(sample);
    }

    /// The looks that are kept, the earliest first.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

/// Works out the trend of some looks, the earliest first; `free` is how many more descriptors the
/// process may open. None while there are too few looks.
///
/// The slope is the median of the slopes between all pairs: a burst in the middle does not bend it.
#[must_use]
pub fn trend(samples: &[Sample], free: u64) -> Option<Trend> {
    let samples = &samples[samples.len().saturating_sub(SAMPLES_MAX)..];
    if samples.len() < SAMPLES_MIN {
        return None;
    }
    let series = |value: &dyn Fn(&Sample) -> Option<u64>| -> Vec<(u64, u64)> {
        samples.iter().filter_map(|sample| Some((sample.at_ms, value(sample)?))).collect()
    };
    let (per_minute, grows) = slope(&series(&|sample| Some(sample.open)))?;
    let mut growing = Vec::new();
    let mut watch = |what, values: Vec<(u64, u64)>| {
        if let Some((per_minute, true)) = slope(&values) {
            growing.push(Growth { what, per_minute });
        }
    };
    for kind in Kind::ALL {
        watch(What::Kind(kind), series(&|sample| Some(u64::from(sample.kinds?.get(kind)))));
    }
    for state in State::ALL {
        watch(What::State(state), series(&|sample| Some(u64::from(sample.states?.get(state)))));
    }
    watch(What::Unhashed, series(&|sample| sample.unhashed.map(u64::from)));
    // Stable: of equally fast ones the order above.
    growing.sort_by(|a, b| b.per_minute.total_cmp(&a.per_minute));
    let full_in_ms =
        if free == 0 { Some(0) } else { grows.then(|| until(free, per_minute)).flatten() };
    Some(Trend { per_minute, grows, full_in_ms, growing })
}

/// Milliseconds until so many are used up.
fn until(free: u64, per_minute: f64) -> Option<u64> {
    let ms = as_float(free) / per_minute * MINUTE_MS;
    std::time::Duration::try_from_secs_f64(ms / 1000.0).ok()?.as_millis().try_into().ok()
}

/// The slope per minute, and whether it goes up steadily.
fn slope(values: &[(u64, u64)]) -> Option<(f64, bool)> {
    if values.len() < SAMPLES_MIN {
        return None;
    }
    let mut slopes = Vec::with_capacity(values.len() * (values.len() - 1) / 2);
    let mut balance = 0_i64;
    for (place, (then, before)) in values.iter().enumerate() {
        for (now, after) in &values[place + 1..] {
            balance += match after.cmp(before) {
                std::cmp::Ordering::Greater => 1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Less => -1,
            };
            let rise = as_float(*after) - as_float(*before);
            slopes.push(rise / as_float(now.saturating_sub(*then).max(1)) * MINUTE_MS);
        }
    }
    slopes.sort_by(f64::total_cmp);
    let median = slopes[slopes.len() / 2];
    let pairs = i64::try_from(slopes.len()).unwrap_or(i64::MAX);
    Some((median, median > 0.0 && balance * 100 >= pairs * STEADY_PERCENT))
}

/// Counts are far below what a float holds exactly; a clock that is not loses less than a promille.
fn as_float(number: u64) -> f64 {
    u32::try_from(number).map_or_else(
        |_| f64::from(u32::try_from(number >> 20).unwrap_or(u32::MAX)) * f64::from(1_u32 << 20),
        f64::from,
    )
}

#[cfg(test)]
mod tests;
