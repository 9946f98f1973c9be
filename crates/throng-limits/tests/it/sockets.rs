//! Queues, leaks, ports and namespaces, in processes that really have them.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use throng_limits::Tree;
use throng_limits::descriptors::{Descriptors, Kind, count, descriptors};
use throng_limits::facts::netstat::tcp_losses;
use throng_limits::sockets::{
    BACKLOG_MAX, BacklogError, Namespace, Owned, Place, Sockets, State, Way, holders_of_port,
    open_and_sockets, raise_backlog, sockets,
};

use crate::roles::{PLAY, Player, itself};

/// No event is as late as this; that it did not come is never what a test waits for.
const LONG: Duration = Duration::from_secs(30);
/// As long as somebody waits who is not let in. A kernel on a busy machine needs far less to let
/// somebody in, and who is let in late is no failure.
const SHORT: Duration = Duration::from_millis(300);
/// `nobody` on every Linux.
const NOBODY: u32 = 65_534;

fn look(pid: u32) -> (Descriptors, Sockets, Owned) {
    let tree = Tree::live();
    let open = descriptors(&tree, pid).unwrap();
    let mut found = sockets(&tree, pid, Some(&open));
    let owned = found.owned.take().unwrap();
    (open, found, owned)
}

/// Looks until it is so: what a client has done the kernel tells the server a moment later.
fn look_until(pid: u32, is_so: impl Fn(&Sockets, &Owned) -> bool) -> (Descriptors, Sockets, Owned) {
    let begun = Instant::now();
    loop {
        let seen = look(pid);
        if is_so(&seen.1, &seen.2) {
            return seen;
        }
        assert!(begun.elapsed() < LONG, "{:?} {:?}", seen.1, seen.2);
        std::thread::yield_now();
    }
}

fn loopback(port: &str) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into()
}

/// How long the kernel lets a queue be here.
fn somaxconn() -> u32 {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap()
}

/// Says why a test does not run on this machine.
fn skip(test: &str, why: impl std::fmt::Display) {
    let mut out = std::io::stderr().lock();
    writeln!(out, "skipped: {test}: {why}").unwrap();
}

/// Enough to be counted.
const CROWD: u32 = 1200;

/// A process that serves a crowd, and the processes of its clients.
fn crowded(role: &str) -> [Player; 2] {
    let mut server = Player::start(role);
    let port = server.says("port");
    let mut clients = Player::start(&format!("visits {port} {CROWD}"));
    clients.says("ready");
    server.says("ready");
    [server, clients]
}

/// What is found when not each descriptor is looked at, beside what is when each is.
fn both_ways(pid: u32, limit: u64) -> (Descriptors, Owned, Descriptors, Owned) {
    let (open, mut found) = open_and_sockets(&Tree::live(), pid, limit);
    let (each, _, owned) = look(pid);
    (open.unwrap(), found.owned.take().unwrap(), each, owned)
}

#[test]
fn a_crowd_is_counted_as_it_is_when_each_is_looked_at() {
    let [server, _clients] = crowded(&format!("serves {CROWD} 0"));
    let (open, owned, each, each_owned) = both_ways(server.pid(), 100_000);
    assert!(open.crowd.len() > 800, "{}", open.crowd.len());
    assert!(each.crowd.is_empty());
    assert_eq!((open.count(), open.kinds), (each.count(), each.kinds));
    assert_eq!(open.below(100_000), each.below(100_000));
    assert_eq!(owned.inbound, CROWD);
    // How long they are silent grows from one look to the next.
    let timeless = |owned| Owned { silence: None, ..owned };
    assert_eq!(timeless(owned), timeless(each_owned));
}

#[test]
fn what_hides_behind_a_crowd_is_looked_for() {
    let [server, _clients] = crowded(&format!("serves {CROWD} 1"));
    let (open, owned, each, each_owned) = both_ways(server.pid(), 100_000);
    assert!(open.crowd.is_empty());
    assert_eq!((open, owned.sockets), (each, each_owned.sockets));
}

