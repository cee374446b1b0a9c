//! Which key both ends hold, in order, how it is cut, and whose turn it is.

use crate::agreement::event::Output;
use crate::agreement::holdings::Holdings;
use crate::agreement::names::{BlockName, Extent, Mark};
use crate::agreement::ranges::BlockRanges;
use crate::agreement::scheduler::{Claim, Scheduler};
use crate::agreement::supply::{Supply, first_not_missing};
use crate::interface::KeyStreamId;

fn block(sequence: u64) -> BlockName {
    BlockName::new(1, sequence)
}

fn used(sequence: u64, offset: u32) -> Mark {
    Mark { block: block(sequence), offset }
}

/// What one end holds: numbers and lengths.
fn here(blocks: &[(u64, u32)]) -> Holdings {
    let mut holdings = Holdings::new(Mark::ZERO, None);
    for (sequence, length) in blocks {
        holdings.hold(block(*sequence), *length, &mut Output::default());
    }
    holdings
}

fn there(blocks: &[u64]) -> BlockRanges {
    let mut ranges = BlockRanges::default();
    for sequence in blocks {
        ranges.insert(block(*sequence));
    }
    ranges
}

fn extent(sequence: u64, offset: u32, length: u32) -> Extent {
    Extent { block: block(sequence), offset, length }
}

#[test]
fn a_grant_takes_the_octets_after_the_mark_in_order_and_no_octet_twice() {
    let here = here(&[(0, 10), (1, 20), (3, 30), (4, 40)]);
    let mut supply = Supply::gather(used(0, 4), &here, &there(&[0, 1, 3, 4]), block(5));
    assert_eq!(supply.bytes(), 96);
    assert_eq!([0, 1, 2, 3, 4, 9].map(|blocks| supply.bytes_of_blocks(blocks)), [0, 6, 26, 56, 96, 96]);
    assert_eq!(supply.take(10), (vec![extent(0, 4, 6), extent(1, 0, 4)], used(1, 4)));
    assert_eq!(supply.bytes(), 86);
    assert_eq!(supply.take(15), (vec![extent(1, 4, 15)], used(1, 19)));
    assert_eq!(supply.take(1), (vec![extent(1, 19, 1)], used(2, 0)), "the block is used up");
    assert_eq!(supply.take(70), (vec![extent(3, 0, 30), extent(4, 0, 40)], used(5, 0)));
    assert_eq!(supply.bytes(), 0);
}

#[test]
fn what_is_lost_there_is_passed_and_what_may_still_come_there_is_waited_for() {
    let here = here(&[(0, 1), (1, 2), (2, 4), (3, 8)]);
    let bytes =
        |blocks: &[u64], complete| Supply::gather(Mark::ZERO, &here, &there(blocks), block(complete)).bytes();
    assert_eq!(bytes(&[0, 3], 3), 9);
    assert_eq!(bytes(&[0, 3], 2), 1, "block 2 may still come");
    assert_eq!(bytes(&[0], 1), 1);
    assert_eq!(bytes(&[], 9), 0);
}

#[test]
fn a_block_that_is_used_up_to_its_end_is_no_piece() {
    let here = here(&[(0, 10), (1, 20)]);
    for offset in [10, 11] {
        let mut supply = Supply::gather(used(0, offset), &here, &there(&[0, 1]), block(2));
        assert_eq!(supply.take(20), (vec![extent(1, 0, 20)], used(2, 0)));
    }
}

#[test]
fn one_look_ahead_is_bounded_in_octets_and_in_pieces() {
    let gathered = |count: u64, length| {
        let blocks: Vec<(u64, u32)> = (0..count).map(|sequence| (sequence, length)).collect();
        let there = there(&(0..count).collect::<Vec<_>>());
        Supply::gather(Mark::ZERO, &here(&blocks), &there, block(count))
    };
    assert_eq!(gathered(17, 1 << 19).bytes(), 8 << 20);
    assert_eq!(gathered(18, (1 << 19) - 1).bytes(), 17 * ((1 << 19) - 1));
    assert_eq!(gathered(4_097, 1).bytes(), 4_096);
    assert!(gathered(4_096, 1).is_crumbs());
    assert!(!gathered(4_095, 1).is_crumbs());
}

