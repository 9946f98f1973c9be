use super::*;

#[cfg(target_arch = "x86_64")]
#[test]
fn select_is_told_from_sleep_and_from_everything_else() {
    assert_eq!(waits_for("23 0x400 0x7ffd 0x0 0x0 0x0 0x0 0x7ffd 0x7f\n"), Some(1024));
    assert_eq!(waits_for("270 0x5 0x7ffd 0x0 0x0 0x0 0x0 0x7ffd 0x7f\n"), Some(5));
    // Python before 3.11 sleeps in select().
    assert_eq!(waits_for("23 0x0 0x0 0x0 0x0 0x7ffd 0x0 0x7ffd 0x7f\n"), Some(0));
    assert_eq!(waits_for("232 0x4 0x7ffd 0x3ff 0x0 0x0 0x8 0x7ffd 0x7f\n"), None);
    assert_eq!(waits_for("running\n"), None);
    assert_eq!(waits_for("-1 0x7ffd 0x7f\n"), None);
    assert_eq!(waits_for(""), None);
}

#[test]
fn a_program_of_ours_does_not_import_select() {
    let ways = imports(&Tree::live(), std::process::id()).unwrap();
    assert!(!ways.select && ways.poll, "{ways:?}");
    assert_eq!(in_select(&Tree::live(), std::process::id()), None);
}