#[test]
fn a_crowd_above_a_lowered_limit_is_looked_at_one_by_one() {
    let [server, _clients] = crowded(&format!("serves {CROWD} 0"));
    let (open, _, each, _) = both_ways(server.pid(), 100);
    assert!(open.crowd.is_empty());
    assert_eq!(open.below(100), each.below(100));
    assert!(open.count() > 1200 && open.below(100) == 100);
}

#[test]
fn a_crowd_that_another_process_holds_is_not_counted() {
    // As many are open as sockets are behind the listener, and they are something else.
    let [server, _clients] = crowded(&format!("hands-on {CROWD}"));
    let (open, owned, each, _) = both_ways(server.pid(), 100_000);
    assert!(open.crowd.is_empty());
    assert_eq!(owned.inbound, 0);
    assert_eq!(each.kinds.get(Kind::Socket), 1);
}

#[test]
fn a_queue_that_overflows_is_seen_and_made_longer() {
    let mut server = Player::start("never-accepts 16");
    let address = loopback(&server.says("port"));
    server.says("ready");
    let lost = || tcp_losses(&Tree::live(), std::process::id()).unwrap().listen_overflows;
    let before = lost();
    // The kernel lets one more in than the queue is long.
    let waiting: Vec<_> =
        (0..17).map(|_| TcpStream::connect_timeout(&address, LONG).unwrap()).collect();
    look_until(server.pid(), |found, _| found.listeners[0].waiting == 17);
    let turned_away = TcpStream::connect_timeout(&address, SHORT);
    assert!(turned_away.is_err());
    assert!(lost() > before);

    let (_, found, _) = look(server.pid());
    assert_eq!(found.way, Way::SockDiag);
    let listener = &found.listeners[0];
    assert_eq!((found.listeners.len(), listener.local), (1, address));
    assert_eq!((listener.waiting, listener.backlog), (17, Some(16)));

    let somaxconn = somaxconn();
    let raised = raise_backlog(server.pid(), address.port(), 4000).unwrap();
    assert_eq!(raised.len(), 1);
    assert_eq!((raised[0].local, raised[0].was), (address, Some(16)));
    assert_eq!(raised[0].is, Some(somaxconn.min(4000)));
    assert_eq!(raised[0].cut_by, (somaxconn < 4000).then_some(somaxconn));
    // Who was turned away gets in, and who waited is still there.
    TcpStream::connect_timeout(&address, LONG).unwrap();
    look_until(server.pid(), |found, _| found.listeners[0].waiting > 17);
    drop(waiting);
}

#[test]
fn a_queue_is_never_made_shorter() {
    let mut server = Player::start("never-accepts 100");
    let port = loopback(&server.says("port")).port();
    server.says("ready");
    let raised = raise_backlog(server.pid(), port, 5).unwrap();
    assert_eq!((raised[0].was, raised[0].is, raised[0].cut_by), (Some(100), Some(100), None));
}

#[test]
fn a_queue_beyond_what_the_kernel_allows_says_who_cut_it() {
    let mut server = Player::start("never-accepts 5");
    let port = loopback(&server.says("port")).port();
    server.says("ready");
    let wanted = somaxconn().saturating_add(1);
    if wanted > BACKLOG_MAX {
        return skip("a queue that somaxconn cuts", "it allows the longest there is");
    }
    let raised = raise_backlog(server.pid(), port, wanted).unwrap();
    assert_eq!((raised[0].is, raised[0].cut_by), (Some(wanted - 1), Some(wanted - 1)));
}

