//! What is counted of what sessions do.

use std::collections::BTreeMap;

use super::bench::{Bench, token};
use crate::control::Transport;
use crate::metrics::{Frame, Of};
use crate::session::Order;

const OPTIONS: &str = "client.insecure = true\nclient.ping_interval = \"10s\"\n\
                       client.pong_timeout = \"4s\"\n[channel.without_namespace]\n\
                       history_size = 5\nhistory_ttl = \"1m\"\nforce_recovery = true\n";

/// Codes of what happened, by what they were of and by method.
fn rare(bench: &Bench, of: Of) -> BTreeMap<(u8, u32), u64> {
    let all = bench.meter.rare_counts().into_iter();
    all.filter(|(key, _)| key.of == of).map(|(key, count)| ((key.label, key.code), count)).collect()
}

#[test]
fn each_command_is_counted_once_with_its_reply() {
    let mut bench = Bench::new(OPTIONS);
    let at = bench.connected("");
    bench.ask(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let two = "{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":1}}\n{\"id\":4,\"rpc\":{\"method\":\"x\"}}";
    bench.ask(at, two);
    let meter = &bench.meter;
    for frame in [Frame::Connect, Frame::Subscribe, Frame::Publish, Frame::Rpc] {
        assert_eq!(meter.received_messages(Transport::Websocket, frame), 1, "{frame:?}");
        assert_eq!(meter.sent_messages(Transport::Websocket, frame), 1, "{frame:?}");
        assert_eq!(meter.handled_commands(frame), 1, "{frame:?}");
    }
    assert_eq!(meter.handled_commands(Frame::Unknown), 0);
    assert_eq!(rare(&bench, Of::ReplyError), BTreeMap::from([((Frame::Rpc as u8, 108), 1)]));
}

#[test]
fn an_error_of_the_node_or_of_a_backend_is_one_of_its_command() {
    let mut bench = Bench::new(&format!(
        "{OPTIONS}[rpc.proxy]\nendpoint = \"http://app/rpc\"\n[rpc.without_namespace]\nproxy_enabled = true\n"
    ));
    let at = bench.connected("");
    bench.say(at, r#"{"id":2,"rpc":{"method":"x"}}"#);
    assert_eq!(bench.meter.handled_commands(Frame::Rpc), 0, "it waits");
    bench.pass(1);
    bench.backend_says(r#"{"error":{"code":777,"message":"no"}}"#);
    assert_eq!(bench.meter.handled_commands(Frame::Rpc), 1);
    assert_eq!(bench.meter.slow_commands(Frame::Rpc), 1, "it took a second");
    bench.ask(at, r#"{"id":3,"history":{"channel":"a","since":{"offset":9,"epoch":"zzzzzzzz"}}}"#);
    let errors = rare(&bench, Of::ReplyError);
    let wanted = [((Frame::History as u8, 112), 1), ((Frame::Rpc as u8, 777), 1)];
    assert_eq!(errors, BTreeMap::from(wanted));
}

#[test]
fn recoveries_are_told_apart() {
    let mut bench = Bench::new(OPTIONS);
    let first = bench.connected("");
    bench.ask(first, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.publish("a", "1");
    bench.publish("a", "2");
    let epoch = bench.epoch(first, "a");
    for (epoch, offset) in [(&*epoch, 0), (&epoch, 2), ("zzzzzzzz", 1)] {
        let at = bench.connected("");
        bench.ask(
            at,
            &format!(r#"{{"id":2,"subscribe":{{"channel":"a","recover":true,"epoch":"{epoch}","offset":{offset}}}}}"#),
        );
    }
    // Recovered with and without publications, and not.
    assert_eq!(bench.meter.recovery_counts(), [[1, 0], [1, 1]]);
    assert_eq!(bench.meter.subscribed.get(), 4);
}

#[test]
fn a_pong_is_measured_from_the_second_of_its_ping() {
    let mut bench = Bench::new(OPTIONS);
    let at = bench.connected("");
    bench.heard(at);
    let mut pinged = 0;
    while bench.heard(at).is_empty() {
        bench.pass(1);
        pinged += 1;
        assert!(pinged < 20, "no ping");
    }
    bench.pass(2);
    bench.ask(at, "{}");
    assert_eq!(bench.meter.pongs(Transport::Websocket), (1, 2_000_000));
    let sent = bench.meter.sent_messages(Transport::Websocket, Frame::ServerPing);
    let received = bench.meter.received_messages(Transport::Websocket, Frame::ClientPong);
    assert_eq!((sent, received), (1, 1));
}

#[test]
fn what_the_server_ends_is_counted_by_code() {
    let mut bench = Bench::new(&format!("{OPTIONS}allow_subscribe_for_client = true\n"));
    let at = bench.connected(&token(&serde_json::json!({"sub": "ann"})));
    bench.ask(at, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.order(at, &Order::Unsubscribe { channel: "a".into() });
    assert_eq!(rare(&bench, Of::Unsubscribe), BTreeMap::from([((0, 2000), 1)]));
    assert_eq!(bench.meter.sent_messages(Transport::Websocket, Frame::PushUnsubscribe), 1);
}
