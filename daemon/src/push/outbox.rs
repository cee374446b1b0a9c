//! Reports that wait to be sent: merged, so that their number is bounded whatever the engine does.

use std::time::Duration;

use tokio::time::Instant;

use super::report::{Failure, Report};
use crate::interface::KeyStreamId;

/// How long progress may wait for more progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(10);
/// Least time between two reports of failure.
const FAILING_INTERVAL: Duration = Duration::from_secs(30);

/// At most one report of each kind.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: KeyStreamId,
    /// What was reported, and what there is to report.
    accepted: (u64, u64),
    progress_due: Option<Instant>,
    discarded: Option<(u64, u64)>,
    suspended: Option<Report>,
    trouble: Option<Report>,
    failing: Option<Stretch>,
    last_failing_report: Option<Instant>,
}

/// Failures in a row.
#[derive(Debug)]
struct Stretch {
    since: Instant,
    reported: bool,
}

impl Outbox {
    pub(super) fn new(stream: KeyStreamId, first: u64) -> Self {
        Self {
            stream,
            accepted: (first, first),
            progress_due: None,
            discarded: None,
            suspended: None,
            trouble: None,
            failing: None,
            last_failing_report: None,
        }
    }

    /// Where accepting has come to. `idle`: there is no more to wait for.
    pub(super) fn progress(&mut self, accepted_up_to: u64, idle: bool, now: Instant) {
        self.accepted.1 = accepted_up_to;
        if self.accepted.0 != self.accepted.1 {
            let due = self.progress_due.get_or_insert(now + PROGRESS_INTERVAL);
            if idle {
                *due = now;
            }
        }
    }

    pub(super) fn discarded(&mut self, up_to: u64, chunks: u64) {
        let (_, before) = self.discarded.unwrap_or_default();
        self.discarded = Some((up_to, before + chunks));
    }

    pub(super) fn suspended(&mut self, status: u16, excerpt: String) {
        self.suspended = Some(Report::Suspended { stream: self.stream, status, excerpt });
    }

    /// A chunk has to be sent again.
    pub(super) fn failing(&mut self, why: Failure, now: Instant) {
        let stretch = self.failing.get_or_insert(Stretch { since: now, reported: false });
        if self.last_failing_report.is_some_and(|last| now.duration_since(last) < FAILING_INTERVAL) {
            return;
        }
        self.last_failing_report = Some(now);
        stretch.reported = true;
        let since = stretch.since.into_std();
        self.trouble = Some(Report::Failing { stream: self.stream, why, since });
    }

    /// The KMS has accepted something.
    pub(super) fn recovered(&mut self, now: Instant) {
        if let Some(stretch) = self.failing.take()
            && stretch.reported
        {
            let after = now.duration_since(stretch.since);
            self.trouble = Some(Report::Recovered { stream: self.stream, after });
        }
    }

    /// When the next report is due.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let urgent = self.discarded.is_some() || self.suspended.is_some() || self.trouble.is_some();
        if urgent { Some(now) } else { self.progress_due }
    }

    /// Takes the next report.
    pub(super) fn next(&mut self) -> Option<Report> {
        let stream = self.stream;
        if let Some((up_to, chunks)) = self.discarded.take() {
            return Some(Report::Discarded { stream, up_to, chunks });
        }
        self.progress_due = None;
        if self.accepted.0 != self.accepted.1 {
            self.accepted.0 = self.accepted.1;
            return Some(Report::Accepted { stream, up_to: self.accepted.1 });
        }
        self.suspended.take().or_else(|| self.trouble.take())
    }
}