#[test]
fn a_queue_that_is_not_there_is_an_error_in_words() {
    let mut server = Player::start("never-accepts 5");
    let port = loopback(&server.says("port")).port();
    server.says("ready");
    let error = raise_backlog(std::process::id(), port, 10).unwrap_err();
    assert!(matches!(error, BacklogError::NotListening { .. }), "{error}");
    let error = raise_backlog(u32::MAX, port, 10).unwrap_err();
    assert_eq!(error.to_string(), "process 4294967295 is gone");
    let error = raise_backlog(server.pid(), port, 0).unwrap_err();
    assert!(error.to_string().contains("ask for 1 to 65535"), "{error}");
}

#[test]
fn every_kind_of_leak_is_told_from_the_others() {
    let mut server = Player::start("leaks 60");
    let address = loopback(&server.says("port"));
    let clients: Vec<_> =
        (0..60).map(|_| TcpStream::connect_timeout(&address, LONG).unwrap()).collect();
    server.says("ready");
    for client in &clients[..40] {
        client.shutdown(Shutdown::Write).unwrap();
    }
    let seen = look_until(server.pid(), |_, owned| owned.tcp.get(State::CloseWait) == 40);
    let (open, found, owned) = seen;
    assert_eq!(found.unseen, []);
    assert_eq!((owned.inbound, owned.outbound), (60, 0));
    assert_eq!(owned.tcp.get(State::Established), 20);
    assert_eq!(owned.close_wait_peers, [(Ipv4Addr::LOCALHOST.into(), 40)]);
    assert_eq!(owned.peers_in_all, 1);
    assert_eq!(owned.unhashed, [("TCP".to_owned(), 50)]);
    assert_eq!(owned.unix, 20);
    let silence = owned.silence.unwrap();
    assert_eq!((silence.sample, silence.of, silence.mute), (20, 20, 20));
    assert_eq!(owned.close_wait_silence.unwrap().sample, 40);
    assert_eq!(owned.unwatched, 20);
    let kinds = open.kinds;
    assert_eq!((kinds.get(Kind::Epoll), kinds.get(Kind::Event)), (3, 1));
    assert!(kinds.get(Kind::Pipe) >= 8);
    assert_eq!(u64::from(kinds.total()), open.count());
    let log = std::env::temp_dir().join(format!("throng-log-{}", server.pid()));
    let log = (log.to_str().unwrap().to_owned(), 6);
    assert!(open.deleted.examples.contains(&log), "{:?}", open.deleted);
    assert!(open.deleted.bytes >= 6000);
    // Every socket is accounted for.
    let found = owned.tcp.total() + owned.unix + owned.unhashed_in_all();
    assert_eq!(owned.sockets, found);
}

#[test]
fn the_one_who_listens_is_found_by_its_port() {
    let mut server = Player::start("never-accepts 5");
    let port = loopback(&server.says("port")).port();
    server.says("ready");
    let holders = holders_of_port(&Tree::live(), port);
    assert!(holders.found.iter().any(|holder| holder.pid == server.pid()), "{holders:?}");
}

/// A process in a network namespace of its own, with so many ports; or why there is none.
fn in_a_namespace(role: &str, ports: &str) -> Result<Player, String> {
    let quoted = PLAY.join(" ");
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let own = own.to_str().ok_or("the path of the tests is not UTF-8")?;
    let script = format!(
        "ip link set lo up && echo '{ports}' > /proc/sys/net/ipv4/ip_local_port_range && exec \
         \"$0\" {quoted}"
    );
    let tried = Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).output();
    let tried = tried.map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned());
    }
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &script, own]);
    Ok(Player::start_with(command, role))
}

