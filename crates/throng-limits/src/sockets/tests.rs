use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use super::*;
use crate::descriptors::descriptors;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("throng-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn tree(dir: &Path) -> Tree {
    Tree::at(dir.join("proc"), dir.join("root"))
}

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn line(local: &str, peer: &str, state: &str, waiting: u32, inode: u32) -> String {
    format!(
        "   0: {local} {peer} {state} 00000000:{waiting:08X} 00:00000000 00000000  1000        0 {inode} 1\n"
    )
}

/// A process with a listener, two clients of which one hung up, a connection of its own, and a
/// socket that is in no table; beside it, somebody else's connection to the same target.
fn captured() -> Directory {
    let dir = Directory::new(&format!("sockets-{}", rand_name()));
    let table = [
        HEADING.to_owned(),
        line("0100007F:1F40", "00000000:0000", "0A", 11, 10),
        line("0100007F:1F40", "0200007F:9C40", "01", 0, 11),
        line("0100007F:1F40", "0300007F:9C41", "08", 1, 12),
        line("0100007F:1F40", "0300007F:9C42", "03", 0, 0),
        line("0100007F:C350", "0100007F:1538", "01", 0, 13),
        line("0100007F:C351", "0100007F:1538", "06", 0, 0),
    ];
    dir.write("proc/7/net/tcp", &table.concat());
    dir.write(
        "proc/7/net/unix",
        "Num RefCount Protocol Flags Type St Inode Path\n\
        0: 00000002 00000000 00010000 0001 01 14 /run/app.sock\n",
    );
    std::fs::create_dir_all(dir.0.join("proc/7/fd")).unwrap();
    for (number, inode) in [(3, 10), (4, 11), (5, 12), (6, 13), (7, 14), (8, 99), (9, 99)] {
        let link = dir.0.join(format!("proc/7/fd/{number}"));
        std::os::unix::fs::symlink(format!("socket:[{inode}]"), link).unwrap();
    }
    dir
}

/// Tests of one process must not share a directory.
fn rand_name() -> String {
    std::thread::current().name().unwrap_or("x").replace(':', "-")
}

#[test]
fn a_captured_table_tells_whose_is_what() {
    let dir = captured();
    let tree = tree(&dir.0);
    let open = descriptors(&tree, 7).unwrap();
    let found = sockets(&tree, 7, Some(&open));
    assert_eq!(found.way, Way::Text);
    let listener = &found.listeners[..];
    assert_eq!(listener.len(), 1);
    assert_eq!(listener[0].local, "127.0.0.1:8000".parse().unwrap());
    assert_eq!((listener[0].waiting, listener[0].backlog, listener[0].number), (11, None, Some(3)));
    assert_eq!(listener[0].requested, 1);
    let owned = found.owned.unwrap();
    assert_eq!((owned.sockets, owned.duplicates), (6, 1));
    assert_eq!((owned.inbound, owned.outbound), (2, 1));
    assert_eq!(owned.tcp.get(State::CloseWait), 1);
    assert_eq!(owned.close_wait_peers, [("127.0.0.3".parse().unwrap(), 1)]);
    assert_eq!(owned.peers.len(), 2);
    let target = "127.0.0.1:5432".parse().unwrap();
    assert_eq!(owned.upstreams, [(Upstream::Tcp(target), 1)]);
    let used = PortUse { source: "127.0.0.1".parse().unwrap(), target, own: 1, all: 2 };
    assert_eq!(owned.ports, [used]);
    assert_eq!(owned.unix_listeners[0].path, "/run/app.sock");
    assert_eq!(owned.unhashed, [("unknown".to_owned(), 1)]);
    // What the copy lacks is said.
    assert!(
        found.unseen.iter().any(|unseen| unseen.what == "its UDP sockets"),
        "{:?}",
        found.unseen
    );
}

#[test]
fn without_descriptors_the_listeners_of_the_namespace_are_all_there_is() {
    let dir = captured();
    let found = sockets(&tree(&dir.0), 7, None);
    assert_eq!(found.owned, None);
    assert_eq!(found.listeners.len(), 1);
    assert_eq!(found.listeners[0].number, None);
}

#[test]
fn all_states_of_a_namespace_are_counted() {
    let dir = captured();
    dir.write("proc/7/net/tcp6", HEADING);
    let states = states(&tree(&dir.0), 7).unwrap();
    assert_eq!((states.total(), states.get(State::TimeWait)), (6, 1));
}

#[test]
fn garbage_in_a_table_is_passed_over() {
    let dir = captured();
    dir.write("proc/7/net/tcp", "garbage\n\u{0}\u{1}\n   1: ZZ:ZZ 1:1 01 0:0 0:0 0 0 0 11\n");
    let tree = tree(&dir.0);
    let open = descriptors(&tree, 7).unwrap();
    let owned = sockets(&tree, 7, Some(&open)).owned.unwrap();
    assert_eq!(owned.tcp.total(), 0);
    assert_eq!(owned.unhashed_in_all(), 5);
}

#[test]
fn a_copy_says_what_the_kernel_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let held: Vec<_> = clients.iter().map(|_| listener.accept().unwrap()).collect();
    drop(clients.pop());
    let _unix = std::os::unix::net::UnixStream::pair().unwrap();
    let _fresh = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();

    let dir = Directory::new(&format!("copy-{}", rand_name()));
    let pid = std::process::id();
    let copying = Tree::live().recording(&dir.0).unwrap();
    let open = descriptors(&copying, pid).unwrap();
    let live = sockets(&copying, pid, Some(&open));
    copying.finish_recording().unwrap();

    let copied = tree(&dir.0);
    let open = descriptors(&copied, pid).unwrap();
    let read = sockets(&copied, pid, Some(&open));
    assert_eq!(read.listeners, live.listeners);
    assert_eq!(read.place, live.place);
    let (read, live) = (read.owned.unwrap(), live.owned.unwrap());
    assert_eq!(read, live);
    let in_silence = |silence: Option<Silence>| silence.map(|silence| (silence.sample, silence.of));
    // Each connection once, whatever else this process has meanwhile.
    assert!(in_silence(live.close_wait_silence).is_some_and(|(sample, of)| sample == of));
    assert!(live.inbound >= 2 && live.unix >= 2 && live.unhashed_in_all() >= 1);
    assert!(live.silence.is_some(), "{live:?}");
    drop(held);
}

#[test]
fn a_listener_of_ours_shows_its_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _waiting = TcpStream::connect(address).unwrap();
    let tree = Tree::live();
    let open = descriptors(&tree, std::process::id()).unwrap();
    let found = sockets(&tree, std::process::id(), Some(&open));
    assert_eq!((found.way, found.place), (Way::SockDiag, Place::Here));
    let ours = found.listeners.iter().find(|listener| listener.local == address).unwrap();
    assert_eq!(ours.waiting, 1);
    assert!(ours.backlog.is_some_and(|backlog| backlog >= 1));
    assert!(states(&tree, std::process::id()).unwrap().get(State::Listen) >= 1);
}
