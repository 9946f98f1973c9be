//! Patches are read back by a reader of their format's description, whatever they are made of.

use proptest::prelude::*;

use super::*;

/// Makes the target, as the format's description says.
pub(super) fn apply(source: &[u8], patch: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = patch;
    let number = |rest: &mut &[u8]| {
        let digits = rest.iter().take_while(|byte| DIGITS.contains(byte)).count();
        if digits == 0 {
            return Err(format!("no number, but {rest:?}"));
        }
        let value = rest[..digits].iter().fold(0_u64, |value, digit| {
            let digit = DIGITS.iter().position(|each| each == digit).unwrap();
            value << 6 | digit as u64
        });
        *rest = &rest[digits..];
        let (mark, behind) = rest.split_first().ok_or("it ends behind a number")?;
        *rest = behind;
        Ok((usize::try_from(value).unwrap(), *mark))
    };
    let (len, b'\n') = number(&mut rest)? else { return Err("no length".into()) };
    let mut target = Vec::new();
    loop {
        match number(&mut rest)? {
            (copied, b'@') => {
                let (from, b',') = number(&mut rest)? else { return Err("no offset".into()) };
                target.extend(source.get(from..from + copied).ok_or("beyond the source")?);
            }
            (added, b':') => {
                target.extend(rest.get(..added).ok_or("beyond the patch")?);
                rest = &rest[added..];
            }
            (said, b';') => {
                let words = target.chunks(4).map(|word| {
                    let mut filled = [0; 4];
                    filled[..word.len()].copy_from_slice(word);
                    u32::from_be_bytes(filled)
                });
                let is = words.fold(0_u32, u32::wrapping_add);
                if u64::from(is) != said as u64 || target.len() != len || !rest.is_empty() {
                    return Err(format!("{} of {len} bytes, sum {is} not {said}", target.len()));
                }
                return Ok(target);
            }
            (_, other) => return Err(format!("no operator: {other}")),
        }
    }
}

/// That the patch, if there is one, makes the target; how long it is.
fn check(source: &[u8], target: &[u8]) -> Option<usize> {
    let patch = patch(source, target)?;
    assert_eq!(apply(source, &patch).as_deref(), Ok(target));
    assert!(patch.len() < target.len(), "it is worth its while");
    assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&patch).is_ok());
    Some(patch.len())
}

#[test]
fn a_patch_is_what_the_format_says() {
    let source = b"{\"name\":\"Anna\",\"score\":117,\"place\":\"Graz\"}";
    let target = b"{\"name\":\"Anna\",\"score\":121,\"place\":\"Graz\"}";
    let patch = patch(source, target).unwrap();
    assert_eq!(std::str::from_utf8(&patch).unwrap(), "f\nO@0,2:21G@Q,2r7~sk;");
}

#[test]
fn numbers_are_written_in_digits_of_six_bits() {
    let written = |number| {
        let mut patch = Patch::new(b"", b"");
        patch.out.clear();
        patch.number(number);
        String::from_utf8(patch.out).unwrap()
    };
    assert_eq!([0, 9, 10, 63, 64, 4095].map(written), ["0", "9", "A", "~", "10", "~~"]);
    assert_eq!(written(u32::MAX as usize), "3~~~~~");
}

#[test]
fn what_is_not_shorter_is_no_patch() {
    assert_eq!(patch(b"", b""), None);
    assert_eq!(patch(b"abc", b"abd"), None);
    assert_eq!(patch(&[7; 100], b"something else that is not in there"), None);
    assert_eq!(patch(b"", &[7; 10_000]), None);
}

#[test]
fn a_document_that_changes_in_one_field_costs_little() {
    let document = |score: u32| -> Vec<u8> {
        let rows: Vec<String> = (0..40)
            .map(|row| {
                let value = if row == 23 { score } else { row * 7919 };
                format!(
                    "{{\"id\":{row},\"value\":{value},\"unit\":\"km/h\",\"where\":\"row {row}\"}}"
                )
            })
            .collect();
        format!("[{}]", rows.join(",")).into_bytes()
    };
    let (one, other) = (document(100_000), document(123_456));
    assert!(one.len() > 2_000, "{}", one.len());
    assert!(check(&one, &other).unwrap() < 40);
    // What moved is found, too.
    let mut turned = other.clone();
    turned.rotate_left(1_000);
    assert!(check(&one, &turned).unwrap() < 100);
}

