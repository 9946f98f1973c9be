//! The page as a whole: its form, what is on it, what the documentation says of it, and a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use throng_hub::request::Now;
use throng_hub::state::{Fields, Writer};
use throng_limits::Budget;
use tokio::runtime::Runtime;

use super::family::{self, Kind};
use super::frame::{Frame, LIBRARIES};
use super::rare::Of;
use super::{gather, moving};
use crate::clock::Clock;
use crate::config::{Names, Sources, load};
use crate::control::Transport;
use crate::front::Front;
use crate::log::Log;
use crate::serve::{Parts, Seats, assemble, start_shards};
use crate::shard::Post;

/// What is known of Centrifugo 6.9: the names of its families, and their types.
const CENTRIFUGO: &[(&str, &str)] = &[
    ("centrifugo_node_num_clients", "gauge"),
    ("centrifugo_node_num_users", "gauge"),
    ("centrifugo_node_num_subscriptions", "gauge"),
    ("centrifugo_node_num_channels", "gauge"),
    ("centrifugo_node_num_nodes", "gauge"),
    ("centrifugo_node_build", "gauge"),
    ("centrifugo_node_messages_sent_count", "counter"),
    ("centrifugo_node_messages_received_count", "counter"),
    ("centrifugo_node_action_count", "counter"),
    ("centrifugo_node_broadcast_duration_seconds", "histogram"),
    ("centrifugo_node_tags_filter_dropped_publications", "counter"),
    ("centrifugo_node_client_connection_limit", "counter"),
    ("centrifugo_node_incoming_http_requests_total", "counter"),
    ("centrifugo_client_connections_accepted", "counter"),
    ("centrifugo_client_connections_inflight", "gauge"),
    ("centrifugo_client_subscriptions_accepted", "counter"),
    ("centrifugo_client_subscriptions_inflight", "gauge"),
    ("centrifugo_client_command_duration_seconds_histogram", "histogram"),
    ("centrifugo_client_num_reply_errors", "counter"),
    ("centrifugo_client_num_server_disconnects", "counter"),
    ("centrifugo_client_num_server_unsubscribes", "counter"),
    ("centrifugo_client_recover", "counter"),
    ("centrifugo_client_recovered_publications", "histogram"),
    ("centrifugo_client_ping_pong_duration_seconds", "histogram"),
    ("centrifugo_transport_messages_sent", "counter"),
    ("centrifugo_transport_messages_sent_size", "counter"),
    ("centrifugo_transport_messages_received", "counter"),
    ("centrifugo_transport_messages_received_size", "counter"),
    ("centrifugo_transport_outgoing_close_count", "counter"),
    ("centrifugo_api_command_duration_seconds_histogram", "histogram"),
    ("centrifugo_api_command_errors_total", "counter"),
    ("centrifugo_proxy_duration_seconds_histogram", "histogram"),
    ("centrifugo_proxy_errors", "counter"),
    ("centrifugo_proxy_inflight_requests", "gauge"),
    ("centrifugo_shared_poll_num_channels", "gauge"),
    ("centrifugo_shared_poll_num_keys", "gauge"),
    ("centrifugo_shared_poll_handler_duration_seconds", "histogram"),
    ("centrifugo_shared_poll_handler_error_count", "counter"),
    ("centrifugo_shared_poll_items_count", "counter"),
    ("centrifugo_shared_poll_publish_count", "counter"),
];

