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
