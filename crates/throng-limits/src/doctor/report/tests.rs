use super::*;

#[test]
fn the_operators_server_is_full_and_the_screen_says_why() {
    let report = diagnose(&Facts::example());
    assert_eq!(report.severity, Severity::Full);
    assert_eq!(report.check, Some("descriptors"));
    assert_eq!(
        report.verdict,
        "python3 push.py (4121) cannot accept one more connection: 1024 of 1024 descriptors"
    );
    assert_eq!(
        report.why,
        "your shell's 65535 is not this process's: supervisord (812) gave it 1024, minfds unset"
    );
    assert_eq!(report.now.as_deref(), Some("throng doctor 4121 --raise 65536"));
    assert_eq!(report.now_note, "nobody is disconnected");
    assert_eq!(report.for_good, ["minfds=65536 in /etc/supervisor/supervisord.conf"]);
    assert_eq!(report.next[0], "accept queue 128");
    assert_eq!(report.verify, "grep 'open files' /proc/4121/limits");
    let first = report.ladder.first().unwrap();
    assert_eq!((first.resource, first.allows, first.more), (Resource::Descriptors, 1017, 0));
}

#[test]
fn a_server_with_room_is_ok_and_says_how_much() {
    let report = diagnose(&Facts::quiet());
    assert_eq!((report.severity, report.check), (Severity::Fine, None));
    assert_eq!(
        report.verdict,
        "python3 push.py (4121) has room for 19,893 more connections: 107 of 20000 descriptors"
    );
    assert_eq!((report.now, report.now_note.as_str()), (None, "nothing needs doing"));
    assert_eq!(report.findings, []);
}

#[test]
fn connections_that_are_wanted_are_judged_by_what_binds_first() {
    let mut facts = Facts::quiet();
    facts.need = Some(15_000);
    let report = diagnose(&facts);
    assert_eq!(report.severity, Severity::Fine);
    assert_eq!(report.need.unwrap().fits, 19_993);
    facts.need = Some(50_000);
    let report = diagnose(&facts);
    assert_eq!(report.severity, Severity::Tight);
    assert!(
        report
            .verdict
            .ends_with("does not hold 50,000 connections: descriptors allow 19,993 connections"),
        "{}",
        report.verdict
    );
    assert_eq!(report.now.as_deref(), Some("throng doctor 4121 --raise 65536"));
}

#[test]
fn a_proxy_in_front_is_what_comes_next() {
    let mut facts = Facts::example();
    facts.fronts.push(Front {
        name: "nginx".to_owned(),
        pid: 71,
        users: 384,
        by: "worker_connections 768".to_owned(),
        at: "/etc/nginx/nginx.conf:9".to_owned(),
    });
    assert_eq!(diagnose(&facts).next, ["accept queue 128", "nginx in front: 384 users"]);
}

#[test]
fn what_cannot_be_seen_is_not_guessed_at() {
    let mut facts = Facts::quiet();
    facts.open = Open::default();
    let report = diagnose(&facts);
    assert_eq!((report.severity, report.used), (Severity::Fine, None));
    assert!(report.verdict.ends_with("may have 20000 descriptors; how many it has cannot be seen"));
}

#[test]
fn a_program_in_select_is_told_to_stay_below() {
    let mut facts = Facts::example();
    facts.select = Select::Proven { at: "/proc/4121/syscall".to_owned() };
    let report = diagnose(&facts);
    assert_eq!(report.now, None);
    assert!(report.now_note.contains("select()"));
    assert!(report.for_good[0].contains("epoll"));
}
