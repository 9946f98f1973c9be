//! Shared polls: subscribing, tracking keys, and what of an update is for whom.

use bytes::Bytes;
use serde_json::{Value, json};

use super::bench::{Bench, START_UNIX_S, token};
use crate::polls::poller::{Items, Rules};
use crate::polls::signature::{Claim, sign};
use crate::polls::update::Meant;
use crate::polls::{Item, KEY_BYTES_MAX};
use crate::session::Wanted;

const SETTINGS: &str = r#"
shared_poll.hmac_secret_key = "poll"
client.channel_limit = 2
client.ping_interval = "0s"
websocket.message_size_limit = 1000000
channel.proxy.shared_poll_refresh.endpoint = "http://127.0.0.1:1/refresh"
[[channel.namespaces]]
name = "votes"
subscription_type = "shared_poll"
allow_subscribe_for_client = true
shared_poll.max_keys_per_connection = 3
[[channel.namespaces]]
name = "closed"
subscription_type = "shared_poll"
[[channel.namespaces]]
name = "news"
allow_subscribe_for_client = true
"#;

const RULES: Rules = Rules { interval_ms: 10_000, batch: 1000, versioned: false, keep_ms: 1000 };

fn bench() -> (Bench, usize) {
    let mut bench = Bench::new(SETTINGS);
    let client = bench.connected(&token(&json!({"sub": "u"})));
    (bench, client)
}

fn ask(bench: &mut Bench, client: usize, command: &Value) -> Value {
    let mut command = command.clone();
    command["id"] = json!(9);
    let heard = bench.ask(client, &command.to_string());
    let [reply] = &heard[..] else { panic!("{heard:?}") };
    serde_json::from_str(reply).unwrap()
}

fn code(reply: &Value) -> u64 {
    reply["error"]["code"].as_u64().unwrap_or(0)
}

fn subscribe(bench: &mut Bench, client: usize) -> Value {
    ask(bench, client, &json!({"subscribe": {"channel": "votes:1", "type": 4}}))
}

fn signed(keys: &[&str], exp: i64) -> String {
    sign(b"poll", Claim { user: "u", channel: "votes:1", keys }, (START_UNIX_S, exp))
}

fn items(keys: &[(&str, u64)]) -> Vec<Value> {
    keys.iter().map(|(key, version)| json!({"key": key, "version": version})).collect()
}

fn batch(keys: &[(&str, u64)], exp: i64) -> Value {
    let names: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    json!({"signature": signed(&names, exp), "items": items(keys)})
}

fn track(bench: &mut Bench, client: usize, batches: &[Value], untrack: &[&str]) -> Value {
    let track = json!({"channel": "votes:1", "type": 1, "track": batches, "untrack": untrack});
    ask(bench, client, &json!({"sub_refresh": track}))
}

fn wants(bench: &Bench, client: usize, key: &str, meant: Meant) -> Wanted {
    bench.clients[client].session.as_ref().unwrap().wants(("votes:1", key), meant)
}

