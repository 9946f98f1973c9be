//! The shard with real sockets.

mod client;
mod house;

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use throng_wire::framing::Framing;
use throng_wire::websocket::{Deflater, Effort, Opcode, Window, put_frame};

use super::Bounds;
use client::{Heard, frame, masked, text};
use house::{House, Mail, Nudge, Seen, bounds};

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const DEFLATED_TEXT: u8 = 0xc1;

/// Frames for everyone: one message of so many bytes.
fn message(bytes: usize) -> Bytes {
    let mut out = Vec::new();
    put_frame(Opcode::Binary, &vec![b'm'; bytes], &mut out);
    out.into()
}

fn said(what: &str) -> Heard {
    Heard::Text(what.to_owned())
}

fn closed(code: u16) -> Heard {
    Heard::Close(Some(code))
}

/// Mails until something holds. Returns how often.
fn mail_until(house: &House, mail: impl Fn() -> Mail, mut holds: impl FnMut() -> bool) -> usize {
    let mut count = 0;
    while !holds() {
        house.mail(mail());
        house.await_turn();
        count += 1;
        assert!(count < 2000, "mailed in vain");
    }
    count
}

#[test]
fn echoes_fragmented_and_pipelined_messages() {
    let house = House::open(bounds());
    let mut client = house.join();
    let mut input = frame(TEXT, b"ab");
    input.extend(frame(FIN | PING, b"there?"));
    input.extend(frame(0, b"cd"));
    input.extend(frame(FIN, b"ef"));
    input.extend(text("one"));
    input.extend(frame(FIN | BINARY, &[7; 70_000]));
    input.extend(text("two"));
    // In pieces that respect no frame.
    for piece in input.chunks(1009) {
        client.send(piece);
    }
    assert_eq!(client.hear(), Heard::Pong(b"there?".to_vec()));
    assert_eq!(client.hear(), said("abcdef"));
    assert_eq!(client.hear(), said("one"));
    assert_eq!(client.hear(), Heard::Binary(vec![7; 70_000]));
    assert_eq!(client.hear(), said("two"));
    drop(client);
    house.end();
}

#[test]
fn bytes_that_were_read_ahead_are_the_first_message() {
    let house = House::open(bounds());
    let mut ahead = text("first");
    ahead.extend(text("second"));
    let rest = ahead.split_off(ahead.len() - 3);
    let mut client = house.join_with(&ahead);
    assert_eq!(client.hear(), said("first"));
    client.send(&rest);
    assert_eq!(client.hear(), said("second"));
    drop(client);
    house.end();
}

#[test]
fn a_waiting_connection_is_not_read_and_goes_on_in_order() {
    let house = House::open(bounds());
    let mut client = house.join();
    let mut neighbour = house.join();
    client.send(&[text("wait"), text("a"), text("wait"), text("b")].concat());
    house.await_seen(Seen::Waiting(client.number));
    client.send(&text("c"));
    // The neighbour's answer comes a turn after `c` did.
    neighbour.send(&text("hello"));
    assert_eq!(neighbour.hear(), said("hello"));
    house.mail(Mail::Resume(client.number));
    assert_eq!(client.hear(), said("resumed"));
    assert_eq!(client.hear(), said("a"));
    house.await_seen(Seen::Waiting(client.number));
    house.mail(Mail::Resume(client.number));
    for expected in ["resumed", "b", "c"] {
        assert_eq!(client.hear(), said(expected));
    }
    drop((client, neighbour));
    house.end();
}

#[test]
fn a_flood_of_commands_does_not_hold_up_a_neighbour() {
    const FLOOD: usize = 100_000;
    const ASKED_AT: usize = 1000;
    let house = House::open(Bounds { outbox_bytes_max: 64 << 20, ..bounds() });
    let mut flood = house.join();
    let mut neighbour = house.join();
    // The shard itself sends for the neighbour when it has come so far in the flood.
    house.mail(Mail::Nudge(Nudge {
        from: flood.number,
        at: ASKED_AT,
        socket: neighbour.writer(),
        bytes: text("hello"),
    }));
    let mut writer = flood.writer();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(&text("x").repeat(FLOOD)).unwrap();
    });
    assert_eq!(neighbour.hear(), said("hello"));
    let Seen::Handled { before } = house.await_kind(|seen| matches!(seen, Seen::Handled { .. }))
    else {
        unreachable!()
    };
    // Two or three shares of the flood may lie between asking and answering.
    assert!((ASKED_AT..ASKED_AT + 1000).contains(&before), "answered after {before}");
    for _ in 0..FLOOD {
        assert_eq!(flood.hear(), said("x"));
    }
    writing.join().unwrap();
    drop((flood, neighbour));
    house.end();
}

