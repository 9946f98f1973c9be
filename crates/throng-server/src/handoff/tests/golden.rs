//! State that earlier versions wrote, kept in files, is read by this one.
//!
//! A new version's files are written with
//! `THRONG_GOLDEN=1 cargo test -p throng-server --lib writes_the_golden_state -- --ignored`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_hub::state::sealed::Version;
use throng_wire::websocket::{Opcode, put_client_frame};
use tokio::runtime::Runtime;

use super::damage::resealed;
use super::property::{settings, token};
use super::world::{Heir, World, runtime};
use crate::config::Settings;
use crate::handoff::Cargo;
use crate::session::Kind;

/// What can be seen of the state of version 1.0.
const FACTS_1_0: &str = include_str!("golden/1.0/facts.txt");
/// And of version 1.1, of which most went ahead.
const FACTS_1_1: &str = include_str!("golden/1.1/facts.txt");

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/handoff/tests/golden").join(version)
}

/// A world in which everything is under way.
pub(super) fn busy_world(settings: &Arc<Settings>, runtime: &Arc<Runtime>) -> World {
    let mut world = World::new(settings, 2, runtime);
    for at in 0..6 {
        world.join(if at == 5 { Kind::Unidirectional } else { Kind::Bidirectional });
        if at == 4 {
            // It never introduces itself.
            continue;
        }
        let token = token(&format!("user{at}"));
        let connect = if at == 5 {
            format!(r#"{{"token":"{token}","subs":{{"plain":{{}}}}}}"#)
        } else {
            format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)
        };
        world.say(at, &connect, None);
        world.settle();
        if at < 4 {
            for channel in ["plain", "kept:one", "seen:room"] {
                let text = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#);
                world.say(at, &text, None);
                world.settle();
            }
        }
    }
    world.publish("kept:one", "\"first\"", Some("key"));
    world.publish("kept:two", "\"nobody listens\"", None);
    world.settle();
    world.pass(5);
    // One does not read, and much waits for it.
    world.clients[1].is_stalled = true;
    for _ in 0..20 {
        world.publish("plain", &format!("\"{}\"", "w".repeat(900)), None);
        world.settle();
    }
    // One is in the middle of a header, one of a message, one of its commands.
    world.say(2, r#"{"id":9,"presence_stats":{"channel":"seen:room"}}"#, Some(1));
    let mut half = Vec::new();
    put_client_frame(Opcode::Text, [1, 2, 3, 4], br#"{"id":7,"pub"#, &mut half);
    half[0] &= 0x7f;
    world.say_bytes(3, half, None);
    let many: Vec<String> = (10..160)
        .map(|id| format!(r#"{{"id":{id},"publish":{{"channel":"kept:two","data":{id}}}}}"#))
        .collect();
    world.say(0, &many.join("\n"), None);
    world.turns(2);
    world
}

/// What is different after the first was told.
pub(super) fn go_on(world: &mut World) {
    let at = world.join(Kind::Bidirectional);
    world.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("late")), None);
    world.publish("kept:one", "\"second\"", None);
    world.hang_up(5);
    world.turns(6);
}

fn read(version: &str, sockets: &mut World) -> (Cargo, Vec<crate::handoff::Incoming>) {
    let piece = |name: &str| std::fs::read(folder(version).join(name)).unwrap();
    let shards = vec![piece("shard0"), piece("shard1")];
    let cargo = Cargo { changes: piece("changes"), common: piece("common"), shards };
    (cargo, sockets.freeze().1)
}

/// The facts of a world that goes on from the files.
fn facts_of(change: impl Fn(&mut Cargo)) -> Result<String, String> {
    let (settings, runtime) = (settings(), runtime());
    // The same connections, for their sockets.
    let mut same = busy_world(&settings, &runtime);
    let (mut cargo, sockets) = read("1.0", &mut same);
    change(&mut cargo);
    let mut world = World::new(&settings, 3, &runtime).load(cargo, sockets)?;
    world.begin();
    world.settle();
    Ok(world.facts())
}

#[test]
fn the_state_of_version_1_0_is_read() {
    assert_eq!(facts_of(|_| {}).unwrap(), FACTS_1_0.trim_end());
}

#[test]
fn the_state_of_version_1_1_is_read() {
    let (settings, runtime) = (settings(), runtime());
    let mut same = busy_world(&settings, &runtime);
    let mut heir = Heir::of(World::new(&settings, 3, &runtime));
    heir.take_sockets(same.tell().0);
    for at in 0..2 {
        let piece = std::fs::read(folder("1.1").join(format!("ahead{at}"))).unwrap();
        heir.take_pieces(vec![(at, piece)], false).unwrap();
    }
    go_on(&mut same);
    let (cargo, more) = read("1.1", &mut same);
    let mut world = heir.load(cargo, more).unwrap();
    world.begin();
    world.settle();
    assert_eq!(world.facts(), FACTS_1_1.trim_end());
}

#[test]
fn state_with_more_than_is_known_here_is_read() {
    let newer = |piece: &mut Vec<u8>| {
        *piece = resealed(std::mem::take(piece), |bytes| {
            // A higher minor version, and fields of each kind that nobody knows yet.
            bytes[6] += 3;
            bytes.extend_from_slice(&[61 << 2, 0xff, 1, 62 << 2 | 1, 2, 7, 7, 63 << 2 | 2]);
            bytes.extend_from_slice(&[3, 0, 0, 0, 1, 2, 3]);
        });
    };
    let facts = facts_of(|cargo| {
        newer(&mut cargo.changes);
        newer(&mut cargo.common);
        cargo.shards.iter_mut().for_each(newer);
    });
    assert_eq!(facts.unwrap(), FACTS_1_0.trim_end());
}

#[test]
fn state_of_another_major_version_is_refused_with_words() {
    let refused = facts_of(|cargo| cargo.common[5] = Version::HERE.major + 1).unwrap_err();
    assert!(refused.contains("version 2.0 of the state, and this program reads 1.x"), "{refused}");
}

#[test]
#[ignore = "writes files"]
fn writes_the_golden_state() {
    assert!(std::env::var_os("THRONG_GOLDEN").is_some(), "set THRONG_GOLDEN to write files");
    let (settings, runtime) = (settings(), runtime());
    let mut world = busy_world(&settings, &runtime);
    let folder = folder(&Version::HERE.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let mut heir = Heir::of(World::new(&settings, 3, &runtime));
    let (sockets, pieces) = world.tell();
    heir.take_sockets(sockets);
    assert_eq!(pieces.iter().map(|piece| piece.0).collect::<Vec<_>>(), [0, 1]);
    for (at, piece) in pieces {
        std::fs::write(folder.join(format!("ahead{at}")), &piece).unwrap();
        heir.take_pieces(vec![(at, piece)], false).unwrap();
    }
    go_on(&mut world);
    let (cargo, more) = world.freeze();
    let Cargo { changes, common, shards } = &cargo;
    std::fs::write(folder.join("changes"), changes).unwrap();
    std::fs::write(folder.join("common"), common).unwrap();
    for (at, shard) in shards.iter().enumerate() {
        std::fs::write(folder.join(format!("shard{at}")), shard).unwrap();
    }
    let mut next = heir.load(cargo, more).unwrap();
    next.begin();
    next.settle();
    std::fs::write(folder.join("facts.txt"), next.facts() + "\n").unwrap();
}
