//! The table keeps its promises: unique numbers, short reasons, an explanation for each.

use super::*;

#[test]
fn every_number_of_a_kind_is_there_once() {
    let mut seen: Vec<(String, u32)> =
        all().iter().map(|e| (format!("{:?}", e.kind), e.code)).collect();
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn every_code_explains_itself_in_a_sentence() {
    for explanation in all() {
        assert!(explanation.text.ends_with('.'), "{}", explanation.code);
        assert!(!explanation.text.contains("  "), "{}", explanation.code);
        assert!(!explain(explanation.code).is_empty());
    }
}

#[test]
fn reasons_fit_a_close_frame() {
    for (close, ..) in Disconnect::TABLE {
        assert!(close.reason.len() <= Disconnect::REASON_BYTES_MAX);
    }
    let long = "ü".repeat(100);
    let close = Disconnect::custom(4000, &long);
    assert_eq!(close.reason.len(), 122, "cut between characters");
}

#[test]
fn only_the_codes_of_the_protocol_end_it_for_good() {
    assert!(Disconnect::SHUTDOWN.reconnects());
    assert!(!Disconnect::INVALID_TOKEN.reconnects());
    assert!(Disconnect::custom(4000, "x").reconnects());
    assert!(!Disconnect::custom(4500, "x").reconnects());
    assert!(Unsubscribe::INSUFFICIENT.resubscribes());
    assert!(!Unsubscribe::SERVER.resubscribes());
}

#[test]
fn the_same_number_can_mean_two_things_and_a_range_one() {
    assert_eq!(explain(109)[0].then, "fetches a new token and tries again");
    assert_eq!(explain(401)[0].kind, Kind::HttpStatus);
    assert_eq!(explain(1000)[0].kind, Kind::WebSocketClose);
    assert_eq!(explain(4400)[0].then, "reconnects by itself");
    assert_eq!(explain(4600)[0].then, "stays disconnected");
    assert_eq!(explain(1200)[0].kind, Kind::Error);
    assert!(explain(99_999).is_empty());
}