/// The application is asked, and answers this.
fn poll(bench: &mut Bench, said: &[(&str, &'static str)]) -> usize {
    let now_ms = bench.now().mono_ms;
    let mut poller = bench.polls.poller();
    let asks = poller.turn(now_ms, 64, &mut |_| Some(RULES));
    let asked = asks.iter().map(|ask| ask.keys.len()).sum();
    for ask in asks {
        let items = said.iter().map(|(key, data)| Item {
            key: (*key).to_owned(),
            data: Some(Bytes::from_static(data.as_bytes())),
            ..Item::default()
        });
        let items = Items { epoch: String::new(), items: items.collect() };
        poller.answered(now_ms, ask.call, Some(items), &RULES);
    }
    asked
}

#[test]
fn a_channel_takes_the_kind_of_subscription_that_its_namespace_says() {
    let (mut bench, client) = bench();
    let subscribed = subscribe(&mut bench, client);
    assert_eq!(subscribed["subscribe"]["type"], 4);
    assert!(!subscribed["subscribe"]["epoch"].as_str().unwrap().is_empty());
    let kinds =
        [("votes:2", 0, 103), ("votes:2", 1, 103), ("news:1", 4, 103), ("closed:1", 4, 103)];
    for (channel, kind, error) in kinds {
        let request = json!({"subscribe": {"channel": channel, "type": kind}});
        assert_eq!(code(&ask(&mut bench, client, &request)), error, "{channel} {kind}");
    }
    assert_eq!(code(&subscribe(&mut bench, client)), 105);
    let other = json!({"subscribe": {"channel": "news:1"}});
    assert_eq!(code(&ask(&mut bench, client, &other)), 0);
    let publish = json!({"publish": {"channel": "votes:1", "data": 1}});
    assert_eq!(code(&ask(&mut bench, client, &publish)), 108);
    // It counts among the channels.
    let third = json!({"subscribe": {"channel": "votes:3", "type": 4}});
    assert_eq!(code(&ask(&mut bench, client, &third)), 106);
    let off = json!({"unsubscribe": {"channel": "votes:1"}});
    assert_eq!(ask(&mut bench, client, &off)["unsubscribe"], json!({}));
    assert_eq!(code(&ask(&mut bench, client, &third)), 0);
}

#[test]
fn two_clients_share_one_question_and_the_second_has_its_answer_at_once() {
    let (mut bench, first) = bench();
    let second = bench.connected(&token(&json!({"sub": "u"})));
    let keys = [("a", 0), ("b", 0)];
    for client in [first, second] {
        subscribe(&mut bench, client);
    }
    let epoch = |reply: &Value| reply["subscribe"]["epoch"].clone();
    let again = ask(&mut bench, first, &json!({"subscribe": {"channel": "votes:2", "type": 4}}));
    assert_ne!(epoch(&again), json!(""));
    let reply = track(&mut bench, first, &[batch(&keys, 0)], &[]);
    assert_eq!(reply["sub_refresh"], json!({}));
    assert_eq!(poll(&mut bench, &[("a", "1"), ("b", "2")]), 2);
    assert_eq!(wants(&bench, first, "a", Meant::New(1)), Wanted::Yes);
    let reply = track(&mut bench, second, &[batch(&keys, START_UNIX_S + 60)], &[]);
    let items = &reply["sub_refresh"]["items"];
    assert_eq!(items[0]["key"], "a");
    assert_eq!(items[1]["data"], 2);
    assert_eq!(reply["sub_refresh"]["ttl"], 60);
    // What it was given is no news; what nobody tracks is not, either.
    let version = items[0]["version"].as_u64().unwrap();
    assert_eq!(wants(&bench, second, "a", Meant::New(version)), Wanted::No);
    assert_eq!(wants(&bench, second, "a", Meant::New(version + 5)), Wanted::Yes);
    assert_eq!(wants(&bench, second, "a", Meant::Again(version + 5)), Wanted::No);
    assert_eq!(wants(&bench, second, "c", Meant::New(9)), Wanted::No);
    assert_eq!(wants(&bench, second, "a", Meant::Removed), Wanted::Last);
    assert_eq!(poll(&mut bench, &[]), 0);
}

#[test]
fn keys_are_refused_as_the_protocol_says() {
    let (mut bench, client) = bench();
    let a = || batch(&[("a", 0)], 0);
    assert_eq!(code(&track(&mut bench, client, &[a()], &[])), 103);
    subscribe(&mut bench, client);
    let expired = |ago| batch(&[("a", 0)], START_UNIX_S - ago);
    let forged = json!({"signature": signed(&["b"], 0), "items": items(&[("a", 0)])});
    let many: Vec<String> = (0..5001).map(|number| number.to_string()).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|key| (key.as_str(), 0)).collect();
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for (batches, error) in [
        (vec![], 107),
        (vec![batch(&[], 0)], 107),
        (vec![batch(&[("", 0)], 0)], 107),
        (vec![batch(&[(&long, 0)], 0)], 107),
        // One signature of "a" and "b" is none of "a\0b".
        (vec![json!({"signature": signed(&["a", "b"], 0), "items": items(&[("a\0b", 0)])})], 107),
        (vec![json!({"items": items(&[("a", 0)])})], 103),
        (vec![json!({"signature": "1:2:3", "items": items(&[("a", 0)])})], 103),
        (vec![forged.clone()], 103),
        (vec![a(), forged], 103),
        (vec![expired(6)], 109),
        (vec![batch(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)], 0)], 106),
        (vec![batch(&many, 0)], 106),
    ] {
        assert_eq!(code(&track(&mut bench, client, &batches, &[])), error, "{batches:.99?}");
        assert_eq!(wants(&bench, client, "a", Meant::New(1)), Wanted::No);
    }
    assert_eq!(bench.polls.trackings(), 0);
    // Five seconds late is in time, and duplicates count once: the last one's version holds.
    let twice = [expired(5), batch(&[("a", 4), ("a", 7), ("b", 0)], 0)];
    let reply = track(&mut bench, client, &twice, &[]);
    assert_eq!(reply["sub_refresh"], json!({"expires": true}));
    assert_eq!(wants(&bench, client, "a", Meant::New(7)), Wanted::No);
    assert_eq!(wants(&bench, client, "a", Meant::New(8)), Wanted::Yes);
    assert_eq!(bench.polls.trackings(), 2);
    // What goes in the same command makes room.
    let more = [batch(&[("c", 0), ("d", 0)], 0)];
    assert_eq!(code(&track(&mut bench, client, &more, &[])), 106);
    assert_eq!(code(&track(&mut bench, client, &more, &["a"])), 0);
    assert_eq!(wants(&bench, client, "a", Meant::New(8)), Wanted::No);
    let untrack =
        |keys: &[&str]| json!({"sub_refresh": {"channel": "votes:1", "type": 2, "untrack": keys}});
    assert_eq!(code(&ask(&mut bench, client, &untrack(&[]))), 107);
    assert_eq!(ask(&mut bench, client, &untrack(&["c", "never"]))["sub_refresh"], json!({}));
    assert_eq!(bench.polls.trackings(), 2);
    let wild = json!({"sub_refresh": {"channel": "votes:1", "type": 3}});
    assert_eq!(code(&ask(&mut bench, client, &wild)), 107);
}

