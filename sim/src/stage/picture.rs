//! What is known of the running system, from the lines that its processes print.

use std::collections::HashMap;

use serde::Deserialize;

/// Samples that wait for the other end.
const MOST_SAMPLES: usize = 20_000;

/// How far one stream has come at one KMS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Each {
    pub(crate) stream: String,
    pub(crate) chunks: u64,
    pub(crate) notices: u64,
    pub(crate) receives: bool,
}

/// A status line of a KMS; see `qkd-sim kms --json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Kms {
    /// Milliseconds since 1970.
    pub(crate) t: u64,
    pub(crate) chunks: u64,
    pub(crate) octets: u64,
    pub(crate) duplicates: u64,
    pub(crate) missing: u64,
    pub(crate) refused: u64,
    pub(crate) violations: u64,
    pub(crate) receiving: u64,
    pub(crate) with_key: u64,
    pub(crate) bit_per_s: f64,
    pub(crate) trouble: Option<String>,
    samples: Vec<(String, u64, String)>,
    pub(crate) each: Vec<Each>,
}

/// What the pair says of a card.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Card {
    pub(crate) link: String,
    pub(crate) qber_ppm: u32,
    pub(crate) secret_key_rate: u64,
    pub(crate) blocks_announced: u64,
    pub(crate) bytes_announced: u64,
    pub(crate) retained_bytes: u64,
    pub(crate) dropped_overflow: u64,
    pub(crate) dropped_overflow_bytes: u64,
}

#[derive(Deserialize)]
struct Pair {
    seconds: f64,
    cards: [Card; 2],
}

/// Octets delivered and distilled until a moment, each with its own clock's time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    delivered: [(f64, u64); 2],
    distilled: [(f64, u64); 2],
}

/// The system at a moment.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) kms: [Kms; 2],
    pub(crate) cards: [Card; 2],
    pair_seconds: f64,
    waiting: [HashMap<(String, u64), String>; 2],
    /// Sampled chunks that came at both ends, and those of them that are the same.
    pub(crate) sampled: u64,
    pub(crate) equal: u64,
}

impl Picture {
    /// Takes a line of the pair; others than its status are passed over.
    pub(crate) fn pair_line(&mut self, line: &str) {
        if let Ok(pair) = serde_json::from_str::<Pair>(line) {
            self.cards = pair.cards;
            self.pair_seconds = pair.seconds;
        }
    }

    /// Takes a line of the KMS at `end`; others than its status are passed over.
    pub(crate) fn kms_line(&mut self, end: usize, line: &str) {
        let Ok(mut status) = serde_json::from_str::<Kms>(line) else { return };
        let samples = std::mem::take(&mut status.samples);
        if let Some(kms) = self.kms.get_mut(end) {
            *kms = status;
        }
        for (stream, position, digest) in samples {
            let [a, b] = &mut self.waiting;
            let (own, other) = if end == 0 { (a, b) } else { (b, a) };
            let name = (stream, position);
            if let Some(theirs) = other.remove(&name) {
                self.sampled += 1;
                self.equal += u64::from(theirs == digest);
            } else if own.len() < MOST_SAMPLES {
                own.insert(name, digest);
            }
        }
    }

    /// How much was delivered and distilled until now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            delivered: self.kms.each_ref().map(|kms| (kms.t as f64 / 1000.0, kms.octets)),
            distilled: self.cards.each_ref().map(|card| (self.pair_seconds, card.bytes_announced)),
        }
    }

    /// Rate delivered at each end since `mark`, as a share in per cent of the rate at which its card distilled.
    pub(crate) fn shares(&self, mark: &Mark) -> [f64; 2] {
        let now = self.mark();
        let rate = |(from, before): (f64, u64), (to, after): (f64, u64)| {
            after.saturating_sub(before) as f64 / (to - from).max(f64::MIN_POSITIVE)
        };
        let mut shares = [0.0; 2];
        let delivered = mark.delivered.into_iter().zip(now.delivered);
        let distilled = mark.distilled.into_iter().zip(now.distilled);
        for (share, ((from, to), (first, last))) in shares.iter_mut().zip(delivered.zip(distilled)) {
            let all = rate(first, last);
            if all > 0.0 {
                *share = 100.0 * rate(from, to) / all;
            }
        }
        shares
    }

    /// Chunks at each end.
    pub(crate) fn chunks(&self) -> [u64; 2] {
        self.kms.each_ref().map(|kms| kms.chunks)
    }

    /// Error rate of the link in per cent.
    pub(crate) fn qber_percent(&self) -> f64 {
        let [a, b] = self.cards.each_ref().map(|card| f64::from(card.qber_ppm));
        a.max(b) / 10_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_depends_on_when_the_status_lines_come_is_caught() {
        let mut picture = Picture::default();
        let pair = |seconds: f64, bytes: u64| {
            let card = format!(r#"{{"bytes_announced":{bytes}}}"#);
            format!(r#"{{"seconds":{seconds},"cards":[{card},{card}]}}"#)
        };
        let kms = |t: u64, octets: u64| format!(r#"{{"event":"status","t":{t},"octets":{octets}}}"#);
        picture.pair_line(&pair(5.0, 70_000));
        (0..2).for_each(|end| picture.kms_line(end, &kms(1_000_700, 300)));
        let mark = picture.mark();
        picture.pair_line(&pair(15.0, 170_000));
        picture.kms_line(0, &kms(1_009_700, 300 + 90_000));
        picture.kms_line(1, &kms(1_011_700, 300 + 55_000));
        let [a, b] = picture.shares(&mark);
        assert!((a - 100.0).abs() < 0.01 && (b - 50.0).abs() < 0.01, "{a} {b}");
    }

    #[test]
    fn samples_that_differ_between_the_ends_are_not_counted_as_equal() {
        let mut picture = Picture::default();
        picture.kms_line(
            0,
            r#"{"event":"status","chunks":7,"samples":[["s",0,"aa"],["s",4,"bb"],["s",6,"cc"]]}"#,
        );
        picture.kms_line(
            1,
            r#"{"event":"status","chunks":8,"samples":[["s",0,"aa"],["s",4,"xx"],["t",6,"cc"]]}"#,
        );
        picture.kms_line(1, "no status");
        assert_eq!((picture.sampled, picture.equal), (2, 1));
        assert_eq!(picture.chunks(), [7, 8]);
    }
}