#[test]
fn a_panic_ends_one_connection_and_no_other() {
    let house = House::open(bounds());
    let mut client = house.join();
    let mut neighbour = house.join();
    client.send(&[text("before"), text("panic"), text("behind")].concat());
    assert_eq!(client.hear(), said("before"));
    assert_eq!(client.hear(), closed(3004));
    house.await_seen(Seen::Closed(client.number, 3004));
    neighbour.send(&text("still here"));
    assert_eq!(neighbour.hear(), said("still here"));
    drop((client, neighbour));
    house.end();
}

#[test]
fn a_message_that_does_not_end_is_not_waited_for() {
    let house = House::open(Bounds { incomplete_message: Duration::from_secs(1), ..bounds() });
    let mut client = house.join();
    let mut half = text("whole");
    half.extend(frame(TEXT, &[b'x'; 1000]));
    client.send(&half);
    assert_eq!(client.hear(), said("whole"));
    assert_eq!(client.hear(), closed(3008));
    // What it said by halves is forgotten, so its answer is not looked for.
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn each_message_has_its_own_time_to_arrive() {
    let house = House::open(Bounds { incomplete_message: Duration::from_secs(1), ..bounds() });
    let mut client = house.join();
    let whole = text("steady");
    let (front, back) = whole.split_at(9);
    let start = Instant::now();
    client.send(front);
    while start.elapsed() < Duration::from_millis(3200) {
        // Whenever the shard looks, a message is half received, but never the same one.
        client.send(&[back, front].concat());
        assert_eq!(client.hear(), said("steady"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    drop(client);
    house.end();
}

#[test]
fn a_slow_client_is_closed_and_nobody_else_notices() {
    let house = House::open(bounds());
    let mut slow = house.join();
    let mut reader = house.join();
    let number = slow.number;
    let mail = || Mail::Broadcast(message(50_000));
    let mut asked = 0;
    let sent = mail_until(&house, mail, || {
        // Asked before each and behind the last: the reader gets every one as it is said.
        asked += 1;
        if asked > 1 {
            assert_eq!(reader.hear(), Heard::Binary(vec![b'm'; 50_000]));
        }
        house.has_seen(Seen::Closed(number, 3008))
    });
    assert!(sent > 20, "1 MB may wait, and was closed after {sent} of 50 KB");
    house.await_connections(1);
    reader.send(&text("fine"));
    assert_eq!(reader.hear(), said("fine"));
    // It took nothing, so that what the kernel held for it is gone, too.
    assert_eq!(slow.hear_to_the_end().pop(), Some(Heard::Reset));
    drop((slow, reader));
    house.end();
}

#[test]
fn a_slow_client_that_reads_after_all_gets_whole_frames_and_the_reason() {
    let house = House::open(bounds());
    let mut slow = house.join();
    let number = slow.number;
    let mail = || Mail::Broadcast(message(100_000));
    mail_until(&house, mail, || house.has_seen(Seen::Closed(number, 3008)));
    let mut heard = slow.hear_to_the_end();
    assert_eq!(heard.pop(), Some(Heard::End));
    assert_eq!(heard.pop(), Some(closed(3008)));
    assert!(heard.iter().all(|each| *each == Heard::Binary(vec![b'm'; 100_000])));
    drop(slow);
    house.end();
}

#[test]
fn a_client_that_does_not_answer_a_close_is_reset() {
    let house = House::open(Bounds { close: Duration::from_secs(1), ..bounds() });
    let mut client = house.join();
    client.send(&text("close"));
    assert_eq!(client.hear(), closed(4000));
    // It keeps its permit until then: invariant PAY-FIRST.
    assert_eq!(house.permits(), 1);
    assert_eq!(client.hear(), Heard::Reset);
    drop(client);
    house.end();
}

#[test]
fn a_close_that_is_answered_is_over() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&text("close"));
    assert_eq!(client.hear(), closed(4000));
    client.send(&[text("late"), frame(FIN | PING, b""), frame(FIN | CLOSE, b"")].concat());
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn a_close_is_answered_with_its_code() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&[text("bye"), frame(FIN | CLOSE, &4321_u16.to_be_bytes())].concat());
    assert_eq!(client.hear(), said("bye"));
    assert_eq!(client.hear(), closed(4321));
    assert_eq!(client.hear(), Heard::End);
    house.await_seen(Seen::Closed(client.number, 3000));
    let mut client = house.join();
    client.send(&frame(FIN | CLOSE, b""));
    assert_eq!(client.hear(), Heard::Close(None));
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn a_close_that_came_behind_the_last_command_is_seen() {
    let house = House::open(bounds());
    let goodbye = [text("close"), text("x"), frame(FIN | CLOSE, b"")].concat();
    let mut client = house.join();
    client.send(&goodbye);
    assert_eq!(client.hear(), closed(4000));
    assert_eq!(client.hear(), Heard::End);
    // The same behind a command that waits.
    let mut client = house.join();
    client.send(&[text("wait"), text("x"), frame(FIN | CLOSE, b"")].concat());
    house.await_seen(Seen::Waiting(client.number));
    house.mail(Mail::Close(client.number));
    assert_eq!(client.hear(), closed(4001));
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn a_peer_that_leaves_while_it_waits_is_let_go_with_its_close() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&text("wait"));
    house.await_seen(Seen::Waiting(client.number));
    client.end_writing();
    house.await_turn();
    house.mail(Mail::Close(client.number));
    assert_eq!(client.hear(), closed(4001));
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn a_client_that_says_goodbye_and_reads_nothing_is_reset() {
    let house = House::open(Bounds { close: Duration::from_secs(1), ..bounds() });
    let mut client = house.join();
    let mail = || Mail::Broadcast(message(100_000));
    mail_until(&house, mail, || house.allowance().used() > 500_000);
    client.send(&frame(FIN | CLOSE, b""));
    house.await_seen(Seen::Closed(client.number, 3000));
    house.await_connections(0);
    assert_eq!(client.hear_to_the_end().pop(), Some(Heard::Reset));
    drop(client);
    house.end();
}

#[test]
fn the_end_of_the_stream_ends_the_connection() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&text("last"));
    client.end_writing();
    assert_eq!(client.hear(), said("last"));
    assert_eq!(client.hear(), Heard::End);
    house.await_seen(Seen::Closed(client.number, 3000));
    drop(client);
    house.end();
}

