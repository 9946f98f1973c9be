use std::time::Duration;

use super::super::{Loaded, Place, Problem, Sources, load};
use super::*;

fn load_text(text: &str) -> Loaded {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("throng-maps-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("a.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = load(Sources { file: Some(file), ..Sources::default() });
    std::fs::remove_dir_all(&dir).unwrap();
    loaded
}

/// Path and the beginning of what is wrong.
fn said(problems: &[Problem]) -> Vec<String> {
    let short = |problem: &Problem| {
        let path = problem.path.rsplit_once("namespaces.mm.").map_or(&*problem.path, |(_, p)| p);
        assert!(matches!(problem.place, Place::File(..) | Place::Default), "{problem}");
        format!("{path}: {}", problem.what.split([':', ';', ',']).next().unwrap_or_default())
    };
    problems.iter().map(short).collect()
}

fn namespace(options: &str) -> String {
    format!("[[channel.namespaces]]\nname = \"mm\"\n{options}")
}

fn options(text: &str) -> Arc<MapOptions> {
    let loaded = load_text(&namespace(text));
    assert_eq!(said(&loaded.problems), Vec::<String>::new());
    let settings = loaded.settings.unwrap();
    Arc::clone(settings.channel.namespaces["mm"].map.as_ref().unwrap())
}

fn wrong(text: &str) -> Vec<String> {
    said(&load_text(&namespace(text)).problems)
}

#[test]
fn a_mode_brings_what_it_needs() {
    let map =
        options("subscription_type = \"map\"\nmap.mode = \"recoverable\"\nmap.key_ttl = \"1m\"");
    assert!(map.rules.recoverable);
    let Retention { size, ttl_ms, meta_ttl_ms } = map.rules.changes;
    assert_eq!((size, ttl_ms, meta_ttl_ms, map.rules.key_ttl_ms), (100, 60_000, 600_000, 60_000));
    assert_eq!((map.page(0), map.page(1), map.page(5_000), map.live_max), (100, 100, 1000, 1000));
    assert_eq!(map.catch_up_timeout, Duration::from_secs(5));
    assert_eq!((map.rules.keys_max, map.rules.bytes_max), (100_000, 64 << 20));

    let map = options("subscription_type = \"map\"\nmap.mode = \"persistent\"");
    assert_eq!((map.rules.key_ttl_ms, map.rules.changes.meta_ttl_ms), (0, 0));
    let map =
        options("subscription_type = \"map\"\nmap.mode = \"ephemeral\"\nmap.key_ttl = \"1h\"");
    assert!(!map.rules.recoverable);
    assert_eq!(map.rules.changes.meta_ttl_ms, 3_600_000);
}

#[test]
fn pages_are_as_large_as_they_are_said_to_be() {
    let head = "subscription_type = \"map\"\nmap.mode = \"persistent\"\n";
    let map = options(&format!("{head}map.min_page_size = 1\nmap.default_page_size = 2"));
    assert_eq!((map.page(0), map.page(1), map.page(-5)), (2, 1, 2));
    let map = options(&format!("{head}map.max_page_size = 10"));
    assert_eq!((map.page(0), map.page(1), map.page(50)), (10, 10, 10));
    let map = options(&format!("{head}map.min_page_size = 2000"));
    assert_eq!((map.page(0), map.page(5000)), (2000, 2000));
    let crossed = wrong(&format!("{head}map.min_page_size = 5\nmap.max_page_size = 4"));
    assert_eq!(crossed, ["map.max_page_size: must not be less than map.min_page_size"]);
}

#[test]
fn what_does_not_go_together_is_said() {
    let map = "subscription_type = \"map\"\n";
    assert_eq!(wrong(map), ["map.mode: is missing"]);
    assert_eq!(wrong("subscription_type = \"mop\""), ["subscription_type: not known"]);
    let ephemeral = format!("{map}map.mode = \"ephemeral\"\n");
    assert_eq!(wrong(&ephemeral), ["map.key_ttl: is missing"]);
    let keeps = format!("{ephemeral}map.key_ttl = \"1m\"\nmap.stream_size = 5");
    assert_eq!(
        wrong(&keeps),
        ["map.stream_size: needs map.mode \"recoverable\" or \"persistent\""]
    );
    let persistent = format!("{map}map.mode = \"persistent\"\n");
    let ends = format!("{persistent}map.key_ttl = \"1m\"");
    assert_eq!(wrong(&ends), ["map.key_ttl: does not go together with map.mode \"persistent\""]);
    let clients = "subscription_type = \"map_clients\"\nmap.mode = \"persistent\"";
    assert_eq!(wrong(clients), ["map.mode: does not go together with this subscription_type"]);
    let recoverable = format!("{map}map.mode = \"recoverable\"\nmap.key_ttl = \"1h\"\n");
    let short = wrong(&format!("{recoverable}map.meta_ttl = \"2m\""));
    assert_eq!(short, ["map.meta_ttl: must not be less than map.key_ttl"]);
    let prefix = wrong("map_clients_presence_channel_prefix = \"mm:\"");
    assert_eq!(prefix.len(), 1, "{prefix:?}");
}

#[test]
fn persistent_is_warned_of_and_presence_leads_to_its_namespace() {
    let persistent = namespace("subscription_type = \"map\"\nmap.mode = \"persistent\"");
    let warnings = said(&load_text(&persistent).warnings);
    assert_eq!(warnings, ["map.mode: is kept in this server's memory"]);
    let text = "[channel.without_namespace]\nmap_clients_presence_channel_prefix = \"mm:\"\n";
    let clients = namespace(
        "subscription_type = \"map_clients\"\nmap.mode = \"ephemeral\"\nmap.key_ttl = \"20s\"",
    );
    let loaded = load_text(&format!("{text}{clients}"));
    assert_eq!(said(&loaded.problems), Vec::<String>::new());
    let doubt = "map.key_ttl: is not longer than client.presence_update_interval";
    assert_eq!(said(&loaded.warnings), [doubt]);
}
