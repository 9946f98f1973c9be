//! Who has received what: deliveries, losses, duplicates and disorder, exactly.

use crate::clock::Nanos;
use crate::histogram::Histogram;

/// What one client has received.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Every number below has come, or is in `absent`.
    next: u32,
    /// What was passed over; exists only for a client that something was lost to.
    #[expect(clippy::box_collection, reason = "one word in a record that exists per client")]
    absent: Option<Box<Vec<u32>>>,
}

/// Every publication of a run and who still waits for it.
#[derive(Debug)]
pub(crate) struct Ledger {
    publications: Vec<Publication>,
    /// Where the round under way began.
    round: u32,
    tally: Tally,
}

#[derive(Debug)]
struct Publication {
    sent_at: Nanos,
    last_at: Nanos,
    awaited: u32,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Tally {
    /// First copies, in order or late.
    pub(crate) deliveries: u64,
    pub(crate) duplicates: u64,
    /// Copies that came after a later publication.
    pub(crate) disordered: u64,
    /// Copies that did not come; known when the round has ended.
    pub(crate) lost: u64,
    /// Publications that everyone has.
    pub(crate) complete: u32,
    /// From sending the publication to reading its copy.
    pub(crate) latency: Histogram,
    /// From sending each publication to its last receiver.
    pub(crate) last_receiver: Vec<Nanos>,
}

impl Tally {
    fn new() -> Self {
        Self {
            deliveries: 0,
            duplicates: 0,
            disordered: 0,
            lost: 0,
            complete: 0,
            latency: Histogram::new(),
            last_receiver: Vec::new(),
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { publications: Vec::new(), round: 0, tally: Tally::new() }
    }

    /// Where a client begins that subscribes now.
    pub(crate) fn place(&self) -> Place {
        Place { next: self.top(), absent: None }
    }

    /// How the round under way stands.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn begin_round(&mut self) {
        self.round = self.top();
        self.tally = Tally::new();
    }

    /// Notes a publication to `audience` clients and gives it its number.
    pub(crate) fn publish(&mut self, now: Nanos, audience: u32) -> u32 {
        let number = self.top();
        // What nobody waits for is with everyone already.
        self.tally.complete += u32::from(audience == 0);
        self.publications.push(Publication { sent_at: now, last_at: now, awaited: audience });
        number
    }

    /// Notes that a client read a copy.
    pub(crate) fn receive(&mut self, place: &mut Place, number: u32, now: Nanos) {
        let Some(publication) = self.publications.get_mut(number as usize) else {
            // A number that was never given: not a delivery of anything.
            self.tally.duplicates += 1;
            return;
        };
        if number >= place.next {
            if number > place.next {
                place.absent.get_or_insert_default().extend(place.next..number);
            }
            place.next = number + 1;
        } else if take(&mut place.absent, number) {
            self.tally.disordered += 1;
        } else {
            self.tally.duplicates += 1;
            return;
        }
        publication.last_at = now;
        publication.awaited = publication.awaited.saturating_sub(1);
        if number < self.round {
            // Late from a round that has been reckoned up: disorder, but no delivery of this one.
            return;
        }
        self.tally.deliveries += 1;
        self.tally.latency.add(now.saturating_sub(publication.sent_at));
        if publication.awaited == 0 {
            self.tally.complete += 1;
            self.tally.last_receiver.push(publication.last_at - publication.sent_at);
        }
    }

    /// Reckons what this client has not got of the round, which is lost to it from now on: because
    /// it left, or because the round ends.
    pub(crate) fn settle(&mut self, place: &mut Place) {
        let top = self.top();
        if place.next < top {
            place.absent.get_or_insert_default().extend(place.next..top);
            place.next = top;
        }
        let absent = place.absent.as_deref().map_or(&[][..], Vec::as_slice);
        for &number in absent.iter().filter(|number| **number >= self.round) {
            self.tally.lost += 1;
            let publication = &mut self.publications[number as usize];
            publication.awaited = publication.awaited.saturating_sub(1);
            if publication.awaited == 0 {
                self.tally.complete += 1;
                self.tally.last_receiver.push(publication.last_at - publication.sent_at);
            }
        }
    }

    fn top(&self) -> u32 {
        u32::try_from(self.publications.len()).unwrap_or(u32::MAX)
    }
}

#[expect(clippy::box_collection, reason = "one word in a record that exists per client")]
fn take(absent: &mut Option<Box<Vec<u32>>>, number: u32) -> bool {
    let Some(numbers) = absent else { return false };
    let Some(found) = numbers.iter().position(|absent| *absent == number) else { return false };
    numbers.swap_remove(found);
    if numbers.is_empty() {
        *absent = None;
    }
    true
}

#[cfg(test)]
mod tests;
