//! What thirteen launchers made of five files on Debian 12, as it was measured: each cell must be
//! explained by the line that it comes from.

use std::fmt::Write as _;

use throng_limits::origin::Origin;

use crate::tree::Machine;

/// What a cell must be said to come from, and what it is.
type Cell = (&'static str, &'static str);

/// The files of a column.
const COLUMNS: [&[(&str, &str)]; 4] = [
    &[],
    &[(CONF, "* soft nofile 65535\n* hard nofile 131072")],
    &[(CONF, "* hard nofile 500")],
    &[
        (CONF, "root - nofile 33333\nalice - nofile unlimited\n* - nofile 2000"),
        ("/etc/security/limits.d/60-b.conf", "* - nofile 3000\n@staff - nofile 4000"),
    ],
];
const CONF: &str = "/etc/security/limits.conf";

/// By which ancestors a process comes about, in the words of `tree`; `{}` is its limit.
const SSH: &str = "process 600 1 sshd 0 1024:524288 2026-11-03T08:00 sshd\n\
                   process 3000 600 sshd 0 {} 2026-11-28T09:00 sshd: session\n";
const SU: &str = "process 700 1 bash 0 7777:77777 2026-11-28T09:00 bash\n\
                  process 3000 700 su 0 {} 2026-11-28T09:00 su USER -c start\n";
const SU_LOGIN: &str = "process 700 1 bash 0 7777:77777 2026-11-28T09:00 bash\n\
                        process 3000 700 su 0 {} 2026-11-28T09:00 su - USER -c start\n";
const RUNUSER: &str = "process 700 1 bash 0 7777:77777 2026-11-28T09:00 bash\n\
                       process 3000 700 runuser 0 {} 2026-11-28T09:00 runuser USER -c start\n";
const SUDO: &str = "process 700 1 bash 0 7777:77777 2026-11-28T09:00 bash\n\
                    process 3000 700 sudo 0 {} 2026-11-28T09:00 sudo -u USER start\n";
const CRON: &str = "process 500 1 cron 0 1024:524288 2026-11-03T08:00 cron\n\
                    process 3000 500 cron 0 {} 2026-11-28T09:00 CRON\n\
                    process 3001 3000 sh 1000 {} 2026-11-28T09:00 sh -c start\n";
const SETPRIV: &str = "process 3000 1 bash 0 7777:77777 2026-11-28T09:00 bash\n";

/// Nothing is written, and Debian resets.
const RESET: &str = "reset it to what process 1 has";
const STAR: Cell = ("limits.conf:1: * soft nofile 65535", "65535:131072");
const HARD: Cell = ("limits.conf:1: * hard nofile 500", "500:500");

#[test]
fn a_user_gets_what_the_closest_line_says() {
    let row = [
        (RESET, "1024:1048576"),
        STAR,
        HARD,
        ("limits.conf:2: alice - nofile unlimited", "1048576:1048576"),
    ];
    for ancestors in [SSH, SU, SU_LOGIN, RUNUSER, CRON] {
        check(ancestors, 1000, row);
    }
}

#[test]
fn root_gets_only_what_names_root() {
    let row = [
        (RESET, "1024:1048576"),
        (RESET, "1024:1048576"),
        (RESET, "1024:1048576"),
        ("limits.conf:1: root - nofile 33333", "33333:33333"),
    ];
    for ancestors in [SSH, SU, SUDO] {
        check(ancestors, 0, row);
    }
}

#[test]
fn a_group_wins_over_everybody_in_a_later_file() {
    let group = ("60-b.conf:2: @staff - nofile 4000", "4000:4000");
    check(SUDO, 1001, [(RESET, "1024:1048576"), STAR, HARD, group]);
}

#[test]
fn what_asks_no_pam_keeps_what_it_has() {
    let kept = ("bash (3000, since 09:00 UTC) set 7777 with ulimit", "7777:77777");
    check(SETPRIV, 1000, [kept; 4]);
}

