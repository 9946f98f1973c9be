//! Configurations that are good, wrong, old, and Centrifugo's own.

use std::time::Duration;

use throng_wire::websocket::Effort;

use super::*;

/// Loads a text as if it stood in a file of that name.
fn load_text(name: &str, text: &str, env: &[(&str, &str)]) -> Loaded {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("throng-config-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let loaded = load(Sources { file: Some(file), env, ..Sources::default() });
    std::fs::remove_dir_all(&dir).unwrap();
    loaded
}

/// Messages without the directory that the test made.
fn shown(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let text = problem.to_string();
            match (text.find("throng-config-"), &problem.place) {
                (Some(at), Place::File(..)) => text[at..].split_once('/').unwrap().1.to_owned(),
                _ => text,
            }
        })
        .collect()
}

fn good(loaded: Loaded) -> Settings {
    assert_eq!(shown(&loaded.problems), Vec::<String>::new());
    loaded.settings.unwrap()
}

#[test]
fn nothing_written_means_the_defaults() {
    let settings = good(load_text("a.toml", "", &[]));
    assert_eq!(settings.http.port, 8000);
    assert_eq!(settings.client.ping_interval, Duration::from_secs(25));
    assert_eq!(settings.client.queue_max_size, 1 << 20);
    assert_eq!(settings.channel.max_length, 255);
    assert_eq!(settings.shutdown.spread, Duration::from_secs(7));
    assert_eq!(settings.http.keep_alive_timeout, Duration::from_secs(75));
    assert!(settings.limits.shards >= 1 && settings.limits.buffer_bytes >= 64 << 20);
    assert!(settings.http_api.enabled && !settings.http_api.insecure);
    assert!(!settings.health && settings.client.allowed_origins.is_empty());
    let history = settings.channel.without_namespace.history_meta_ttl;
    assert_eq!(history, Duration::from_secs(720 * 3600));
}

#[test]
fn the_three_syntaxes_mean_the_same() {
    let toml = r#"
        [client]
        allowed_origins = ["https://a.example"]
        ping_interval = "10s"
        [[channel.namespaces]]
        name = "news"
        history_size = 5
        history_ttl = "1h30m"
    "#;
    let yaml = "client:\n  allowed_origins: [https://a.example]\n  ping_interval: 10s\n\
                channel:\n  namespaces:\n  - name: news\n    history_size: 5\n    history_ttl: 1h30m\n";
    let json = r#"{"client": {"allowed_origins": ["https://a.example"], "ping_interval": 10000000000},
        "channel": {"namespaces": [{"name": "news", "history_size": 5, "history_ttl": "1h30m"}]}}"#;
    for (name, text) in [
        ("a.toml", toml),
        ("a.yaml", yaml),
        ("a.json", json),
        ("a", toml),
        ("b", yaml),
        ("c", json),
    ] {
        let settings = good(load_text(name, text, &[]));
        assert_eq!(settings.client.ping_interval, Duration::from_secs(10), "{name}");
        assert_eq!(settings.client.allowed_origins, ["https://a.example"], "{name}");
        let news = &settings.channel.namespaces["news"];
        assert_eq!((news.history_size, news.history_ttl.as_secs()), (5, 5400), "{name}");
    }
}

