//! What is kept of the card's blocks, what of it the card may forget, and what is counted as burnt.

use crate::agreement::event::{Action, Output};
use crate::agreement::holdings::{Holdings, Presence};
use crate::agreement::message::Range;
use crate::agreement::names::{BlockName, Mark};
use crate::agreement::settings::Capacity;

fn block(sequence: u64) -> BlockName {
    BlockName::new(1, sequence)
}

fn used(sequence: u64, offset: u32) -> Mark {
    Mark { block: block(sequence), offset }
}

fn fresh() -> Holdings {
    Holdings::new(Mark::ZERO, None)
}

/// Blocks 0, 1, ... of these lengths in the vault.
fn holding(lengths: &[u32]) -> Holdings {
    let mut holdings = fresh();
    for (name, length) in (0..).map(block).zip(lengths) {
        assert!(holdings.hold(name, *length, &mut Output::default()));
    }
    holdings
}

/// First and last numbers that the card is told to forget.
fn forgotten(holdings: &mut Holdings) -> Vec<(u64, u64)> {
    let mut out = Output::default();
    holdings.acknowledge(&mut out);
    let ranges = out.actions.iter().map(|action| match action {
        Action::Acknowledge { first, last } => (first.sequence, last.sequence),
        other => panic!("{other:?}"),
    });
    ranges.collect()
}

#[test]
fn a_block_that_the_card_has_only_announced_is_above_the_mark_of_a_new_epoch_no_more() {
    let mut holdings = fresh();
    assert_eq!(holdings.above_all(), Mark::ZERO);
    holdings.announce(block(7));
    assert_eq!(holdings.above_all(), Mark::at(block(8)));
    holdings.announce(block(3));
    assert_eq!(holdings.above_all(), Mark::at(block(8)));
    assert_eq!(Holdings::new(Mark::ZERO, Some(block(4))).above_all(), Mark::at(block(5)));
    assert_eq!(Holdings::new(used(9, 3), Some(block(4))).above_all(), used(9, 3));
}

#[test]
fn a_damaged_block_is_kept_from_the_card_only_while_it_may_be_named() {
    let mut holdings = fresh();
    holdings.owe([block(3)].into_iter());
    holdings.raise(Mark::at(block(5)), 0, &mut Output::default());
    for sequence in [2, 3, 5, 7] {
        holdings.lose(block(sequence));
        assert_eq!(holdings.presence(block(sequence), 1), Presence::Lost);
    }
    assert_eq!(holdings.complete(), block(8));
    // 2 was used up and is owed to nobody; 3 is owed; 5 is the next in turn and 7 comes later.
    assert_eq!(forgotten(&mut holdings), [(2, 2)]);
    holdings.settle([block(3)].into_iter(), &mut Output::default());
    assert_eq!(forgotten(&mut holdings), [(3, 3)]);
    holdings.raise(Mark::at(block(7)), 0, &mut Output::default());
    assert_eq!(forgotten(&mut holdings), [(5, 5)]);
    assert_eq!(holdings.burnt_bytes(), 0, "there was nothing in them");
}

#[test]
fn a_session_may_be_named_again_and_rise_but_not_fall() {
    let mut holdings = fresh();
    assert!(holdings.session(1));
    assert_eq!(holdings.complete(), BlockName::new(1, 0));
    holdings.hold(block(5), 10, &mut Output::default());
    assert!(holdings.session(1), "the card names it again after a reset");
    assert!(!holdings.session(0));
    assert_eq!(holdings.complete(), block(6));
    assert!(holdings.session(2));
    assert_eq!(holdings.complete(), BlockName::new(2, 0));
}

#[test]
fn key_that_the_card_may_still_replay_is_not_given_up() {
    let mut holdings = holding(&[10, 10]);
    assert_eq!(holdings.presence(block(1), 10), Presence::Here);
    assert_eq!(holdings.presence(block(1), 11), Presence::Lost, "it is shorter than the grant says");
    assert_eq!(holdings.presence(block(2), 1), Presence::Awaited);
    holdings.hold(block(4), 10, &mut Output::default());
    // The card delivers in rising order.
    assert_eq!(holdings.presence(block(3), 1), Presence::Lost);
    assert_eq!(holdings.presence(block(5), 1), Presence::Awaited);
    holdings.replay_ends();
    assert_eq!(holdings.presence(block(5), 1), Presence::Lost);
    holdings.replay_begins();
    assert_eq!(holdings.presence(block(5), 1), Presence::Awaited);
}

