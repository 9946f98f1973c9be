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
fn this_machine_has_a_network() {
    let (tree, own) = (Tree::live(), std::process::id());
    let network = Network::read(&tree, own, &Namespace::of(&tree, own));
    assert!(network.somaxconn.is_some_and(|limit| limit > 0));
    assert!(network.ports.is_some_and(|ports| ports.size() > 0));
    assert!(network.tcp_memory.is_some_and(|memory| memory.max > 0));
}
