use super::*;
use crate::doctor::facts::{Cap, Route, Select, Silence, Step, Takes, UnixListener, WrittenFile};
use crate::doctor::finding::Severity;
use crate::doctor::ladder::{Bounds, Resource};
use crate::facts::cgroup::Use;
use crate::facts::counters::{Conntrack, PortRange, Quota, TcpMemory};
use crate::facts::identity::Rights;
use crate::facts::kernel::FileNumbers;
use crate::growth::{Growth, Trend, What};
use crate::sockets::State;

/// What one check says of these facts.
fn look(name: &str, facts: &Facts) -> Outcome {
    let check = CHECKS.iter().find(|check| check.name == name).unwrap();
    (check.look)(facts)
}

/// How bad one check finds it.
fn severity(name: &str, facts: &Facts) -> Severity {
    look(name, facts).findings.iter().map(|found| found.severity).max().unwrap_or(Severity::Fine)
}

#[test]
fn every_check_has_a_name_of_its_own_and_reports_under_it() {
    let mut names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
    for check in &CHECKS {
        for finding in (check.look)(&Facts::example()).findings {
            assert_eq!(finding.check, check.name);
        }
    }
}

#[test]
fn a_quiet_server_has_no_finding_at_all() {
    for check in &CHECKS {
        assert_eq!((check.look)(&Facts::quiet()).findings, [], "{}", check.name);
    }
}

#[test]
fn descriptors_are_tight_when_a_fifth_is_left_and_full_when_none_is() {
    let mut facts = Facts::quiet();
    facts.limit.soft = 1000;
    for (used, expected) in [
        (799, Severity::Fine),
        (800, Severity::Tight),
        (999, Severity::Tight),
        (1000, Severity::Full),
    ] {
        facts.open.below_limit = Some(used);
        assert_eq!(severity("descriptors", &facts), expected, "{used}");
    }
}

#[test]
fn the_limit_bounds_numbers_and_not_how_many_are_open() {
    // Five hundred descriptors are open, the limit was lowered to 100 afterwards, and one below
    // that number was closed since: one more fits.
    let mut facts = Facts::quiet();
    facts.limit.soft = 100;
    facts.open.count = Some(506);
    facts.open.below_limit = Some(99);
    assert_eq!(look("descriptors", &facts).rungs[0].more, 1);
    facts.open.below_limit = None;
    let found = &look("descriptors", &facts).findings[0];
    assert!(found.what.ends_with("506 descriptors, and the limit is 100"), "{}", found.what);
}

#[test]
fn a_proxied_user_costs_two_descriptors() {
    let mut facts = Facts::quiet();
    facts.who.comm = "nginx".to_owned();
    facts.limit.soft = 1024;
    facts.open = crate::doctor::facts::Open {
        count: Some(8),
        below_limit: Some(8),
        ..crate::doctor::facts::Open::default()
    };
    assert_eq!(look("descriptors", &facts).rungs[0].allows, 508);
    // Measured: as many to an upstream as from users.
    facts.who.comm = "anything".to_owned();
    facts.open.inbound = 100;
    facts.open.outbound = 100;
    facts.open.below_limit = Some(208);
    assert_eq!(look("descriptors", &facts).rungs[0].allows, 508);
}

#[test]
fn nr_open_below_the_limit_is_what_binds() {
    let mut facts = Facts::quiet();
    facts.kernel.nr_open = Some(65_536);
    facts.limit.soft = 200_000;
    assert_eq!(severity("nr_open", &facts), Severity::Tight);
    facts.open.count = Some(65_536);
    assert_eq!(severity("nr_open", &facts), Severity::Full);
    facts.limit.soft = 65_536;
    assert_eq!(severity("nr_open", &facts), Severity::Fine);
}

#[test]
fn file_max_does_not_hold_up_who_may_do_anything() {
    let mut facts = Facts::quiet();
    facts.kernel.files = Some(FileNumbers { open: 456, max: 456 });
    assert_eq!(severity("file_max", &facts), Severity::Full);
    facts.who.effective = Rights(1 << 21);
    assert_eq!(severity("file_max", &facts), Severity::Fine);
    assert_eq!(look("file_max", &facts).rungs[0].bounds, Bounds::Beside);
}