#[test]
fn ports_that_are_used_up_are_counted_by_source_and_target() {
    let mut server = match in_a_namespace("connects", "40000 40099") {
        Ok(server) => server,
        Err(why) => return skip("ports used up in a network namespace", why),
    };
    assert_eq!(server.says("connections"), "100");
    assert_eq!(server.says("error"), "address not available");
    server.says("ready");

    let (_, found, owned) = look(server.pid());
    // It is in another namespace, and is asked all the same.
    assert_eq!((found.place, found.way), (Place::Elsewhere, Way::SockDiag));
    assert_eq!(found.listeners[0].local, "127.0.0.1:80".parse().unwrap());
    assert!(found.listeners[0].backlog.is_some());
    assert_eq!((owned.inbound, owned.outbound), (100, 100));
    let used = owned.ports[0];
    assert_eq!((used.source, used.target), (Ipv4Addr::LOCALHOST.into(), loopback("80")));
    assert_eq!((used.own, used.all), (100, 100));
    let tree = Tree::live();
    let range = Namespace::of(&tree, server.pid()).setting(&tree, "ipv4/ip_local_port_range");
    assert_eq!(range.unwrap().split_whitespace().collect::<Vec<_>>(), ["40000", "40099"]);
    // Its port is not one of ours, and is found where it is.
    let holders = holders_of_port(&tree, 80);
    if holders.elsewhere {
        assert!(holders.found.iter().any(|holder| holder.pid == server.pid()), "{holders:?}");
    } else {
        skip("finding a port in another namespace", "port 80 is taken on this machine");
    }
}

#[test]
fn a_queue_in_another_namespace_is_made_longer() {
    let mut server = match in_a_namespace("never-accepts 3", "40000 40099") {
        Ok(server) => server,
        Err(why) => return skip("a queue in another network namespace", why),
    };
    let port = loopback(&server.says("port")).port();
    server.says("ready");
    let raised = raise_backlog(server.pid(), port, 64).unwrap();
    assert_eq!((raised[0].was, raised[0].is), (Some(3), Some(64)));
}

#[test]
fn nobody_sees_a_part_and_hears_what_root_would_add() {
    let mut server = Player::start("never-accepts 16");
    let address = loopback(&server.says("port"));
    server.says("ready");
    let _waiting = TcpStream::connect_timeout(&address, LONG).unwrap();
    look_until(server.pid(), |found, _| found.listeners[0].waiting == 1);
    let as_nobody = || {
        let mut command = itself();
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    if let Err(error) = as_nobody().arg("--list").output() {
        return skip("a look as nobody", format!("we cannot become nobody: {error}"));
    }
    let mut nobody = Player::start_with(as_nobody(), &format!("looks {}", server.pid()));
    let counted = nobody.says("count");
    let expected = count(&Tree::live(), server.pid()).unwrap();
    // Before Linux 6.2 the number is for us alone.
    assert!(counted == expected.to_string() || counted.contains("ermission denied"), "{counted}");
    assert_eq!(nobody.says("denied"), "true");
    assert_eq!(nobody.says("way"), "Text");
    assert_eq!(nobody.says("owned"), "false");
    let ports = nobody.says("ports");
    assert!(ports.split(',').any(|port| port == address.port().to_string()), "{ports}");
    assert!(nobody.says("waiting").parse::<u32>().unwrap() >= 1);
    assert!(nobody.says("unseen").contains("network namespace"));
    assert_eq!(nobody.says("root"), "true");

    let role = format!("lengthens {} {} 100", server.pid(), address.port());
    let mut nobody = Player::start_with(as_nobody(), &role);
    let said = nobody.says("said");
    assert!(said.contains("not allowed") && said.contains("run as root"), "{said}");
}

#[test]
fn a_process_that_ends_meanwhile_leaves_a_partial_answer() {
    let mut server = Player::start("leaks 1");
    let address = loopback(&server.says("port"));
    let _client = TcpStream::connect_timeout(&address, LONG).unwrap();
    server.says("ready");
    let pid = server.pid();
    let tree = Tree::live();
    let open = descriptors(&tree, pid).unwrap();
    drop(server);
    let owned = sockets(&tree, pid, Some(&open)).owned.unwrap();
    // What is gone is not taken for a leak.
    assert_eq!(owned.unhashed, []);
    assert!(owned.closed > 0);
}
