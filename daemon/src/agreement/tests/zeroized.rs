//! Every key at one end is destroyed: nothing of before is used by either end, and what is lost is counted.

use super::two_ends::{BLOCK, Ends};
use crate::agreement::{Action, BlockName, Event, LossCause, Position};
use crate::interface::QosRequest;

fn qos() -> QosRequest {
    QosRequest { key_chunk_size: Some(64), ..QosRequest::default() }
}

fn lost(both: &Ends, end: usize) -> Position {
    let of = |action: &Action| match action {
        Action::Lost { count, cause: LossCause::Epoch, .. } => *count,
        _ => 0,
    };
    both.ends[end].actions.iter().map(of).sum()
}

#[test]
fn what_was_granted_is_counted_as_lost_at_both_ends_and_neither_uses_an_older_block_again() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos());
        both.block();
        both.block();
        both.run(30);
        let epoch = both.ends[0].durable.epoch;
        let used: Vec<BlockName> =
            both.ends[0].deliveries().iter().flat_map(|d| d.extents.iter().map(|e| e.block)).collect();
        assert!(!used.is_empty());
        let granted = u64::from(2 * BLOCK / 64);
        both.event(end, Event::Zeroized);
        let actions = &both.ends[end].actions;
        let hung_up =
            actions.iter().position(|a| matches!(a, Action::Disconnect { .. })).expect("it greets anew");
        let void = actions.iter().position(|a| matches!(a, Action::Zeroized)).expect("the marker");
        let stopped = actions.iter().position(|a| matches!(a, Action::Stop { .. })).expect("the stream ends");
        assert!(hung_up < void && stopped < void, "all of it is done before key is given again");
        both.cut();
        both.connect();
        both.run(50);
        for either in 0..2 {
            let durable = &both.ends[either].durable;
            assert!(durable.epoch > epoch, "end {either}");
            assert!(durable.forbidden.contains(&stream), "end {either}");
            assert!(used.iter().all(|block| *block < durable.mark.block), "end {either}");
            assert_eq!(lost(&both, either), granted, "end {either}");
        }
        assert_eq!(both.ends[0].durable.epoch, both.ends[1].durable.epoch);
        // New streams get new blocks only.
        for either in 0..2 {
            both.ends[either].forget_old();
        }
        let _ = both.stream(qos());
        both.block();
        both.run(50);
        for either in 0..2 {
            let again = both.ends[either].take_deliveries();
            assert!(!again.is_empty(), "end {either} goes on");
            assert!(again.iter().flat_map(|d| &d.extents).all(|e| !used.contains(&e.block)), "end {either}");
        }
    }
}
