//! Own vectors over what a conformance suite of WebSocket covers, group by group.

use super::*;

fn failed(violation: Violation) -> Got {
    Got::Failed(violation)
}

fn ping(payload: &[u8]) -> Got {
    Got::Ping(payload.to_vec())
}

mod framing {
    use super::*;

    #[test]
    fn messages_of_every_form_of_length() {
        for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            let letters = "*".repeat(len);
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            check(&frame(0x81, letters.as_bytes()), &[text(&letters)]);
            check(&frame(0x82, &bytes), &[Got::Binary(bytes.clone())]);
        }
    }

    #[test]
    fn a_longer_form_of_length_than_needed_is_accepted() {
        let mut two = b"\x81\xfe\x00\x05".to_vec();
        let mut eight = b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05".to_vec();
        for bytes in [&mut two, &mut eight] {
            bytes.extend_from_slice(&frame(0x81, b"Hello")[2..]);
            check(bytes, &[text("Hello")]);
        }
    }

    #[test]
    fn a_mask_of_zeros_is_a_mask() {
        check(b"\x81\x85\0\0\0\0Hello", &[text("Hello")]);
    }

    #[test]
    fn messages_back_to_back() {
        let frames: Vec<_> = (0..50).map(|i| frame(0x81, format!("{i}").as_bytes())).collect();
        let expected: Vec<_> = (0..50).map(|i| text(&i.to_string())).collect();
        check_all(&frames, &expected);
    }
}

mod pings {
    use super::*;

    #[test]
    fn with_every_length_of_payload_that_is_allowed() {
        for len in 0..=125 {
            let payload: Vec<u8> = (0..len).map(|byte| byte ^ 0xFE).collect();
            check(&frame(0x89, &payload), &[ping(&payload)]);
        }
    }

    #[test]
    fn of_126_bytes_fail() {
        check(&frame(0x89, &[0xFE; 126]), &[failed(Violation::ControlTooLong)]);
        check(&frame(0x8A, &[0xFE; 126]), &[failed(Violation::ControlTooLong)]);
    }

    #[test]
    fn in_a_row_keep_their_order() {
        let frames: Vec<_> = (0..10).map(|i| frame(0x89, &[i])).collect();
        let expected: Vec<_> = (0..10).map(|i| ping(&[i])).collect();
        check_all(&frames, &expected);
    }

    #[test]
    fn and_pongs_said_unasked() {
        check_all(
            &[frame(0x8A, b"unasked"), frame(0x89, b"asked")],
            &[Got::Pong(b"unasked".to_vec()), ping(b"asked")],
        );
    }
}

mod reserved_bits {
    use super::*;

    #[test]
    fn fail_in_every_combination_and_every_kind_of_frame() {
        for bits in (0x10..=0x70).step_by(0x10) {
            for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xA] {
                let bytes = frame(0x80 | bits | opcode, b"");
                check(&bytes, &[failed(Violation::ReservedBits)]);
            }
        }
    }

    #[test]
    fn fail_after_what_was_well() {
        check_all(
            &[frame(0x81, b"well"), frame(0xC1, b"not"), frame(0x89, b"")],
            &[text("well"), failed(Violation::ReservedBits)],
        );
    }
}

mod reserved_opcodes {
    use super::*;

    #[test]
    fn fail_with_and_without_a_payload_and_alone_or_after_a_message() {
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            for payload in [&b""[..], b"payload"] {
                let bytes = frame(0x80 | opcode, payload);
                check(&bytes, &[failed(Violation::ReservedOpcode)]);
                check_all(
                    &[frame(0x81, b"well"), bytes],
                    &[text("well"), failed(Violation::ReservedOpcode)],
                );
            }
        }
    }
}

mod fragmentation {
    use super::*;

    #[test]
    fn of_control_frames_fails() {
        for first in [0x08, 0x09, 0x0A] {
            let bytes = [frame(first, b"frag"), frame(0x80, b"ment")].concat();
            check(&bytes, &[failed(Violation::ControlFragmented)]);
        }
    }

    #[test]
    fn of_text_and_binary() {
        check_all(&[frame(0x01, b"frag"), frame(0x80, b"ment")], &[text("fragment")]);
        check_all(
            &[frame(0x02, b"frag"), frame(0x00, b"me"), frame(0x80, b"nt")],
            &[Got::Binary(b"fragment".to_vec())],
        );
    }

