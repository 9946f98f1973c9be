//! The application's word that a user may track some keys.

use aws_lc_rs::{digest, hmac};

use crate::config::SharedPoll;

/// Seconds that clocks may differ, and a command be under way.
const GRACE_S: i64 = 5;

/// Why keys may not be tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// It was good once.
    Expired,
    /// What is wrong.
    Invalid(&'static str),
}

/// Who wants to track what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub user: &'a str,
    pub channel: &'a str,
    /// In the order in which they were signed.
    pub keys: &'a [&'a str],
}

/// The signature for these keys, from `iat` to `exp` in Unix seconds (0: for ever).
pub(crate) fn sign(secret: &[u8], claim: Claim<'_>, (iat, exp): (i64, i64)) -> String {
    let payload = payload(claim, (&iat.to_string(), &exp.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, &payload);
    format!("{iat}:{exp}:{}", hex(tag.as_ref()))
}

/// Whether `signature` allows it at `now_s`; then when that ends, in Unix seconds.
///
/// # Errors
/// It does not.
pub(crate) fn check(
    settings: &SharedPoll,
    signature: &str,
    claim: Claim<'_>,
    now_s: i64,
) -> Result<Option<i64>, Unsigned> {
    let parts =
        signature.split_once(':').and_then(|(iat, rest)| Some((iat, rest.split_once(':')?)));
    let Some((iat, (exp, mac))) = parts else {
        return Err(Unsigned::Invalid("is not of the form iat:exp:hmac"));
    };
    let (Ok(iat_s), Ok(exp_s)) = (iat.parse::<i64>(), exp.parse::<i64>()) else {
        return Err(Unsigned::Invalid("has times that are no numbers"));
    };
    let Some(mac) = unhex(mac) else {
        return Err(Unsigned::Invalid("has an hmac that is not hex"));
    };
    let payload = payload(claim, (iat, exp));
    let signed_with = |secret: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        !secret.is_empty() && hmac::verify(&key, &payload, &mac).is_ok()
    };
    let until = settings.hmac_previous_secret_key_valid_until;
    let previous_counts = until == 0 || iat_s <= until;
    let is_signed = signed_with(&settings.hmac_secret_key)
        || (previous_counts && signed_with(&settings.hmac_previous_secret_key));
    if !is_signed {
        return Err(Unsigned::Invalid(
            "does not fit: another key than shared_poll.hmac_secret_key, or other keys, another \
             order, channel or user than it was made for",
        ));
    }
    match exp_s {
        0 => Ok(None),
        exp_s if exp_s.saturating_add(GRACE_S) < now_s => Err(Unsigned::Expired),
        exp_s => Ok(Some(exp_s)),
    }
}

/// What is signed: its parts with zeros between, the keys as one digest.
fn payload(Claim { user, channel, keys }: Claim<'_>, (iat, exp): (&str, &str)) -> Vec<u8> {
    let mut of_keys = digest::Context::new(&digest::SHA256);
    for (at, key) in keys.iter().enumerate() {
        if at > 0 {
            of_keys.update(&[0]);
        }
        of_keys.update(key.as_bytes());
    }
    let of_keys = hex(of_keys.finish().as_ref());
    [iat, exp, user, channel, &of_keys].join("\0").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Of 32 bytes, written in small letters as applications do, or in large ones.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.contains('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn settings() -> SharedPoll {
        SharedPoll {
            hmac_secret_key: "new".to_owned(),
            hmac_previous_secret_key: "old".to_owned(),
            ..SharedPoll::default()
        }
    }

    fn claim<'a>(user: &'a str, channel: &'a str, keys: &'a [&'a str]) -> Claim<'a> {
        Claim { user, channel, keys }
    }

    #[test]
    fn is_what_other_programs_make() {
        // python3: hmac.new(b"secret", b"\0".join([b"1", b"2", b"u", b"c", sha256(b"a\0b").hexdigest()]))
        assert_eq!(
            sign(b"secret", claim("u", "c", &["a", "b"]), (1, 2)),
            "1:2:96b257a6ee2132ab8f64f2aaf1fc2c655c4686e01382e315a315b5570dd9b905"
        );
    }

    #[test]
    fn fits_these_keys_in_this_order_for_this_user_and_channel_only() {
        let signature = sign(b"new", claim("u", "c", &["a", "b"]), (NOW, NOW + 60));
        let check = |claim| check(&settings(), &signature, claim, NOW);
        assert_eq!(check(claim("u", "c", &["a", "b"])), Ok(Some(NOW + 60)));
        for wrong in [
            claim("u", "c", &["b", "a"]),
            claim("u", "c", &["a"]),
            claim("u", "c", &["a", "b", "c"]),
            claim("u", "c", &[]),
            claim("v", "c", &["a", "b"]),
            claim("", "c", &["a", "b"]),
            claim("u", "d", &["a", "b"]),
        ] {
            assert!(matches!(check(wrong), Err(Unsigned::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn is_over_when_its_time_and_five_seconds_are() {
        let claim = claim("u", "c", &["a"]);
        let at = |exp| check(&settings(), &sign(b"new", claim, (1, exp)), claim, NOW);
        assert_eq!(at(0), Ok(None));
        assert_eq!(at(NOW - 5), Ok(Some(NOW - 5)));
        assert_eq!(at(NOW - 6), Err(Unsigned::Expired));
        assert_eq!(at(i64::MAX), Ok(Some(i64::MAX)));
        assert_eq!(at(-1), Err(Unsigned::Expired));
    }

    #[test]
    fn an_older_key_counts_as_long_as_it_should() {
        let claim = claim("", "c", &["a"]);
        let at = |until, iat| {
            let settings = SharedPoll { hmac_previous_secret_key_valid_until: until, ..settings() };
            check(&settings, &sign(b"old", claim, (iat, 0)), claim, NOW).is_ok()
        };
        assert!(at(0, NOW) && at(NOW, NOW) && !at(NOW - 1, NOW));
        let none = SharedPoll { hmac_previous_secret_key: String::new(), ..settings() };
        assert!(check(&none, &sign(b"", claim, (NOW, 0)), claim, NOW).is_err());
    }

    #[test]
    fn what_is_none_is_told_as_that() {
        let claim = claim("u", "c", &["a"]);
        let long = format!("1:0:{}", "a".repeat(65));
        let plus = format!("1:0:{}", "+a".repeat(32));
        for text in ["", ":", "::", "1:2", "x:0:00", "1:x:00", "1:0:zz", &long, &plus, "1:0:é"] {
            let checked = check(&settings(), text, claim, NOW);
            assert!(matches!(checked, Err(Unsigned::Invalid(_))), "{text}");
        }
        // Another time than was signed.
        let signature =
            sign(b"new", claim, (NOW, NOW - 60)).replacen(&(NOW - 60).to_string(), "0", 1);
        assert!(matches!(check(&settings(), &signature, claim, NOW), Err(Unsigned::Invalid(_))));
    }
}
