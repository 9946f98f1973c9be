//! Times as people say them; UTC, since nothing here knows the operator's clock.

const DAY_S: i64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `14:01` on the same day, `3 Nov` in the same half year, else `3 Nov 2024`.
#[must_use]
pub(crate) fn when(time_s: i64, now_s: i64) -> String {
    let (year, month, day) = civil(time_s.div_euclid(DAY_S));
    let name = MONTHS[usize::try_from(month - 1).unwrap_or(0).min(11)];
    if time_s.div_euclid(DAY_S) == now_s.div_euclid(DAY_S) {
        let second = time_s.rem_euclid(DAY_S);
        return format!("{:02}:{:02} UTC", second / 3600, second % 3600 / 60);
    }
    if (now_s - time_s).abs() < DAY_S * 180 {
        return format!("{day} {name}");
    }
    format!("{day} {name} {year}")
}

/// The date of a day since 1970, after Howard Hinnant's counting of 400 years from a first of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_times_are_said_short() {
        let now = 1_795_888_800; // 28 Nov 2026 18:00
        assert_eq!(when(now - 3600, now), "17:00 UTC");
        assert_eq!(when(now - 25 * DAY_S, now), "3 Nov");
        assert_eq!(when(951_782_400, now), "29 Feb 2000");
        assert_eq!(when(0, now), "1 Jan 1970");
    }
}
