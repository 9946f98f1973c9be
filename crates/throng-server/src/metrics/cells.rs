//! Numbers that one thread counts and another reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer, or several.
///
/// Where there is one, [`Cell::add`] is a load and a store, with nothing that holds up another core:
/// a fan-out counts every delivery.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    /// Adds; only for the one thread that writes this cell.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Takes away what was added; only for the one thread that writes this cell.
    pub(crate) fn subtract(&self, less: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
    }

    /// Adds, whoever else does.
    pub(crate) fn add_shared(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes away what was added, whoever else does.
    pub(crate) fn subtract_shared(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) messages: Cell,
    pub(crate) bytes: Cell,
}

impl Flow {
    /// Only for the one thread that writes it.
    pub(crate) fn add(&self, messages: u64, bytes: usize) {
        self.messages.add(messages);
        self.bytes.add(bytes as u64);
    }
}

/// Upper bounds of a distribution's buckets; the last has none.
pub(crate) type Bounds = &'static [u64];

/// Of what a client waits for, in microseconds.
pub(crate) const COMMANDS: Bounds = &[
    100, 250, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Of a fan-out, which may be over in a moment, in microseconds.
pub(crate) const FAN_OUT: Bounds = &[
    1, 5, 10, 50, 100, 250, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Of requests over HTTP, in microseconds.
pub(crate) const REQUESTS: Bounds = &[
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// Of publications in a recovery.
pub(crate) const RECOVERED: Bounds =
    &[0, 1, 2, 3, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000];

/// How often which value was met.
#[derive(Debug)]
pub(crate) struct Spread {
    bounds: Bounds,
    /// One more than there are bounds.
    buckets: Box<[Cell]>,
    sum: Cell,
}

impl Spread {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Cell::default()).collect();
        Self { bounds, buckets, sum: Cell::default() }
    }

    /// Only for the one thread that writes it.
    pub(crate) fn observe(&self, value: u64) {
        if let Some(bucket) = self.bucket(value) {
            bucket.add(1);
            self.sum.add(value);
        }
    }

    /// Whoever else does.
    pub(crate) fn observe_shared(&self, value: u64) {
        if let Some(bucket) = self.bucket(value) {
            bucket.add_shared(1);
            self.sum.add_shared(value);
        }
    }

    fn bucket(&self, value: u64) -> Option<&Cell> {
        // A bound belongs to the bucket below it.
        let at = self.bounds.iter().position(|bound| value <= *bound);
        self.buckets.get(at.unwrap_or(self.bounds.len()))
    }

    /// Every number in it, in an order that stays.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.buckets.iter().chain([&self.sum])
    }

    /// What was met so far, together with what others met.
    pub(super) fn add_to(&self, sum: &mut Sum) {
        sum.bounds = self.bounds;
        sum.buckets.resize(self.buckets.len(), 0);
        for (bucket, cell) in sum.buckets.iter_mut().zip(&self.buckets) {
            *bucket += cell.get();
        }
        sum.sum += self.sum.get();
    }
}

/// What several distributions hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bounds: Bounds,
    /// How many fell into each bucket alone.
    pub(super) buckets: Vec<u64>,
    pub(super) sum: u64,
}

impl Sum {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_whose_bound_it_does_not_pass() {
        let spread = Spread::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, u64::from(u32::MAX)] {
            spread.observe(value);
        }
        spread.observe_shared(10);
        let mut sum = Sum::default();
        spread.add_to(&mut sum);
        assert_eq!(sum.buckets, [2, 3, 2]);
        assert_eq!((sum.count(), sum.sum), (7, 34 + u64::from(u32::MAX)));
        spread.add_to(&mut sum);
        assert_eq!(sum.buckets, [4, 6, 4]);
    }

    #[test]
    fn bounds_go_up() {
        for bounds in [COMMANDS, FAN_OUT, REQUESTS, RECOVERED] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
