//! The audit record.

use std::path::Path;

use qkd_daemon::audit::verify as verify_record;
use qkd_daemon::operator::outcome::{Outcome, Own};

/// Holds a record's lines against each other, and its end against its head.
pub(crate) fn verify(path: &Path) -> Outcome {
    Outcome::Own(match verify_record(path) {
        Ok(verdict) => Own::AuditWhole {
            first: verdict.first,
            last: verdict.last.number,
            head: verdict.last.to_string(),
            to_the_end: verdict.against_head,
        },
        Err(wrong) => Own::AuditBroken { reason: wrong.to_string() },
    })
}
