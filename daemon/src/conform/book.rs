//! What is checked, and what was found: one outcome for each clause.

use std::time::{Duration, Instant};

use serde::Serialize;

/// How binding a clause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Without it the two sides cannot work together, or key is in danger: broken, it is a FAIL.
    Must,
    /// The interface leaves it open, or one side can do without: broken, it is a WARN.
    Should,
}

/// One thing that is checked.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// Short name, which stays the same in later releases.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// Where it is written.
    pub source: &'static str,
    /// What it wants.
    pub text: &'static str,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It could not be checked; it does not count as passed.
    Skip,
    /// It is so.
    Pass,
    /// It is not so, and one can live with it.
    Warn,
    /// It is not so.
    Fail,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "SKIP",
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// A clause, and what was found.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The clause.
    #[serde(flatten)]
    pub clause: &'static Clause,
    /// What was found.
    pub verdict: Verdict,
    /// Why it is no PASS; empty where it is one.
    pub detail: String,
    /// When it was found, in ms since the probe began.
    pub at_ms: u64,
}

/// The outcomes so far, in the order of the catalogue.
#[derive(Debug)]
pub(super) struct Book {
    catalogue: &'static [Clause],
    found: Vec<Option<(Verdict, String, Duration)>>,
    begun: Instant,
}

impl Book {
    /// An empty one.
    pub(super) fn new(catalogue: &'static [Clause]) -> Self {
        Self { catalogue, found: catalogue.iter().map(|_| None).collect(), begun: Instant::now() }
    }

    /// Notes whether a clause is kept. Several looks at the same clause add up: the worst counts, and of equals the first.
    pub(super) fn judge(&mut self, id: &str, kept: Result<(), String>) {
        let level = self.catalogue.iter().find(|clause| clause.id == id).map(|clause| clause.level);
        let (verdict, why) = match (kept, level) {
            (Ok(()), _) => (Verdict::Pass, String::new()),
            (Err(why), Some(Level::Should)) => (Verdict::Warn, why),
            (Err(why), _) => (Verdict::Fail, why),
        };
        self.note(id, verdict, why);
    }

    /// Notes that clauses cannot be checked.
    pub(super) fn skip(&mut self, ids: &[&str], why: &str) {
        for id in ids {
            self.note(id, Verdict::Skip, why.to_owned());
        }
    }

    fn note(&mut self, id: &str, verdict: Verdict, why: String) {
        let place = self.catalogue.iter().position(|clause| clause.id == id);
        debug_assert!(place.is_some(), "{id} is no clause");
        let Some(found) = place.and_then(|place| self.found.get_mut(place)) else { return };
        if found.as_ref().is_none_or(|(before, ..)| *before < verdict) {
            *found = Some((verdict, why, self.begun.elapsed()));
        }
    }

    /// One outcome for each clause; what was never looked at is a SKIP.
    pub(super) fn finish(self, unseen: &str) -> Vec<Outcome> {
        self.catalogue
            .iter()
            .zip(self.found)
            .map(|(clause, found)| {
                let (verdict, detail, at) =
                    found.unwrap_or_else(|| (Verdict::Skip, unseen.to_owned(), Duration::ZERO));
                Outcome { clause, verdict, detail, at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TWO: [Clause; 2] = [
        Clause { id: "must", level: Level::Must, source: "x", text: "x" },
        Clause { id: "should", level: Level::Should, source: "x", text: "x" },
    ];

    #[test]
    fn the_worst_of_several_looks_counts_and_what_nobody_looked_at_is_no_pass() {
        let mut book = Book::new(&TWO);
        book.judge("should", Ok(()));
        book.judge("should", Err("one".into()));
        book.judge("should", Err("two".into()));
        book.judge("should", Ok(()));
        let found = book.finish("never reached");
        let told: Vec<_> = found.iter().map(|o| (o.verdict, o.detail.as_str())).collect();
        assert_eq!(told, [(Verdict::Skip, "never reached"), (Verdict::Warn, "one")]);
        let mut book = Book::new(&TWO);
        book.skip(&["must"], "no stream");
        book.judge("must", Err("broken".into()));
        assert_eq!(book.finish("")[0].verdict, Verdict::Fail);
    }

    #[test]
    fn clauses_that_share_a_name_are_caught() {
        for catalogue in [crate::conform::module::CLAUSES, crate::conform::kms::CLAUSES] {
            for (number, clause) in catalogue.iter().enumerate() {
                assert!(!catalogue[..number].iter().any(|earlier| earlier.id == clause.id), "{}", clause.id);
                assert!(!clause.text.is_empty() && !clause.source.is_empty(), "{}", clause.id);
            }
        }
    }
}