/// A server without listeners, whose shards run.
struct Server {
    front: Arc<Front>,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let flags = [
            ("client.proxy.connect.enabled", "true"),
            ("client.proxy.connect.endpoint", "http://127.0.0.1:9/x"),
        ];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let loaded = load(Sources { flags, dev: true, ..Sources::default() });
        let settings = Arc::new(loaded.settings.unwrap());
        let log = Log::silent();
        let seats = Seats { log: &log, clock: Clock::start(), budget: Budget::new(1000) };
        let parts = assemble(&settings, &seats, runtime.handle(), String::new()).unwrap();
        let Parts { front, shards } = parts;
        drop(start_shards(shards, &log).unwrap());
        Self { front, runtime }
    }

    fn page(&self, names: Names) -> String {
        self.runtime.block_on(gather::page(&self.front, names))
    }

    /// Something of everything that is counted.
    fn count_everything(&self) {
        let meters = &self.front.common.meters;
        for (at, meter) in meters.shards.iter().enumerate() {
            let transport = if at == 0 { Transport::Websocket } else { Transport::Sse };
            meter.sent(transport, Frame::Publish, 10);
            meter.received(transport, Frame::Publish, 20);
            meter.handled(Frame::Publish, 120);
            meter.answered(transport, 30_000);
            meter.fanned_out(77);
            meter.recovered(true, 3);
            meter.recovered(false, 0);
            meter.accepted(transport, 1);
            meter.accepted(transport, u8::MAX);
            meter.left(transport);
            meter.subscribed();
            meter.rare.count(Of::ReplyError, Frame::Publish as u8, 103);
            meter.rare.count(Of::Disconnect, 0, 3008);
            meter.rare.count(Of::Unsubscribe, 0, 2500);
            meter.rare.count(Of::Close, transport as u8, 3008);
        }
        meters.front.called(0, 900);
        meters.front.called(usize::MAX, 900);
        meters.front.rare.count(Of::ApiError, 0, 107);
        meters.front.rare.count(Of::Request, 3, 1_200);
        let mut is_first = true;
        self.front.common.switchboard.calls(&mut |_, _, calls| {
            if std::mem::take(&mut is_first) {
                calls.failed.add_shared(2);
                calls.times.observe_shared(4_000);
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for shard in &self.front.common.shards {
            shard.post(Post::Stop);
        }
    }
}

/// The families of a page in their order, each with its type, and every number by its series.
#[derive(Debug, Default)]
struct Parsed {
    families: Vec<(String, String)>,
    series: BTreeMap<String, f64>,
}

/// Reads a page, and finds everything wrong with its form on the way.
fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::default();
    assert!(page.ends_with('\n'));
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let rest = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no HELP: {line}"));
        let (family, help) = rest.split_once(' ').unwrap();
        assert!(!help.is_empty() && is_name(family), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).unwrap();
        let kind = kind.strip_prefix(family).unwrap().trim_start();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{family} {kind}");
        let is_new = parsed.families.iter().all(|(known, _)| known != family);
        assert!(is_new, "{family} comes twice");
        parsed.families.push((family.to_owned(), kind.to_owned()));
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
            let suffixes: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            check_labels(labels.strip_suffix('}').unwrap());
            let value: f64 = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
            assert!(value >= 0.0, "{line}");
            let is_new = parsed.series.insert(series.to_owned(), value).is_none();
            assert!(is_new, "{series} comes twice");
        }
    }
    check_histograms(page);
    parsed
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_')
}

/// `a="1",b="2"`, of which no value here has anything to escape.
fn check_labels(labels: &str) {
    let mut seen = BTreeSet::new();
    for pair in labels.split(',').filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(is_name(label) && !value.contains(['"', '\\']), "{labels}");
        assert!(seen.insert(label), "{labels}");
    }
}

/// Buckets count up, and the last holds all.
fn check_histograms(page: &str) {
    let mut last = 0_u64;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        if let Some((_, le)) = series.split_once("le=\"") {
            let value: u64 = value.parse().unwrap();
            assert!(value >= last, "{line}");
            last = if le.starts_with("+Inf") { 0 } else { value };
            if le.starts_with("+Inf") {
                let count = series.replace("_bucket", "_count");
                let count = count.split(",le=").next().unwrap().split("{le=").next().unwrap();
                let count = page.lines().find(|line| line.starts_with(count)).unwrap();
                assert!(count.ends_with(&format!(" {value}")), "{count}, {line}");
            }
        }
    }
}

#[test]
fn every_family_is_on_the_page_in_its_place_and_its_form() {
    let server = Server::start();
    for counted in [false, true] {
        if counted {
            server.count_everything();
        }
        for names in [Names::Throng, Names::Centrifugo] {
            let parsed = parse(&server.page(names));
            let wanted = family::ALL.iter().map(|one| {
                let kind = match one.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                (one.full_name(names), kind.to_owned())
            });
            assert_eq!(parsed.families, wanted.collect::<Vec<_>>());
        }
    }
}

#[test]
fn every_family_has_numbers_once_something_has_happened() {
    let server = Server::start();
    server.count_everything();
    let parsed = parse(&server.page(Names::Throng));
    // Of these, nothing is known without listeners.
    let silent = ["throng_accept_queue_length", "throng_accept_queue_max"];
    for (family, _) in &parsed.families {
        let has_some = parsed.series.keys().any(|series| series.starts_with(family.as_str()));
        assert_ne!(has_some, silent.contains(&family.as_str()), "{family}");
    }
}

#[test]
fn the_documentation_knows_every_family_and_no_other() {
    let page = include_str!("../../../../docs/metrics.md");
    let documented: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| {
            let (family, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((family, rest.split(' ').next()?))
        })
        .collect();
    let names: Vec<String> =
        family::ALL.iter().map(|family| family.full_name(Names::Throng)).collect();
    let there = family::ALL
        .iter()
        .zip(&names)
        .map(|(one, name)| (name.as_str(), one.kind.name()))
        .collect();
    assert_eq!(documented, there);
}

