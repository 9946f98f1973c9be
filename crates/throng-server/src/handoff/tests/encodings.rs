//! Invariant ENCODE-ONCE, with subscribers of every kind on every shard.

use throng_wire::framing::Framing;
use throng_wire::websocket::{Opcode, Window, put_client_frame};

use super::property::settings;
use super::world::{World, runtime};
use crate::session::{ENCODED, Kind};

/// Subscribes to `plain` in Protobuf.
const COMMANDS: &[u8] = b"\x04\x08\x01\x22\x00\x0b\x08\x02\x2a\x07\x0a\x05plain";

#[test]
fn a_publication_is_encoded_once_in_each_encoding_and_compressed_once_in_each() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = World::new(&settings, 3, &runtime);
    let kinds = [
        (Framing::WebSocket, None),
        (Framing::WebSocket, Some(Window::Usual)),
        (Framing::Binary, None),
        (Framing::Binary, Some(Window::Usual)),
    ];
    let mut clients = Vec::new();
    // Of each kind, one on each shard at least.
    for (framing, deflate) in kinds.into_iter().cycle().take(kinds.len() * 6) {
        let at = world.join_over(Kind::Bidirectional, (framing, deflate), None);
        clients.push((at, framing));
        world.settle();
        if framing == Framing::Binary {
            let mut frame = Vec::new();
            put_client_frame(Opcode::Binary, [1, 2, 3, 4], COMMANDS, &mut frame);
            world.say_bytes(at, frame, None);
        } else {
            world.say(at, r#"{"id":1,"connect":{}}"#, None);
            world.say(at, r#"{"id":2,"subscribe":{"channel":"plain"}}"#, None);
        }
        world.settle();
    }
    let before: Vec<usize> =
        clients.iter().map(|(at, _)| world.clients[*at].heard_bytes()).collect();
    let encoded = ENCODED.get();
    world.publish("plain", &format!("\"{}\"", "data ".repeat(600)), None);
    world.settle();
    assert_eq!(ENCODED.get() - encoded, kinds.len());
    for (place, ((at, framing), before)) in clients.iter().zip(before).enumerate() {
        let came = world.clients[*at].heard_bytes() - before;
        // Every second pair is compressed; all others have every byte.
        let is_compressed = place % 2 == 1;
        assert_eq!(came < 300, is_compressed, "{framing:?}: {came} bytes");
    }
}