    #[test]
    fn with_control_frames_in_between() {
        check_all(
            &[
                frame(0x01, b"one"),
                frame(0x89, b"ping 1"),
                frame(0x00, b"two"),
                frame(0x8A, b"pong"),
                frame(0x89, b"ping 2"),
                frame(0x80, b"three"),
                frame(0x89, b"ping 3"),
            ],
            &[
                ping(b"ping 1"),
                Got::Pong(b"pong".to_vec()),
                ping(b"ping 2"),
                text("onetwothree"),
                ping(b"ping 3"),
            ],
        );
    }

    #[test]
    fn with_a_close_in_between_drops_the_message() {
        check_all(
            &[frame(0x01, b"one"), frame(0x88, b""), frame(0x80, b"two")],
            &[Got::Close(None)],
        );
    }

    #[test]
    fn of_nothing_fails() {
        for first in [0x00, 0x80] {
            check(&frame(first, b"more"), &[failed(Violation::UnexpectedContinuation)]);
            check_all(
                &[frame(0x81, b"whole"), frame(first, b"more")],
                &[text("whole"), failed(Violation::UnexpectedContinuation)],
            );
            check_all(
                &[frame(0x01, b"one"), frame(0x80, b"two"), frame(first, b"more")],
                &[text("onetwo"), failed(Violation::UnexpectedContinuation)],
            );
        }
    }

    #[test]
    fn within_which_another_message_starts_fails() {
        for first in [0x01, 0x02, 0x81, 0x82] {
            check_all(
                &[frame(0x01, b"one"), frame(0x89, b""), frame(first, b"two")],
                &[ping(b""), failed(Violation::ExpectedContinuation)],
            );
        }
    }

    #[test]
    fn into_empty_fragments() {
        check_all(&[frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")], &[text("")]);
        check_all(&[frame(0x01, b""), frame(0x00, b"middle"), frame(0x80, b"")], &[text("middle")]);
    }
}

mod utf_8 {
    use super::*;

    const VALID: &[&str] = &[
        "",
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}",
        "\u{7F}\u{80}\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}",
        "\u{D7FF}\u{E000}\u{FFFD}",
        "\u{FFFE}\u{FFFF}\u{1FFFE}\u{10FFFE}",
    ];

    /// Each fails at its last byte.
    const INVALID: &[&[u8]] = &[
        b"\x80",
        b"\xBF",
        b"\xC0",
        b"\xC1",
        b"\xF5",
        b"\xF8",
        b"\xFC",
        b"\xFE",
        b"\xFF",
        b"\xC3 ",
        b"\xE2\x82 ",
        b"\xF0\x9F\x99 ",
        // Longer than needed.
        b"\xE0\x80",
        b"\xE0\x9F",
        b"\xF0\x80",
        b"\xF0\x8F",
        // Halves of surrogate pairs.
        b"\xED\xA0",
        b"\xED\xBF",
        // Past the last character.
        b"\xF4\x90",
        b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0",
    ];

    /// Each is the front of something valid.
    const UNFINISHED: &[&[u8]] = &[
        b"\xC3",
        b"\xE2\x82",
        b"\xF0\x9F\x99",
        b"\xED\x9F",
        b"\xF4\x8F\xBF",
        b"ab\xCE\xBA\xE1\xBD",
    ];

    #[test]
    fn valid_text_is_taken_whole_and_split_anywhere() {
        for valid in VALID {
            check(&frame(0x81, valid.as_bytes()), &[text(valid)]);
            for end in 0..=valid.len() {
                let (one, two) = valid.as_bytes().split_at(end);
                check_all(&[frame(0x01, one), frame(0x80, two)], &[text(valid)]);
            }
            let mut frames: Vec<_> = valid.bytes().map(|byte| frame(0x00, &[byte])).collect();
            frames.insert(0, frame(0x01, b""));
            frames.push(frame(0x80, b""));
            check_all(&frames, &[text(valid)]);
        }
    }

    #[test]
    fn invalid_text_fails_whole_and_split_anywhere() {
        for invalid in INVALID {
            check(&frame(0x81, invalid), &[failed(Violation::InvalidUtf8)]);
            for end in 0..=invalid.len() {
                let (one, two) = invalid.split_at(end);
                check_all(&[frame(0x01, one), frame(0x80, two)], &[failed(Violation::InvalidUtf8)]);
            }
        }
    }

    #[test]
    fn text_that_ends_within_a_character_fails() {
        for unfinished in UNFINISHED {
            check(&frame(0x81, unfinished), &[failed(Violation::InvalidUtf8)]);
            check_all(
                &[frame(0x01, unfinished), frame(0x80, b"")],
                &[failed(Violation::InvalidUtf8)],
            );
        }
    }

    #[test]
    fn binary_may_be_anything() {
        for invalid in INVALID {
            check_all(
                &[frame(0x02, invalid), frame(0x80, invalid)],
                &[Got::Binary([*invalid, *invalid].concat())],
            );
        }
    }

    #[test]
    fn invalid_text_fails_with_the_fragment_that_shows_it() {
        for invalid in INVALID {
            check(&frame(0x01, invalid), &[failed(Violation::InvalidUtf8)]);
        }
        for unfinished in UNFINISHED {
            check(&frame(0x01, unfinished), &[]);
        }
    }

    #[test]
    fn invalid_text_fails_with_the_byte_that_shows_it() {
        for invalid in INVALID {
            let bytes = frame(0x81, &[*invalid, b"and what would have followed"].concat());
            let shown = 6 + invalid.len();
            let mut decoder = Decoder::new();
            assert_eq!(decode(&mut decoder, [&bytes[..shown - 1]], Role::Server, LIMITS), []);
            assert_eq!(
                decode(&mut decoder, [&bytes[shown - 1..shown]], Role::Server, LIMITS),
                [failed(Violation::InvalidUtf8)],
                "{invalid:x?}"
            );
        }
    }
}

mod closing {
    use super::*;

