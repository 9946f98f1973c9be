//! What a connected client may ask, in which order it is checked, and what it is answered.

use serde_json::json;

use super::bench::{Bench, START_UNIX_S, token};

const OPEN: &str = "[channel.without_namespace]\nallow_subscribe_for_client = true\n";

fn of(user: &str) -> String {
    token(&json!({"sub": user}))
}

fn subscribe(bench: &mut Bench, at: usize, rest: &str) -> String {
    let heard = bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{{rest}}}}}"#));
    heard.into_iter().next().unwrap_or_default()
}

fn error(code: u32, message: &str) -> String {
    format!(r#"{{"id":2,"error":{{"code":{code},"message":"{message}"}}}}"#)
}

#[test]
fn subscribe_is_checked_in_the_protocols_order() {
    let mut bench = Bench::new(
        "client.channel_limit = 2\nchannel.max_length = 10\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\n\
         [[channel.namespaces]]\nname = \"digits\"\nchannel_regex = \"^[0-9]+$\"\n\
         allow_subscribe_for_client = true",
    );
    let at = bench.connected(&of("ann"));
    let ask = |bench: &mut Bench, rest: &str| subscribe(bench, at, rest);
    assert_eq!(ask(&mut bench, r#""channel":"a""#), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(ask(&mut bench, r#""channel":"elevenbytes""#), error(107, "bad request"));
    assert_eq!(ask(&mut bench, r#""channel":"none:a""#), error(102, "unknown channel"));
    assert_eq!(ask(&mut bench, r#""channel":"none:*""#), error(102, "unknown channel"));
    assert_eq!(ask(&mut bench, r#""channel":"digits:x""#), error(107, "bad request"));
    assert_eq!(ask(&mut bench, r#""channel":"b*","type":1"#), error(107, "bad request"));
    assert_eq!(
        ask(&mut bench, r#""channel":"b","type":1,"tf":{}"#),
        error(103, "permission denied")
    );
    assert_eq!(ask(&mut bench, r#""channel":"b","tf":{}"#), error(107, "bad request"));
    assert_eq!(ask(&mut bench, r#""channel":"$b""#), error(103, "permission denied"));
    assert_eq!(ask(&mut bench, r#""channel":"digits:7""#), r#"{"id":2,"subscribe":{}}"#);
    // The limit is reached: longer names come before it, double ones too, all else behind it.
    assert_eq!(ask(&mut bench, r#""channel":"elevenbytes""#), error(107, "bad request"));
    assert_eq!(ask(&mut bench, r#""channel":"a""#), error(105, "already subscribed"));
    assert_eq!(ask(&mut bench, r#""channel":"none:a""#), error(106, "limit exceeded"));
    assert_eq!(bench.close_code(at), None);
    assert_eq!(ask(&mut bench, r#""channel":"""#), "");
    assert_eq!(bench.close_code(at), Some(3501));
    let log = bench.logged();
    for line in [
        "106 none:a: this client has 2 channels, which is client.channel_limit",
        "107 elevenbytes: 11 bytes, and channel.max_length is 10",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
}

#[test]
fn who_may_not_subscribe_is_told_so_and_the_log_names_the_option() {
    let mut bench = Bench::new("client.allow_anonymous_connect_without_token = true");
    let at = bench.connected(&of("ann"));
    assert_eq!(subscribe(&mut bench, at, r#""channel":"news""#), error(103, "permission denied"));
    let log = bench.logged();
    let line = "103 news: no subscription token, and allow_subscribe_for_client is off";
    assert!(log.contains(line), "{log}");
    let mut bench =
        Bench::new(&format!("client.allow_anonymous_connect_without_token = true\n{OPEN}"));
    let at = bench.connected("");
    assert_eq!(subscribe(&mut bench, at, r#""channel":"news""#), error(103, "permission denied"));
    assert!(bench.logged().contains("and allow_subscribe_for_anonymous is off"));
}

#[test]
fn everything_but_a_private_channel_is_open_in_insecure_mode() {
    let mut bench = Bench::new(
        "client.insecure = true\nchannel.without_namespace.allow_user_limited_channels = true",
    );
    let at = bench.connected("");
    assert_eq!(subscribe(&mut bench, at, r#""channel":"a#bob""#), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(subscribe(&mut bench, at, r#""channel":"$a""#), error(103, "permission denied"));
}

#[test]
fn a_channel_may_be_limited_to_the_users_that_its_name_lists() {
    let mut bench = Bench::new(&format!("{OPEN}allow_user_limited_channels = true"));
    let at = bench.connected(&of("ann"));
    assert_eq!(subscribe(&mut bench, at, r#""channel":"a#bob,ann""#), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(subscribe(&mut bench, at, r#""channel":"a#bob""#), error(103, "permission denied"));
}

#[test]
fn a_subscription_token_gives_the_right_and_its_own_options() {
    let mut bench = Bench::new("");
    let at = bench.connected(&of("ann"));
    let claims = json!({"sub": "ann", "channel": "$a", "exp": START_UNIX_S + 30,
        "data": {"n": 1}, "override": {"presence": {"value": true}}});
    let reply =
        subscribe(&mut bench, at, &format!(r#""channel":"$a","token":"{}""#, token(&claims)));
    assert_eq!(reply, r#"{"id":2,"subscribe":{"expires":true,"ttl":30,"data":{"n":1}}}"#);
    let session = bench.clients[at].session.as_ref().unwrap();
    let client = session.client().to_string();
    let bound = json!({"sub": "ann", "channel": "b", "client": client});
    let reply = subscribe(&mut bench, at, &format!(r#""channel":"b","token":"{}""#, token(&bound)));
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
}

#[test]
fn a_subscription_token_that_does_not_help_says_how() {
    let mut bench = Bench::new("");
    let at = bench.connected(&of("ann"));
    let mut ask = |claims: serde_json::Value| {
        subscribe(&mut bench, at, &format!(r#""channel":"a","token":"{}""#, token(&claims)))
    };
    let expired = json!({"sub": "ann", "channel": "a", "exp": START_UNIX_S - 1});
    assert_eq!(ask(expired), error(109, "token expired"));
    let over = json!({"sub": "ann", "channel": "a", "expire_at": START_UNIX_S - 1});
    assert_eq!(ask(over), error(110, "expired"));
    assert_eq!(ask(json!({"sub": "ann"})), error(103, "permission denied"));
    let reply = subscribe(&mut bench, at, r#""channel":"a","token":"x""#);
    assert_eq!(reply, error(103, "permission denied"));
    for claims in [
        json!({"sub": "ann", "channel": "b"}),
        json!({"sub": "bob", "channel": "a"}),
        json!({"sub": "ann", "channel": "a", "client": "someone"}),
    ] {
        let at = bench.connected(&of("ann"));
        let heard =
            subscribe(&mut bench, at, &format!(r#""channel":"a","token":"{}""#, token(&claims)));
        assert_eq!((heard.as_str(), bench.close_code(at)), ("", Some(3500)), "{claims}");
    }
}

#[test]
fn a_subscription_that_is_not_renewed_ends_with_2501_after_its_grace() {
    let mut bench =
        Bench::new("client.expired_sub_close_delay = \"5s\"\nclient.ping_interval = \"0s\"");
    let at = bench.connected(&of("ann"));
    let sub_token =
        |seconds: i64| token(&json!({"sub": "ann", "channel": "a", "exp": START_UNIX_S + seconds}));
    subscribe(&mut bench, at, &format!(r#""channel":"a","token":"{}""#, sub_token(10)));
    bench.pass(14);
    assert!(bench.heard(at).is_empty());
    let refresh =
        |token: &str| format!(r#"{{"id":2,"sub_refresh":{{"channel":"a","token":"{token}"}}}}"#);
    let heard = bench.ask(at, &refresh(&sub_token(20)));
    assert_eq!(heard, [r#"{"id":2,"sub_refresh":{"expires":true,"ttl":6}}"#]);
    bench.pass(10);
    assert!(bench.heard(at).is_empty());
    bench.pass(1);
    let push =
        r#"{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(bench.heard(at), [push]);
    assert_eq!((bench.close_code(at), bench.node.counts().subscriptions), (None, 0));
    assert!(bench.logged().contains("2501 a: not renewed within client.expired_sub_close_delay"));
    let heard = bench.ask(at, &refresh(&sub_token(99)));
    assert_eq!(heard, [error(103, "permission denied")]);
}

#[test]
fn sub_refresh_is_checked_in_the_protocols_order() {
    let mut bench = Bench::new(OPEN);
    let ask = |bench: &mut Bench, at: usize, channel: &str, token: &str| {
        let command =
            format!(r#"{{"id":2,"sub_refresh":{{"channel":"{channel}","token":"{token}"}}}}"#);
        bench.ask(at, &command).concat()
    };
    let fresh = |bench: &mut Bench| {
        let at = bench.connected(&of("ann"));
        subscribe(bench, at, r#""channel":"a""#);
        at
    };
    let at = fresh(&mut bench);
    assert_eq!(ask(&mut bench, at, "b", ""), error(103, "permission denied"));
    assert_eq!(ask(&mut bench, at, "a", ""), error(107, "bad request"));
    let expired = token(&json!({"sub": "ann", "channel": "a", "exp": START_UNIX_S - 1}));
    assert_eq!(ask(&mut bench, at, "a", &expired), error(109, "token expired"));
    let endless = token(&json!({"sub": "ann", "channel": "a"}));
    assert_eq!(ask(&mut bench, at, "a", &endless), r#"{"id":2,"sub_refresh":{}}"#);
    ask(&mut bench, at, "", "");
    assert_eq!(bench.close_code(at), Some(3501));
    let of_bob = token(&json!({"sub": "bob", "channel": "a"}));
    let of_another = token(&json!({"sub": "ann", "channel": "b"}));
    for bad in ["x", of("ann").as_str(), &of_bob, &of_another] {
        let at = fresh(&mut bench);
        assert_eq!(ask(&mut bench, at, "a", bad), "");
        assert_eq!(bench.close_code(at), Some(3500), "{bad}");
    }
}

#[test]
fn refresh_renews_the_connection_and_is_strict() {
    let mut bench = Bench::new("client.ping_interval = \"0s\"");
    let for_seconds = |seconds: i64| token(&json!({"sub": "ann", "exp": START_UNIX_S + seconds}));
    let refresh = |token: &str| format!(r#"{{"id":2,"refresh":{{"token":"{token}"}}}}"#);
    let at = bench.connected(&for_seconds(10));
    bench.pass(34);
    assert_eq!(bench.close_code(at), None);
    let heard = bench.ask(at, &refresh(&for_seconds(40)));
    let reply = r#"{"id":2,"refresh":{"client":"C0","version":"V","expires":true,"ttl":6}}"#;
    assert_eq!(heard, [reply]);
    let heard = bench.ask(at, &refresh(&of("ann")));
    assert_eq!(heard, [r#"{"id":2,"refresh":{"client":"C0","version":"V"}}"#]);
    bench.pass(100);
    assert_eq!(bench.close_code(at), None);
    let channels = token(&json!({"sub": "ann", "channels": ["a"]}));
    for (bad, code) in
        [("", 3501), ("x", 3500), (&of("bob"), 3500), (&for_seconds(1), 3005), (&channels, 3010)]
    {
        let at = bench.connected(&of("ann"));
        bench.say(at, &refresh(bad));
        assert_eq!(bench.close_code(at), Some(code), "{bad}");
    }
    let at = bench.connected(&channels);
    bench.say(at, &refresh(&token(&json!({"sub": "ann", "subs": {"a": {}}}))));
    assert_eq!(bench.close_code(at), None);
    bench.say(at, &refresh(&of("ann")));
    assert_eq!(bench.close_code(at), Some(3010));
}

#[test]
fn a_connection_that_is_not_renewed_is_closed_with_3005_after_its_grace() {
    let mut bench = Bench::new("client.ping_interval = \"0s\"");
    let at = bench.connected(&token(&json!({"sub": "ann", "exp": START_UNIX_S + 10})));
    bench.pass(34);
    assert_eq!(bench.close_code(at), None);
    bench.pass(1);
    assert_eq!(bench.close_code(at), Some(3005));
}

#[test]
fn publishing_is_checked_for_namespace_then_payload_then_right() {
    let mut bench = Bench::new(&format!(
        "{OPEN}allow_publish_for_subscriber = true\n\
         [[channel.namespaces]]\nname = \"json\"\npublication_data_format = \"json\"\n\
         allow_publish_for_client = true\n\
         [[channel.namespaces]]\nname = \"object\"\npublication_data_format = \"json_object\"\n\
         allow_publish_for_client = true",
    ));
    let at = bench.connected(&of("ann"));
    let publish = |bench: &mut Bench, channel: &str, data: &str| {
        let data = if data.is_empty() { String::new() } else { format!(r#","data":{data}"#) };
        bench.ask(at, &format!(r#"{{"id":2,"publish":{{"channel":"{channel}"{data}}}}}"#)).concat()
    };
    let done = r#"{"id":2,"publish":{}}"#;
    assert_eq!(publish(&mut bench, "none:a", ""), error(102, "unknown channel"));
    assert_eq!(publish(&mut bench, "a", ""), error(107, "bad request"));
    assert_eq!(publish(&mut bench, "a", "1"), error(103, "permission denied"));
    assert_eq!(publish(&mut bench, "json:a", "1"), done);
    assert_eq!(publish(&mut bench, "object:a", "1"), error(107, "bad request"));
    assert_eq!(publish(&mut bench, "object:a", r#"{"b":1}"#), done);
    subscribe(&mut bench, at, r#""channel":"a""#);
    let heard = publish(&mut bench, "a", r#"{"x": [1]}"#);
    let push =
        r#"{"push":{"channel":"a","pub":{"data":{"x": [1]},"info":{"user":"ann","client":"C0"}}}}"#;
    assert_eq!(heard, format!("{done}{push}"));
    publish(&mut bench, "", "1");
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn a_publishers_info_comes_from_its_token() {
    let mut bench = Bench::new("client.insecure = true");
    let at = bench.connected(&token(&json!({"sub": "ann", "info": {"name": "Ann"}})));
    subscribe(&mut bench, at, r#""channel":"a""#);
    let heard = bench.ask(at, r#"{"id":2,"publish":{"channel":"a","data":1}}"#);
    assert!(heard[1].contains(r#""info":{"user":"ann","client":"C0","conn_info":{"name":"Ann"}}"#));
}

#[test]
fn presence_needs_its_option_and_the_right() {
    let mut bench = Bench::new(
        "[[channel.namespaces]]\nname = \"off\"\nallow_presence_for_client = true\n\
         [[channel.namespaces]]\nname = \"on\"\npresence = true\nallow_presence_for_subscriber = true\n\
         allow_subscribe_for_client = true",
    );
    let at = bench.connected(&token(&json!({"sub": "ann", "info": {"n": 1}})));
    let ask = |bench: &mut Bench, what: &str, channel: &str| {
        bench.ask(at, &format!(r#"{{"id":2,"{what}":{{"channel":"{channel}"}}}}"#)).concat()
    };
    for what in ["presence", "presence_stats"] {
        assert_eq!(ask(&mut bench, what, "none:a"), error(102, "unknown channel"));
        assert_eq!(ask(&mut bench, what, "off:a"), error(108, "not available"));
        assert_eq!(ask(&mut bench, what, "on:a"), error(103, "permission denied"));
    }
    subscribe(&mut bench, at, r#""channel":"on:a""#);
    let presence = ask(&mut bench, "presence", "on:a");
    let info = r#"{"user":"ann","client":"C0","conn_info":{"n":1}}"#;
    assert_eq!(presence, format!(r#"{{"id":2,"presence":{{"presence":{{"C0":{info}}}}}}}"#));
    let stats = ask(&mut bench, "presence_stats", "on:a");
    assert_eq!(stats, r#"{"id":2,"presence_stats":{"num_clients":1,"num_users":1}}"#);
    ask(&mut bench, "unsubscribe", "on:a");
    bench.end(at);
    let at = bench.connected(&of("bob"));
    bench.say(at, r#"{"id":2,"presence":{"channel":""}}"#);
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn history_needs_its_option_and_the_right_and_is_bounded() {
    let mut bench = Bench::new(
        "client.history_max_publication_limit = 2\n\
         [channel.without_namespace]\nallow_history_for_client = true\n\
         [[channel.namespaces]]\nname = \"on\"\nhistory_size = 5\nhistory_ttl = \"1m\"\n\
         allow_history_for_client = true\n\
         [[channel.namespaces]]\nname = \"shut\"\nhistory_size = 5\nhistory_ttl = \"1m\"",
    );
    let at = bench.connected(&of("ann"));
    let ask = |bench: &mut Bench, rest: &str| {
        bench.ask(at, &format!(r#"{{"id":2,"history":{{{rest}}}}}"#)).concat()
    };
    assert_eq!(ask(&mut bench, r#""channel":"none:a""#), error(102, "unknown channel"));
    assert_eq!(ask(&mut bench, r#""channel":"a""#), error(108, "not available"));
    assert_eq!(ask(&mut bench, r#""channel":"shut:a""#), error(103, "permission denied"));
    for data in ["1", "2", "3"] {
        bench.publish("on:a", data);
    }
    let page = |list: &str| {
        format!(r#"{{"id":2,"history":{{"publications":[{list}],"epoch":"E","offset":3}}}}"#)
    };
    assert_eq!(ask(&mut bench, r#""channel":"on:a""#), page(""));
    let first_two = r#"{"data":1,"offset":1,"epoch":"E"},{"data":2,"offset":2}"#;
    assert_eq!(ask(&mut bench, r#""channel":"on:a","limit":-1"#), page(first_two));
    assert_eq!(ask(&mut bench, r#""channel":"on:a","limit":9"#), page(first_two));
    let last = r#"{"data":3,"offset":3}"#;
    assert_eq!(ask(&mut bench, r#""channel":"on:a","limit":1,"reverse":true"#), page(last));
    assert_eq!(ask(&mut bench, r#""channel":"on:a","limit":9,"since":{"offset":2}"#), page(last));
    assert_eq!(ask(&mut bench, r#""channel":"on:a","limit":9,"since":{"offset":3}"#), page(""));
    let foreign = r#""channel":"on:a","limit":9,"since":{"offset":1,"epoch":"zzzzzzzz"}"#;
    assert_eq!(ask(&mut bench, foreign), error(112, "unrecoverable position"));
    let nowhere = r#""channel":"on:a","limit":9,"reverse":true,"since":{"offset":0}"#;
    assert_eq!(ask(&mut bench, nowhere), error(107, "bad request"));
    ask(&mut bench, r#""channel":"""#);
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn remote_calls_have_nobody_behind_them_but_the_ping() {
    let mut bench = Bench::new("client.insecure = true");
    let at = bench.connected("");
    let rpc = |method: &str| format!(r#"{{"id":2,"rpc":{{"method":"{method}","data":{{}}}}}}"#);
    assert_eq!(bench.ask(at, &rpc("ping")), [error(108, "not available")]);
    let mut bench = Bench::new("client.insecure = true\nrpc.ping.enabled = true");
    let at = bench.connected("");
    assert_eq!(bench.ask(at, &rpc("ping")), [r#"{"id":2,"rpc":{"data":{}}}"#]);
    assert_eq!(bench.ask(at, &rpc("other")), [error(104, "method not found")]);
    bench.say(at, r#"{"send":{"data":{}}}"#);
    assert_eq!(bench.close_code(at), Some(3508));
}

#[test]
fn unsubscribe_is_always_done() {
    let mut bench = Bench::new(&format!(
        "{OPEN}presence = true\njoin_leave = true\nforce_push_join_leave = true"
    ));
    let (at, other) = (bench.connected(&of("ann")), bench.connected(&of("bob")));
    let done = r#"{"id":3,"unsubscribe":{}}"#;
    let unsubscribe = r#"{"id":3,"unsubscribe":{"channel":"a"}}"#;
    assert_eq!(bench.ask(at, unsubscribe), [done]);
    subscribe(&mut bench, other, r#""channel":"a""#);
    bench.heard(other);
    subscribe(&mut bench, at, r#""channel":"a""#);
    let join = r#"{"push":{"channel":"a","join":{"info":{"user":"ann","client":"C0"}}}}"#;
    assert_eq!(bench.heard(other), [join]);
    assert_eq!(bench.ask(at, unsubscribe), [done]);
    let leave = r#"{"push":{"channel":"a","leave":{"info":{"user":"ann","client":"C0"}}}}"#;
    assert_eq!(bench.heard(other), [leave]);
    assert_eq!(bench.node.counts().subscriptions, 1);
    bench.say(at, r#"{"id":3,"unsubscribe":{"channel":""}}"#);
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn joins_and_leaves_come_to_those_who_asked_and_may_see_presence() {
    let joins_of = |options: &str, wish: &str| {
        let mut bench = Bench::new(&format!("{OPEN}join_leave = true\n{options}"));
        let (at, other) = (bench.connected(&of("ann")), bench.connected(&of("bob")));
        subscribe(&mut bench, at, &format!(r#""channel":"a"{wish}"#));
        bench.heard(at);
        subscribe(&mut bench, other, r#""channel":"a""#);
        bench.heard(at).len()
    };
    let asked = r#","join_leave":true"#;
    assert_eq!(joins_of("", asked), 0);
    assert_eq!(joins_of("allow_presence_for_subscriber = true", asked), 1);
    assert_eq!(joins_of("allow_presence_for_subscriber = true", ""), 0);
    assert_eq!(joins_of("force_push_join_leave = true", ""), 1);
}

#[test]
fn a_command_that_is_not_known_closes_with_3501() {
    let mut bench = Bench::new("client.insecure = true");
    for command in [r#"{"id":2,"ping":{}}"#, r#"{"id":2,"dance":{}}"#, r#"{"id":2}"#, "null"] {
        let at = bench.connected("");
        bench.say(at, command);
        assert_eq!(bench.close_code(at), Some(3501), "{command}");
    }
}
