//! Durations and sizes as people write them.

use std::time::Duration;

/// Units of Go's durations, in nanoseconds; a longer name stands before one it ends with.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `300s`, `1h30m`, `1.5h`, `100ms`, `0`; nothing for what is no duration, or negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = &rest[..digits];
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..unit_len])?;
        rest = &rest[unit_len..];
        total = total.checked_add(scaled(number, *unit)?)?;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// A decimal number times a unit, in whole nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let whole: u128 = parse(whole)?;
    let fraction = &fraction[..fraction.len().min(18)];
    let part = parse(fraction)? * unit / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(part)
}

/// `1h30m0s` as `1h30m`: the shortest form that [`parse_duration`] reads back.
pub fn show_duration(duration: Duration) -> String {
    if duration.subsec_nanos() > 0 {
        return match duration.as_nanos() {
            nanos if nanos % 1_000_000 == 0 => format!("{}ms", nanos / 1_000_000),
            nanos => format!("{nanos}ns"),
        };
    }
    let seconds = duration.as_secs();
    let mut text = String::new();
    for (name, unit) in [("h", 3600), ("m", 60), ("s", 1)] {
        let rest = if unit == 3600 { seconds } else { seconds % (unit * 60) };
        if rest / unit > 0 {
            text.push_str(&format!("{}{name}", rest / unit));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `1048576`, `256MB`, `64 MiB`; nothing for what is no size.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("300s"), Some(300.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds(".5s"), Some(0.5));
        assert_eq!(seconds("100ms"), Some(0.1));
        assert_eq!(seconds("1m0.5s"), Some(60.5));
        assert_eq!(seconds("0"), Some(0.0));
        for bad in ["", "25", "s", "1x", "-1s", "1s2", ".s", "1..2s", "99999999999999h", "1 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["25s", "1h30m", "720h", "100ms", "0s", "1m30s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("256MB"), Some(256_000_000));
        assert_eq!(parse_bytes("64 MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1GiB"), Some(1 << 30));
        for bad in ["", "MB", "-1", "1.5GB", "9x", "99999999999GiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
