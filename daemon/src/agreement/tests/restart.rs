//! An end that starts again with what its ledger says.

use super::two_ends::{BLOCK, Ends, settings};
use crate::agreement::Role;
use crate::interface::QosRequest;

#[test]
fn an_end_that_owes_a_whole_window_and_is_granted_no_more_is_not_silent_after_a_restart() {
    for end in 0..2 {
        let windowed = |role| {
            let mut settings = settings(role);
            settings.window_bytes = u64::from(4 * BLOCK);
            settings
        };
        let mut both = Ends::with(windowed(Role::Leader), windowed(Role::Follower), 1_000_000);
        let stream = both.stream(QosRequest::default());
        for _ in 0..16 {
            both.block();
            both.run(20);
            // The other end's KMS takes everything, this end's nothing.
            both.accept(1 - end, stream);
        }
        both.run(1_000);
        let before = both.ends[end].take_deliveries();
        let owed: u32 = before.iter().map(|delivery| delivery.count).sum();
        assert!(owed > 0, "end {end}");
        let settings = windowed(if end == 0 { Role::Leader } else { Role::Follower });
        both.restart(end, settings);
        both.run(1_000);
        let after = both.ends[end].take_deliveries();
        let again: u32 = after.iter().map(|delivery| delivery.count).sum();
        assert_eq!(after.first().map(|delivery| delivery.first), Some(0), "end {end}");
        assert!(again >= owed, "end {end}: {again} of {owed} chunks");
    }
}
