//! Numbers and times for people.

use std::time::Duration;

use x509_cert::der::DateTime;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A time in UTC; milliseconds since 1970.
pub(crate) fn time(unix_ms: u64) -> String {
    let seconds = Duration::from_secs(unix_ms / 1_000);
    DateTime::from_unix_duration(seconds)
        .map_or_else(|_| format!("{} s since 1970", seconds.as_secs()), |t| t.to_string())
}

/// A number with three digits and a unit with a prefix: 4000123 and "bit/s" are "4.00 Mbit/s".
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn in_words(value: u64, unit: &str) -> String {
    let mut shown = value as f64;
    let mut prefixes = ["", "k", "M", "G", "T", "P", "E"].into_iter();
    let mut prefix = prefixes.next().unwrap_or_default();
    while shown >= 999.5 {
        match prefixes.next() {
            Some(next) => {
                prefix = next;
                shown /= 1_000.0;
            }
            None => break,
        }
    }
    let digits = match shown {
        _ if prefix.is_empty() => 0,
        shown if shown < 9.995 => 2,
        shown if shown < 99.95 => 1,
        _ => 0,
    };
    format!("{shown:.digits$} {prefix}{unit}")
}

/// The course of values, the greatest as a whole block and 0 as the least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
pub(crate) fn course(values: impl IntoIterator<Item = f64> + Clone) -> String {
    let most = values.clone().into_iter().fold(0.0, f64::max);
    values
        .into_iter()
        .map(|value| {
            let part = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
            BARS.get((part * 7.0).round() as usize).copied().unwrap_or(' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{course, in_words, time};

    #[test]
    fn a_number_keeps_three_digits_and_never_shows_a_thousand_of_a_unit() {
        for (value, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (4_000_123, "4.00 MB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(in_words(value, "B"), shown);
        }
    }

    #[test]
    fn a_course_shows_zero_as_the_least_and_the_greatest_as_a_whole_block() {
        assert_eq!(course([0.0, 1.0, 2.0, 4.0]), "▁▃▅█");
        assert_eq!(course([0.0, 0.0]), "▁▁", "nothing is divided by nothing");
        assert_eq!(course([f64::NAN, 1.0]).chars().count(), 2);
    }

    #[test]
    fn a_time_is_told_in_utc() {
        assert_eq!(time(1_795_783_509_123), "2026-11-27T12:45:09Z");
        assert!(time(u64::MAX).contains("since 1970"));
    }
}
