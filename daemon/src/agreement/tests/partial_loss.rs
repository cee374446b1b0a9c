//! After a restart a grant's blocks come again one by one, or do not: exactly the chunks that are whole are delivered, and
//! exactly the others are lost.

use super::two_ends::{BLOCK, End, Ends, settings};
use crate::agreement::entry::Decision;
use crate::agreement::{Action, BlockName, Event, LossCause, Position, Role};
use crate::interface::{KeyStreamId, QosRequest};

/// What becomes of positions: delivered or lost, from and count.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Delivered(Position, u64),
    Lost(Position, u64),
}
use Fate::{Delivered, Lost};

/// The follower has restarted with a ledger in which `blocks` blocks are granted in one entry, in chunks of `chunk` octets,
/// and its card has told nothing yet.
fn restarted(chunk: u32, blocks: u64) -> (Ends, KeyStreamId) {
    restarted_from(chunk, blocks, None)
}

/// The same, where both KMSs want key from `index` on.
fn restarted_from(chunk: u32, blocks: u64, index: Option<u32>) -> (Ends, KeyStreamId) {
    let mut both = Ends::in_step(1_000_000);
    let stream = KeyStreamId::from_u128(1);
    for end in 0..2 {
        let qos = QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() };
        both.open(end, Some(stream), qos);
        both.run(20);
    }
    for _ in 0..blocks {
        both.block();
    }
    both.run(20);
    for end in 0..2 {
        both.get_key(end, stream, index);
        both.run(20);
    }
    let durable = both.ends[1].durable.clone();
    let grants: Vec<usize> = durable
        .log
        .values()
        .filter_map(|logged| match &logged.entry.decision {
            Decision::Grant(grant) => Some(grant.extents.len()),
            _ => None,
        })
        .collect();
    assert_eq!(grants, [blocks as usize], "one grant of all blocks");
    both.cut();
    both.ends[1] = End::new(settings(Role::Follower), durable);
    both.event(1, Event::Start);
    both.ends[1].forget_old();
    (both, stream)
}

fn held(both: &mut Ends, sequence: u64) {
    let name = BlockName::new(1, sequence);
    both.event(1, Event::BlockHeld { name, length: BLOCK, replayed: true });
}

fn lost(both: &mut Ends, sequence: u64) {
    both.event(1, Event::BlockLost { name: BlockName::new(1, sequence) });
}

/// What has become of positions since the last time, with everything accepted that was delivered.
fn fates(both: &mut Ends, stream: KeyStreamId) -> Vec<Fate> {
    let mut fates = Vec::new();
    loop {
        let new: Vec<Fate> = both.ends[1]
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Deliver(d) => Some(Delivered(d.first, u64::from(d.count))),
                Action::Lost { first, count, cause: LossCause::BlockLost, .. } => Some(Lost(*first, *count)),
                Action::Lost { .. } => panic!("{action:?}"),
                _ => None,
            })
            .collect();
        both.ends[1].forget_old();
        if new.is_empty() {
            return fates;
        }
        for fate in new {
            if let Delivered(first, count) = fate {
                both.event(1, Event::Accepted { stream, up_to: first + count });
            }
            fates.push(fate);
        }
    }
}

#[test]
fn chunks_before_a_block_that_is_still_to_come_are_delivered_without_it() {
    let (mut both, stream) = restarted(640, 2);
    assert_eq!(fates(&mut both, stream), []);
    held(&mut both, 0);
    assert_eq!(fates(&mut both, stream), [Delivered(0, 1)]);
    held(&mut both, 1);
    assert_eq!(fates(&mut both, stream), [Delivered(1, 2)]);
}

#[test]
fn chunks_before_a_lost_block_are_delivered_and_those_that_it_touches_are_lost() {
    let (mut both, stream) = restarted(640, 2);
    held(&mut both, 0);
    lost(&mut both, 1);
    assert_eq!(fates(&mut both, stream), [Delivered(0, 1), Lost(1, 2)]);
}

