//! Numbers as people read them.

pub use crate::number::thousands as grouped;

/// A limit: as it is typed, and `unlimited` where it is none.
#[must_use]
pub fn limit(number: u64) -> String {
    // LONG_MAX is how the kernel and systemd write that there is none.
    if number >= u64::MAX / 2 { "unlimited".to_owned() } else { number.to_string() }
}

/// `1 connection`, `1,017 connections`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// `512 bytes`, `12 KiB`, `3 MiB`, `2.5 GiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    match number {
        0..1024 => counted(number, "byte"),
        1024..1_048_576 => format!("{} KiB", number.div_ceil(1024)),
        1_048_576..1_073_741_824 => format!("{} MiB", number.div_ceil(1 << 20)),
        _ => {
            let tenths = number / ((1 << 30) / 10);
            format!("{}.{} GiB", grouped(tenths / 10), tenths % 10)
        }
    }
}

/// `90 s`, `12 min`, `3 h`, `4 days`.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", grouped(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1017), "1,017");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(limit(65_535), "65535");
        assert_eq!(limit(9_223_372_036_854_775_807), "unlimited");
        assert_eq!(counted(1, "connection"), "1 connection");
        assert_eq!(counted(1500, "connection"), "1,500 connections");
        assert_eq!(
            (bytes(3), bytes(4097), bytes(3 << 20)),
            ("3 bytes".into(), "5 KiB".into(), "3 MiB".into())
        );
        assert_eq!(bytes(5 << 29), "2.5 GiB");
        assert_eq!(
            (span(30), span(600), span(90_000)),
            ("30 s".into(), "10 min".into(), "25 h".into())
        );
        assert_eq!(span(400_000), "4 days");
    }
}
