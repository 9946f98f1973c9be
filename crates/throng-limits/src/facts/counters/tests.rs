use super::*;

#[test]
fn reserved_ports_within_the_range_do_not_count() {
    let range = parse_ports("32768\t60999\n", "8080,40000-40009,60990-65000\n").unwrap();
    assert_eq!((range.first, range.last, range.reserved), (32768, 60999, 20));
    assert_eq!(range.size(), 28_232 - 20);
    assert_eq!(parse_ports("32768 60999\n", "\n").unwrap().size(), 28_232);
    assert_eq!(parse_ports("60999\n", ""), None);
    assert_eq!(parse_ports("60999 32768\n", "").unwrap().size(), 1);
}

#[test]
fn the_memory_of_sockets_is_in_pages() {
    let sockstat =
        "sockets: used 9\nTCP: inuse 5 orphan 1 tw 2 alloc 7 mem 30\nUDP: inuse 0 mem 0\n";
    let memory = parse_tcp_memory("100\t200\t300\n", sockstat).unwrap();
    assert_eq!(memory, TcpMemory { used: 30, pressure: 200, max: 300, sockets: 7, orphans: 1 });
    assert_eq!(parse_tcp_memory("100 200\n", sockstat), None);
    assert_eq!(parse_tcp_memory("1 2 3", "TCP: inuse\n"), None);
}

#[test]
fn what_was_lost_is_found_by_name() {
    let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDrop\n\
                TcpExt: 1 188 190 3\nIpExt: ListenOverflows\nIpExt: 7\n";
    let lost = parse_lost(text);
    assert_eq!((lost.listen_overflows, lost.listen_drops, lost.syn_drops), (188, 190, 3));
    assert_eq!(parse_lost("TcpExt: A\n"), Lost::default());
    assert_eq!(parse_lost("garbage"), Lost::default());
}

#[test]
fn this_machine_has_a_network() {
    let network = Network::read(&Tree::live(), std::process::id());
    assert!(network.somaxconn.is_some_and(|limit| limit > 0));
    assert!(network.ports.is_some_and(|ports| ports.size() > 0));
    assert!(network.tcp_memory.is_some_and(|memory| memory.max > 0));
}