#[test]
fn what_either_end_lacks_for_good_is_passed_however_it_alternates() {
    // Each lacks what the other has.
    let mine = here(&[(2, 1), (4, 1), (7, 1)]);
    assert_eq!(first_not_missing(block(0), &mine, &there(&[3]), block(7)), block(7));
    assert_eq!(first_not_missing(block(0), &mine, &there(&[3]), block(6)), block(7));
    assert_eq!(first_not_missing(block(0), &mine, &there(&[3]), block(5)), block(7));
    assert_eq!(first_not_missing(block(0), &mine, &there(&[3, 4]), block(7)), block(4));
    assert_eq!(
        first_not_missing(block(0), &mine, &there(&[1]), block(2)),
        block(2),
        "it may still come there"
    );
    assert_eq!(first_not_missing(block(9), &mine, &there(&[1]), block(2)), block(9), "nobody knows of it");
    assert_eq!(first_not_missing(block(4), &mine, &there(&[4]), block(5)), block(4));
}

fn id(number: u128) -> KeyStreamId {
    KeyStreamId::from_u128(number)
}

#[test]
fn minima_go_before_priorities_priorities_before_service_and_the_least_service_first() {
    let mut scheduler = Scheduler::default();
    assert_eq!(scheduler.first(), None);
    assert!(!scheduler.is_any_hungry());
    scheduler.insert(Claim::Rest, id(1), 0, 50);
    scheduler.insert(Claim::Rest, id(2), 0, 40);
    scheduler.set_hungry(id(1), true);
    scheduler.set_hungry(id(2), true);
    scheduler.set_hungry(id(1), false);
    assert!(scheduler.is_any_hungry());
    assert_eq!(scheduler.first(), Some((Claim::Rest, id(2))));
    scheduler.insert(Claim::Rest, id(3), 7, 90);
    assert_eq!(scheduler.first(), Some((Claim::Rest, id(3))));
    scheduler.insert(Claim::Minimum, id(1), 0, 900);
    assert_eq!(scheduler.first(), Some((Claim::Minimum, id(1))));
    assert_eq!((scheduler.rivals(Claim::Minimum), scheduler.rivals(Claim::Rest)), (1, 3));
    // A minimum that is met leaves the claim to the rest.
    scheduler.withdraw(Claim::Minimum, id(1));
    assert_eq!(scheduler.first(), Some((Claim::Rest, id(3))));
    scheduler.remove(id(3));
    scheduler.remove(id(2));
    assert!(!scheduler.is_any_hungry(), "who cannot be served is not waited for");
    assert_eq!(scheduler.first(), Some((Claim::Rest, id(1))));
    assert_eq!((scheduler.rivals(Claim::Minimum), scheduler.rivals(Claim::Rest)), (0, 1));
    scheduler.insert(Claim::Minimum, id(1), 0, 900);
    scheduler.remove(id(1));
    assert_eq!(scheduler.first(), None);
}

#[test]
fn nobody_saves_up_turns_while_it_is_away() {
    let mut scheduler = Scheduler::default();
    assert_eq!(scheduler.insert(Claim::Rest, id(1), 0, 300), 300);
    assert_eq!(scheduler.insert(Claim::Rest, id(1), 0, 400), 300, "it stands where it stood");
    scheduler.served(Claim::Rest, id(1), 0, 300);
    assert_eq!(scheduler.first(), None);
    assert_eq!(scheduler.insert(Claim::Rest, id(2), 0, 0), 300);
    assert_eq!(scheduler.insert(Claim::Rest, id(3), 0, 350), 350);
    // Of another priority, or among the minima, nobody was served.
    assert_eq!(scheduler.insert(Claim::Rest, id(4), 1, 2), 2);
    assert_eq!(scheduler.insert(Claim::Minimum, id(4), 0, 2), 2);
    scheduler.served(Claim::Rest, id(2), 0, 100);
    assert_eq!(scheduler.insert(Claim::Rest, id(5), 0, 0), 300, "the level does not fall");
}

#[test]
fn priorities_beyond_number_do_not_fill_the_memory() {
    let mut scheduler = Scheduler::default();
    for priority in 0..1_024 {
        scheduler.served(Claim::Rest, id(1), priority, 7);
    }
    assert_eq!(scheduler.insert(Claim::Rest, id(2), 0, 0), 7);
    scheduler.served(Claim::Rest, id(1), 1_024, 7);
    assert_eq!(scheduler.insert(Claim::Rest, id(3), 0, 0), 0);
}
