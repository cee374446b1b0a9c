//! What is counted of TLS, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Figures {
    /// Handshakes that were completed, in both directions.
    pub handshakes: Counter,
    /// Those of them with the hybrid key exchange.
    pub hybrid: Counter,
    /// Handshakes that failed or were refused, in both directions.
    pub failed: Counter,
    /// Requests refused because their certificate stands for no KMS.
    pub strangers: Counter,
    /// Times that certificates were read again and taken.
    pub reloads: Counter,
    /// Times that certificates were read again and the old ones were kept.
    pub reloads_failed: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps what a stranger can cause from filling the log.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<(Option<Instant>, u64)>);

/// Least time between two lines.
const BETWEEN: Duration = Duration::from_secs(5);

impl Throttle {
    /// Whether a line may be written now; if so, how many were left out before it, as an ending of it.
    pub(crate) fn may_say(&self, now: Instant) -> Option<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < BETWEEN) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(match std::mem::take(left_out) {
            0 => String::new(),
            more => format!(" ({more} more such lines were left out)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_does_not_fill_the_log() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let lines: Vec<String> =
            (0..1_000).filter_map(|i| throttle.may_say(start + Duration::from_millis(10 * i))).collect();
        assert_eq!(lines, ["", " (499 more such lines were left out)"]);
    }
}
