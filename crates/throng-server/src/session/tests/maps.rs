//! Maps as clients meet them, with a clock that is turned by hand.

use serde_json::json;
use throng_hub::map::{Ask, Call, Removal, Write};
use throng_hub::request::{ReplyTo, Request};
use throng_hub::state::{Fields, Record, Writer};

use super::super::{Order, Session};
use super::bench::{Bench, token};

/// A bench with a map `m`, pages of one key and more, and what else is said.
fn bench(options: &str) -> Bench {
    Bench::new(&format!(
        "client.allow_anonymous_connect_without_token = true\n\
         [[channel.namespaces]]\nname = \"ss\"\nallow_subscribe_for_client = true\n\
         map_clients_presence_channel_prefix = \"on:\"\nmap_users_presence_channel_prefix = \"by:\"\n\
         [[channel.namespaces]]\nname = \"on\"\nsubscription_type = \"map_clients\"\n\
         map.mode = \"ephemeral\"\nmap.key_ttl = \"1m\"\nallow_subscribe_for_client = true\n\
         [[channel.namespaces]]\nname = \"by\"\nsubscription_type = \"map_users\"\n\
         map.mode = \"recoverable\"\nmap.key_ttl = \"1m\"\nallow_subscribe_for_client = true\n\
         [[channel.namespaces]]\nname = \"ee\"\nsubscription_type = \"map\"\nmap.mode = \"ephemeral\"\n\
         map.key_ttl = \"1h\"\nmap.min_page_size = 1\nallow_subscribe_for_client = true\n\
         [[channel.namespaces]]\nname = \"mm\"\nsubscription_type = \"map\"\n\
         map.mode = \"recoverable\"\nmap.key_ttl = \"1h\"\nmap.min_page_size = 1\n\
         allow_subscribe_for_client = true\n{options}"
    ))
}

fn user(bench: &mut Bench, name: &str) -> usize {
    bench.connected(&token(&json!({"sub": name})))
}

impl Bench {
    /// Changes a map as the server API does.
    fn change(&mut self, channel: &str, ask: Ask) {
        let options = self.settings.channel.resolve(channel).unwrap().options;
        let rules = options.map.as_ref().unwrap().rules;
        let call = Call { channel: channel.into(), rules, ask, quiet: true };
        let to = ReplyTo { mailbox: 1, slot: 0, number: 1, ticket: 0 };
        self.node.call(Request::Map(Box::new(call)), to, self.now());
        self.pump();
    }

    fn put(&mut self, channel: &str, key: &str, data: &'static str) {
        let write = Write { key: key.into(), data: data.into(), ..Write::default() };
        self.change(channel, Ask::Publish(write));
    }

    fn take_away(&mut self, channel: &str, key: &str) {
        let removal = Removal { key: key.into(), ..Removal::default() };
        self.change(channel, Ask::Remove(removal));
    }

