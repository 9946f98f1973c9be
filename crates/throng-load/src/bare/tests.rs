use super::*;

use crate::clock::Clock;
use crate::crowd::{Door, Manners, Sources, Speech};
use crate::message::Messages;
use crate::options::{Helper, Options};
use crate::stage::Stage;

/// A stage whose own crowd stays empty.
fn stage() -> Stage {
    let manners = Manners {
        door: Door::new("127.0.0.1:1".parse().unwrap(), Sources::Routed),
        speech: Speech::Bare,
        patience: 1_000_000_000,
        messages: Messages::new(1, "load"),
    };
    Stage::new(manners, Clock::start()).unwrap()
}

fn options() -> Options {
    Options { helper: Helper::Threads, ..Options::new("ws://127.0.0.1:1/") }
}

#[test]
fn the_bare_loop_delivers_every_frame_to_its_crowd() {
    let mut stage = stage();
    let _rival = Rival::start(&mut stage, &options(), (7, 160)).unwrap();
    let ramp = Rival::ramp(&mut stage, 30).unwrap();
    assert_eq!((ramp.tried, ramp.ready, ramp.failed), (30, 30, 0));
    for in_flight in [1, 4] {
        let volley = Volley { messages: 10, in_flight, size: 100, patience: 5_000_000_000 };
        let round = Rival::round(&mut stage, volley).unwrap();
        let counts = (round.receivers, round.deliveries, round.lost, round.duplicates);
        assert_eq!(counts, (30, 300, 0, 0));
        assert_eq!(round.disordered, 0);
        assert!(round.p50_ms > 0.0 && round.p50_ms <= round.p99_ms);
        assert!(round.server_cpu_us.unwrap() > 0.0);
    }
    Rival::leave(&mut stage).unwrap();
}

#[test]
fn a_part_that_is_not_known_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let failure = help("sing", &address).unwrap_err();
    assert_eq!(failure.why, "there is no part called sing");
    assert!(help("serve", "nowhere").is_err());
}

#[test]
fn rounds_are_compared_in_pairs_and_by_their_medians() {
    let fanout = |values: [f64; 3]| {
        let round = |cpu| Round { server_cpu_us: Some(cpu), ..Round::default() };
        Fanout::of(4, values.map(round).to_vec())
    };
    let ratio = ratio(&fanout([4.0, 6.0, 5.0]), &fanout([4.0, 3.0, 5.0])).unwrap();
    assert_eq!((ratio.ratio, ratio.least, ratio.most, ratio.in_flight), (1.25, 1.0, 2.0, 4));
    assert_eq!(super::ratio(&Fanout::default(), &Fanout::default()), None);
}
