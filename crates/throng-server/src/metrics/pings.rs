//! When pings were sent, without a place for it in each connection: those of one second go out
//! together when the second begins.

/// Seconds that are remembered; who answers later than that is not measured.
const SECONDS: usize = 64;

/// When the pings of the last seconds began to go out.
#[derive(Debug)]
pub(crate) struct Pings([(u32, u64); SECONDS]);

impl Default for Pings {
    fn default() -> Self {
        Self([(u32::MAX, 0); SECONDS])
    }
}

impl Pings {
    /// The pings of this second go out from now on.
    pub(crate) fn begin(&mut self, second: u32, at_us: u64) {
        self.0[second as usize % SECONDS] = (second, at_us);
    }

    /// Microseconds from the pings of a second until now; none: nobody knows any more.
    pub(crate) fn since(&self, second: u32, now_us: u64) -> Option<u64> {
        let (of, at_us) = self.0[second as usize % SECONDS];
        (of == second).then(|| now_us.saturating_sub(at_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_remembered_for_about_a_minute() {
        let mut pings = Pings::default();
        assert_eq!(pings.since(0, 5), None);
        pings.begin(7, 1_000);
        assert_eq!(pings.since(7, 31_000), Some(30_000));
        pings.begin(7 + 64, 9_000);
        assert_eq!(pings.since(7, 31_000), None);
    }
}
