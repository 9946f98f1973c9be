//! What holds for any stream, however it is cut.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::websocket::mask;

#[derive(Debug, Clone)]
enum Sent {
    /// A message, the places where it is cut into frames, and pings between those.
    Message {
        is_text: bool,
        body: String,
        cuts: Vec<(Index, Option<Vec<u8>>)>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let control = || vec(any::<u8>(), 0..=125);
    let body = prop_oneof![4 => "\\PC{0,40}", 1 => "[a-zж]{100,400}"];
    let cuts = vec((any::<Index>(), proptest::option::of(control())), 0..4);
    prop_oneof![
        4 => (any::<bool>(), body, cuts)
            .prop_map(|(is_text, body, cuts)| Sent::Message { is_text, body, cuts }),
        1 => control().prop_map(Sent::Ping),
        1 => control().prop_map(Sent::Pong),
    ]
}

/// The frames of what is sent, and the events that they must make.
fn stream(all: &[Sent], role: Role, mask: [u8; 4]) -> (Vec<u8>, Vec<Got>) {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let mut put = |first: u8, payload: &[u8]| {
        let start = bytes.len();
        match role {
            Role::Server => put_client_frame(Opcode::Text, mask, payload, &mut bytes),
            Role::Client => put_frame(Opcode::Text, payload, &mut bytes),
        }
        bytes[start] = first;
    };
    for one in all {
        match one {
            Sent::Ping(payload) => {
                put(0x89, payload);
                expected.push(Got::Ping(payload.clone()));
            }
            Sent::Pong(payload) => {
                put(0x8A, payload);
                expected.push(Got::Pong(payload.clone()));
            }
            Sent::Message { is_text, body, cuts } => {
                let mut ends: Vec<_> =
                    cuts.iter().map(|(at, ping)| (at.index(body.len() + 1), ping)).collect();
                ends.sort_by_key(|(end, _)| *end);
                let mut opcode = if *is_text { 0x1 } else { 0x2 };
                let mut start = 0;
                for (end, ping) in ends {
                    put(opcode, &body.as_bytes()[start..end]);
                    (opcode, start) = (0x0, end);
                    if let Some(ping) = ping {
                        put(0x89, ping);
                        expected.push(Got::Ping(ping.clone()));
                    }
                }
                put(0x80 | opcode, &body.as_bytes()[start..]);
                expected.push(if *is_text {
                    Got::Text(body.clone())
                } else {
                    Got::Binary(body.clone().into_bytes())
                });
            }
        }
    }
    (bytes, expected)
}

/// Cuts into chunks of these lengths, again and again.
fn cut<'b>(mut bytes: &'b [u8], lens: &[usize]) -> Vec<&'b [u8]> {
    let mut chunks = Vec::new();
    for len in lens.iter().cycle() {
        let (chunk, rest) = bytes.split_at((*len).min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    chunks
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..16, 1_usize..300], 1..8)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_stream_makes_the_same_events_however_it_is_cut(
        all in vec(sent(), 0..8), role in role(), mask in any::<[u8; 4]>(), lens in lens(),
    ) {
        let (bytes, expected) = stream(&all, role, mask);
        let mut decoder = Decoder::new();
        prop_assert_eq!(&decode(&mut decoder, [&bytes[..]], role, LIMITS), &expected);
        prop_assert_eq!(decoder.held_bytes(), 0);
        prop_assert_eq!(&decode(&mut decoder, cut(&bytes, &lens), role, LIMITS), &expected);
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn a_damaged_stream_fails_the_same_way_however_it_is_cut(
        all in vec(sent(), 1..6), mask in any::<[u8; 4]>(), lens in lens(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4), message_max in 0_usize..600,
    ) {
        let (mut bytes, _) = stream(&all, Role::Server, mask);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let limits = Limits { message_max };
        let whole = decode(&mut Decoder::new(), [&bytes[..]], Role::Server, limits);
        let cut = decode(&mut Decoder::new(), cut(&bytes, &lens), Role::Server, limits);
        // In pieces a text fails as soon as it can, in one piece only when all of it is there.
        let shorter = whole.len().min(cut.len());
        prop_assert_eq!(&whole[..shorter], &cut[..shorter]);
        let early = &cut[shorter..];
        prop_assert!(whole.len() == shorter);
        prop_assert!(matches!(early, [] | [Got::Failed(Violation::InvalidUtf8)]), "{:?}", early);
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..400), role in role(), lens in lens()) {
        // The decoder itself is asked on after a failure, too.
        let mut decoder = Decoder::new();
        for chunk in cut(&bytes, &lens) {
            decode(&mut decoder, [chunk], role, Limits { message_max: 100 });
        }
    }

    #[test]
    fn what_a_client_sends_a_server_reads(body in vec(any::<u8>(), 0..300), mask in any::<[u8; 4]>()) {
        let mut bytes = Vec::new();
        put_client_frame(Opcode::Binary, mask, &body, &mut bytes);
        let got = decode(&mut Decoder::new(), [&bytes[..]], Role::Server, LIMITS);
        prop_assert_eq!(got, [Got::Binary(body)]);
    }

    #[test]
    fn a_mask_goes_on_where_the_last_piece_ended(
        body in vec(any::<u8>(), 0..200), mask in any::<[u8; 4]>(), at in any::<Index>(),
    ) {
        let expected: Vec<u8> =
            body.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        let mut masked = body.clone();
        let (one, two) = masked.split_at_mut(at.index(body.len() + 1));
        let turned = mask::apply(mask, one);
        mask::apply(turned, two);
        prop_assert_eq!(masked, expected);
    }
}
