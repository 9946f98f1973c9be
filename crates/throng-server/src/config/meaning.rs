//! From what is written to what is meant: every option read once, and checked against the others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use throng_wire::websocket::Effort;

use super::backends::{Backends, backends, of_channel};
use super::connecting::{refusals, uni_disconnects};
use super::grpc::{grpc_api, uni_grpc};
use super::jwks::{JwksEndpoint, has_group, lists_its_values};
use super::machine;
use super::maps::{MapKind, check_presence, map_options};
use super::network::Network;
use super::options;
use super::poll;
use super::problem::Problem;
use super::read::Reader;
use super::settings::{
    AddressHeader, ChannelOptions, Channels, Client, DataFormat, Emulation, Http, HttpApi, Level,
    Limits, Log, Names, PerAddress, PersonalChannel, Prometheus, Proxies, ProxyProtocol, Refuse,
    Settings, Shutdown, Stream, Token, UniWebSocket, WebSocket,
};
use super::tree::Value;
use super::written::{NAMESPACES, Written};
use crate::token::{Family, PublicKey};

/// A single client may have as much waiting.
const BUFFER_BYTES_MIN: usize = 1 << 20;

/// What a development server has where nothing else is said: everybody may do everything.
const DEVELOPMENT: &[(&str, &str)] = &[
    ("http_server.address", "127.0.0.1"),
    ("client.insecure", "true"),
    ("client.allow_anonymous_connect_without_token", "true"),
    ("http_api.insecure", "true"),
    ("grpc_api.insecure", "true"),
    ("grpc_api.address", "127.0.0.1"),
    ("uni_grpc.address", "127.0.0.1"),
    ("health.enabled", "true"),
    ("prometheus.enabled", "true"),
    ("uni_websocket.enabled", "true"),
    ("sse.enabled", "true"),
    ("http_stream.enabled", "true"),
    ("uni_sse.enabled", "true"),
    ("uni_http_stream.enabled", "true"),
    ("init.enabled", "true"),
    ("channel.without_namespace.presence", "true"),
    ("channel.without_namespace.join_leave", "true"),
    ("channel.without_namespace.history_size", "100"),
    ("channel.without_namespace.history_ttl", "300s"),
    ("channel.without_namespace.force_recovery", "true"),
    ("channel.without_namespace.allow_subscribe_for_client", "true"),
    ("channel.without_namespace.allow_subscribe_for_anonymous", "true"),
    ("channel.without_namespace.allow_publish_for_client", "true"),
    ("channel.without_namespace.allow_publish_for_subscriber", "true"),
    ("channel.without_namespace.allow_publish_for_anonymous", "true"),
    ("channel.without_namespace.allow_presence_for_client", "true"),
    ("channel.without_namespace.allow_presence_for_subscriber", "true"),
    ("channel.without_namespace.allow_presence_for_anonymous", "true"),
    ("channel.without_namespace.allow_history_for_client", "true"),
    ("channel.without_namespace.allow_history_for_subscriber", "true"),
    ("channel.without_namespace.allow_history_for_anonymous", "true"),
];

/// What the written options mean; the settings count only where there is no problem.
pub(super) fn mean(
    mut written: Written,
    dev: bool,
    first_backend: u16,
) -> (Settings, Vec<Problem>, Vec<Problem>) {
    if dev {
        DEVELOPMENT.iter().for_each(|(path, value)| written.or_give(path, value));
    }
    let mut reader = Reader { written: &written, problems: Vec::new(), warnings: Vec::new() };
    let settings = settings(&mut reader, dev, first_backend);
    check(&mut reader, &settings);
    let Reader { problems, warnings, .. } = reader;
    (settings, problems, warnings)
}

