//! Every method of the server API, by its exact answers.

use crate::client::{Client, api, post};
use crate::limits::token;
use crate::server::{KEY, Server};

const CHANNELS: &str = r#"
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
presence = true
[[channel.namespaces]]
name = "kept"
allow_subscribe_for_client = true
history_size = 3
history_ttl = "1m"
allow_recovery = true
"#;

/// A client of this user, subscribed to these channels.
fn subscriber(server: &Server, user: &str, channels: &[&str]) -> (Client, String) {
    let (mut client, id) = Client::connected(server.address, &token(user));
    for channel in channels {
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        let reply = client.hear();
        assert!(reply.starts_with(r#"{"id":2,"subscribe""#), "{reply}");
    }
    (client, id)
}

/// With the letters of a stream's epoch left out.
fn without_epoch(text: &str) -> String {
    let Some((before, rest)) = text.split_once("\"epoch\":\"") else { return text.to_owned() };
    format!("{before}\"epoch\":\"E{}", without_epoch(&rest[8..]))
}

fn error(code: u32, message: &str) -> String {
    format!(r#"{{"error":{{"code":{code},"message":"{message}"}}}}"#)
}

#[test]
fn publish_reaches_subscribers_and_tells_a_position_where_there_is_one() {
    let server = Server::start(CHANNELS);
    let (mut ann, _) = subscriber(&server, "ann", &["a", "kept:a"]);
    let publish = |body: &str| without_epoch(&api(server.address, "publish", body));
    let pretty = "{\"channel\":\"a\",\"data\":{\n  \"x\": 1\n},\"tags\":{\"b\":\"2\",\"a\":\"1\"}}";
    assert_eq!(publish(pretty), r#"{"result":{}}"#);
    let push = r#"{"push":{"channel":"a","pub":{"data":{  "x": 1},"tags":{"a":"1","b":"2"}}}}"#;
    assert_eq!(ann.hear(), push);
    assert_eq!(publish(r#"{"channel":"a","b64data":"WzEsMl0="}"#), r#"{"result":{}}"#);
    assert_eq!(ann.hear(), r#"{"push":{"channel":"a","pub":{"data":[1,2]}}}"#);
    let first = publish(r#"{"channel":"kept:a","data":1,"idempotency_key":"k"}"#);
    assert_eq!(first, r#"{"result":{"offset":1,"epoch":"E"}}"#);
    let again = publish(r#"{"channel":"kept:a","data":1,"idempotency_key":"k"}"#);
    assert_eq!(again, first);
    assert_eq!(publish(r#"{"channel":"kept:a","data":2,"skip_history":true}"#), r#"{"result":{}}"#);
    let second = publish(r#"{"channel":"kept:a","data":3,"version":7,"tags":null,"b64data":null}"#);
    assert_eq!(second, r#"{"result":{"offset":2,"epoch":"E"}}"#);
    assert_eq!(publish(r#"{"channel":"kept:a","data":4,"version":6}"#), second);
    let heard: Vec<String> = (0..3).map(|_| without_epoch(&ann.hear())).collect();
    assert_eq!(
        heard,
        [
            r#"{"push":{"channel":"kept:a","pub":{"data":1,"offset":1,"epoch":"E"}}}"#,
            r#"{"push":{"channel":"kept:a","pub":{"data":2}}}"#,
            r#"{"push":{"channel":"kept:a","pub":{"data":3,"offset":2}}}"#,
        ]
    );
    server.stop();
}

#[test]
fn broadcast_answers_for_each_channel_in_order() {
    let server = Server::start(CHANNELS);
    let (mut ann, _) = subscriber(&server, "ann", &["a"]);
    let body = r#"{"channels":["a","none:b","kept:c",""],"data":1}"#;
    let answer = without_epoch(&api(server.address, "broadcast", body));
    let unknown = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
    let bad = r#"{"error":{"code":107,"message":"bad request"}}"#;
    let kept = r#"{"result":{"offset":1,"epoch":"E"}}"#;
    let all = format!(r#"{{"result":{{"responses":[{{"result":{{}}}},{unknown},{kept},{bad}]}}}}"#);
    assert_eq!(answer, all);
    assert_eq!(ann.hear(), r#"{"push":{"channel":"a","pub":{"data":1}}}"#);
    assert_eq!(api(server.address, "broadcast", r#"{"data":1}"#), error(107, "bad request"));
    server.logged("102 a call of the API failed: none:b");
    server.stop();
}

#[test]
fn subscribe_and_unsubscribe_change_the_users_connections() {
    let server = Server::start(CHANNELS);
    let (mut one, id) = subscriber(&server, "ann", &[]);
    let (mut two, _) = subscriber(&server, "ann", &[]);
    let call = |method: &str, body: &str| api(server.address, method, body);
    let done = r#"{"result":{}}"#;
    let body = r#"{"user":"ann","channel":"a","data":{"n":1},"info":{"i":1}}"#;
    assert_eq!(call("subscribe", body), done);
    let push = r#"{"push":{"channel":"a","subscribe":{"data":{"n":1}}}}"#;
    assert_eq!((one.hear(), two.hear()), (push.to_owned(), push.to_owned()));
    let presence = call("presence", r#"{"channel":"a"}"#);
    assert!(
        presence
            .contains(&format!(r#""{id}":{{"user":"ann","client":"{id}","chan_info":{{"i":1}}}}"#)),
        "{presence}"
    );
    assert_eq!(
        call("unsubscribe", &format!(r#"{{"user":"ann","channel":"a","client":"{id}"}}"#)),
        done
    );
    let push =
        r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(one.hear(), push);
    assert_eq!(
        call("presence_stats", r#"{"channel":"a"}"#),
        r#"{"result":{"num_clients":1,"num_users":1}}"#
    );
    assert_eq!(call("unsubscribe", r#"{"user":"ann","channel":""}"#), done);
    assert_eq!(two.hear(), push);
    assert_eq!(call("subscribe", r#"{"user":"ann"}"#), error(107, "bad request"));
    for method in ["subscribe", "unsubscribe"] {
        assert_eq!(call(method, r#"{"user":"nobody","channel":"a"}"#), done);
        let unknown = call(method, r#"{"user":"ann","channel":"none:a"}"#);
        assert_eq!(unknown, error(102, "unknown channel"));
    }
    let body = r#"{"user":"ann","channel":"b","b64data":"eyJuIjoyfQ==","b64info":"MQ==",
        "override":{"presence":{"value":false}}}"#;
    assert_eq!(call("subscribe", body), done);
    assert_eq!(one.hear(), r#"{"push":{"channel":"b","subscribe":{"data":{"n":2}}}}"#);
    assert_eq!(call("presence", r#"{"channel":"b"}"#), r#"{"result":{"presence":{}}}"#);
    let bad = call("subscribe", r#"{"user":"ann","channel":"c","b64info":"!"}"#);
    assert_eq!(bad, error(107, "bad request"));
    server.stop();
}

#[test]
fn subscribe_recovers_from_the_position_it_is_given() {
    let server = Server::start(CHANNELS);
    for data in 1..=3 {
        api(server.address, "publish", &format!(r#"{{"channel":"kept:a","data":{data}}}"#));
    }
    let (mut ann, _) = subscriber(&server, "ann", &[]);
    let body = r#"{"user":"ann","channel":"kept:a","recover_since":{"offset":1,"epoch":""},
        "override":{"force_recovery":{"value":true}}}"#;
    api(server.address, "subscribe", body);
    let push = r#"{"push":{"channel":"kept:a","subscribe":{"recoverable":true,"epoch":"E","offset":1,"positioned":true}}}"#;
    assert_eq!(without_epoch(&ann.hear()), push);
    assert_eq!(ann.hear(), r#"{"push":{"channel":"kept:a","pub":{"data":2,"offset":2}}}"#);
    assert_eq!(ann.hear(), r#"{"push":{"channel":"kept:a","pub":{"data":3,"offset":3}}}"#);
    server.stop();
}

#[test]
fn disconnect_closes_with_its_code_all_but_the_whitelist() {
    let server = Server::start(CHANNELS);
    let (mut one, _) = subscriber(&server, "ann", &["a"]);
    let (mut two, id) = subscriber(&server, "ann", &["a"]);
    let call = |body: &str| api(server.address, "disconnect", body);
    assert_eq!(call(&format!(r#"{{"user":"ann","whitelist":["{id}"]}}"#)), r#"{"result":{}}"#);
    assert_eq!(one.close(), (3503, "force disconnect".to_owned()));
    server.becomes("presence_stats", r#"{"channel":"a"}"#, "\"num_clients\":1");
    let bad = r#"{"user":"ann","disconnect":{"code":1000,"reason":"x"}}"#;
    assert_eq!(call(bad), error(107, "bad request"));
    call(&format!(
        r#"{{"user":"ann","client":"{id}","disconnect":{{"code":4321,"reason":"bye"}}}}"#
    ));
    assert_eq!(two.close(), (4321, "bye".to_owned()));
    assert_eq!(call(r#"{"user":"nobody"}"#), r#"{"result":{}}"#);
    server.stop();
}

#[test]
fn refresh_tells_the_client_or_ends_it() {
    let server = Server::start(CHANNELS);
    let (mut ann, _) = subscriber(&server, "ann", &[]);
    let call = |body: &str| api(server.address, "refresh", body);
    assert_eq!(call(r#"{"user":"ann"}"#), r#"{"result":{}}"#);
    assert_eq!(ann.hear(), r#"{"push":{"refresh":{}}}"#);
    assert_eq!(call(r#"{"user":"ann","expired":true}"#), r#"{"result":{}}"#);
    assert_eq!(ann.close().0, 3005);
    server.stop();
}

#[test]
fn presence_is_told_where_it_is_on() {
    let server = Server::start(CHANNELS);
    let call = |method: &str, channel: &str| {
        api(server.address, method, &format!(r#"{{"channel":"{channel}"}}"#))
    };
    assert_eq!(call("presence", "a"), r#"{"result":{"presence":{}}}"#);
    assert_eq!(call("presence_stats", "a"), r#"{"result":{"num_clients":0,"num_users":0}}"#);
    let (ann, id) = subscriber(&server, "ann", &["a"]);
    let presence =
        format!(r#"{{"result":{{"presence":{{"{id}":{{"user":"ann","client":"{id}"}}}}}}}}"#);
    assert_eq!(call("presence", "a"), presence);
    for method in ["presence", "presence_stats"] {
        assert_eq!(call(method, "kept:a"), error(108, "not available"));
        assert_eq!(call(method, "none:a"), error(102, "unknown channel"));
        assert_eq!(call(method, ""), error(107, "bad request"));
    }
    drop(ann);
    server.becomes("presence", r#"{"channel":"a"}"#, r#"{"result":{"presence":{}}}"#);
    server.stop();
}

#[test]
fn history_is_read_in_pages_and_removed() {
    let server = Server::start(CHANNELS);
    let call = |rest: &str| {
        without_epoch(&api(server.address, "history", &format!(r#"{{"channel":"kept:a"{rest}}}"#)))
    };
    let page = |list: &str, offset: u32| {
        format!(r#"{{"result":{{"publications":[{list}],"epoch":"E","offset":{offset}}}}}"#)
    };
    assert_eq!(call(""), page("", 0));
    for data in 1..=4 {
        let body = format!(r#"{{"channel":"kept:a","data":{data},"tags":{{"t":"{data}"}}}}"#);
        api(server.address, "publish", &body);
    }
    let kept = |data: u32| format!(r#"{{"data":{data},"offset":{data},"tags":{{"t":"{data}"}}}}"#);
    assert_eq!(call(""), page("", 4));
    assert_eq!(call(r#","limit":-1"#), page(&[kept(2), kept(3), kept(4)].join(","), 4));
    assert_eq!(call(r#","limit":1,"since":{"offset":2}"#), page(&kept(3), 4));
    assert_eq!(call(r#","limit":2,"reverse":true"#), page(&[kept(4), kept(3)].join(","), 4));
    assert_eq!(call(r#","limit":9,"since":{"offset":4}"#), page("", 4));
    let foreign = call(r#","limit":9,"since":{"offset":4,"epoch":"zzzzzzzz"}"#);
    assert_eq!(foreign, error(112, "unrecoverable position"));
    let nowhere = call(r#","limit":9,"reverse":true,"since":{"offset":0}"#);
    assert_eq!(nowhere, error(100, "internal server error"));
    assert_eq!(
        api(server.address, "history_remove", r#"{"channel":"kept:a"}"#),
        r#"{"result":{}}"#
    );
    assert_eq!(call(r#","limit":-1"#), page("", 4));
    for method in ["history", "history_remove"] {
        assert_eq!(api(server.address, method, r#"{"channel":"a"}"#), error(108, "not available"));
    }
    server.stop();
}

#[test]
fn channels_and_info_tell_who_is_here() {
    let server = Server::start(CHANNELS);
    let (_ann, _) = subscriber(&server, "ann", &["a", "kept:b"]);
    let (_bob, _) = subscriber(&server, "bob", &["a"]);
    let call = |method: &str, body: &str| api(server.address, method, body);
    let all = r#"{"result":{"channels":{"a":{"num_clients":2},"kept:b":{"num_clients":1},"witness:all":{"num_clients":1}}}}"#;
    assert_eq!(call("channels", "{}"), all);
    let some = call("channels", r#"{"pattern":"kept:*"}"#);
    assert_eq!(some, r#"{"result":{"channels":{"kept:b":{"num_clients":1}}}}"#);
    assert_eq!(call("channels", r#"{"pattern":"none"}"#), r#"{"result":{"channels":{}}}"#);
    let info: serde_json::Value = serde_json::from_str(&call("info", "{}")).unwrap();
    let node = &info["result"]["nodes"][0];
    for (field, value) in
        [("num_clients", 3), ("num_users", 3), ("num_subs", 4), ("num_channels", 3)]
    {
        assert_eq!(node[field], value, "{field} in {info}");
    }
    assert!(!node["name"].as_str().unwrap().is_empty() && node["uptime"].is_u64(), "{info}");
    assert!(node["process"]["rss"].as_u64().unwrap() > 0, "{info}");
    server.stop();
}

#[test]
fn rpc_has_no_methods() {
    let server = Server::start(CHANNELS);
    let answer = api(server.address, "rpc", r#"{"method":"x","params":{}}"#);
    assert_eq!(answer, error(104, "method not found"));
    server.stop();
}

#[test]
fn a_batch_is_answered_unwrapped_and_in_order() {
    let server = Server::start(CHANNELS);
    let body = r#"{"parallel":true,"commands":[
        {"publish":{"channel":"a","data":1}},
        {"publish":{"channel":"none:a","data":1}},
        {"presence_stats":{"channel":"a"},"publish":null},
        {"batch":{"commands":[]}}, {"dance":{}}, {}]}"#;
    let replies = [
        r#"{"publish":{}}"#,
        r#"{"error":{"code":102,"message":"unknown channel"}}"#,
        r#"{"presence_stats":{"num_clients":0,"num_users":0}}"#,
        r#"{"error":{"code":107,"message":"bad request"}}"#,
        r#"{"error":{"code":104,"message":"method not found"}}"#,
        r#"{"error":{"code":107,"message":"bad request"}}"#,
    ];
    let answer = api(server.address, "batch", body);
    assert_eq!(answer, format!(r#"{{"replies":[{}]}}"#, replies.join(",")));
    assert_eq!(api(server.address, "batch", "{}"), r#"{"replies":[]}"#);
    server.stop();
}

#[test]
fn calls_in_the_old_form_are_answered_line_by_line() {
    let server = Server::start(CHANNELS);
    let body = "{\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":1}}\n\
                {\"method\":\"publish\",\"params\":{\"channel\":\"none:a\",\"data\":1}}\n\
                {\"method\":\"dance\",\"params\":{}}";
    let answer = post(server.address, "/api", &[("X-API-Key", KEY)], body.as_bytes());
    let lines = [
        "{\"result\":{}}".to_owned(),
        error(102, "unknown channel"),
        error(104, "method not found"),
    ];
    assert_eq!((answer.status, answer.body), (200, lines.join("\n")));
    server.stop();
}

#[test]
fn errors_are_statuses_where_that_is_asked_for() {
    let server = Server::start(CHANNELS);
    let headers = [("X-API-Key", KEY), ("X-Centrifugo-Error-Mode", "transport")];
    for (path, body, status, error) in [
        (
            "publish",
            r#"{"channel":"none:a","data":1}"#,
            404,
            r#"{"code":102,"message":"unknown channel"}"#,
        ),
        ("rpc", "{}", 404, r#"{"code":104,"message":"method not found"}"#),
        ("publish", "{}", 400, r#"{"code":107,"message":"bad request"}"#),
        ("history", r#"{"channel":"a"}"#, 400, r#"{"code":108,"message":"not available"}"#),
        (
            "history",
            r#"{"channel":"kept:a","since":{"offset":1,"epoch":"x"}}"#,
            416,
            r#"{"code":112,"message":"unrecoverable position"}"#,
        ),
        (
            "history",
            r#"{"channel":"kept:a","reverse":true,"since":{}}"#,
            500,
            r#"{"code":100,"message":"internal server error"}"#,
        ),
    ] {
        let answer = post(server.address, &format!("/api/{path}"), &headers, body.as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (status, error), "{path} {body}");
    }
    server.stop();
}

#[test]
fn who_asks_is_told_whom_a_publication_reached() {
    let server = Server::start(CHANNELS);
    let (_one, _) = subscriber(&server, "ann", &["news"]);
    let (_two, _) = subscriber(&server, "ann", &["news"]);
    let headers = [("X-API-Key", KEY), ("X-Throng-Audience", "true")];
    let publish = |channel: &str| {
        let body = format!(r#"{{"channel":"{channel}","data":1}}"#);
        post(server.address, "/api/publish", &headers, body.as_bytes()).body
    };
    let reached = r#"{"result":{},"audience":{"near":[],"subscribers":2,"users":1}}"#;
    assert_eq!(publish("news"), reached);
    let near = publish("nwes");
    assert!(
        near.contains(r#""near":[{"channel":"news","subscribers":2}],"subscribers":0"#),
        "{near}"
    );
    let body = br#"{"channels":["news","unknown:x"],"data":1}"#;
    let broadcast = post(server.address, "/api/broadcast", &headers, body).body;
    let error = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
    assert_eq!(broadcast, format!(r#"{{"result":{{"responses":[{reached},{error}]}}}}"#));
    server.stop();
}
