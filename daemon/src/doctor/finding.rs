//! What the doctor has seen, and what to do about it.

use std::path::Path;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// The daemon runs, but something may surprise.
    Warn,
    /// The daemon does not run so, or hands out no key.
    Fail,
    /// It could not be looked at.
    Skip,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short name, which stays the same in later releases.
    pub check: &'static str,
    /// Configuration file that it is about.
    pub config: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do; empty where there is nothing to do.
    pub mend: String,
}

/// The findings about one configuration so far.
#[derive(Debug)]
pub(super) struct Findings {
    config: String,
    pub(super) all: Vec<Finding>,
}

impl Findings {
    pub(super) fn about(config: &Path) -> Self {
        Self { config: config.display().to_string(), all: Vec::new() }
    }

    fn note(&mut self, check: &'static str, verdict: Verdict, detail: impl ToString, mend: impl ToString) {
        let config = self.config.clone();
        self.all.push(Finding { check, config, verdict, detail: detail.to_string(), mend: mend.to_string() });
    }

    pub(super) fn pass(&mut self, check: &'static str, detail: impl ToString) {
        self.note(check, Verdict::Pass, detail, "");
    }

    pub(super) fn warn(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.note(check, Verdict::Warn, detail, mend);
    }

    pub(super) fn fail(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.note(check, Verdict::Fail, detail, mend);
    }

    pub(super) fn skip(&mut self, check: &'static str, why: impl ToString) {
        self.note(check, Verdict::Skip, why, "");
    }
}