fn settings(r: &mut Reader<'_>, dev: bool, first_backend: u16) -> Settings {
    let mut backends = backends(r, first_backend);
    Settings {
        dev,
        http: http(r),
        log: log(r),
        client: client(r),
        websocket: WebSocket {
            enabled: !r.bool("websocket.disabled"),
            path: r.http_path("websocket.handler_prefix"),
            message_size_limit: at_least_one(r, "websocket.message_size_limit"),
            compression: compression(r, "websocket"),
            inflated_size_limit: inflated_size_limit(r, "websocket"),
        },
        uni_websocket: UniWebSocket {
            enabled: r.bool("uni_websocket.enabled"),
            path: r.http_path("uni_websocket.handler_prefix"),
            message_size_limit: at_least_one(r, "uni_websocket.message_size_limit"),
            compression: compression(r, "uni_websocket"),
            inflated_size_limit: inflated_size_limit(r, "uni_websocket"),
            disable_disconnect_push: r.bool("uni_websocket.disable_disconnect_push"),
            disable_closing_handshake: r.bool("uni_websocket.disable_closing_handshake"),
        },
        sse: stream(r, "sse"),
        http_stream: stream(r, "http_stream"),
        uni_sse: Stream { refusals: refusals(r, "uni_sse"), ..stream(r, "uni_sse") },
        uni_http_stream: Stream {
            refusals: refusals(r, "uni_http_stream"),
            ..stream(r, "uni_http_stream")
        },
        emulation: Emulation {
            path: r.http_path("emulation.handler_prefix"),
            body_max: at_least_one(r, "emulation.max_request_body_size"),
        },
        init: r.bool("init.enabled"),
        init_path: r.http_path("init.handler_prefix"),
        channel: channels(r, &mut backends),
        shared_poll: poll::shared_poll(r),
        http_api: http_api(r),
        grpc_api: grpc_api(r),
        uni_grpc: uni_grpc(r),
        health: r.bool("health.enabled"),
        health_path: r.http_path("health.handler_prefix"),
        prometheus: Prometheus {
            enabled: r.bool("prometheus.enabled"),
            path: r.http_path("prometheus.handler_prefix"),
            names: r.word(
                "prometheus.compat",
                &[("", Names::Throng), ("centrifugo", Names::Centrifugo)],
            ),
        },
        swagger: r.bool("swagger.enabled"),
        swagger_path: r.http_path("swagger.handler_prefix"),
        rpc_ping: {
            let method = r.text("rpc.ping.method");
            r.bool("rpc.ping.enabled").then_some(method)
        },
        backends,
        node_name: r.text("node.name"),
        pid_file: path_if_any(r, "pid_file"),
        shutdown: shutdown(r),
        limits: limits(r),
        proxies: proxies(r),
    }
}

fn http_api(r: &mut Reader<'_>) -> HttpApi {
    HttpApi {
        enabled: !r.bool("http_api.disabled"),
        path: r.http_path("http_api.handler_prefix"),
        key: r.text("http_api.key"),
        insecure: r.bool("http_api.insecure"),
        external: r.bool("http_api.external"),
        error_mode_transport: r.word("http_api.error_mode", &[("", false), ("transport", true)]),
    }
}

fn stream(r: &mut Reader<'_>, at: &str) -> Stream {
    Stream {
        enabled: r.bool(&format!("{at}.enabled")),
        path: r.http_path(&format!("{at}.handler_prefix")),
        body_max: at_least_one(r, &format!("{at}.max_request_body_size")),
        refusals: None,
    }
}

fn shutdown(r: &mut Reader<'_>) -> Shutdown {
    let (timeout, mut spread) = (r.duration("shutdown.timeout"), r.duration("shutdown.spread"));
    // Who wants a quick end and says no more gets one.
    if !r.is_given("shutdown.spread") {
        spread = spread.min(timeout / 2);
    }
    Shutdown { timeout, spread }
}

fn http(r: &mut Reader<'_>) -> Http {
    let internal_port = match r.text("http_server.internal_port").as_str() {
        "" => None,
        text => match text.parse() {
            Ok(port) => Some(port),
            Err(_) => r.wrong("http_server.internal_port", "not a port; a number up to 65535"),
        },
    };
    Http {
        address: r.text("http_server.address"),
        port: r.small("http_server.port", "65535"),
        internal_address: r.text("http_server.internal_address"),
        internal_port,
        keep_alive_timeout: r.duration("http_server.keep_alive_timeout"),
        header_timeout: r.duration("http_server.header_timeout"),
    }
}

