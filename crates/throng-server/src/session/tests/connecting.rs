//! Who is let in, what the connect reply says, and how the time goes on from there.

use serde_json::json;

use super::bench::{Bench, NEAR, START_UNIX_S, token};
use crate::session::{Kind, Open};
use crate::shard::{Message, NEVER};
use uuid::Uuid;

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;
const CONNECTED: &str = r#"{"id":1,"connect":{"client":"C0","version":"V","ping":25,"pong":true}}"#;

fn connect_with(bench: &mut Bench, token: &str) -> (usize, Vec<String>) {
    let at = bench.open();
    let heard = bench.ask(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    (at, heard)
}

fn open(kind: Kind) -> Open {
    Open {
        kind,
        native_ping: false,
        user: None,
        session: (kind == Kind::Unidirectional).then(|| Uuid::from_u128(7)),
        connect: None,
        address: NEAR,
        headers: Box::default(),
        no_cookie: None,
        head: None,
    }
}

#[test]
fn a_good_token_connects_its_user_and_says_when_it_ends() {
    let mut bench = Bench::new("");
    let (at, heard) =
        connect_with(&mut bench, &token(&json!({"sub": "ann", "exp": START_UNIX_S + 60})));
    let reply = r#"{"id":1,"connect":{"client":"C0","version":"V","expires":true,"ttl":60,"ping":25,"pong":true}}"#;
    assert_eq!(heard, [reply]);
    assert_eq!(&**bench.clients[at].session.as_ref().unwrap().user(), "ann");
    assert_eq!(bench.identified, 1);
}

#[test]
fn an_expired_token_is_an_error_and_the_session_is_of_no_use_then() {
    let mut bench = Bench::new("");
    let expired = token(&json!({"sub": "ann", "exp": START_UNIX_S - 1}));
    let (at, heard) = connect_with(&mut bench, &expired);
    assert_eq!(heard, [r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#]);
    assert_eq!(bench.close_code(at), None);
    bench.say(at, CONNECT);
    assert_eq!(bench.close_code(at), Some(3501));
    let (at, _) = connect_with(&mut bench, &expired);
    bench.pass(9);
    assert_eq!(bench.close_code(at), None);
    bench.pass(1);
    assert_eq!(bench.close_code(at), Some(3502));
    let over = token(&json!({"sub": "ann", "expire_at": START_UNIX_S}));
    let (_, heard) = connect_with(&mut bench, &over);
    assert_eq!(heard, [r#"{"id":1,"error":{"code":110,"message":"expired"}}"#]);
}

#[test]
fn a_token_that_is_not_to_be_believed_closes_with_3500() {
    let mut bench = Bench::new("");
    let mut forged = token(&json!({"sub": "ann"}));
    forged.pop();
    let of_a_channel = token(&json!({"sub": "ann", "channel": "news"}));
    for bad in [forged.as_str(), "nonsense", "a.b.c", &of_a_channel] {
        let (at, heard) = connect_with(&mut bench, bad);
        assert_eq!((heard.len(), bench.close_code(at)), (0, Some(3500)), "{bad}");
    }
    let log = bench.logged();
    assert!(log.contains("3500 the connection token is invalid"), "{log}");
    assert!(!log.contains(&forged) && !log.contains(&of_a_channel), "{log}");
}

#[test]
fn without_a_token_only_where_the_configuration_says_so() {
    let mut bench = Bench::new("");
    let at = bench.open();
    assert!(bench.ask(at, CONNECT).is_empty());
    assert_eq!(bench.close_code(at), Some(3501));
    assert!(bench.logged().contains("client.allow_anonymous_connect_without_token is off"));
    for option in ["client.allow_anonymous_connect_without_token", "client.insecure"] {
        let mut bench = Bench::new(&format!("{option} = true"));
        let at = bench.open();
        assert_eq!(bench.ask(at, CONNECT), [CONNECTED], "{option}");
    }
}

#[test]
fn anonymous_tokens_are_disallowed_by_their_option() {
    let anonymous = token(&json!({"sub": ""}));
    let mut bench = Bench::new("");
    assert_eq!(connect_with(&mut bench, &anonymous).1, [CONNECTED]);
    let mut bench = Bench::new("client.disallow_anonymous_connection_tokens = true");
    let (at, _) = connect_with(&mut bench, &anonymous);
    assert_eq!(bench.close_code(at), Some(3507));
}

#[test]
fn a_token_comes_before_the_header_and_the_header_before_anonymity() {
    let mut bench = Bench::new(
        "client.user_id_http_header = \"X-User\"\nclient.allow_anonymous_connect_without_token = true",
    );
    let with = |user: Option<&str>| Open { user: user.map(Box::from), ..open(Kind::Bidirectional) };
    let user = |bench: &mut Bench, header: Option<&str>, token: &str| {
        let at = bench.open_with(with(header));
        bench.ask(at, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        bench.clients[at].session.as_ref().map(|session| session.user().to_string())
    };
    let of_ann = token(&json!({"sub": "ann"}));
    assert_eq!(user(&mut bench, Some("bob"), &of_ann).as_deref(), Some("ann"));
    assert_eq!(user(&mut bench, Some("bob"), "").as_deref(), Some("bob"));
    assert_eq!(user(&mut bench, Some(""), "").as_deref(), Some(""));
    assert_eq!(user(&mut bench, None, "").as_deref(), Some(""));
    assert_eq!(user(&mut bench, Some("bob"), "x"), None);
}

#[test]
fn in_insecure_mode_a_token_is_verified_and_does_not_expire() {
    let mut bench = Bench::new("client.insecure = true");
    let (_, heard) =
        connect_with(&mut bench, &token(&json!({"sub": "ann", "exp": START_UNIX_S + 60})));
    assert_eq!(heard, [CONNECTED]);
    let (at, _) = connect_with(&mut bench, "x.y.z");
    assert_eq!(bench.close_code(at), Some(3500));
}

#[test]
fn connect_comes_first_and_once() {
    let mut bench = Bench::new("client.insecure = true");
    for first in [
        r#"{"id":1,"subscribe":{"channel":"news"}}"#,
        r#"{"send":{"data":{}}}"#,
        r#"{"connect":{}}"#,
        r#"{"id":1,"ping":{}}"#,
        "{}",
        "",
        "[]",
        "{",
        "{}\n{}",
    ] {
        let at = bench.open();
        assert!(bench.ask(at, first).is_empty(), "{first}");
        assert_eq!(bench.close_code(at), Some(3501), "{first}");
    }
    let at = bench.connected("");
    bench.say(at, r#"{"id":2,"connect":{}}"#);
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn what_cannot_be_read_is_logged_without_what_may_be_a_token() {
    let mut bench = Bench::new("");
    for command in [
        r#"{"id":1,"connect":"SECRET"}"#,
        r#"{"id":"SECRET"}"#,
        r#"{"id":1,"connect":{"subs":"SECRET"}}"#,
    ] {
        let at = bench.open();
        bench.say(at, command);
        assert_eq!(bench.close_code(at), Some(3501), "{command}");
    }
    let uni = Open { connect: Some("\"SECRET\"".into()), ..open(Kind::Unidirectional) };
    let at = bench.open_with(uni);
    assert_eq!(bench.close_code(at), Some(3501));
    let log = bench.logged();
    assert!(log.contains("3501 a command is not readable") && !log.contains("SECRET"), "{log}");
}

#[test]
fn who_says_nothing_is_stale() {
    let mut bench = Bench::new("client.stale_close_delay = \"3s\"");
    let at = bench.open();
    bench.pass(2);
    assert_eq!(bench.close_code(at), None);
    bench.pass(1);
    assert_eq!(bench.close_code(at), Some(3502));
}

#[test]
fn the_first_ping_comes_in_the_second_half_of_the_interval() {
    let mut bench = Bench::new("client.insecure = true");
    let crowd: Vec<usize> = (0..200).map(|_| bench.connected("")).collect();
    let mut pinged = vec![None; crowd.len()];
    for second in 1..=25 {
        bench.pass(1);
        for &at in &crowd {
            if bench.heard(at) == ["{}"] {
                assert_eq!(pinged[at].replace(second), None);
                bench.say(at, "{}");
            }
        }
    }
    let seconds: std::collections::BTreeSet<_> = pinged.iter().copied().collect();
    assert_eq!(seconds.first(), Some(&Some(13)));
    assert_eq!(seconds.last(), Some(&Some(24)));
    assert_eq!(seconds.len(), 12, "{seconds:?}");
}

#[test]
fn who_answers_each_ping_stays_and_who_does_not_is_closed_with_3012() {
    let mut bench = Bench::new("client.insecure = true");
    let (loyal, silent) = (bench.connected(""), bench.connected(""));
    let mut last_ping = [0; 2];
    let mut pings = 0;
    for second in 1..=300 {
        bench.pass(1);
        if bench.heard(loyal) == ["{}"] {
            assert!(pings == 0 || second - last_ping[0] == 25, "{second}");
            (last_ping[0], pings) = (second, pings + 1);
            bench.say(loyal, "{}");
        }
        if bench.heard(silent) == ["{}"] {
            last_ping[1] = second;
        }
        if second == last_ping[1] + 7 {
            assert_eq!(bench.close_code(silent), None);
        } else if last_ping[1] > 0 && second >= last_ping[1] + 8 {
            assert_eq!(bench.close_code(silent), Some(3012));
        }
    }
    assert!((11..=12).contains(&pings), "{pings}");
    assert_eq!(bench.close_code(loyal), None);
}

#[test]
fn a_pong_to_nothing_closes_with_3501_but_one_of_websocket_does_not_count() {
    let mut bench = Bench::new("client.insecure = true");
    let (early, framed) = (bench.connected(""), bench.connected(""));
    bench.say(early, "{}");
    assert_eq!(bench.close_code(early), Some(3501));
    bench.message(framed, Message::Pong(b""));
    while bench.heard(framed).is_empty() {
        bench.pass(1);
    }
    bench.message(framed, Message::Pong(b""));
    bench.message(framed, Message::Ping);
    bench.say(framed, "{}");
    assert_eq!(bench.close_code(framed), None);
}

#[test]
fn pings_of_websocket_take_the_place_of_the_protocols_where_asked_for() {
    let mut bench = Bench::new("client.insecure = true");
    let at = bench.open_with(Open { native_ping: true, ..open(Kind::Bidirectional) });
    assert_eq!(bench.ask(at, CONNECT), [r#"{"id":1,"connect":{"client":"C0","version":"V"}}"#]);
    let mut heard = Vec::new();
    while heard.is_empty() {
        bench.pass(1);
        heard = bench.heard(at);
    }
    assert_eq!(heard, ["Ping"]);
    bench.message(at, Message::Pong(b""));
    bench.pass(9);
    assert_eq!(bench.close_code(at), None);
    bench.pass(40);
    assert_eq!(bench.close_code(at), Some(3012));
}

#[test]
fn no_interval_means_no_pings() {
    let mut bench = Bench::new("client.insecure = true\nclient.ping_interval = \"0s\"");
    let at = bench.open();
    assert_eq!(bench.ask(at, CONNECT), [r#"{"id":1,"connect":{"client":"C0","version":"V"}}"#]);
    assert_eq!(bench.clients[at].wake_s, NEVER);
}

#[test]
fn the_users_limit_of_connections_closes_with_3504() {
    let mut bench = Bench::new(
        "client.user_connection_limit = 2\nclient.allow_anonymous_connect_without_token = true",
    );
    bench.users.insert("ann".to_owned(), 2);
    bench.users.insert("bob".to_owned(), 1);
    bench.users.insert(String::new(), 9);
    let (at, _) = connect_with(&mut bench, &token(&json!({"sub": "ann"})));
    assert_eq!(bench.close_code(at), Some(3504));
    bench.connected(&token(&json!({"sub": "bob"})));
    bench.connected("");
    assert!(bench.logged().contains("client.user_connection_limit"));
}

#[test]
fn the_servers_subscriptions_come_in_the_connect_reply_and_before_their_publications() {
    let mut bench = Bench::new("channel.without_namespace.presence = true");
    bench.by_hand = true;
    let claims = json!({"sub": "ann", "channels": ["a"], "subs": {"b": {"data": {"n": 1}}}});
    let (at, heard) = connect_with(&mut bench, &token(&claims));
    assert!(heard.is_empty());
    // The answer for `a` is there, and a publication is delivered, before the answer for `b`.
    bench.publish("a", r#""first""#);
    assert_eq!(bench.waiting_events(), 3);
    bench.deliver(1);
    bench.deliver(1);
    bench.fan_out();
    assert!(bench.heard(at).is_empty(), "nothing overtakes the connect reply");
    bench.deliver(0);
    let heard = bench.heard(at);
    assert_eq!(heard.len(), 2, "{heard:?}");
    let reply: serde_json::Value = serde_json::from_str(&heard[0]).unwrap();
    assert_eq!(reply["connect"]["subs"], json!({"a": {}, "b": {"data": {"n": 1}}}));
    assert_eq!(heard[1], r#"{"push":{"channel":"a","pub":{"data":"first"}}}"#);
    bench.by_hand = false;
    bench.end(at);
    assert_eq!(bench.node.counts().subscriptions, 0);
}

#[test]
fn more_server_side_subscriptions_than_the_limit_close_with_3505() {
    let mut bench = Bench::new("client.channel_limit = 2");
    let (at, _) =
        connect_with(&mut bench, &token(&json!({"sub": "ann", "channels": ["a", "b", "c"]})));
    assert_eq!(bench.close_code(at), Some(3505));
    assert_eq!(bench.node.counts().subscriptions, 0);
    let (at, _) = connect_with(&mut bench, &token(&json!({"sub": "ann", "channels": ["no:a"]})));
    assert_eq!(bench.close_code(at), Some(3501));
    let log = bench.logged();
    assert!(
        log.contains("client.channel_limit is 2") && log.contains("channel.namespaces"),
        "{log}"
    );
}

#[test]
fn the_personal_channel_comes_by_itself_and_may_be_for_one_connection_only() {
    let mut bench = Bench::new(
        "client.allow_anonymous_connect_without_token = true\n\
         client.subscribe_to_user_personal_channel.enabled = true\n\
         client.subscribe_to_user_personal_channel.single_connection = true",
    );
    let (_, heard) = connect_with(&mut bench, &token(&json!({"sub": "ann"})));
    assert!(heard[0].contains("\"subs\":{\"#ann\":{}}"), "{heard:?}");
    assert_eq!(bench.displaced, 1);
    let (_, heard) = connect_with(&mut bench, "");
    assert!(!heard[0].contains("subs"));
    assert_eq!(bench.displaced, 1);
}

#[test]
fn the_time_is_in_the_reply_where_the_option_is_on() {
    let mut bench = Bench::new("client.insecure = true\nclient.connect_include_server_time = true");
    let at = bench.open();
    let heard = bench.ask(at, CONNECT);
    assert!(heard[0].contains(&format!("\"time\":{}", START_UNIX_S * 1000)), "{heard:?}");
}

#[test]
fn a_unidirectional_client_hears_bare_pushes_and_is_pinged_without_an_answer() {
    let mut bench = Bench::new("client.insecure = true");
    let at = bench.open_with(open(Kind::Unidirectional));
    let heard = bench.ask(at, r#"{"subs":{"news":{}}}"#);
    let reply: serde_json::Value = serde_json::from_str(&heard[0]).unwrap();
    let connect = &reply["connect"];
    assert_eq!((&connect["client"], &connect["ping"]), (&json!("C0"), &json!(25)));
    assert_eq!(connect["subs"], json!({"news": {}}));
    assert!(connect.get("pong").is_none() && connect["session"].is_string(), "{connect}");
    bench.publish("news", "1");
    assert_eq!(bench.heard(at), [r#"{"channel":"news","pub":{"data":1}}"#]);
    assert!(bench.ask(at, "whatever it says now").is_empty());
    bench.pass(24);
    assert_eq!(bench.heard(at), ["{}"]);
    bench.pass(100);
    assert_eq!(bench.close_code(at), None);
}

#[test]
fn a_unidirectional_client_may_connect_in_its_address() {
    let mut bench = Bench::new("client.insecure = true");
    let connect = Some("{}".into());
    let at = bench.open_with(Open { connect, ..open(Kind::Unidirectional) });
    assert!(bench.heard(at)[0].starts_with(r#"{"connect":{"client":"C0""#));
}

#[test]
fn a_unidirectional_clients_wishes_that_are_not_its_to_have_are_skipped() {
    let mut bench = Bench::new(
        "[channel.without_namespace]\nallow_subscribe_for_client = true\n\
         [[channel.namespaces]]\nname = \"closed\"",
    );
    let of_ann = token(&json!({"sub": "ann"}));
    let at = bench.open_with(open(Kind::Unidirectional));
    let subs = r#""subs":{"closed:a":{},"news":{},"$secret":{}}"#;
    let heard = bench.ask(at, &format!(r#"{{"token":"{of_ann}",{subs}}}"#));
    assert!(heard[0].contains(r#""subs":{"news":{}}"#), "{heard:?}");
    let at = bench.open_with(open(Kind::Unidirectional));
    bench.say(at, &format!(r#"{{"token":"{of_ann}","subs":{{"none:a":{{}}}}}}"#));
    assert_eq!(bench.close_code(at), Some(3501));
    assert!(bench.logged().contains("103 closed:a: no subscription token, and allow_subscribe"));
}

#[test]
fn errors_of_a_unidirectional_connect_are_closes() {
    let mut bench = Bench::new("");
    let code = |bench: &mut Bench, claims: serde_json::Value| {
        let at = bench.open_with(open(Kind::Unidirectional));
        bench.say(at, &format!(r#"{{"token":"{}"}}"#, token(&claims)));
        bench.close_code(at)
    };
    let (past, future) = (START_UNIX_S - 1, START_UNIX_S + 9);
    assert_eq!(code(&mut bench, json!({"sub": "ann", "exp": past})), Some(3005));
    assert_eq!(code(&mut bench, json!({"sub": "ann", "expire_at": past})), Some(3005));
    assert_eq!(code(&mut bench, json!({"sub": "ann", "exp": "x"})), Some(3500));
    assert_eq!(code(&mut bench, json!({"sub": "ann", "exp": future})), None);
    let at = bench.open_with(open(Kind::Unidirectional));
    bench.say(at, r#"{"id":1,"connect":{}}{}"#);
    assert_eq!(bench.close_code(at), Some(3501));
    let at = bench.open_with(open(Kind::Unidirectional));
    bench.pass(10);
    assert_eq!(bench.close_code(at), Some(3502));
}
