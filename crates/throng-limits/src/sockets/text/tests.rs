use super::*;

/// As a kernel wrote it, with a client of IPv4 at a listener of IPv6.
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000011 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F40 0302010A:9C40 08 00000000:00000001 02:00000A1B 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 88 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000302010A:9C41 01 00000005:00000000 01:00000014 00000000     0        0 89 2 0000000000000000 20 4 0 10 -1
";

#[test]
fn lines_are_rows() {
    let found: Vec<_> = rows(TCP).collect();
    assert_eq!(found[0].state, State::Listen);
    assert_eq!(found[0].local, "127.0.0.1:8000".parse().unwrap());
    assert_eq!((found[0].receive_queue, found[0].uid, found[0].inode), (17, 1000, 4711));
    assert_eq!(found[1].state, State::CloseWait);
    assert_eq!(found[1].peer, "10.1.2.3:40000".parse().unwrap());
    assert_eq!(found[1].timer, Timer::KeepAlive);
    assert_eq!(found.len(), 2);
}

#[test]
fn ipv6_is_read_and_mapped_addresses_are_ipv4() {
    let found: Vec<_> = rows(TCP6).collect();
    assert_eq!(found[0].local, "[::1]:80".parse().unwrap());
    assert_eq!(found[1].peer, "10.1.2.3:40001".parse().unwrap());
    assert_eq!((found[1].send_queue, found[1].timer), (5, Timer::Retransmit));
}

#[test]
fn what_is_written_is_read_again() {
    let found: Vec<_> = rows(TCP).chain(rows(TCP6)).collect();
    assert_eq!(found.len(), 4);
    let again: Vec<_> = rows(&table(&found)).collect();
    assert_eq!(again, found);
}

#[test]
fn the_length_of_a_queue_survives_in_a_copy() {
    let mut row = rows(TCP).next().unwrap();
    row.send_queue = 4096;
    assert_eq!(rows(&table(&[row])).next(), Some(row));
}

#[test]
fn a_broken_line_is_passed_over() {
    for broken in
        ["", "x", "0: 0100007F 00000000:0000 0A", "0: 0100007F:1F40 00:00 0A 0:0 0:0 0 0 0 1"]
    {
        assert_eq!(rows(&format!("heading\n{broken}\n")).count(), 0, "{broken}");
    }
    assert_eq!(rows("").count(), 0);
    // A character of several bytes where a digit belongs.
    assert_eq!(rows("heading\n0: 01000é7F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 1\n").count(), 0);
}

#[test]
fn this_kernels_text_is_understood() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = listener.local_addr().unwrap();
    assert!(rows(&text).any(|row| row.local == local && row.state == State::Listen));
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "(?s)[0-9A-F: \n\u{e9}]{0,300}") {
        let _ = rows(&text).count();
    }
}