fn log(r: &mut Reader<'_>) -> Log {
    let levels = [
        ("info", Level::Info),
        ("none", Level::None),
        ("fatal", Level::Fatal),
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    Log { level: r.word("log.level", &levels), file: path_if_any(r, "log.file") }
}

/// How often clients are pinged, and how long each may take to answer.
fn ping_and_pong(r: &mut Reader<'_>) -> (Duration, Duration) {
    let ping = r.duration_or_off("client.ping_interval");
    let mut pong = r.duration_or_off("client.pong_timeout");
    // Who pings more often and says no more means answers that come sooner, too.
    if !r.is_given("client.pong_timeout") && !ping.is_zero() && pong >= ping {
        pong = ping / 3;
    }
    (ping, pong)
}

fn client(r: &mut Reader<'_>) -> Client {
    let (ping_interval, pong_timeout) = ping_and_pong(r);
    Client {
        allowed_origins: r.texts("client.allowed_origins"),
        token: token(r, "client.token"),
        subscription_token: {
            // Read either way: a problem in it should not wait for the day it is switched on.
            let token = token(r, "client.subscription_token");
            r.bool("client.subscription_token.enabled").then_some(token)
        },
        allow_anonymous_connect_without_token: r
            .bool("client.allow_anonymous_connect_without_token"),
        disallow_anonymous_connection_tokens: r.bool("client.disallow_anonymous_connection_tokens"),
        ping_interval,
        presence_update_interval: match r.duration("client.presence_update_interval") {
            Duration::ZERO => r.wrong("client.presence_update_interval", "must be more than 0"),
            interval => interval,
        },
        pong_timeout,
        expired_close_delay: r.duration("client.expired_close_delay"),
        expired_sub_close_delay: r.duration("client.expired_sub_close_delay"),
        stale_close_delay: r.duration("client.stale_close_delay"),
        channel_limit: r.count("client.channel_limit"),
        queue_max_size: at_least_one(r, "client.queue_max_size"),
        channel_position_check_delay: r.duration("client.channel_position_check_delay"),
        connection_limit: r.count("client.connection_limit"),
        user_connection_limit: r.count("client.user_connection_limit"),
        connection_rate_limit: r.count("client.connection_rate_limit"),
        connect_include_server_time: r.bool("client.connect_include_server_time"),
        history_max_publication_limit: r.count("client.history_max_publication_limit"),
        recovery_max_publication_limit: r.count("client.recovery_max_publication_limit"),
        insecure: r.bool("client.insecure"),
        insecure_skip_token_signature_verify: r.bool("client.insecure_skip_token_signature_verify"),
        user_id_http_header: r.text("client.user_id_http_header"),
        personal_channel: {
            let at = |name| format!("client.subscribe_to_user_personal_channel.{name}");
            let personal = PersonalChannel {
                namespace: r.text(&at("personal_channel_namespace")),
                single_connection: r.bool(&at("single_connection")),
            };
            r.bool(&at("enabled")).then_some(personal)
        },
        uni_disconnects: uni_disconnects(r),
    }
}

fn token(r: &mut Reader<'_>, option: &'static str) -> Token {
    let at = |name: &str| format!("{option}.{name}");
    let token = Token {
        option,
        hmac_secret_key: r.text(&at("hmac_secret_key")),
        hmac_previous_secret_key: r.text(&at("hmac_previous_secret_key")),
        hmac_previous_secret_key_valid_until: r.int(&at("hmac_previous_secret_key_valid_until")),
        rsa_public_key: public_key(r, &at("rsa_public_key"), Family::Rsa),
        ecdsa_public_key: public_key(r, &at("ecdsa_public_key"), Family::Ecdsa),
        jwks_public_endpoint: match r.text(&at("jwks_public_endpoint")).as_str() {
            "" => None,
            text => match JwksEndpoint::read(text) {
                Ok(endpoint) => Some(endpoint),
                Err(what) => r.wrong(&at("jwks_public_endpoint"), &what),
            },
        },
        audience: r.text(&at("audience")),
        audience_regex: r.regex(&at("audience_regex")),
        issuer: r.text(&at("issuer")),
        issuer_regex: r.regex(&at("issuer_regex")),
        user_id_claim: r.text(&at("user_id_claim")),
    };
    check_token(r, &at, &token);
    token
}

fn public_key(r: &mut Reader<'_>, path: &str, family: Family) -> Option<Arc<PublicKey>> {
    let text = r.text(path);
    if text.is_empty() {
        return None;
    }
    match PublicKey::from_pem(&text) {
        Ok(key) if key.family() == family => Some(Arc::new(key)),
        Ok(key) => {
            let sort = key.sort();
            let place = match key.family() {
                Family::Rsa => "it belongs in rsa_public_key",
                Family::Ecdsa => "it belongs in ecdsa_public_key",
                Family::EdDsa | Family::Hmac => "such keys are read from jwks_public_endpoint only",
            };
            r.wrong(path, &format!("an {sort} key; {place}"))
        }
        Err(what) => r.wrong(path, &what),
    }
}

fn check_token(r: &mut Reader<'_>, at: &dyn Fn(&str) -> String, token: &Token) {
    for (one, regex) in [
        (&token.audience, ("audience", "audience_regex", &token.audience_regex)),
        (&token.issuer, ("issuer", "issuer_regex", &token.issuer_regex)),
    ] {
        let (name, regex_name, regex) = regex;
        if !one.is_empty() && regex.is_some() {
            let what = format!("both this and {name} are set; remove one");
            let _: () = r.wrong(&at(regex_name), &what);
        }
    }
    let skips = r.bool(&at("insecure_skip_jwks_endpoint_safety_check"));
    let Some(endpoint) = &token.jwks_public_endpoint else { return };
    check_endpoint(r, at, (token, endpoint), skips);
    let others = ["hmac_secret_key", "rsa_public_key", "ecdsa_public_key"];
    for name in others {
        if r.text(&at(name)).is_empty() {
            continue;
        }
        let what = "does nothing beside jwks_public_endpoint, whose keys alone count then; remove \
                    one of them";
        r.doubt(&at(name), what);
    }
    if token.audience.is_empty() && token.audience_regex.is_none() {
        let what = "an identity provider signs tokens for all its applications with the same keys, \
                    and any of them is let in here; name yours in audience";
        r.doubt(&at("jwks_public_endpoint"), what);
    }
}

/// What a token chooses of the URL must be listed: it is not proven yet when that is looked at.
fn check_endpoint(
    r: &mut Reader<'_>,
    at: &dyn Fn(&str) -> String,
    (token, endpoint): (&Token, &JwksEndpoint),
    is_skipped: bool,
) {
    let path = at("jwks_public_endpoint");
    let skip = at("insecure_skip_jwks_endpoint_safety_check");
    if is_skipped && endpoint.names().next().is_some() {
        let what = "whoever writes a token chooses where its key is fetched from, and may name a \
                    server of its own; list the values in issuer_regex or audience_regex and remove \
                    this";
        r.doubt(&skip, what);
    }
    for name in endpoint.names() {
        let regexes =
            [("issuer_regex", &token.issuer_regex), ("audience_regex", &token.audience_regex)];
        let mut with_group = regexes
            .into_iter()
            .filter_map(|(option, regex)| Some((option, regex.as_ref()?)))
            .filter(|(_, regex)| has_group(regex, name))
            .peekable();
        if with_group.peek().is_none() {
            let what = format!(
                "{{{{{name}}}}} is no group of issuer_regex or audience_regex; write one, such as \
                 (?P<{name}>one|two)"
            );
            let _: () = r.wrong(&path, &what);
        }
        for (option, regex) in with_group.filter(|_| !is_skipped) {
            if !lists_its_values(regex.as_str(), name) {
                let what = format!(
                    "the group {name} is part of jwks_public_endpoint, so it must list what it may \
                     be, such as (?P<{name}>one|two): else whoever writes a token chooses where its \
                     key is fetched from"
                );
                let _: () = r.wrong(&at(option), &what);
            }
        }
    }
}

fn channels(r: &mut Reader<'_>, backends: &mut Backends) -> Channels {
    let names: Vec<String> = r.written.namespaces.keys().cloned().collect();
    let namespaces: BTreeMap<String, Arc<ChannelOptions>> = names
        .into_iter()
        .map(|name| {
            let options = Arc::new(channel_options(r, backends, &format!("{NAMESPACES}.{name}.")));
            (name, options)
        })
        .collect();
    Channels {
        without_namespace: Arc::new(channel_options(r, backends, "channel.without_namespace.")),
        namespaces,
        max_length: at_least_one(r, "channel.max_length"),
        private_prefix: r.text("channel.private_prefix"),
        namespace_boundary: r.text("channel.namespace_boundary"),
        user_boundary: r.text("channel.user_boundary"),
        user_separator: r.text("channel.user_separator"),
    }
}

fn channel_options(r: &mut Reader<'_>, backends: &mut Backends, prefix: &str) -> ChannelOptions {
    let at = |name: &str| format!("{prefix}{name}");
    let options = ChannelOptions {
        presence: r.bool(&at("presence")),
        join_leave: r.bool(&at("join_leave")),
        force_push_join_leave: r.bool(&at("force_push_join_leave")),
        history_size: r.small(&at("history_size"), "4294967295"),
        history_ttl: r.duration(&at("history_ttl")),
        history_meta_ttl: match r.duration(&at("history_meta_ttl")) {
            Duration::ZERO => r.duration("channel.history_meta_ttl"),
            own => own,
        },
        force_positioning: r.bool(&at("force_positioning")),
        allow_positioning: r.bool(&at("allow_positioning")),
        force_recovery: r.bool(&at("force_recovery")),
        allow_recovery: r.bool(&at("allow_recovery")),
        recovery_mode_cache: r
            .word(&at("force_recovery_mode"), &[("", false), ("stream", false), ("cache", true)]),
        auto_cache_recover: r.bool(&at("auto_cache_recover")),
        allow_fossil: allow_fossil(r, &at("allowed_delta_types")),
        delta_publish: r.bool(&at("delta_publish")),
        allow_tags_filter: r.bool(&at("allow_tags_filter")),
        allow_subscribe_for_client: r.bool(&at("allow_subscribe_for_client")),
        allow_subscribe_for_anonymous: r.bool(&at("allow_subscribe_for_anonymous")),
        allow_publish_for_client: r.bool(&at("allow_publish_for_client")),
        allow_publish_for_subscriber: r.bool(&at("allow_publish_for_subscriber")),
        allow_publish_for_anonymous: r.bool(&at("allow_publish_for_anonymous")),
        allow_presence_for_client: r.bool(&at("allow_presence_for_client")),
        allow_presence_for_subscriber: r.bool(&at("allow_presence_for_subscriber")),
        allow_presence_for_anonymous: r.bool(&at("allow_presence_for_anonymous")),
        allow_history_for_client: r.bool(&at("allow_history_for_client")),
        allow_history_for_subscriber: r.bool(&at("allow_history_for_subscriber")),
        allow_history_for_anonymous: r.bool(&at("allow_history_for_anonymous")),
        allow_user_limited_channels: r.bool(&at("allow_user_limited_channels")),
        channel_regex: r.regex(&at("channel_regex")),
        publication_data_format: data_format(r, &at("publication_data_format")),
        subscribe_backend: of_channel(r, backends, prefix, "subscribe"),
        publish_backend: of_channel(r, backends, prefix, "publish"),
        sub_refresh_backend: of_channel(r, backends, prefix, "sub_refresh"),
        map: map_options(r, backends, prefix),
        map_clients_prefix: r.text(&at("map_clients_presence_channel_prefix")).into(),
        map_users_prefix: r.text(&at("map_users_presence_channel_prefix")).into(),
        poll: poll::of_channel(r, backends, prefix),
    };
    check_channel(r, &at, &options);
    options
}

fn allow_fossil(r: &mut Reader<'_>, path: &str) -> bool {
    let types = r.texts(path);
    for other in types.iter().filter(|each| *each != "fossil") {
        let what =
            format!("\"{other}\" is not known; the one type of deltas there is is \"fossil\"");
        let _: () = r.wrong(path, &what);
    }
    types.iter().any(|each| each == "fossil")
}

/// The namespace's, or the global one.
fn data_format(r: &mut Reader<'_>, path: &str) -> DataFormat {
    let formats = [
        ("", None),
        ("json", Some(DataFormat::Json)),
        ("json_object", Some(DataFormat::JsonObject)),
        ("binary", Some(DataFormat::Binary)),
    ];
    r.word(path, &formats)
        .or_else(|| r.word("channel.publication_data_format", &formats))
        .unwrap_or_default()
}

fn check_channel(r: &mut Reader<'_>, at: &dyn Fn(&str) -> String, options: &ChannelOptions) {
    let keeps = options.history_size > 0 && !options.history_ttl.is_zero();
    match (options.history_size > 0, !options.history_ttl.is_zero()) {
        (true, false) => {
            r.doubt(&at("history_size"), "no history is kept: history_ttl is missing; set both");
        }
        (false, true) => {
            r.doubt(&at("history_ttl"), "no history is kept: history_size is missing; set both");
        }
        _ => {}
    }
    let recovery =
        [(options.force_recovery, "force_recovery"), (options.allow_recovery, "allow_recovery")];
    for (_, name) in recovery.into_iter().filter(|(on, _)| *on && !keeps) {
        let what = "needs a history to recover from: set history_size and history_ttl";
        let _: () = r.wrong(&at(name), what);
    }
    let positioning = [
        (options.force_positioning, "force_positioning"),
        (options.allow_positioning, "allow_positioning"),
    ];
    for (_, name) in positioning.into_iter().filter(|(on, _)| *on && !keeps) {
        r.doubt(&at(name), "does nothing without a history: set history_size and history_ttl");
    }
    if options.allow_fossil && !keeps {
        let what = "without a history every publication is sent whole: set history_size and \
                    history_ttl (1 is enough for history_size)";
        r.doubt(&at("allowed_delta_types"), what);
    }
    if options.delta_publish && !options.allow_fossil {
        let what = "no subscriber may ask for deltas: set allowed_delta_types = [\"fossil\"]";
        r.doubt(&at("delta_publish"), what);
    }
    if keeps && options.history_meta_ttl < options.history_ttl {
        let what = "publications would outlive their places: set history_meta_ttl higher";
        let _: () = r.wrong(&at("history_ttl"), what);
    }
}

/// Whether who is subscribed shows where it can.
fn check_map_presence(r: &mut Reader<'_>, channels: &Channels, interval: Duration) {
    let named = channels
        .namespaces
        .iter()
        .map(|(name, options)| (format!("{NAMESPACES}.{name}."), Arc::clone(options)));
    let nameless = Arc::clone(&channels.without_namespace);
    let nameless = ("channel.without_namespace.".to_owned(), nameless);
    let all: Vec<(String, Arc<ChannelOptions>)> = named.chain([nameless]).collect();
    for (at, options) in all {
        let clients = format!("{at}map_clients_presence_channel_prefix");
        let prefix = (clients.as_str(), &*options.map_clients_prefix);
        check_presence(r, channels, prefix, MapKind::Clients);
        let users = format!("{at}map_users_presence_channel_prefix");
        let prefix = (users.as_str(), &*options.map_users_prefix);
        check_presence(r, channels, prefix, MapKind::Users);
        let ttl_ms = match options.map.as_ref().filter(|map| map.kind != MapKind::Map) {
            Some(map) => u128::from(map.rules.key_ttl_ms),
            None => continue,
        };
        if ttl_ms > 0 && ttl_ms <= interval.as_millis() {
            let what = "is not longer than client.presence_update_interval: who is there would \
                        come and go";
            r.doubt(&format!("{at}map.key_ttl"), what);
        }
    }
}

fn limits(r: &mut Reader<'_>) -> Limits {
    Limits {
        clients: Some(r.count("limits.clients")).filter(|clients| *clients > 0),
        strict: r.bool("limits.strict"),
        refuse: match r.text("limits.refuse").as_str() {
            "503" => Refuse::Answer,
            "close" => Refuse::Close,
            _ => r.wrong("limits.refuse", "not known; write \"503\" or \"close\""),
        },
        per_address: PerAddress {
            connections: small(r, "limits.per_address.connections"),
            rate: small(r, "limits.per_address.rate"),
            exempt_private: r.bool("limits.per_address.exempt_private"),
        },
        buffer_bytes: match r.bytes("limits.buffer_bytes") {
            0 => machine::buffer_bytes(),
            bytes if bytes < BUFFER_BYTES_MIN => {
                r.wrong("limits.buffer_bytes", "too small for any crowd; at least 1MiB, or 0")
            }
            bytes => bytes,
        },
        map_bytes: match r.bytes("limits.map_bytes") {
            0 => machine::buffer_bytes(),
            bytes => bytes,
        },
        shards: match r.count("limits.shards") {
            0 => machine::shards(),
            // A shard is numbered by 16 bits, and more threads than that help nobody.
            shards if shards <= 1024 => shards,
            _ => r.wrong("limits.shards", "too many; at most 1024"),
        },
        incomplete_message_timeout: r.duration("limits.incomplete_message_timeout"),
        close_timeout: r.duration("limits.close_timeout"),
        publish_timeout: r.duration("limits.publish_timeout"),
    }
}

fn proxies(r: &mut Reader<'_>) -> Proxies {
    Proxies {
        trusted: networks(r, "trusted_proxies"),
        header: {
            let path = "client_address_header";
            // The names of headers are the same in capitals.
            match r.text(path).to_ascii_lowercase().as_str() {
                "x-forwarded-for" => Some(AddressHeader::XForwardedFor),
                "x-real-ip" => Some(AddressHeader::XRealIp),
                "forwarded" => Some(AddressHeader::Forwarded),
                "none" | "" => None,
                _ => {
                    let what = "not known; write one of \"x-forwarded-for\", \"x-real-ip\", \
                                \"forwarded\", \"none\"";
                    r.wrong(path, what)
                }
            }
        },
        protocol: proxy_protocol(r, "http_server.proxy_protocol"),
        internal_protocol: proxy_protocol(r, "http_server.internal_proxy_protocol"),
    }
}

/// Every one that is none is told of, not only the first.
fn networks(r: &mut Reader<'_>, path: &str) -> Vec<Network> {
    let texts = r.texts(path);
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(error) => {
                let _: () = r.wrong(path, &format!("{text:?} is {error}"));
            }
        }
    }
    networks
}