    fn body(code: u16, reason: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], reason].concat()
    }

    #[test]
    fn without_a_body() {
        check(&frame(0x88, b""), &[Got::Close(None)]);
    }

    #[test]
    fn with_half_a_code_fails() {
        check(&frame(0x88, b"\x03"), &[failed(Violation::CloseTruncated)]);
    }

    #[test]
    fn with_a_code_and_a_reason() {
        let bytes = frame(0x88, &body(1000, "Tschüß".as_bytes()));
        check(&bytes, &[Got::Close(Some((1000, "Tschüß".to_owned())))]);
        let longest = "*".repeat(123);
        let bytes = frame(0x88, &body(1000, longest.as_bytes()));
        check(&bytes, &[Got::Close(Some((1000, longest)))]);
        let bytes = frame(0x88, &body(1000, &[b'*'; 124]));
        check(&bytes, &[failed(Violation::ControlTooLong)]);
    }

    #[test]
    fn with_a_reason_that_is_not_utf_8_fails() {
        for reason in [&b"\xFF"[..], b"half \xE2\x82", b"\xED\xA0\x80"] {
            check(&frame(0x88, &body(1000, reason)), &[failed(Violation::InvalidUtf8)]);
        }
    }

    #[test]
    fn with_each_code_that_may_be_sent() {
        for code in (1000..=1003).chain(1007..=1014).chain([3000, 3500, 3999, 4000, 4999]) {
            let expected = Got::Close(Some((code, String::new())));
            check(&frame(0x88, &body(code, b"")), &[expected]);
        }
    }

    #[test]
    fn with_any_other_code_fails() {
        let never = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
        for code in never {
            check(&frame(0x88, &body(code, b"")), &[failed(Violation::CloseCode)]);
        }
    }

    #[test]
    fn leaves_what_follows_it_untaken() {
        let close = frame(0x88, &body(1000, b""));
        let late = frame(0x81, b"late");
        let mut input = [&close[..], &late].concat();
        let mut decoder = Decoder::new();
        let step = decoder.next(&mut input, Role::Server, LIMITS).unwrap();
        assert_eq!(step.consumed, close.len());
        assert_eq!(step.event, Some(Event::Close(Some((1000, "")))));
        assert_eq!(&input[close.len()..], late, "and as it was");
    }
}
