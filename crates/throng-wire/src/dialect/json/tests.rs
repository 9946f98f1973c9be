//! The JSON of the protocol, in both directions.

mod decoding;
mod encoding;
mod properties;

use std::borrow::Cow;

use crate::dialect::*;

/// The only command of a frame.
fn one(frame: &str) -> Command<'_> {
    let mut commands = commands(Encoding::Json, frame.as_bytes());
    let command = commands.next().unwrap().unwrap();
    assert_eq!(commands.next(), None);
    assert_eq!(commands.consumed(), frame.len());
    command
}

fn request(frame: &str) -> Request<'_> {
    one(frame).request
}

fn malformed(frame: impl AsRef<[u8]>) -> Malformed {
    commands(Encoding::Json, frame.as_ref()).find_map(Result::err).unwrap()
}

fn reply(id: u32, reply: &Reply<'_>) -> String {
    let mut out = Vec::new();
    put_reply(Encoding::Json, id, reply, &mut out);
    String::from_utf8(out).unwrap()
}

fn push(envelope: Envelope, push: &Push<'_>) -> String {
    let mut out = Vec::new();
    put_push(Encoding::Json, envelope, push, &mut out);
    String::from_utf8(out).unwrap()
}

const CLIENT: &str = "1a2b3c4d-0000-4000-8000-000000000000";

mod golden {
    //! A whole conversation, byte for byte.
    use super::*;

    #[test]
    fn connect() {
        let command = one(r#"{"id":1,"connect":{"name":"js"}}"#);
        let expected = ConnectRequest { name: "js".into(), ..ConnectRequest::default() };
        assert_eq!(command, Command { id: 1, request: Request::Connect(expected) });
        let result = ConnectResult {
            client: CLIENT,
            version: "6.9.1 OSS",
            ping: 25,
            pong: true,
            ..ConnectResult::default()
        };
        assert_eq!(
            reply(1, &Reply::Connect(result)),
            format!(
                r#"{{"id":1,"connect":{{"client":"{CLIENT}","version":"6.9.1 OSS","ping":25,"pong":true}}}}"#
            )
        );
    }

    #[test]
    fn subscribe() {
        let command = one(r#"{"id":2,"subscribe":{"channel":"test"}}"#);
        let expected = SubscribeRequest { channel: "test".into(), ..SubscribeRequest::default() };
        assert_eq!(command, Command { id: 2, request: Request::Subscribe(expected) });
        let result = SubscribeResult {
            recoverable: true,
            epoch: "aBcDeFgH",
            positioned: true,
            ..SubscribeResult::default()
        };
        assert_eq!(
            reply(2, &Reply::Subscribe(result)),
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"aBcDeFgH","positioned":true}}"#
        );
    }

    #[test]
    fn publish() {
        let command = one(r#"{"id":3,"publish":{"channel":"test","data":{"a":1}}}"#);
        let expected = Request::Publish { channel: "test".into(), data: br#"{"a":1}"#.into() };
        assert_eq!(command, Command { id: 3, request: expected });
        let info = ClientInfo { client: CLIENT.into(), ..ClientInfo::default() };
        let publication = Publication {
            data: br#"{"a":1}"#,
            info: Some(info),
            offset: 1,
            epoch: "aBcDeFgH",
            ..Publication::default()
        };
        let pushed = Push::Publication { channel: "test", publication };
        assert_eq!(
            push(Envelope::Reply, &pushed),
            format!(
                r#"{{"push":{{"channel":"test","pub":{{"data":{{"a":1}},"info":{{"user":"","client":"{CLIENT}"}},"offset":1,"epoch":"aBcDeFgH"}}}}}}"#
            )
        );
        assert_eq!(reply(3, &Reply::Publish), r#"{"id":3,"publish":{}}"#);
    }

    #[test]
    fn ping_and_pong() {
        assert_eq!(push(Envelope::Reply, &Push::Ping).as_bytes(), Encoding::Json.ping());
        assert_eq!(push(Envelope::Bare, &Push::Ping).as_bytes(), Encoding::Json.ping());
        assert_eq!(one("{}"), Command { id: 0, request: Request::Pong });
    }

    #[test]
    fn error() {
        let error = Reply::Error { code: 108, message: "not available", temporary: false };
        assert_eq!(reply(4, &error), r#"{"id":4,"error":{"code":108,"message":"not available"}}"#);
    }
}
