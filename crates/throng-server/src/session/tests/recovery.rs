//! Positions, and coming back to where one was.

use super::bench::Bench;

fn bench(options: &str) -> Bench {
    Bench::new(&format!(
        "client.insecure = true\nclient.recovery_max_publication_limit = 3\n\
         [channel.without_namespace]\nhistory_size = 5\nhistory_ttl = \"1m\"\n{options}"
    ))
}

fn subscribe(bench: &mut Bench, at: usize, rest: &str) -> Vec<String> {
    bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{"channel":"a"{rest}}}}}"#))
}

fn recover(bench: &mut Bench, epoch: &str, offset: u64, more: &str) -> String {
    let at = bench.connected("");
    let rest =
        format!(r#","recover":true,"recoverable":true,"epoch":"{epoch}","offset":{offset}{more}"#);
    subscribe(bench, at, &rest).concat()
}

#[test]
fn a_position_is_told_where_it_is_followed() {
    let told = |options: &str, wish: &str| {
        let mut bench = bench(options);
        bench.settings.client.insecure = false;
        bench.settings.client.allow_anonymous_connect_without_token = true;
        let at = bench.connected("");
        subscribe(&mut bench, at, wish).concat()
    };
    let open = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";
    let with = |option: &str| format!("{open}{option} = true");
    let positioned = r#"{"id":2,"subscribe":{"epoch":"E","positioned":true}}"#;
    let recoverable = r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"E","positioned":true}}"#;
    let nothing = r#"{"id":2,"subscribe":{}}"#;
    assert_eq!(told(open, r#","positioned":true,"recoverable":true"#), nothing);
    assert_eq!(told(&with("force_positioning"), ""), positioned);
    assert_eq!(told(&with("allow_positioning"), ""), nothing);
    assert_eq!(told(&with("allow_positioning"), r#","positioned":true"#), positioned);
    assert_eq!(told(&with("force_recovery"), ""), recoverable);
    assert_eq!(told(&with("allow_recovery"), r#","recoverable":true"#), recoverable);
    let history =
        format!("{}\nallow_history_for_anonymous = true", with("allow_history_for_subscriber"));
    assert_eq!(told(&history, r#","recoverable":true"#), recoverable);
}

#[test]
fn the_first_publication_of_a_stream_tells_its_epoch() {
    let mut bench = bench("force_recovery = true");
    let at = bench.connected("");
    subscribe(&mut bench, at, "");
    bench.publish("a", "1");
    bench.publish("a", "2");
    let heard = bench.heard(at);
    assert_eq!(heard[0], r#"{"push":{"channel":"a","pub":{"data":1,"offset":1,"epoch":"E"}}}"#);
    assert_eq!(heard[1], r#"{"push":{"channel":"a","pub":{"data":2,"offset":2}}}"#);
}

#[test]
fn what_was_missed_comes_with_the_reply() {
    let mut bench = bench("");
    for data in ["1", "2", "3"] {
        bench.publish("a", data);
    }
    let at = bench.connected("");
    subscribe(&mut bench, at, r#","recoverable":true"#);
    let epoch = bench.epoch(at, "a");
    let head = r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"E","#;
    let tail = r#""positioned":true,"was_recovering":true}}"#;
    let missed = r#""publications":[{"data":2,"offset":2},{"data":3,"offset":3}],"recovered":true,"offset":1,"#;
    assert_eq!(recover(&mut bench, &epoch, 1, ""), format!("{head}{missed}{tail}"));
    assert_eq!(recover(&mut bench, "", 1, ""), format!("{head}{missed}{tail}"));
    let nothing = r#""recovered":true,"offset":3,"#;
    assert_eq!(recover(&mut bench, &epoch, 3, ""), format!("{head}{nothing}{tail}"));
    let lost = r#""offset":3,"#;
    assert_eq!(recover(&mut bench, "zzzzzzzz", 1, ""), format!("{head}{lost}{tail}"));
    assert_eq!(recover(&mut bench, &epoch, 4, ""), format!("{head}{lost}{tail}"));
    bench.publish("a", "4");
    let lost = r#""offset":4,"#;
    assert_eq!(recover(&mut bench, &epoch, 0, ""), format!("{head}{lost}{tail}"), "over the limit");
}

#[test]
fn an_unrecoverable_position_is_an_error_for_who_wants_that() {
    let mut bench = bench("presence = true");
    bench.publish("a", "1");
    let error = r#"{"id":2,"error":{"code":112,"message":"unrecoverable position"}}"#;
    assert_eq!(recover(&mut bench, "zzzzzzzz", 1, r#","flag":2"#), error);
    assert_eq!(bench.node.counts().subscriptions, 0);
    assert!(recover(&mut bench, "", 1, r#","flag":3"#).contains("\"recovered\":true"));
    let at = bench.connected("");
    let presence = bench.ask(at, r#"{"id":2,"presence_stats":{"channel":"a"}}"#);
    assert_eq!(presence, [r#"{"id":2,"presence_stats":{"num_clients":1,"num_users":1}}"#]);
}

#[test]
fn what_would_not_fit_the_queue_is_not_recovered() {
    let mut bench = bench("");
    bench.settings.client.queue_max_size = 100;
    bench.publish("a", r#""twenty bytes and more to come here, fifty in sum..""#);
    assert!(!recover(&mut bench, "", 0, "").contains("\"recovered\":true"));
    bench.settings.client.queue_max_size = 1000;
    assert!(recover(&mut bench, "", 0, "").contains("\"recovered\":true"));
}

#[test]
fn a_cache_gives_the_latest_and_only_that() {
    let mut bench = bench("force_recovery = true\nforce_recovery_mode = \"cache\"");
    assert!(!recover(&mut bench, "", 0, "").contains("\"recovered\""));
    for data in ["1", "2", "3", "4", "5"] {
        bench.publish("a", data);
    }
    let reply = recover(&mut bench, "zzzzzzzz", 1, "");
    assert!(
        reply.contains(r#""publications":[{"data":5,"offset":5}],"recovered":true"#),
        "{reply}"
    );
    let at = bench.connected("");
    let reply = subscribe(&mut bench, at, "").concat();
    assert!(!reply.contains("publications"), "{reply}");
    let mut bench = self::bench(
        "force_recovery = true\nforce_recovery_mode = \"cache\"\nauto_cache_recover = true",
    );
    bench.publish("a", "1");
    let at = bench.connected("");
    let reply = subscribe(&mut bench, at, "").concat();
    assert!(
        reply.contains(r#""publications":[{"data":1,"offset":1,"epoch":"E"}],"recovered":true"#),
        "{reply}"
    );
    assert!(!reply.contains("was_recovering"), "{reply}");
}

#[test]
fn a_gap_unsubscribes_those_who_follow_and_closes_the_servers_own() {
    let mut bench = bench("allow_recovery = true");
    let (follower, listener) = (bench.connected(""), bench.connected(""));
    subscribe(&mut bench, follower, r#","recoverable":true"#);
    subscribe(&mut bench, listener, "");
    bench.publish("a", "1");
    bench.heard(follower);
    bench.heard(listener);
    bench.by_hand = true;
    bench.publish("a", "2");
    bench.publish("a", "3");
    // The second publication is lost on its way.
    bench.drop_event(0);
    bench.by_hand = false;
    bench.pump();
    let push =
        r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
    assert_eq!(bench.heard(follower), [push]);
    assert_eq!(bench.heard(listener), [r#"{"push":{"channel":"a","pub":{"data":3,"offset":3}}}"#]);
    let epoch = bench.epoch(listener, "a");
    let wish = format!(r#","recoverable":true,"recover":true,"offset":1,"epoch":"{epoch}""#);
    let heard = subscribe(&mut bench, follower, &wish).concat();
    assert!(
        heard.contains(r#"[{"data":2,"offset":2},{"data":3,"offset":3}],"recovered":true"#),
        "{heard}"
    );
}

#[test]
fn the_servers_subscriptions_recover_with_the_connect_reply() {
    let mut bench = bench("force_recovery = true");
    for data in ["1", "2", "3"] {
        bench.publish("a", data);
    }
    let at = bench.open();
    let claims = super::bench::token(&serde_json::json!({"sub": "ann", "channels": ["a", "b"]}));
    let subs = r#"{"a":{"recover":true,"offset":2},"c":{"recover":true,"offset":2}}"#;
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{claims}","subs":{subs}}}}}"#);
    let heard = bench.ask(at, &connect).concat();
    let of_a = r#""a":{"recoverable":true,"epoch":"E","publications":[{"data":3,"offset":3}],"recovered":true,"offset":2,"positioned":true,"was_recovering":true}"#;
    let of_b = r#""b":{"recoverable":true,"epoch":"E","positioned":true}"#;
    assert!(heard.contains(&format!("\"subs\":{{{of_a},{of_b}}}")), "{heard}");
    bench.publish("a", "4");
    assert_eq!(bench.heard(at), [r#"{"push":{"channel":"a","pub":{"data":4,"offset":4}}}"#]);
}

#[test]
fn a_gap_in_a_subscription_of_the_servers_closes_with_3010() {
    let mut bench = bench("force_recovery = true");
    let claims = super::bench::token(&serde_json::json!({"sub": "ann", "channels": ["a"]}));
    let at = bench.connected(&claims);
    bench.publish("a", "1");
    bench.by_hand = true;
    bench.publish("a", "2");
    bench.publish("a", "3");
    bench.drop_event(0);
    bench.by_hand = false;
    bench.pump();
    assert_eq!(bench.close_code(at), Some(3010));
    assert_eq!(bench.node.counts().subscriptions, 0);
}
