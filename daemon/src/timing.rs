//! Moments in the trace (`log.level = "trace"`), from which latencies are made: when a block was taken from the card, when key was
//! committed, how long a synced write took, when key was written to the KMS's socket. One line each, of names and numbers only.

use std::fmt::Arguments;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

const TARGET: &str = "timing";

/// A moment: nanoseconds of `CLOCK_MONOTONIC`, which all processes of a host share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// Now; `None` unless the trace is written: no clock is asked then.
pub(crate) fn now() -> Option<Moment> {
    log::log_enabled!(target: TARGET, log::Level::Trace).then(|| {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Moment(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    })
}

/// Writes that something which began at `begun` was over at `done`.
pub(crate) fn took(begun: Option<Moment>, done: Option<Moment>, what: Arguments<'_>) {
    if let Some((Moment(begun), Moment(ns))) = begun.zip(done) {
        tell(done, format_args!("{what} took {} ns", ns.saturating_sub(begun)));
    }
}

/// Writes what happened at `moment`.
pub(crate) fn tell(moment: Option<Moment>, what: Arguments<'_>) {
    if let Some(Moment(ns)) = moment {
        log::trace!(target: TARGET, "ns={ns} {what}");
    }
}
