//! Limits that are set: who is over them is told so, and the others are not touched.

use std::time::Duration;

use throng_server::config::Token;
use throng_server::token::Signer;

use crate::client::{Client, SOCKET, http, request};
use crate::server::Server;

/// A token for this user, as the application would make it.
pub(crate) fn token(user: &str) -> String {
    let key = Token { hmac_secret_key: "test-secret".to_owned(), ..Token::default() };
    let ttl = Some(Duration::from_secs(600));
    key.issue_connection(user, ttl, unix_s(), Signer::Secret).unwrap()
}

fn unix_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn more_connections_than_the_limit_are_503() {
    let server = Server::start("client.connection_limit = 2");
    let (one, _) = Client::connected(server.address, "");
    let refused = Client::upgrade(server.address, SOCKET, &[], b"").err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: "), "{refused:?}");
    assert!(refused.body.contains(r#"{"error":"server full"}"#), "{refused:?}");
    server.logged("client.connection_limit is reached");
    drop(one);
    server.becomes("info", "{}", "\"num_clients\":1");
    // The socket's place comes back right after its session's.
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while Client::upgrade(server.address, SOCKET, &[], b"").is_err() {
        assert!(std::time::Instant::now() < deadline);
    }
    server.stop();
}

#[test]
fn more_arrivals_than_the_rate_are_503() {
    let server = Server::start("client.connection_rate_limit = 2");
    let outcomes: Vec<_> =
        (0..20).map(|_| Client::upgrade(server.address, SOCKET, &[], b"")).collect();
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let refused: Vec<u16> = refused.map(|answer| answer.status).collect();
    assert!(refused.len() >= 10 && refused.iter().all(|status| *status == 503), "{refused:?}");
    server.logged("more come than client.connection_rate_limit allows");
    server.stop();
}

#[test]
fn more_connections_of_a_user_than_the_limit_are_closed_with_3504() {
    let server = Server::start("client.user_connection_limit = 1");
    let (ann, _) = Client::connected(server.address, &token("ann"));
    let mut second = Client::connect(server.address);
    second.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
    assert_eq!(second.close(), (3504, "connection limit".to_owned()));
    Client::connected(server.address, &token("bob"));
    drop(ann);
    server.becomes("info", "{}", "\"num_users\":1");
    Client::connected(server.address, &token("ann"));
    server.logged("client.user_connection_limit");
    server.stop();
}

#[test]
fn of_a_users_connections_that_come_at_once_no_more_than_the_limit_stay() {
    let server = Server::start("client.user_connection_limit = 3");
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann"));
    for _ in 0..10 {
        let mut crowd: Vec<Client> = (0..9).map(|_| Client::connect(server.address)).collect();
        for client in &mut crowd {
            client.say(&connect);
        }
        // Who is let in is pinged by nobody for now: it says something to be told its place.
        let stayed = crowd.iter_mut().filter_map(|client| {
            client.say(r#"{"id":2,"rpc":{"method":"x"}}"#);
            let first = client.hear_or_end()?;
            assert!(first.starts_with(r#"{"id":1,"connect""#), "{first}");
            client.hear_or_end()
        });
        assert_eq!(stayed.count(), 3);
        drop(crowd);
        server.becomes("info", "{}", "\"num_clients\":1");
    }
    server.stop();
}

#[test]
fn a_newer_connection_takes_the_place_of_an_older_one_where_that_is_on() {
    let server = Server::start(
        "client.subscribe_to_user_personal_channel.enabled = true\n\
         client.subscribe_to_user_personal_channel.single_connection = true",
    );
    let (mut older, _) = Client::connected(server.address, &token("ann"));
    let (mut newer, _) = Client::connected(server.address, &token("ann"));
    assert_eq!(older.close().0, 3504);
    crate::client::api(server.address, "publish", r##"{"channel":"#ann","data":1}"##);
    assert_eq!(newer.hear(), r##"{"push":{"channel":"#ann","pub":{"data":1}}}"##);
    server.stop();
}

#[test]
fn of_many_connections_that_come_at_once_one_stays() {
    let server = Server::start(
        "client.subscribe_to_user_personal_channel.enabled = true\n\
         client.subscribe_to_user_personal_channel.single_connection = true",
    );
    for _ in 0..10 {
        let mut crowd: Vec<Client> = (0..8).map(|_| Client::connect(server.address)).collect();
        let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann"));
        for client in crowd.iter_mut().rev() {
            client.say(&connect);
        }
        let mut stayed = crowd.pop().unwrap();
        stayed.hear();
        for client in &mut crowd {
            assert_eq!(client.close().0, 3504);
        }
        crate::client::api(server.address, "publish", r##"{"channel":"#ann","data":1}"##);
        assert_eq!(stayed.hear(), r##"{"push":{"channel":"#ann","pub":{"data":1}}}"##);
    }
    server.stop();
}

#[test]
fn a_publishing_client_waits_where_slow_ones_fill_the_buffers() {
    let mut server = Server::start(
        "limits.buffer_bytes = \"1MiB\"\nlimits.publish_timeout = \"50ms\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\n\
         allow_publish_for_client = true",
    );
    let (mut slow, _) = Client::connected(server.address, &token("slow"));
    slow.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    assert_eq!(slow.hear(), r#"{"id":2,"subscribe":{}}"#);
    // It reads no more; when its socket is full, and then the buffers, publishing ends.
    let body = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(50_000));
    let full = r#"{"error":{"code":111,"message":"too many requests"}}"#;
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while crate::client::api(server.address, "publish", &body) != full {
        assert!(std::time::Instant::now() < deadline, "it is never full");
    }
    server.logged("limits.buffer_bytes");
    let (mut writer, _) = Client::connected(server.address, &token("ann"));
    let data = "y".repeat(60_000);
    writer.say(&format!(r#"{{"id":2,"publish":{{"channel":"b","data":"{data}"}}}}"#));
    writer.say(r#"{"id":3,"presence":{"channel":"b"}}"#);
    let (mut other, _) = Client::connected(server.address, &token("bob"));
    other.say(r#"{"id":2,"presence":{"channel":"b"}}"#);
    assert!(other.hear().contains("\"code\":108"), "others are served meanwhile");
    drop(slow);
    assert_eq!(writer.hear(), r#"{"id":2,"publish":{}}"#);
    assert!(writer.hear().starts_with(r#"{"id":3,"error":{"code":108"#));
    server.witness();
    server.stop();
}

#[test]
fn health_answers_where_it_is_on_and_says_so_where_it_is_off() {
    let server = Server::start("health.enabled = true");
    for path in ["/health", "/health/ready", "/health/live"] {
        let answer = http(server.address, request(&format!("GET {path}"), &[]).as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{path}");
    }
    server.stop();
    let server = Server::start("");
    let answer = http(server.address, request("GET /health", &[]).as_bytes());
    assert_eq!((answer.status, answer.body.as_str()), (404, "health.enabled is off\n"));
    server.stop();
}

#[test]
fn a_unidirectional_page_needs_no_library() {
    let server = Server::start(
        "uni_websocket.enabled = true\n[channel.without_namespace]\n\
         allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true",
    );
    let path = "/connection/uni_websocket";
    let mut one = Client::upgrade(server.address, path, &[], b"").ok().unwrap();
    one.say(r#"{"subs":{"news":{}}}"#);
    assert!(one.hear().starts_with(r#"{"connect":{"client":"#));
    let query = "?cf_connect=%7B%22subs%22%3A%7B%22news%22%3A%7B%7D%7D%7D";
    let mut two =
        Client::upgrade(server.address, &format!("{path}{query}"), &[], b"").ok().unwrap();
    assert!(two.hear().starts_with(r#"{"connect":{"client":"#));
    crate::client::api(server.address, "publish", r#"{"channel":"news","data":{"a":1}}"#);
    for client in [&mut one, &mut two] {
        assert_eq!(client.hear(), r#"{"channel":"news","pub":{"data":{"a":1}}}"#);
    }
    crate::client::api(server.address, "disconnect", r#"{"user":""}"#);
    let push = r#"{"disconnect":{"code":3503,"reason":"force disconnect"}}"#;
    assert_eq!(one.hear(), push);
    assert_eq!(one.close().0, 3503);
    drop(server);
}

#[test]
fn a_unidirectional_connection_may_end_without_a_word() {
    let end = |options: &str| {
        let server = Server::without_witness(&format!("uni_websocket.enabled = true\n{options}"));
        let path = "/connection/uni_websocket?cf_connect=%7B%7D";
        let mut client = Client::upgrade(server.address, path, &[], b"").ok().unwrap();
        client.hear();
        crate::client::api(server.address, "disconnect", r#"{"user":""}"#);
        let heard = client.hear_or_end();
        let said = heard.is_some();
        let closes = said && client.hear_or_end().is_none();
        server.stop();
        (said, closes)
    };
    assert_eq!(end(""), (true, true));
    assert_eq!(end("uni_websocket.disable_disconnect_push = true"), (false, false));
    assert_eq!(end("uni_websocket.disable_closing_handshake = true"), (true, true));
}

#[test]
fn the_larger_limit_of_one_transport_is_not_the_others() {
    let server = Server::start(
        "uni_websocket.enabled = true\nuni_websocket.message_size_limit = 100\n\
         websocket.message_size_limit = 1000",
    );
    let path = "/connection/uni_websocket";
    let mut uni = Client::upgrade(server.address, path, &[], b"").ok().unwrap();
    uni.say(&" ".repeat(101));
    assert_eq!(uni.close().0, 1009);
    let (mut client, _) = Client::connected(server.address, "");
    client.say(&format!("{}{}", " ".repeat(200), r#"{"id":2,"rpc":{"method":"x"}}"#));
    assert!(client.hear().contains("\"code\":108"));
    client.say(&" ".repeat(1001));
    assert_eq!(client.close().0, 1009);
    server.logged("1009 a message is larger than uni_websocket.message_size_limit, which is 100");
    server.stop();
}