fn proxy_protocol(r: &mut Reader<'_>, path: &str) -> ProxyProtocol {
    // YAML reads a bare `on` as true.
    match r.written.given.get(path).map(|given| &given.node.value) {
        Some(Value::Bool(true)) => return ProxyProtocol::Either,
        Some(Value::Bool(false)) => return ProxyProtocol::Off,
        _ => {}
    }
    let all = [ProxyProtocol::Off, ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Either];
    r.word(path, &all.map(|protocol| (protocol.name(), protocol)))
}

/// A number that fits 32 bits.
fn small(r: &mut Reader<'_>, path: &str) -> u32 {
    let count = r.count(path);
    u32::try_from(count).unwrap_or_else(|_| r.wrong(path, "too large; 0 is no limit"))
}

/// Checks options against each other.
fn check(r: &mut Reader<'_>, settings: &Settings) {
    check_listening(r, settings);
    check_paths(r, settings);
    check_proxies(r, &settings.proxies);
    check_map_presence(r, &settings.channel, settings.client.presence_update_interval);
    poll::check(r, settings);
    let client = &settings.client;
    if !client.ping_interval.is_zero() && client.pong_timeout >= client.ping_interval {
        let what = "must be shorter than client.ping_interval, or no pong is ever missed";
        let _: () = r.wrong("client.pong_timeout", what);
    }
    if let Some(personal) = &client.personal_channel
        && !personal.namespace.is_empty()
        && !settings.channel.namespaces.contains_key(&personal.namespace)
    {
        let near = options::nearest(&personal.namespace, settings.channel.namespaces.keys());
        let hint = near.map_or("add it to channel.namespaces".to_owned(), |near| {
            format!("did you mean {near:?}?")
        });
        let path = "client.subscribe_to_user_personal_channel.personal_channel_namespace";
        let _: () = r.wrong(path, &format!("there is no such namespace; {hint}"));
    }
    if client.insecure_skip_token_signature_verify && !settings.dev {
        let what = "whoever writes a token is believed; never have it on where others can connect";
        r.doubt("client.insecure_skip_token_signature_verify", what);
    }
    if client.allowed_origins.iter().any(|origin| origin.ends_with('/')) {
        let what = "an origin has no path, so one that ends with / never matches; remove the /";
        let _: () = r.wrong("client.allowed_origins", what);
    }
    if settings.shutdown.spread >= settings.shutdown.timeout && !settings.shutdown.spread.is_zero()
    {
        let what = "must be shorter than shutdown.timeout, which ends it all";
        let _: () = r.wrong("shutdown.spread", what);
    }
}

