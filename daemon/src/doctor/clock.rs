//! The clock: certificates are judged by it, and the time to live of keys.
#![allow(unsafe_code, reason = "the C library alone tells whether the kernel's clock is kept in step")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Findings;
use super::host::Host;

/// No clock of a host that runs this release is before that: 2026-01-01.
const RELEASED: Duration = Duration::from_secs(1_767_225_600);
/// Nor so far behind it.
const LIFETIME: Duration = Duration::from_secs(50 * 365 * 86_400);

pub(super) fn look(host: &Host, findings: &mut Findings) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Who sets the clock says so in a file, too, which is all that a staged host has.
    let told = host.path("/run/systemd/timesync/synchronized").exists();
    judge(now, told || (host.is_this() && kernel_is_in_step()), findings);
}

fn judge(now: Duration, in_step: bool, findings: &mut Findings) {
    let mend = "set the clock, and have it kept in step (timedatectl set-ntp true, or chrony)";
    if now < RELEASED || now > RELEASED + LIFETIME {
        let detail = format!(
            "the clock says {} s since 1970, which cannot be: certificates are judged by it",
            now.as_secs()
        );
        findings.fail("clock", detail, mend);
    } else if in_step {
        findings.pass("clock", "it is kept in step");
    } else {
        findings.warn(
            "clock",
            "nobody says that it is kept in step; keys' time to live and certificates go by it",
            mend,
        );
    }
}

fn kernel_is_in_step() -> bool {
    let mut state: libc::timex = {
        // SAFETY: timex is a plain structure of numbers, for which zero is a value.
        unsafe { std::mem::zeroed() }
    };
    // SAFETY: with modes 0 the call only writes into the structure, which lives as long as the call.
    let said = unsafe { libc::adjtimex(&raw mut state) };
    said >= 0 && said != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_clock_that_cannot_be_is_a_fault_and_one_that_nobody_keeps_is_told() {
        let verdict = |now, in_step| {
            let mut findings = Findings::about(std::path::Path::new("x"));
            judge(now, in_step, &mut findings);
            findings.all.remove(0).verdict
        };
        assert_eq!(verdict(Duration::from_secs(100), true), Verdict::Fail);
        assert_eq!(verdict(RELEASED * 4, true), Verdict::Fail);
        assert_eq!(verdict(RELEASED + Duration::from_secs(1), true), Verdict::Pass);
        assert_eq!(verdict(RELEASED + Duration::from_secs(1), false), Verdict::Warn);
    }
}
