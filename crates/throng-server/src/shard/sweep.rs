//! The sweep: once a second over all connections, in slices, for everything that has a time.

/// Slots looked at in one slice when none of them is due: about 10 µs.
const SLOTS_PER_SLICE: usize = 65_536;

/// Where the sweep of this second stands.
#[derive(Debug)]
pub(super) struct Sweep {
    next: Option<usize>,
    /// Another second began before this sweep ended.
    again: bool,
}

impl Sweep {
    pub(super) fn new() -> Self {
        Self { next: None, again: false }
    }

    /// A new second has begun.
    pub(super) fn begin(&mut self) {
        if self.next.is_none() {
            self.next = Some(0);
        } else {
            // A sweep that takes longer than a second is finished first, so that those at the
            // end of the slab have their turn too.
            self.again = true;
        }
    }

    /// Whether slots remain to be looked at.
    pub(super) fn is_running(&self) -> bool {
        self.next.is_some()
    }

    /// The next slot that is due at `second`; `None` at the end of the slice.
    pub(super) fn next(&mut self, due: &[u32], second: u32) -> Option<u32> {
        let from = self.next?;
        let to = due.len().min(from + SLOTS_PER_SLICE);
        if let Some(found) = due[from.min(to)..to].iter().position(|&at| at <= second) {
            self.next = Some(from + found + 1);
            return u32::try_from(from + found).ok();
        }
        if to < due.len() {
            self.next = Some(to);
        } else {
            self.next = std::mem::take(&mut self.again).then_some(0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_who_is_due_and_ends() {
        let due = [5, 7, u32::MAX, 6];
        let mut sweep = Sweep::new();
        assert_eq!(sweep.next(&due, 6), None);
        sweep.begin();
        assert_eq!(sweep.next(&due, 6), Some(0));
        assert_eq!(sweep.next(&due, 6), Some(3));
        assert_eq!(sweep.next(&due, 6), None);
        assert!(!sweep.is_running());
    }

    #[test]
    fn a_second_that_begins_during_a_sweep_is_swept_after_it() {
        let due = [1, 1];
        let mut sweep = Sweep::new();
        sweep.begin();
        assert_eq!(sweep.next(&due, 1), Some(0));
        sweep.begin();
        assert_eq!(sweep.next(&due, 1), Some(1));
        assert_eq!(sweep.next(&due, 1), None);
        assert!(sweep.is_running());
        assert_eq!(sweep.next(&due, 1), Some(0));
    }
}
