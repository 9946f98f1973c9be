//! Replies and pushes, byte for byte.

use super::*;

/// Everything set.
fn full_info() -> ClientInfo<'static> {
    ClientInfo {
        user: "u",
        client: "c".into(),
        conn_info: Some(b"{\"a\":1}"),
        chan_info: Some(b"[2]"),
    }
}

const FULL_INFO: &str = r#"{"user":"u","client":"c","conn_info":{"a":1},"chan_info":[2]}"#;

fn numbered(offset: u64) -> Publication<'static> {
    Publication { data: b"{}", offset, ..Publication::default() }
}

fn full_subscribe(publications: &'static [Publication<'static>]) -> SubscribeResult<'static> {
    SubscribeResult {
        expires: true,
        ttl: 60,
        recoverable: true,
        epoch: "e",
        publications,
        recovered: true,
        offset: 9,
        positioned: true,
        data: Some(b"1"),
        was_recovering: true,
        delta: true,
        ..SubscribeResult::default()
    }
}

mod replies {
    use super::*;

    #[test]
    fn without_anything_to_say_hold_their_empty_result() {
        for (empty, expected) in [
            (Reply::Connect(ConnectResult::default()), r#"{"id":1,"connect":{}}"#),
            (Reply::Subscribe(SubscribeResult::default()), r#"{"id":1,"subscribe":{}}"#),
            (Reply::Unsubscribe, r#"{"id":1,"unsubscribe":{}}"#),
            (Reply::Publish, r#"{"id":1,"publish":{}}"#),
            (Reply::Presence(&[]), r#"{"id":1,"presence":{"presence":{}}}"#),
            (
                Reply::PresenceStats { num_clients: 0, num_users: 0 },
                r#"{"id":1,"presence_stats":{"num_clients":0,"num_users":0}}"#,
            ),
            (
                Reply::History { publications: &[], epoch: "", offset: 0 },
                r#"{"id":1,"history":{"publications":[],"epoch":"","offset":0}}"#,
            ),
            (Reply::Rpc { data: None }, r#"{"id":1,"rpc":{}}"#),
            (Reply::Refresh(RefreshResult::default()), r#"{"id":1,"refresh":{}}"#),
            (
                Reply::SubRefresh { expires: false, ttl: 0, items: &[] },
                r#"{"id":1,"sub_refresh":{}}"#,
            ),
            (
                Reply::Error { code: 0, message: "", temporary: false },
                r#"{"id":1,"error":{"code":0,"message":""}}"#,
            ),
        ] {
            assert_eq!(reply(1, &empty), expected);
        }
    }

    #[test]
    fn a_passing_error_says_so() {
        let error = Reply::Error { code: 111, message: "too many requests", temporary: true };
        assert_eq!(
            reply(4_294_967_295, &error),
            r#"{"id":4294967295,"error":{"code":111,"message":"too many requests","temporary":true}}"#
        );
    }

    #[test]
    fn connect_with_everything() {
        let subs = [("a\"b", SubscribeResult::default()), ("c", full_subscribe(&[]))];
        let result = ConnectResult {
            client: "c",
            version: "v",
            expires: true,
            ttl: 300,
            data: Some(b"{}"),
            subs: &subs,
            ping: 25,
            pong: true,
            session: "s",
            node: "n",
            time: 1_700_000_000_000,
        };
        let subs = r#""subs":{"a\"b":{},"c":{"expires":true,"ttl":60,"recoverable":true,"epoch":"e","recovered":true,"offset":9,"positioned":true,"data":1,"was_recovering":true,"delta":true}}"#;
        let tail = r#""ping":25,"pong":true,"session":"s","node":"n","time":1700000000000"#;
        assert_eq!(
            reply(1, &Reply::Connect(result.clone())),
            format!(
                r#"{{"id":1,"connect":{{"client":"c","version":"v","expires":true,"ttl":300,"data":{{}},{subs},{tail}}}}}"#
            )
        );
        // The push counts its fields in another order.
        assert_eq!(
            push(Envelope::Bare, &Push::Connect(result)),
            format!(
                r#"{{"connect":{{"client":"c","version":"v","data":{{}},{subs},"expires":true,"ttl":300,{tail}}}}}"#
            )
        );
    }

    #[test]
    fn a_page_of_a_map() {
        let state = [Publication { key: "k", ..numbered(3) }];
        let (kind, phase) = (1, 2);
        let page = SubscribeResult {
            kind,
            phase,
            cursor: "k",
            state: &state,
            ..SubscribeResult::default()
        };
        assert_eq!(
            reply(1, &Reply::Subscribe(page)),
            r#"{"id":1,"subscribe":{"type":1,"phase":2,"cursor":"k","state":[{"data":{},"offset":3,"key":"k"}]}}"#
        );
    }

    #[test]
    fn subscribe_with_recovered_publications() {
        let result = full_subscribe(
            const {
                &[
                    Publication {
                        data: b"1",
                        info: None,
                        offset: 8,
                        tags: &[],
                        time: 0,
                        shape: Shape::Plain,
                        key: "",
                        removed: false,
                        score: 0,
                        epoch: "",
                        version: 0,
                    },
                    Publication {
                        data: b"2",
                        info: None,
                        offset: 9,
                        tags: &[],
                        time: 0,
                        shape: Shape::Plain,
                        key: "",
                        removed: false,
                        score: 0,
                        epoch: "",
                        version: 0,
                    },
                ]
            },
        );
        assert_eq!(
            reply(1, &Reply::Subscribe(result)),
            r#"{"id":1,"subscribe":{"expires":true,"ttl":60,"recoverable":true,"epoch":"e","publications":[{"data":1,"offset":8},{"data":2,"offset":9}],"recovered":true,"offset":9,"positioned":true,"data":1,"was_recovering":true,"delta":true}}"#
        );
    }

    #[test]
    fn presence_by_client() {
        let other = ClientInfo { client: "d".into(), ..ClientInfo::default() };
        assert_eq!(
            reply(1, &Reply::Presence(&[full_info(), other])),
            format!(
                r#"{{"id":1,"presence":{{"presence":{{"c":{FULL_INFO},"d":{{"user":"","client":"d"}}}}}}}}"#
            )
        );
    }

    #[test]
    fn history_and_the_rest() {
        let publications = [numbered(1), numbered(2)];
        assert_eq!(
            reply(1, &Reply::History { publications: &publications, epoch: "e", offset: 2 }),
            r#"{"id":1,"history":{"publications":[{"data":{},"offset":1},{"data":{},"offset":2}],"epoch":"e","offset":2}}"#
        );
        assert_eq!(reply(1, &Reply::Rpc { data: Some(b"[1]") }), r#"{"id":1,"rpc":{"data":[1]}}"#);
        let refresh = RefreshResult { client: "c", version: "v", expires: true, ttl: 5 };
        assert_eq!(
            reply(1, &Reply::Refresh(refresh)),
            r#"{"id":1,"refresh":{"client":"c","version":"v","expires":true,"ttl":5}}"#
        );
        assert_eq!(
            reply(1, &Reply::SubRefresh { expires: true, ttl: 5, items: &[] }),
            r#"{"id":1,"sub_refresh":{"expires":true,"ttl":5}}"#
        );
        let items = [
            Publication { data: b"1", key: "a\"", version: 7, ..Publication::default() },
            Publication { key: "b", removed: true, ..Publication::default() },
        ];
        assert_eq!(
            reply(1, &Reply::SubRefresh { expires: false, ttl: 0, items: &items }),
            r#"{"id":1,"sub_refresh":{"items":[{"data":1,"key":"a\"","version":7},{"key":"b","removed":true}]}}"#
        );
        let subscribed = SubscribeResult { epoch: "e", kind: 4, ..SubscribeResult::default() };
        assert_eq!(
            reply(1, &Reply::Subscribe(subscribed)),
            r#"{"id":1,"subscribe":{"epoch":"e","type":4}}"#
        );
    }

    #[test]
    fn are_appended_and_separated_by_the_caller() {
        let mut out = Vec::new();
        put_reply(Encoding::Json, 1, &Reply::Publish, &mut out);
        out.push(b'\n');
        put_push(Encoding::Json, Envelope::Reply, &Push::Ping, &mut out);
        assert_eq!(out, b"{\"id\":1,\"publish\":{}}\n{}");
    }
}

mod pushes {
    use super::*;

    fn check(pushed: &Push<'_>, expected: &str) {
        assert_eq!(push(Envelope::Bare, pushed), expected);
        assert_eq!(push(Envelope::Reply, pushed), format!(r#"{{"push":{expected}}}"#));
    }

    #[test]
    fn a_publication_with_everything() {
        let tags = [("a".to_owned(), "1".to_owned()), ("b\n".to_owned(), String::new())];
        let publication = Publication {
            data: b"\"text\"",
            shape: Shape::Plain,
            info: Some(full_info()),
            offset: u64::MAX,
            tags: &tags,
            time: -5,
            key: "k",
            removed: true,
            score: -7,
            epoch: "e",
            version: 3,
        };
        check(
            &Push::Publication { channel: "c", publication },
            &format!(
                r#"{{"channel":"c","pub":{{"data":"text","info":{FULL_INFO},"offset":18446744073709551615,"tags":{{"a":"1","b\n":""}},"time":-5,"key":"k","removed":true,"score":-7,"epoch":"e","version":3}}}}"#
            ),
        );
    }

    #[test]
    fn data_for_who_takes_patches_is_a_string() {
        let pushed = |shape, data| {
            let publication = Publication { data, shape, offset: 1, ..Publication::default() };
            push(Envelope::Bare, &Push::Publication { channel: "c", publication })
        };
        let said = |rest: &str| format!(r#"{{"channel":"c","pub":{{{rest},"offset":1}}}}"#);
        let text = b"{\"a\":\n \"\\n\"}";
        // To the byte: patches count them.
        assert_eq!(pushed(Shape::Whole, text), said(r#""data":"{\"a\":\n \"\\n\"}""#));
        assert_eq!(pushed(Shape::Whole, b"\0\xff"), said(r#""data":"\"/w==\"""#));
        assert_eq!(pushed(Shape::Whole, b""), said(r#""data":"null""#));
        let patch = r#"{"channel":"c","pub":{"data":"2\n2@0,0;","offset":1,"delta":true}}"#;
        assert_eq!(pushed(Shape::Patch, b"2\n2@0,0;"), patch);
    }

    #[test]
    fn who_came_and_who_left() {
        check(
            &Push::Join { channel: "c", info: full_info() },
            &format!(r#"{{"channel":"c","join":{{"info":{FULL_INFO}}}}}"#),
        );
        check(
            &Push::Leave { channel: "c", info: ClientInfo::default() },
            r#"{"channel":"c","leave":{"info":{"user":"","client":""}}}"#,
        );
    }

    #[test]
    fn subscriptions_that_the_server_changed() {
        check(
            &Push::Unsubscribe { channel: "c", code: 2000, reason: "server unsubscribe" },
            r#"{"channel":"c","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}"#,
        );
        check(
            &Push::Unsubscribe { channel: "c", code: 0, reason: "" },
            r#"{"channel":"c","unsubscribe":{}}"#,
        );
        check(
            &Push::Subscribe { channel: "c", result: full_subscribe(&[]) },
            r#"{"channel":"c","subscribe":{"recoverable":true,"epoch":"e","offset":9,"positioned":true,"data":1}}"#,
        );
    }

    #[test]
    fn what_concerns_the_connection() {
        check(&Push::Message { data: b"{\"a\":1}" }, r#"{"message":{"data":{"a":1}}}"#);
        check(
            &Push::Disconnect { code: 3001, reason: "shutdown", reconnect: true },
            r#"{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}"#,
        );
        check(
            &Push::Disconnect { code: 0, reason: "", reconnect: false },
            r#"{"disconnect":{"code":0,"reason":""}}"#,
        );
        check(&Push::Refresh { expires: true, ttl: 1 }, r#"{"refresh":{"expires":true,"ttl":1}}"#);
    }
}

mod values {
    use super::*;

    fn method(method: &str) -> String {
        reply(0, &Reply::Error { code: 1, message: method, temporary: false })
    }

    #[test]
    fn text_is_escaped_where_json_demands_it_and_nowhere_else() {
        for (text, escaped) in [
            ("plain ж 🙂 / <>&' \u{7F}\u{2028}", "plain ж 🙂 / <>&' \u{7F}\u{2028}"),
            ("\"quoted\"", "\\\"quoted\\\""),
            ("back\\slash\\", "back\\\\slash\\\\"),
            ("\n\r\t\u{8}\u{C}", "\\n\\r\\t\\b\\f"),
            ("\u{0}\u{1}\u{1F}", "\\u0000\\u0001\\u001f"),
        ] {
            let expected = format!("{{\"error\":{{\"code\":1,\"message\":\"{escaped}\"}}}}");
            assert_eq!(method(text), expected);
        }
    }

    #[test]
    fn every_character_below_128_comes_back() {
        let all: String = (0..128_u8).map(char::from).collect();
        let back: serde_json::Value = serde_json::from_str(&method(&all)).unwrap();
        assert_eq!(back["error"]["message"], all);
    }

    #[test]
    fn payloads_stay_on_one_line() {
        let data = b"{\r\n  \"a\": \"\\n\",\n  \"b\": 2\r}\n";
        assert_eq!(
            reply(1, &Reply::Rpc { data: Some(data) }),
            r#"{"id":1,"rpc":{"data":{  "a": "\n",  "b": 2}}}"#
        );
    }

    #[test]
    fn an_empty_payload_is_left_out() {
        for data in [&b""[..], b"\n", b" \t\r\n"] {
            assert_eq!(reply(1, &Reply::Rpc { data: Some(data) }), r#"{"id":1,"rpc":{}}"#);
        }
        assert_eq!(push(Envelope::Bare, &Push::Message { data: b"" }), r#"{"message":{}}"#);
    }
}
