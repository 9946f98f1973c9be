//! What RFC 6455 demands of the decoder and of the frames sent, by its sections.

mod deflated;
mod properties;
mod vectors;

use super::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMITS: Limits = Limits { message_max: 65_536 };

/// An event, or the end, that outlives its buffer.
#[derive(Debug, Clone, PartialEq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(Violation),
}

impl From<Event<'_>> for Got {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(body) => Self::Close(body.map(|(code, why)| (code, why.to_owned()))),
        }
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

/// A frame of a client: any first byte, the shortest length, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_client_frame(Opcode::Text, MASK, payload, &mut bytes);
    bytes[0] = first;
    bytes
}

/// Decodes the chunks in order up to a close, a violation or their end, and holds the decoder to
/// its promises on the way.
fn decode<'c>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    role: Role,
    limits: Limits,
) -> Vec<Got> {
    let mut got = Vec::new();
    for chunk in chunks {
        let mut input = chunk.to_vec();
        let mut at = 0;
        loop {
            let left = input.len() - at;
            let step = match decoder.next(&mut input[at..], role, limits) {
                Ok(step) => step,
                Err(violation) => {
                    got.push(Got::Failed(violation));
                    return got;
                }
            };
            at += step.consumed;
            let Some(event) = step.event else {
                assert_eq!(step.consumed, left, "without an event all input is consumed");
                break;
            };
            got.push(event.into());
            assert!(decoder.held_bytes() <= 256 + limits.message_max + 125);
            if let Some(Got::Close(_)) = got.last() {
                return got;
            }
        }
        assert!(decoder.held_bytes() <= 256 + limits.message_max + 125);
        assert!(decoder.is_partial() == (decoder.held_bytes() > 0), "no heap without a reason");
    }
    got
}

/// What a server decodes, the same in one piece and byte by byte.
fn check(bytes: &[u8], expected: &[Got]) {
    let whole = decode(&mut Decoder::new(), [bytes], Role::Server, LIMITS);
    assert_eq!(whole, expected, "in one piece");
    let single = decode(&mut Decoder::new(), bytes.chunks(1), Role::Server, LIMITS);
    assert_eq!(single, expected, "byte by byte");
}

fn check_all(frames: &[Vec<u8>], expected: &[Got]) {
    check(&frames.concat(), expected);
}

mod rfc_5_7 {
    //! The examples of section 5.7.
    use super::*;

    fn client_gets(bytes: &[u8], expected: &[Got]) {
        let got = decode(&mut Decoder::new(), [bytes], Role::Client, LIMITS);
        assert_eq!(got, expected);
        let got = decode(&mut Decoder::new(), bytes.chunks(1), Role::Client, LIMITS);
        assert_eq!(got, expected);
    }

    #[test]
    fn an_unmasked_text_message_in_one_frame() {
        client_gets(b"\x81\x05Hello", &[text("Hello")]);
        let mut sent = Vec::new();
        put_frame(Opcode::Text, b"Hello", &mut sent);
        assert_eq!(sent, b"\x81\x05Hello");
    }

    #[test]
    fn a_masked_text_message_in_one_frame() {
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        check(masked, &[text("Hello")]);
        let mut sent = Vec::new();
        put_client_frame(Opcode::Text, MASK, b"Hello", &mut sent);
        assert_eq!(sent, masked);
    }

    #[test]
    fn a_fragmented_unmasked_text_message() {
        client_gets(b"\x01\x03Hel\x80\x02lo", &[text("Hello")]);
    }

    #[test]
    fn an_unmasked_ping_and_its_masked_pong() {
        client_gets(b"\x89\x05Hello", &[Got::Ping(b"Hello".to_vec())]);
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        check(pong, &[Got::Pong(b"Hello".to_vec())]);
    }

    #[test]
    fn binary_messages_of_256_bytes_and_of_64_kib() {
        for (header, len) in
            [(&b"\x82\x7E\x01\x00"[..], 256), (b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00", 65_536)]
        {
            let payload = vec![7; len];
            client_gets(&[header, &payload].concat(), &[Got::Binary(payload.clone())]);
            let mut sent = Vec::new();
            put_header(Opcode::Binary, len, &mut sent);
            assert_eq!(sent, header);
        }
    }
}

mod handshake {
    use super::*;

    #[test]
    fn answers_the_key_of_section_1_3() {
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), accept);
        assert_eq!(accept_key(" dGhlIHNhbXBsZSBub25jZQ== "), accept);
        assert_eq!(request_key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }
}

mod sending {
    use super::*;

