//! Counts times so that percentiles of millions of them fit into a few kilobytes.

use crate::clock::Nanos;

/// Buckets per doubling: a percentile is at most 1/32 (3 %) too high.
const PER_DOUBLING: usize = 32;
/// One row of buckets per possible doubling of 64 bits, past the first 32 exact values.
const BUCKETS: usize = PER_DOUBLING * 60;

#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    longest: Nanos,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, longest: 0 }
    }

    pub(crate) fn add(&mut self, time: Nanos) {
        self.buckets[bucket(time)] += 1;
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn longest(&self) -> Nanos {
        self.longest
    }

    /// The time within which `per_mille` of a thousand were done; 0 when nothing was counted.
    pub(crate) fn percentile(&self, per_mille: u64) -> Nanos {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_edge(index).min(self.longest);
            }
        }
        self.longest
    }
}

fn bucket(time: Nanos) -> usize {
    let doublings = time.checked_ilog2().unwrap_or(0).saturating_sub(5);
    let row = doublings as usize * PER_DOUBLING;
    // After the shift at most 63 is left, so the conversion cannot fail.
    (row + usize::try_from(time >> doublings).unwrap_or(0)).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> Nanos {
    let doublings = (bucket / PER_DOUBLING).saturating_sub(1);
    let within = (bucket - doublings * PER_DOUBLING) as u64;
    (within << doublings) + (1 << doublings) - 1
}

#[cfg(test)]
mod tests;
