//! Answers that come late, out of order, or for nobody; and frames of many commands.

use serde_json::json;
use throng_hub::request::{Answer, HubError, ReplyTo};

use super::bench::{Bench, token};
use crate::session::Order;
use crate::token::Grant;

const OPEN: &str = "client.insecure = true\n[channel.without_namespace]\npresence = true\n";

#[test]
fn who_goes_before_the_answer_leaves_nothing_behind() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    bench.by_hand = true;
    bench.say(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.end(at);
    assert_eq!((bench.orphans.len(), bench.node.counts().subscriptions), (1, 1));
    bench.by_hand = false;
    bench.pump();
    assert_eq!((bench.orphans.len(), bench.node.counts().subscriptions), (0, 0));
    let at = bench.connected("");
    let stats = bench.ask(at, r#"{"id":3,"presence_stats":{"channel":"a"}}"#);
    assert_eq!(stats, [r#"{"id":3,"presence_stats":{"num_clients":0,"num_users":0}}"#]);
}

#[test]
fn who_goes_before_the_connect_reply_leaves_nothing_behind() {
    let mut bench = Bench::new(OPEN);
    let at = bench.open();
    bench.by_hand = true;
    let claims = token(&json!({"sub": "ann", "channels": ["a", "b"]}));
    bench.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{claims}"}}}}"#));
    bench.deliver(0);
    bench.end(at);
    assert_eq!(bench.orphans.len(), 1);
    bench.by_hand = false;
    bench.pump();
    assert_eq!((bench.orphans.len(), bench.node.counts().subscriptions), (0, 0));
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    let to = ReplyTo { mailbox: 0, slot: 0, number: 100, ticket: 77 };
    bench.answer(to, Answer::Presence(Ok(Vec::new())));
    assert!(bench.heard(at).is_empty());
    assert_eq!(bench.close_code(at), None);
}

#[test]
fn an_error_of_the_hub_answers_the_command() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    bench.by_hand = true;
    for (error, code) in [
        (HubError::Broker, r#""code":100,"message":"internal server error","temporary":true"#),
        (HubError::Overloaded, r#""code":111,"message":"too many requests","temporary":true"#),
    ] {
        bench.say(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        let (to, _) = bench.take_answer();
        let channel = "a".into();
        bench.answer(to, Answer::Subscribed { channel, result: Err(error) });
        assert_eq!(bench.heard(at), [format!(r#"{{"id":2,"error":{{{code}}}}}"#)]);
    }
}

#[test]
fn a_server_side_subscription_that_fails_closes_instead_of_being_passed_over() {
    let mut bench = Bench::new(OPEN);
    let at = bench.open();
    bench.by_hand = true;
    let claims = token(&json!({"sub": "ann", "channels": ["a"]}));
    bench.say(at, &format!(r#"{{"id":1,"connect":{{"token":"{claims}"}}}}"#));
    let (to, _) = bench.take_answer();
    let result = Err(HubError::Broker);
    bench.answer(to, Answer::Subscribed { channel: "a".into(), result });
    assert_eq!(bench.close_code(at), Some(3004));
    assert!(bench.logged().contains("3004 a: a server-side subscription failed"));
}

#[test]
fn answers_out_of_order_go_to_the_commands_that_asked() {
    let mut bench = Bench::new(OPEN);
    let (one, two) = (bench.connected(""), bench.connected(""));
    bench.by_hand = true;
    bench.say(one, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.say(two, r#"{"id":3,"presence_stats":{"channel":"b"}}"#);
    bench.deliver(1);
    bench.deliver(0);
    assert_eq!(bench.heard(one), [r#"{"id":2,"subscribe":{}}"#]);
    assert_eq!(bench.heard(two), [r#"{"id":3,"presence_stats":{"num_clients":0,"num_users":0}}"#]);
}

#[test]
fn a_frame_of_many_commands_keeps_their_order() {
    let mut bench = Bench::new(OPEN);
    let at = bench.open();
    let mut frame = vec![r#"{"id":1,"connect":{}}"#.to_owned()];
    for id in 2..60 {
        frame.push(match id % 4 {
            0 => format!(r#"{{"id":{id},"subscribe":{{"channel":"c{id}"}}}}"#),
            1 => format!(r#"{{"id":{id},"unsubscribe":{{"channel":"c{}"}}}}"#, id - 1),
            2 => format!(r#"{{"id":{id},"publish":{{"channel":"x","data":{id}}}}}"#),
            _ => format!(r#"{{"id":{id},"rpc":{{"method":"x"}}}}"#),
        });
    }
    frame.push(r#"{"id":60,"presence_stats":{"channel":"x"}}"#.to_owned());
    let heard = bench.ask(at, &frame.join("\n"));
    let ids: Vec<u64> = heard
        .iter()
        .map(|reply| {
            serde_json::from_str::<serde_json::Value>(reply).unwrap()["id"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(ids, (1..=60).collect::<Vec<u64>>());
    assert_eq!(bench.node.counts().subscriptions, 0);
    assert_eq!(bench.allowance.used(), 0, "nothing is kept of the frame");
}

#[test]
fn the_rest_of_a_frame_behind_a_wait_is_counted_and_not_lost() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    bench.by_hand = true;
    let rest = r#"{"id":3,"publish":{"channel":"a","data":1}}"#;
    bench.say(at, &format!("{}\n{rest}\n{{}}", r#"{"id":2,"subscribe":{"channel":"a"}}"#));
    assert_eq!(bench.allowance.used(), rest.len() + 3);
    bench.end(at);
    assert_eq!(bench.allowance.used(), 0);
}

#[test]
fn a_bad_command_ends_a_frame_after_what_came_before_it() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    let frame = "{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\nnonsense\n{\"id\":4,\"rpc\":{}}";
    assert_eq!(bench.ask(at, frame), [r#"{"id":2,"subscribe":{}}"#]);
    assert_eq!(bench.close_code(at), Some(3501));
    assert_eq!(bench.node.counts().subscriptions, 0);
}

#[test]
fn a_publisher_without_room_waits_and_goes_on_when_there_is_some() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    bench.ask(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let full = bench.allowance.hold(1 << 20);
    let publish = r#"{"id":3,"publish":{"channel":"a","data":[1,2]}}"#;
    assert!(bench.ask(at, &format!("{publish}\n{}", r#"{"id":4,"rpc":{}}"#)).is_empty());
    assert_eq!(bench.starved, [5]);
    bench.resume(at);
    assert_eq!(bench.starved, [5, 5]);
    drop(full);
    bench.resume(at);
    bench.pump();
    let heard = bench.heard(at);
    assert_eq!(heard[0], r#"{"id":3,"publish":{}}"#);
    assert_eq!(heard[1], r#"{"id":4,"error":{"code":108,"message":"not available"}}"#);
    assert!(heard[2].contains(r#""pub":{"data":[1,2]"#), "{heard:?}");
    assert_eq!(bench.allowance.used(), 0);
}

#[test]
fn what_is_ordered_for_a_waiting_publisher_does_not_mix_up_its_answers() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    let publishes =
        [3, 4, 5].map(|id| format!(r#"{{"id":{id},"publish":{{"channel":"a","data":1}}}}"#));
    let full = bench.allowance.hold(1 << 20);
    assert!(bench.ask(at, &publishes.join("\n")).is_empty());
    let (channel, grant) = ("b".into(), Grant::default());
    bench.order(at, &Order::Subscribe { channel, grant, expire_at: None, recover_since: None });
    assert_eq!(bench.starved, [1], "an answer to an order makes no room");
    drop(full);
    bench.by_hand = true;
    bench.resume(at);
    // Somebody else had its bytes back, too: it is resumed again while it waits for an answer.
    bench.resume(at);
    assert_eq!(bench.waiting_events(), 1, "one command at a time");
    bench.by_hand = false;
    bench.resume(at);
    bench.pump();
    let heard = bench.heard(at);
    assert_eq!(heard[1..], [3, 4, 5].map(|id| format!(r#"{{"id":{id},"publish":{{}}}}"#)));
}

#[test]
fn waiting_commands_are_what_a_session_holds() {
    let mut bench = Bench::new(OPEN);
    let at = bench.connected("");
    bench.by_hand = true;
    let rest = r#"{"id":4,"rpc":{}}"#;
    bench.say(at, &format!("{}\n{rest}", r#"{"id":3,"presence":{"channel":"a"}}"#));
    let held = |bench: &Bench| bench.clients[at].session.as_ref().unwrap().held_bytes();
    assert_eq!((held(&bench), bench.allowance.used()), (rest.len(), rest.len()));
    bench.by_hand = false;
    bench.pump();
    assert_eq!((held(&bench), bench.allowance.used()), (0, 0));
}

#[test]
fn no_input_makes_a_session_panic() {
    use proptest::prelude::*;
    let word = prop::sample::select(vec![
        "{",
        "}",
        "\"id\":1",
        ",",
        ":",
        "\"connect\"",
        "\"subscribe\"",
        "\"channel\"",
        "\"a\"",
        "\"publish\"",
        "\"data\"",
        "\n",
        "[",
        "]",
        "null",
        "1e999",
        "-1",
        "\"\\ud800\"",
        "\"offset\"",
        "18446744073709551615",
        "\"recover\":true",
        "\"history\"",
        "\"limit\":-2147483648",
        "{}",
        "\"unsubscribe\"",
        "\"refresh\"",
        "\"token\"",
        "\"sub_refresh\"",
        "\"send\"",
        "\"rpc\"",
    ]);
    let frame = prop::collection::vec(word, 0..14).prop_map(|words| words.concat());
    let valid = (0_u32..4, prop::sample::select(vec![
        r#""subscribe":{"channel":"a","recover":true,"offset":18446744073709551615,"recoverable":true}"#,
        r#""subscribe":{"channel":"$a"}"#, r#""subscribe":{"channel":"a#"}"#,
        r#""unsubscribe":{"channel":"a"}"#, r#""publish":{"channel":"a","data":{}}"#,
        r#""history":{"channel":"a","limit":-5,"since":{"offset":18446744073709551615}}"#,
        r#""history":{"channel":"a","limit":5,"reverse":true,"since":{"offset":18446744073709551615}}"#,
        r#""presence":{"channel":"a"}"#, r#""refresh":{"token":"a.b.c"}"#,
        r#""sub_refresh":{"channel":"a","token":"..."}"#, r#""rpc":{"method":"x"}"#,
    ])).prop_map(|(id, rest)| format!("{{\"id\":{id},{rest}}}"));
    let frames = prop::collection::vec(prop_oneof![frame, valid], 1..12);
    proptest!(ProptestConfig::with_cases(300), |(frames in frames)| {
        let mut bench = Bench::new(&format!("{OPEN}history_size = 3\nhistory_ttl = \"1m\""));
        let at = bench.connected("");
        for frame in &frames {
            bench.ask(at, frame);
        }
        bench.end(at);
        bench.pump();
        prop_assert_eq!(bench.node.counts().subscriptions, 0);
        prop_assert_eq!(bench.allowance.used(), 0);
    });
}
