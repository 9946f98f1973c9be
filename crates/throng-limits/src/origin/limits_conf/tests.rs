use super::*;
use crate::origin::account::Group;

const PID1: OpenFiles = OpenFiles { soft: 1_048_576, hard: 1_048_576 };
const SSHD: OpenFiles = OpenFiles { soft: 1024, hard: 524_288 };

fn account(name: &str, uid: u32, groups: &[(&str, u32)]) -> Account {
    let groups =
        groups.iter().map(|(name, gid)| Group { name: (*name).to_owned(), gid: *gid }).collect();
    Account { name: name.to_owned(), uid, gid: uid, groups }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned(), changed_s: None }
}

fn conf(files: &[(&str, &str)]) -> LimitsConf {
    let files = files.iter().map(|(path, text)| source(path, text)).collect();
    LimitsConf { files, passed_over: Vec::new() }
}

fn opening(account: &Account, variant: Variant) -> Opening<'_> {
    Opening {
        account,
        variant,
        inherited: SSHD,
        first_process: Some(PID1),
        nr_open: 1_048_576,
        power: Power::Raises,
    }
}

/// What alice gets on Debian, `soft:hard`.
fn alice(text: &str) -> String {
    let alice = account("alice", 1000, &[("staff", 50)]);
    let applied =
        conf(&[("/etc/security/limits.conf", text)]).apply(opening(&alice, Variant::Debian));
    written(applied.limit)
}

fn written(limit: OpenFiles) -> String {
    format!("{}:{}", limit.soft, limit.hard)
}

fn traps(text: &str) -> Vec<TrapKind> {
    let alice = account("alice", 1000, &[("staff", 50)]);
    let applied =
        conf(&[("/etc/security/limits.conf", text)]).apply(opening(&alice, Variant::Debian));
    applied.traps.into_iter().map(|trap| trap.kind).collect()
}

#[test]
fn the_matrix_of_launchers_and_files_is_what_was_measured() {
    let alice = account("alice", 1000, &[]);
    let bob = account("bob", 1001, &[("staff", 50)]);
    let root = account("root", 0, &[("root", 0)]);
    let mixed: &[(&str, &str)] = &[
        (
            "/etc/security/limits.conf",
            "root - nofile 33333\nalice - nofile unlimited\n* - nofile 2000\n",
        ),
        ("/etc/security/limits.d/60-b.conf", "* - nofile 3000\n@staff - nofile 4000\n"),
    ];
    let files = [
        conf(&[]),
        conf(&[("c", "* soft nofile 65535\n* hard nofile 131072\n")]),
        conf(&[("c", "* hard nofile 500\n")]),
        conf(mixed),
    ];
    let check = |account: &Account, wanted: [&str; 4]| {
        for (file, wanted) in files.iter().zip(wanted) {
            let applied = file.apply(opening(account, Variant::Debian));
            assert_eq!(written(applied.limit), wanted, "{}", account.name);
        }
    };
    check(&alice, ["1024:1048576", "65535:131072", "500:500", "1048576:1048576"]);
    check(&root, ["1024:1048576", "1024:1048576", "1024:1048576", "33333:33333"]);
    check(&bob, ["1024:1048576", "65535:131072", "500:500", "4000:4000"]);
}

#[test]
fn numbers_end_where_their_digits_end() {
    assert_eq!(alice("alice - nofile 65,535\n"), "65:65");
    assert_eq!(alice("alice - nofile 9e4\n"), "9:9");
    assert_eq!(alice("alice - nofile +77\n"), "77:77");
    assert_eq!(alice("alice - nofile many\n"), "1024:1048576");
    assert_eq!(traps("alice - nofile 65,535\n"), [TrapKind::NumberCut(65)]);
    assert_eq!(traps("alice - nofile many\n"), [TrapKind::NoNumber]);
    // Too large for 64 bits is what "unlimited" is.
    assert_eq!(alice("alice - nofile 99999999999999999999\n"), "1048576:1048576");
    assert_eq!(strtoull("-1"), Some((u64::MAX, "")));
    assert_eq!(strtoull("é"), None);
}

