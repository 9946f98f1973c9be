use std::collections::BTreeSet;

use super::{KEY_TTL_MS, Keys, Memory};
use crate::broker::{Broker, Op, Open, Step};
use crate::publication::{ChannelName, Epoch, Position};
use crate::request::{Now, Published, Retention};

fn epoch_of(memory: &Memory, name: &str) -> Epoch {
    let channel: &ChannelName = &name.into();
    let retention = Retention { size: 1, ttl_ms: 1, meta_ttl_ms: 1 };
    let open = Open { channel, recover: None, positioned: true, retention };
    match memory.subscribe(Op(0), open, Now::default()) {
        Step::Done(Ok(subscribed)) => subscribed.position.unwrap().epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn epochs_differ_and_come_from_the_seed() {
    let names: Vec<_> = (0..1_000).map(|at| format!("c{at}")).collect();
    let epochs = |seed| {
        let memory = Memory::new(8, seed);
        names.iter().map(|name| epoch_of(&memory, name).0).collect::<Vec<_>>()
    };
    let first = epochs(1);
    assert_eq!(first, epochs(1));
    assert_eq!(first.iter().chain(&epochs(2)).collect::<BTreeSet<_>>().len(), 2_000);
    assert!(first.iter().flatten().all(u8::is_ascii_alphabetic));
}

#[test]
fn keys_are_bounded_and_end() {
    let mut keys = Keys::new(3, foldhash::fast::FixedState::default());
    let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
    let published =
        |offset| Published { position: Some(Position { offset, epoch: Epoch(*b"abcdefgh") }) };
    for key in ["a", "b", "c", "d"] {
        keys.remember("news", key, published(1), at(0));
    }
    assert_eq!(keys.find("news", "a", at(0)), None);
    assert_eq!(keys.find("news", "d", at(KEY_TTL_MS - 1)), Some(published(1)));
    assert_eq!(keys.find("new", "sd", at(0)), None);
    assert_eq!(keys.find("news", "d", at(KEY_TTL_MS)), None);
}

#[test]
fn what_is_over_is_forgotten_within_one_round_of_sweeps() {
    let memory = Memory::new(8, 1);
    for at in 0..100 {
        let name = format!("c{at}");
        epoch_of(&memory, &name);
        memory.unsubscribe(&name.as_str().into(), Now::default());
    }
    let kept = || memory.partitions.iter().map(|one| one.lock().channels.len()).sum::<usize>();
    assert_eq!(kept(), 100);
    for _ in 0..8 {
        memory.sweep(Now { mono_ms: 1, unix_ms: 0 });
    }
    assert_eq!(kept(), 0);
}
