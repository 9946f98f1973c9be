use std::net::TcpListener;
use std::os::fd::AsRawFd;

use super::*;

#[test]
fn a_listener_of_ours_is_found_under_its_number() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let holders = holders_of_port(&Tree::live(), listener.local_addr().unwrap().port());
    assert_eq!(holders.listeners, 1);
    assert!(!holders.elsewhere);
    let number = u32::try_from(listener.as_raw_fd()).unwrap();
    assert!(
        holders.found.iter().any(|held| held.pid == std::process::id() && held.number == number)
    );
}

#[test]
fn a_listener_behind_many_descriptors_is_found() {
    let _before: Vec<_> =
        (0..2 * FIRST_LOOK).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let listener =
        TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let holders = holders_of_port(&Tree::live(), listener.local_addr().unwrap().port());
    assert!(holders.found.iter().any(|held| held.pid == std::process::id()), "{holders:?}");
}

#[test]
fn nobody_listens_where_nobody_does() {
    // Bound without listening, so that nobody else takes it meanwhile.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    if TcpListener::bind(("127.0.0.1", port)).is_ok() {
        assert_eq!(holders_of_port(&Tree::live(), port).found, []);
    }
}

#[test]
fn in_a_copy_the_port_is_found_by_its_process() {
    let dir = std::env::temp_dir().join(format!("throng-holders-{}", std::process::id()));
    for pid in [7, 8] {
        std::fs::create_dir_all(dir.join(format!("proc/{pid}/fd"))).unwrap();
        std::fs::create_dir_all(dir.join(format!("proc/{pid}/net"))).unwrap();
        std::os::unix::fs::symlink("socket:[42]", dir.join(format!("proc/{pid}/fd/6"))).unwrap();
    }
    let table = "heading\n 0: 00000000:1F40 00000000:0000 0A 0:0 00:0 0 0 0 42 1\n";
    std::fs::write(dir.join("proc/8/net/tcp"), table).unwrap();
    let tree = Tree::at(dir.join("proc"), dir.join("root"));
    let holders = holders_of_port(&tree, 8000);
    let nobody = holders_of_port(&tree, 8001);
    std::fs::remove_dir_all(&dir).unwrap();
    // Workers share the listener of their parent.
    let expected = [7, 8].map(|pid| Holder { pid, number: 6, inode: 42 });
    assert_eq!(holders.found, expected);
    assert_eq!((nobody.listeners, nobody.found), (0, vec![]));
}