#[test]
fn an_accept_queue_is_full_one_above_its_backlog() {
    let mut facts = Facts::quiet();
    facts.open.listeners[0].backlog = Some(16);
    for (waiting, expected) in [(12, Severity::Fine), (13, Severity::Tight), (17, Severity::Full)] {
        facts.open.listeners[0].waiting = waiting;
        assert_eq!(severity("accept_queue", &facts), expected, "{waiting}");
    }
    let found = look("accept_queue", &facts).findings.remove(0);
    assert_eq!(found.now.unwrap(), "sudo throng doctor 4121 --raise-backlog 4096");
    facts.network.somaxconn = Some(128);
    let found = look("accept_queue", &facts).findings.remove(0);
    assert!(found.for_good.iter().any(|line| line.contains("somaxconn=4096")));
}

#[test]
fn a_queue_that_is_full_for_want_of_descriptors_is_not_the_cause() {
    let mut facts = Facts::example();
    facts.open.listeners[0].waiting = 129;
    assert_eq!(severity("accept_queue", &facts), Severity::Note);
}

#[test]
fn connections_lost_since_the_last_look_count_and_those_before_do_not() {
    let mut facts = Facts::quiet();
    facts.network.lost.listen_overflows = 188;
    assert_eq!(severity("accept_queue", &facts), Severity::Fine);
    facts.lost_lately = Some(0);
    assert_eq!(severity("accept_queue", &facts), Severity::Fine);
    facts.lost_lately = Some(8);
    assert_eq!(severity("accept_queue", &facts), Severity::Tight);
}

#[test]
fn a_syn_queue_drops_only_without_cookies() {
    let mut facts = Facts::quiet();
    facts.network.syn_backlog = Some(256);
    facts.open.half_open = 256;
    facts.network.syn_cookies = Some(1);
    assert_eq!(severity("syn_queue", &facts), Severity::Fine);
    facts.network.syn_cookies = Some(0);
    assert_eq!(severity("syn_queue", &facts), Severity::Full);
}

#[test]
fn ports_run_out_by_source_and_target() {
    let mut facts = Facts::quiet();
    facts.network.ports = Some(PortRange { first: 40_000, last: 40_999, reserved: 0 });
    facts.open.routes =
        vec![Route { from: "10.0.0.1".to_owned(), to: "10.0.0.2:8888".to_owned(), used: 790 }];
    assert_eq!(severity("ports", &facts), Severity::Fine);
    facts.open.routes[0].used = 1000;
    assert_eq!(severity("ports", &facts), Severity::Full);
    let outcome = look("ports", &facts);
    assert_eq!(outcome.rungs[0].of, "10.0.0.1 to 10.0.0.2:8888");
    // A process that is no proxy takes users without ports.
    assert_eq!(outcome.rungs[0].bounds, Bounds::Beside);
}

#[test]
fn a_full_table_of_the_firewall_is_full() {
    let mut facts = Facts::quiet();
    facts.network.conntrack = Some(Conntrack { count: 65_536, max: 65_536 });
    assert_eq!(severity("conntrack", &facts), Severity::Full);
    facts.network.conntrack = Some(Conntrack { count: 100, max: 65_536 });
    assert_eq!(severity("conntrack", &facts), Severity::Fine);
}

#[test]
fn tcp_memory_is_tight_from_the_pressure_mark_on() {
    let mut facts = Facts::quiet();
    let memory = TcpMemory { used: 199, pressure: 200, max: 300, sockets: 7, orphans: 0 };
    for (used, expected) in [(199, Severity::Fine), (200, Severity::Tight), (300, Severity::Full)] {
        facts.network.tcp_memory = Some(TcpMemory { used, ..memory });
        assert_eq!(severity("tcp_memory", &facts), expected, "{used}");
    }
}

#[test]
fn ports_that_are_bound_to_nothing_are_taken_from_everybody() {
    let mut facts = Facts::quiet();
    facts.network.ports = Some(PortRange { first: 40_000, last: 40_999, reserved: 0 });
    for (bound, expected) in [(799, Severity::Fine), (800, Severity::Tight), (1000, Severity::Full)]
    {
        facts.open.bound = bound;
        assert_eq!(severity("ports", &facts), expected, "{bound}");
    }
    assert!(look("ports", &facts).findings[0].for_good[0].contains("IP_BIND_ADDRESS_NO_PORT"));
}

#[test]
fn a_full_queue_of_a_unix_socket_refuses_at_once() {
    let mut facts = Facts::quiet();
    let path = "/run/push.sock".to_owned();
    let listener = UnixListener { path, inode: 9, waiting: 6, backlog: Some(5) };
    facts.open.unix_listeners = vec![listener];
    let outcome = look("accept_queue", &facts);
    let found = &outcome.findings[0];
    assert_eq!(found.severity, Severity::Full);
    assert_eq!(found.what, "refuses connections: 6 wait at /run/push.sock, and no more than 5 may");
    assert!(found.why.as_deref().unwrap().contains("EAGAIN"));
    assert!(outcome.rungs.iter().any(|rung| rung.of == "/run/push.sock" && rung.limit == 5));
    facts.open.unix_listeners[0].waiting = 3;
    assert_eq!(severity("accept_queue", &facts), Severity::Fine);
}