#[test]
fn lines_of_the_wrong_form_are_named() {
    assert_eq!(traps("alice nofile 9999\n"), [TrapKind::Fields]);
    assert_eq!(traps("alice soft nofile = 9999\n"), [TrapKind::EqualsSign]);
    assert_eq!(traps("%staff - nofile 9999\n"), [TrapKind::PercentGroup]);
    assert_eq!(traps("\u{feff}alice - nofile 9999\n"), [TrapKind::ByteOrderMark]);
    assert_eq!(traps("Alice - nofile 9999\n"), [TrapKind::OtherCase]);
    assert_eq!(traps("alice both nofile 9999\n"), [TrapKind::BadType]);
    assert_eq!(traps("alice - nofile 2000000\n"), [TrapKind::AboveNrOpen]);
    for text in ["alice nofile 9999\n", "%staff - nofile 9999\n", "Alice - nofile 9999\n"] {
        assert_eq!(alice(text), "1024:1048576", "{text}");
    }
    // Of others' lines nothing is said.
    assert_eq!(traps("bob - nofile 9999\n%wheel - nofile 1\n* - nproc 9e4\n"), []);
}

#[test]
fn what_is_harmless_is_harmless() {
    assert_eq!(alice("alice - nofile 9999\r\n"), "9999:9999");
    assert_eq!(alice("alice - nofile 9999"), "9999:9999");
    assert_eq!(alice("\talice\t-\tNOFILE\t9999 # much\n"), "9999:9999");
    assert_eq!(alice("alice HARD nofile 9999\nalice Soft nofile 5000"), "5000:9999");
    assert_eq!(alice("#alice - nofile 9999\n"), "1024:1048576");
}

#[test]
fn who_is_named_closest_wins_and_among_equals_the_last() {
    assert_eq!(alice("alice - nofile 50\n* - nofile 60\n@staff - nofile 70\n"), "50:50");
    assert_eq!(alice("@staff - nofile 70\n* - nofile 60\n"), "70:70");
    assert_eq!(alice("* - nofile 60\n* - nofile 61\n"), "61:61");
    assert_eq!(alice("999:1001 - nofile 80\n@staff - nofile 70\n"), "80:80");
    assert_eq!(alice(":1000 - nofile 81\n"), "81:81");
    assert_eq!(alice("1000: - nofile 82\n"), "82:82");
    assert_eq!(alice("1001: - nofile 82\n"), "1024:1048576");
    assert_eq!(alice("@:50 - nofile 83\n"), "83:83");
    // A range of groups asks for the first group only.
    assert_eq!(alice("@40:60 - nofile 84\n"), "1024:1048576");
    assert_eq!(alice("@900:1100 - nofile 85\n"), "85:85");
}

#[test]
fn one_half_alone_counts() {
    assert_eq!(alice("alice hard nofile 500\n"), "500:500");
    assert_eq!(alice("alice soft nofile 65535\n"), "65535:1048576");
}

#[test]
fn a_user_with_a_dash_is_left_alone() {
    let exempted = account("alice", 1000, &[]);
    let applied =
        conf(&[("c", "alice - nofile 9\nalice -\n")]).apply(opening(&exempted, Variant::Debian));
    assert_eq!(applied.limit, SSHD);
    assert!(matches!(applied.outcome, Outcome::Exempt(evidence) if evidence.line == Some(2)));
    assert_eq!(alice("* -\n"), "1024:1048576");
}

#[test]
fn above_nr_open_debian_goes_on_and_others_lock_out() {
    let alice = account("alice", 1000, &[]);
    let file = conf(&[("c", "alice - nofile 2000000\n")]);
    let wanted = OpenFiles { soft: 2_000_000, hard: 2_000_000 };
    let applied = file.apply(opening(&alice, Variant::Debian));
    assert_eq!((applied.limit, applied.outcome), (SSHD, Outcome::Refused(wanted)));
    let applied = file.apply(opening(&alice, Variant::Upstream));
    assert_eq!(applied.outcome, Outcome::LockedOut(wanted));
}

#[test]
fn upstream_resets_nobody_and_everybody_includes_root() {
    let root = account("root", 0, &[]);
    let file = conf(&[("c", "* soft nofile 65535\n")]);
    assert_eq!(written(file.apply(opening(&root, Variant::Upstream)).limit), "65535:524288");
    let applied = file.apply(opening(&root, Variant::Debian));
    assert_eq!(applied.traps[0].kind, TrapKind::NotForRoot);
    assert_eq!(written(conf(&[]).apply(opening(&root, Variant::Upstream)).limit), "1024:524288");
}

#[test]
fn without_the_power_to_raise_what_was_inherited_stays() {
    let alice = account("alice", 1000, &[]);
    let weak = Opening { power: Power::OnlyLowers, ..opening(&alice, Variant::Debian) };
    let applied = conf(&[]).apply(weak);
    assert_eq!(written(applied.limit), "1024:524288");
    assert!(matches!(applied.outcome, Outcome::Refused(_)));
}
