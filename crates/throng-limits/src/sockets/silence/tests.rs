use super::*;

fn spoken(sent_ms: u32, received_ms: u32) -> Spoken {
    Spoken { sent_ms, received_ms, heard_ms: received_ms, unacked: 0, bytes_received: Some(1) }
}

#[test]
fn silence_is_silence_in_both_directions() {
    let sample =
        [spoken(5, 700_000), spoken(700_000, 5), spoken(90_000, 70_000), spoken(700_000, 900_000)];
    let silence = silence(&sample, 400);
    assert_eq!((silence.sample, silence.of), (4, 400));
    assert_eq!((silence.idle, silence.long), (2, 1));
    assert_eq!(silence.share(silence.idle), 200);
    assert_eq!(silence.median_ms, 70_000);
}

#[test]
fn a_peer_that_is_gone_is_told_from_one_that_is_quiet() {
    let gone = Spoken { unacked: 2, heard_ms: 60_000, ..spoken(60_000, 60_000) };
    let busy = Spoken { unacked: 2, heard_ms: 10, ..spoken(1, 60_000) };
    let mute = Spoken { bytes_received: Some(0), ..spoken(60_000, 60_000) };
    let unknown = Spoken { bytes_received: None, ..spoken(60_000, 60_000) };
    let silence = silence(&[gone, busy, mute, unknown], 4);
    assert_eq!((silence.lost, silence.mute), (1, 1));
}

#[test]
fn nobody_is_silent_where_nobody_is() {
    let silence = silence(&[], 0);
    assert_eq!(silence, Silence::default());
    assert_eq!(silence.share(5), 0);
}

#[test]
fn what_a_copy_keeps_is_read_again() {
    let samples = [
        Sample { inode: 7, state: State::Established, spoken: spoken(1, 2) },
        Sample {
            inode: 8,
            state: State::CloseWait,
            spoken: Spoken { bytes_received: None, ..spoken(3, 4) },
        },
    ];
    let found: Vec<_> = kept_rows(&kept(&samples)).collect();
    assert_eq!(found, samples);
    assert_eq!(kept_rows("heading\n1 99 0 0 0 0 0\nx\n").count(), 0);
}
