//! The application that says who a client is: asked by hand, looked after, and not asked again
//! without need.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;
use throng_load::client::{Client, Manner};

use crate::Dir;
use crate::app::App;
use crate::control::{PATIENCE, Running, until};

/// An application that knows whoever sends `user=NAME` as a cookie.
fn knows_users(request: &str) -> (u16, String) {
    match request.split("cookie: user=").nth(1).and_then(|rest| rest.lines().next()) {
        Some(user) => (200, format!("{{\"result\":{{\"user\":\"{user}\"}}}}")),
        None => (200, r#"{"disconnect":{"code":4501,"reason":"log in first"}}"#.to_owned()),
    }
}

fn asks(app: &App, more: &str) -> String {
    let url = app.url("/connect?key=k");
    format!("[client.proxy.connect]\nenabled = true\nendpoint = \"{url}\"\n{more}\n")
}

fn written(config: &str) -> Dir {
    let dir = Dir::new();
    dir.write("throng.toml", config);
    dir
}

/// A client with these header lines; the reply to its connect command.
fn greet(server: &Running, headers: &str) -> Result<Client, Option<u32>> {
    let url = format!("ws://127.0.0.1:{}/connection/websocket", server.port);
    let manner = Manner { headers: headers.to_owned(), ..Manner::default() };
    let mut client = Client::connect(&url, &manner).unwrap();
    match client.greet("", PATIENCE) {
        Ok(_) => Ok(client),
        Err(error) => Err(error.code),
    }
}

#[test]
fn a_question_by_hand_shows_the_very_request_and_who_the_client_would_be() {
    let app = App::start(knows_users);
    let more = "http_headers = [\"Cookie\"]\nhttp.static_headers = { X-Key = \"k\" }";
    let dir = written(&asks(&app, more));
    let question = ["backend", "try", "connect", "--cookie", "user=ann", "--addr", "203.0.113.7"];
    let ran =
        dir.throng(&[&question[..], &["--header", "X-Other: o", "--data", "{\"a\":1}"]].concat());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(
        ran.out.ends_with("ACCEPTED: the client is let in as the user \"ann\"\n"),
        "{}",
        ran.out
    );
    let seen = app.seen();
    assert_eq!(seen.len(), 1);
    let shown: String = ran
        .out
        .lines()
        .skip_while(|line| !line.starts_with("    POST "))
        .take_while(|line| line.starts_with("    ") || line.is_empty())
        .filter_map(|line| line.strip_prefix("    ").or(Some(line)))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(shown.trim_end(), seen[0].replace("\r\n", "\n"), "byte for byte");
    for line in ["x-real-ip: 203.0.113.7", "x-forwarded-for: 203.0.113.7", "x-key: k"] {
        assert!(seen[0].contains(&format!("\r\n{line}\r\n")), "{}", seen[0]);
    }
    assert!(seen[0].starts_with("POST /connect?key=k HTTP/1.1\r\n"), "{}", seen[0]);
    assert!(ran.out.contains("\nnot passed on: x-other (client.proxy.connect.http_headers"));
    assert!(ran.out.contains("    status 200\n    x-app: yes\n"), "{}", ran.out);

    let ran = dir.throng(&["backend", "try", "connect", "--json"]);
    assert_eq!(ran.status, 1);
    let tried: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(tried["verdict"]["outcome"], "refused");
    assert_eq!(
        (&tried["verdict"]["code"], &tried["answer"]["status"]),
        (&4501.into(), &200.into())
    );
    assert!(tried["verdict"]["advice"][0].as_str().unwrap().contains("--cookie"), "{tried}");
}

#[test]
fn a_cookie_that_is_not_passed_on_names_the_option() {
    let app = App::start(knows_users);
    let dir = written(&asks(&app, ""));
    let ran = dir.throng(&["backend", "try", "connect", "--cookie", "user=ann"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    let text = ran.out.replace('\n', " ");
    assert!(text.contains("REFUSED: the client is closed with 4501 \"log in first\""), "{text}");
    assert!(ran.out.contains("http_headers = [\"Cookie\"]"), "{}", ran.out);
}

#[test]
fn an_answer_that_cannot_be_used_and_none_say_what_to_change() {
    let status = Arc::new(AtomicU16::new(0));
    let app = App::start({
        let status = Arc::clone(&status);
        move |_| (status.load(Ordering::SeqCst), "<html>login</html>".to_owned())
    });
    let dir = written(&asks(&app, ""));
    for (answer, words) in [
        (200, "answered what is not JSON"),
        (302, "a redirect, which is not followed"),
        (404, "not one that the application answers with POST"),
        (419, "CSRF"),
        (500, "own log"),
    ] {
        status.store(answer, Ordering::SeqCst);
        let ran = dir.throng(&["backend", "try", "connect"]);
        assert_eq!((ran.status, ran.err.as_str()), (1, ""), "{}", ran.out);
        let text = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("BROKEN: the backend ") && text.contains(words), "{words}: {text}");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = written(&format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"http://127.0.0.1:{port}\"\n"
    ));
    let ran = dir.throng(&["backend", "try", "connect"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.out.contains("cannot be connected to") && ran.out.contains("start the application")
    );
}

#[test]
fn every_question_is_asked_and_who_is_not_configured_is_named_with_a_sample() {
    let app = App::start(|request| match request.split(' ').nth(1).unwrap() {
        "/subscribe" => (200, r#"{"result":{}}"#.to_owned()),
        "/publish" => (200, "{}".to_owned()),
        "/rpc" => (200, r#"{"result":{"data":1}}"#.to_owned()),
        "/refresh" => (200, r#"{"result":{"expired":true}}"#.to_owned()),
        _ => (500, String::new()),
    });
    let at = |path: &str| format!("\"{}\"", app.url(path));
    let dir = written(&format!(
        "[client.proxy.refresh]\nenabled = true\nendpoint = {}\n[rpc.proxy]\nendpoint = {}\n\
         [[rpc.namespaces]]\nname = \"math\"\nproxy_enabled = true\n\
         [channel.proxy.subscribe]\nendpoint = {}\n[channel.proxy.publish]\nendpoint = {}\n\
         [channel.proxy.sub_refresh]\nendpoint = {}\n[channel.without_namespace]\n\
         subscribe_proxy_enabled = true\npublish_proxy_enabled = true\nsub_refresh_proxy_enabled = true\n",
        at("/refresh"),
        at("/rpc"),
        at("/subscribe"),
        at("/publish"),
        at("/sub_refresh")
    ));
    for (arguments, status, words) in [
        (&["subscribe", "--channel", "a", "--user", "ann"][..], 0, "is subscribed"),
        (&["publish", "--channel", "a", "--data", "1"], 1, "error 103"),
        (&["rpc", "--method", "math:sum"], 0, "the data of the answer"),
        (&["refresh", "--user", "ann"], 1, "3005"),
        (&["sub_refresh", "--channel", "a"], 1, "again in 60 s"),
    ] {
        let ran = dir.throng(&[&["backend", "try"], arguments].concat());
        assert_eq!((ran.status, ran.err.as_str()), (status, ""), "{}", ran.out);
        let text = ran.out.replace('\n', " ");
        assert!(text.contains(words), "{words}: {text}");
    }
    for (arguments, words) in [
        (&["connect"][..], "[client.proxy.connect]\n    enabled = true\n    endpoint = \"http://"),
        (&["rpc", "--method", "sum"], "[rpc.without_namespace]\n    proxy_enabled = true"),
        (&["rpc", "--method", "other:sum"], "rpc.namespaces has no \"other\""),
        (&["subscribe", "--channel", "x:a"], "not in channel.namespaces"),
        (&["publish", "--channel", "a"], "needs --data"),
        (&["connect", "--user", "ann"], "who the user is, is what it asks"),
    ] {
        let ran = dir.throng(&[&["backend", "try"], arguments].concat());
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}

#[test]
fn a_connect_backend_that_fails_makes_the_server_unhealthy_until_it_answers_again() {
    let status = Arc::new(AtomicU16::new(502));
    let app = App::start({
        let status = Arc::clone(&status);
        move |request| (status.load(Ordering::SeqCst), knows_users(request).1)
    });
    let server = Running::with("", &asks(&app, "http_headers = [\"Cookie\"]\ncache_ttl = \"1m\""));
    assert!(server.ask(&["status"]).out.starts_with("healthy\n"));
    for _ in 0..3 {
        assert_eq!(greet(&server, "Cookie: user=ann\r\n").unwrap_err(), Some(100));
    }
    let ran = server.ask(&["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    assert!(ran.out.starts_with("NOT HEALTHY: the connect backend http://"), "{}", ran.out);
    assert!(ran.out.contains("3 calls, 3 failed"), "{}", ran.out);
    assert!(ran.out.contains("FAILING, last 0 s ago: it answered 502"), "{}", ran.out);
    assert!(!ran.out.contains("key=k"), "the query may be a secret: {}", ran.out);
    status.store(200, Ordering::SeqCst);
    for _ in 0..5 {
        greet(&server, "Cookie: user=ann\r\n").map(Client::close).unwrap();
    }
    let status = server.json(&["status", "--json"]);
    let backend = &status["backends"][0];
    assert_eq!((&backend["calls"], &backend["failed"]), (&4.into(), &3.into()));
    assert_eq!(
        (&backend["failing"], &backend["option"]),
        (&false.into(), &"client.proxy.connect".into())
    );
    assert!(backend["p99_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&status["cache"]["hits"], &status["cache"]["misses"]), (&4.into(), &4.into()));
    assert_eq!(status["cache"]["kept"], 1);
}

#[test]
fn a_cookie_that_never_came_is_said_with_page_and_server() {
    let app = App::start(knows_users);
    let server = Running::with("", &asks(&app, "http_headers = [\"Cookie\"]"));
    let page = "Origin: https://example.com\r\n";
    assert_eq!(greet(&server, page).unwrap_err(), Some(4501));
    let left = until(|| {
        let who = server.json(&["who", "--json"]);
        who["closes"]["left"].get(0).cloned()
    });
    assert_eq!(left["note"], "client sent none: page example.com, server 127.0.0.1");
    let text = server.ask(&["who"]).out;
    assert!(text.contains("4501 log in first (client sent none: page example.com"), "{text}");
    let line =
        "http_headers names Cookie and the client sent none: page example.com, server 127.0.0.1";
    until(|| server.log().contains(line).then_some(Value::Null));
    // Of one that did come, nothing is said.
    greet(&server, "Cookie: user=SECRET\r\n").map(Client::close).unwrap();
    assert!(!server.log().contains("user=SECRET"));
}

#[test]
fn a_user_that_is_sent_away_does_not_return_through_the_cache() {
    // What is answered about the blocked user waits until it is let go.
    let gate = Arc::new((Mutex::new(true), Condvar::new()));
    let app = App::start({
        let gate = Arc::clone(&gate);
        move |request| {
            if request.contains("user=slow") {
                let (open, changed) = &*gate;
                drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            }
            knows_users(request)
        }
    });
    let server = Running::with(
        "",
        &asks(&app, "http_headers = [\"Cookie\"]\ncache_ttl = \"1h\"\ntimeout = \"20s\""),
    );
    let ann = || greet(&server, "Cookie: user=ann\r\n").unwrap();
    let asked = |user: &str| {
        let cookie = format!("cookie: user={user}\r\n");
        app.seen().iter().filter(|request| request.contains(&cookie)).count()
    };
    let disconnect = |user: &str| {
        let url = format!("http://127.0.0.1:{}", server.port);
        let ran = server.dir.throng(&["disconnect", user, "--url", &url]);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{}", ran.out);
    };
    let mut first = ann();
    ann().close();
    assert_eq!(asked("ann"), 1, "a reconnect is answered from the cache");
    disconnect("ann");
    let error = first.next_line(PATIENCE).unwrap_err();
    assert_eq!(error.code, Some(3503));
    ann().close();
    assert_eq!(asked("ann"), 2, "and after it the application is asked again");

    // An answer that was under way when the user was sent away is not kept.
    let open = |is_open| {
        *gate.0.lock().unwrap() = is_open;
        gate.1.notify_all();
    };
    open(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| greet(&server, "Cookie: user=slow\r\n").map(Client::close));
        until(|| (asked("slow") == 1).then_some(Value::Null));
        disconnect("slow");
        open(true);
        waiting.join().unwrap().unwrap();
    });
    greet(&server, "Cookie: user=slow\r\n").map(Client::close).unwrap();
    assert_eq!(asked("slow"), 2);
}