    /// A step into a map; what the client hears.
    fn step(&mut self, at: usize, channel: &str, rest: &str) -> String {
        let kind = if rest.contains("\"type\"") { "" } else { r#","type":1"# };
        let text = format!(r#"{{"id":5,"subscribe":{{"channel":"{channel}"{kind}{rest}}}}}"#);
        self.ask(at, &text).concat()
    }

    fn epoch_now(&self) -> String {
        self.last_epoch.lock().clone()
    }
}

fn code(reply: &str) -> Option<u64> {
    let reply: serde_json::Value = serde_json::from_str(reply).ok()?;
    reply["error"]["code"].as_u64()
}

#[test]
fn a_small_map_is_there_in_one_step() {
    let mut bench = bench("");
    bench.put("mm:a", "k2", "2");
    bench.put("mm:a", "k1", "1");
    let at = user(&mut bench, "ann");
    let reply = bench.step(at, "mm:a", r#","phase":2"#);
    let state = r#"[{"data":1,"offset":2,"key":"k1"},{"data":2,"offset":1,"key":"k2"}]"#;
    assert_eq!(
        reply,
        format!(
            r#"{{"id":5,"subscribe":{{"recoverable":true,"epoch":"E","offset":2,"type":1,"state":{state}}}}}"#
        )
    );
    bench.put("mm:a", "k1", "3");
    bench.take_away("mm:a", "k2");
    let heard = bench.heard(at);
    assert_eq!(
        heard,
        [
            r#"{"push":{"channel":"mm:a","pub":{"data":3,"offset":3,"key":"k1"}}}"#,
            r#"{"push":{"channel":"mm:a","pub":{"offset":4,"key":"k2","removed":true}}}"#,
        ]
    );
    let again = bench.step(at, "mm:a", r#","phase":2"#);
    assert_eq!(code(&again), Some(105));
    let left = bench.ask(at, r#"{"id":6,"unsubscribe":{"channel":"mm:a"}}"#).concat();
    assert_eq!(left, r#"{"id":6,"unsubscribe":{}}"#);
    bench.put("mm:a", "k1", "4");
    assert!(bench.heard(at).is_empty());
}

#[test]
fn a_map_comes_page_by_page_and_what_changed_meanwhile_behind_it() {
    let mut bench = bench("");
    for key in ["a", "b", "c"] {
        bench.put("mm:x", key, "0");
    }
    let at = user(&mut bench, "ann");
    let first = bench.step(at, "mm:x", r#","phase":2,"limit":1"#);
    let page =
        r#""offset":3,"type":1,"phase":2,"cursor":"a","state":[{"data":0,"offset":1,"key":"a"}]"#;
    assert_eq!(first, format!(r#"{{"id":5,"subscribe":{{"epoch":"E",{page}}}}}"#));
    let epoch = bench.epoch_now();
    bench.put("mm:x", "b", "1");
    bench.take_away("mm:x", "a");
    let on = format!(r#","phase":2,"limit":1,"cursor":"a","offset":3,"epoch":"{epoch}""#);
    let second = bench.step(at, "mm:x", &on);
    assert!(second.contains(r#""phase":2,"cursor":"b"}"#), "what changed is left out: {second}");
    let on = on.replace(r#""cursor":"a""#, r#""cursor":"b""#);
    let third = bench.step(at, "mm:x", &on);
    assert!(third.contains(r#""offset":3,"type":1,"phase":2,"state":"#), "{third}");
    let changes = format!(r#","phase":1,"limit":1,"offset":3,"epoch":"{epoch}""#);
    let page = bench.step(at, "mm:x", &changes);
    let change =
        r#""publications":[{"data":1,"offset":4,"key":"b"}],"offset":4,"type":1,"phase":1"#;
    assert_eq!(page, format!(r#"{{"id":5,"subscribe":{{"epoch":"E",{change}}}}}"#));
    let live = bench.step(at, "mm:x", &changes.replace("\"offset\":3", "\"offset\":4"));
    let last = r#""publications":[{"offset":5,"key":"a","removed":true}],"offset":5,"type":1"#;
    let expected = format!(r#"{{"id":5,"subscribe":{{"recoverable":true,"epoch":"E",{last}}}}}"#);
    assert_eq!(live, expected);
    bench.put("mm:x", "d", "2");
    assert_eq!(bench.heard(at).len(), 1);
}

#[test]
fn who_comes_back_gets_what_it_missed_or_is_told_that_it_cannot() {
    let mut bench = bench("map.stream_size = 3");
    let at = user(&mut bench, "ann");
    bench.step(at, "mm:x", r#","phase":2"#);
    let epoch = bench.epoch_now();
    bench.end(at);
    for data in ["1", "2"] {
        bench.put("mm:x", "k", data);
    }
    let at = user(&mut bench, "ann");
    let recover =
        |offset: u64| format!(r#","phase":1,"recover":true,"offset":{offset},"epoch":"{epoch}""#);
    let back = bench.step(at, "mm:x", &recover(1));
    let missed = r#""publications":[{"data":2,"offset":2,"key":"k"}],"recovered":true,"offset":2,"was_recovering":true,"type":1"#;
    let expected = format!(r#"{{"id":5,"subscribe":{{"recoverable":true,"epoch":"E",{missed}}}}}"#);
    assert_eq!(back, expected);
    let other = user(&mut bench, "bob");
    assert_eq!(code(&bench.step(other, "mm:x", &recover(7))), Some(112), "not there yet");
    for data in ["3", "4"] {
        bench.put("mm:x", "k", data);
    }
    assert_eq!(code(&bench.step(other, "mm:x", &recover(0))), Some(112), "not there any more");
    let of_another = r#","phase":1,"recover":true,"offset":1,"epoch":"zzzzzzzz""#;
    assert_eq!(code(&bench.step(other, "mm:x", of_another)), Some(112));
    assert!(bench.step(other, "mm:x", &recover(3)).contains(r#""recovered":true"#));
}

#[test]
fn an_ephemeral_map_tells_no_offsets_and_misses_nothing() {
    let mut bench = bench("");
    for key in ["a", "b"] {
        bench.put("ee:x", key, "0");
    }
    let at = user(&mut bench, "ann");
    let first = bench.step(at, "ee:x", r#","phase":2,"limit":1"#);
    let page = r#""type":1,"phase":2,"cursor":"a","state":[{"data":0,"key":"a"}]"#;
    assert_eq!(first, format!(r#"{{"id":5,"subscribe":{{"epoch":"E",{page}}}}}"#));
    bench.take_away("ee:x", "a");
    bench.put("ee:x", "b", "1");
    let epoch = bench.epoch_now();
    let on = format!(r#","phase":2,"limit":1,"cursor":"a","epoch":"{epoch}""#);
    let live = bench.step(at, "ee:x", &on);
    let changes = r#""publications":[{"key":"a","removed":true},{"data":1,"key":"b"}],"type":1"#;
    assert_eq!(live, format!(r#"{{"id":5,"subscribe":{{"epoch":"E",{changes}}}}}"#));
    bench.put("ee:x", "c", "2");
    let push = r#"{"push":{"channel":"ee:x","pub":{"data":2,"key":"c"}}}"#;
    assert_eq!(bench.heard(at), [push]);
    let other = user(&mut bench, "bob");
    assert_eq!(code(&bench.step(other, "ee:x", r#","phase":1,"recover":true"#)), Some(107));
    bench.change("ee:x", Ask::Clear);
    assert!(bench.heard(at).concat().contains(r#""code":2500"#), "it reads the map anew");
}

#[test]
fn what_is_no_step_is_refused_and_harms_nothing() {
    let mut bench = bench("");
    for key in ["a", "b", "c"] {
        bench.put("mm:x", key, "0");
    }
    let at = user(&mut bench, "ann");
    for (rest, expected) in [
        (r#","phase":2,"cursor":"a""#, 103),
        (r#","phase":1,"offset":1"#, 103),
        (r#","phase":3"#, 107),
        (r#","phase":-1"#, 107),
        (r#","phase":2147483647,"limit":-2147483648"#, 107),
        (r#","type":0"#, 103),
        (r#","type":2,"phase":2"#, 103),
        (r#","type":77,"phase":2"#, 103),
        (r#","phase":0,"offset":18446744073709551615"#, 112),
        (r#","phase":1,"recover":true,"offset":18446744073709551615,"epoch":"x""#, 112),
    ] {
        assert_eq!(code(&bench.step(at, "mm:x", rest)), Some(expected), "{rest}");
    }
    assert_eq!(code(&bench.step(at, "ss:x", r#","phase":2"#)), Some(103), "a stream is no map");
    let first = r#","phase":2,"limit":1"#;
    assert!(bench.step(at, "mm:x", first).contains("\"cursor\":\"a\""));
    assert_eq!(code(&bench.step(at, "mm:x", first)), Some(105), "it reads it already");
    let foreign = r#","phase":2,"limit":1,"cursor":"a","epoch":"zzzzzzzz""#;
    assert_eq!(code(&bench.step(at, "mm:x", foreign)), Some(112));
    let on = r#","phase":2,"limit":1,"cursor":"a""#;
    assert_eq!(code(&bench.step(at, "mm:x", on)), Some(103), "it has to begin again");
    assert!(bench.step(at, "mm:x", first).contains("\"cursor\":\"a\""));
    let beyond = format!(r#","phase":2,"cursor":"{}""#, "z".repeat(5000));
    assert!(bench.step(at, "mm:x", &beyond).contains("recoverable"), "there is nothing behind it");
    assert_eq!(bench.close_code(at), None);
}

#[test]
fn a_client_that_dawdles_is_closed_and_one_that_gave_up_is_forgotten() {
    let mut bench = bench("");
    for key in ["a", "b", "c"] {
        bench.put("mm:x", key, "0");
        bench.put("mm:y", key, "0");
    }
    let first = r#","phase":2,"limit":1"#;
    let at = user(&mut bench, "ann");
    bench.step(at, "mm:x", first);
    bench.pass(5);
    let on = r#","phase":2,"limit":1,"cursor":"a""#;
    assert!(bench.step(at, "mm:x", on).contains("\"cursor\":\"b\""), "in time");
    bench.pass(1);
    bench.step(at, "mm:x", on);
    assert_eq!(bench.close_code(at), Some(3008));

    let at = user(&mut bench, "bob");
    bench.step(at, "mm:x", first);
    bench.pass(6);
    assert!(bench.step(at, "mm:x", first).contains("\"cursor\":\"a\""), "it begins again");
    bench.step(at, "mm:y", first);
    bench.pass(6);
    bench.step(at, "mm:z", r#","phase":2"#);
    let catching = bench.clients[at].session.as_ref().unwrap().catching();
    assert_eq!(catching, 0, "what it reads no more is forgotten");
    bench.step(at, "mm:x", first);
    bench.ask(at, r#"{"id":6,"unsubscribe":{"channel":"mm:x"}}"#);
    assert_eq!(code(&bench.step(at, "mm:x", on)), Some(103));
}

#[test]
fn maps_that_are_read_count_as_channels() {
    let mut bench = bench("");
    bench.settings.client.channel_limit = 2;
    for channel in ["mm:a", "mm:b", "mm:c"] {
        for key in ["a", "b"] {
            bench.put(channel, key, "0");
        }
    }
    let at = user(&mut bench, "ann");
    let first = r#","phase":2,"limit":1"#;
    bench.step(at, "mm:a", first);
    bench.step(at, "mm:b", first);
    assert_eq!(code(&bench.step(at, "mm:c", first)), Some(106));
}

#[test]
fn clients_change_keys_where_they_may() {
    let change = |options: &str, name: &str, rest: &str| {
        let mut bench = bench(options);
        let at = if name.is_empty() { bench.connected("") } else { user(&mut bench, name) };
        let text = format!(r#"{{"id":7,"publish":{{"channel":"mm:x"{rest}}}}}"#);
        let reply = bench.ask(at, &text).concat();
        let reader = user(&mut bench, "reader");
        let state = bench.step(reader, "mm:x", r#","phase":2"#);
        (code(&reply), state)
    };
    let write = r#","type":1,"key":"k","data":1"#;
    assert_eq!(change("", "ann", write).0, Some(103));
    let may = "map.allow_publish_for_client = true\n";
    let (refused, state) = change(may, "ann", write);
    assert_eq!(refused, None);
    let info = r#""info":{"user":"ann","client":"C0"}"#;
    assert!(state.contains(&format!(r#"{{"data":1,{info},"offset":1,"key":"k"}}"#)), "{state}");
    assert_eq!(change(may, "", write).0, Some(103), "anonymous");
    let anonymous = format!("{may}map.allow_publish_for_anonymous = true\n");
    assert_eq!(change(&anonymous, "", write).0, None);
    let subscriber = "map.allow_publish_for_subscriber = true\n";
    assert_eq!(change(subscriber, "ann", write).0, Some(103), "it is none");
    assert_eq!(change(may, "ann", r#","type":1,"data":1"#).0, Some(107), "no key");
    let long = format!(r#","type":1,"key":"{}","data":1"#, "k".repeat(1025));
    assert_eq!(change(may, "ann", &long).0, Some(107));
    assert_eq!(change(may, "ann", r#","data":1"#).0, Some(107), "a map needs a key");
    let remove = r#","type":1,"key":"k","removed":true"#;
    assert_eq!(change(may, "ann", remove).0, Some(103));
    let both = format!("{may}map.allow_remove_for_client = true\n");
    assert_eq!(change(&both, "ann", remove).0, None, "a key that is not there is no error");
    let own = format!("{may}map.client_key = \"user_id\"\n");
    assert!(change(&own, "ann", write).1.contains(r#""key":"ann""#));
    let own = format!("{anonymous}map.client_key = \"user_id\"\n");
    assert_eq!(change(&own, "", write).0, Some(103), "it has no user");
    let own = format!("{may}map.client_key = \"client_id\"\n");
    assert!(change(&own, "ann", r#","type":1,"data":1"#).1.contains(r#""key":"C0""#));
    let small = format!("{may}map.max_bytes = 100\n");
    assert_eq!(change(&small, "ann", write).0, Some(106), "there is no room");
}

#[test]
fn a_stream_has_no_keys() {
    let mut bench = bench("map.allow_publish_for_client = true");
    let at = user(&mut bench, "ann");
    let text = r#"{"id":7,"publish":{"channel":"ss:x","type":1,"key":"k","data":1}}"#;
    assert_eq!(code(&bench.ask(at, text).concat()), Some(107));
}

#[test]
fn what_a_client_wrote_goes_with_it() {
    let mut bench = bench(
        "map.allow_publish_for_client = true\nmap.client_key = \"client_id\"\n\
         map.remove_client_on_unsubscribe = true",
    );
    let (ann, bob) = (user(&mut bench, "ann"), user(&mut bench, "bob"));
    for at in [ann, bob] {
        bench.step(at, "mm:x", r#","phase":2"#);
    }
    let write = r#"{"id":7,"publish":{"channel":"mm:x","type":1,"data":1}}"#;
    bench.ask(ann, write);
    bench.heard(bob);
    bench.ask(ann, r#"{"id":8,"unsubscribe":{"channel":"mm:x"}}"#);
    let gone = r#"{"push":{"channel":"mm:x","pub":{"offset":2,"key":"C0","removed":true}}}"#;
    assert_eq!(bench.heard(bob), [gone]);
    bench.step(ann, "mm:x", r#","phase":2"#);
    bench.ask(ann, write);
    bench.heard(bob);
    bench.end(ann);
    bench.pump();
    assert!(bench.heard(bob).concat().contains(r#""key":"C0","removed":true"#));
}

#[test]
fn who_is_subscribed_shows_in_maps() {
    let mut bench = bench("");
    bench.settings.client.ping_interval = std::time::Duration::ZERO;
    let watcher = user(&mut bench, "watcher");
    bench.step(watcher, "on:ss:room", r#","type":2,"phase":2"#);
    bench.step(watcher, "by:ss:room", r#","type":3,"phase":2"#);
    let ann = user(&mut bench, "ann");
    bench.ask(ann, r#"{"id":2,"subscribe":{"channel":"ss:room"}}"#);
    bench.pump();
    let info = r#""info":{"user":"ann","client":"C1"}"#;
    let came = [
        format!(r#"{{"push":{{"channel":"on:ss:room","pub":{{{info},"key":"C1"}}}}}}"#),
        r#"{"push":{"channel":"by:ss:room","pub":{"offset":1,"key":"ann"}}}"#.to_owned(),
    ];
    assert_eq!(bench.heard(watcher), came);
    // Half a minute later it is said again; then the keys live on for a minute.
    for _ in 0..3 {
        bench.pass(30);
        bench.with(ann, |session: &mut Session, cx| session.show_again(cx));
        bench.node.sweep(bench.now());
    }
    bench.pump();
    let pushed = |heard: Vec<String>| heard.into_iter().filter(|text| text.contains("push"));
    assert_eq!(pushed(bench.heard(watcher)).count(), 0, "nothing has changed");
    bench.end(ann);
    bench.pump();
    let gone = r#"{"push":{"channel":"on:ss:room","pub":{"key":"C1","removed":true}}}"#;
    assert_eq!(bench.heard(watcher), [gone]);
    bench.pass(60);
    bench.node.sweep(bench.now());
    bench.pump();
    let gone = r#"{"push":{"channel":"by:ss:room","pub":{"offset":2,"key":"ann","removed":true}}}"#;
    assert_eq!(pushed(bench.heard(watcher)).collect::<Vec<_>>(), [gone]);
}

#[test]
fn the_application_says_what_becomes_of_a_key() {
    let mut bench = bench(
        "map.publish_proxy_enabled = true\nmap.remove_proxy_enabled = true\n\
         [channel.proxy.map_publish]\nendpoint = \"http://127.0.0.1:1/p\"\n\
         [channel.proxy.map_remove]\nendpoint = \"http://127.0.0.1:1/r\"\n",
    );
    let at = user(&mut bench, "ann");
    bench.step(at, "mm:x", r#","phase":2"#);
    bench.ask(at, r#"{"id":7,"publish":{"channel":"mm:x","type":1,"key":"k","data":{"a":1}}}"#);
    let said =
        r#"{"result":{"key":"other","data":2,"tags":{"t":"1"},"score":5,"key_mode":"if_new"}}"#;
    let call = bench.backend_says(said);
    let asked = serde_json::to_value(&call.ask).unwrap();
    assert_eq!(
        (&asked["key"], &asked["data"]["a"], &asked["user"]),
        (&json!("k"), &json!(1), &json!("ann"))
    );
    let heard = bench.heard(at);
    let expected = r#""offset":1,"tags":{"t":"1"},"key":"other","score":5"#;
    assert!(heard[1].contains(expected) || heard[0].contains(expected), "{heard:?}");
    bench.ask(at, r#"{"id":8,"publish":{"channel":"mm:x","type":1,"key":"other","data":3}}"#);
    bench.backend_says(said);
    assert_eq!(bench.heard(at), [r#"{"id":8,"publish":{}}"#], "if_new changes nothing");
    bench.ask(at, r#"{"id":9,"publish":{"channel":"mm:x","type":1,"key":"other","removed":true}}"#);
    bench.backend_says(r#"{"result":{}}"#);
    assert!(bench.heard(at).concat().contains(r#""key":"other","removed":true"#));
    for (said, expected) in
        [(r#"{"error":{"code":1000,"message":"no"}}"#, 1000), ("{}", 103), ("nonsense", 100)]
    {
        bench.ask(at, r#"{"id":9,"publish":{"channel":"mm:x","type":1,"key":"k","data":3}}"#);
        bench.backend_says(said);
        assert_eq!(code(&bench.heard(at).concat()), Some(expected), "{said}");
    }
}

#[test]
fn tokens_and_backends_let_into_maps_as_into_streams() {
    let mut bench = bench(
        "subscribe_proxy_enabled = true\n[channel.proxy.subscribe]\nendpoint = \"http://127.0.0.1:1/s\"\n",
    );
    bench.put("mm:x", "k", "1");
    let at = user(&mut bench, "ann");
    assert!(bench.step(at, "mm:x", r#","phase":2"#).is_empty(), "the backend is asked");
    bench.backend_says(r#"{"result":{"data":{"hello":1}}}"#);
    let reply = bench.heard(at).concat();
    assert!(reply.contains(r#""data":{"hello":1},"type":1,"state":[{"#), "{reply}");
    let bob = user(&mut bench, "bob");
    let right = token(&json!({"sub": "bob", "channel": "mm:x", "expire_at": 1_767_225_700}));
    let reply = bench.step(bob, "mm:x", &format!(r#","phase":2,"token":"{right}""#));
    assert!(reply.contains(r#""expires":true,"ttl":100"#) && reply.contains("state"), "{reply}");
    let order = Order::Unsubscribe { channel: "mm:x".into() };
    bench.order(bob, &order);
    assert!(bench.heard(bob).concat().contains(r#""unsubscribe""#));
}

#[test]
fn a_client_on_its_way_goes_on_in_another_process() {
    let mut bench = bench("");
    for key in ["a", "b", "c"] {
        bench.put("mm:x", key, "0");
    }
    let at = user(&mut bench, "ann");
    bench.step(at, "mm:x", r#","phase":2,"limit":1"#);
    let mut out = Writer::new(Vec::new(), bench.now());
    bench.clients[at].session.as_ref().unwrap().put_fields(&mut out);
    bench.pass(3);
    let bytes = out.into_bytes();
    let moved = Session::take_fields(Fields::new(&bytes, 0, Session::WHAT, bench.now())).unwrap();
    bench.clients[at].session = Some(moved);
    let on = r#","phase":2,"limit":1,"cursor":"a""#;
    assert!(bench.step(at, "mm:x", on).contains("\"cursor\":\"b\""));
    bench.pass(6);
    bench.step(at, "mm:x", on);
    assert_eq!(bench.close_code(at), Some(3008), "its time went on");
}
