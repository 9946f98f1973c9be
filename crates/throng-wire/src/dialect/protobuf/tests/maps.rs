//! What only maps say, byte by byte: the numbers of the fields are those of the protocol.

use super::bytes;
use crate::dialect::*;

#[test]
fn a_page_of_a_map_is_written() {
    let gone =
        Publication { offset: 3, key: "k", removed: true, score: -1, ..Publication::default() };
    let page = SubscribeResult {
        kind: 1,
        phase: 2,
        cursor: "k",
        state: &[gone],
        ..SubscribeResult::default()
    };
    let mut out = Vec::new();
    put_reply(Encoding::Protobuf, 1, &Reply::Subscribe(page), &mut out);
    let publication = "30035a016b6001 68ffffffffffffffffff01".replace(' ', "");
    let result = format!("7801 800102 8a01016b 920112{publication}").replace(' ', "");
    let expected = format!("080132{:02x}{result}", result.len() / 2);
    // The message has its length in front.
    assert_eq!(out[out.len() - expected.len() / 2..], bytes(&expected));
}

#[test]
fn a_step_into_a_map_and_a_publish_with_a_key_are_read() {
    let read = |hex: &str| {
        let message = bytes(&hex.replace(' ', ""));
        let mut frame = vec![u8::try_from(message.len()).unwrap()];
        frame.extend_from_slice(&message);
        let command = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
        format!("{:?}", command.request)
    };
    let step = SubscribeRequest {
        channel: "c".into(),
        kind: 1,
        phase: 2,
        cursor: "k".into(),
        limit: 100,
        asc: true,
        ..SubscribeRequest::default()
    };
    let read_step = read("0801 2a12 0a0163 7801 800102 8a01016b 900164 980101");
    assert_eq!(read_step, format!("{:?}", Request::Subscribe(step)));
    let publish = KeyRequest {
        channel: "c".into(),
        data: b"".into(),
        kind: 1,
        key: "k".into(),
        removed: true,
    };
    let read_publish = read("0801 3a0a 0a0163 1801 22016b 2801");
    assert_eq!(read_publish, format!("{:?}", Request::PublishKey(publish)));
    let plain = read("0801 3a06 0a0163 120131");
    assert!(plain.starts_with("Publish {"), "{plain}");
}