    #[test]
    fn a_header_takes_the_fewest_bytes_that_hold_the_length() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut sent = Vec::new();
            put_header(Opcode::Binary, len, &mut sent);
            assert_eq!(sent.len(), size, "for {len}");
        }
    }

    #[test]
    fn frames_are_appended_to_what_is_there() {
        let mut sent = b"before".to_vec();
        put_client_frame(Opcode::Text, MASK, b"Hello", &mut sent);
        assert_eq!(&sent[..6], b"before");
        check(&sent[6..], &[text("Hello")]);
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let mut sent = Vec::new();
        put_close(3001, "shutdown", &mut sent);
        assert_eq!(sent, b"\x88\x0a\x0b\xb9shutdown");
        let mut sent = Vec::new();
        put_client_close(MASK, 1000, "", &mut sent);
        check(&sent, &[Got::Close(Some((1000, String::new())))]);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        for (reason, kept) in [
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            ("ж".repeat(80), 122),
            ("🙂".repeat(40), 120),
            (format!("x{}", "🙂".repeat(40)), 121),
        ] {
            let mut sent = Vec::new();
            put_client_close(MASK, 3000, &reason, &mut sent);
            check(&sent, &[Got::Close(Some((3000, reason[..kept].to_owned())))]);
        }
    }
}

mod violations {
    use super::*;

    #[test]
    fn each_is_closed_with_the_code_that_the_rfc_names() {
        use Violation::*;
        let protocol = [
            ReservedBits,
            ReservedOpcode,
            Unmasked,
            Masked,
            ControlFragmented,
            ControlTooLong,
            LengthOverflow,
            UnexpectedContinuation,
            ExpectedContinuation,
            CloseTruncated,
            CloseCode,
        ];
        for violation in protocol {
            assert_eq!(violation.close_code(), 1002, "{violation}");
        }
        assert_eq!([InvalidUtf8.close_code(), Inflating.close_code()], [1007; 2]);
        assert_eq!([TooBig.close_code(), InflatesTooBig.close_code()], [1009; 2]);
    }

    #[test]
    fn every_reason_fits_a_close_frame_and_is_what_display_says() {
        let mut sent = Vec::new();
        put_close(1002, Violation::ExpectedContinuation.reason(), &mut sent);
        assert!(sent.ends_with(Violation::ExpectedContinuation.to_string().as_bytes()));
    }

    #[test]
    fn a_frame_without_a_mask_from_a_client() {
        check(b"\x81\x05Hello", &[Got::Failed(Violation::Unmasked)]);
    }

    #[test]
    fn a_frame_with_a_mask_from_a_server() {
        let bytes = frame(0x81, b"Hello");
        let got = decode(&mut Decoder::new(), [&bytes[..]], Role::Client, LIMITS);
        assert_eq!(got, [Got::Failed(Violation::Masked)]);
    }

    #[test]
    fn a_length_with_its_highest_bit_set() {
        let bytes = b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01";
        check(bytes, &[Got::Failed(Violation::LengthOverflow)]);
        let bytes = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        check(bytes, &[Got::Failed(Violation::LengthOverflow)]);
    }

    #[test]
    fn what_is_wrong_with_two_bytes_is_said_after_two() {
        let mut decoder = Decoder::new();
        for bytes in [&b"\x89\xfe"[..], b"\x89\x05", b"\xc1", b"\x83", b"\x09"] {
            let got = decode(&mut decoder, [bytes], Role::Server, LIMITS);
            assert!(matches!(got[..], [Got::Failed(_)]), "{bytes:?}");
            assert_eq!(decoder.held_bytes(), 0, "a failed connection holds nothing");
        }
    }
}

mod limits {
    use super::*;

    const SMALL: Limits = Limits { message_max: 200 };

    fn gets(bytes: &[u8], expected: &[Got]) {
        assert_eq!(decode(&mut Decoder::new(), [bytes], Role::Server, SMALL), expected);
        assert_eq!(decode(&mut Decoder::new(), bytes.chunks(1), Role::Server, SMALL), expected);
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
        gets(&frame(0x82, &[1; 200]), &[Got::Binary(vec![1; 200])]);
        gets(&frame(0x82, &[1; 201]), &[Got::Failed(Violation::TooBig)]);
    }

    #[test]
    fn fragments_count_together() {
        let fits = [frame(0x02, &[1; 150]), frame(0x80, &[1; 50])].concat();
        gets(&fits, &[Got::Binary(vec![1; 200])]);
        let too_big = [frame(0x02, &[1; 150]), frame(0x00, &[1; 51])].concat();
        gets(&too_big, &[Got::Failed(Violation::TooBig)]);
    }

    #[test]
    fn the_next_message_starts_from_nothing() {
        let one = [frame(0x02, &[1; 150]), frame(0x80, &[1; 50])].concat();
        let expected = vec![Got::Binary(vec![1; 200]); 3];
        gets(&[&one[..], &one, &one].concat(), &expected);
    }

    #[test]
    fn the_header_alone_is_refused() {
        gets(b"\x82\xfe\xff\xff\0\0\0\0", &[Got::Failed(Violation::TooBig)]);
        let exabytes = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
        gets(exabytes, &[Got::Failed(Violation::TooBig)]);
        let within_a_message =
            [&frame(0x01, b"x")[..], b"\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff"];
        gets(&[&within_a_message.concat()[..], &MASK].concat(), &[Got::Failed(Violation::TooBig)]);
    }

