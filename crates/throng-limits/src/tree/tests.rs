use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A directory of its own for each test, gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let at = std::env::temp_dir().join(format!("throng-tree-{}-{number}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        Self(at)
    }

    fn write(&self, name: &str, text: &str) {
        let at = self.0.join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    fn tree(&self) -> Tree {
        Tree::at(self.0.join("proc"), self.0.join("root"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // the next run makes another
    }
}

#[test]
fn a_copy_says_what_the_original_said() {
    let (from, to) = (Place::new(), Place::new());
    from.write("proc/7/limits", "Max open files 1024 4096 files\n");
    from.write("proc/7/fd/0", "");
    from.write("root/etc/nginx/nginx.conf", "worker_connections 768;\n");
    std::os::unix::fs::symlink("socket:[12]", from.0.join("proc/7/fd/1")).unwrap();
    let looked = |tree: &Tree| {
        (
            tree.read_proc("7/limits").unwrap(),
            tree.list_proc("7/fd").unwrap(),
            tree.link_proc("7/fd/1").unwrap(),
            tree.meta_root("/etc/nginx/nginx.conf").unwrap(),
            tree.read_root("/etc/nginx/../nginx/nginx.conf").unwrap(),
            tree.read_proc("8/limits").unwrap_err().to_string(),
            tree.now_s(),
        )
    };
    let recording = from.tree().recording(&to.0).unwrap();
    recording.record_proc("7/net/diag", "a\tb\n");
    let original = looked(&recording);
    recording.finish_recording().unwrap();
    fs::remove_dir_all(from.0.join("proc")).unwrap();
    let copy = to.tree();
    let again = looked(&copy);
    assert_eq!(again.6, recording.now_s.unwrap_or(again.6));
    assert_eq!(
        (original.0, original.1, original.2, original.3, original.4, original.5),
        (again.0, again.1, again.2, again.3, again.4, again.5)
    );
    assert_eq!(copy.read_proc("7/net/diag").unwrap(), "a\tb\n");
    assert!(!copy.is_live() && Tree::live().is_live());
}

#[test]
fn a_refusal_is_part_of_the_copy() {
    let (from, to) = (Place::new(), Place::new());
    from.write("proc/7/fd/0", "");
    let recording = from.tree().recording(&to.0).unwrap();
    let denied = io::Error::from_raw_os_error(13);
    recording.note(&recording.proc, "7/fd", Look::List, Err(&denied));
    recording.finish_recording().unwrap();
    assert!(to.tree().list_proc("7/fd").unwrap_err().is_denied());
    assert!(to.tree().list_proc("8/fd").unwrap_err().is_gone());
}

#[test]
fn a_copy_is_never_written_over_something() {
    let place = Place::new();
    place.write("proc/7/limits", "");
    assert!(Tree::live().recording(&place.0).is_err());
}

#[test]
fn a_link_in_a_strangers_tree_does_not_lead_out() {
    let place = Place::new();
    place.write("root/etc/inside", "inside");
    place.write("outside", "outside");
    let etc = place.0.join("root/etc");
    std::os::unix::fs::symlink("/etc/inside", etc.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../outside", etc.join("up")).unwrap();
    std::os::unix::fs::symlink(place.0.join("outside"), etc.join("out")).unwrap();
    let tree = place.tree();
    assert_eq!(tree.read_root("/etc/absolute").unwrap(), "inside");
    assert!(tree.read_root("/etc/up").is_err());
    assert!(tree.read_root("/etc/out").is_err());
    assert!(tree.read_root("/../outside").is_err());
}

#[test]
fn what_is_no_plain_file_is_not_read() {
    let tree = Tree::live();
    for path in ["/dev/zero", "/dev/tty", "/etc"] {
        assert!(tree.read_root(path).is_err(), "{path}");
    }
}

#[test]
fn what_is_live_is_read_from_the_kernel() {
    let tree = Tree::live();
    assert!(tree.read_proc("self/limits").unwrap().contains("Max open files"));
    assert!(tree.list_proc("self/fd").unwrap().contains(&"0".to_owned()));
    assert!(tree.list_proc("").unwrap().contains(&"self".to_owned()));
    assert!(tree.meta_proc("self/fd").unwrap().is_dir);
    assert!(tree.read_proc(&format!("{}/root/etc/passwd", std::process::id())).is_ok());
}

#[test]
fn secrets_do_not_leave_the_machine() {
    let (from, to) = (Place::new(), Place::new());
    from.write("proc/7/environ", "DB=postgres://u:hunter2@h\0SUPERVISOR_ENABLED=1\0");
    from.write("proc/7/cmdline", "redis\0--requirepass\0hunter2\0--api-key=hunter2\0--port\x001\0");
    from.write("root/etc/redis.conf", "maxclients 100\nrequirepass hunter2\n");
    from.write("root/etc/pam.d/su", "auth required pam_env.so\nkeepalive_timeout 60;\n");
    let tree = from.tree().recording(&to.0).unwrap();
    for path in ["7/environ", "7/cmdline"] {
        assert!(tree.read_proc(path).unwrap().contains("hunter2"));
    }
    tree.read_root("/etc/redis.conf").unwrap();
    tree.read_root("/etc/pam.d/su").unwrap();
    tree.finish_recording().unwrap();
    let copy = to.tree();
    assert_eq!(copy.read_proc("7/environ").unwrap(), "DB=[removed]\0SUPERVISOR_ENABLED=1\0");
    assert_eq!(
        copy.read_proc("7/cmdline").unwrap(),
        "redis\0--requirepass\0[removed]\0--api-key=[removed]\0--port\x001\0"
    );
    assert_eq!(
        copy.read_root("/etc/redis.conf").unwrap(),
        "maxclients 100\nrequirepass [removed]\n"
    );
    assert_eq!(
        copy.read_root("/etc/pam.d/su").unwrap(),
        "auth required pam_env.so\nkeepalive_timeout 60;\n"
    );
}

#[test]
fn where_a_proxy_passes_on_to_is_no_secret_unless_it_names_a_user() {
    let (from, to) = (Place::new(), Place::new());
    let kept = "server { location / { proxy_pass http://127.0.0.1:8888/a@b; } }\n\
                server one 127.0.0.1:8888 cookie one check\n";
    let lost = "proxy_pass http://u:hunter2@h/;\ncookie SERVERID insert\n";
    from.write("root/etc/site", &format!("{kept}{lost}"));
    from.write("proc/7/cmdline", "x\0--db=postgres://u:hunter2@h\0redis://:hunter2@h\0");
    let tree = from.tree().recording(&to.0).unwrap();
    tree.read_root("/etc/site").unwrap();
    tree.read_proc("7/cmdline").unwrap();
    tree.finish_recording().unwrap();
    let copy = to.tree();
    assert_eq!(
        copy.read_root("/etc/site").unwrap(),
        format!("{kept}proxy_pass [removed]\ncookie [removed]\n")
    );
    assert_eq!(copy.read_proc("7/cmdline").unwrap(), "x\0--db=[removed]\0[removed]\0");
}

#[test]
fn a_hostile_name_cannot_speak_to_the_terminal() {
    assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\\u{1b}[2Jb\\nc\\u{202e}d");
    assert_eq!(printable("名前 (deleted)"), "名前 (deleted)");
    assert_eq!(printable(&"x".repeat(5000)).chars().count(), PRINTABLE_CHARS_MAX + 1);
}

#[test]
fn names_with_tabs_and_line_ends_survive_the_list() {
    let (from, to) = (Place::new(), Place::new());
    from.write("proc/a\tb\nc\\09", "");
    let tree = from.tree().recording(&to.0).unwrap();
    let names = tree.list_proc("").unwrap();
    tree.finish_recording().unwrap();
    assert_eq!(to.tree().list_proc("").unwrap(), names);
}
