//! Commands, and what is none.

use super::*;

mod requests {
    use super::*;

    #[test]
    fn connect_with_everything() {
        let Request::Connect(connect) = request(
            r#"{"id":1,"connect":{"token":"t","data":{"k":[1, 2]},"name":"js","version":"5.2.0",
                "subs":{"b":{"recover":true,"epoch":"e","offset":7},"a":{}},
                "headers":{"x-b":"2","x-a":"1"},"flag":3,"profile":"p","dict":{"id":"d"}}}"#,
        ) else {
            panic!("not a connect");
        };
        assert_eq!(connect.token, "t");
        assert_eq!(connect.data.as_deref(), Some(&br#"{"k":[1, 2]}"#[..]));
        assert_eq!(connect.name, "js");
        assert_eq!(connect.version, "5.2.0");
        let recovering = SubscribeRequest {
            recover: true,
            epoch: "e".into(),
            offset: 7,
            ..SubscribeRequest::default()
        };
        let expected = [("a".into(), SubscribeRequest::default()), ("b".into(), recovering)];
        assert_eq!(connect.subs, expected);
        assert_eq!(connect.headers, [("x-a".into(), "1".into()), ("x-b".into(), "2".into())]);
    }

    #[test]
    fn subscribe_with_everything() {
        let got = request(
            r#"{"id":1,"subscribe":{"channel":"c","token":"t","recover":true,"epoch":"e",
                "offset":18446744073709551615,"data":"d","positioned":true,"recoverable":true,
                "join_leave":true,"delta":"fossil","tf":{"key":"k","cmp":"eq","val":"v"},
                "flag":-3,"type":1,"phase":2,"cursor":"k","limit":100,"asc":true}}"#,
        );
        let expected = SubscribeRequest {
            channel: "c".into(),
            token: "t".into(),
            recover: true,
            epoch: "e".into(),
            offset: u64::MAX,
            data: Some(br#""d""#.into()),
            positioned: true,
            recoverable: true,
            join_leave: true,
            delta: "fossil".into(),
            tags_filter: Some(br#"{"key":"k","cmp":"eq","val":"v"}"#),
            flag: -3,
            kind: 1,
            phase: 2,
            cursor: "k".into(),
            limit: 100,
            asc: true,
        };
        assert_eq!(got, Request::Subscribe(expected));
    }

    #[test]
    fn a_publish_that_speaks_of_keys() {
        let keyed = |text: &'static str| match request(text) {
            Request::PublishKey(keyed) => keyed,
            other => panic!("{other:?}"),
        };
        let expected = KeyRequest {
            channel: "c".into(),
            data: b"1".into(),
            kind: 1,
            key: "k".into(),
            removed: false,
        };
        let text = r#"{"id":1,"publish":{"channel":"c","data":1,"type":1,"key":"k"}}"#;
        assert_eq!(keyed(text), expected);
        let gone = r#"{"id":1,"publish":{"channel":"c","type":1,"key":"k","removed":true}}"#;
        assert_eq!(keyed(gone), KeyRequest { data: b"".into(), removed: true, ..expected.clone() });
        let bare = r#"{"id":1,"publish":{"channel":"c","data":1,"key":"k"}}"#;
        assert_eq!(keyed(bare), KeyRequest { kind: 0, ..expected });
        let plain = r#"{"id":1,"publish":{"channel":"c","data":1,"type":0,"key":null}}"#;
        assert!(matches!(request(plain), Request::Publish { .. }));
    }

    #[test]
    fn those_of_a_channel() {
        let channel = Cow::Borrowed("c");
        assert_eq!(
            request(r#"{"id":1,"unsubscribe":{"channel":"c"}}"#),
            Request::Unsubscribe { channel: channel.clone() }
        );
        assert_eq!(
            request(r#"{"id":1,"presence":{"channel":"c"}}"#),
            Request::Presence { channel: channel.clone() }
        );
        assert_eq!(
            request(r#"{"id":1,"presence_stats":{"channel":"c"}}"#),
            Request::PresenceStats { channel: channel.clone() }
        );
        assert_eq!(
            request(r#"{"id":1,"sub_refresh":{"channel":"c","token":"t"}}"#),
            Request::SubRefresh(SubRefreshRequest {
                channel: channel.clone(),
                token: "t".into(),
                ..SubRefreshRequest::default()
            })
        );
        let item = |key: &'static str, version| KeyedItem { key: key.into(), version };
        assert_eq!(
            request(
                r#"{"id":1,"sub_refresh":{"channel":"c","type":1,"track":[{"signature":"1:2:ab","items":[{"key":"a","version":7},{"key":"b"}]},{"items":null}],"untrack":["x","y\n"]}}"#
            ),
            Request::SubRefresh(SubRefreshRequest {
                channel,
                token: "".into(),
                kind: 1,
                track: vec![
                    TrackBatch {
                        signature: "1:2:ab".into(),
                        items: vec![item("a", 7), item("b", 0)],
                    },
                    TrackBatch::default(),
                ],
                untrack: vec!["x".into(), "y\n".into()],
            })
        );
    }

    #[test]
    fn history_with_and_without_a_position() {
        let mut expected = HistoryRequest {
            channel: "c".into(),
            limit: -1,
            since: Some(StreamPosition { offset: 5, epoch: "e".into() }),
            reverse: true,
        };
        assert_eq!(
            request(
                r#"{"id":1,"history":{"channel":"c","limit":-1,"since":{"offset":5,"epoch":"e"},"reverse":true}}"#
            ),
            Request::History(expected.clone())
        );
        expected = HistoryRequest { channel: "c".into(), ..HistoryRequest::default() };
        assert_eq!(
            request(r#"{"id":1,"history":{"channel":"c"}}"#),
            Request::History(expected.clone())
        );
        expected.since = Some(StreamPosition::default());
        assert_eq!(
            request(r#"{"id":1,"history":{"channel":"c","since":{}}}"#),
            Request::History(expected)
        );
    }

    #[test]
    fn rpc_send_and_refresh() {
        assert_eq!(
            request(r#"{"id":1,"rpc":{"method":"m","data":[]}}"#),
            Request::Rpc { method: "m".into(), data: b"[]".into() }
        );
        assert_eq!(request(r#"{"send":{"data":1}}"#), Request::Send { data: b"1".into() });
        assert_eq!(
            request(r#"{"id":1,"refresh":{"token":"t"}}"#),
            Request::Refresh { token: "t".into() }
        );
    }

    #[test]
    fn without_fields_are_requests_too() {
        assert_eq!(
            request(r#"{"id":1,"publish":{}}"#),
            Request::Publish { channel: "".into(), data: b"".into() }
        );
        assert_eq!(
            request(r#"{"id":1,"connect":{}}"#),
            Request::Connect(ConnectRequest::default())
        );
    }

    #[test]
    fn strings_are_borrowed_unless_they_hold_escapes() {
        let Request::Unsubscribe { channel } =
            request(r#"{"id":1,"unsubscribe":{"channel":"news:ж"}}"#)
        else {
            panic!("not an unsubscribe");
        };
        assert!(matches!(channel, Cow::Borrowed("news:ж")));
        let Request::Unsubscribe { channel } =
            request(r#"{"id":1,"unsubscribe":{"channel":"a\"\\\/\n\u0436\ud83d\ude42"}}"#)
        else {
            panic!("not an unsubscribe");
        };
        assert_eq!(channel, "a\"\\/\nж🙂");
    }

    #[test]
    fn names_may_be_escaped() {
        assert_eq!(
            request(r#"{"id":1,"\u0075nsubscribe":{"c\u0068annel":"c"}}"#),
            Request::Unsubscribe { channel: "c".into() }
        );
    }
}

mod choosing {
    //! Which request of a command counts.
    use super::*;

    #[test]
    fn the_first_in_the_protocols_order_wins_wherever_it_stands() {
        let names = [
            "connect",
            "subscribe",
            "unsubscribe",
            "publish",
            "presence",
            "presence_stats",
            "history",
            "rpc",
            "send",
            "refresh",
            "sub_refresh",
        ];
        for (index, name) in names.iter().enumerate() {
            let expected = format!(r#"{{"id":1,"{name}":{{}}}}"#);
            for later in &names[index + 1..] {
                for frame in [
                    format!(r#"{{"id":1,"{name}":{{}},"{later}":{{}}}}"#),
                    format!(r#"{{"{later}":{{}},"{name}":{{}},"id":1}}"#),
                ] {
                    assert_eq!(request(&frame), request(&expected), "{frame}");
                }
            }
        }
    }

    #[test]
    fn null_is_the_same_as_absent() {
        assert_eq!(one(r#"{"id":null,"connect":null,"rpc":null}"#), one("{}"));
        assert_eq!(
            request(r#"{"id":1,"connect":null,"rpc":{"method":null,"data":null}}"#),
            Request::Rpc { method: "".into(), data: b"".into() }
        );
        let nulls = r#"{"id":1,"connect":{"token":null,"data":null,"subs":null,"headers":null,"name":null}}"#;
        assert_eq!(request(nulls), Request::Connect(ConnectRequest::default()));
        let nulls = r#"{"id":1,"subscribe":{"recover":null,"offset":null,"tf":null,"type":null,"data":null}}"#;
        assert_eq!(request(nulls), Request::Subscribe(SubscribeRequest::default()));
        let nulls = r#"{"id":1,"history":{"limit":null,"since":null,"reverse":null}}"#;
        assert_eq!(request(nulls), Request::History(HistoryRequest::default()));
        let nulls = r#"{"id":1,"connect":{"subs":{"a":null},"headers":{"b":null}}}"#;
        assert_eq!(request(nulls), Request::Connect(ConnectRequest::default()));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        assert_eq!(
            request(r#"{"id":1,"new":{"deep":[{}]},"rpc":{"method":"m","newer":[1,"}"]}}"#),
            Request::Rpc { method: "m".into(), data: b"".into() }
        );
    }

    #[test]
    fn an_id_and_nothing_known_is_unknown() {
        for frame in [r#"{"id":5}"#, r#"{"id":5,"ping":{}}"#, r#"{"id":5,"frobnicate":{}}"#] {
            assert_eq!(one(frame), Command { id: 5, request: Request::Unknown });
        }
    }

    #[test]
    fn without_an_id_only_send_is_a_command() {
        for frame in ["{}", r#"{"id":0}"#, r#"{"ping":{}}"#, r#"{"rpc":{"method":"m"}}"#] {
            assert_eq!(one(frame), Command { id: 0, request: Request::Pong });
        }
        let send = Command { id: 0, request: Request::Send { data: b"{}".into() } };
        assert_eq!(one(r#"{"send":{"data":{}}}"#), send);
    }

    #[test]
    fn of_one_channel_named_twice_the_last_position_counts() {
        let twice =
            r#"{"id":1,"connect":{"subs":{"b":{"offset":1},"a":{"offset":2},"b":{"offset":3}}}}"#;
        let Request::Connect(connect) = request(twice) else { panic!("not a connect") };
        let offsets: Vec<_> =
            connect.subs.iter().map(|(name, sub)| (&**name, sub.offset)).collect();
        assert_eq!(offsets, [("a", 2), ("b", 3)]);
    }
}

mod frames {
    use super::*;

    fn ids(frame: &str) -> Vec<u32> {
        commands(Encoding::Json, frame.as_bytes()).map(|command| command.unwrap().id).collect()
    }

    #[test]
    fn hold_one_command_per_line() {
        assert_eq!(ids("{\"id\":1}\n{\"id\":2}\n{\"id\":3}"), [1, 2, 3]);
    }

    #[test]
    fn may_end_in_a_newline_and_be_generous_with_whitespace() {
        assert_eq!(ids("{\"id\":1}\n"), [1]);
        assert_eq!(ids(" \r\n\t{ \"id\" : 1 }\r\n\r\n {\n\"id\":2}  \n\n"), [1, 2]);
    }

    #[test]
    fn may_hold_commands_without_anything_between() {
        assert_eq!(ids(r#"{"id":1}{"id":2}{"id":3}"#), [1, 2, 3]);
    }

    #[test]
    fn may_be_left_and_continued() {
        let frame = b"{\"id\":1}\n{\"id\":2}\n\n{\"id\":3}\n";
        let mut at = 0;
        let mut ids = Vec::new();
        while at < frame.len() {
            let mut commands = commands(Encoding::Json, &frame[at..]);
            ids.push(commands.next().unwrap().unwrap().id);
            assert_eq!(commands.rest(), &frame[at + commands.consumed()..]);
            at += commands.consumed();
        }
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn without_a_command_are_malformed() {
        for empty in ["", " ", "\n", "\r\n \t"] {
            let error = malformed(empty);
            assert_eq!((error.at, &*error.reason), (empty.len(), "an object was expected"));
        }
    }

    #[test]
    fn give_what_is_well_before_what_is_not_and_then_end() {
        let mut commands = commands(Encoding::Json, b"{\"id\":1}\nnonsense\n{\"id\":3}");
        assert_eq!(commands.next().unwrap().unwrap().id, 1);
        assert_eq!(commands.next().unwrap().unwrap_err().at, 10);
        assert_eq!(commands.next(), None);
        assert_eq!(commands.consumed(), 9);
    }
}

mod payloads {
    use super::*;

    #[test]
    fn of_any_json_are_passed_as_they_are() {
        for data in ["1", "-0.0e+7", "true", "\"\"", "\"\\ud800\"", "[]", "{ \"a\" : 1 }", "[\n]"] {
            let frame = format!("{{\"id\":1,\"rpc\":{{\"data\": {data} }}}}");
            let expected = Request::Rpc { method: "".into(), data: data.as_bytes().into() };
            assert_eq!(request(&frame), expected);
        }
    }

    #[test]
    fn that_are_not_json_are_malformed() {
        for data in ["", "tru", "01", "[1,]", "{\"a\"}", "\"a\nb\"", "'a'", "\"\\x\"", "NaN"] {
            malformed(format!("{{\"id\":1,\"rpc\":{{\"data\":{data}}}}}"));
        }
        malformed(b"{\"id\":1,\"rpc\":{\"data\":\"\xFF\"}}");
    }

    fn nested(depth: usize) -> String {
        format!(
            "{{\"id\":1,\"rpc\":{{\"data\":{}\"[{{\\\"[\"{}}}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    }

    #[test]
    fn may_nest_128_deep_and_no_deeper() {
        assert!(matches!(request(&nested(128)), Request::Rpc { .. }));
        assert!(malformed(nested(129)).reason.contains("rpc: payload nests too deep"));
        let wide = format!("{{\"id\":1,\"rpc\":{{\"data\":[{}[]]}}}}", "[],{},".repeat(1000));
        assert!(matches!(request(&wide), Request::Rpc { .. }));
    }

    #[test]
    fn nested_as_deep_as_a_frame_allows_do_not_use_up_the_stack() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(1 << 20);
            malformed(&deep);
            malformed(format!("{{\"new\":{deep}"));
            malformed(format!("{{\"rpc\":{{\"data\":{deep}"));
            malformed(format!("{{\"rpc\":{deep}"));
            malformed(format!("{{\"subscribe\":{{\"tf\":{deep}"));
        }
        malformed(nested(1 << 20));
    }
}

mod malformed_frames {
    use super::*;

    #[test]
    fn name_the_request_the_byte_and_what_is_wrong() {
        for (frame, at, reason) in [
            (r#"{"id":1,"subscribe":{"channel":5}}"#, 31, "subscribe: invalid type: integer `5`"),
            (r#"{"id":"x"}"#, 8, r#"invalid type: string "x", expected u32"#),
            (r#"{"id":-1}"#, 7, "invalid value: integer `-1`, expected u32"),
            (r#"{"id":4294967296}"#, 15, "invalid value: integer `4294967296`, expected u32"),
            (r#"{"id":1.5}"#, 8, "invalid type: floating point `1.5`, expected u32"),
            (r#"{"id":1,"rpc":[]}"#, 13, "rpc: invalid type: sequence, expected an object"),
            (r#"{"id":1,"rpc":"m"}"#, 16, "rpc: invalid type: string"),
            (r#"{"id":1,"history":{"since":[1,"e"]}}"#, 26, "history: invalid type: sequence"),
            (r#"{"id":1,"connect":{"headers":{"a":1}}}"#, 34, "connect: invalid type: integer"),
            (r#"{"id":1,"connect":{"subs":[]}}"#, 27, "connect: invalid type: sequence"),
            (r#"{"id":1,"rpc":{"data":1}"#, 23, "EOF while parsing an object"),
            (r#"{"id":1,"rpc":{"method":"m","method":"n"}}"#, 35, "rpc: duplicate field `method`"),
        ] {
            let error = malformed(frame);
            assert!(error.reason.starts_with(reason), "{frame}: {error}");
            assert!(!error.reason.contains(" line "), "{frame}: {error}");
            assert_eq!(error.at, at, "{frame}: {error}");
        }
    }

    #[test]
    fn count_bytes_from_the_start_of_the_frame() {
        let first = "{\"id\":1,\n\"rpc\":{}}\n";
        let error = malformed(format!("{first}\n{{\n\"id\":true}}"));
        assert_eq!(error.to_string(), format!("byte {}: {}", first.len() + 11, error.reason));
    }

    #[test]
    fn are_all_that_is_not_an_object() {
        for frame in
            ["1", "null", "[]", "[5]", "\"{}\"", "{", "}", "{]", "{\"id\":1}}", "\u{FEFF}{}"]
        {
            malformed(frame);
        }
        malformed(b"\xFF");
        malformed(b"{\"id\":1,\"rpc\":{\"method\":\"\xFF\"}}");
    }
}

mod connect_requests {
    use super::*;

    fn decode(frame: &str) -> Result<ConnectRequest<'_>, Malformed> {
        connect_request(frame.as_bytes())
    }

    #[test]
    fn are_the_object_itself() {
        let request = decode(" {\"token\":\"t\",\"subs\":{\"c\":{}}}\n").unwrap();
        assert_eq!(request.token, "t");
        assert_eq!(request.subs.len(), 1);
        assert_eq!(decode("{}"), Ok(ConnectRequest::default()));
    }

    #[test]
    fn are_alone_in_their_frame() {
        let error = decode("{} {}").unwrap_err();
        assert_eq!(error.to_string(), "byte 3: something follows the object");
        for frame in ["", "[]", "null", "{\"token\":1}", "{\"token\":\"t\""] {
            assert!(decode(frame).is_err(), "{frame}");
        }
    }
}
