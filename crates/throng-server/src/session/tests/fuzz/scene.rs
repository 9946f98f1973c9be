//! Where random clients live: settings, names, tokens, and what backends answer.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use super::super::bench::{START_UNIX_S, settings, token};
use super::words::{Names, once_in, pick};
use crate::config::Settings;
use crate::rng::Rng;
use crate::token::{PrivateKey, Signer};

const PRIVATE: &str = include_str!("../../../token/tests/p256.private.pem");
const PUBLIC: &str = include_str!("../../../token/tests/p256.public.pem");

const CHANNELS: &str = r#"
[channel.without_namespace]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
presence = true
join_leave = true
force_push_join_leave = true
allow_presence_for_subscriber = true
allow_user_limited_channels = true
[[channel.namespaces]]
name = "rec"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_recovery = true
history_size = 5
history_ttl = "1m"
history_meta_ttl = "5m"
presence = true
allowed_delta_types = ["fossil"]
delta_publish = true
[[channel.namespaces]]
name = "forced"
allow_subscribe_for_client = true
allow_publish_for_client = true
force_recovery = true
history_size = 3
history_ttl = "10s"
presence = true
join_leave = true
force_push_join_leave = true
[[channel.namespaces]]
name = "cache"
allow_subscribe_for_client = true
allow_publish_for_client = true
force_recovery = true
force_recovery_mode = "cache"
auto_cache_recover = true
history_size = 1
history_ttl = "1m"
[[channel.namespaces]]
name = "json"
publication_data_format = "json_object"
allow_subscribe_for_client = true
allow_publish_for_client = true
[[channel.namespaces]]
name = "closed"
"#;

const BACKENDS: &str = r#"
client.proxy.connect.enabled = true
client.proxy.connect.endpoint = "http://app/connect"
client.proxy.connect.http_headers = ["Cookie"]
client.proxy.connect.emulated_headers = ["Authorization"]
client.proxy.refresh.enabled = true
client.proxy.refresh.endpoint = "http://app/refresh"
client.proxy.refresh.include_connection_meta = true
rpc.proxy.endpoint = "http://app/rpc"
rpc.proxy.binary_encoding = true
rpc.without_namespace.proxy_enabled = true
rpc.ping.enabled = true
channel.proxy.publish.endpoint = "http://app/publish"
channel.proxy.subscribe.endpoint = "http://app/subscribe"
channel.proxy.sub_refresh.endpoint = "http://app/sub_refresh"
[[channel.namespaces]]
name = "asked"
subscribe_proxy_enabled = true
publish_proxy_enabled = true
sub_refresh_proxy_enabled = true
history_size = 5
history_ttl = "1m"
allow_recovery = true
presence = true
"#;

/// The worlds there are.
pub(super) const KINDS: u32 = 4;

/// The settings of a world of this kind.
pub(super) fn configuration(kind: u32) -> Settings {
    static ALL: OnceLock<Vec<Settings>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let common = format!(
            "client.token.hmac_secret_key = \"bench\"\n\
             client.token.ecdsa_public_key = \"\"\"{PUBLIC}\"\"\"\n\
             client.channel_limit = 6\nclient.expired_close_delay = \"2s\"\n\
             client.expired_sub_close_delay = \"2s\"\n"
        );
        [
            "client.insecure = true\n".to_owned(),
            "client.allow_anonymous_connect_without_token = true\nclient.ping_interval = \"3s\"\n\
             client.pong_timeout = \"1s\"\n\
             client.subscribe_to_user_personal_channel.enabled = true\n"
                .to_owned(),
            "client.disallow_anonymous_connection_tokens = true\n\
             client.user_connection_limit = 3\nclient.ping_interval = \"9s\"\n\
             client.subscribe_to_user_personal_channel.enabled = true\n\
             client.subscribe_to_user_personal_channel.personal_channel_namespace = \"rec\"\n\
             client.subscribe_to_user_personal_channel.single_connection = true\n"
                .to_owned(),
            BACKENDS.split("[[").next().unwrap().to_owned(),
        ]
        .into_iter()
        .map(|top| {
            let asked = top.contains("proxy").then(|| BACKENDS.split_once("[[").unwrap().1);
            let asked = asked.map_or_else(String::new, |asked| format!("[[{asked}"));
            settings(&format!("{common}{top}{CHANNELS}{asked}"))
        })
        .collect()
    });
    all[kind as usize].clone()
}

