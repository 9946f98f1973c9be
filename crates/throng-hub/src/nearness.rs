//! Finds the names nearest to one that nobody listens to: mostly it is misspelt.

use crate::publication::ChannelName;

/// Edits (a byte added, dropped or changed) that a near name is away at most.
const EDITS_MAX: usize = 3;

/// Names that are told at most.
const FOUND_MAX: usize = 3;

/// The nearest names so far.
#[derive(Debug)]
pub(crate) struct Nearest<'a> {
    name: &'a str,
    /// Sorted by distance, then name.
    found: Vec<(usize, ChannelName, u32)>,
}

impl<'a> Nearest<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self { name, found: Vec::new() }
    }

    pub(crate) fn look_at(&mut self, name: &ChannelName, subscribers: u32) {
        // Of a short name nearly everything is a few edits away.
        let edits_max = EDITS_MAX.min(self.name.len().div_ceil(2));
        let Some(edits) = distance(self.name, name, edits_max) else { return };
        let place = self.found.partition_point(|(e, n, _)| (*e, &**n) < (edits, &**name));
        if place < FOUND_MAX {
            self.found.insert(place, (edits, ChannelName::clone(name), subscribers));
            self.found.truncate(FOUND_MAX);
        }
    }

    pub(crate) fn found(self) -> Vec<(ChannelName, u32)> {
        self.found.into_iter().map(|(_, name, subscribers)| (name, subscribers)).collect()
    }
}

/// The edits between two names, if at most `max` (itself at most `EDITS_MAX`).
fn distance(a: &str, b: &str, max: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > max {
        return None;
    }
    // Only the band around the diagonal can stay within `max`: `row[k]` is the cell of column
    // `i + k - EDITS_MAX`.
    const BAND: usize = 2 * EDITS_MAX + 1;
    let far = EDITS_MAX + 1;
    let mut row = [far; BAND];
    for (k, cell) in row.iter_mut().enumerate().skip(EDITS_MAX) {
        *cell = k - EDITS_MAX;
    }
    for i in 1..=a.len() {
        let mut next = [far; BAND];
        for k in 0..BAND {
            let Some(j) = (i + k).checked_sub(EDITS_MAX).filter(|j| *j <= b.len()) else {
                continue;
            };
            let changed = match j {
                0 => far,
                _ => row[k] + usize::from(a[i - 1] != b[j - 1]),
            };
            let dropped = row.get(k + 1).map_or(far, |cell| cell + 1);
            let added = if k > 0 { next[k - 1] + 1 } else { far };
            next[k] = changed.min(dropped).min(added).min(far);
        }
        if next.iter().all(|cell| *cell > max) {
            return None;
        }
        row = next;
    }
    let edits = row[b.len() + EDITS_MAX - a.len()];
    (edits <= max).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::{EDITS_MAX, Nearest, distance};
    use crate::publication::ChannelName;

    fn naive(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], _) => b.len(),
            (_, []) => a.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) if x == y => naive(a_rest, b_rest),
            ([_, a_rest @ ..], [_, b_rest @ ..]) => {
                1 + naive(a_rest, b_rest).min(naive(a, b_rest)).min(naive(a_rest, b))
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        let names =
            ["", "a", "ab", "news", "newz", "enws", "nwes", "newsy", "xnews", "sports", "spr"];
        for a in names {
            for b in names {
                let edits = naive(a.as_bytes(), b.as_bytes());
                let wanted = (edits <= EDITS_MAX).then_some(edits);
                assert_eq!(distance(a, b, EDITS_MAX), wanted, "{a} {b}");
            }
        }
    }

    #[test]
    fn tells_the_three_nearest() {
        let mut nearest = Nearest::new("chat:lobby");
        for name in ["chat:loby", "chat:lobbies", "news", "chat:lobb", "chat:lobbyx", "chat:xxxxx"]
        {
            nearest.look_at(&ChannelName::from(name), 1);
        }
        let found: Vec<_> = nearest.found().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(found, ["chat:lobb", "chat:lobbyx", "chat:loby"]);
    }
}
