//! Subscribers that take patches: what they are told, and in which form.

use super::bench::Bench;

const ONE: &str = r#"{"name":"Anna","score":117,"place":"Graz in Styria"}"#;
const TWO: &str = r#"{"name":"Anna","score":121,"place":"Graz in Styria"}"#;
/// What makes the second of the first.
const PATCH: &str = r#""p\nO@0,2:21Q@Q,1ltWVz;""#;

fn bench(options: &str) -> Bench {
    Bench::new(&format!(
        "client.insecure = true\n\
         [channel.without_namespace]\nhistory_size = 5\nhistory_ttl = \"1m\"\n{options}"
    ))
}

fn subscribe(bench: &mut Bench, at: usize, rest: &str) -> String {
    bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{"channel":"a"{rest}}}}}"#)).concat()
}

fn quoted(json: &str) -> String {
    serde_json::to_string(json).unwrap()
}

const DELTAS: &str =
    "allowed_delta_types = [\"fossil\"]\ndelta_publish = true\nforce_recovery = true";
const WISH: &str = r#","delta":"fossil""#;

#[test]
fn who_asks_is_told_so_where_the_channel_allows_it() {
    let told = |options: &str, wish: &str| {
        let mut bench = bench(options);
        let at = bench.connected("");
        subscribe(&mut bench, at, wish)
    };
    let with = r#"{"id":2,"subscribe":{"delta":true}}"#;
    let without = r#"{"id":2,"subscribe":{}}"#;
    assert_eq!(told("allowed_delta_types = [\"fossil\"]", WISH), with);
    assert_eq!(told("allowed_delta_types = [\"fossil\"]", ""), without);
    assert_eq!(told("allowed_delta_types = [\"fossil\"]", r#","delta":"xdelta""#), without);
    assert_eq!(told("", WISH), without);
}

#[test]
fn the_first_comes_whole_and_then_patches_to_who_takes_them() {
    let mut bench = bench(DELTAS);
    let (plain, takes) = (bench.connected(""), bench.connected(""));
    subscribe(&mut bench, plain, "");
    subscribe(&mut bench, takes, WISH);
    bench.publish("a", ONE);
    bench.publish("a", TWO);
    bench.publish("a", "1");
    let whole = quoted(ONE);
    let said = |rest: &str| format!(r#"{{"push":{{"channel":"a","pub":{{{rest}}}}}}}"#);
    assert_eq!(
        bench.heard(takes),
        [
            said(&format!(r#""data":{whole},"offset":1,"epoch":"E""#)),
            said(&format!(r#""data":{PATCH},"offset":2,"delta":true"#)),
            // One that a patch would not make shorter.
            said(r#""data":"1","offset":3"#),
        ]
    );
    assert_eq!(
        bench.heard(plain),
        [
            said(&format!(r#""data":{ONE},"offset":1,"epoch":"E""#)),
            said(&format!(r#""data":{TWO},"offset":2"#)),
            said(r#""data":1,"offset":3"#),
        ]
    );
}

#[test]
fn a_recovery_is_the_first_missed_whole_and_patches_behind_it() {
    let mut bench = bench(DELTAS);
    let stays = bench.connected("");
    subscribe(&mut bench, stays, WISH);
    for data in ["0", ONE, TWO] {
        bench.publish("a", data);
    }
    let recover = |bench: &mut Bench, offset: u64| {
        let at = bench.connected("");
        let rest = format!(r#","recover":true,"epoch":"","offset":{offset}{WISH}"#);
        (at, subscribe(bench, at, &rest))
    };
    let (came, told) = recover(&mut bench, 1);
    let list = format!(
        r#""publications":[{{"data":{},"offset":2}},{{"data":{PATCH},"offset":3,"delta":true}}]"#,
        quoted(ONE)
    );
    assert!(told.contains(&list), "{told}");
    assert!(
        told.ends_with(
            r#""recovered":true,"offset":1,"positioned":true,"was_recovering":true,"delta":true}}"#
        ),
        "{told}"
    );
    // Who missed nothing may not have kept the last.
    let (up_to_date, _) = recover(&mut bench, 3);
    bench.heard(came);
    bench.publish("a", ONE);
    let heard = bench.heard(came).concat();
    assert!(heard.contains(r#""offset":4,"delta":true"#), "{heard}");
    let heard = bench.heard(up_to_date).concat();
    assert!(heard.contains(&quoted(ONE)) && !heard.contains("delta"), "{heard}");
}

#[test]
fn of_a_cache_the_latest_comes_whole_and_a_patch_follows() {
    let cache = format!("{DELTAS}\nforce_recovery_mode = \"cache\"\nauto_cache_recover = true");
    let mut bench = bench(&cache);
    bench.publish("a", TWO);
    bench.publish("a", ONE);
    let at = bench.connected("");
    let told = subscribe(&mut bench, at, WISH);
    assert!(told.contains(&format!(r#""publications":[{{"data":{},"offset":2}}]"#, quoted(ONE))));
    bench.publish("a", TWO);
    let heard = bench.heard(at).concat();
    assert!(heard.contains(PATCH) && heard.contains(r#""delta":true"#), "{heard}");
}

#[test]
fn without_the_flag_every_one_is_whole() {
    let mut bench = bench("allowed_delta_types = [\"fossil\"]");
    let at = bench.connected("");
    subscribe(&mut bench, at, WISH);
    bench.publish("a", ONE);
    bench.publish("a", TWO);
    let heard = bench.heard(at);
    assert!(heard[1].contains(&quoted(TWO)) && !heard.concat().contains("delta"), "{heard:?}");
}

#[test]
fn bytes_that_are_no_json_are_whole_and_a_string_of_base64() {
    let mut bench = bench(DELTAS);
    let at = bench.connected("");
    subscribe(&mut bench, at, WISH);
    // As they are kept, behind a mark.
    bench.publish("a", "\0some bytes that are no JSON, and many of them");
    bench.publish("a", "\0some bytes that are no JSON, and many of those");
    bench.publish("a", ONE);
    let heard = bench.heard(at);
    assert!(heard[1].contains(r#""data":"\"c29tZSBieXRlcyB0"#), "{heard:?}");
    assert!(heard[2].contains(&quoted(ONE)), "{heard:?}");
    assert!(!heard.concat().contains("\"delta\""), "{heard:?}");
}