#[test]
fn nothing_is_cut_within_a_character() {
    let one = "жёлтый 🐝 ".repeat(40);
    for (from, to) in [("🐝", "🐞"), ("ж", "з"), ("ё", "е"), ("й", "и")] {
        let other = one.replacen(from, to, 3);
        assert!(check(one.as_bytes(), other.as_bytes()).is_some());
    }
}

#[test]
fn bytes_that_repeat_are_not_compared_again_and_again() {
    // Without a bound each of these took minutes: every place looks like every other, nearly.
    let len = 1 << 19;
    let zeros = vec![0_u8; len];
    let mut spoiled = zeros.clone();
    spoiled.iter_mut().step_by(61).for_each(|byte| *byte = 1);
    let saw: Vec<u8> = (0..len).map(|at| u8::try_from(at % 17).unwrap()).collect();
    let mut torn = saw.clone();
    torn.iter_mut().step_by(33).for_each(|byte| *byte = 200);
    let all = [&zeros, &spoiled, &saw, &torn];
    for source in all {
        for target in all {
            check(source, target);
            check(source, &[b"x", target.as_slice(), b"y"].concat());
        }
    }
}

/// Bytes of a small alphabet, so that much is alike.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(0_u8..3, 0..300),
        prop::collection::vec(any::<u8>(), 0..300),
        (prop::collection::vec(any::<u8>(), 1..40), 1_usize..40)
            .prop_map(|(part, times)| part.repeat(times)),
        "[a-bж🐝]{0,120}".prop_map(String::into_bytes),
    ]
}

/// What becomes of a source by a few changes.
fn changed(source: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let edit = (any::<prop::sample::Index>(), 0_usize..40, bytes(), 0_usize..3);
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut target = source.clone();
        for (at, len, new, kind) in edits {
            let at = at.index(target.len() + 1);
            let end = (at + len).min(target.len());
            match kind {
                0 => drop(target.splice(at..end, new)),
                1 => drop(target.drain(at..end)),
                _ => {
                    let moved: Vec<u8> = target.drain(at..end).collect();
                    target.extend(moved);
                }
            }
        }
        (source.clone(), target)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_patch_makes_its_target((source, target) in bytes().prop_flat_map(changed)) {
        check(&source, &target);
        check(&target, &source);
    }

    #[test]
    fn of_whatever(source in bytes(), target in bytes()) {
        check(&source, &target);
    }
}

/// How long patches take: `cargo test --release -p throng-wire --lib fossil::tests::speed -- --ignored
/// --nocapture`.
#[test]
#[ignore = "it measures"]
fn speed() {
    let time = |name: &str, source: &[u8], target: &[u8]| {
        let began = std::time::Instant::now();
        let mut times = 0_u32;
        let mut bytes = None;
        while times < 3 || began.elapsed().as_millis() < 300 {
            bytes = patch(source, target).map(|patch| patch.len());
            times += 1;
        }
        let each = began.elapsed() / times;
        println!("{name}: {} bytes, as a patch {bytes:?}, {each:?}", target.len());
    };
    let document = |rows: usize, score: usize| -> Vec<u8> {
        let rows: Vec<String> = (0..rows)
            .map(|row| {
                let value = if row % 40 == 23 { score + row } else { row * 7919 };
                format!(
                    "{{\"id\":{row},\"value\":{value},\"unit\":\"km/h\",\"where\":\"row {row}\"}}"
                )
            })
            .collect();
        format!("[{}]", rows.join(",")).into_bytes()
    };
    time("2 KB, one field", &document(40, 100_000), &document(40, 123_456));
    time("64 KB, each 40th row", &document(1_200, 100_000), &document(1_200, 123_456));
    time("64 KB, nothing in common", &document(1_200, 1), &"zy".repeat(32_000).into_bytes());
    let len = 1 << 20;
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut turned = noise.clone();
    turned.reverse();
    time("1 MB of noise", &noise, &turned);
    let saw: Vec<u8> = (0..len).map(|at| u8::try_from(at % 17).unwrap()).collect();
    let mut torn = saw.clone();
    torn.iter_mut().step_by(33).for_each(|byte| *byte = 200);
    time("1 MB that repeats, torn", &saw, &torn);
    // All blocks have one hash's chain: the same 16 bytes, and every place nearly fits.
    let zeros = vec![0_u8; len];
    let mut spoiled = zeros.clone();
    spoiled.iter_mut().step_by(18).for_each(|byte| *byte = 1);
    time("1 MB of zeros, each 18th spoiled", &zeros, &spoiled);
    time("the same the other way", &spoiled, &zeros);
}