#[test]
fn who_breaks_the_protocol_is_told_how_and_not_waited_for() {
    let too_big = frame(FIN | BINARY, &vec![0; 1 << 20]);
    let cases: [(u16, &[u8]); 8] = [
        (1002, &frame(FIN | 0x40 | TEXT, b"reserved bit")),
        (1002, &frame(FIN | 3, b"reserved opcode")),
        (1002, &frame(FIN, b"continuation of nothing")),
        (1002, &frame(FIN | CLOSE, &1005_u16.to_be_bytes())),
        (1002, b"\x81\x02no"),
        (1007, &frame(FIN | TEXT, b"\xff")),
        (1007, &frame(TEXT, b"\xce\xba\xff")),
        (1009, &too_big[..100]),
    ];
    let house = House::open(bounds());
    for (code, input) in cases {
        let mut client = house.join();
        client.send(&[&text("fine"), input].concat());
        assert_eq!(client.hear(), said("fine"));
        assert_eq!(client.hear(), closed(code));
        assert_eq!(client.hear(), Heard::End);
        house.await_seen(Seen::Closed(client.number, code));
    }
    house.end();
}

#[test]
fn a_message_too_big_does_not_keep_the_reason_from_its_sender() {
    let house = House::open(bounds());
    let mut client = house.join();
    let mut writer = client.writer();
    // More than the sockets hold, so that it is still writing when it is closed.
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(&frame(FIN | BINARY, &vec![0; 8 << 20]))
    });
    assert_eq!(client.hear(), closed(1009));
    assert_eq!(client.hear(), Heard::End);
    writing.join().unwrap().unwrap();
    drop(client);
    house.end();
}

#[test]
fn what_is_held_comes_behind_what_is_released_first() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&[text("hold"), text("behind")].concat());
    house.await_seen(Seen::Waiting(client.number));
    house.mail(Mail::Broadcast(message(9)));
    house.await_turn();
    house.mail(Mail::Release(client.number));
    assert_eq!(client.hear(), said("released"));
    assert_eq!(client.hear(), Heard::Binary(vec![b'm'; 9]));
    assert_eq!(client.hear(), said("behind"));
    drop(client);
    house.end();
}