#[test]
fn nothing_is_left_of_who_has_gone() {
    let (mut bench, client) = bench();
    subscribe(&mut bench, client);
    track(&mut bench, client, &[batch(&[("a", 0), ("b", 0)], 0)], &[]);
    assert!(bench.allowance.used() > 0);
    bench.end(client);
    assert_eq!(bench.polls.trackings(), 0);
    bench.pass(3);
    poll(&mut bench, &[]);
    assert_eq!(bench.polls.poller().sizes(), (0, 0, 0));
    assert_eq!(bench.allowance.used(), 0);
}

#[test]
fn a_key_whose_signature_is_not_renewed_goes_without_a_word() {
    let (mut bench, client) = bench();
    subscribe(&mut bench, client);
    let first = batch(&[("a", 0)], START_UNIX_S + 60);
    track(&mut bench, client, &[first, batch(&[("b", 0)], 0)], &[]);
    bench.pass(60 + 24);
    assert_eq!(wants(&bench, client, "a", Meant::New(1)), Wanted::Yes);
    bench.pass(2);
    assert_eq!(wants(&bench, client, "a", Meant::New(1)), Wanted::No);
    assert_eq!(wants(&bench, client, "b", Meant::New(1)), Wanted::Yes);
    assert!(!bench.heard(client).iter().any(|said| said.contains("votes")));
}

#[test]
fn another_epoch_sends_away_who_does_not_know_it() {
    let (mut bench, client) = bench();
    subscribe(&mut bench, client);
    let now_ms = bench.now().mono_ms;
    let place = (&"votes:1".into(), 0);
    let epoch = bench.polls.poller().subscribe(now_ms, place, &RULES, || unreachable!());
    assert_eq!(epoch.len(), 8);
    bench.with(client, |session, cx| session.poll_reset(cx, "votes:1", &epoch));
    assert_eq!(bench.heard(client), Vec::<String>::new());
    bench.with(client, |session, cx| session.poll_reset(cx, "votes:1", "other"));
    let heard = bench.heard(client);
    assert!(heard[0].contains(r#""unsubscribe":{"code":2500"#), "{heard:?}");
    assert_eq!(code(&subscribe(&mut bench, client)), 0);
}