    #[test]
    fn a_control_frame_is_not_held_to_the_limit_of_messages() {
        let none = Limits { message_max: 0 };
        let bytes = [frame(0x89, &[1; 125]), frame(0x81, b"")].concat();
        let got = decode(&mut Decoder::new(), [&bytes[..]], Role::Server, none);
        assert_eq!(got, [Got::Ping(vec![1; 125]), text("")]);
    }

    #[test]
    fn announcing_much_and_sending_little_holds_little() {
        let mut decoder = Decoder::new();
        let bytes = &frame(0x82, &[1; 65_536])[..100];
        assert_eq!(decode(&mut decoder, [bytes], Role::Server, LIMITS), []);
        assert!(decoder.is_partial());
        assert!(decoder.held_bytes() < 400, "{} bytes", decoder.held_bytes());
    }

    #[test]
    fn a_flood_of_empty_fragments_holds_nothing_more() {
        let mut decoder = Decoder::new();
        let mut held = Vec::new();
        for first in std::iter::once(0x01).chain(std::iter::repeat_n(0x00, 10_000)) {
            assert_eq!(decode(&mut decoder, [&frame(first, b"")[..]], Role::Server, SMALL), []);
            held.push(decoder.held_bytes());
        }
        assert_eq!(held.iter().min(), held.iter().max());
        let end = frame(0x80, b"end");
        assert_eq!(decode(&mut decoder, [&end[..]], Role::Server, SMALL), [text("end")]);
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn a_flood_of_tiny_fragments_stays_within_the_limit() {
        let mut decoder = Decoder::new();
        let start = frame(0x02, b"");
        assert_eq!(decode(&mut decoder, [&start[..]], Role::Server, LIMITS), []);
        for _ in 0..65_536 {
            assert_eq!(decode(&mut decoder, [&frame(0x00, b"x")[..]], Role::Server, LIMITS), []);
        }
        assert!(decoder.held_bytes() < 65_536 + 256);
        let got = decode(&mut decoder, [&frame(0x00, b"x")[..]], Role::Server, LIMITS);
        assert_eq!(got, [Got::Failed(Violation::TooBig)]);
    }
}

mod heap {
    use super::*;

    #[test]
    fn whole_frames_need_none() {
        let mut decoder = Decoder::new();
        let mut input = [frame(0x81, b"one"), frame(0x89, b"two"), frame(0x82, b"three")].concat();
        let mut at = 0;
        for _ in 0..3 {
            let step = decoder.next(&mut input[at..], Role::Server, LIMITS).unwrap();
            assert!(step.event.is_some());
            at += step.consumed;
            assert_eq!(decoder.held_bytes(), 0);
            assert!(!decoder.is_partial());
        }
    }

    #[test]
    fn an_assembled_message_is_freed_when_it_is_released() {
        let mut decoder = Decoder::new();
        let mut input = [frame(0x01, b"one"), frame(0x80, b"two")].concat();
        let step = decoder.next(&mut input, Role::Server, LIMITS).unwrap();
        assert_eq!(step.event, Some(Event::Text("onetwo")));
        assert!(!decoder.is_partial(), "the message is whole");
        assert!(decoder.held_bytes() > 0, "the event borrowed from it");
        decoder.release();
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn half_a_header_is_kept_and_given_back() {
        let mut decoder = Decoder::new();
        let bytes = frame(0x81, b"Hello");
        assert_eq!(decode(&mut decoder, [&bytes[..3]], Role::Server, LIMITS), []);
        assert!(decoder.is_partial());
        assert_eq!(decode(&mut decoder, [&bytes[3..]], Role::Server, LIMITS), [text("Hello")]);
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn a_message_that_turns_out_not_to_be_utf_8_is_not_kept() {
        for end in [&b"\xE2"[..], b"\xFF"] {
            let mut decoder = Decoder::new();
            let bytes = [frame(0x01, &[b'x'; 1000]), frame(0x80, end)].concat();
            let got = decode(&mut decoder, [&bytes[..]], Role::Server, LIMITS);
            assert_eq!(got, [Got::Failed(Violation::InvalidUtf8)]);
            assert_eq!(decoder.held_bytes(), 0);
        }
    }

    #[test]
    fn a_ping_within_a_message_leaves_the_message_held() {
        let mut decoder = Decoder::new();
        let bytes = [frame(0x01, b"one"), frame(0x89, b"ping")].concat();
        let (first, last) = bytes.split_at(bytes.len() - 2);
        assert_eq!(decode(&mut decoder, [first], Role::Server, LIMITS), []);
        let got = decode(&mut decoder, [last], Role::Server, LIMITS);
        assert_eq!(got, [Got::Ping(b"ping".to_vec())]);
        assert!(decoder.is_partial());
        let end = frame(0x80, b"two");
        assert_eq!(decode(&mut decoder, [&end[..]], Role::Server, LIMITS), [text("onetwo")]);
    }
}