#[test]
fn orphans_neighbours_and_time_wait_have_limits_of_their_own() {
    let mut facts = Facts::quiet();
    let quota = |count| Some(Quota { count, max: 1024 });
    for (count, expected) in [(800, Severity::Fine), (820, Severity::Tight), (1024, Severity::Full)]
    {
        facts.network.neighbours = quota(count);
        facts.network.orphans = quota(count);
        assert_eq!(severity("neighbours", &facts), expected, "{count}");
        assert_eq!(severity("tcp_memory", &facts), expected, "{count}");
    }
    facts.network.orphans = None;
    facts.network.time_wait = quota(1023);
    assert_eq!(severity("tcp_memory", &facts), Severity::Fine);
    facts.network.time_wait = quota(1024);
    assert_eq!(severity("tcp_memory", &facts), Severity::Note);
}

#[test]
fn the_memory_of_a_group_is_spent_on_sockets() {
    let mut facts = Facts::quiet();
    let at = "/sys/fs/cgroup/push/memory.max".to_owned();
    facts.cgroup.memory = Some(Use { limit: 30 << 20, used: 10 << 20, at: at.clone() });
    let outcome = look("cgroup_memory", &facts);
    assert_eq!((outcome.findings.len(), outcome.rungs[0].more), (0, (20 << 20) / 3788));
    facts.cgroup.memory = Some(Use { limit: 30 << 20, used: 28 << 20, at });
    assert_eq!(severity("cgroup_memory", &facts), Severity::Tight);
}

#[test]
fn threads_bound_only_who_has_one_for_each_connection() {
    let mut facts = Facts::quiet();
    facts.kernel.threads = Some(29_000);
    assert_eq!(severity("threads", &facts), Severity::Note);
    facts.who.threads = 101;
    assert_eq!(severity("threads", &facts), Severity::Tight);
    assert_eq!(look("threads", &facts).rungs[0].bounds, Bounds::Crowd);
    facts.cgroup.tasks = Some(Use { limit: 102, used: 102, at: "pids.max".to_owned() });
    assert_eq!(severity("threads", &facts), Severity::Full);
}

#[test]
fn epoll_and_inotify_have_limits_of_their_own() {
    let mut facts = Facts::quiet();
    facts.kernel.epoll_watches_max = Some(105);
    assert_eq!(severity("epoll", &facts), Severity::Tight);
    facts.open.inotify = 122;
    assert_eq!(severity("inotify", &facts), Severity::Tight);
    assert!(look("inotify", &facts).findings[0].what.contains("too many open files"));
    assert_eq!(look("inotify", &facts).rungs[0].resource, Resource::Inotify);
}

#[test]
fn an_application_stops_at_its_own_cap() {
    let mut facts = Facts::quiet();
    facts.caps.push(Cap {
        option: "worker_connections".to_owned(),
        limit: 768,
        used: 768,
        cost_milli: 2000,
        there_are: 384,
        at: "/etc/nginx/nginx.conf:9".to_owned(),
        apply: "nginx -s reload".to_owned(),
        steps: Vec::new(),
        at_most: false,
        takes: Takes { each: 1, kept: 0, raises_hard: true },
    });
    let outcome = look("application", &facts);
    assert_eq!(outcome.findings[0].severity, Severity::Full);
    assert_eq!(outcome.rungs[0].allows, 384);
    assert_eq!(outcome.findings[0].for_good[1], "nginx -s reload");
    facts.caps[0].used = 10;
    facts.caps[0].there_are = 5;
    facts.need = Some(1500);
    let found = look("application", &facts).findings.remove(0);
    assert_eq!(found.severity, Severity::Tight);
    assert_eq!(found.what, "does not hold 1,500 connections: worker_connections 768 = 384 users");
    assert_eq!(found.for_good[0], "worker_connections 65536 in /etc/nginx/nginx.conf:9");
}

