use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::look::{EXAMPLES, Name};
use super::*;

/// A captured tree, composed by hand; it is removed with the value.
struct Captured(PathBuf);

impl Captured {
    fn new(name: &str, links: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("throng-{name}-{}", std::process::id()));
        let fd = dir.join("proc/7/fd");
        std::fs::create_dir_all(&fd).unwrap();
        for (number, link) in links {
            std::os::unix::fs::symlink(link, fd.join(number)).unwrap();
        }
        Self(dir)
    }

    fn tree(&self) -> Tree {
        Tree::at(self.0.join("proc"), self.0.join("root"))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn links_tell_the_kind() {
    let kinds = [
        ("socket:[12]", Kind::Socket),
        ("pipe:[12]", Kind::Pipe),
        ("/var/log/app.log", Kind::File),
        ("/var/log/app.log (deleted)", Kind::DeletedFile),
        ("/dev/null", Kind::Device),
        ("/dev/pts/3 (deleted)", Kind::DeletedFile),
        ("/dev/shm/sem.x", Kind::File),
        ("/memfd:x (deleted)", Kind::Memory),
        ("anon_inode:[eventpoll]", Kind::Epoll),
        ("anon_inode:[eventfd]", Kind::Event),
        ("anon_inode:[timerfd]", Kind::Timer),
        ("anon_inode:[signalfd]", Kind::Signal),
        ("anon_inode:inotify", Kind::Inotify),
        ("anon_inode:[fanotify]", Kind::Fanotify),
        ("anon_inode:[pidfd]", Kind::Process),
        ("pidfd:[33]", Kind::Process),
        ("anon_inode:[io_uring]", Kind::IoUring),
        ("anon_inode:bpf-map", Kind::Bpf),
        ("anon_inode:[perf_event]", Kind::Perf),
        ("net:[4026531840]", Kind::Namespace),
        ("anon_inode:[something new]", Kind::Other),
        ("", Kind::Other),
    ];
    for (link, kind) in kinds {
        assert_eq!(Kind::of(link.as_bytes()), kind, "{link}");
    }
}

#[test]
fn inodes_are_numbers_in_brackets() {
    assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
    assert_eq!(socket_inode(b"socket:[4294967295]"), Some(u32::MAX));
    for wrong in ["socket:[]", "socket:[4294967296]", "socket:[1", "pipe:[1]", "socket:[-1]"] {
        assert_eq!(socket_inode(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_limit_bounds_the_number_not_the_count() {
    let open = Descriptors { numbers: vec![0, 1, 2, 5, 700, 701], ..Descriptors::default() };
    assert_eq!(open.count(), 6);
    assert_eq!(open.below(10), 4);
    // Two lie above a limit that was lowered: they take no room below it.
    assert_eq!(open.free_below(10), 6);
    assert_eq!(open.free_below(3), 0);
    assert_eq!(open.free_below(701), 696);
}

#[test]
fn a_captured_tree_is_looked_at_alike() {
    let links = [
        ("0", "/dev/null"),
        ("3", "socket:[99]"),
        ("4", "socket:[98]"),
        ("5", "socket:[98]"),
        ("6", "anon_inode:[eventpoll]"),
        ("7", "/var/log/a.log (deleted)"),
        ("8", "/var/log/a.log (deleted)"),
        ("9", "/var/log/\u{1b}[31m\n (deleted)"),
        // Made without a name: nobody rotated it.
        ("10", "/tmp/#1234 (deleted)"),
        ("x", "socket:[1]"),
    ];
    let captured = Captured::new("descriptors", &links);
    let open = descriptors(&captured.tree(), 7).unwrap();
    assert_eq!(open.numbers, [0, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(open.kinds.get(Kind::Socket), 3);
    assert_eq!(
        (open.number_of(98), open.number_of(99), open.number_of(97)),
        (Some(4), Some(3), None)
    );
    assert_eq!(open.epolls, [6]);
    assert_eq!(open.deleted.count, 3);
    assert_eq!(open.deleted.examples[0], ("/var/log/a.log".to_owned(), 2));
    // A hostile name does not reach a terminal as it is.
    assert!(open.deleted.examples[1].0.chars().all(|c| !c.is_control()));
    assert_eq!(open.kinds.total(), 9);
    // The directory's own size is something else.
    assert_eq!(count(&captured.tree(), 7).unwrap(), 10);
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    assert!(descriptors(&Tree::live(), u32::MAX).unwrap_err().is_gone());
    assert!(count(&Tree::live(), u32::MAX).unwrap_err().is_gone());
}

#[test]
fn what_we_open_is_found() {
    let path = std::env::temp_dir().join(format!("throng-deleted-{}", std::process::id()));
    std::fs::write(&path, "five!").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let named = path.with_extension("log (deleted)");
    std::fs::write(&named, "").unwrap();
    let _named = std::fs::File::open(&named).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();

    let open = descriptors(&Tree::live(), std::process::id()).unwrap();
    std::fs::remove_file(&named).unwrap();
    let number = |raw: i32| u32::try_from(raw).unwrap();
    assert!(open.numbers.contains(&number(file.as_raw_fd())));
    assert!(open.sockets.iter().any(|held| held.number == number(socket.as_raw_fd())));
    assert!(open.deleted.bytes >= 5);
    let shown = path.to_str().unwrap();
    let is_shown = open.deleted.examples.iter().any(|(name, _)| name == shown);
    // Other tests of this process may have others open, which are as common.
    assert!(is_shown || open.deleted.examples.len() == EXAMPLES, "{:?}", open.deleted);
    // A file whose name ends so is no deleted file.
    let wrong = named.to_str().unwrap().strip_suffix(" (deleted)").unwrap();
    assert!(open.deleted.examples.iter().all(|(name, _)| name != wrong));
}

#[test]
fn the_count_needs_no_look() {
    let (tree, pid) = (Tree::live(), std::process::id());
    let _held: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    assert!(count(&tree, pid).unwrap() >= 50);
}

#[test]
fn a_name_is_a_number() {
    let mut name = Name::default();
    for number in [0, 7, 10, 19_999, u32::MAX, 3] {
        assert_eq!(name.of(number).to_str().unwrap(), number.to_string());
    }
}

#[test]
fn gaps_in_the_numbers_hide_nothing() {
    let mut held: Vec<_> = (0..400).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let last = u32::try_from(held.last().unwrap().as_raw_fd()).unwrap();
    // Most in the middle are closed again.
    held.drain(10..390);
    let open = descriptors(&Tree::live(), std::process::id()).unwrap();
    assert!(open.numbers.contains(&last));
    for file in &held {
        assert!(open.numbers.contains(&u32::try_from(file.as_raw_fd()).unwrap()));
    }
}
