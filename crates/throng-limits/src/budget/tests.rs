use super::*;
use proptest::prelude::*;

#[test]
fn refuses_when_every_place_is_taken() {
    let budget = Budget::new(2);
    let first = budget.try_client().unwrap();
    let _second = budget.try_client().unwrap();
    assert!(budget.try_client().is_none());
    assert_eq!((budget.open(), budget.ceiling()), (2, 2));
    drop(first);
    assert_eq!(budget.open(), 1);
    assert!(budget.try_client().is_some());
}

#[test]
fn a_budget_of_nothing_gives_nothing() {
    assert!(Budget::new(0).try_client().is_none());
}

#[test]
fn a_permit_is_two_words_and_travels_between_threads() {
    const fn travels<T: Send + 'static>() {}
    travels::<Permit>();
    assert_eq!(size_of::<Permit>(), 16);
}

#[test]
fn threads_never_take_more_than_there_is() {
    let budget = Budget::new(100);
    let takers: Vec<_> = (0..4)
        .map(|_| {
            let budget = budget.clone();
            std::thread::spawn(move || {
                let permits: Vec<_> = (0..50).filter_map(|_| budget.try_client()).collect();
                assert!(budget.open() <= 100);
                permits
            })
        })
        .collect();
    // Kept until all have taken: what is given back may be taken again.
    let permits: Vec<_> = takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
    assert_eq!(permits.len(), 100);
    drop(permits);
    assert_eq!(budget.open(), 0);
}

#[test]
fn at_a_limit_of_1024_all_guarantees_and_the_own_descriptors_are_at_most_70() {
    let own = 22;
    let guaranteed = Guarantees::of(1024 - own);
    assert!(guaranteed.sum() + own <= 70, "{guaranteed:?}");
    assert_eq!(Budget::with(1024 - own, guaranteed).ceiling(), 954);
    // Clients and their bridges are what the rest is for.
    for lane in Lane::ALL.iter().filter(|lane| !matches!(lane, Lane::Clients | Lane::Bridges)) {
        assert!(guaranteed.part(*lane) >= 4, "{lane:?}");
    }
}

#[test]
fn a_tiny_limit_still_has_room_for_clients() {
    for total in 0..200 {
        let guaranteed = Guarantees::of(total);
        assert!(guaranteed.sum() * 3 <= total);
        assert!(Budget::with(total, guaranteed).ceiling() * 3 >= total);
    }
}

#[test]
fn the_front_gets_in_when_no_client_does() {
    let budget = Budget::with(100, Guarantees::of(100));
    let clients: Vec<_> = std::iter::from_fn(|| budget.try_client()).collect();
    assert_eq!(clients.len() as u64, budget.ceiling());
    let visitor = budget.try_take(Lane::Front).unwrap();
    let visitor = visitor.turn(Lane::Clients).unwrap_err();
    drop(clients);
    assert_eq!(visitor.turn(Lane::Clients).unwrap().lane(), Lane::Clients);
    assert_eq!(budget.used_total(), 0);
}

#[test]
fn what_the_front_has_borrowed_becomes_a_client_at_the_ceiling() {
    let budget = Budget::with(100, Guarantees::of(100));
    let mut front: Vec<_> = std::iter::from_fn(|| budget.try_take(Lane::Front)).collect();
    assert!(budget.try_client().is_none());
    assert!(budget.try_take(Lane::Restart).is_some());
    let client = front.pop().unwrap().turn(Lane::Clients).unwrap();
    assert_eq!((client.lane(), budget.open()), (Lane::Clients, 1));
}

#[test]
fn shrinking_takes_nobodys_permit_and_growing_lets_more_in() {
    let budget = Budget::new(10);
    let held: Vec<_> = std::iter::from_fn(|| budget.try_client()).collect();
    budget.resize(5, Guarantees::default());
    assert_eq!((held.len(), budget.open()), (10, 10));
    assert!(budget.try_client().is_none());
    budget.resize(11, Guarantees::default());
    let _one_more = budget.try_client().unwrap();
    assert!(budget.try_client().is_none());
}

#[test]
fn no_more_clients_than_wanted() {
    let budget = Budget::new(10);
    budget.want_clients(2);
    assert_eq!(budget.ceiling(), 2);
    let held: Vec<_> = std::iter::from_fn(|| budget.try_client()).collect();
    assert_eq!(held.len(), 2);
}

/// What may happen to a budget: taking, giving back, turning.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Take(usize),
    Drop(usize),
    Turn(usize, usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0..LANES).prop_map(Deed::Take),
        1 => (0..1000_usize).prop_map(Deed::Drop),
        1 => (0..1000_usize, 0..LANES).prop_map(|(which, lane)| Deed::Turn(which, lane)),
    ]
}

fn do_it(deed: Deed, budget: &Budget, held: &mut Vec<Permit>) {
    match deed {
        Deed::Take(lane) => held.extend(budget.try_take(Lane::ALL[lane])),
        Deed::Drop(_) | Deed::Turn(..) if held.is_empty() => {}
        Deed::Drop(which) => drop(held.swap_remove(which % held.len())),
        Deed::Turn(which, lane) => {
            let permit = held.swap_remove(which % held.len());
            held.push(permit.turn(Lane::ALL[lane]).unwrap_or_else(|as_it_was| as_it_was));
        }
    }
}

proptest! {
    #[test]
    fn never_more_than_the_total_and_every_guarantee_can_be_had(
        total in 0..300_u64,
        deeds in prop::collection::vec(deed(), 0..600),
    ) {
        let budget = Budget::with(total, Guarantees::of(total));
        let mut held = Vec::new();
        for deed in deeds {
            do_it(deed, &budget, &mut held);
            prop_assert_eq!(budget.used_total(), held.len() as u64);
            prop_assert!(budget.used_total() <= total);
            prop_assert!(budget.open() <= budget.ceiling());
        }
        for lane in Lane::ALL {
            while budget.used(lane) < budget.guaranteed().part(lane) {
                let permit = budget.try_take(lane);
                prop_assert!(permit.is_some(), "{:?}", lane);
                held.extend(permit);
            }
        }
        drop(held);
        prop_assert_eq!(budget.used_total(), 0);
        let all: Vec<_> = std::iter::from_fn(|| budget.try_client()).collect();
        prop_assert_eq!(all.len() as u64, budget.ceiling(), "what was borrowed came back");
    }
}