#[test]
fn every_problem_is_said_at_once_with_its_line() {
    let text = r#"[http_server]
port = 70000
[client]
ping_interval = "25"
pong_timeout = 8
channel_limit = -1
insecure = "maybe"
[client.token]
hmac_secret_key = 12.5
audience_regex = "("
[log]
level = "loud"
[[channel.namespaces]]
name = "x"
[[channel.namespaces]]
name = "news"
force_recovery = true
[[channel.namespaces]]
name = "news"
"#;
    let loaded = load_text("a.toml", text, &[]);
    assert!(loaded.settings.is_none());
    assert_eq!(
        shown(&loaded.problems),
        [
            "a.toml:2: http_server.port = 70000: too large; at most 65535",
            "a.toml:4: client.ping_interval = \"25\": not a duration; write \"25s\"",
            "a.toml:5: client.pong_timeout = 8: a bare number is nanoseconds; write \"8s\" for seconds",
            "a.toml:6: client.channel_limit = -1: must be 0 or more",
            "a.toml:7: client.insecure = \"maybe\": not a yes or no; write true or false",
            "a.toml:9: client.token.hmac_secret_key: not a text; put it in quotes",
            "a.toml:10: client.token.audience_regex = \"(\": not a regular expression: \
             found open group without closing ')'",
            "a.toml:12: log.level = \"loud\": not known; write one of \"info\", \"none\", \"fatal\", \
             \"error\", \"warn\", \"debug\", \"trace\"",
            "a.toml:14: channel.namespaces = \"x\": not a namespace's name: two or more of a-z, A-Z, \
             0-9, `-`, `_` and `.`",
            "a.toml:17: channel.namespaces.news.force_recovery = true: needs a history to recover \
             from: set history_size and history_ttl",
            "a.toml:19: channel.namespaces = \"news\": the namespace is there twice; keep one",
        ]
    );
}

#[test]
fn what_is_not_there_yet_stops_the_start_where_it_matters() {
    let text = "engine:\n  type: redis\n  redis:\n    address: redis://x\n\
                http_server:\n  tls:\n    enabled: true\n    cert_pem: x\n\
                admin:\n  enabled: true\n  password: x\n\
                channel:\n  without_namespace:\n    \
                subscribe_stream_proxy_enabled: true\n\
                consumers:\n- name: a\n  enabled: true\n  type: kafka\n\
                broker:\n  type: nats\n";
    let loaded = load_text("a.yaml", text, &[]);
    let problems = shown(&loaded.problems);
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems[0].starts_with(
        "a.yaml:2: engine.type = \"redis\": not supported yet; two nodes would each reach only \
         their own clients."
    ));
    assert!(
        problems[1].starts_with("a.yaml:7: http_server.tls.enabled = true: not supported yet;")
    );
    assert!(problems[2].contains("your backend would not be asked who may subscribe"));
    assert!(problems[3].contains("consumers: not supported yet"));
    let warnings = shown(&loaded.warnings);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].starts_with("a.yaml:10: admin.enabled = true: this is not there yet"));
}

#[test]
fn deltas_need_a_history_and_a_type_that_there_is() {
    let text = "[channel.without_namespace]\nallowed_delta_types = [\"fossil\"]\n\
                [[channel.namespaces]]\nname = \"news\"\ndelta_publish = true\n";
    let loaded = load_text("a.toml", text, &[]);
    let warnings = shown(&loaded.warnings);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("without a history every publication is sent whole"));
    assert!(warnings[1].contains("set allowed_delta_types = [\"fossil\"]"));
    let settings = good(loaded);
    assert!(settings.channel.without_namespace.allow_fossil);
    let text = "[channel.without_namespace]\nallowed_delta_types = [\"xdelta\"]\n";
    let problems = shown(&load_text("a.toml", text, &[]).problems);
    assert!(problems[0].contains("\"xdelta\" is not known"), "{problems:#?}");
}

#[test]
fn what_is_switched_off_or_at_its_default_is_not_judged() {
    let text = r#"{"engine": {"type": "memory"}, "admin": {"enabled": false},
        "http_server": {"tls": {"enabled": false, "cert_pem": "x"}}, "consumers": [],
        "websocket": {"write_timeout": "1s", "compression_level": 5},
        "client": {"presence_update_interval": "27s"}, "proxies": [{"name": "a"}],
        "channel": {"without_namespace": {"allowed_delta_types": [], "shared_poll": {"proxy_name": "x"}}}}"#;
    let loaded = load_text("a.json", text, &[]);
    assert_eq!(shown(&loaded.warnings), Vec::<String>::new());
    good(loaded);
}

