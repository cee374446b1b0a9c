//! How long to wait before a chunk is sent again.

use std::time::{Duration, SystemTime};

use actix_web::http::header::HttpDate;
use ring::rand::{SecureRandom, SystemRandom};

use crate::config;

/// Exponential, with jitter and a ceiling.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    greatest: Duration,
    retry_after_greatest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(settings: &config::Push) -> Self {
        Self {
            first: Duration::from_millis(u64::from(settings.backoff_first_ms)),
            greatest: Duration::from_millis(u64::from(settings.backoff_greatest_ms)),
            retry_after_greatest: Duration::from_secs(u64::from(settings.retry_after_greatest_s)),
            failures: 0,
        }
    }

    /// The KMS has accepted something.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `retry_after` is what the KMS asked for; at least that long, within the
    /// greatest that is allowed.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.greatest);
        self.failures = self.failures.saturating_add(1);
        // Half of it is left to chance, so that streams that failed together do not come back together.
        let wait = doubled / 2 + doubled.mul_f64(0.5 * chance());
        wait.max(retry_after.unwrap_or_default().min(self.retry_after_greatest))
    }
}

/// From 0 to 1. Without randomness from the system 1, the longest wait.
fn chance() -> f64 {
    let mut octets = [0; 4];
    match SystemRandom::new().fill(&mut octets) {
        Ok(()) => f64::from(u32::from_ne_bytes(octets)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

/// Reads a Retry-After field: seconds or a date (RFC 9110, 10.2.3). `None` when it is neither.
pub(super) fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        // More digits than fit are a long time too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = SystemTime::from(text.parse::<HttpDate>().ok()?);
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Backoff, retry_after};

    fn backoff() -> Backoff {
        Backoff {
            first: Duration::from_millis(100),
            greatest: Duration::from_secs(10),
            retry_after_greatest: Duration::from_secs(60),
            failures: 0,
        }
    }

    #[test]
    fn waits_grow_to_the_ceiling_and_begin_anew_after_success() {
        let mut backoff = backoff();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = backoff.next(None).as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
        }
        for _ in 0..100 {
            assert!(backoff.next(None) <= Duration::from_secs(10));
        }
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(100));
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<_> = (0..20).map(|_| backoff().next(None)).collect();
        assert!(waits.len() > 10);
    }

    #[test]
    fn retry_after_is_honoured_but_not_for_ever() {
        assert_eq!(backoff().next(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff().next(Some(Duration::from_secs(1 << 40))), Duration::from_secs(60));
        assert!(backoff().next(Some(Duration::ZERO)) >= Duration::from_millis(50));
    }

    #[test]
    fn retry_after_is_read_in_every_form_of_the_standard() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let wait = |text: &str| retry_after(text.as_bytes(), now);
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999999"), Some(Duration::from_secs(u64::from(u32::MAX))));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(wait("Sun Nov  6 08:49:37 1994"), Some(Duration::from_secs(90)));
        assert_eq!(wait("Sat, 06 Nov 1993 08:49:37 GMT"), Some(Duration::ZERO), "a date gone by");
        for nonsense in ["", "-1", "1.5", "soon", "\u{fc}"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }
}
