//! What backends are asked, and what becomes of their answers.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::bench::{Bench, START_UNIX_S, token};
use crate::backend;
use crate::session::{Kind, Open, Order};

const CONNECT: &str = r#"
client.proxy.connect.enabled = true
client.proxy.connect.endpoint = "http://app/connect"
client.proxy.connect.http_headers = ["Cookie", "X-Real-Ip"]
client.proxy.connect.emulated_headers = ["Authorization"]
"#;

fn open() -> Open {
    let cookie = (HeaderName::from_static("cookie"), HeaderValue::from_static("s=1"));
    Open {
        kind: Kind::Bidirectional,
        native_ping: false,
        user: None,
        session: None,
        connect: None,
        address: super::bench::NEAR,
        headers: Box::new([cookie]),
        no_cookie: None,
        head: None,
    }
}

/// A client whose connect command the backend answers with this.
fn connect(bench: &mut Bench, command: &str, answer: &str) -> (usize, Value, Vec<String>) {
    let at = bench.open_with(open());
    bench.say(at, &format!(r#"{{"id":1,"connect":{command}}}"#));
    let call = bench.backend_says(answer);
    (at, serde_json::to_value(&call.ask).unwrap(), bench.heard(at))
}

#[test]
fn a_client_without_a_token_is_whom_the_backend_says() {
    let mut bench = Bench::new(CONNECT);
    let at = bench.open_with(open());
    bench.say(
        at,
        r#"{"id":1,"connect":{"name":"js","data":{"a":1},"headers":{"authorization":"x","Cookie":"no"}}}"#,
    );
    // It is not read while it waits.
    bench.say(at, r#"{"id":2,"presence":{"channel":"a"}}"#);
    assert!(bench.heard(at).is_empty());
    let client = bench.clients[at].session.as_ref().unwrap().client().to_string();
    let call = bench.backend_says(
        r#"{"result":{"user":"ann","info":{"n":1},"data":{"hi":2},"channels":["a"],"subs":{"b":{"data":3}}}}"#,
    );
    assert_eq!(
        serde_json::to_value(&call.ask).unwrap(),
        json!({"client": client, "transport": "websocket", "protocol": "json", "encoding": "json",
               "name": "js", "data": {"a": 1}})
    );
    let headers: Vec<_> = call.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(headers.len(), 2, "{headers:?}");
    assert_eq!((headers[0].0, headers[0].1.as_bytes()), ("cookie", &b"s=1"[..]));
    assert_eq!((headers[1].0, headers[1].1.as_bytes()), ("authorization", &b"x"[..]));
    let heard = bench.heard(at);
    assert_eq!(
        heard[0],
        r#"{"id":1,"connect":{"client":"C0","version":"V","data":{"hi":2},"subs":{"b":{"data":3},"a":{}},"ping":25,"pong":true}}"#
    );
    assert_eq!(heard[1], r#"{"id":2,"error":{"code":108,"message":"not available"}}"#);
    assert_eq!(&**bench.clients[at].session.as_ref().unwrap().user(), "ann");
    assert_eq!(bench.identified, 1);
}

#[test]
fn what_a_backend_has_against_a_connection_reaches_the_client() {
    let mut bench = Bench::new(CONNECT);
    let (_, _, heard) =
        connect(&mut bench, "{}", r#"{"error":{"code":1000,"message":"no","temporary":true}}"#);
    assert_eq!(heard, [r#"{"id":1,"error":{"code":1000,"message":"no","temporary":true}}"#]);
    let (at, _, _) = connect(&mut bench, "{}", r#"{"disconnect":{"code":4501,"reason":"go"}}"#);
    assert_eq!(bench.clients[at].closed.as_ref().unwrap().reason, "go");
    assert_eq!(bench.close_code(at), Some(4501));
    let (at, _, _) = connect(&mut bench, "{}", "{}");
    assert_eq!(bench.close_code(at), Some(3501));
    let over = format!(r#"{{"result":{{"user":"a","expire_at":{START_UNIX_S}}}}}"#);
    let (_, _, heard) = connect(&mut bench, "{}", &over);
    assert_eq!(heard, [r#"{"id":1,"error":{"code":110,"message":"expired"}}"#]);
    for bad in [
        "",
        "[]",
        "no",
        r#"{"result":{"user":7}}"#,
        r#"{"error":{"code":7}}"#,
        r#"{"disconnect":{"code":3000}}"#,
        r#"{"result":{},"error":{"code":1000}}"#,
        r#"{"result":{"b64data":"*"}}"#,
    ] {
        let (at, _, heard) = connect(&mut bench, "{}", bad);
        let error =
            r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
        assert_eq!(heard, [error], "{bad}");
        bench.say(at, r#"{"id":2,"connect":{}}"#);
        assert_eq!(bench.close_code(at), Some(3501));
    }
    assert!(bench.calls.is_empty());
}

#[test]
fn a_token_comes_before_the_backend_and_anonymous_ones_after_it() {
    let mut bench =
        Bench::new(&format!("{CONNECT}client.allow_anonymous_connect_without_token = true"));
    bench.connected(&token(&json!({"sub": "ann"})));
    assert!(bench.calls.is_empty());
    let (_, _, heard) = connect(&mut bench, "{}", "{}");
    assert!(heard[0].contains("\"connect\""), "{heard:?}");
}

#[test]
fn a_client_that_goes_while_its_backend_thinks_leaves_nothing() {
    let mut bench = Bench::new(CONNECT);
    let at = bench.open_with(open());
    bench.say(at, r#"{"id":1,"connect":{}}"#);
    bench.end(at);
    bench.backend_says(r#"{"result":{"user":"ann","channels":["a"]}}"#);
    assert_eq!((bench.identified, bench.node.counts().subscriptions), (0, 0));
    let at = bench.open_with(open());
    bench.say(at, r#"{"id":1,"connect":{}}"#);
    bench.pass(10);
    assert_eq!(bench.close_code(at), Some(3502), "a backend has as long as the client");
}

const COMMANDS: &str = r#"
client.allow_anonymous_connect_without_token = true
rpc.proxy.endpoint = "http://app/rpc"
rpc.proxy.include_connection_meta = true
rpc.without_namespace.proxy_enabled = true
channel.proxy.publish.endpoint = "http://app/publish"
[[proxies]]
name = "subs"
endpoint = "http://app/subscribe"
[channel.without_namespace]
publish_proxy_enabled = true
subscribe_proxy_enabled = true
subscribe_proxy_name = "subs"
presence = true
history_size = 5
history_ttl = "1m"
"#;

#[test]
fn remote_calls_are_answered_by_the_backend() {
    let mut bench = Bench::new(COMMANDS);
    let at = bench.connected(&token(&json!({"sub": "ann", "meta": {"k": 1}})));
    bench.say(at, r#"{"id":2,"rpc":{"method":"m","data":[1]}}"#);
    let call = bench.backend_says(r#"{"result":{"data":{"x":1}}}"#);
    let asked = serde_json::to_value(&call.ask).unwrap();
    assert_eq!((&asked["user"], &asked["method"]), (&json!("ann"), &json!("m")));
    assert_eq!((&asked["data"], &asked["meta"]), (&json!([1]), &json!({"k": 1})));
    assert_eq!(bench.heard(at), [r#"{"id":2,"rpc":{"data":{"x":1}}}"#]);
    let heard = bench.ask(at, r#"{"id":3,"rpc":{"method":"ns:m"}}"#);
    assert_eq!(heard, [r#"{"id":3,"error":{"code":104,"message":"method not found"}}"#]);
    bench.say(at, r#"{"id":4,"rpc":{"method":"m"}}"#);
    bench.backend_says(r#"{"error":{"code":404,"message":"none"}}"#);
    assert_eq!(bench.heard(at), [r#"{"id":4,"error":{"code":404,"message":"none"}}"#]);
}

#[test]
fn a_namespace_of_remote_calls_is_unknown_or_off_or_answered() {
    let mut bench = Bench::new(
        "rpc.proxy.endpoint = \"http://app/rpc\"\n\
         [[rpc.namespaces]]\nname = \"math\"\nproxy_enabled = true\n\
         [[rpc.namespaces]]\nname = \"off\"\n",
    );
    let at = bench.connected(&token(&json!({"sub": "ann"})));
    bench.say(at, r#"{"id":2,"rpc":{"method":"math:sum","data":[1]}}"#);
    let call = bench.backend_says(r#"{"result":{"data":1}}"#);
    assert_eq!(call.ask.method.as_deref(), Some("math:sum"));
    assert_eq!(bench.heard(at), [r#"{"id":2,"rpc":{"data":1}}"#]);
    for method in ["none:x", "off:x", "x"] {
        let heard = bench.ask(at, &format!(r#"{{"id":3,"rpc":{{"method":"{method}"}}}}"#));
        assert_eq!(heard, [r#"{"id":3,"error":{"code":104,"message":"method not found"}}"#]);
    }
    // Where nothing at all can answer, it is not available.
    let mut bench = Bench::new("[[rpc.namespaces]]\nname = \"off\"\n");
    let at = bench.connected(&token(&json!({"sub": "ann"})));
    for method in ["none:x", "off:x", "x"] {
        let heard = bench.ask(at, &format!(r#"{{"id":3,"rpc":{{"method":"{method}"}}}}"#));
        assert_eq!(heard, [r#"{"id":3,"error":{"code":108,"message":"not available"}}"#]);
    }
}

#[test]
fn a_publication_is_what_the_backend_makes_of_it() {
    let mut bench = Bench::new(COMMANDS);
    let at = bench.connected(&token(&json!({"sub": "ann", "channels": ["a"]})));
    bench.say(at, r#"{"id":2,"publish":{"channel":"a","data":"rude"}}"#);
    let call =
        bench.backend_says(r#"{"result":{"data":"polite","tags":{"k":"v"},"skip_history":true}}"#);
    assert_eq!(call.ask.channel.as_deref(), Some("a"));
    let heard = bench.heard(at);
    assert!(heard.iter().any(|each| each == r#"{"id":2,"publish":{}}"#), "{heard:?}");
    let push = heard.iter().find(|each| each.contains("push")).unwrap();
    assert!(push.contains(r#""data":"polite""#) && push.contains(r#""tags":{"k":"v"}"#), "{push}");
    for (answer, code) in [("{}", 103), (r#"{"error":{"code":1000,"message":""}}"#, 1000)] {
        bench.say(at, r#"{"id":3,"publish":{"channel":"a","data":"rude"}}"#);
        bench.backend_says(answer);
        let heard = bench.heard(at);
        assert!(heard[0].contains(&format!("\"code\":{code}")) && heard.len() == 1, "{heard:?}");
    }
    assert_eq!(bench.allowance.used(), 0);
}

#[test]
fn a_subscription_needs_the_backends_word() {
    let mut bench = Bench::new(COMMANDS);
    let at = bench.connected(&token(&json!({"sub": "ann"})));
    bench.say(at, r#"{"id":2,"subscribe":{"channel":"a","data":{"q":1}}}"#);
    let at_end = START_UNIX_S + 30;
    let call = bench.backend_says(&format!(
        r#"{{"result":{{"data":{{"d":1}},"expire_at":{at_end},"override":{{"presence":{{"value":false}}}}}}}}"#
    ));
    assert_eq!(call.ask.data.unwrap().get(), r#"{"q":1}"#);
    assert_eq!(
        bench.heard(at),
        [r#"{"id":2,"subscribe":{"expires":true,"ttl":30,"data":{"d":1}}}"#]
    );
    for (answer, code) in [("{}", 103), (r#"{"error":{"code":403,"message":""}}"#, 403)] {
        bench.say(at, r#"{"id":3,"subscribe":{"channel":"b"}}"#);
        bench.backend_says(answer);
        let heard = bench.heard(at);
        assert!(heard[0].contains(&format!("\"code\":{code}")), "{heard:?}");
    }
    bench.say(at, r#"{"id":4,"subscribe":{"channel":"c"}}"#);
    bench.order(at, &Order::Unsubscribe { channel: "c".into() });
    bench.backend_says(r#"{"result":{}}"#);
    let heard = bench.heard(at);
    assert!(heard[1].contains(r#""unsubscribe":{"code":2000"#), "{heard:?}");
    bench.say(at, r#"{"id":5,"subscribe":{"channel":"d"}}"#);
    bench.end(at);
    bench.backend_says(r#"{"result":{}}"#);
    assert_eq!(bench.node.counts().subscriptions, 0);
}

const REFRESH: &str = r#"
client.proxy.refresh.enabled = true
client.proxy.refresh.endpoint = "http://app/refresh"
channel.proxy.sub_refresh.endpoint = "http://app/sub_refresh"
client.ping_interval = "0s"
[channel.without_namespace]
sub_refresh_proxy_enabled = true
"#;

#[test]
fn a_connection_goes_on_as_long_as_the_backend_says() {
    let mut bench = Bench::new(REFRESH);
    let at = bench.open();
    let claims = token(&json!({"sub": "ann", "exp": START_UNIX_S + 10}));
    let heard = bench.ask(at, &format!(r#"{{"id":1,"connect":{{"token":"{claims}"}}}}"#));
    assert!(!heard[0].contains("ttl"), "the client need not know: {heard:?}");
    bench.pass(9);
    assert!(bench.calls.is_empty());
    bench.pass(1);
    // The client may speak meanwhile.
    assert_eq!(bench.ask(at, r#"{"id":2,"rpc":{"method":"x"}}"#).len(), 1);
    let call =
        bench.backend_says(&format!(r#"{{"result":{{"expire_at":{}}}}}"#, START_UNIX_S + 20));
    assert_eq!(call.ask.user.as_deref(), Some("ann"));
    bench.pass(10);
    // A failure, and none at all: it is tried again after a minute.
    bench.backend_says("nonsense");
    bench.pass(59);
    assert!(bench.calls.is_empty());
    bench.pass(1);
    assert_eq!(bench.calls.len(), 1);
    assert_eq!(bench.close_code(at), None);
    bench.backend_says(r#"{"result":{"expired":true}}"#);
    assert_eq!(bench.close_code(at), Some(3005));
}

#[test]
fn a_client_may_not_refresh_what_the_backend_refreshes() {
    let mut bench = Bench::new(REFRESH);
    let at = bench.connected(&token(&json!({"sub": "ann"})));
    bench.say(at, r#"{"id":2,"refresh":{"token":"x"}}"#);
    assert_eq!(bench.close_code(at), Some(3501));
}

#[test]
fn a_subscription_goes_on_as_long_as_the_backend_says() {
    let mut bench = Bench::new(REFRESH);
    let at = bench.connected(&token(&json!({"sub": "ann"})));
    let sub = token(&json!({"sub": "ann", "channel": "a", "expire_at": START_UNIX_S + 10}));
    let heard =
        bench.ask(at, &format!(r#"{{"id":2,"subscribe":{{"channel":"a","token":"{sub}"}}}}"#));
    assert_eq!(heard, [r#"{"id":2,"subscribe":{}}"#]);
    bench.pass(10);
    let call =
        bench.backend_says(&format!(r#"{{"result":{{"expire_at":{}}}}}"#, START_UNIX_S + 15));
    assert_eq!(call.ask.channel.as_deref(), Some("a"));
    bench.pass(5);
    bench.backend_says(r#"{"error":{"code":500,"message":""}}"#);
    bench.pass(60);
    assert!(bench.heard(at).is_empty());
    bench.backend_says(r#"{"result":{"expired":true}}"#);
    assert!(bench.heard(at)[0].contains(r#""unsubscribe":{"code":2501"#));
    assert_eq!(bench.node.counts().subscriptions, 0);
}

#[test]
fn a_client_that_only_listens_is_asked_about_too() {
    let mut bench = Bench::new(CONNECT);
    let uni = || Open { kind: Kind::Unidirectional, connect: Some("{}".into()), ..open() };
    let at = bench.open_with(uni());
    let call = bench.backend_says(r#"{"result":{"user":"ann","data":1,"channels":["a"]}}"#);
    assert_eq!(call.ask.transport, "uni_websocket");
    let heard = bench.heard(at);
    assert!(heard[0].contains(r#""data":1"#) && heard[0].contains(r#""a":{}"#), "{heard:?}");
    let at = bench.open_with(uni());
    bench.backend_says("nonsense");
    assert_eq!(bench.close_code(at), Some(3004), "it comes back by itself");
}

/// What an operator is told of such an answer by `throng backend try`.
fn judged(bench: &Bench, kind: backend::Kind, answer: &str) -> (bool, Option<u32>) {
    let trying = backend::Trying {
        kind,
        address: "127.0.0.1".parse().unwrap(),
        headers: Vec::new(),
        data: None,
        user: "ann".to_owned(),
        channel: Some("a".to_owned()),
        method: Some("m".to_owned()),
    };
    let verdict = backend::judged(&bench.settings, &trying, answer, START_UNIX_S);
    (verdict.outcome == backend::Outcome::Accepted, verdict.code)
}

/// What a client got: whether it was let through, and the code where not.
fn got(bench: &Bench, at: usize, heard: &[String]) -> (bool, Option<u32>) {
    let reply: Option<Value> = heard.first().map(|reply| serde_json::from_str(reply).unwrap());
    let error = reply.as_ref().and_then(|reply| reply["error"]["code"].as_u64());
    let code = error.and_then(|code| u32::try_from(code).ok());
    let code = code.or(bench.close_code(at).map(u32::from));
    (code.is_none(), code)
}

#[test]
fn a_question_by_hand_comes_to_what_the_session_does() {
    let past = format!(r#"{{"result":{{"user":"ann","expire_at":{}}}}}"#, START_UNIX_S - 1);
    let anonymous = "client.allow_anonymous_connect_without_token = true\n";
    for (more, answer) in [
        ("", r#"{"result":{"user":"ann","channels":["a"],"subs":{"b":{}}}}"#),
        ("", r#"{"result":{}}"#),
        ("", past.as_str()),
        ("", r#"{"result":{"user":"ann","channels":["unknown:a"]}}"#),
        ("client.channel_limit = 1\n", r#"{"result":{"user":"ann","channels":["a","b"]}}"#),
        ("", "{}"),
        (anonymous, "{}"),
        ("", r#"{"error":{"code":1000,"message":"no"}}"#),
        ("", r#"{"disconnect":{"code":4501,"reason":"no"}}"#),
        ("", "nonsense"),
        ("", r#"{"error":{"code":1,"message":"no"}}"#),
    ] {
        let mut bench = Bench::new(&format!("{CONNECT}{more}"));
        let (at, _, heard) = connect(&mut bench, "{}", answer);
        let told = judged(&bench, backend::Kind::Connect, answer);
        assert_eq!(told, got(&bench, at, &heard), "{more}{answer}");
    }
    let commands = [
        (backend::Kind::Subscribe, r#"{"id":2,"subscribe":{"channel":"a"}}"#),
        (backend::Kind::Publish, r#"{"id":2,"publish":{"channel":"a","data":{}}}"#),
        (backend::Kind::Rpc, r#"{"id":2,"rpc":{"method":"m"}}"#),
    ];
    for (kind, command) in commands {
        for answer in [
            r#"{"result":{}}"#,
            "{}",
            past.as_str(),
            r#"{"result":{"data":"text"}}"#,
            r#"{"error":{"code":1000,"message":"no"}}"#,
            r#"{"disconnect":{"code":4501,"reason":"no"}}"#,
            "nonsense",
        ] {
            let json = "channel.publication_data_format = \"json_object\"\n";
            let mut bench = Bench::new(&format!("{json}{COMMANDS}"));
            let at = bench.connected(&token(&json!({"sub": "ann"})));
            bench.say(at, command);
            bench.backend_says(answer);
            let heard = bench.heard(at);
            assert_eq!(judged(&bench, kind, answer), got(&bench, at, &heard), "{command} {answer}");
        }
    }
}