#[test]
fn a_cap_is_raised_as_far_as_its_descriptors_go_and_only_where_it_is_lower() {
    let step = |command: &str, now| Step { command: command.to_owned(), now };
    let mut facts = Facts::quiet();
    facts.limit.hard = 20_000;
    facts.caps.push(Cap {
        option: "maxclients".to_owned(),
        limit: 100,
        used: 100,
        cost_milli: 1000,
        there_are: 100,
        at: "redis-cli config get maxclients".to_owned(),
        apply: "redis-cli config rewrite".to_owned(),
        steps: vec![step("set {N}", 100), step("set another to {N}", 30_000)],
        at_most: false,
        takes: Takes { each: 1, kept: 32, raises_hard: false },
    });
    let found = look("application", &facts).findings.remove(0);
    assert_eq!(found.for_good[1..], ["set 19968", "redis-cli config rewrite"]);
    assert_eq!(found.verify.as_deref(), Some("redis-cli config get maxclients"));

    // More than its hard limit has: that comes first.
    facts.need = Some(25_000);
    let found = look("application", &facts).findings.remove(0);
    let pid = facts.who.pid;
    let first =
        format!("its hard limit is 20000, and it needs 65568: throng doctor {pid} --raise 65568");
    assert_eq!(found.for_good[1], first);
    assert_eq!(found.for_good[2], "set 65536");

    // HAProxy has two sides of each, and lifts its own limit.
    facts.caps[0].takes = Takes { each: 2, kept: 256, raises_hard: true };
    let found = look("application", &facts).findings.remove(0);
    assert_eq!(found.for_good[1], "set 65536");
}

#[test]
fn select_is_proven_only_when_it_is_seen() {
    let mut facts = Facts::quiet();
    facts.select = Select::Imported;
    assert_eq!(severity("select", &facts), Severity::Note);
    facts.select = Select::Proven { at: "/proc/4121/syscall".to_owned() };
    assert_eq!(severity("select", &facts), Severity::Tight);
    facts.limit.soft = 1024;
    assert_eq!(severity("select", &facts), Severity::Note);
    assert_eq!(look("select", &facts).rungs[0].limit, 1024);
}

#[test]
fn leaks_are_a_share_and_not_a_few() {
    let mut facts = Facts::quiet();
    facts.open.count = Some(279);
    facts.open.close_wait = 19;
    facts.open.unhashed = 10;
    assert_eq!(severity("leaks", &facts), Severity::Fine);
    facts.open.close_wait = 200;
    facts.open.close_wait_peers = vec![("10.0.0.9".to_owned(), 200)];
    facts.open.unhashed = 60;
    facts.open.deleted = 6;
    facts.open.deleted_names = vec!["/var/log/push.log.1\u{1b}[2J".to_owned()];
    let found = look("leaks", &facts).findings;
    assert_eq!(found.len(), 3);
    assert!(found[0].what.contains("200 of 279 descriptors are CLOSE_WAIT"), "{}", found[0].what);
    assert_eq!(found[0].evidence[1].what, "from 10.0.0.9 (200)");
    assert!(!found[2].evidence[0].what.contains('\u{1b}'));
}

#[test]
fn growth_says_when_it_is_full_and_what_grows() {
    let mut facts = Facts::quiet();
    let waste = Growth { what: What::State(State::CloseWait), per_minute: 95.2 };
    let load = Growth { what: What::State(State::Established), per_minute: 500.0 };
    let trend =
        Trend { per_minute: 600.0, grows: true, full_in_ms: Some(60_000), growing: vec![load] };
    facts.trend = Some(trend.clone());
    let found = look("growth", &facts).findings.remove(0);
    assert_eq!(found.severity, Severity::Tight);
    assert_eq!(found.what, "grows by 600 descriptors a minute and is full in 60 s");
    assert_eq!(found.why.unwrap(), "what grows: ESTABLISHED +500/min");
    facts.trend = Some(Trend { growing: vec![waste], full_in_ms: None, ..trend.clone() });
    let found = look("growth", &facts).findings.remove(0);
    assert_eq!(found.what, "leaks: CLOSE_WAIT +95/min, which nobody needs and nobody closes");
    facts.trend = Some(Trend { grows: false, full_in_ms: None, growing: Vec::new(), ..trend });
    assert_eq!(look("growth", &facts), Outcome::default());
}

/// A log of so many MiB, with so many left of 100 GiB, that grows by so many a second.
fn log(taken: u64, free: u64, per_second: Option<u64>) -> WrittenFile {
    WrittenFile {
        name: "/srv/push's.log".to_owned(),
        number: 3,
        taken: taken << 20,
        free: free << 20,
        of: 100 << 30,
        appends: true,
        is_log: true,
        per_second: per_second.map(|pace| pace << 20),
    }
}

