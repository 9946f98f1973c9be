//! What RFC 7692 6 makes of the first reserved bit, once it is agreed on.

use super::*;
use crate::websocket::{Deflated, Inflater};

/// "Hello" (RFC 7692 7.2.3.1), and "Hell" with the first byte of an "ö".
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const CUT_TEXT: [u8; 11] = [0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', 0xc3, 0x00];

/// What a server makes of a client's frames, given whole and byte by byte.
fn inflated(frames: &[Vec<u8>]) -> Vec<Got> {
    let bytes = frames.concat();
    let whole = run([&bytes[..]]);
    assert_eq!(run(bytes.chunks(1)), whole, "byte by byte");
    whole
}

fn run<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<Got> {
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new(100));
    let mut got = Vec::new();
    for chunk in chunks {
        let mut input = chunk.to_vec();
        let mut at = 0;
        loop {
            let deflated = Deflated::Inflated(&mut inflater);
            match decoder.next_with(&mut input[at..], Role::Server, LIMITS, deflated) {
                Ok(Step { consumed, event, .. }) => {
                    at += consumed;
                    match event {
                        Some(event) => got.push(event.into()),
                        None => break,
                    }
                }
                Err(violation) => {
                    got.push(Got::Failed(violation));
                    return got;
                }
            }
        }
    }
    got
}

#[test]
fn a_message_with_the_bit_is_inflated_and_one_without_is_not() {
    let got = inflated(&[frame(0xc1, &HELLO), frame(0x81, b"plain"), frame(0xc2, &HELLO)]);
    assert_eq!(got, [text("Hello"), text("plain"), Got::Binary(b"Hello".to_vec())]);
}

#[test]
fn fragments_are_one_payload_whatever_comes_in_between() {
    let got = inflated(&[
        frame(0x41, &HELLO[..3]),
        frame(0x89, b"ping"),
        frame(0x00, &HELLO[3..5]),
        frame(0x00, b""),
        frame(0x80, &HELLO[5..]),
        frame(0x81, b"plain"),
    ]);
    assert_eq!(got, [Got::Ping(b"ping".to_vec()), text("Hello"), text("plain")]);
}

#[test]
fn empty_messages_come_in_both_ways() {
    let got = inflated(&[frame(0xc1, &[0]), frame(0xc2, b""), frame(0x81, b"")]);
    assert_eq!(got, [text(""), Got::Binary(Vec::new()), text("")]);
}

#[test]
fn the_bit_is_wrong_on_control_frames_and_continuations() {
    for control in [0xc8, 0xc9, 0xca] {
        assert_eq!(inflated(&[frame(control, b"")]), [Got::Failed(Violation::ReservedBits)]);
    }
    for first in [0x41, 0x01] {
        let got = inflated(&[frame(first, b""), frame(0xc0, &HELLO)]);
        assert_eq!(got, [Got::Failed(Violation::ReservedBits)]);
    }
}

#[test]
fn the_other_reserved_bits_stay_wrong() {
    for bits in [0x10, 0x20, 0x30, 0x50, 0x60, 0x70] {
        let got = inflated(&[frame(0x81 | bits, &HELLO)]);
        assert_eq!(got, [Got::Failed(Violation::ReservedBits)], "{bits:#x}");
    }
}

#[test]
fn text_is_checked_as_it_was_before_it_was_compressed() {
    // The payload itself is no UTF-8.
    assert_eq!(inflated(&[frame(0xc1, &HELLO)]), [text("Hello")]);
    assert_eq!(inflated(&[frame(0xc1, &CUT_TEXT)]), [Got::Failed(Violation::InvalidUtf8)]);
    assert!(
        matches!(&*inflated(&[frame(0xc2, &CUT_TEXT)]), [Got::Binary(data)] if data.len() == 5)
    );
}

#[test]
fn what_does_not_inflate_fails() {
    assert_eq!(inflated(&[frame(0xc1, b"Hello")]), [Got::Failed(Violation::Inflating)]);
    assert_eq!(inflated(&[frame(0xc1, &HELLO[..4])]), [Got::Failed(Violation::Inflating)]);
}

#[test]
fn nobody_inflates_for_who_does_not_look_at_it() {
    let mut input = [frame(0xc1, b"no block"), frame(0x88, b"")].concat();
    let mut decoder = Decoder::new();
    let step = decoder.next_with(&mut input, Role::Server, LIMITS, Deflated::Unread).unwrap();
    assert_eq!(step.event, Some(Event::Binary(b"no block")));
    let consumed = step.consumed;
    let rest = &mut input[consumed..];
    let step = decoder.next_with(rest, Role::Server, LIMITS, Deflated::Unread).unwrap();
    assert_eq!(step.event, Some(Event::Close(None)));
}
