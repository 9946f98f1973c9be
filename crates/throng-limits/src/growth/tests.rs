use super::*;

/// A look every second, with so many open each time.
fn watched(open: impl IntoIterator<Item = u64>) -> Vec<Sample> {
    let numbered = open.into_iter().enumerate();
    numbered
        .map(|(second, open)| Sample { at_ms: second as u64 * 1000, open, ..Sample::default() })
        .collect()
}

#[test]
fn a_steady_leak_is_projected() {
    // Two a second: 120 a minute; 600 are left.
    let trend = trend(&watched((0..10).map(|second| 100 + 2 * second)), 600).unwrap();
    assert!((trend.per_minute - 120.0).abs() < 0.001);
    assert!(trend.grows);
    assert_eq!(trend.full_in_ms, Some(300_000));
}

#[test]
fn a_burst_does_not_bend_the_slope() {
    let trend = trend(&watched([100, 100, 5000, 100, 100, 100]), 600).unwrap();
    assert!(trend.per_minute.abs() < 0.001);
    assert!(!trend.grows);
    assert_eq!(trend.full_in_ms, None);
}

#[test]
fn what_goes_up_and_down_does_not_grow() {
    let trend = trend(&watched([100, 140, 90, 150, 95, 145, 99, 160]), 600).unwrap();
    assert!(!trend.grows);
}

#[test]
fn what_becomes_less_is_never_full() {
    let trend = trend(&watched([400, 300, 200, 100]), 600).unwrap();
    assert!(trend.per_minute < 0.0);
    assert_eq!(trend.full_in_ms, None);
}

#[test]
fn what_is_full_is_full_now() {
    assert_eq!(trend(&watched([1024; 5]), 0).unwrap().full_in_ms, Some(0));
}

#[test]
fn few_looks_say_nothing() {
    assert_eq!(trend(&watched([1, 2, 3]), 600), None);
    assert_eq!(trend(&[], 600), None);
}

#[test]
fn a_leak_is_told_from_load() {
    let mut samples = watched((0..8).map(|second| 100 + 13 * second));
    for (second, sample) in samples.iter_mut().enumerate() {
        let mut states = States::default();
        (0..10 * second).for_each(|_| states.add(State::Established));
        (0..3 * second).for_each(|_| states.add(State::CloseWait));
        sample.states = Some(states);
    }
    let trend = trend(&samples, 600).unwrap();
    let growing: Vec<_> = trend.growing.iter().map(|growth| growth.what).collect();
    assert_eq!(growing, [What::State(State::Established), What::State(State::CloseWait)]);
    let leaks: Vec<_> = trend.leaks().map(|growth| growth.what.words()).collect();
    assert_eq!(leaks, ["CLOSE_WAIT"]);
}

#[test]
fn a_long_watch_is_thinned_out_evenly() {
    let mut history = History::default();
    for sample in watched(0..100_000) {
        history.add(sample);
    }
    let kept = history.samples();
    assert!(kept.len() <= SAMPLES_MAX && kept.len() >= SAMPLES_MAX / 2, "{}", kept.len());
    let gaps: Vec<u64> = kept.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
    assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
    assert_eq!(kept[0].at_ms, 0);
}

#[test]
fn a_clock_that_stands_still_is_passed_over() {
    let mut history = History::default();
    history.add(Sample { at_ms: 5, ..Sample::default() });
    history.add(Sample { at_ms: 5, open: 9, ..Sample::default() });
    history.add(Sample { at_ms: 4, open: 9, ..Sample::default() });
    assert_eq!(history.samples().len(), 1);
}

#[test]
fn numbers_beyond_four_thousand_millions_stay_near() {
    let trend = trend(&watched([0, u64::MAX / 4, u64::MAX / 2, u64::MAX]), u64::MAX).unwrap();
    assert!(trend.per_minute.is_finite());
}
