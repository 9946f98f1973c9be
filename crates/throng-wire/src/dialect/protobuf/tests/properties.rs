//! What holds for any bytes, and for messages of any size.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_survived(frame in vec(any::<u8>(), 0..200)) {
        let mut commands = commands(Encoding::Protobuf, &frame);
        for command in commands.by_ref() {
            if let Err(malformed) = command {
                prop_assert!(malformed.at <= frame.len());
            }
        }
        prop_assert!(commands.consumed() <= frame.len());
        emulated(&frame).ok();
    }

    #[test]
    fn commands_that_were_cut_or_changed_are_survived(
        which in 0_usize..6, at in any::<prop::sample::Index>(), to in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = [v::COMMAND_CONNECT, v::COMMAND_SUBSCRIBE, v::COMMAND_HISTORY,
            v::COMMAND_RPC, v::COMMAND_SUB_REFRESH, v::COMMAND_BINARY];
        let mut frame = bytes(all[which]);
        let at = at.index(frame.len());
        frame[at] = to;
        frame.truncate(cut.index(frame.len()) + 1);
        for command in commands(Encoding::Protobuf, &frame) {
            if let Err(malformed) = command {
                prop_assert!(malformed.at <= frame.len());
            }
        }
    }

    /// Lengths of one byte, of two and of three, at every depth.
    #[test]
    fn lengths_stand_before_what_they_are_of(len in 0_usize..40_000) {
        let data = vec![b'1'; len];
        let publication = Publication { data: &data, ..Publication::default() };
        let push = Push::Publication { channel: "c", publication };
        let mut out = Vec::new();
        put_push(Encoding::Protobuf, Envelope::Reply, &push, &mut out);
        // Push within reply, publication behind the channel, data within it.
        let mut wanted = Vec::new();
        let mut inner = Vec::new();
        if len > 0 {
            inner.push(0x22);
            put_varint(len as u64, &mut inner);
            inner.extend(&data);
        }
        let mut middle = b"\x12\x01c\x22".to_vec();
        put_varint(inner.len() as u64, &mut middle);
        middle.extend(inner);
        wanted.push(0x22);
        put_varint(middle.len() as u64, &mut wanted);
        wanted.extend(middle);
        prop_assert_eq!(out, wanted);
    }

    #[test]
    fn a_payload_is_the_same_bytes_after_any_way(data in vec(any::<u8>(), 1..60)) {
        let mut message = b"\x08\x01\x6a".to_vec();
        let mut rpc = vec![0x0a];
        put_varint(data.len() as u64, &mut rpc);
        rpc.extend(&data);
        put_varint(rpc.len() as u64, &mut message);
        message.extend(rpc);
        let frame = command(&message);
        let got = commands(Encoding::Protobuf, &frame).next().unwrap().unwrap();
        let Request::Rpc { data: given, .. } = got.request else { panic!("{:?}", got.request) };
        prop_assert_eq!(payload::bytes(&given), &data[..]);
        // In JSON it is the same value, or base64 of the same bytes.
        let mut out = Vec::new();
        put_reply(Encoding::Json, 1, &Reply::Rpc { data: Some(&given) }, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        match payload::binary(&given) {
            Some(bytes) => {
                use base64::Engine;
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                prop_assert_eq!(json["rpc"]["data"].as_str(), Some(&text[..]));
            }
            None => {
                let value: serde_json::Value = serde_json::from_slice(&data).unwrap();
                prop_assert_eq!(&json["rpc"]["data"], &value);
            }
        }
    }
}
