//! Subscribers that want some of the publications, by their tags.

use super::bench::Bench;

const RED: &str = r#","tf":{"key":"color","cmp":"eq","val":"red"}"#;

fn bench(options: &str) -> Bench {
    Bench::new(&format!(
        "client.insecure = true\n\
         [channel.without_namespace]\nhistory_size = 5\nhistory_ttl = \"1m\"\n{options}"
    ))
}

fn subscribe(bench: &mut Bench, at: usize, rest: &str) -> String {
    bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{"channel":"a"{rest}}}}}"#)).concat()
}

#[test]
fn a_filter_is_refused_where_it_may_not_be_or_is_none() {
    let told = |options: &str, wish: &str| {
        let mut bench = bench(options);
        let at = bench.connected("");
        (subscribe(&mut bench, at, wish), bench.logged())
    };
    let refused = r#"{"id":2,"error":{"code":107,"message":"bad request"}}"#;
    let on = "allow_tags_filter = true";
    assert_eq!(told(on, RED).0, r#"{"id":2,"subscribe":{}}"#);
    for (options, wish, why) in [
        ("", RED, "allow_tags_filter is off"),
        (on, r#","tf":{"key":"color","cmp":"eq"}"#, "\"eq\" needs a val"),
        (on, r#","tf":[]"#, "an object"),
    ] {
        let (reply, lines) = told(options, wish);
        assert_eq!(reply, refused);
        assert!(lines.contains(why), "{lines}");
    }
    let both = format!("{on}\nallowed_delta_types = [\"fossil\"]");
    let (reply, lines) = told(&both, &format!(r#"{RED},"delta":"fossil""#));
    assert_eq!(reply, refused);
    assert!(lines.contains("do not go together"), "{lines}");
    // Where there are no deltas nothing is left out by leaving them out.
    assert_eq!(told(on, &format!(r#"{RED},"delta":"fossil""#)).0, r#"{"id":2,"subscribe":{}}"#);
}

#[test]
fn what_is_held_back_moves_the_position_on_and_is_not_recovered() {
    let mut bench = bench("allow_tags_filter = true\nforce_recovery = true");
    let at = bench.connected("");
    subscribe(&mut bench, at, RED);
    let epoch = bench.epoch(at, "a");
    bench.publish_tagged("a", "1", &[("color", "red")]);
    bench.publish_tagged("a", "2", &[("color", "blue")]);
    bench.publish("a", "3");
    bench.publish_tagged("a", "4", &[("color", "red"), ("size", "xl")]);
    let heard = bench.heard(at);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(
        heard[0].contains(r#""data":1,"offset":1"#) && heard[1].contains(r#""data":4,"offset":4"#)
    );
    let recover = |bench: &mut Bench, offset: u64| {
        let at = bench.connected("");
        let rest = format!(r#","recover":true,"epoch":"{epoch}","offset":{offset}{RED}"#);
        subscribe(bench, at, &rest)
    };
    let told = recover(&mut bench, 1);
    let list = r#""publications":[{"data":4,"offset":4,"tags":{"color":"red","size":"xl"}}],"recovered":true,"offset":1"#;
    assert!(told.contains(list), "{told}");
    bench.publish("a", "5");
    // All that it missed was held back: so it is told where it is.
    let told = recover(&mut bench, 4);
    assert!(
        told.contains(r#""recovered":true,"offset":5"#) && !told.contains("publications"),
        "{told}"
    );
}