fn check_listening(r: &mut Reader<'_>, settings: &Settings) {
    let http = &settings.http;
    if http.internal_port == Some(http.port)
        && http.port != 0
        && (http.internal_address.is_empty() || http.internal_address == http.address)
    {
        let what = "is the public port; give another, or remove it to have one port for all";
        let _: () = r.wrong("http_server.internal_port", what);
    }
    let addresses = [
        ("http_server.address", &http.address),
        ("http_server.internal_address", &http.internal_address),
    ];
    for (path, address) in addresses {
        if settings.dev && !address.is_empty() && !is_loopback(address)
            || settings.dev && path == "http_server.address" && address.is_empty()
        {
            let what = "--dev lets everybody do everything, so it listens on 127.0.0.1 only; \
                        remove this, or write a configuration: throng config init";
            let _: () = r.wrong(path, what);
        }
    }
}

fn check_proxies(r: &mut Reader<'_>, proxies: &Proxies) {
    // Where those that were named are all misspelt, one problem is enough.
    let nobody = r.texts("trusted_proxies").is_empty();
    let listeners = [
        ("http_server.proxy_protocol", proxies.protocol),
        ("http_server.internal_proxy_protocol", proxies.internal_protocol),
    ];
    for (path, _) in listeners.into_iter().filter(|(_, on)| nobody && *on != ProxyProtocol::Off) {
        let what = "lets in only trusted proxies, and there are none; name yours: \
                    trusted_proxies = [\"127.0.0.1/32\"]";
        let _: () = r.wrong(path, what);
    }
    let is_default = proxies.header == Some(AddressHeader::XForwardedFor);
    if nobody && proxies.header.is_some() && !is_default {
        let what = "does nothing while trusted_proxies is empty; name yours: \
                    trusted_proxies = [\"127.0.0.1/32\"]";
        r.doubt("client_address_header", what);
    }
    if proxies.trusted.iter().any(Network::is_everybody) {
        let what = "trusts everybody, so every client may claim any address; name only the proxies";
        r.doubt("trusted_proxies", what);
    }
}

