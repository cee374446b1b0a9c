//! What the judge says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use uuid::Uuid;

use crate::history::record::Invariant;

/// Violations of one invariant that are told one by one; further ones are counted.
const MOST_TOLD: usize = 20;
/// Streams in the table; further ones are summed up.
const MOST_ROWS: usize = 24;
/// Of the positions that came at both ends, so many in a hundred must have been compared.
pub(super) const LEAST_COMPARED_PERCENT: u64 = 90;

/// How two histories stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that could be judged is as it must be, and there was enough of it.
    Agree,
    /// An invariant is broken.
    Violated,
    /// Nothing is broken, but there is too little to judge.
    NotProven,
}

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// Key stream, where it is about one.
    pub stream: Option<Uuid>,
    /// Position, where it is about one.
    pub position: Option<u64>,
    /// In words.
    pub what: String,
}

/// One stream at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Key stream.
    pub stream: Uuid,
    /// Chunks at each end.
    pub chunks: [u64; 2],
    /// Positions that came at both ends.
    pub common: u64,
    /// Of these, those whose octets were compared.
    pub compared: u64,
    /// Gaps at each end.
    pub gaps: [u64; 2],
    /// Positions missing in them.
    pub missing: [u64; 2],
    /// Chunks that came again.
    pub duplicates: [u64; 2],
}

/// The judgement on two histories.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// Why nothing is proven, where that is so.
    pub not_proven: Vec<String>,
    /// How often each invariant is broken.
    pub violations: BTreeMap<Invariant, u64>,
    /// The first of them, invariant by invariant.
    pub findings: Vec<Finding>,
    /// Stream by stream.
    pub streams: Vec<Row>,
    /// Octets of test key whose origin is told: each was checked against every other use.
    pub origin_octets: u64,
    /// Octets of test key whose origin is not told.
    pub unknown_octets: u64,
    /// What else one should know.
    pub notes: Vec<String>,
}

/// Gathers findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    counts: BTreeMap<Invariant, u64>,
    told: Vec<Finding>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        invariant: Invariant,
        stream: Option<Uuid>,
        position: Option<u64>,
        what: String,
    ) {
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= MOST_TOLD as u64 {
            self.told.push(Finding { invariant, stream, position, what });
        }
    }

    pub(super) fn finish(mut self) -> (BTreeMap<Invariant, u64>, Vec<Finding>) {
        self.told.sort_by_key(|finding| finding.invariant);
        (self.counts, self.told)
    }
}

impl Verdict {
    /// The one line that says it all.
    #[must_use]
    pub fn line(&self) -> String {
        let sum = |of: fn(&Row) -> u64| self.streams.iter().map(of).sum::<u64>();
        match self.outcome {
            Outcome::Agree => format!(
                "AGREE: {} chunks on {} streams came at both ends, {} of them compared, the same octets under the same \
                 index; no key used twice",
                sum(|row| row.common),
                self.streams.len(),
                sum(|row| row.compared)
            ),
            Outcome::Violated => {
                let broken: Vec<_> = self
                    .violations
                    .iter()
                    .map(|(invariant, count)| format!("{} ({count})", invariant.name()))
                    .collect();
                format!("VIOLATED: {}", broken.join(", "))
            }
            Outcome::NotProven => format!("NOT PROVEN: {}", self.not_proven.join("; ")),
        }
    }

    /// The whole judgement for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{:<36} {:>10} {:>10} {:>10} {:>10} {:>9} {:>11} {:>9}",
            "key stream", "chunks A", "chunks B", "both", "compared", "gaps A/B", "missing A/B", "again A/B"
        )?;
        let pair = |of: [u64; 2]| format!("{}/{}", of[0], of[1]);
        for row in self.streams.iter().take(MOST_ROWS) {
            writeln!(
                text,
                "{:<36} {:>10} {:>10} {:>10} {:>10} {:>9} {:>11} {:>9}",
                row.stream,
                row.chunks[0],
                row.chunks[1],
                row.common,
                row.compared,
                pair(row.gaps),
                pair(row.missing),
                pair(row.duplicates)
            )?;
        }
        if self.streams.len() > MOST_ROWS {
            writeln!(text, "… and {} streams more", self.streams.len() - MOST_ROWS)?;
        }
        if self.origin_octets + self.unknown_octets > 0 {
            writeln!(
                text,
                "test key: the origin of {} octets is told and was checked against every other use; of {} it is not",
                self.origin_octets, self.unknown_octets
            )?;
        }
        for note in &self.notes {
            writeln!(text, "note: {note}")?;
        }
        for finding in &self.findings {
            write!(text, "{}: {}", finding.invariant.name(), finding.what)?;
            if let Some(stream) = finding.stream {
                write!(text, "; stream {stream}")?;
            }
            if let Some(position) = finding.position {
                write!(text, ", position {position}")?;
            }
            writeln!(text)?;
        }
        for (invariant, count) in &self.violations {
            if *count > MOST_TOLD as u64 {
                writeln!(text, "{}: {} more like these", invariant.name(), count - MOST_TOLD as u64)?;
            }
        }
        writeln!(text, "{}", self.line())
    }
}