#[test]
fn what_is_released_parts_no_frame_that_is_half_written() {
    let house = House::open(bounds());
    let mut client = house.join();
    // Until its socket is full for good, in the middle of a frame.
    let used = || house.allowance().used();
    let mail_bytes = message(100_000).len();
    let mail = || Mail::Broadcast(message(100_000));
    mail_until(&house, mail, || used() > 300_000 && used() % mail_bytes != 0);
    client.send(&text("hold"));
    house.await_seen(Seen::Waiting(client.number));
    house.mail(Mail::Broadcast(message(9)));
    house.mail(Mail::Release(client.number));
    house.await_turn();
    client.send(&text("done"));
    let mut heard = Vec::new();
    while heard.last() != Some(&said("done")) {
        heard.push(client.hear());
    }
    assert!(heard.contains(&said("released")));
    assert_eq!(heard[heard.len() - 2], Heard::Binary(vec![b'm'; 9]));
    drop(client);
    house.end();
}

#[test]
fn a_held_connection_that_is_closed_gets_what_was_held() {
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&text("hold"));
    house.await_seen(Seen::Waiting(client.number));
    house.mail(Mail::Broadcast(message(9)));
    house.mail(Mail::Close(client.number));
    assert_eq!(client.hear(), Heard::Binary(vec![b'm'; 9]));
    assert_eq!(client.hear(), closed(4001));
    drop(client);
    house.end();
}

#[test]
fn past_the_allowance_the_heaviest_is_closed() {
    let house = House::with_allowance(Bounds { outbox_bytes_max: 64 << 20, ..bounds() }, 3 << 20);
    let mut heavy = house.join();
    let mut light = house.join();
    let (lighter, heavier) = (light.number, heavy.number);
    let mail = || Mail::To(lighter, message(100_000));
    mail_until(&house, mail, || house.allowance().used() > 300_000);
    let lightly = house.allowance().used();
    let mail = || Mail::To(heavier, message(100_000));
    let count = mail_until(&house, mail, || house.has_seen(Seen::Closed(heavier, 3008)));
    assert!(count > 20, "3 MB are allowed, and it was closed after {count} of 100 KB");
    house.await_turn();
    // Its bytes are back before its close is through: all but a half-written frame.
    assert!(house.allowance().used() <= lightly + 100_100);
    light.send(&text("fine"));
    while light.hear() != said("fine") {}
    drop((heavy.hear_to_the_end(), heavy, light));
    house.end();
}

#[test]
fn what_is_half_received_counts_against_the_allowance() {
    let house = House::open(bounds());
    let mut client = house.join();
    let whole = frame(FIN | BINARY, &[1; 50_000]);
    let (front, back) = whole.split_at(30_000);
    client.send(front);
    house.await_that("the half message is counted", || house.allowance().used() >= 29_000);
    client.send(back);
    assert_eq!(client.hear(), Heard::Binary(vec![1; 50_000]));
    house.await_that("its bytes are given back", || house.allowance().used() == 0);
    drop(client);
    house.end();
}

/// A text of a client that compresses well, as the payload of its frame.
fn deflated(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let how = (Effort::default(), Window::Usual);
    Deflater::new().put_frame(Opcode::Text, text.as_bytes(), how, &mut out);
    assert_eq!(out[0], DEFLATED_TEXT);
    out.split_off(if out[1] < 126 { 2 } else { 4 })
}

#[test]
fn what_is_half_received_and_compressed_counts_as_it_came() {
    let house = House::open(bounds());
    let mut client = house.join_deflated();
    let said = "all the same ".repeat(500);
    let payload = deflated(&said);
    let (first, last) = payload.split_at(20);
    client.send(&frame(DEFLATED_TEXT & 0x7f, first));
    client.send(&frame(0x00, &[]));
    // Far from what it inflates to.
    let held = || house.allowance().used();
    house.await_that("the half message is counted", || (20..1000).contains(&held()));
    client.send(&frame(0x80, last));
    assert_eq!(client.hear(), Heard::Text(said));
    house.await_that("idle, it holds nothing of either direction", || held() == 0);
    drop(client);
    house.end();
}