#[test]
fn chunks_after_a_lost_block_are_delivered() {
    let (mut both, stream) = restarted(640, 2);
    lost(&mut both, 0);
    held(&mut both, 1);
    assert_eq!(fates(&mut both, stream), [Lost(0, 2), Delivered(2, 1)]);
    let (mut both, stream) = restarted(512, 3);
    for sequence in [0, 2] {
        held(&mut both, sequence);
    }
    lost(&mut both, 1);
    assert_eq!(fates(&mut both, stream), [Delivered(0, 2), Lost(2, 2), Delivered(4, 2)]);
}

#[test]
fn a_block_between_two_lost_ones_is_delivered_as_far_as_its_chunks_are_whole() {
    let (mut both, stream) = restarted(640, 3);
    lost(&mut both, 0);
    held(&mut both, 1);
    lost(&mut both, 2);
    assert_eq!(fates(&mut both, stream), [Lost(0, 2), Delivered(2, 1), Lost(3, 1)]);
}

#[test]
fn what_is_lost_in_one_stretch_is_counted_once() {
    let (mut both, stream) = restarted(640, 3);
    both.event(1, Event::ReplayEnd);
    assert_eq!(fates(&mut both, stream), [Lost(0, 4)]);
    let counters = both.ends[1].core.status().counters;
    assert_eq!(counters.lost_chunks.iter().sum::<u64>(), 4);
    assert_eq!(both.ends[1].durable.streams[&stream].lost.iter().sum::<u64>(), 4);
}

#[test]
fn loss_is_the_blocks_from_the_position_on_that_the_kms_has_asked_for() {
    let (mut both, stream) = restarted(512, 3);
    both.get_key(1, stream, Some(2));
    let skipped: Vec<(Position, u64)> = both.ends[1]
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Lost { first, count, cause: LossCause::Skipped, .. } => Some((*first, *count)),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, [(0, 2)]);
    both.ends[1].forget_old();
    lost(&mut both, 0);
    lost(&mut both, 1);
    held(&mut both, 2);
    assert_eq!(fates(&mut both, stream), [Lost(2, 2), Delivered(4, 2)]);
}

#[test]
fn loss_at_the_position_that_the_kms_has_asked_for_is_the_blocks() {
    let (mut both, stream) = restarted_from(512, 2, Some(5));
    lost(&mut both, 0);
    held(&mut both, 1);
    assert_eq!(fates(&mut both, stream), [Lost(5, 2), Delivered(7, 2)]);
}

#[test]
fn octets_delivered_are_counted() {
    let (mut both, stream) = restarted(640, 2);
    for sequence in 0..2 {
        held(&mut both, sequence);
    }
    assert_eq!(fates(&mut both, stream), [Delivered(0, 1), Delivered(1, 2)]);
    assert_eq!(both.ends[1].core.status().counters.delivered_bytes, 3 * 640);
}

#[test]
fn what_is_known_to_be_lost_before_its_turn_comes_costs_no_more_than_its_chunks() {
    let (mut both, stream) = restarted(640, 5);
    // Loss is counted only when all before it is accepted, and by then everything has come.
    held(&mut both, 0);
    lost(&mut both, 1);
    held(&mut both, 2);
    held(&mut both, 3);
    lost(&mut both, 4);
    assert_eq!(fates(&mut both, stream), [Delivered(0, 1), Lost(1, 3), Delivered(4, 2), Lost(6, 2)]);
    assert_eq!(both.ends[1].core.status().counters.lost_chunks.iter().sum::<u64>(), 5);
}

#[test]
fn positions_that_were_never_granted_are_not_called_lost() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest { key_chunk_size: Some(512), ..QosRequest::default() });
        both.block();
        both.run(30);
        // Two chunks are granted; then the other KMS wants key from 10 on, of which there is none, and this one after it.
        both.get_key(1 - end, stream, Some(10));
        both.run(30);
        assert_eq!(both.ends[end].durable.streams[&stream].next, 10);
        both.get_key(end, stream, Some(10));
        let counts: Vec<u64> = both.ends[end]
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Lost { count, .. } => Some(*count),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [2], "end {end}");
    }
}
