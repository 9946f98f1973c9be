use super::*;
use crate::state::sealed::{self, Piece, Unreadable, Version};

const NOW: Now = Now { mono_ms: 10_500, unix_ms: 0 };
const LATER: Now = Now { mono_ms: 99_500, unix_ms: 0 };

#[derive(Debug, PartialEq)]
struct Inner {
    name: Arc<str>,
    size: Option<u32>,
}
crate::record!("an inner thing", Inner { 1 name, 2 size });

#[derive(Debug, PartialEq)]
struct Outer {
    number: u64,
    until_s: u32,
    since_s: u32,
    end_ms: u64,
    list: Vec<Inner>,
    one: Option<Box<Inner>>,
    raw: Vec<u8>,
}
crate::record!("an outer thing", Outer {
    1 number,
    2 until_s as Until,
    3 since_s as Since,
    4 end_ms as UntilMs,
    5 list as Within,
    6 one as Within,
    63 raw as Raw,
});

/// What a later version writes.
#[derive(Debug)]
struct Newer {
    number: u64,
    since_s: u32,
    end_ms: u64,
    added: String,
    more: Vec<Inner>,
}
crate::record!("a newer thing", Newer {
    1 number, 3 since_s as Since, 4 end_ms as UntilMs, 40 added, 41 more as Within,
});

#[derive(Debug, PartialEq)]
struct Shelf {
    label: Option<Box<str>>,
    things: Vec<Inner>,
}
crate::record!("a shelf", Shelf { 1 label, 2 things as Within });

#[cfg(debug_assertions)]
#[test]
fn what_a_later_version_adds_to_every_record_is_passed_over() {
    let shelf = || Shelf {
        label: Some("top".into()),
        things: vec![
            Inner { name: "a".into(), size: Some(1) },
            Inner { name: "b".into(), size: None },
        ],
    };
    let mut out = sealed::begin(Piece::Common, NOW, 64);
    shelf().put_fields(&mut out);
    let piece = sealed::seal(out);
    let grown = sealed::grown(&piece).unwrap();
    assert_eq!(grown[6..8], (Version::HERE.minor + 1).to_le_bytes());
    let added = grown.windows(5).filter(|five| five == b"later").count();
    assert_eq!(added, 3, "to the shelf and to both things");
    let read = sealed::open(&grown, Piece::Common, LATER, Shelf::take_fields);
    assert_eq!(read.unwrap(), shelf());
    sealed::grown(&piece[..7]).unwrap_err();
    sealed::grown(&piece[..piece.len() - 9]).unwrap_err();
}

fn outer() -> Outer {
    let inner = |name: &str, size| Inner { name: name.into(), size };
    Outer {
        number: u64::MAX,
        until_s: 25,
        since_s: 4,
        end_ms: 11_000,
        list: vec![inner("a", Some(0)), inner("", None)],
        one: Some(Box::new(inner("ä", Some(7)))),
        raw: vec![0, 255],
    }
}

fn written<T: Record>(thing: &T) -> Vec<u8> {
    let mut out = Writer::new(Vec::new(), NOW);
    thing.put_fields(&mut out);
    out.into_bytes()
}

fn read<T: Record>(bytes: &[u8], now: Now) -> Result<T, Corrupt> {
    T::take_fields(Fields::new(bytes, 0, T::WHAT, now))
}

#[test]
fn what_is_written_is_read_again_and_times_go_with_the_clock() {
    let bytes = written(&outer());
    assert_eq!(read::<Outer>(&bytes, NOW).unwrap(), outer());
    let later = Outer { until_s: 114, since_s: 93, end_ms: 100_000, ..outer() };
    assert_eq!(read::<Outer>(&bytes, LATER).unwrap(), later);
}

#[test]
fn fields_that_are_not_known_are_passed_over_unless_they_are_needed() {
    let inner = Inner { name: "x".into(), size: None };
    let newer = Newer { number: 3, since_s: 1, end_ms: 2, added: "new".into(), more: vec![inner] };
    assert_eq!(read::<Outer>(&written(&newer), NOW).unwrap().number, 3);
    let mut out = Writer::new(written(&outer()), NOW);
    out.needed(50, |out| out.number(1, 1));
    let refused = read::<Outer>(&out.into_bytes(), NOW).unwrap_err();
    assert!(refused.to_string().contains("field 50 is not known here, and must be"), "{refused}");
}

#[test]
fn a_missing_field_is_named() {
    let refused = read::<Outer>(&[], NOW).unwrap_err();
    assert_eq!(refused.to_string(), "byte 0, in an outer thing: field 3 (since_s) is missing");
}

#[test]
fn what_is_cut_or_changed_is_refused_or_read_and_never_a_panic() {
    let whole = written(&outer());
    for end in 0..whole.len() {
        read::<Outer>(&whole[..end], NOW).ok();
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            read::<Outer>(&changed, NOW).ok();
        }
    }
    let endless = [0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert!(read::<Outer>(&endless, NOW).unwrap_err().why.contains("does not end"));
    assert!(read::<Outer>(&[0x01], NOW).unwrap_err().why.contains("without a tag"));
}

fn piece() -> Vec<u8> {
    let mut out = sealed::begin(Piece::Shard, NOW, 0);
    outer().put_fields(&mut out);
    sealed::seal(out)
}

fn open(bytes: &[u8], piece: Piece) -> Result<Outer, Unreadable> {
    sealed::open(bytes, piece, NOW, Outer::take_fields)
}

#[test]
fn a_piece_is_whole_or_refused() {
    let whole = piece();
    assert_eq!(open(&whole, Piece::Shard).unwrap(), outer());
    assert!(open(&whole, Piece::Common).unwrap_err().to_string().contains("kind 4"));
    for end in 0..whole.len() {
        assert!(open(&whole[..end], Piece::Shard).is_err(), "cut at {end}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        let minor = (6..8).contains(&at);
        assert!(open(&changed, Piece::Shard).is_err(), "changed at {at}, minor: {minor}");
    }
}

#[test]
fn a_higher_minor_version_is_read_and_a_higher_major_one_refused_with_words() {
    let mut newer = piece();
    newer.truncate(newer.len() - 8);
    newer[6] = 9;
    let newer = sealed::seal(Writer::new(newer, NOW));
    assert_eq!(open(&newer, Piece::Shard).unwrap(), outer());
    let mut other = piece();
    other[5] = Version::HERE.major + 1;
    let refused = open(&other, Piece::Shard).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the state of a shard was written in version 2.1 of the state, and this program reads \
         1.x: it cannot take over from that one; stop it and start this one instead"
    );
}
