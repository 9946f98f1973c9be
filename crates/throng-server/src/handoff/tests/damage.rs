//! Damaged state is refused with words, or is taken for what it says; it never panics.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use throng_hub::request::Now;
use throng_hub::state::Writer;
use throng_hub::state::sealed;

use super::golden::busy_world;
use super::property::settings;
use super::world::{World, runtime};
use crate::handoff::{Cargo, Incoming};

/// A piece with another payload, and the right sum.
pub(super) fn resealed(mut piece: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    piece.truncate(piece.len() - 8);
    change(&mut piece);
    sealed::seal(Writer::new(piece, Now::default()))
}

fn pieces(cargo: &mut Cargo) -> Vec<&mut Vec<u8>> {
    let Cargo { changes, common, shards } = cargo;
    [changes, common].into_iter().chain(shards).collect()
}

/// Changes a byte at a place from 0 to 1, cuts the rest off, or puts another one in.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a piece"
)]
pub(super) fn damaged(bytes: &mut Vec<u8>, (place, byte, how): (f64, u8, usize)) {
    let at = (bytes.len() as f64 * place) as usize;
    match how {
        _ if at >= bytes.len() => {}
        0 => bytes[at] = byte,
        1 => bytes.truncate(at),
        _ => bytes.insert(at, byte),
    }
}

pub(super) fn copies(sockets: &[Incoming]) -> Vec<Incoming> {
    let copy = |one: &Incoming| Incoming {
        number: one.number,
        cookie: one.cookie,
        shard: one.shard,
        socket: one.socket.try_clone().unwrap(),
    };
    sockets.iter().map(copy).collect()
}

#[test]
fn damaged_state_never_panics() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = busy_world(&settings, &runtime);
    let (cargo, sockets) = world.freeze();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(400), failure_persistence: None, ..Config::default() };
    let damage = (0_usize..4, 0.0_f64..1.0, any::<u8>(), 0_usize..3, any::<bool>());
    TestRunner::new(config)
        .run(&damage, |(which, place, byte, how, sums)| {
            let mut cargo = cargo.clone();
            let mut pieces = pieces(&mut cargo);
            let which = which % pieces.len();
            let piece = &mut *pieces[which];
            let change = |bytes: &mut Vec<u8>| damaged(bytes, (place, byte, how));
            if sums {
                *piece = resealed(std::mem::take(piece), change);
            } else {
                change(piece);
            }
            let next = World::new(&settings, 2, &runtime);
            if let Ok(mut next) = next.load(cargo, copies(&sockets)) {
                next.begin();
                next.turns(4);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn state_that_is_cut_is_refused_with_its_name() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = busy_world(&settings, &runtime);
    let (cargo, sockets) = world.freeze();
    for which in 0..3 {
        let mut cargo = cargo.clone();
        let cut = &mut *pieces(&mut cargo)[which];
        cut.truncate(cut.len() - 1);
        let next = World::new(&settings, 2, &runtime);
        let error = next.load(cargo, copies(&sockets)).err().unwrap();
        let name = ["changes of the streams", "state of the node", "state of a shard"][which];
        assert!(error.contains(name) && error.contains("add up"), "{error}");
    }
    // A connection whose socket has not come.
    let next = World::new(&settings, 2, &runtime);
    let error = next.load(cargo, copies(&sockets[1..])).err().unwrap();
    assert!(error.contains("NoSocket"), "{error}");
    assert!(Arc::strong_count(&settings) >= 1);
}
