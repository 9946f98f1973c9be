//! The real binary, as a person or a script runs it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod app;
mod backend;
mod control;
mod doctor;
mod doctor_json;
mod full;
mod restart;
mod server;
mod stuck_log;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use server::Server;

/// A directory of its own for each test, gone afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("throng-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn throng(&self, arguments: &[&str]) -> Ran {
        let output = command(&self.0, arguments).output().unwrap();
        Ran::new(&output)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // the next run makes another
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    command.args(arguments).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}

#[test]
fn a_first_configuration_is_private_good_and_never_overwritten() {
    let dir = Dir::new();
    let ran = dir.throng(&["config", "init", "--origin", "https://example.com"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    for next in ["\n  throng serve\n", "throng subscribe news", "throng publish news '{\"text\""] {
        assert!(ran.out.contains(next), "{}", ran.out);
    }
    let file = dir.0.join("throng.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&file).unwrap();

    let again = dir.throng(&["config", "init", "--origin", "https://example.com"]);
    assert_eq!(again.status, 2);
    assert!(again.err.contains("is there already and is not overwritten"), "{}", again.err);
    assert_eq!(fs::read(&file).unwrap(), before);

    let checked = dir.throng(&["config", "check"]);
    assert_eq!((checked.status, checked.out.as_str()), (0, "throng.toml: good\n"));
    let bad = dir.throng(&["config", "init", "--origin", "example.com", "-o", "b.toml"]);
    assert_eq!(bad.status, 2);
    assert!(bad.err.contains("is not an origin: it has no scheme"), "{}", bad.err);
    assert!(!dir.0.join("b.toml").exists());
}

#[test]
fn a_check_says_every_problem_and_fails_on_unknown_keys() {
    let dir = Dir::new();
    dir.write("a.toml", "[client]\nping_interval = \"25\"\n[engine]\ntype = \"redis\"\n");
    let ran = dir.throng(&["config", "check", "-c", "a.toml"]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.starts_with(
        "problem: a.toml:2: client.ping_interval = \"25\": not a duration; write \"25s\"\n\
         problem: a.toml:4: engine.type = \"redis\": not supported yet; two nodes would each reach \
         only their own clients."
    ));
    assert!(ran.out.ends_with("a.toml: a server would not start; 2 problems\n"), "{}", ran.out);

    dir.write("b.yaml", "client:\n  allowed_orgins: []\n");
    let ran = dir.throng(&["config", "check", "-c", "b.yaml", "--json"]);
    assert_eq!(ran.status, 1);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["good"], false);
    assert_eq!(report["warnings"][0]["line"], 2);
    assert_eq!(report["warnings"][0]["path"], "client.allowed_orgins");

    dir.write("c.json", "{\"admin\": {\"enabled\": true}}");
    let ran = dir.throng(&["checkconfig", "-c", "c.json"]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    assert!(ran.out.contains("warning: c.json:1: admin.enabled = true: this is not there yet"));
    assert_eq!(dir.throng(&["config", "check", "-c", "none.toml"]).status, 2);
}

#[test]
fn a_configuration_of_centrifugo_is_taken_over() {
    let dir = Dir::new();
    dir.write(
        "config.json",
        r#"{"http_api": {"key": "k"}, "channel": {"history_meta_ttl": "1h"}}"#,
    );
    let ran = dir.throng(&["config", "import", "config.json", "-o", "throng.toml"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(ran.err, "2 options taken over; throng.toml is written, only you can read it\n");
    let mode = fs::metadata(dir.0.join("throng.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let checked = dir.throng(&["config", "check", "-c", "throng.toml"]);
    assert_eq!(checked.out, "throng.toml: good\n");
    let again = dir.throng(&["config", "import", "config.json", "-o", "throng.toml"]);
    assert_eq!(again.status, 2);

    dir.write("redis.yaml", "engine: {type: redis}\nadmin: {enabled: true}\n");
    let ran = dir.throng(&["config", "import", "redis.yaml"]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("# NOT SUPPORTED: two nodes"), "{}", ran.out);
    assert!(ran.err.starts_with("not supported: redis.yaml:1: engine.type"), "{}", ran.err);
    assert!(ran.err.contains("left out: redis.yaml:2: admin.enabled"), "{}", ran.err);

    let ran = dir.throng(&["config", "import", "none.json"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("none.json: cannot be read"), "{}", ran.err);

    let ran = dir.throng(&["config", "schema"]);
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    let interval = &schema["properties"]["client"]["properties"]["ping_interval"];
    assert_eq!(interval["default"], "25s");
}

#[test]
fn the_defaults_are_a_configuration() {
    let dir = Dir::new();
    let ran = dir.throng(&["config", "default"]);
    assert!(
        ran.out.contains("\n[http_server]\n# where to listen; empty: every address\n"),
        "{}",
        ran.out
    );
    dir.write("d.toml", &ran.out);
    assert_eq!(dir.throng(&["config", "check", "-c", "d.toml"]).out, "d.toml: good\n");
}

#[test]
fn a_token_is_made_with_the_configurations_key() {
    let dir = Dir::new();
    let ran = dir.throng(&["token", "--user", "42"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("no client.token.hmac_secret_key is set"), "{}", ran.err);
    assert!(ran.err.contains("-c FILE"));

    dir.write("config.json", "{\"client\": {\"token\": {\"hmac_secret_key\": \"k\"}}}");
    let ran = dir.throng(&["token", "--user", "42", "--channel", "$room", "--ttl", "1h"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out.trim_end().split('.').count(), 3);
    let ran = dir.throng(&["gentoken", "-u", "42", "-t", "60", "--json"]);
    let token: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(token["expires_at"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(dir.throng(&["token", "--user", "1", "--ttl", "soon"]).status, 2);
    assert_eq!(dir.throng(&["token"]).status, 2, "a usage error");
}

#[test]
fn a_code_is_explained_and_an_unknown_one_is_a_finding() {
    let dir = Dir::new();
    let ran = dir.throng(&["explain", "3500"]);
    assert!(ran.out.starts_with("3500 invalid token (disconnect)\n\n  The connection's token"));
    assert!(ran.out.ends_with("The client: stays disconnected.\n"));
    let ran = dir.throng(&["explain", "403", "--json"]);
    let all: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(all[0]["kind"], "HTTP status");
    let ran = dir.throng(&["explain", "77777"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("77777 is no code"));
    assert!(dir.throng(&["explain"]).out.lines().count() > 50);
}

#[test]
fn output_that_nobody_reads_on_is_no_error() {
    let dir = Dir::new();
    let mut child = command(&dir.0, &["config", "default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::new(&child.wait_with_output().unwrap());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

#[test]
fn a_server_with_a_bad_configuration_does_not_start() {
    let dir = Dir::new();
    let ran = dir.throng(&["serve", "-p", "x", "--client.insecure"]);
    assert_eq!(ran.status, 2);
    assert_eq!(
        ran.err,
        "--http_server.port = \"x\": not a whole number\n1 problem in the configuration\n"
    );
    let ran = dir.throng(&["--http_api.insecure", "--http_server.port=70000"]);
    assert!(ran.err.starts_with("--http_server.port = \"70000\": too large"), "{}", ran.err);
    let ran = dir.throng(&["serve", "--dev", "-a", "0.0.0.0"]);
    assert!(ran.err.contains("listens on 127.0.0.1 only"), "{}", ran.err);
}

#[test]
fn a_publication_goes_out_with_the_key_and_tells_its_audience() {
    let dir = Dir::new();
    let answer =
        r#"{"result":{},"audience":{"subscribers":0,"near":[{"channel":"news","subscribers":3}]}}"#;
    let server = Server::answering(200, answer);
    let file = format!("[http_server]\nport = {}\n[http_api]\nkey = \"K\"\n", server.port);
    dir.write("throng.toml", &file);
    let ran = dir.throng(&["publish", "nwes", "{\"a\": 1}"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "published to nwes: nobody is subscribed; close to it: news (3)\n");
    let request = server.request();
    assert!(request.starts_with("POST /api/publish HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nX-API-Key: K\r\n"));
    assert!(request.contains("\r\nX-Throng-Audience: true\r\n"));
    assert!(request.ends_with("{\"channel\":\"nwes\",\"data\":{\"a\":1}}"), "{request}");
}

#[test]
fn what_goes_wrong_with_a_publication_says_what_to_do() {
    let dir = Dir::new();
    let ran = dir.throng(&["publish", "news", "hello"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.ends_with("if it is meant as a text, write '\"hello\"'\n"), "{}", ran.err);

    let server = Server::answering(401, "");
    let url = format!("http://127.0.0.1:{}", server.port);
    let ran = dir.throng(&["publish", "news", "1", "--url", &url]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("--api-key"), "{}", ran.err);

    let server = Server::answering(200, r#"{"error":{"code":102,"message":"unknown channel"}}"#);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let ran = dir.throng(&["publish", "a:b", "1", "--url", &url]);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.err, "refused: 102 unknown channel (throng explain 102)\n");

    // Nobody listens on port 1.
    let port = 1;
    let ran = dir.throng(&["info", "--url", &format!("127.0.0.1:{port}")]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("start one with `throng serve`"), "{}", ran.err);
}

#[test]
fn a_broadcast_fails_where_one_channel_refuses() {
    let dir = Dir::new();
    let answer = r#"{"result":{"responses":[{"result":{},"audience":{"subscribers":1,"users":1}},
        {"error":{"code":102,"message":"unknown channel"}}]}}"#;
    let server = Server::answering(200, answer);
    let url = format!("http://127.0.0.1:{}", server.port);
    let ran = dir.throng(&["broadcast", "a", "b:c", "1", "--url", &url]);
    assert_eq!(
        ran.out,
        "published to a: 1 subscriber (1 user)\n\
         b:c: refused: 102 unknown channel (throng explain 102)\n"
    );
    assert_eq!((ran.status, ran.err.as_str()), (1, "1 of 2 channels refused it\n"));
}

#[test]
fn a_subscriber_prints_what_arrives_answers_pings_and_says_how_it_ended() {
    let dir = Dir::new();
    let server = Server::speaking(&[
        "{\"id\":1,\"connect\":{\"client\":\"c\"}}\n{\"id\":2,\"subscribe\":{}}",
        "{}",
        r#"{"push":{"channel":"news","pub":{"data":{"a":1},"offset":7}}}"#,
        r#"{"push":{"channel":"other","pub":{"data":2}}}"#,
    ]);
    let url = format!("ws://127.0.0.1:{}", server.port);
    dir.write("throng.toml", "[client.token]\nhmac_secret_key = \"k\"\n");
    let ran = dir.throng(&["subscribe", "news", "--url", &url]);
    assert_eq!(ran.out, "#7 {\"a\":1}\n");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("subscribed to news"), "{}", ran.err);
    assert!(ran.err.contains("closed by the server with 3001 (shutdown) (throng explain 3001)"));
    let said = server.request();
    assert!(said.starts_with("GET /connection/websocket HTTP/1.1\r\n"), "{said}");
    assert!(said.contains("\"subscribe\":{\"channel\":\"news\",\"token\":\""), "{said}");
}

#[test]
fn a_subscriber_can_stop_after_so_many() {
    let dir = Dir::new();
    let push = r#"{"push":{"channel":"news","pub":{"data":"x"}}}"#;
    let server = Server::speaking(&["{\"id\":2,\"subscribe\":{}}", push, push, push]);
    let url = format!("http://127.0.0.1:{}", server.port);
    let ran = dir.throng(&["subscribe", "news", "--url", &url, "--count", "2", "--json"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "{\"data\":\"x\"}\n{\"data\":\"x\"}\n"));
}
