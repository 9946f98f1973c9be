use super::*;

fn keys(value: &serde_json::Value) -> String {
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.join(" ")
}

#[test]
fn the_json_has_these_fields() {
    let report = Report {
        fanout: vec![Fanout::default()],
        neighbour: Some(Neighbour::default()),
        idle: Some(Idle::default()),
        bare: Some(Bare::default()),
        ..Report::default()
    };
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(
        keys(&json),
        "bare ceiling channel clients fanout first_failure first_messages format idle lost_clients memory \
         neighbour pid ramp ramp_before_slope stopped troubles url"
    );
    assert_eq!(
        keys(&json["ramp"]),
        "failed load_core_share longest_ms p50_ms p99_ms per_second ready seconds \
         server_cpu_s_per_10k tried"
    );
    assert_eq!(
        keys(&json["memory"]),
        "per_connection per_connection_after_messages per_connection_at_end points slope"
    );
    assert_eq!(
        keys(&json["fanout"][0]["median"]),
        "deliveries disordered duplicates last_receiver_ms load_core_share lost messages p50_ms \
         p99_ms per_second receivers seconds server_cpu_us"
    );
    assert_eq!(
        keys(&json["idle"]),
        "clients intervals load_core_share pings seconds server_core_percent"
    );
    assert_eq!(
        keys(&json["bare"]),
        "fanout frame_bytes idle_core_percent idle_ratio memory_per_connection ramp ratios"
    );
}

#[test]
fn lost_messages_are_a_failure_though_every_client_is_fine() {
    let round = Round { lost: 3, disordered: 1, ..Round::default() };
    let report = Report { fanout: vec![Fanout::of(1, vec![round])], ..Report::default() };
    let failure = report.shortfall().unwrap();
    assert_eq!(failure.why, "3 lost, 0 twice, 1 out of order");
    assert_eq!(Report::default().shortfall(), None);
}

#[test]
fn a_busy_load_says_that_it_limits() {
    let ramp = Ramp { tried: 10, ready: 9, load_core_share: 0.97, ..Ramp::default() };
    assert_eq!(
        ramp.to_string(),
        "9 of 10 in within 0.00 s: 0/s, p50 0.0 ms, p99 0.0 ms; load 97 % of a core \
         (it is what limits)"
    );
}

#[test]
fn the_failure_is_the_last_line() {
    let failure = Failure::new("client 1013 could not connect", "connection refused", "do this");
    let report = Report { first_failure: Some(failure), ..Report::default() };
    let text = report.to_string();
    assert!(
        text.ends_with("failed      client 1013 could not connect — connection refused — do this"),
        "{text}"
    );
    assert!(Report::default().to_string().ends_with("nothing failed"));
}
