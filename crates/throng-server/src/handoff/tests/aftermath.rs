//! What still happens after the commit, and what is undone when the other process dies.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use bytes::Bytes;
use throng_wire::framing::Framing;

use super::property::{settings, settings_of, token};
use super::world::{World, runtime};
use crate::backend::{Answer, Said};
use crate::front::address::{ClientAddress, ToldBy};
use crate::handoff::{arrival, put_answer, put_arrival};
use crate::session::{Kind, NoCookie, Open};
use crate::token::Grant;

/// Everything is asked of backends, which nobody ever reaches here.
const ASKING: &str = r#"
client.allow_anonymous_connect_without_token = true
client.insecure_skip_token_signature_verify = true
client.token.hmac_secret_key = "x"
client.ping_interval = "25s"
rpc.proxy.endpoint = "http://127.0.0.1:1/rpc"
rpc.without_namespace.proxy_enabled = true
channel.proxy.publish.endpoint = "http://127.0.0.1:1/publish"
channel.proxy.subscribe.endpoint = "http://127.0.0.1:1/subscribe"
channel.without_namespace.publish_proxy_enabled = true
channel.without_namespace.subscribe_proxy_enabled = true
"#;

fn said(data: &'static str) -> Answer {
    let grant = Grant { data: Some(Bytes::from_static(data.as_bytes())), ..Grant::default() };
    Answer::Said(Box::new(Said { grant, ..Said::default() }))
}

/// Three clients of which each waits for a backend.
fn asking() -> World {
    let (settings, runtime) = (settings_of(ASKING), runtime());
    let mut world = World::new(&settings, 2, &runtime);
    let asked = [
        r#"{"id":2,"rpc":{"method":"m","data":{}}}"#,
        r#"{"id":2,"publish":{"channel":"a","data":[1]}}"#,
        r#"{"id":2,"subscribe":{"channel":"b","recover":true,"offset":5,"epoch":"abcdefgh"}}"#,
    ];
    for (at, command) in asked.iter().enumerate() {
        world.join(Kind::Bidirectional);
        let token = token(&format!("user{at}"));
        world.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
        world.say(at, command, None);
        // It is not read while it waits.
        world.say(at, r#"{"id":3,"unsubscribe":{"channel":"b"}}"#, None);
        world.settle();
    }
    world
}

/// What a client heard last.
fn last(world: &World, at: usize) -> String {
    let told = world.clients[at].told();
    told[told.find("\"ping\"").unwrap()..].to_owned()
}

#[test]
fn answers_of_backends_find_the_clients_that_have_moved_and_are_used_once() {
    let mut world = asking().move_to(3).move_to(1);
    let common = Arc::clone(&world.front.common);
    assert_eq!(common.awaited.lock().len(), 3);
    let runtime = runtime();
    for at in 0..3 {
        let number = world.clients[at].number;
        // As it travels between the processes.
        let state = put_answer(number, 1, &said("{\"x\":1}"));
        let (number, ticket, answer) = arrival::take_answer(&state).unwrap();
        runtime.block_on(common.answered(number, ticket, answer));
        runtime.block_on(common.answered(number, ticket, Answer::Nothing));
        world.settle();
    }
    assert!(last(&world, 0).contains(r#"{"id":2,"rpc":{"data":{"x":1}}}"#), "{}", last(&world, 0));
    assert!(last(&world, 1).contains(r#"{"id":2,"publish":{}}"#), "{}", last(&world, 1));
    assert!(last(&world, 2).contains(r#"{"id":2,"subscribe":{"#), "{}", last(&world, 2));
    for at in 0..3 {
        assert!(last(&world, at).contains(r#"{"id":3,"unsubscribe":{}}"#), "{}", last(&world, at));
    }
    assert!(common.awaited.lock().is_empty());
    assert_eq!(common.allowance.used(), 0, "what the publish drew came back");
}

#[test]
fn answers_that_never_come_are_errors_that_are_temporary() {
    let mut world = asking().move_to(2);
    world.give_up_calls();
    world.settle();
    for at in 0..3 {
        let told = last(&world, at);
        let error =
            r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
        assert!(told.contains(error) && told.contains(r#"{"id":3,"#), "{told}");
    }
}

#[test]
fn a_half_received_message_keeps_its_deadline() {
    // Without pings, which nobody could answer in the middle of a frame.
    let mut settings = crate::config::Settings::clone(&settings());
    settings.client.ping_interval = std::time::Duration::ZERO;
    let (settings, runtime) = (Arc::new(settings), runtime());
    let mut world = World::new(&settings, 2, &runtime);
    world.join(Kind::Bidirectional);
    world.say(0, &format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")), None);
    world.settle();
    world.say_bytes(0, vec![0x81], None);
    world.settle();
    let patience = u32::try_from(settings.limits.incomplete_message_timeout.as_secs()).unwrap();
    world.pass(patience - 2);
    let mut world = world.move_to(2);
    world.settle();
    assert_eq!(world.crowd_size().0, 1);
    world.pass(4);
    assert_eq!(world.crowd_size().0, 0, "{}", world.clients[0].told());
}

#[test]
fn a_connection_that_is_upgraded_late_arrives() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = World::new(&settings, 2, &runtime);
    let connect = format!(r#"{{"token":"{}"}}"#, token("uni"));
    let open = Open {
        kind: Kind::Unidirectional,
        native_ping: true,
        user: Some("header".into()),
        connect: Some(connect.into()),
        address: ClientAddress { ip: "2001:db8::7".parse().unwrap(), told_by: ToldBy::Header },
        headers: Box::new([("cookie".parse().unwrap(), "s=1".parse().unwrap())]),
        session: None,
        no_cookie: Some(Box::new(NoCookie::new(Some("https://page"), "server"))),
        head: None,
    };
    let state =
        put_arrival((Bytes::from_static(b"HEAD"), Framing::WebSocket, None), Bytes::new(), open);
    let at = world.arrive(&state);
    world.settle();
    let told = world.clients[at].told();
    assert!(told.starts_with("HEAD") && told.contains("\"connect\":{\"client\""), "{told}");
}

#[test]
fn when_the_other_process_dies_those_whose_streams_stand_where_they_stood_are_taken_back() {
    let (settings, runtime) = (settings(), runtime());
    let mut world = World::new(&settings, 2, &runtime);
    for at in 0..4 {
        world.join(Kind::Bidirectional);
        let token = token(&format!("user{at}"));
        world.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
        world.say(at, r#"{"id":2,"subscribe":{"channel":"kept:one"}}"#, None);
        world.settle();
    }
    world.publish("kept:one", "1", None);
    world.settle();
    let (_, sockets) = world.freeze();
    assert_eq!(sockets.len(), 4);
    assert!(sockets.iter().all(|socket| socket.socket.as_raw_fd() > 0));
    let moved_on = world.clients[2].number;
    world.take_back(move |number| number != moved_on);
    drop(sockets);
    world.settle();
    assert_eq!(world.crowd_size().0, 3);
    for at in [0, 1, 3] {
        // Told to come back: it recovers under another epoch, and learns that it cannot.
        assert!(world.clients[at].told().contains("\"code\":2500"), "{}", world.clients[at].told());
        let epoch = world.clients[at].epoch().unwrap();
        let again = format!(
            r#"{{"id":3,"subscribe":{{"channel":"kept:one","recover":true,"offset":1,"epoch":"{epoch}"}}}}"#
        );
        world.say(at, &again, None);
        world.settle();
        let told = world.clients[at].told();
        assert!(
            told.contains("\"was_recovering\":true") && !told.contains("\"recovered\":true"),
            "{told}"
        );
    }
}