#[test]
fn compression_is_off_and_what_may_come_of_it_is_ten_times_a_message() {
    let settings = good(load_text("a.toml", "websocket.message_size_limit = 1000", &[]));
    assert_eq!(settings.websocket.compression, None);
    assert_eq!(settings.websocket.inflated_size_limit, 10_000);
    assert_eq!(settings.uni_websocket.inflated_size_limit, 655_360);
    let text = "websocket.compression = true\nwebsocket.compression_level = 9\n\
                websocket.compression_min_size = 200\n\
                websocket.decompressed_message_size_limit = 7";
    let settings = good(load_text("a.toml", text, &[]));
    assert_eq!(settings.websocket.compression, Some(Effort { level: 9, min_size: 200 }));
    assert_eq!(
        (settings.websocket.inflated_size_limit, settings.uni_websocket.compression),
        (7, None)
    );
    for level in [0, 10, -1] {
        let text = format!("uni_websocket.compression_level = {level}");
        let shown = shown(&load_text("a.toml", &text, &[]).problems);
        assert!(shown[0].contains("must be 1, the fastest, to 9, the smallest"), "{shown:?}");
    }
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_name() {
    let text = "[client]\nallowed_orgins = []\n[chanel]\nx = 1\n[[channel.namespaces]]\n\
                name = \"news\"\nhistroy_size = 1\n";
    let loaded = load_text("a.toml", text, &[("THRONG_HTTP_SERVER_PROT", "1")]);
    assert_eq!(
        shown(&loaded.warnings),
        [
            "a.toml:2: client.allowed_orgins: not a known option; did you mean \
             client.allowed_origins?",
            "a.toml:3: chanel: not a known option; did you mean channel?",
            "a.toml:7: channel.namespaces.news.histroy_size: not a known option; did you mean \
             channel.namespaces.news.history_size?",
            "THRONG_HTTP_SERVER_PROT: sets no known option; did you mean THRONG_HTTP_SERVER_PORT?",
        ]
    );
    assert!(loaded.settings.is_some());
}

#[test]
fn the_environment_is_stronger_than_the_file_and_flags_stronger_still() {
    let text = "[http_server]\nport = 1\ninternal_port = \"9\"\n[client]\nping_interval = \"1m\"\n";
    let env = [
        ("CENTRIFUGO_HTTP_SERVER_PORT", "2"),
        ("THRONG_HTTP_SERVER_PORT", "3"),
        ("CENTRIFUGO_CLIENT_PING_INTERVAL", ""),
        ("CENTRIFUGO_CLIENT_ALLOWED_ORIGINS", "https://a https://b"),
        ("THRONG_HEALTH_ENABLED", "t"),
        ("THRONG_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let loaded = load_text("a.toml", text, &env);
    assert_eq!(shown(&loaded.warnings), Vec::<String>::new());
    let settings = good(loaded);
    assert_eq!(settings.http.port, 3);
    assert_eq!(settings.http.internal_port, Some(9));
    assert_eq!(settings.client.ping_interval, Duration::from_secs(60));
    assert_eq!(settings.client.allowed_origins, ["https://a", "https://b"]);
    assert!(settings.health);
    let flags = vec![("http_server.port".to_owned(), "4".to_owned())];
    let env = vec![("THRONG_HTTP_SERVER_PORT".to_owned(), "x".to_owned())];
    let settings = good(load(Sources { env: env.clone(), flags, ..Sources::default() }));
    assert_eq!(settings.http.port, 4);
    let loaded = load(Sources { env, ..Sources::default() });
    let expected = ["THRONG_HTTP_SERVER_PORT = \"x\": not a whole number"];
    assert_eq!(shown(&loaded.problems), expected);
}

#[test]
fn namespaces_come_from_the_environment_too() {
    let file = "[[channel.namespaces]]\nname = \"old\"\n";
    let env = [
        ("CENTRIFUGO_CHANNEL_NAMESPACES", "news my-chat"),
        ("CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_PRESENCE", "true"),
        ("THRONG_CHANNEL_NAMESPACES_MY_CHAT_JOIN_LEAVE", "1"),
        ("THRONG_CHANNEL_NAMESPACES_OLD_PRESENCE", "true"),
    ];
    let settings = good(load_text("a.toml", file, &env));
    let namespaces = &settings.channel.namespaces;
    assert!(namespaces["news"].presence && namespaces["my-chat"].join_leave);
    assert!(namespaces["old"].presence && !namespaces["old"].join_leave);
    let list = r#"[{"name": "one", "presence": true}]"#;
    let settings = good(load_text("a.toml", file, &[("THRONG_CHANNEL_NAMESPACES", list)]));
    assert_eq!(settings.channel.namespaces.keys().collect::<Vec<_>>(), ["one"]);
}

#[test]
fn variables_in_the_file_are_filled_in() {
    let text = "[http_api]\nkey = \"a-${THRONG_VAR_KEY}\"\n[node]\nname = \"${OTHER}\"\n";
    let settings = good(load_text("a.toml", text, &[("THRONG_VAR_KEY", "k")]));
    assert_eq!(settings.http_api.key, "a-k");
    assert_eq!(settings.node_name, "${OTHER}");
    let loaded = load_text("a.toml", text, &[]);
    let expected = ["a.toml:2: http_api.key: THRONG_VAR_KEY is not set in the environment; set it"];
    assert_eq!(shown(&loaded.problems), expected);
}

#[test]
fn secrets_are_never_shown() {
    let text = "[client.token]\nhmac_secret_key = [\"hunter2\"]\n[http_api]\nkey = true\n";
    let loaded = load_text("a.toml", text, &[]);
    let text = shown(&loaded.problems).join("\n");
    assert_eq!(loaded.problems.len(), 2);
    assert!(!text.contains("hunter2") && !text.contains("= true"), "{text}");
}

#[test]
fn options_are_checked_against_each_other() {
    let check = |text: &str| shown(&load_text("a.toml", text, &[]).problems).join("\n");
    assert!(check("[http_server]\ninternal_port = 8000\n").contains("is the public port"));
    assert!(
        check("[client]\npong_timeout = \"30s\"\n").contains("shorter than client.ping_interval")
    );
    assert_eq!(check("[client]\nping_interval = \"-1s\"\npong_timeout = \"30s\"\n"), "");
    assert!(check("[health]\nenabled = true\nhandler_prefix = \"/api\"\n").contains("path of"));
    assert!(check("[health]\nhandler_prefix = \"health\"\n").contains("begins with /"));
    assert!(check("[client]\nallowed_origins = [\"https://a/\"]\n").contains("remove the /"));
    let personal = "[client.subscribe_to_user_personal_channel]\nenabled = true\n\
                    personal_channel_namespace = \"usr\"\n[[channel.namespaces]]\nname = \"user\"\n";
    assert!(check(personal).contains("did you mean \"user\"?"));
    let history = "[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = \"1000h\"\n";
    assert!(check(history).contains("outlive"));
    assert!(check("[client]\nping_interval = 1\nping_interval = 2\n").contains("a.toml:3"));
    assert!(check("client = 5\n").contains("a group of options"));
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let loaded = load(Sources { file: Some("/nowhere/a.toml".into()), ..Sources::default() });
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.problems[0].to_string().starts_with("/nowhere/a.toml: cannot be read:"));
    let deep = load_text("a.json", &"[".repeat(100_000), &[]);
    assert_eq!(shown(&deep.problems), ["a.json:1: recursion limit exceeded"]);
    let broken = load_text("a.json", "{\n\"client\": {,}}", &[]);
    assert_eq!(shown(&broken.problems), ["a.json:2: key must be a string"]);
}

#[test]
fn development_allows_everything_on_loopback_only() {
    let settings = Settings::development();
    assert!(settings.dev && settings.client.insecure && settings.http_api.insecure);
    assert!(settings.health && settings.uni_websocket.enabled);
    assert_eq!((settings.http.address.as_str(), settings.http.port), ("127.0.0.1", 8000));
    let options = &settings.channel.without_namespace;
    assert!(options.presence && options.join_leave && !options.force_push_join_leave);
    assert!(options.force_recovery && options.allow_publish_for_anonymous);
    assert_eq!((options.history_size, options.history_ttl.as_secs()), (100, 300));
    let flags = vec![("http_server.address".to_owned(), "0.0.0.0".to_owned())];
    let loaded = load(Sources { flags, dev: true, ..Sources::default() });
    assert!(loaded.problems[0].to_string().contains("listens on 127.0.0.1 only"));
}

#[test]
fn the_first_configuration_is_good_and_its_keys_are_its_own() {
    let file = init("https://example.com").unwrap();
    let loaded = load_text("a.toml", &file.text, &[]);
    assert_eq!(shown(&loaded.warnings), Vec::<String>::new());
    let settings = good(loaded);
    assert_eq!(settings.client.allowed_origins, ["https://example.com"]);
    assert_eq!(settings.client.token.hmac_secret_key, file.hmac_secret_key);
    assert_eq!(settings.http_api.key, file.api_key);
    assert_eq!(file.api_key.len(), 64);
    assert_eq!(file.text.matches(&file.api_key).count(), 1);
    assert!(!file.text.contains("{{"));
    assert_ne!(file.api_key, init("https://example.com").unwrap().api_key);
    for bad in ["example.com", "https://", "ftp://a", "https://a/", "https://a/b", "https://a\"b"] {
        assert!(matches!(init(bad), Err(InitError::Origin(_))), "{bad}");
    }
}

#[test]
fn the_defaults_as_a_file_change_nothing() {
    let text = default_text();
    let loaded = load_text("a.toml", &text, &[]);
    assert_eq!(shown(&loaded.warnings), Vec::<String>::new());
    let written = format!("{:?}", good(loaded));
    assert_eq!(written, format!("{:?}", good(load_text("a.toml", "", &[]))));
    assert!(text.contains("[client.token]\n# your application signs"), "{text}");
}

#[test]
fn every_supported_option_is_read_and_changes_something() {
    let supported = options::options()
        .all
        .iter()
        .filter(|(_, spec)| spec.status == options::Status::Supported)
        .filter(|(_, spec)| spec.kind != options::Kind::Namespaces);
    for (path, _) in supported {
        // A value that is wrong for every kind: whoever reads the option stumbles over it.
        let env = vec![("X".to_owned(), "x".to_owned())];
        let mut written = written::Written::gather(
            Sources { env, dev: true, ..Sources::default() },
            written::Variables::Filled,
        );
        let node = tree::Node { line: 0, value: tree::Value::Table(Vec::new()) };
        written.given.insert(path.clone(), written::Given { node, place: Place::Flag });
        let (_, problems, _) = meaning::mean(written, false, 0);
        assert!(problems.iter().any(|problem| problem.path == *path), "{path} is never read");
    }
}

#[test]
fn every_option_at_its_default_is_a_good_file() {
    // Who prints all defaults and edits a few has such a file.
    let mut root = serde_json::json!({});
    for (path, spec) in &options::options().all {
        let value = match spec.kind {
            options::Kind::Bool => (spec.default == "true").into(),
            options::Kind::Int | options::Kind::Bytes => {
                spec.default.parse::<i64>().unwrap_or(0).into()
            }
            options::Kind::Duration if spec.default.is_empty() => "0s".into(),
            options::Kind::Map => serde_json::json!({}),
            options::Kind::Texts | options::Kind::List | options::Kind::Namespaces => {
                spec.default.split_whitespace().collect::<Vec<_>>().into()
            }
            _ => serde_json::Value::from(spec.default),
        };
        let mut place = &mut root;
        for part in path.split('.') {
            place = &mut place[part];
        }
        *place = value;
    }
    let loaded = load_text("a.json", &root.to_string(), &[]);
    assert_eq!(shown(&loaded.warnings), Vec::<String>::new());
    good(loaded);
}

#[test]
fn a_backend_is_read_with_all_that_belongs_to_it() {
    let text = r#"
[client.proxy.connect]
enabled = true
endpoint = "http://app:3000/connect"
timeout = "250ms"
http_headers = ["Cookie", "X-Real-IP", "Host"]
http.static_headers = {X-Key = "hunter2"}
[[client.proxy.connect.http.status_to_code_transforms]]
status_code = 404
to_disconnect = {code = 4504, reason = "none"}
[[proxies]]
name = "subs"
endpoint = "http://app/subs?key=hunter3"
max_in_flight = 7
[[channel.namespaces]]
name = "news"
subscribe_proxy_enabled = true
subscribe_proxy_name = "subs"
"#;
    let env = [("CENTRIFUGO_CLIENT_PROXY_CONNECT_HTTP_STATIC_HEADERS", r#"{"X-Key": "hunter4"}"#)];
    let settings = good(load_text("a.toml", text, &env));
    let connect = settings.backends.connect.and_then(|id| settings.backends.get(id)).unwrap();
    assert_eq!(connect.endpoint.to_string(), "http://app:3000/connect");
    assert_eq!((connect.timeout, connect.max_in_flight), (Duration::from_millis(250), 256));
    assert_eq!(connect.http_headers, ["cookie"], "throng's own are never a client's");
    assert_eq!(connect.static_headers[0].1, "hunter4");
    let to = Transformed::Disconnect { code: 4504, reason: "none".to_owned() };
    assert_eq!(connect.transforms, [Transform { status: 404, to }]);
    let news = settings.channel.namespaces["news"].subscribe_backend.unwrap();
    let news = settings.backends.get(news).unwrap();
    assert_eq!((news.option.as_str(), news.max_in_flight), ("proxies.subs", 7));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn a_backend_that_cannot_be_asked_stops_the_start() {
    let text = r#"
client.proxy.connect.enabled = true
client.proxy.connect.endpoint = "grpc://app"
client.proxy.refresh.enabled = true
client.proxy.refresh.endpoint = "https://app"
rpc.without_namespace.proxy_enabled = true
[channel.without_namespace]
publish_proxy_enabled = true
publish_proxy_name = "nobody"
[[proxies]]
name = "default"
"#;
    let loaded = load_text("a.toml", text, &[]);
    assert!(loaded.settings.is_none());
    let problems = shown(&loaded.problems);
    for (problem, what) in problems.iter().zip([
        "client.proxy.connect.endpoint = \"grpc://app\": has no port",
        "client.proxy.refresh.endpoint = \"https://app\": TLS to backends is not supported yet",
        "rpc.without_namespace.proxy_enabled = true: needs an address to ask",
        "publish_proxy_name = \"nobody\": there is no such backend",
        "proxies = \"default\": each has a name of its own",
    ]) {
        assert!(problem.contains(what), "{what} in {problem}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn namespaces_of_remote_calls_have_a_backend_of_their_own_or_none() {
    let text = r#"
[rpc.proxy]
endpoint = "http://app/rpc"
[[rpc.namespaces]]
name = "math"
proxy_enabled = true
[[rpc.namespaces]]
name = "chat"
proxy_enabled = true
proxy_name = "other"
[[rpc.namespaces]]
name = "off"
[[proxies]]
name = "other"
endpoint = "http://other/rpc"
"#;
    let loaded = load_text("a.toml", text, &[]);
    assert_eq!((shown(&loaded.problems), shown(&loaded.warnings)), (vec![], vec![]));
    let backends = loaded.settings.unwrap().backends;
    let of = |method: &str| {
        let found = backends.rpc_of(method).map_err(str::to_owned)?;
        Ok(found.backend.and_then(|id| backends.get(id)).map(|it| it.option.clone()))
    };
    assert_eq!(of("math:sum"), Ok(Some("rpc.proxy".to_owned())));
    assert_eq!(of("chat:say:more"), Ok(Some("proxies.other".to_owned())));
    assert_eq!((of("off:x"), of("x")), (Ok(None), Ok(None)));
    assert_eq!(of("none:x"), Err("none".to_owned()));
    assert!(backends.answer_rpc());

    let text = "[[rpc.namespaces]]\nname = \"a\"\n[[rpc.namespaces]]\nname = \"bb\"\n\
                proxy_enabld = true\n[[rpc.namespaces]]\nname = \"bb\"\nproxy_enabled = true\n\
                [[rpc.namespaces]]\nproxy_enabled = true\n";
    let loaded = load_text("a.toml", text, &[]);
    let problems = shown(&loaded.problems).join("\n");
    for what in ["not a namespace's name", "there twice", "add name"] {
        assert!(problems.contains(what), "{what} in {problems}");
    }
    assert!(
        shown(&loaded.warnings)[0].contains("rpc.namespaces.bb.proxy_enabld"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn one_of_two_that_belong_together_moves_the_other() {
    let text = "[client]\nping_interval = \"6s\"\n[shutdown]\ntimeout = \"4s\"\n";
    let settings = good(load_text("a.toml", text, &[]));
    assert_eq!(settings.client.pong_timeout, Duration::from_secs(2));
    assert_eq!(settings.shutdown.spread, Duration::from_secs(2));
    let both = "[shutdown]\ntimeout = \"4s\"\nspread = \"5s\"\n";
    assert!(load_text("a.toml", both, &[]).settings.is_none());
}

#[test]
fn settings_can_be_shown_without_their_keys() {
    let text = "[client.token]\nhmac_secret_key = \"hunter2\"\n[http_api]\nkey = \"hunter3\"\n";
    let shown = format!("{:?}", good(load_text("a.toml", text, &[])));
    assert!(!shown.contains("hunter"), "{shown}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_stumble(text in ".{0,200}", which in 0..4_usize) {
        let name = ["a.toml", "a.yaml", "a.json", "a"][which];
        load_text(name, &text, &[("THRONG_CHANNEL_NAMESPACES", &text)]);
    }

    #[test]
    fn json_is_read_as_the_library_reads_it(text in r#"[\[\]{}":,0-9a-z\\ \n.-]{0,40}"#) {
        let known = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        proptest::prop_assert_eq!(tree::Syntax::Json.parse(&text).is_ok(), known);
    }
}

#[test]
fn every_proxy_that_is_none_is_told_of() {
    let text = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/33\", \"nginx\"]\n\
                client_address_header = \"X-Client\"\n\
                http_server.proxy_protocol = \"v3\"\n";
    let loaded = load_text("a.toml", text, &[]);
    let list = r#"a.toml:1: trusted_proxies = ["127.0.0.1", "10.0.0.0/33", "nginx"]"#;
    let advice = "not an address or a network; write for example \"127.0.0.1\" or \"10.0.0.0/8\"";
    assert_eq!(
        shown(&loaded.problems),
        [
            format!("{list}: \"10.0.0.0/33\" is {advice}"),
            format!("{list}: \"nginx\" is {advice}"),
            "a.toml:2: client_address_header = \"X-Client\": not known; write one of \
             \"x-forwarded-for\", \"x-real-ip\", \"forwarded\", \"none\""
                .to_owned(),
            "a.toml:3: http_server.proxy_protocol = \"v3\": not known; write one of \"off\", \"v1\", \
             \"v2\", \"on\""
                .to_owned(),
        ]
    );
}

#[test]
fn proxies_are_trusted_by_name_only() {
    let settings = good(load_text("a.toml", "", &[]));
    assert!(settings.proxies.trusted.is_empty());
    assert_eq!(settings.proxies.header, Some(AddressHeader::XForwardedFor));
    let text = "trusted_proxies: [10.0.0.0/8, '::1']\nclient_address_header: X-Real-IP\n\
                http_server:\n  proxy_protocol: on\n  internal_proxy_protocol: v2\n";
    let proxies = good(load_text("a.yaml", text, &[])).proxies;
    assert!(proxies.trusts([10, 1, 2, 3].into()) && !proxies.trusts([127, 0, 0, 1].into()));
    assert_eq!(proxies.header, Some(AddressHeader::XRealIp));
    assert_eq!(proxies.protocol, ProxyProtocol::Either);
    assert_eq!(proxies.internal_protocol, ProxyProtocol::V2);
    let env = [("THRONG_TRUSTED_PROXIES", "127.0.0.1 ::1")];
    assert_eq!(good(load_text("a.toml", "", &env)).proxies.trusted.len(), 2);
}

#[test]
fn proxy_options_that_cannot_work_are_told() {
    let loaded = load_text("a.toml", "http_server.proxy_protocol = \"v2\"", &[]);
    assert_eq!(
        shown(&loaded.problems),
        [
            "a.toml:1: http_server.proxy_protocol = \"v2\": lets in only trusted proxies, and there are \
          none; name yours: trusted_proxies = [\"127.0.0.1/32\"]"
        ]
    );
    let loaded = load_text("a.toml", "client_address_header = \"forwarded\"", &[]);
    assert!(shown(&loaded.warnings)[0].contains("does nothing while trusted_proxies is empty"));
    let loaded = load_text("a.toml", "trusted_proxies = [\"0.0.0.0/0\"]", &[]);
    assert!(shown(&loaded.warnings)[0].contains("trusts everybody"));
}

/// What is wrong with these options of `client.token`, and what is doubtful.
fn token_problems(options: &str) -> (Vec<String>, Vec<String>) {
    let loaded = load_text("a.toml", &format!("[client.token]\n{options}"), &[]);
    (shown(&loaded.problems), shown(&loaded.warnings))
}

#[test]
fn public_keys_are_checked_where_they_stand_and_are_not_shown() {
    let key = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/token/tests");
        std::fs::read_to_string(format!("{folder}/{name}.pem")).unwrap()
    };
    let (rsa, p256, certificate) = (key("rsa.public"), key("p256.public"), key("rsa.certificate"));
    for good in [("rsa", &rsa), ("rsa", &certificate), ("ecdsa", &p256)] {
        let text = format!("{}_public_key = \"\"\"{}\"\"\"", good.0, good.1);
        assert_eq!(token_problems(&text), (vec![], vec![]), "{}", good.0);
    }
    for (option, key, said) in [
        ("rsa", &p256, "an ECDSA P-256 key; it belongs in ecdsa_public_key"),
        ("ecdsa", &rsa, "an RSA key; it belongs in rsa_public_key"),
        ("rsa", &key("rsa1024.public"), "1024 bits"),
        ("ecdsa", &key("ed25519.public"), "jwks_public_endpoint only"),
        ("rsa", &key("rsa.private"), "a private key, which belongs to who makes the tokens"),
    ] {
        let (problems, _) = token_problems(&format!("{option}_public_key = \"\"\"{key}\"\"\""));
        assert!(problems.len() == 1 && problems[0].contains(said), "{problems:?}");
        assert!(!problems[0].contains("BEGIN"), "{problems:?}");
    }
}

#[test]
fn what_a_token_chooses_of_an_address_must_be_listed() {
    let endpoint = "jwks_public_endpoint = 'https://a.example/{{realm}}/certs'\naudience = 'us'\n";
    let with = |regex: &str| token_problems(&format!("{endpoint}issuer_regex = '{regex}'"));
    assert_eq!(with("^https://a/(?P<realm>one|two)$"), (vec![], vec![]));
    for (regex, said) in [
        ("^https://a/(?P<realm>.+)$", "must list what it may be"),
        ("^https://a/(?P<other>one)$", "{{realm}} is no group of issuer_regex or audience_regex"),
    ] {
        let (problems, _) = with(regex);
        assert!(problems.len() == 1 && problems[0].contains(said), "{problems:?}");
    }
    let skipped = format!(
        "{endpoint}issuer_regex = '(?P<realm>.+)'\ninsecure_skip_jwks_endpoint_safety_check = true"
    );
    let (problems, warnings) = token_problems(&skipped);
    assert!(problems.is_empty() && warnings[0].contains("chooses where its key"), "{warnings:?}");
    for (options, said) in [
        ("jwks_public_endpoint = 'keys'", "not a URL"),
        ("audience = 'a'\naudience_regex = 'b'", "both this and audience are set"),
    ] {
        let (problems, _) = token_problems(options);
        assert!(problems.len() == 1 && problems[0].contains(said), "{problems:?}");
    }
    let (_, warnings) =
        token_problems("jwks_public_endpoint = 'https://a/k'\nhmac_secret_key = 'x'");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|text| text.contains("does nothing beside jwks_public_endpoint")));
    assert!(warnings.iter().any(|text| text.contains("name yours in audience")));
}
