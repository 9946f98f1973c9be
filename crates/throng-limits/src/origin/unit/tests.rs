use super::*;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned(), changed_s: None }
}

fn merged(texts: &[&str]) -> Unit {
    let sources = texts.iter().map(|text| source("u", text)).collect();
    Unit::merge("push.service", Scope::System, sources)
}

fn limit(texts: &[&str]) -> Option<(u64, u64)> {
    merged(texts).limit.map(|(limit, _)| (limit.soft, limit.hard))
}

#[test]
fn the_last_setting_counts_and_an_empty_one_unsets() {
    assert_eq!(limit(&["[Service]\nLimitNOFILE=65536\n"]), Some((65536, 65536)));
    assert_eq!(limit(&["[Service]\nLimitNOFILE = 1024:4096\n"]), Some((1024, 4096)));
    assert_eq!(limit(&["[Service]\nLimitNOFILE=1\n", "[Service]\nLimitNOFILE=2\n"]), Some((2, 2)));
    assert_eq!(limit(&["[Service]\nLimitNOFILE=1\n", "[Service]\nLimitNOFILE=\n"]), None);
    assert_eq!(limit(&["[Service]\n#LimitNOFILE=1\n;LimitNOFILE=2\n"]), None);
}

#[test]
fn what_systemd_does_not_take_is_kept_as_such() {
    let unit = merged(&[
        "[Unit]\nLimitNOFILE=1\n[Service]\nLimitNOFILE=65,535\nLimitNofile=5\nLimitNOFILE=9:3",
    ]);
    assert_eq!(unit.limit, None);
    assert_eq!(unit.ignored.iter().filter_map(|each| each.line).collect::<Vec<_>>(), [2, 4, 5, 6]);
}

#[test]
fn infinity_and_what_is_above_nr_open_become_nr_open() {
    let clamped = |text| parse_limit(text).unwrap().clamped(1_048_576);
    let top = OpenFiles { soft: 1_048_576, hard: 1_048_576 };
    assert_eq!(clamped("infinity"), top);
    assert_eq!(clamped("2000000"), top);
    assert_eq!(clamped("1024:infinity"), OpenFiles { soft: 1024, hard: 1_048_576 });
    assert_eq!(parse_limit("lots"), None);
}

#[test]
fn a_unit_is_told_by_its_cgroup_and_a_session_is_none() {
    let check = |path: &str, wanted: Option<(&str, Scope)>| {
        let wanted = wanted.map(|(name, scope)| (name.to_owned(), scope));
        assert_eq!(unit_of(&format!("0::{path}\n")), wanted, "{path}");
    };
    check("/system.slice/push.service", Some(("push.service", Scope::System)));
    check(
        "/system.slice/system-push.slice/push@1.service",
        Some(("push@1.service", Scope::System)),
    );
    check("/system.slice/push.service/worker", Some(("push.service", Scope::System)));
    check(
        "/user.slice/user-1000.slice/user@1000.service",
        Some(("user@1000.service", Scope::System)),
    );
    check(
        "/user.slice/user-1000.slice/user@1000.service/app.slice/push.service",
        Some(("push.service", Scope::User)),
    );
    check("/user.slice/user-1000.slice/session-3.scope", None);
    check("/system.slice/docker-4af.scope", None);
    check("/", None);
    assert_eq!(unit_of("nonsense"), None);
}

#[test]
fn drop_ins_are_looked_for_under_every_name_that_covers_the_unit() {
    let names = drop_in_names("push-eu-1@a.service");
    assert_eq!(
        names,
        [
            "service",
            "push-.service",
            "push-eu-.service",
            "push-eu-1@.service",
            "push-eu-1@a.service"
        ]
    );
}
