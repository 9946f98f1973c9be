use super::*;

/// Publishes `count` messages to `clients` clients.
fn round(clients: u32, count: u32) -> (Ledger, Vec<Place>) {
    let mut ledger = Ledger::new();
    let places = (0..clients).map(|_| ledger.place()).collect();
    ledger.begin_round();
    for number in 0..count {
        assert_eq!(ledger.publish(u64::from(number) * 100, clients), number);
    }
    (ledger, places)
}

fn check(ledger: &Ledger, expected: &str) {
    let Tally { deliveries, lost, duplicates, disordered, complete, .. } = ledger.tally();
    let found = format!("{deliveries} delivered {lost} lost {duplicates} twice {disordered} late");
    assert_eq!(format!("{found} {complete} complete"), expected);
}

#[test]
fn everyone_has_everything() {
    let (mut ledger, mut places) = round(2, 2);
    for number in 0..2 {
        for (index, place) in places.iter_mut().enumerate() {
            ledger.receive(place, number, 1000 + 50 * index as u64);
        }
    }
    for place in &mut places {
        ledger.settle(place);
    }
    check(&ledger, "4 delivered 0 lost 0 twice 0 late 2 complete");
    assert_eq!(ledger.tally().last_receiver, [1050, 950]);
    assert_eq!(ledger.tally().latency.count(), 4);
}

#[test]
fn what_was_passed_over_is_lost_when_the_round_ends() {
    let (mut ledger, mut places) = round(1, 4);
    ledger.receive(&mut places[0], 0, 500);
    ledger.receive(&mut places[0], 2, 500);
    ledger.settle(&mut places[0]);
    check(&ledger, "2 delivered 2 lost 0 twice 0 late 4 complete");
}

#[test]
fn what_comes_after_a_later_one_is_disorder_and_no_loss() {
    let (mut ledger, mut places) = round(1, 3);
    for number in [0, 2, 1] {
        ledger.receive(&mut places[0], number, 500);
    }
    ledger.settle(&mut places[0]);
    check(&ledger, "3 delivered 0 lost 0 twice 1 late 3 complete");
    assert!(places[0].absent.is_none());
}

#[test]
fn a_second_copy_is_no_delivery() {
    let (mut ledger, mut places) = round(2, 1);
    ledger.receive(&mut places[0], 0, 500);
    ledger.receive(&mut places[0], 0, 600);
    ledger.receive(&mut places[0], 77, 600);
    check(&ledger, "1 delivered 0 lost 2 twice 0 late 0 complete");
}

#[test]
fn who_leaves_is_no_longer_waited_for_and_misses_what_is_under_way() {
    let (mut ledger, mut places) = round(2, 2);
    ledger.receive(&mut places[0], 0, 500);
    ledger.receive(&mut places[0], 1, 500);
    ledger.receive(&mut places[1], 0, 500);
    check(&ledger, "3 delivered 0 lost 0 twice 0 late 1 complete");
    ledger.settle(&mut places[1]);
    check(&ledger, "3 delivered 1 lost 0 twice 0 late 2 complete");
}

#[test]
fn a_copy_from_an_earlier_round_does_not_count_in_this_one() {
    let (mut ledger, mut places) = round(1, 1);
    ledger.settle(&mut places[0]);
    ledger.begin_round();
    ledger.publish(1000, 1);
    ledger.receive(&mut places[0], 0, 1100);
    ledger.receive(&mut places[0], 1, 1200);
    ledger.settle(&mut places[0]);
    check(&ledger, "1 delivered 0 lost 0 twice 1 late 1 complete");
}

#[test]
fn who_comes_later_is_not_owed_what_was_before() {
    let (ledger, _) = round(0, 3);
    let mut late = ledger.place();
    let mut ledger = ledger;
    ledger.settle(&mut late);
    check(&ledger, "0 delivered 0 lost 0 twice 0 late 3 complete");
}
