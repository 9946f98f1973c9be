//! What goes ahead, and that the freeze tells only of what is different since.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use throng_hub::request::Now;
use throng_hub::state::sealed::{self, Piece};

use super::damage::{copies, damaged, resealed};
use super::golden::{busy_world, go_on};
use super::property::{settings, token};
use super::world::{Heir, World, runtime};
use crate::handoff::{Cargo, Incoming};
use crate::session::Kind;

/// Clients that do nothing.
const CROWD: usize = 40;

/// A connection, in a shard's piece.
const CONNECTION: u8 = 2;
/// In what is shared: where a channel stands.
const MOVED: u8 = 3;

/// How many connections are written down in the pieces, and how many channels stand elsewhere.
fn written(cargo: &Cargo) -> (usize, usize) {
    let mut written = (0, 0);
    for piece in &cargo.shards {
        sealed::open(piece, Piece::Shard, Now::default(), |mut fields| {
            while let Some(field) = fields.field()? {
                written.0 += usize::from(field.tag == CONNECTION);
                if field.tag == 1 {
                    let mut shared = field.fields("shared")?;
                    while let Some(field) = shared.field()? {
                        written.1 += usize::from(field.tag == MOVED);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    }
    written
}

/// A crowd of which each follows a stream that all follow.
fn crowd() -> World {
    let mut world = World::new(&settings(), 2, &runtime());
    for at in 0..CROWD {
        world.join(Kind::Bidirectional);
        let token = token(&format!("user{at}"));
        world.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
        world.say(at, r#"{"id":2,"subscribe":{"channel":"kept:one"}}"#, None);
    }
    world.settle();
    world
}

#[test]
fn a_freeze_tells_only_of_those_who_are_different_from_what_was_told() {
    let mut world = crowd();
    world.go_ahead(2);
    // All of them are sent something, which each has read at once; its channel stands elsewhere.
    world.publish("kept:one", "\"to all\"", None);
    world.settle();
    assert_eq!(written(&world.freeze().0), (0, 2), "one channel in two shards");
    world.resume();
    // As long as nobody is told anything, everybody is written down.
    assert_eq!(written(&world.freeze().0), (CROWD, 0));
    world.resume();
    world.go_ahead(2);
    // One says something, one comes, one goes.
    world.say(3, r#"{"id":3,"presence_stats":{"channel":"kept:one"}}"#, None);
    world.join(Kind::Bidirectional);
    world.hang_up(5);
    world.settle();
    assert_eq!(written(&world.freeze().0), (2, 0));
    world.resume();
    world.go_ahead(3);
    world.pass(1);
    let mut world = world.move_to(3);
    world.settle();
    assert_eq!(world.crowd_size().0, CROWD);
    let published = world.publish("kept:one", "\"again\"", None);
    world.settle();
    assert_eq!(published, "Some(2)");
    for at in (0..CROWD).filter(|at| *at != 5) {
        let told = world.clients[at].told();
        assert!(told.contains("again") && !told.contains("unsubscribe"), "{at}: {told}");
    }
}

#[test]
fn who_goes_on_talking_is_told_of_again_and_again() {
    let mut world = crowd();
    for round in 0..5 {
        world.say(round, r#"{"id":3,"unsubscribe":{"channel":"kept:one"}}"#, None);
        world.settle();
        world.go_ahead(2);
        world.say(round + 10, r#"{"id":3,"unsubscribe":{"channel":"kept:one"}}"#, Some(9));
        world.settle();
    }
    // Five are in the middle of a frame.
    assert_eq!(written(&world.freeze().0).0, 5);
    let mut world = world.move_to(2);
    for round in 10..15 {
        world.say_bytes(round, Vec::new(), None);
    }
    world.settle();
    world.publish("kept:one", "\"news\"", None);
    world.settle();
    for at in 0..CROWD {
        let left = at < 5 || (10..15).contains(&at);
        let told = world.clients[at].told();
        assert_eq!(told.contains("\"id\":3"), left, "{at}: {told}");
        assert_eq!(told.contains("news"), !left, "{at}: {told}");
    }
}

/// Pieces that went ahead, what was left, and the sockets.
struct Sent {
    pieces: Vec<(usize, Vec<u8>)>,
    sockets: Vec<Incoming>,
    cargo: Cargo,
    more: Vec<Incoming>,
}

fn sent() -> Sent {
    let (settings, runtime) = (settings(), runtime());
    let mut world = busy_world(&settings, &runtime);
    let (sockets, pieces) = world.tell();
    go_on(&mut world);
    let (cargo, more) = world.freeze();
    Sent { pieces, sockets, cargo, more }
}

/// Takes over what was sent, with other pieces ahead.
fn load(sent: &Sent, pieces: Vec<(usize, Vec<u8>)>) -> Result<World, String> {
    let mut heir = Heir::of(World::new(&settings(), 2, &runtime()));
    heir.take_sockets(copies(&sent.sockets));
    for piece in pieces {
        heir.take_pieces(vec![piece], false)?;
    }
    heir.load(sent.cargo.clone(), copies(&sent.more))
}

#[test]
fn a_piece_that_is_missing_or_comes_twice_is_noticed() {
    let sent = sent();
    assert!(sent.pieces.len() >= 2);
    assert!(load(&sent, sent.pieces.clone()).is_ok());
    for at in 0..sent.pieces.len() {
        let mut pieces = sent.pieces.clone();
        let piece = pieces.remove(at);
        let error = load(&sent, pieces.clone()).err().unwrap();
        assert!(error.contains("missing") || error.contains("have come"), "{error}");
        pieces.extend([piece.clone(), piece]);
        let error = load(&sent, pieces).err().unwrap();
        assert!(error.contains("missing"), "{error}");
    }
}

#[test]
fn who_is_in_the_middle_of_something_does_not_go_ahead() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = busy_world(&settings, &runtime);
    let (cargo, sockets) = world.freeze();
    let mut heir = Heir::of(World::new(&settings, 2, &runtime));
    heir.take_sockets(sockets);
    let pieces = cargo.shards.into_iter().enumerate().collect();
    let error = heir.take_pieces(pieces, false).unwrap_err();
    assert!(error.contains("in the middle of something"), "{error}");
}

#[test]
fn damaged_pieces_never_panic() {
    let sent = sent();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(100), failure_persistence: None, ..Config::default() };
    let damage = (0_usize..8, 0.0_f64..1.0, any::<u8>(), 0_usize..3, any::<bool>());
    TestRunner::new(config)
        .run(&damage, |(which, place, byte, how, sums)| {
            let mut pieces = sent.pieces.clone();
            let which = which % pieces.len();
            let piece = &mut pieces[which].1;
            let change = |bytes: &mut Vec<u8>| damaged(bytes, (place, byte, how));
            if sums {
                *piece = resealed(std::mem::take(piece), change);
            } else {
                change(piece);
            }
            if let Ok(mut next) = load(&sent, pieces) {
                next.begin();
                next.turns(4);
            }
            Ok(())
        })
        .unwrap();
}
