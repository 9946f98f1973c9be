//! Loads against a small server that has faults on demand.
#![expect(clippy::unwrap_used, reason = "a panic here fails the test")]

mod server;

use std::net::SocketAddr;
use std::time::Duration;

use server::Fault;
use throng_load::client::{Client, Manner, Step};
use throng_load::{Helper, Options, Progress, Report, run};

fn options(address: SocketAddr) -> Options {
    Options {
        clients: 20,
        messages: 6,
        rounds: 2,
        helper: Helper::Threads,
        ..Options::new(&format!("ws://{address}/connection/websocket"))
    }
}

fn load(options: Options) -> Report {
    run(options, &mut |_| {}).unwrap()
}

fn failure(report: &Report) -> String {
    report.first_failure.as_ref().unwrap().to_string()
}

#[test]
fn a_crowd_comes_in_and_has_every_message() {
    let mut said = Vec::new();
    let options = Options {
        pid: Some(std::process::id()),
        slope_from: Some(5),
        in_flight: 3,
        ..options(server::start(Fault::Nothing))
    };
    let report = run(options, &mut |progress| said.push(progress)).unwrap();
    assert_eq!(report.first_failure, None);
    assert_eq!((report.ramp.tried, report.ramp.ready, report.ramp.failed), (15, 15, 0));
    let fanout: Vec<_> = report.fanout.iter().map(|fanout| fanout.in_flight).collect();
    assert_eq!(fanout, [1, 3]);
    for fanout in &report.fanout {
        let median = &fanout.median;
        assert_eq!((fanout.rounds.len(), median.receivers), (2, 20));
        assert_eq!((median.deliveries, median.lost, median.disordered), (240, 0, 0));
    }
    let points: Vec<_> = report.memory.points.iter().map(|point| point.at.as_str()).collect();
    assert_eq!(points, ["base", "slope", "crowd", "messages", "end"]);
    assert!(matches!(&said[0], Progress::Said(text) if text.starts_with("room for ")));
}