#[test]
fn what_inflates_to_much_does_not_hold_up_a_neighbour() {
    const FLOOD: usize = 2000;
    const ASKED_AT: usize = 500;
    let house = House::open(Bounds { outbox_bytes_max: 64 << 20, ..bounds() });
    let mut flood = house.join_deflated();
    let mut neighbour = house.join();
    house.mail(Mail::Nudge(Nudge {
        from: flood.number,
        at: ASKED_AT,
        socket: neighbour.writer(),
        bytes: text("hello"),
    }));
    // More than a turn's share each: some hundred bytes of it would otherwise be had in one turn.
    let said = "x".repeat(20_000);
    let one = frame(DEFLATED_TEXT, &deflated(&said));
    let mut writer = flood.writer();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(&one.repeat(FLOOD)).unwrap();
    });
    assert_eq!(neighbour.hear(), Heard::Text("hello".to_owned()));
    let Seen::Handled { before } = house.await_kind(|seen| matches!(seen, Seen::Handled { .. }))
    else {
        unreachable!()
    };
    // Four of them are a share; two or three shares may lie between asking and answering.
    assert!((ASKED_AT..ASKED_AT + 20).contains(&before), "answered after {before}");
    for _ in 0..FLOOD {
        assert_eq!(flood.hear(), Heard::Text(said.clone()));
    }
    writing.join().unwrap();
    drop((flood, neighbour));
    house.end();
}

#[test]
fn a_deflated_connection_that_is_closed_is_heard_for_its_close_alone() {
    let house = House::open(bounds());
    let mut client = house.join_deflated();
    house.mail(Mail::Close(client.number));
    assert_eq!(client.hear(), closed(4001));
    // Nobody inflates it any more, so nobody minds what it is.
    client.send(&frame(DEFLATED_TEXT, b"no block"));
    client.send(&frame(0x88, &4001_u16.to_be_bytes()));
    assert_eq!(client.hear(), Heard::End);
    drop(client);
    house.end();
}

#[test]
fn a_stopped_shard_ends_with_its_last_connection() {
    let mut house = House::open(bounds());
    let mut client = house.join();
    house.stop();
    client.send(&text("still served"));
    assert_eq!(client.hear(), said("still served"));
    assert!(!house.has_ended());
    client.send(&frame(FIN | CLOSE, b""));
    house.end();
}

#[test]
fn a_mask_is_undone() {
    // The client's frames above are masked with zeros where that does not matter.
    let house = House::open(bounds());
    let mut client = house.join();
    client.send(&masked(FIN | TEXT, [1, 2, 3, 4], b"masked"));
    assert_eq!(client.hear(), said("masked"));
    drop(client);
    house.end();
}

#[test]
fn what_is_said_for_a_response_waits_in_its_order_and_within_a_bound() {
    let house = House::open(Bounds { outbox_bytes_max: 1000, ..bounds() });
    let client = house.join_as(Framing::Lines, b"what came behind the request");
    let mut lines = BufReader::new(client.writer()).lines().map(Result::unwrap);
    let wait = || {
        house.mail(Mail::Hear(client.number, b"wait"));
        house.await_seen(Seen::Waiting(client.number));
    };
    wait();
    house.mail(Mail::Hear(client.number, b"one\ntwo"));
    house.mail(Mail::Hear(client.number, b" \n"));
    house.mail(Mail::Hear(client.number, b"three\n"));
    house.await_turn();
    assert!(house.allowance().used() > 0, "what waits is drawn from the allowance");
    house.mail(Mail::Resume(client.number));
    let heard: Vec<String> = lines.by_ref().take(4).collect();
    assert_eq!(heard, ["resumed", "one", "two", "three"]);
    house.await_that("all is given back", || house.allowance().used() == 0);
    wait();
    house.mail(Mail::Hear(client.number, &[b'x'; 600]));
    house.mail(Mail::Hear(client.number, &[b'x'; 600]));
    house.await_seen(Seen::Closed(client.number, 3008));
    // There is no close frame, only the end.
    assert_eq!(lines.next(), None);
    // Nothing more is heard for who is gone.
    house.mail(Mail::Hear(client.number, b"late"));
    drop((lines, client));
    house.end();
}

#[test]
fn the_end_of_a_response_is_the_end_of_the_stream_behind_what_was_said() {
    let house = House::open(bounds());
    let client = house.join_as(Framing::Sse, b"");
    house.mail(Mail::Hear(client.number, b"one"));
    house.await_turn();
    house.mail(Mail::Hear(client.number, b"close"));
    house.await_seen(Seen::Closed(client.number, 4000));
    let mut said = String::new();
    client.writer().read_to_string(&mut said).unwrap();
    assert_eq!(said, "data: one\n\n");
    // It is not over before the client says so too.
    assert_eq!(house.await_turn(), 1);
    client.end_writing();
    house.await_connections(0);
    house.end();
}
