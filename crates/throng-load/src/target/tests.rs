use super::*;

fn read(url: &str) -> String {
    match Target::websocket(url) {
        Ok(target) => format!("{} {} {}", target.authority(), target.address, target.path),
        Err(failure) => failure.why,
    }
}

#[test]
fn reads_host_port_and_path() {
    assert_eq!(
        read("ws://127.0.0.1:8000/connection/websocket"),
        "127.0.0.1:8000 127.0.0.1:8000 /connection/websocket"
    );
    assert_eq!(read("WS://127.0.0.1"), "127.0.0.1:80 127.0.0.1:80 /");
    assert_eq!(read("ws://127.0.0.1:1?a=b#c"), "127.0.0.1:1 127.0.0.1:1 /?a=b");
    assert_eq!(read("ws://[::1]:9/x"), "[::1]:9 [::1]:9 /x");
}

#[test]
fn says_what_is_wrong_with_a_url() {
    assert_eq!(read("localhost:8000"), "it names no scheme");
    assert_eq!(read("http://localhost/"), "its scheme is not ws");
    assert_eq!(read("wss://localhost/"), "connections with TLS are not measured yet");
    assert_eq!(read("ws://localhost:http/"), "its host or port is wrong");
    assert_eq!(read("ws:///path"), "its host or port is wrong");
}

#[test]
fn localhost_is_the_address_with_many_neighbours() {
    assert!(Target::websocket("ws://localhost:1/").unwrap().address.is_ipv4());
}

#[test]
fn another_path_on_the_same_server() {
    let target = Target::websocket("ws://127.0.0.1:8000/connection/websocket").unwrap();
    assert_eq!(target.at("/api").path, "/api");
    assert_eq!(target.at("/api").address, target.address);
}
