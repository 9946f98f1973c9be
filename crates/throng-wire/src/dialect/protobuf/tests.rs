//! The Protobuf of the protocol, in both directions.

mod maps;
mod properties;
mod vectors;

use vectors as v;

use crate::dialect::*;

const CLIENT: &str = "1a2b3c4d-0000-4000-8000-000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Asserts what the only command of a frame is.
fn is(hex: &str, id: u32, request: Request<'_>) {
    let frame = bytes(hex);
    let mut commands = commands(Encoding::Protobuf, &frame);
    assert_eq!(commands.next(), Some(Ok(Command { id, request })));
    assert_eq!(commands.next(), None);
    assert_eq!(commands.consumed(), frame.len());
}

fn malformed(frame: &[u8]) -> Malformed {
    commands(Encoding::Protobuf, frame).find_map(Result::err).unwrap()
}

/// A command with its length; all of them here are short.
fn command(message: &[u8]) -> Vec<u8> {
    [&[u8::try_from(message.len()).unwrap()][..], message].concat()
}

#[test]
fn commands_are_read_as_an_sdk_writes_them() {
    is(
        v::COMMAND_CONNECT,
        1,
        Request::Connect(ConnectRequest {
            token: "t".into(),
            data: Some(br#"{"k":1}"#.into()),
            subs: vec![
                ("a".into(), SubscribeRequest::default()),
                (
                    "b".into(),
                    SubscribeRequest {
                        recover: true,
                        epoch: "abcdefgh".into(),
                        offset: 300,
                        ..SubscribeRequest::default()
                    },
                ),
            ],
            name: "js".into(),
            version: "1.2".into(),
            headers: vec![("x-a".into(), "ж".into())],
        }),
    );
    is(
        v::COMMAND_SUBSCRIBE,
        2,
        Request::Subscribe(SubscribeRequest {
            channel: "news".into(),
            token: "tok".into(),
            recover: true,
            epoch: "e".into(),
            offset: u64::MAX,
            data: Some(b"1".into()),
            positioned: true,
            recoverable: true,
            join_leave: true,
            delta: "fossil".into(),
            tags_filter: Some(b"\x0a\x03and\x32\x0a\x12\x01a\x1a\x02eq\x22\x01b"),
            flag: 2,
            kind: 1,
            ..SubscribeRequest::default()
        }),
    );
}

#[test]
fn commands_about_a_channel_are_read_as_an_sdk_writes_them() {
    let channel = || "c".into();
    is(v::COMMAND_UNSUBSCRIBE, 3, Request::Unsubscribe { channel: channel() });
    is(v::COMMAND_PUBLISH, 4, Request::Publish { channel: channel(), data: br#"{"a":1}"#.into() });
    is(v::COMMAND_PRESENCE, 6, Request::Presence { channel: channel() });
    is(v::COMMAND_PRESENCE_STATS, 7, Request::PresenceStats { channel: channel() });
    is(
        v::COMMAND_HISTORY,
        8,
        Request::History(HistoryRequest {
            channel: channel(),
            limit: -1,
            since: Some(StreamPosition { offset: 7, epoch: "e".into() }),
            reverse: true,
        }),
    );
    is(v::COMMAND_RPC, 9, Request::Rpc { method: "m".into(), data: b"[]".into() });
    is(v::COMMAND_SEND, 0, Request::Send { data: b"2".into() });
    is(v::COMMAND_REFRESH, 10, Request::Refresh { token: "r".into() });
    is(
        v::COMMAND_SUB_REFRESH,
        11,
        Request::SubRefresh(SubRefreshRequest {
            channel: channel(),
            token: "s".into(),
            ..SubRefreshRequest::default()
        }),
    );
    is(v::COMMAND_PONG, 0, Request::Pong);
}

#[test]
fn bytes_that_are_no_json_arrive_sealed() {
    let sealed = payload::sealed(&[0, 255]).into_owned();
    is(v::COMMAND_BINARY, 5, Request::Publish { channel: "c".into(), data: sealed.clone().into() });
    let publication = || Publication { data: &sealed, ..Publication::default() };
    let mut out = Vec::new();
    let push = Push::Publication { channel: "c", publication: publication() };
    put_push(Encoding::Protobuf, Envelope::Bare, &push, &mut out);
    assert_eq!(out, b"\x12\x01c\x22\x04\x22\x02\x00\xff");
    out.clear();
    put_push(Encoding::Json, Envelope::Bare, &push, &mut out);
    assert_eq!(out, br#"{"channel":"c","pub":{"data":"AP8="}}"#);
}

#[test]
fn several_commands_stand_in_one_frame() {
    let frame = [bytes(v::COMMAND_PONG), bytes(v::COMMAND_SEND), bytes(v::COMMAND_RPC)].concat();
    let ids: Vec<u32> =
        commands(Encoding::Protobuf, &frame).map(|command| command.unwrap().id).collect();
    assert_eq!(ids, [0, 0, 9]);
    assert_eq!(malformed(b"").at, 0);
}

#[test]
fn what_is_unknown_is_passed_over_and_what_comes_twice_counts_as_proto3_says() {
    // Field 99, a varint; 98, of 8 bytes; 97, of 4; 96, a text.
    let unknown = b"\x98\x06\x01\x91\x0612345678\x8d\x06abcd\x82\x06\x01x";
    let twice = b"\x08\x05\x08\x06\x42\x03\x0a\x01a\x42\x03\x0a\x01b";
    let frame = command(&[&unknown[..], twice].concat());
    let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
    assert_eq!(got, Command { id: 6, request: Request::Presence { channel: "b".into() } });
    // Connect in two parts is one.
    let frame = command(b"\x08\x01\x22\x03\x0a\x01t\x22\x03\x22\x01n");
    let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
    let merged =
        ConnectRequest { token: "t".into(), name: "n".into(), ..ConnectRequest::default() };
    assert_eq!(got.request, Request::Connect(merged));
    // Of several requests the first in the protocol's order counts, not in the message's.
    let frame = command(b"\x08\x01\x42\x03\x0a\x01a\x32\x03\x0a\x01b");
    let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
    assert_eq!(got.request, Request::Unsubscribe { channel: "b".into() });
    // `ping` alone is nothing that a client may say.
    let frame = command(b"\x08\x01\x5a\x00");
    let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
    assert_eq!(got.request, Request::Unknown);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let said = |frame: &[u8]| malformed(frame).to_string();
    assert_eq!(said(b"\x80"), "byte 0: the length of a command was expected");
    assert_eq!(said(b"\x05\x08\x01"), "byte 0: a command is longer than its frame");
    assert_eq!(said(b"\x01\x08"), "byte 2: the message ends in a number");
    assert_eq!(said(b"\x02\x08\x80"), "byte 2: the message ends in a number");
    assert_eq!(said(b"\x02\x00\x01"), "byte 2: is no number of a field");
    assert_eq!(said(b"\x02\x0b\x01"), "byte 2: is of a kind that proto3 does not have");
    assert_eq!(said(b"\x02\x0a\x00"), "byte 2: field 1 is no number, where one belongs");
    assert_eq!(said(b"\x02\x42\x05"), "byte 3: the message ends within a field");
    assert_eq!(said(b"\x02\x40\x05"), "byte 2: presence: field 8 is a number, where bytes belong");
    assert_eq!(
        said(b"\x06\x42\x04\x0a\x02\xff\xff"),
        "byte 4: presence: field 1 is a text that is not UTF-8"
    );
    // Within the second command, counted from the start of the frame.
    assert_eq!(said(b"\x00\x02\x0a\x00"), "byte 3: field 1 is no number, where one belongs");
}

#[test]
fn a_connect_of_ten_thousand_parts_is_read_once() {
    let entry = |at: u32| {
        let key = format!("{at:05}");
        [&b"\x1a\x07\x0a\x05"[..], key.as_bytes()].concat()
    };
    let entries: Vec<u8> = (0..5000).flat_map(entry).collect();
    let mut message = b"\x08\x01\x22".to_vec();
    put_varint(entries.len() as u64, &mut message);
    message.extend(entries);
    message.extend(b"\x22\x00".repeat(10_000));
    let mut frame = Vec::new();
    put_varint(message.len() as u64, &mut frame);
    frame.extend(message);
    let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
    let Request::Connect(connect) = got.request else { panic!("{:?}", got.request) };
    assert_eq!(connect.subs.len(), 5000);
}

/// A publication with everything that one can have.
fn full<'a>(binary: Payload<'a>, tags: &'a [(String, String)]) -> Publication<'a> {
    let info = ClientInfo {
        user: "u",
        client: CLIENT.into(),
        conn_info: Some(br#"{"n":1}"#),
        chan_info: Some(binary),
    };
    Publication {
        data: br#"{"a":1}"#,
        shape: Shape::Plain,
        info: Some(info),
        offset: 300,
        tags,
        time: 1_700_000_000_000,
        epoch: "abcdefgh",
        ..Publication::default()
    }
}

#[test]
fn a_filter_is_read_as_an_sdk_writes_it() {
    let written = b"\x0a\x03and\x32\x0a\x12\x01a\x1a\x02eq\x22\x01b";
    let (key, cmp, val) = ("a".into(), "eq".into(), "b".into());
    let test = FilterNode { key, cmp, val, ..FilterNode::default() };
    let filter = FilterNode { op: "and".into(), nodes: vec![test], ..FilterNode::default() };
    assert_eq!(super::filter(written), Ok(filter));
}

#[test]
fn a_patch_is_marked_and_the_whole_is_as_ever() {
    let pushed = |shape| {
        let publication = Publication { data: b"2\n2@0,0;", shape, ..Publication::default() };
        let push = Push::Publication { channel: "c", publication };
        let mut out = Vec::new();
        put_push(Encoding::Protobuf, Envelope::Bare, &push, &mut out);
        out
    };
    assert_eq!(pushed(Shape::Whole), pushed(Shape::Plain));
    assert_eq!(pushed(Shape::Plain), b"\x12\x01c\x22\x0a\x22\x082\n2@0,0;");
    assert_eq!(pushed(Shape::Patch), b"\x12\x01c\x22\x0c\x22\x082\n2@0,0;\x40\x01");
}

#[test]
fn keys_of_a_shared_poll_come_and_go() {
    let item = |key: &'static str, version| KeyedItem { key: key.into(), version };
    let items = vec![item("a", 7), item("b", 0)];
    let track = Request::SubRefresh(SubRefreshRequest {
        channel: "c".into(),
        kind: 1,
        track: vec![TrackBatch { signature: "s".into(), items }],
        untrack: vec!["x".into()],
        ..SubRefreshRequest::default()
    });
    is("1d08017a190a01631801220f0a017312050a0161100712030a01622a0178", 1, track);
    let put = |reply: Reply<'_>| {
        let mut out = Vec::new();
        put_reply(Encoding::Protobuf, 1, &reply, &mut out);
        out
    };
    let items = [
        Publication { data: b"1", key: "a", version: 7, ..Publication::default() },
        Publication { key: "b", removed: true, ..Publication::default() },
    ];
    let tracked = Reply::SubRefresh { expires: true, ttl: 5, items: &items };
    assert_eq!(put(tracked), bytes("08017a16080110051a092201315a01618001071a055a01626001"));
    let subscribed = SubscribeResult { epoch: "e", kind: 4, ..SubscribeResult::default() };
    assert_eq!(put(Reply::Subscribe(subscribed)), bytes("080132053201657804"));
}

#[test]
fn replies_are_written_as_an_sdk_reads_them() {
    let says = |id: u32, reply: Reply<'_>, hex: &str| {
        let mut out = Vec::new();
        put_reply(Encoding::Protobuf, id, &reply, &mut out);
        assert_eq!(out, bytes(hex), "{reply:?}");
    };
    let binary = payload::sealed(&[0, 1]).into_owned();
    let tags = [("k".to_owned(), "v".to_owned())];
    let publication = full(&binary, &tags);
    let info = publication.info.clone().unwrap();
    let error = Reply::Error { code: 100, message: "internal server error", temporary: true };
    says(1, error, v::REPLY_ERROR);
    let sub = SubscribeResult {
        recoverable: true,
        epoch: "e",
        positioned: true,
        ..SubscribeResult::default()
    };
    let connect = ConnectResult {
        client: CLIENT,
        version: "v",
        expires: true,
        ttl: 60,
        data: Some(b"{}"),
        subs: &[("a", sub)],
        ping: 25,
        pong: true,
        session: "s",
        node: "n",
        time: 1_700_000_000_000,
    };
    says(1, Reply::Connect(connect), v::REPLY_CONNECT);
    let short = Publication { data: b"2", ..Publication::default() };
    let subscribe = SubscribeResult {
        expires: true,
        ttl: 5,
        recoverable: true,
        epoch: "e",
        publications: &[publication.clone(), short],
        recovered: true,
        offset: 9,
        positioned: true,
        data: Some(b"1"),
        was_recovering: true,
        delta: true,
        ..SubscribeResult::default()
    };
    says(2, Reply::Subscribe(subscribe), v::REPLY_SUBSCRIBE);
    says(3, Reply::Unsubscribe, v::REPLY_UNSUBSCRIBE);
    says(4, Reply::Publish, v::REPLY_PUBLISH);
    says(6, Reply::Presence(std::slice::from_ref(&info)), v::REPLY_PRESENCE);
    says(7, Reply::PresenceStats { num_clients: 2, num_users: 1 }, v::REPLY_PRESENCE_STATS);
    let publications = std::slice::from_ref(&publication);
    says(8, Reply::History { publications, epoch: "e", offset: 300 }, v::REPLY_HISTORY);
    says(9, Reply::Rpc { data: Some(b"[]") }, v::REPLY_RPC);
    let refresh = RefreshResult { client: CLIENT, version: "v", expires: true, ttl: 7 };
    says(10, Reply::Refresh(refresh), v::REPLY_REFRESH);
    says(11, Reply::SubRefresh { expires: true, ttl: 8, items: &[] }, v::REPLY_SUB_REFRESH);
}

#[test]
fn pushes_are_written_as_an_sdk_reads_them() {
    let says = |push: Push<'_>, hex: &str| {
        let mut out = Vec::new();
        put_push(Encoding::Protobuf, Envelope::Reply, &push, &mut out);
        assert_eq!(out, bytes(hex), "{push:?}");
    };
    let binary = payload::sealed(&[0, 1]).into_owned();
    let tags = [("k".to_owned(), "v".to_owned())];
    let publication = full(&binary, &tags);
    let info = publication.info.clone().unwrap();
    let channel = "c";
    says(Push::Publication { channel, publication }, v::REPLY_PUB);
    says(Push::Join { channel, info: info.clone() }, v::REPLY_JOIN);
    says(Push::Leave { channel, info }, v::REPLY_LEAVE);
    let reason = "server unsubscribe";
    says(Push::Unsubscribe { channel, code: 2000, reason }, v::REPLY_UNSUB);
    says(Push::Message { data: b"1" }, v::REPLY_MESSAGE);
    let result = SubscribeResult {
        recoverable: true,
        epoch: "e",
        offset: 4,
        positioned: true,
        data: Some(b"1"),
        ..SubscribeResult::default()
    };
    says(Push::Subscribe { channel, result }, v::REPLY_SUB);
    let sub = SubscribeResult { offset: 1, ..SubscribeResult::default() };
    let connect = ConnectResult {
        client: CLIENT,
        version: "v",
        expires: true,
        ttl: 60,
        data: Some(b"{}"),
        subs: &[("a", sub)],
        ping: 25,
        session: "s",
        node: "n",
        time: 5,
        ..ConnectResult::default()
    };
    says(Push::Connect(connect), v::REPLY_CONN);
    let disconnect = Push::Disconnect { code: 3001, reason: "shutdown", reconnect: true };
    says(disconnect, v::REPLY_DISCONNECT);
    says(Push::Refresh { expires: true, ttl: 3 }, v::REPLY_REFRESHED);
    says(Push::Ping, "");
}

#[test]
fn what_a_client_says_in_a_request_is_read() {
    let body = bytes(v::EMULATED);
    let said = Emulated { node: "n".into(), session: "s".into(), data: &[2, 8, 1] };
    assert_eq!(emulated(&body), Ok(said));
    assert_eq!(emulated(b""), Ok(Emulated::default()));
    assert!(emulated(b"{\"session\":1}").is_err());
}