/// What a backend may answer.
pub(super) fn answer(rng: &mut Rng, names: &Names) -> String {
    let expire_at = START_UNIX_S + i64::from(rng.below(200));
    let channel = pick(rng, &names.channels);
    let body = match rng.below(14) {
        0 => return (*pick(rng, &["", "{}", "[]", "{\"result\":7}"])).to_owned(),
        1 if once_in(rng, 2) => {
            json!({"error": {"code": 1000, "message": "no", "temporary": true}})
        }
        2 if once_in(rng, 3) => json!({"disconnect": {"code": 4501, "reason": "go"}}),
        3 => json!({"result": {"expired": true}}),
        4 => json!({"result": {"user": "ann", "expire_at": expire_at}}),
        5 => json!({"result": {"user": "bob", "channels": [channel], "meta": {"m": 1}}}),
        6 => {
            let sub = json!({"expire_at": expire_at, "data": 1, "info": {"i": 1}});
            json!({"result": {"user": "ann", "subs": {channel: sub}}})
        }
        7 => json!({"result": {"data": {"x": "y".repeat(rng.below(5000) as usize)}}}),
        8 => json!({"result": {"b64data": "AAEC", "skip_history": true}}),
        9 => json!({"result": {"idempotency_key": "k", "version": rng.below(5)}}),
        _ => json!({"result": {"user": "ann"}}),
    };
    body.to_string()
}

/// What there is to be named.
pub(super) fn names(settings: &Settings) -> Names {
    static TOKENS: OnceLock<Vec<String>> = OnceLock::new();
    static SUB_TOKENS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let channels = [
        "a",
        "b",
        "c",
        "rec:a",
        "rec:b",
        "forced:a",
        "cache:a",
        "asked:a",
        "asked:b",
        "json:a",
        "closed:a",
        "none:a",
        "$private",
        "rec:$p",
        "#ann",
        "list#ann,bob",
        "rec:#ann",
        "*",
        "ü",
        "a\u{7}b",
    ];
    let long = "x".repeat(300);
    let channels: Vec<String> =
        channels.into_iter().chain([long.as_str()]).map(str::to_owned).collect();
    let tokens = TOKENS.get_or_init(|| tokens(settings));
    let sub_tokens = SUB_TOKENS.get_or_init(|| sub_tokens(settings));
    Names { channels, tokens: tokens.clone(), sub_tokens: sub_tokens.clone(), epochs: Vec::new() }
}

fn tokens(settings: &Settings) -> Vec<String> {
    let key = PrivateKey::from_pem(PRIVATE).unwrap();
    let soon = START_UNIX_S + 30;
    let mut made: Vec<String> = [
        json!({"sub": "ann"}),
        json!({"sub": "ann"}),
        json!({"sub": "ann"}),
        json!({"sub": "ann", "exp": START_UNIX_S + 100_000}),
        json!({"sub": "bob", "exp": START_UNIX_S + 100_000}),
        json!({"sub": "", "exp": soon}),
        json!({"sub": "ann", "exp": START_UNIX_S - 1}),
        json!({"sub": "ann", "expire_at": soon, "info": {"i": 1}}),
        json!({"sub": "ann", "channels": ["a", "rec:a", "forced:a"]}),
        json!({"sub": "ann", "channels": ["a", "none:a"]}),
        json!({"sub": "ann", "channels": ["a", "b", "c", "rec:a", "rec:b", "forced:a", "cache:a"]}),
        json!({"sub": "bob", "subs": {"cache:a": {"data": {"d": 1}}, "rec:b": {"override":
            {"force_recovery": {"value": true}, "presence": {"value": true}}}}}),
        json!({"sub": "ann", "channel": "a"}),
        json!({"sub": 7}),
    ]
    .iter()
    .map(token)
    .collect();
    let keys = &settings.client.token;
    for seconds in [20, 100_000] {
        let signer = Signer::Key { key: &key, algorithm: None, kid: None };
        let ttl = Some(Duration::from_secs(seconds));
        made.push(keys.issue_connection("ann", ttl, START_UNIX_S, signer).unwrap());
    }
    made.push("no token".to_owned());
    made.push("a.b.c".to_owned());
    made.push(String::new());
    made
}

fn sub_tokens(settings: &Settings) -> Vec<(String, String)> {
    let key = PrivateKey::from_pem(PRIVATE).unwrap();
    let mut made = Vec::new();
    for channel in ["a", "rec:a", "forced:a", "$private", "closed:a", "cache:a"] {
        for claims in [
            json!({"sub": "ann", "channel": channel}),
            json!({"sub": "ann", "channel": channel, "exp": START_UNIX_S + 20}),
            json!({"sub": "ann", "channel": channel, "expire_at": START_UNIX_S + 10}),
            json!({"sub": "ann", "channel": channel, "info": 1, "data": 2, "override":
                {"force_positioning": {"value": true}, "join_leave": {"value": true}}}),
        ] {
            made.push((channel.to_owned(), token(&claims)));
        }
        let signer = Signer::Key { key: &key, algorithm: None, kid: None };
        let ttl = Some(Duration::from_secs(1000));
        let keys = &settings.client.token;
        let signed = keys.issue_subscription(("ann", channel), ttl, START_UNIX_S, signer).unwrap();
        made.push((channel.to_owned(), signed));
    }
    made.push(("a".to_owned(), "broken".to_owned()));
    made.push(("a".to_owned(), token(&json!({"sub": "bob", "channel": "a"}))));
    made
}