#[test]
fn a_log_that_fills_the_disk_is_named_with_when_and_emptied_by_its_descriptor() {
    let mut facts = Facts::quiet();
    for (file, expected) in [
        (log(107, 90_000, None), Severity::Fine),
        (log(107, 90_000, Some(0)), Severity::Fine),
        (log(107, 106, None), Severity::Tight),
        (log(50, 40, None), Severity::Fine),
        (log(20_000, 19_000, None), Severity::Note),
        // 3 MiB a second: 5,120 MiB last for half an hour, 90,000 for eight, 1,000,000 for days.
        (log(1, 5_120, Some(3)), Severity::Tight),
        (log(1, 90_000, Some(3)), Severity::Note),
        (log(1, 1_000_000, Some(3)), Severity::Fine),
        (log(0, 0, None), Severity::Tight),
    ] {
        facts.open.files = vec![file.clone()];
        assert_eq!(severity("log_disk", &facts), expected, "{file:?}");
    }
    facts.open.files = vec![log(1, 1_000_000, None), log(107, 5_120, Some(3))];
    let [found] = look("log_disk", &facts).findings.try_into().unwrap();
    assert_eq!(
        found.what,
        "its log /srv/push's.log has 107 MiB, grows by 3 MiB a second, and 5.0 GiB are left: full in 28 min"
    );
    assert_eq!(found.now.as_deref(), Some("sudo truncate -s 0 /proc/4121/fd/3"));
    assert!(
        found.for_good[1].contains("'/srv/push'\\''s.log' | sudo tee /etc/logrotate.d/python3")
    );
    let why = found.why.unwrap();
    assert!(why.starts_with("nothing bounds it") && !why.contains("hole"), "{why}");

    facts.open.below_limit = Some(facts.limit.soft);
    facts.open.files = vec![WrittenFile { appends: false, ..log(107, 0, Some(3)) }];
    let [found] = look("log_disk", &facts).findings.try_into().unwrap();
    assert_eq!(
        found.what,
        "cannot write to /srv/push's.log: its disk is full; the file has 107 MiB, grows by 3 MiB a second"
    );
    let why = found.why.unwrap();
    assert!(why.starts_with("it is out of descriptors"), "{why}");
    assert!(why.ends_with("a hole that takes nothing"), "{why}");
}

#[test]
fn what_is_no_log_is_never_emptied() {
    let mut facts = Facts::quiet();
    let data = |free| WrittenFile { is_log: false, ..log(20_000, free, Some(3)) };
    facts.open.files = vec![data(10)];
    assert_eq!(severity("log_disk", &facts), Severity::Fine);
    facts.open.files = vec![data(0)];
    let [found] = look("log_disk", &facts).findings.try_into().unwrap();
    assert_eq!((found.severity, &found.now), (Severity::Tight, &None));
    assert!(!found.for_good.iter().any(|line| line.contains("truncate")), "{:?}", found.for_good);
    assert_eq!(found.for_good[1], "sudo du -xah '/srv' | sort -rh | head");
    // The log beside it is what may go.
    facts.open.files.push(log(1, 0, None));
    let [found] = look("log_disk", &facts).findings.try_into().unwrap();
    assert!(found.now.is_some());
}

#[test]
fn idle_connections_are_a_note() {
    let mut facts = Facts::quiet();
    facts.open.silence = Some(Silence { idle: 90, long: 10, lost: 0, of: 100 });
    assert_eq!(severity("idle", &facts), Severity::Fine);
    facts.open.silence = Some(Silence { idle: 90, long: 60, lost: 30, of: 100 });
    assert_eq!(look("idle", &facts).findings.len(), 2);
    // A minute is nothing, except where nobody else gets in.
    facts.open.silence = Some(Silence { idle: 90, long: 0, lost: 0, of: 100 });
    assert_eq!(severity("idle", &facts), Severity::Fine);
    facts.limit.soft = facts.open.below_limit.unwrap();
    let [found] = look("idle", &facts).findings.try_into().unwrap();
    assert!(found.what.ends_with("nothing moved for a minute"), "{}", found.what);
}

#[test]
fn a_limit_of_a_thousand_million_is_a_note() {
    let mut facts = Facts::quiet();
    facts.limit.soft = 1_073_741_816;
    assert_eq!(severity("huge_limit", &facts), Severity::Note);
}

#[test]
fn clients_from_one_address_are_behind_a_proxy() {
    let mut facts = Facts::quiet();
    facts.open.peers = vec![("127.0.0.1".to_owned(), 100)];
    assert_eq!(severity("one_address", &facts), Severity::Note);
    facts.open.peers.push(("127.0.0.2".to_owned(), 1));
    assert_eq!(severity("one_address", &facts), Severity::Fine);
}
