//! What the server API orders.

use serde_json::json;

use super::bench::{Bench, START_UNIX_S, token};
use crate::codes::Disconnect;
use crate::session::{Order, Target};
use crate::token::Grant;

const STREAM: &str = "[channel.without_namespace]\nallow_subscribe_for_client = true\n\
                      presence = true\nhistory_size = 5\nhistory_ttl = \"1m\"\n";

fn of_ann() -> String {
    token(&json!({"sub": "ann"}))
}

fn subscribe(channel: &str, recover_since: Option<u64>) -> Order {
    Order::Subscribe {
        channel: channel.into(),
        grant: Grant { data: Some(r#"{"n":1}"#.into()), ..Grant::default() },
        expire_at: None,
        recover_since: recover_since.map(|offset| (Box::default(), offset)),
    }
}

fn unsubscribe(channel: &str) -> Order {
    Order::Unsubscribe { channel: channel.into() }
}

const OFF: &str =
    r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;

#[test]
fn an_ordered_subscription_is_pushed_once_and_delivers() {
    let mut bench = Bench::new(STREAM);
    let at = bench.connected(&of_ann());
    bench.order(at, &subscribe("a", None));
    bench.order(at, &subscribe("a", None));
    assert_eq!(bench.heard(at), [r#"{"push":{"channel":"a","subscribe":{"data":{"n":1}}}}"#]);
    bench.publish("a", "1");
    assert_eq!(bench.heard(at).len(), 1);
    assert_eq!(bench.node.counts().subscriptions, 1);
    let heard = bench.ask(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    assert_eq!(heard, [r#"{"id":2,"error":{"code":105,"message":"already subscribed"}}"#]);
    bench.order(at, &subscribe("none:a", None));
    assert!(bench.heard(at).is_empty());
}

#[test]
fn what_an_ordered_subscription_recovers_follows_its_push() {
    let mut bench = Bench::new(&format!("{STREAM}force_recovery = true"));
    for data in ["1", "2", "3"] {
        bench.publish("a", data);
    }
    let at = bench.connected(&of_ann());
    bench.order(at, &subscribe("a", Some(1)));
    let heard = bench.heard(at);
    assert!(heard[0].contains(r#""offset":1,"positioned":true"#), "{heard:?}");
    assert_eq!(heard[1], r#"{"push":{"channel":"a","pub":{"data":2,"offset":2}}}"#);
    assert_eq!(heard[2], r#"{"push":{"channel":"a","pub":{"data":3,"offset":3}}}"#);
    assert_eq!(heard.len(), 3);
}

#[test]
fn an_ordered_subscription_that_expires_closes_with_3006() {
    let mut bench = Bench::new(&format!("client.ping_interval = \"0s\"\n{STREAM}"));
    let at = bench.connected(&of_ann());
    let (grant, channel) = (Grant::default(), "a".into());
    let expire_at = Some(START_UNIX_S + 10);
    bench.order(at, &Order::Subscribe { channel, grant, expire_at, recover_since: None });
    bench.pass(34);
    assert_eq!(bench.close_code(at), None);
    bench.pass(1);
    assert_eq!(bench.close_code(at), Some(3006));
    assert_eq!(bench.node.counts().subscriptions, 0);
}

#[test]
fn an_ordered_unsubscribe_ends_one_channel_or_all() {
    let mut bench = Bench::new(STREAM);
    let at = bench.connected(&of_ann());
    for channel in ["a", "b", "c"] {
        bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
    }
    bench.order(at, &unsubscribe("a"));
    assert_eq!(bench.heard(at), [OFF]);
    bench.order(at, &unsubscribe("a"));
    assert!(bench.heard(at).is_empty());
    bench.order(at, &unsubscribe(""));
    assert_eq!(bench.heard(at).len(), 2);
    assert_eq!(bench.node.counts().subscriptions, 0);
}

#[test]
fn an_unsubscribe_ends_what_is_not_answered_yet_as_soon_as_it_is() {
    let mut bench = Bench::new(STREAM);
    let (at, other) = (bench.connected(&of_ann()), bench.connected(&of_ann()));
    bench.by_hand = true;
    bench.say(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.order(other, &subscribe("a", None));
    bench.order(at, &unsubscribe("a"));
    bench.order(other, &unsubscribe(""));
    bench.by_hand = false;
    bench.pump();
    assert_eq!(bench.heard(at), [r#"{"id":2,"subscribe":{}}"#, OFF]);
    assert_eq!(bench.heard(other).last().map(String::as_str), Some(OFF));
    assert_eq!(bench.node.counts().subscriptions, 0);
    let stats = bench.ask(at, r#"{"id":3,"presence_stats":{"channel":"a"}}"#).concat();
    assert!(stats.contains("103"), "{stats}");
}

#[test]
fn a_command_while_the_order_is_under_way_is_told_of_it_and_harms_nothing() {
    let mut bench = Bench::new(&format!("client.insecure = true\n{STREAM}"));
    let at = bench.connected(&of_ann());
    bench.by_hand = true;
    bench.order(at, &subscribe("a", None));
    bench.say(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.by_hand = false;
    bench.pump();
    let heard = bench.heard(at);
    assert_eq!(heard[0], r#"{"id":2,"error":{"code":105,"message":"already subscribed"}}"#);
    assert_eq!(heard.len(), 2, "{heard:?}");
    let stats = bench.ask(at, r#"{"id":3,"presence_stats":{"channel":"a"}}"#);
    assert_eq!(stats, [r#"{"id":3,"presence_stats":{"num_clients":1,"num_users":1}}"#]);
}

#[test]
fn an_ordered_disconnect_has_the_code_that_was_asked_for() {
    let mut bench = Bench::new(STREAM);
    for (why, code) in [
        (Disconnect::FORCE_DISCONNECT, 3503),
        (Disconnect::custom(4001, "go away"), 4001),
        (Disconnect::CONNECTION_LIMIT, 3504),
    ] {
        let at = bench.connected(&of_ann());
        bench.ask(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        bench.order(at, &Order::Disconnect(why));
        assert_eq!(bench.close_code(at), Some(code));
    }
    assert_eq!(bench.node.counts().subscriptions, 0);
    assert!(bench.logged().contains("single_connection is on"));
}

#[test]
fn an_ordered_refresh_renews_ends_or_closes() {
    let mut bench = Bench::new(&format!("client.ping_interval = \"0s\"\n{STREAM}"));
    let at = bench.connected(&of_ann());
    let refresh =
        |expired, expire_at: Option<i64>| Order::Refresh { expired, expire_at, info: None };
    bench.order(at, &refresh(false, Some(START_UNIX_S + 10)));
    assert_eq!(bench.heard(at), [r#"{"push":{"refresh":{"expires":true,"ttl":10}}}"#]);
    bench.order(at, &refresh(false, None));
    assert_eq!(bench.heard(at), [r#"{"push":{"refresh":{}}}"#]);
    bench.pass(100);
    assert_eq!(bench.close_code(at), None);
    bench.order(at, &refresh(true, None));
    assert_eq!(bench.close_code(at), Some(3005));
}

#[test]
fn an_order_is_for_the_user_and_the_client_that_it_names() {
    let mut bench = Bench::new(STREAM);
    let at = bench.connected(&of_ann());
    let session = bench.clients[at].session.as_ref().unwrap();
    let (me, other) = (session.client(), uuid::Uuid::nil());
    let target = |user: &str| Target { user: user.into(), ..Target::default() };
    assert!(session.is_meant(&target("ann")) && !session.is_meant(&target("bob")));
    assert!(session.is_meant(&Target { client: Some(me), ..target("ann") }));
    assert!(!session.is_meant(&Target { client: Some(other), ..target("ann") }));
    assert!(!session.is_meant(&Target { session: Some(me), ..target("ann") }));
    assert!(!session.is_meant(&Target { spared: vec![other, me], ..target("ann") }));
}