/// Two things cannot answer at one path.
fn check_paths(r: &mut Reader<'_>, settings: &Settings) {
    let all = [
        (settings.websocket.enabled, "websocket.handler_prefix", &settings.websocket.path),
        (
            settings.uni_websocket.enabled,
            "uni_websocket.handler_prefix",
            &settings.uni_websocket.path,
        ),
        (settings.sse.enabled, "sse.handler_prefix", &settings.sse.path),
        (settings.http_stream.enabled, "http_stream.handler_prefix", &settings.http_stream.path),
        (settings.uni_sse.enabled, "uni_sse.handler_prefix", &settings.uni_sse.path),
        (
            settings.uni_http_stream.enabled,
            "uni_http_stream.handler_prefix",
            &settings.uni_http_stream.path,
        ),
        (settings.emulates(), "emulation.handler_prefix", &settings.emulation.path),
        (settings.init, "init.handler_prefix", &settings.init_path),
        (settings.http_api.enabled, "http_api.handler_prefix", &settings.http_api.path),
        (settings.health, "health.handler_prefix", &settings.health_path),
        (settings.prometheus.enabled, "prometheus.handler_prefix", &settings.prometheus.path),
    ];
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (_, name, path) in all.into_iter().filter(|(on, ..)| *on) {
        // An empty path has its problem already.
        if let Some(other) = taken.insert(path, name)
            && !path.is_empty()
        {
            let _: () = r.wrong(name, &format!("is the path of {other} too; give one another"));
        }
    }
}

