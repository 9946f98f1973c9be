//! RFC 7692's examples, what any message comes back as, and what strangers may send.

use proptest::collection::vec;
use proptest::prelude::*;
use sha1::{Digest, Sha1};

use super::*;
use crate::websocket::{Decoder, Deflated, Event, Limits, Role, put_client_frame};

fn inflated(payload: &[u8], max: usize) -> Result<Vec<u8>, Violation> {
    let mut inflater = Inflater::new(max);
    let result = inflater.inflate(payload).map(<[u8]>::to_vec);
    within(&inflater, max);
    result
}

/// However it ended, no more was allocated than one byte over the limit.
fn within(inflater: &Inflater, max: usize) {
    let allocated = inflater.out.capacity();
    assert!(allocated <= max.saturating_add(1), "{allocated} bytes of {max}");
}

fn effort(level: u8) -> Effort {
    Effort { level, min_size: 0 }
}

/// One frame of a server; its first byte and payload.
fn frame(payload: &[u8], how: (Effort, Window)) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    Deflater::new().put_frame(Opcode::Binary, payload, how, &mut out);
    let head = match out[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (out[0], out.split_off(head))
}

#[test]
fn the_rfcs_examples_say_hello() {
    // RFC 7692 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5; the second of 7.2.3.2 refers to the message
    // before it, which nobody may here.
    for hello in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflated(hello, 5).unwrap(), b"Hello", "{hello:02x?}");
        assert_eq!(inflated(hello, 4), Err(Violation::InflatesTooBig));
    }
    let taken_over = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflated(&taken_over, 5), Err(Violation::Inflating));
}

#[test]
fn nothing_is_an_empty_block_or_no_byte() {
    assert_eq!(inflated(&[0x00], 0).unwrap(), b"");
    assert_eq!(inflated(&[], 0).unwrap(), b"");
    assert_eq!(inflated(&[0x03, 0x00, 0x00], 0).unwrap(), b"");
}

#[test]
fn references_reach_over_a_final_block() {
    let text = b"a text that is said once, and then once more".repeat(3);
    let mut compress = Compress::new(Compression::new(6), false);
    let mut first = Vec::with_capacity(1000);
    compress.compress_vec(&text, &mut first, FlushCompress::Sync).unwrap();
    let mut second = Vec::with_capacity(1000);
    let mut again = Compress::new(Compression::new(6), false);
    again.set_dictionary(&text).unwrap();
    again.compress_vec(&text, &mut second, FlushCompress::Sync).unwrap();
    assert!(second.len() < 20, "it refers to what was before: {}", second.len());
    second.truncate(second.len() - TAIL.len());
    // An empty final block between the two.
    let payload = [&first[..], &END, &second].concat();
    assert_eq!(inflated(&payload, 1000).unwrap(), [&text[..], &text].concat());
}

#[test]
fn what_breaks_off_or_is_none_is_refused() {
    let (first, payload) = frame(&b"abcdefgh".repeat(50), (effort(6), Window::Usual));
    assert_eq!(first, 0xc2);
    assert_eq!(inflated(&payload, 400).unwrap().len(), 400);
    for end in 1..payload.len() {
        assert!(inflated(&payload[..end], 400).is_err(), "cut at {end}");
    }
    let garbage = [&payload[..], b"x"].concat();
    assert_eq!(inflated(&garbage, 400), Err(Violation::Inflating));
    for none in [&[0x07][..], &[0xff; 20], b"plain text", &[0x03, 0x00]] {
        assert_eq!(inflated(none, 100), Err(Violation::Inflating), "{none:02x?}");
    }
    // More final blocks than anybody has a use for.
    let finals = [&END.repeat(FINALS_MAX + 1)[..], &[0]].concat();
    assert_eq!(inflated(&finals, 100), Err(Violation::Inflating));
    let finals = [&END.repeat(FINALS_MAX)[..], &[0]].concat();
    assert_eq!(inflated(&finals, 100).unwrap(), b"");
}

#[test]
fn a_bomb_is_given_up_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    let mut bomb = Vec::with_capacity(1 << 20);
    let mut compress = Compress::new(Compression::new(9), false);
    compress.compress_vec(&zeros, &mut bomb, FlushCompress::Sync).unwrap();
    bomb.truncate(bomb.len() - TAIL.len());
    assert!(bomb.len() < 80_000, "{} bytes are no bomb", bomb.len());
    let mut inflater = Inflater::new(1 << 20);
    assert_eq!(inflater.inflate(&bomb), Err(Violation::InflatesTooBig));
    assert!(inflater.out.capacity() <= (1 << 20) + 1);
    inflater.release();
    assert!(inflater.out.capacity() <= KEPT, "of a large message little is kept");
    // The next one is as good as before.
    assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).unwrap(), b"Hello");
}

#[test]
fn a_message_is_compressed_where_it_gets_shorter_and_is_long_enough() {
    let text = b"{\"channel\":\"news\"}".repeat(10);
    let how = |min_size| (Effort { level: 1, min_size }, Window::Usual);
    assert_eq!(frame(&text, how(0)).0, 0xc2);
    assert_eq!(frame(&text, how(text.len())).0, 0xc2);
    assert_eq!(frame(&text, how(text.len() + 1)), (0x82, text.clone()));
    assert_eq!(frame(&text[..FLOOR - 1], how(0)).0, 0x82);
    let noise = noise(2000);
    assert_eq!(frame(&noise, how(0)), (0x82, noise));
}

/// Bytes without any pattern.
fn noise(len: u32) -> Vec<u8> {
    let block = |at: u32| Sha1::digest(at.to_be_bytes());
    let mut noise: Vec<u8> = (0..len.div_ceil(20)).flat_map(block).collect();
    noise.truncate(len as usize);
    noise
}

