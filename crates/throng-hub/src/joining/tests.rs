use std::sync::Arc;

use super::{ARRIVED_MAX, Joining, meet};
use crate::publication::{Epoch, Position, Publication};
use crate::request::{Recover, Recovery, RecoveryMode, Subscribed};

const EPOCH: Epoch = Epoch(*b"abcdefgh");

fn placed(offset: u64) -> Arc<Publication> {
    let mut publication = Publication::new("xx".into(), None, 0);
    publication.offset = offset;
    publication.epoch = Some(EPOCH);
    Arc::new(publication)
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: EPOCH }
}

fn since(offset: u64) -> Recover {
    let mode = RecoveryMode::Stream;
    Recover { epoch: "".into(), offset, mode, limit: 100, bytes_max: 1_000 }
}

/// Reads up to `read` for `recover`, where the channel stands at `top` and `arrived` came.
fn check(top: u64, read: u64, arrived: &[u64], recover: &Recover) -> (Option<Vec<u64>>, bool) {
    let mut joining = Joining::default();
    arrived.iter().for_each(|offset| joining.arrive(&placed(*offset)));
    let first = match recover.mode {
        RecoveryMode::Stream => recover.offset + 1,
        RecoveryMode::Cache => read,
    };
    let recovery = Recovery::Recovered((first..=read).map(placed).collect());
    let subscribed = Subscribed { position: Some(at(read)), recovery };
    let met = meet(Some(at(top)), subscribed, Some(&joining), Some(recover));
    assert_eq!(met.subscribed.position, Some(at(top)));
    let list = match met.subscribed.recovery {
        Recovery::Recovered(list) => Some(list.iter().map(|one| one.offset).collect()),
        _ => None,
    };
    (list, met.gap)
}

#[test]
fn what_arrived_meanwhile_is_added_once() {
    assert_eq!(check(6, 4, &[3, 4, 5, 6], &since(2)), (Some(vec![3, 4, 5, 6]), false));
}

#[test]
fn what_is_still_to_come_is_left_out() {
    assert_eq!(check(3, 5, &[3], &since(1)), (Some(vec![2, 3]), false));
    assert_eq!(check(3, 5, &[3], &since(3)), (Some(vec![]), false));
}

#[test]
fn a_gap_is_told() {
    assert_eq!(check(6, 3, &[5, 6], &since(2)), (None, true));
    assert_eq!(check(6, 3, &[4, 5], &since(2)), (None, true));
}

#[test]
fn who_saw_more_than_the_node_starts_over() {
    assert_eq!(check(3, 5, &[3], &since(4)), (None, false));
}

#[test]
fn what_arrived_counts_for_the_limits() {
    assert_eq!(check(6, 4, &[5, 6], &Recover { limit: 3, ..since(2) }), (None, false));
    assert_eq!(check(6, 4, &[5, 6], &Recover { bytes_max: 7, ..since(2) }), (None, false));
}

#[test]
fn of_the_latest_only_the_last_is_taken() {
    let latest = Recover { mode: RecoveryMode::Cache, ..since(1) };
    assert_eq!(check(6, 4, &[5, 6], &latest), (Some(vec![6]), false));
    assert_eq!(check(6, 4, &[5, 6], &Recover { offset: 6, ..latest }), (Some(vec![]), false));
}

#[test]
fn another_epoch_tears_the_channel() {
    let read = Position { offset: 1, epoch: Epoch(*b"ijklmnop") };
    let subscribed = Subscribed { position: Some(read), recovery: Recovery::Recovered(vec![]) };
    let met = meet(Some(at(4)), subscribed, None, Some(&since(4)));
    assert!(met.torn);
    assert!(matches!(met.subscribed.recovery, Recovery::NotRecovered));
}

#[test]
fn what_arrives_is_bounded() {
    let mut joining = Joining::default();
    (1..=5_000).for_each(|offset| joining.arrive(&placed(offset)));
    assert_eq!(joining.arrived.len(), ARRIVED_MAX);
    joining.arrive(&{
        let mut large = Publication::new(vec![0; 2 << 20].into(), None, 0);
        (large.offset, large.epoch) = (5_001, Some(EPOCH));
        Arc::new(large)
    });
    assert_eq!((joining.arrived.len(), joining.bytes), (0, 0));
}
