use super::*;

#[test]
fn nothing_counted_is_nothing() {
    let histogram = Histogram::new();
    assert_eq!((histogram.percentile(500), histogram.longest(), histogram.count()), (0, 0, 0));
}

#[test]
fn small_values_are_exact() {
    let mut histogram = Histogram::new();
    for time in 1..=50 {
        histogram.add(time);
    }
    assert_eq!(histogram.percentile(500), 25);
    assert_eq!(histogram.percentile(1000), 50);
    assert_eq!(histogram.count(), 50);
}

#[test]
fn large_values_are_at_most_a_thirtysecond_too_high() {
    for time in [63, 64, 65, 1000, 999_999, 1_000_000_007, 3_600_000_000_000, u64::MAX / 3] {
        let edge = upper_edge(bucket(time));
        assert!(edge >= time, "{time}: {edge}");
        assert!(edge - time <= time / 32, "{time}: {edge}");
    }
}

#[test]
fn one_slow_of_a_thousand_is_past_the_99th() {
    let mut histogram = Histogram::new();
    for _ in 0..999 {
        histogram.add(1_000_000);
    }
    histogram.add(90_000_000);
    assert!(histogram.percentile(990) < 1_040_000);
    assert_eq!(histogram.longest(), 90_000_000);
    assert_eq!(histogram.percentile(1000), 90_000_000);
}
