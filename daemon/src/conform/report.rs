//! Outcomes as lines, as JSON, and as a JUnit file.

use std::fmt::Write as _;

use serde::Serialize;

use super::book::{Outcome, Verdict};

/// Version of the JSON report; counts changes that whoever reads an older one would misunderstand.
const VERSION: u32 = 1;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    version: u32,
    /// "module" or "kms".
    pub part: &'static str,
    /// URL that was probed.
    pub url: String,
    /// How many of each.
    pub totals: Totals,
    /// One for each clause.
    pub checks: Vec<Outcome>,
}

/// How many outcomes of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Kept.
    pub pass: usize,
    /// Not kept, and one can live with it.
    pub warn: usize,
    /// Not kept.
    pub fail: usize,
    /// Not checked.
    pub skip: usize,
}

impl Report {
    pub(super) fn new(part: &'static str, url: &str, checks: Vec<Outcome>) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        let totals = Totals {
            pass: count(Verdict::Pass),
            warn: count(Verdict::Warn),
            fail: count(Verdict::Fail),
            skip: count(Verdict::Skip),
        };
        Self { version: VERSION, part, url: url.to_owned(), totals, checks }
    }

    /// One line for each clause, and one with the totals.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for Outcome { clause, verdict, detail, .. } in &self.checks {
            let why = if detail.is_empty() { String::new() } else { format!(" -- {}", one_line(detail)) };
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{} {:<22} {} [{}]{why}",
                verdict.word(),
                clause.id,
                clause.text,
                clause.source
            );
        }
        let Totals { pass, warn, fail, skip } = self.totals;
        let _ = writeln!(text, "{pass} passed, {warn} warnings, {fail} failed, {skip} skipped");
        text
    }

    /// A JSON object; `docs/schema/conform.json` describes it.
    ///
    /// # Errors
    /// None that these members bring about.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// A JUnit file with one test case for each clause. A WARN is a case that passed, with what was found in its output.
    #[must_use]
    pub fn junit(&self) -> String {
        let Totals { fail, skip, .. } = self.totals;
        let name = format!("qkdctl conform {} {}", self.part, self.url);
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{fail}\" \
             errors=\"0\" skipped=\"{skip}\">\n",
            escaped(&name),
            self.checks.len()
        );
        for Outcome { clause, verdict, detail, .. } in &self.checks {
            let detail = escaped(detail);
            let inside = match verdict {
                Verdict::Pass => String::new(),
                Verdict::Warn => format!("<system-out>WARN: {detail}</system-out>"),
                Verdict::Fail => format!("<failure message=\"{detail}\"/>"),
                Verdict::Skip => format!("<skipped message=\"{detail}\"/>"),
            };
            let _ = writeln!(
                text,
                "<testcase classname=\"conform.{}\" name=\"{}: {}\">{inside}</testcase>",
                self.part,
                clause.id,
                escaped(clause.text)
            );
        }
        text.push_str("</testsuite>\n</testsuites>\n");
        text
    }
}

/// Without control characters, for a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::kms::CLAUSES;

    #[test]
    fn what_the_other_side_sends_cannot_break_out_of_a_line_or_an_element() {
        let detail = "a\n<b> \"c\" & \u{1b}[2J".to_owned();
        let outcome = Outcome { clause: &CLAUSES[0], verdict: Verdict::Fail, detail, at_ms: 3 };
        let report = Report::new("kms", "http://k/?\"", vec![outcome]);
        assert_eq!(report.lines().lines().count(), 2);
        assert!(!report.lines().contains('\u{1b}'));
        let junit = report.junit();
        assert!(junit.contains("message=\"a &lt;b&gt; &quot;c&quot; &amp;  [2J\""), "{junit}");
        assert!(junit.contains("failures=\"1\"") && !junit.contains("<b>"));
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["checks"][0]["verdict"], "FAIL");
        assert_eq!(json["checks"][0]["id"], "reach");
    }
}