#[test]
fn shared_families_are_called_as_in_centrifugo_where_that_is_asked_for() {
    let server = Server::start();
    server.count_everything();
    let page = server.page(Names::Centrifugo);
    let shared = parse(&page).families.into_iter();
    let shared: Vec<_> = shared.filter(|(name, _)| name.starts_with("centrifugo_")).collect();
    let shared: Vec<_> = shared.iter().map(|(name, kind)| (&**name, &**kind)).collect();
    assert_eq!(shared, CENTRIFUGO);
    for series in [
        r#"centrifugo_client_num_reply_errors{method="publish",code="103"}"#,
        r#"centrifugo_transport_messages_sent{transport="websocket",frame_type="publish"}"#,
        r#"centrifugo_client_connections_accepted{transport="sse",client_name="js"}"#,
        r#"centrifugo_client_connections_accepted{transport="sse",client_name="unregistered"}"#,
        r#"centrifugo_api_command_errors_total{protocol="http",method="publish",error="107"}"#,
        r#"centrifugo_proxy_errors{protocol="http",type="connect",name="default"}"#,
        r#"centrifugo_client_recover{recovered="yes",has_recovered_publications="yes"}"#,
    ] {
        assert!(page.contains(&format!("{series} ")), "{series}");
    }
}

/// What one server writes down, read by another.
fn hand_over(from: &Server, to: &Server) {
    let mut out = Writer::new(Vec::new(), Now::default());
    moving::put(&from.front.common, &mut out);
    let bytes = out.into_bytes();
    let fields = Fields::new(&bytes, 0, "what was counted", Now::default());
    moving::take(&to.front.common, fields).unwrap();
}

/// The counters of a server that a restart hands over.
fn counters(server: &Server) -> BTreeMap<String, f64> {
    let parsed = parse(&server.page(Names::Throng));
    let counts = |family: &str| {
        let kind = parsed.families.iter().find(|(name, _)| name == family);
        // What the machine counts, and what moves by rules of its own.
        let others = [
            "process_",
            "throng_listen_",
            "throng_restarts",
            "throng_refused",
            "throng_reset",
            "throng_node_client_connection_limit",
        ];
        kind.is_some_and(|(_, kind)| kind != "gauge")
            && !others.iter().any(|other| family.starts_with(other))
    };
    let family = |series: &str| {
        let name = series.split('{').next().unwrap();
        ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|name| parsed.families.iter().any(|(family, _)| family == name))
            .unwrap_or(name)
            .to_owned()
    };
    parsed
        .series
        .iter()
        .filter(|(series, _)| counts(&family(series)))
        .map(|(series, value)| (series.clone(), *value))
        .collect()
}

#[test]
fn counters_go_on_over_restarts() {
    let first = Server::start();
    first.count_everything();
    let before = counters(&first);
    assert!(before.values().filter(|value| **value > 0.0).count() > 40, "{before:?}");
    let second = Server::start();
    hand_over(&first, &second);
    assert_eq!(counters(&second), before);
    assert_eq!(second.front.common.meters.restarts.get(), 1);
    second.count_everything();
    let third = Server::start();
    hand_over(&second, &third);
    let doubled = before.into_iter().map(|(series, value)| (series, value * 2.0)).collect();
    assert_eq!(counters(&third), doubled);
    assert_eq!(third.front.common.meters.restarts.get(), 2);
    // Who is here is counted again as they come.
    assert_eq!(third.front.common.meters.shards[0].clients[0].get(), 0);
}

#[test]
fn what_a_later_version_counts_is_passed_over() {
    let server = Server::start();
    let mut out = Writer::new(Vec::new(), Now::default());
    out.record(1, |out| {
        out.number(1, 250);
        out.number(2, 99_999);
        out.number(3, 5);
    });
    out.record(2, |out| {
        out.number(1, 250);
        out.number(4, 5);
    });
    out.number(60, 1);
    let bytes = out.into_bytes();
    let fields = Fields::new(&bytes, 0, "what was counted", Now::default());
    moving::take(&server.front.common, fields).unwrap();
    assert!(counters(&server).values().all(|value| *value == 0.0));
}

#[test]
fn the_page_does_not_grow_with_what_clients_say() {
    let server = Server::start();
    server.count_everything();
    let before = parse(&server.page(Names::Throng)).series.len();
    let meters = &server.front.common.meters;
    for number in 0..=u8::MAX {
        meters.shards[0].accepted(Transport::Websocket, number);
        meters.front.rare.count(Of::Request, number, 1_200);
    }
    let libraries = LIBRARIES.len();
    for number in 0..10_000 {
        meters.shards[0].rare.count(Of::ReplyError, Frame::Rpc as u8, number);
    }
    let after = parse(&server.page(Names::Throng)).series.len();
    assert!(after < before + libraries + 600 + 14, "{before} and {after}");
}
