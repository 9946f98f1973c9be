use super::*;

// RFC 6455 1.3
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nsec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \r\n\r\n";

fn upgrade() -> Upgrade {
    Upgrade::new(&Target::websocket("ws://127.0.0.1:8000/ws").unwrap(), KEY, "X-A: b\r\n")
}

#[test]
fn asks_for_the_upgrade() {
    let request = String::from_utf8(upgrade().request).unwrap();
    assert!(request.starts_with("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"), "{request}");
    assert!(request.ends_with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-A: b\r\n\r\n"));
}

#[test]
fn takes_the_head_and_leaves_the_frames_behind_it() {
    let answer = format!("{ACCEPTED}\u{1}frame");
    assert_eq!(upgrade().check(answer.as_bytes()), Ok(Some(ACCEPTED.len())));
}

#[test]
fn waits_for_the_whole_head() {
    for end in 0..ACCEPTED.len() {
        assert_eq!(upgrade().check(&ACCEPTED.as_bytes()[..end]), Ok(None), "{end}");
    }
}

#[test]
fn a_refusal_names_status_and_body() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\nno descriptors left\n";
    let refusal = upgrade().check(answer).unwrap_err();
    assert_eq!(refusal.to_string(), "the server answered 503: no descriptors left");
}

#[test]
fn a_page_is_named_and_so_is_who_wrote_it() {
    let said = |body: &str| {
        let head = "HTTP/1.1 500 Oops\r\nServer: nginx/1.22.1\r\n\r\n";
        upgrade().check(format!("{head}{body}").as_bytes()).unwrap_err().to_string()
    };
    assert_eq!(
        said("<html>\r\n<head><title>500 Internal Server Error</title></head>"),
        "nginx/1.22.1 answered 500 with the page \"500 Internal Server Error\""
    );
    assert_eq!(said("<html>500"), "nginx/1.22.1 answered 500 with a page");
}

#[test]
fn a_wrong_accept_is_no_websocket() {
    let answer = b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: guess\r\n\r\n";
    assert!(matches!(upgrade().check(answer), Err(Refusal::WrongAccept { .. })));
    let answer = b"HTTP/1.1 101 OK\r\n\r\n";
    assert!(matches!(upgrade().check(answer), Err(Refusal::WrongAccept { .. })));
}

#[test]
fn another_protocol_is_said_so() {
    let refusal = upgrade().check(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap_err();
    assert!(refusal.to_string().contains("SSH-2.0"), "{refusal}");
    let endless = [b"HTTP/1.1 101 ".as_slice(), &[b'a'; HEAD_MAX]].concat();
    assert!(matches!(upgrade().check(&endless), Err(Refusal::NotHttp(_))));
}