#[test]
fn the_bare_loop_runs_in_turn_with_the_server() {
    let options = Options {
        pid: Some(std::process::id()),
        bare: true,
        in_flight: 2,
        hold: Duration::from_millis(1100),
        ..options(server::start(Fault::Nothing))
    };
    let report = load(options);
    assert_eq!(report.first_failure, None);
    let bare = report.bare.unwrap();
    assert_eq!(bare.ramp.ready, 20);
    assert_eq!(bare.fanout.len(), 2);
    assert!(bare.fanout.iter().all(|fanout| fanout.median.deliveries == 240));
    assert_eq!(bare.ratios.len(), 2);
    // 100 bytes of data, what is around them, and a header of four.
    assert_eq!(bare.frame_bytes, 4 + 100 + r#"{"push":{"channel":"load","pub":{"data":}}}"#.len());
    let idle = report.idle.unwrap();
    assert_eq!((idle.intervals, idle.clients), (1, 20));
    assert!(bare.idle_core_percent.is_some());
}

#[test]
fn a_neighbour_is_answered_in_quiet_and_in_a_burst() {
    let options = Options { neighbour: true, rounds: 1, ..options(server::start(Fault::Nothing)) };
    let neighbour = load(options).neighbour.unwrap();
    assert!(neighbour.quiet.count > 10, "{neighbour:?}");
    assert!(neighbour.quiet.p50_ms > 0.0 && neighbour.quiet.p50_ms <= neighbour.quiet.longest_ms);
}

#[test]
fn a_full_server_is_named_with_the_first_client_it_refused() {
    let options = Options { concurrent: 1, ..options(server::start(Fault::Full(12))) };
    let report = load(options);
    assert_eq!((report.ramp.ready, report.ramp.failed), (12, 8));
    assert_eq!(report.troubles["status_503"], 8);
    let failure = failure(&report);
    assert!(failure.starts_with("client 13 could not connect — the server answered 503: full — "));
    assert!(failure.contains("/proc/PID/limits"), "{failure}");
    assert_eq!(report.fanout[0].median.deliveries, 12 * 12);
}

#[test]
fn lost_and_repeated_messages_are_told_apart() {
    let counts = |fault| {
        let timeout = Duration::from_millis(500);
        let report = load(Options { timeout, rounds: 1, ..options(server::start(fault)) });
        let median = report.fanout[0].median.clone();
        (median.lost, median.duplicates, median.disordered, failure(&report))
    };
    // One at a time: the first that is lost is waited for, and ends its round; the first ten
    // publications are such a round, too.
    let (lost, duplicates, disordered, failure) = counts(Fault::Loses);
    assert_eq!((lost, duplicates, disordered), (1, 0, 0), "{failure}");
    assert!(
        failure.ends_with("2 lost, 0 twice, 0 out of order — see who was slow with throng who")
    );
    let (lost, duplicates, disordered, failure) = counts(Fault::Repeats);
    assert_eq!((lost, disordered), (0, 0), "{failure}");
    assert_eq!(duplicates, 6 * 20, "{failure}");
}

#[test]
fn what_keeps_a_client_out_is_said() {
    let report = load(options(server::start(Fault::Denies)));
    let failure_text = failure(&report);
    assert!(
        failure_text.contains("subscribe was answered with error 103 (permission denied)"),
        "{failure_text}"
    );
    assert_eq!(report.ramp.ready, 0);

    let timeout = Duration::from_millis(300);
    let report = load(Options { timeout, ..options(server::start(Fault::Silent)) });
    assert_eq!(report.troubles["timeout_upgrading"], 20);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = load(options(address));
    assert_eq!(report.troubles["refused"], 20);
}

#[test]
fn a_close_is_told_with_its_code_and_reason() {
    let report = load(options(server::start(Fault::Closes)));
    assert_eq!(report.lost_clients, 20);
    let failure = failure(&report);
    assert!(failure.contains("was lost — closed by the server with 3012 (no pong)"), "{failure}");
    assert!(failure.ends_with("throng explain 3012"), "{failure}");
}

#[test]
fn a_wrong_key_stops_publishing_and_names_the_option() {
    let api_key = Some("wrong".to_owned());
    let report = load(Options { api_key, ..options(server::start(Fault::Nothing)) });
    assert_eq!(report.ramp.ready, 20);
    assert!(report.fanout.is_empty());
    assert!(failure(&report).contains("--api-key"));
}

#[test]
fn a_crowd_for_which_there_is_no_room_is_not_tried() {
    let options = Options { clients: u32::MAX, ..options(server::start(Fault::Nothing)) };
    let failure = run(options, &mut |_| {}).unwrap_err().to_string();
    assert!(failure.contains("this process cannot be 4294967295 clients"), "{failure}");
}

#[test]
fn a_server_of_another_protocol_is_upgraded_and_held() {
    let options = Options { upgrade_only: true, ..options(server::start(Fault::Denies)) };
    let report = load(options);
    assert_eq!((report.ramp.ready, report.first_failure), (20, None));
}

#[test]
fn one_client_subscribes_and_reads() {
    let address = server::start(Fault::Nothing);
    let second = Duration::from_secs(1);
    let url = format!("ws://{address}/connection/websocket");
    let mut client = Client::connect(&url, &Manner::default()).unwrap();
    assert_eq!(client.greet("", second).unwrap()["ping"], 1);
    client.subscribe("load", second).unwrap();
    let load =
        std::thread::spawn(move || load(Options { clients: 1, rounds: 1, ..options(address) }));
    for _ in 0..16 {
        let line = client.next_line(10 * second).unwrap().unwrap();
        assert!(line.starts_with(r#"{"push":{"channel":"load","pub":{"data":{"load":""#), "{line}");
    }
    assert_eq!(load.join().unwrap().first_failure, None);
    assert_eq!(client.next_line(Duration::from_millis(1)), Ok(None));
    client.close();
}

#[test]
fn a_client_names_the_step_that_failed() {
    let manner = Manner { timeout: Duration::from_millis(200), ..Manner::default() };
    let connect = |address: SocketAddr| {
        Client::connect(&format!("ws://{address}/"), &manner).map(drop).unwrap_err()
    };
    let error = connect(server::start(Fault::Full(0)));
    assert_eq!((error.step, error.code), (Step::Upgrade, Some(503)));
    assert_eq!(error.to_string(), "upgrading to WebSocket: the server answered 503: full");
    let error = connect(server::start(Fault::Silent));
    assert_eq!(error.to_string(), "upgrading to WebSocket: no answer within 200ms");
    assert_eq!(connect("127.0.0.1:1".parse().unwrap()).step, Step::Connect);
    let error = Client::connect("nowhere", &manner).map(drop).unwrap_err();
    assert_eq!(error.step, Step::Resolve);

    let address = server::start(Fault::Denies);
    let mut client = Client::connect(&format!("ws://{address}/"), &manner).unwrap();
    client.greet("", manner.timeout).unwrap();
    let error = client.subscribe("load", manner.timeout).unwrap_err();
    assert_eq!((error.step, error.code), (Step::Command("subscribe"), Some(103)));
}
