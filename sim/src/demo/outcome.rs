//! What the demonstration has shown.

use serde_json::json;

use super::Args;
use super::memory::Usage;
use super::troubles::Trouble;
use crate::check::{Outcome, Verdict};
use crate::stage::picture::Picture;

/// Everything that is told at the end.
pub(super) struct Shown<'a> {
    pub(super) args: &'a Args,
    pub(super) verdict: &'a Verdict,
    pub(super) picture: &'a Picture,
    pub(super) troubles: &'a [Trouble],
    pub(super) memory: Vec<Usage>,
    /// Delivered at each end, of what its card distilled meanwhile, in per cent.
    pub(super) shares: [f64; 2],
}

impl Shown<'_> {
    /// Why this was no success; empty if it was.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<_> =
            self.troubles.iter().filter(|trouble| !trouble.recovered()).map(Trouble::unfinished).collect();
        if self.verdict.outcome != Outcome::Agree {
            complaints.push("the two histories do not agree".into());
        }
        let both = self.verdict.streams.iter().filter(|row| row.common > 0).count();
        if u32::try_from(both) != Ok(self.args.streams) {
            complaints.push(format!("{both} of {} streams delivered at both ends", self.args.streams));
        }
        if self.picture.equal != self.picture.sampled {
            complaints.push("sampled chunks differed while running".into());
        }
        complaints
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let mut text = self.verdict.text();
        let [a, b] = &self.picture.cards;
        let [share_a, share_b] = self.shares;
        text += &format!(
            "delivered of what the cards distilled meanwhile: A {share_a:.1} %, B {share_b:.1} %\n\
             refused by a full card: A {} blocks ({} bytes), B {} blocks ({} bytes)\n",
            a.dropped_overflow, a.dropped_overflow_bytes, b.dropped_overflow, b.dropped_overflow_bytes
        );
        for usage in &self.memory {
            text += &format!(
                "memory of {:<7} peak {:>7} KiB; first quarter {:>7}, last quarter {:>7}{}\n",
                usage.process,
                usage.peak_kib,
                usage.first_quarter_kib,
                usage.last_quarter_kib,
                if usage.grew() { "  GREW" } else { "" }
            );
        }
        text
    }

    /// For a program.
    pub(super) fn json(&self) -> serde_json::Value {
        let [a, b] = &self.picture.cards;
        json!({
            "event": "verdict",
            "success": self.complaints().is_empty(),
            "complaints": self.complaints(),
            "verdict": self.verdict,
            "delivered_percent": self.shares,
            "overflow_blocks": [a.dropped_overflow, b.dropped_overflow],
            "overflow_bytes": [a.dropped_overflow_bytes, b.dropped_overflow_bytes],
            "memory": self.memory,
        })
    }
}
