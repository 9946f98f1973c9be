use super::*;

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
fn a_permit_is_a_word_and_travels_between_threads() {
    const fn travels<T: Send + 'static>() {}
    travels::<Permit>();
    assert_eq!(size_of::<Permit>(), 8);
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