#[test]
fn a_unit_is_given_its_own_whatever_is_written_for_logins() {
    let default = ("push.service has no LimitNOFILE", "1024:524288");
    for files in COLUMNS {
        let unit = "cgroup /system.slice/push.service\n";
        told(("", 1, unit), 1000, files, default);
    }
}

#[test]
fn a_unit_with_pam_name_is_a_session() {
    let row = [
        (RESET, "1024:1048576"),
        STAR,
        HARD,
        ("limits.conf:2: alice - nofile unlimited", "1048576:1048576"),
    ];
    let unit = "cgroup /system.slice/push.service\n\
                file 2026-11-01T00:00 /etc/systemd/system/push.service\n    [Service]\n    PAMName=login\n";
    for (files, cell) in COLUMNS.into_iter().zip(row) {
        told(("", 1, unit), 1000, files, cell);
    }
}

#[test]
fn a_users_manager_raises_itself_to_what_its_session_allows() {
    let row =
        [(RESET, "1048576:1048576"), ("limits.conf:2: * hard nofile 131072", "131072:131072")];
    let manager = "process 900 1 systemd 1000 {} 2026-11-28T09:00 /lib/systemd/systemd --user\n";
    for (files, cell) in COLUMNS.into_iter().zip(row) {
        let cgroup =
            "cgroup /user.slice/user-1000.slice/user@1000.service/app.slice/push.service\n";
        let origin = origin((manager, 900, cgroup), 1000, files, cell.1);
        assert!(origin.hard.words.contains(cell.0), "{}", origin.hard.words);
    }
}

/// The files changed after the manager began, and it was not started again: it has what it had.
#[test]
fn a_users_manager_keeps_what_its_session_gave_it_whatever_is_written_since() {
    let manager = "process 900 1 systemd 1000 {} 2026-10-01T09:00 /lib/systemd/systemd --user\n";
    let cgroup = "cgroup /user.slice/user-1000.slice/user@1000.service/app.slice/push.service\n";
    let wanted = "systemd (900, since 1 Oct) has 131072 from its session, and push.service has no \
                  LimitNOFILE; it began before ";
    for files in [COLUMNS[2], COLUMNS[3]] {
        let origin = origin((manager, 900, cgroup), 1000, files, "131072:131072");
        for half in [&origin.soft.words, &origin.hard.words] {
            assert!(half.starts_with(wanted), "{half}");
            assert!(half.contains(".conf was written on 1 Nov"), "{half}");
        }
        // More than the manager has is given by a new session alone.
        let steps = origin.fix(200_000).steps;
        assert_eq!(steps.last().unwrap(), "systemctl restart user@1000.service");
    }
}

fn check(ancestors: &str, uid: u32, row: [Cell; 4]) {
    let parent = if ancestors.contains("process 3001") { 3001 } else { 3000 };
    for (files, cell) in COLUMNS.into_iter().zip(row) {
        told((ancestors, parent, ""), uid, files, cell);
    }
}

fn told(scene: (&str, u32, &str), uid: u32, files: &[(&str, &str)], (wanted, limit): Cell) {
    let origin = origin(scene, uid, files, limit);
    assert!(origin.soft.words.contains(wanted), "{}\nwanted: {wanted}", origin.tell(65_536));
}

fn origin(
    (ancestors, parent, more): (&str, u32, &str),
    uid: u32,
    files: &[(&str, &str)],
    limit: &str,
) -> Origin {
    let user = ["root", "alice", "bob"][if uid == 0 { 0 } else { uid as usize - 999 }];
    let mut text = format!(
        "include debian\nnow 2026-11-28T18:00\n\
         process 1 0 systemd 0 1048576:1048576 2026-11-03T08:00 /sbin/init\n{}\
         process 4121 {parent} python3 {uid} {limit} 2026-11-28T09:01 python3 push.py\n{more}",
        ancestors.replace("{}", limit).replace("USER", user)
    );
    for (path, lines) in files {
        let lines = lines.replace('\n', "\n    ");
        writeln!(text, "file 2026-11-01T12:00 {path}\n    {lines}").unwrap();
    }
    let machine = Machine::compose(&text);
    Origin::read(&machine.tree(), 4121).unwrap()
}
