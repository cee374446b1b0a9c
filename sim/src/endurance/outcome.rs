//! What the run has shown.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::endings::Endings;
use crate::check::{Outcome, Verdict};

/// Everything that is told at the end.
pub(super) struct Shown<'a> {
    pub(super) seed: u64,
    pub(super) lasted: Duration,
    pub(super) rounds: u64,
    pub(super) kills: u64,
    pub(super) struck: &'a BTreeMap<String, u64>,
    /// Faults that found nothing to strike.
    pub(super) missed: u64,
    /// From the end of each round's faults until every stream had received again at both ends.
    pub(super) recoveries: &'a [Duration],
    /// Chunks that each end's log counts as lost.
    pub(super) lost: [u64; 2],
    pub(super) endings: Endings,
    pub(super) verdict: &'a Verdict,
    /// What went wrong beside the verdict.
    pub(super) complaints: &'a [String],
}

impl Shown<'_> {
    /// True if nothing was wrong.
    pub(super) fn good(&self) -> bool {
        self.complaints.is_empty() && self.verdict.outcome == Outcome::Agree
    }

    fn recovery(&self) -> [Duration; 2] {
        let mut sorted = self.recoveries.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        [median, sorted.last().copied().unwrap_or_default()]
    }

    fn chunks(&self) -> [u64; 2] {
        let sum = |end: usize| self.verdict.streams.iter().filter_map(|row| row.chunks.get(end)).sum();
        [sum(0), sum(1)]
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let [median, longest] = self.recovery();
        let [a, b] = self.chunks();
        let faults: Vec<_> = self.struck.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!(
            "{verdict}faults: {faults}; {missed} found nothing to strike\n\
             {kills} daemons killed in {rounds} rounds and {lasted:.0} s, seed {seed}\n\
             chunks at A {a}, at B {b}; counted as lost in the log of A {lost_a}, of B {lost_b}\n\
             {ended} streams ended by the modules, {told} of them with a notice to a KMS\n\
             every stream received again at both ends {median:.1} s (median) and {longest:.1} s (longest) after a \
             round's last fault was over\n\
             {word}\n",
            verdict = self.verdict.text(),
            faults = faults.join(", "),
            missed = self.missed,
            kills = self.kills,
            rounds = self.rounds,
            lasted = self.lasted.as_secs_f64(),
            seed = self.seed,
            lost_a = self.lost[0],
            lost_b = self.lost[1],
            ended = self.endings.ended,
            told = self.endings.told,
            median = median.as_secs_f64(),
            longest = longest.as_secs_f64(),
            word = if self.good() { "ENDURED".to_owned() } else { format!("FAILED: {}", self.why()) },
        )
    }

    fn why(&self) -> String {
        let mut why = self.complaints.to_vec();
        if self.verdict.outcome != Outcome::Agree {
            why.push(self.verdict.line());
        }
        why.join("; ")
    }

    /// For a program.
    pub(super) fn json(&self) -> serde_json::Value {
        let [median, longest] = self.recovery().map(|time| time.as_secs_f64());
        json!({
            "event": "verdict",
            "success": self.good(),
            "complaints": self.complaints,
            "verdict": self.verdict,
            "seed": self.seed,
            "seconds": self.lasted.as_secs_f64(),
            "rounds": self.rounds,
            "kills": self.kills,
            "faults": self.struck,
            "missed": self.missed,
            "chunks": self.chunks(),
            "lost": self.lost,
            "endings": self.endings,
            "recovery_seconds": { "median": median, "longest": longest },
        })
    }
}