#[test]
fn what_did_not_get_shorter_leaves_nothing_behind() {
    let (mut deflater, how) = (Deflater::new(), (effort(1), Window::Usual));
    for round in 1..=12 {
        let noise = noise(round * 9000);
        for message in [noise.clone(), noise, b"said again and again, ".repeat(500)] {
            let mut out = Vec::new();
            deflater.put_frame(Opcode::Binary, &message, how, &mut out);
            assert_eq!(out[0] == 0xc2, message.len() == 11_000, "in round {round}");
        }
    }
}

#[test]
fn the_window_is_kept_to() {
    // What repeats after 2,000 bytes is found with a window of 4 KiB, and not with one of 512 bytes.
    let noise = noise(2000);
    let message = [&noise[..], &noise[..100]].concat();
    let first = |window| frame(&message, (effort(9), window)).0;
    assert_eq!((first(Window::Usual), first(Window::Small)), (0xc2, 0x82));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_compressed_comes_back(
        parts in vec((vec(any::<u8>(), 0..60), 1_usize..40), 0..12),
        level in 1_u8..=9, small in any::<bool>(), cut in 1_usize..300,
    ) {
        let message: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
        let window = if small { Window::Small } else { Window::Usual };
        let (first, payload) = frame(&message, (effort(level), window));
        prop_assert!(payload.len() <= message.len());
        if first == 0x82 {
            prop_assert_eq!(&payload, &message);
            return Ok(());
        }
        prop_assert_eq!(first, 0xc2);
        // A peer with no larger window than was agreed on reads it.
        let mut narrow = Decompress::new_with_window_bits(false, window.bits());
        let mut read = Vec::with_capacity(message.len() + 100);
        let whole = [&payload[..], &TAIL].concat();
        narrow.decompress_vec(&whole, &mut read, FlushDecompress::Sync).unwrap();
        prop_assert_eq!(&read, &message);
        prop_assert_eq!(&inflated(&payload, message.len()).unwrap(), &message);
        prop_assert_eq!(inflated(&payload, message.len() - 1), Err(Violation::InflatesTooBig));
        // And in fragments through a decoder, however they are cut.
        let mut frames = Vec::new();
        let last = payload.chunks(cut).count() - 1;
        for (at, chunk) in payload.chunks(cut).enumerate() {
            let start = frames.len();
            put_client_frame(Opcode::Continuation, [1, 2, 3, 4], chunk, &mut frames);
            frames[start] = u8::from(at == last) << 7 | if at == 0 { 0x42 } else { 0 };
        }
        let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new(message.len()));
        let limits = Limits { message_max: payload.len() };
        let mut come = Vec::new();
        for chunk in frames.chunks_mut(cut.div_ceil(2)) {
            let deflated = Deflated::Inflated(&mut inflater);
            let step = decoder.next_with(chunk, Role::Server, limits, deflated).unwrap();
            if let Some(Event::Binary(data)) = step.event {
                come.push(data.to_vec());
            }
        }
        prop_assert_eq!(come, [message]);
    }

    #[test]
    fn any_payload_is_survived_within_the_limit(
        payload in vec(any::<u8>(), 0..300), max in 0_usize..2000, start in 0_u8..8,
    ) {
        if let Ok(message) = inflated(&payload, max) {
            prop_assert!(message.len() <= max);
        }
        // Most first bytes are no block: one whose beginning is right goes further.
        let begun = [&[start][..], &payload].concat();
        if let Ok(message) = inflated(&begun, max) {
            prop_assert!(message.len() <= max);
        }
    }

    #[test]
    fn a_damaged_payload_is_survived_within_the_limit(
        parts in vec((vec(any::<u8>(), 1..60), 1_usize..40), 1..12),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), max in 0_usize..4000,
    ) {
        let message: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
        let (_, mut payload) = frame(&message, (effort(6), Window::Usual));
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(message) = inflated(&payload, max) {
            prop_assert!(message.len() <= max);
        }
    }
}

proptest! {
    // Long messages, so few of them.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn one_machine_serves_any_messages_one_after_the_other(
        sizes in vec((0_u32..6, 1_u32..700, 1_u8..=9, any::<bool>()), 1..20),
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new(1 << 20));
        for (kind, size, level, small) in sizes {
            // Without a pattern, with one, or in turn; short, or longer than any buffer in there.
            let (len, first) = (if kind % 2 == 0 { size } else { size * 150 }, size * 7);
            let message = match kind / 2 {
                0 => noise(len),
                1 => noise(20).repeat(len as usize / 20 + 1),
                _ => (first..first + len / 80 + 1).flat_map(|at| [noise(at % 80), vec![7; 60]].concat()).collect(),
            };
            let window = if small { Window::Small } else { Window::Usual };
            let mut out = Vec::new();
            deflater.put_frame(Opcode::Binary, &message, (effort(level), window), &mut out);
            let head = out.len() - match out[1] {
                126 => usize::from(u16::from_be_bytes([out[2], out[3]])),
                127 => usize::from(u16::from_be_bytes([out[8], out[9]])) | usize::from(out[7]) << 16,
                len => usize::from(len),
            };
            let payload = &out[head..];
            if out[0] == 0xc2 {
                prop_assert!(payload.len() < message.len());
                prop_assert!(inflater.inflate(payload).unwrap() == message);
                // What is damaged leaves nothing behind for the next.
                inflater.inflate(&payload[..payload.len() / 2]).ok(); // it may be whole by chance
            } else {
                prop_assert!(payload == message);
            }
        }
    }
}
