use super::*;

const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nTgid:\t4121\nPid:\t4121\nPPid:\t812\n\
    Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nThreads:\t3\n\
    CapEff:\t0000000001000000\nCapBnd:\t000001ffffffffff\n";

fn called(arguments: &[&str]) -> String {
    let mut identity = Identity::parse(4121, STATUS).unwrap();
    identity.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    identity.name()
}

#[test]
fn status_says_who_it_is() {
    let identity = Identity::parse(4121, STATUS).unwrap();
    assert_eq!((identity.parent, identity.threads, identity.is_zombie), (812, 3, false));
    assert!(identity.user.are_all(1000) && !identity.user.are_all(0));
    assert!(identity.effective.raises_limits() && !identity.effective.ignores_file_max());
    assert_eq!(Identity::parse(1, "Name:\tx\n"), None);
    assert_eq!(Identity::parse(1, ""), None);
}

#[test]
fn a_process_is_called_what_a_person_calls_it() {
    assert_eq!(called(&["/usr/bin/python3", "-u", "/srv/push.py", "--port=1"]), "python3 push.py");
    assert_eq!(called(&["python3.11", "-m", "http.server"]), "python3.11 http.server");
    assert_eq!(called(&["java", "-cp", "a.jar", "-jar", "/srv/push.jar"]), "java push.jar");
    assert_eq!(called(&["nginx: worker process"]), "nginx: worker process");
    assert_eq!(called(&["/usr/sbin/haproxy", "-f", "x"]), "haproxy");
    assert_eq!(called(&["-bash"]), "bash");
    assert_eq!(called(&["python3", "-c", "import this"]), "python3");
    assert_eq!(called(&[]), "python3");
}

#[test]
fn a_hostile_name_is_not_printed_raw() {
    assert_eq!(called(&["/x/\u{1b}[2Jgood\nOK"]), "\\u{1b}[2Jgood\\nOK");
    assert_eq!(called(&[&"x".repeat(900)]).chars().count(), NAME_CHARS_MAX);
}

#[test]
fn a_name_in_parentheses_does_not_shift_the_start() {
    let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
    assert_eq!(parse_start(stat), Some(4242));
    assert_eq!(parse_start("7 (a"), None);
    assert_eq!(parse_boot("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
}

#[test]
fn this_process_is_read_from_the_kernel() {
    let me = Identity::read(&Tree::live(), std::process::id()).unwrap();
    let now = Tree::live().now_s();
    assert!(me.started_s.is_some_and(|started| (now - started).abs() < 3600), "{me:?}");
    assert!(Identity::read(&Tree::live(), 0).unwrap_err().is_gone());
}