#[test]
fn a_block_is_kept_until_it_is_used_up_and_owed_to_nobody() {
    let mut holdings = holding(&[10, 20, 30]);
    let mut out = Output::default();
    holdings.owe([block(0), block(1)].into_iter());
    holdings.owe([block(1), block(2)].into_iter());
    assert_eq!(holdings.owed_extents(), 4);
    assert_eq!(holdings.pinned(), Capacity { bytes: 60, blocks: 3 });
    holdings.raise(used(1, 15), 25, &mut out);
    assert_eq!(holdings.held(), Capacity { bytes: 60, blocks: 3 });
    holdings.settle([block(1)].into_iter(), &mut out);
    assert_eq!(holdings.pinned(), Capacity { bytes: 60, blocks: 3 }, "block 1 is owed twice");
    holdings.settle([block(0), block(1), block(2)].into_iter(), &mut out);
    assert_eq!((holdings.pinned(), holdings.owed_extents()), (Capacity { bytes: 0, blocks: 0 }, 0));
    // The mark is in block 1, and block 2 is above it.
    assert_eq!(holdings.held(), Capacity { bytes: 50, blocks: 2 });
    assert_eq!(forgotten(&mut holdings), [(0, 0)]);
    assert_eq!(holdings.next_held(block(0)), Some((block(1), 20)));
    holdings.raise(Mark::at(block(2)), 5, &mut out);
    assert_eq!(forgotten(&mut holdings), [(1, 1)]);
    let released: Vec<u64> = out
        .actions
        .iter()
        .map(|action| if let Action::Release { block } = action { block.sequence } else { u64::MAX })
        .collect();
    assert_eq!(released, [0, 1]);
}

#[test]
fn room_is_not_counted_for_a_block_before_it_comes_and_only_once_after() {
    let mut holdings = fresh();
    let mut out = Output::default();
    holdings.owe([block(0)].into_iter());
    holdings.raise(Mark::at(block(1)), 10, &mut out);
    assert_eq!(holdings.pinned(), Capacity { bytes: 0, blocks: 0 });
    assert!(holdings.hold(block(0), 10, &mut out));
    assert!(!holdings.hold(block(0), 10, &mut out));
    assert_eq!(holdings.pinned(), Capacity { bytes: 10, blocks: 1 });
    assert_eq!(holdings.next_held(block(0)), None, "nothing of it is left to grant");
    holdings.forgive(&mut out);
    assert_eq!(
        (holdings.held(), holdings.pinned()),
        (Capacity { bytes: 0, blocks: 0 }, Capacity { bytes: 0, blocks: 0 })
    );
    assert_eq!(holdings.owed_extents(), 0);
}

#[test]
fn what_was_granted_is_not_called_burnt_nor_the_other_way_round() {
    let mut holdings = holding(&[100, 50, 7]);
    let mut out = Output::default();
    holdings.raise(used(0, 30), 30, &mut out);
    assert_eq!(holdings.burnt_bytes(), 0);
    holdings.raise(used(0, 50), 0, &mut out);
    assert_eq!(holdings.burnt_bytes(), 20);
    // 50 octets of block 0 and 10 of block 1 go, of which 10 are granted.
    holdings.raise(used(1, 10), 10, &mut out);
    assert_eq!(holdings.burnt_bytes(), 70);
    holdings.raise(used(1, 5), 0, &mut out);
    assert_eq!(holdings.burnt_bytes(), 70, "a mark does not fall");
    holdings.raise(Mark::at(block(9)), 0, &mut out);
    assert_eq!(holdings.burnt_bytes(), 70 + 40 + 7);
    assert_eq!(holdings.held(), Capacity { bytes: 0, blocks: 0 });
}

#[test]
fn a_report_that_has_no_room_for_all_claims_nothing_about_what_it_leaves_out() {
    let mut holdings = fresh();
    let mut out = Output::default();
    for sequence in [0, 1, 3, 5, 6] {
        holdings.hold(block(sequence), 1, &mut out);
    }
    let range = |first, last| Range { session: 1, first, last };
    assert_eq!(holdings.report(3), (vec![range(0, 1), range(3, 3), range(5, 6)], block(7)));
    assert_eq!(holdings.report(2), (vec![range(0, 1), range(3, 3)], block(5)));
    assert_eq!(holdings.count_between(block(0), block(6), 100), 4);
    assert_eq!([0, 2, 4, 7].map(|from| holdings.next_or_unknown(block(from))), [0, 3, 5, 7].map(block));
}

#[test]
fn a_mark_set_back_for_another_pair_of_cards_lets_their_blocks_in() {
    let mut holdings = Holdings::new(Mark::at(block(50)), None);
    let mut out = Output::default();
    holdings.restart_at(Mark::ZERO);
    holdings.hold(block(3), 12, &mut out);
    assert_eq!(holdings.next_held(block(0)), Some((block(3), 12)));
    assert_eq!(holdings.largest(), 12);
    assert_eq!(forgotten(&mut holdings), []);
}
