//! What holds for any command, reply and frame.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// JSON of any shape but null, which is the same as nothing.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// A request's name, and its object.
fn written() -> impl Strategy<Value = (&'static str, Value)> {
    let text = any::<String>;
    prop_oneof![
        (text(), text(), data()).prop_map(|(token, name, data)| {
            ("connect", json!({ "token": token, "name": name, "data": data }))
        }),
        (text(), any::<u64>(), text(), any::<bool>()).prop_map(|(channel, offset, epoch, flag)| {
            let position = json!({ "offset": offset, "epoch": epoch });
            ("history", json!({ "channel": channel, "since": position, "reverse": flag }))
        }),
        (text(), any::<u64>(), text(), any::<bool>()).prop_map(|(channel, offset, epoch, flag)| {
            let position = json!({ "offset": offset, "epoch": epoch, "channel": channel,
                "recover": flag, "join_leave": !flag, "unknown": [channel] });
            ("subscribe", position)
        }),
        (text(), data())
            .prop_map(|(channel, data)| ("publish", json!({ "channel": channel, "data": data }))),
        data().prop_map(|data| ("send", json!({ "data": data }))),
        text().prop_map(|channel| ("unsubscribe", json!({ "channel": channel }))),
    ]
}

fn parsed(payload: Payload<'_>) -> Value {
    serde_json::from_slice(payload).unwrap()
}

/// Writes a request down again.
fn rewritten(request: &Request<'_>) -> (&'static str, Value) {
    match request {
        Request::Connect(r) => {
            let data = parsed(r.data.as_deref().unwrap());
            ("connect", json!({ "token": r.token, "name": r.name, "data": data }))
        }
        Request::History(r) => {
            let since = r.since.as_ref().unwrap();
            let position = json!({ "offset": since.offset, "epoch": since.epoch });
            ("history", json!({ "channel": r.channel, "since": position, "reverse": r.reverse }))
        }
        Request::Subscribe(r) => {
            let object = json!({ "offset": r.offset, "epoch": r.epoch, "channel": r.channel,
                "recover": r.recover, "join_leave": r.join_leave, "unknown": [r.channel] });
            ("subscribe", object)
        }
        Request::Publish { channel, data } => {
            ("publish", json!({ "channel": channel, "data": parsed(data) }))
        }
        Request::Send { data } => ("send", json!({ "data": parsed(data) })),
        Request::Unsubscribe { channel } => ("unsubscribe", json!({ "channel": channel })),
        other => panic!("never written: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn commands_come_back_as_they_were_written(
        all in vec((1..=u32::MAX, written()), 1..6), is_pretty in any::<bool>(),
    ) {
        let lines: Vec<String> = all.iter().map(|(id, (name, object))| {
            let command = json!({ "id": id, *name: object });
            if is_pretty { format!("{command:#}") } else { command.to_string() }
        }).collect();
        let frame = lines.join("\n");
        let got: Vec<_> = commands(Encoding::Json, frame.as_bytes())
            .map(|command| command.map(|c| (c.id, rewritten(&c.request))))
            .collect::<Result<_, _>>()
            .unwrap();
        prop_assert_eq!(got, all);
    }

    #[test]
    fn replies_are_json_on_one_line(
        user in any::<String>(), channel in any::<String>(), data in data(),
        offset in any::<u64>(), time in any::<i64>(), tags in vec((any::<String>(), any::<String>()), 0..3),
    ) {
        let payload = format!("{data:#}");
        let info = ClientInfo { user: &user, client: "c".into(), ..ClientInfo::default() };
        let publication = Publication {
            data: payload.as_bytes(), shape: Shape::Plain, info: Some(info), offset, tags: &tags, time, epoch: &channel,
            key: &user, removed: false, version: offset,
            ..Publication::default()
        };
        let line = push(Envelope::Reply, &Push::Publication { channel: &channel, publication });
        prop_assert!(!line.contains(['\n', '\r']));
        let back: Value = serde_json::from_str(&line).unwrap();
        let back = &back["push"];
        prop_assert_eq!(back["channel"].as_str().unwrap_or_default(), &channel);
        prop_assert_eq!(back["pub"]["key"].as_str().unwrap_or_default(), &user);
        prop_assert_eq!(&back["pub"]["data"], &data);
        prop_assert_eq!(&back["pub"]["info"]["user"], &json!(user));
        prop_assert_eq!(back["pub"]["offset"].as_u64().unwrap_or_default(), offset);
        prop_assert_eq!(back["pub"]["time"].as_i64().unwrap_or_default(), time);
        for (key, value) in tags.iter().rev().take(1) {
            prop_assert_eq!(&back["pub"]["tags"][key], &json!(value));
        }
    }

    #[test]
    fn any_bytes_are_survived(frame in vec(any::<u8>(), 0..200)) {
        let mut commands = commands(Encoding::Json, &frame);
        while commands.next().is_some() {}
        prop_assert!(commands.consumed() <= frame.len());
        connect_request(&frame).ok();
    }

    #[test]
    fn bytes_that_look_like_commands_are_survived(
        frame in r#"(\{|\}|\[|\]|"|:|,|\\|\n| |1|-|e|null|true|"id":|"rpc":\{|"data":|"connect":\{|"subs":\{|ж){0,40}"#,
    ) {
        for command in commands(Encoding::Json, frame.as_bytes()) {
            if let Err(malformed) = command {
                prop_assert!(malformed.at <= frame.len());
            }
        }
    }
}