fn is_loopback(address: &str) -> bool {
    address == "localhost"
        || address
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn at_least_one(r: &mut Reader<'_>, path: &str) -> usize {
    match r.count(path) {
        0 if r.is_given(path) => r.wrong(path, "must be 1 or more"),
        count => count,
    }
}

/// How a section's messages are compressed, where they are.
fn compression(r: &mut Reader<'_>, section: &str) -> Option<Effort> {
    let level_at = format!("{section}.compression_level");
    let level = match r.int(&level_at) {
        level @ 1..=9 => u8::try_from(level).unwrap_or(1),
        _ => r.wrong(&level_at, "must be 1, the fastest, to 9, the smallest"),
    };
    let min_size = r.count(&format!("{section}.compression_min_size"));
    r.bool(&format!("{section}.compression")).then_some(Effort { level, min_size })
}

/// How large a compressed message may become; ten times what may travel, unless it is said.
fn inflated_size_limit(r: &mut Reader<'_>, section: &str) -> usize {
    match r.count(&format!("{section}.decompressed_message_size_limit")) {
        0 => r.count(&format!("{section}.message_size_limit")).saturating_mul(10),
        limit => limit,
    }
}

fn path_if_any(r: &mut Reader<'_>, path: &str) -> Option<PathBuf> {
    Some(r.text(path)).filter(|text| !text.is_empty()).map(PathBuf::from)
}
