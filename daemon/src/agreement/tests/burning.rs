//! When the leader burns what both ends hold because of what one of them lacks, and when it waits.

use super::two_ends::{Ends, settings};
use crate::agreement::{BlockName, Capacity, Decision, Event, Mark, Role};
use crate::interface::QosRequest;

const LENGTH: u32 = 1_024;

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

/// Blocks of [`LENGTH`] that both ends (`h`), only the leader (`l`) or only the follower (`f`) gets, from `first` on.
fn cards(both: &mut Ends, first: u64, what: &str) {
    for (sequence, kind) in (first..).zip(what.chars()) {
        let name = BlockName::new(1, sequence);
        for (end, lacks) in [(0, 'f'), (1, 'l')] {
            both.event(
                end,
                match kind == lacks {
                    true => Event::BlockLost { name },
                    false => Event::BlockHeld { name, length: LENGTH, replayed: false },
                },
            );
        }
    }
    both.run(50);
}

/// Marks that the leader's entries have burnt to, in their order.
fn burns(both: &Ends) -> Vec<Mark> {
    let log = both.ends[0].durable.log.values();
    log.filter_map(|logged| match &logged.entry.decision {
        Decision::Burn { to } => Some(*to),
        _ => None,
    })
    .collect()
}

fn burnt(both: &Ends) -> u64 {
    both.ends[0].core.status().counters.burnt_bytes
}

/// A stream takes a part of block 0 and is closed at both ends. Nobody takes key any more.
fn begun_block(both: &mut Ends) {
    let stream = both.stream(qos(1_000));
    cards(both, 0, "h");
    assert_eq!(both.ends[0].total(stream), 1_000);
    for end in 0..2 {
        both.accept(end, stream);
    }
    both.run(20);
    for end in 0..2 {
        both.close(end, stream);
        both.run(20);
    }
}

#[test]
fn the_rest_of_a_block_that_nobody_takes_goes_with_what_is_missing_behind_it() {
    let mut both = Ends::in_step(8_000_000);
    begun_block(&mut both);
    cards(&mut both, 1, "l");
    assert_eq!(both.ends[0].core.status().held.blocks, 0, "nothing is kept for nobody");
    assert_eq!(burnt(&both), 24 + u64::from(LENGTH));
}

#[test]
fn whole_blocks_wait_for_a_stream_to_come_also_before_one_that_is_missing() {
    let mut both = Ends::in_step(8_000_000);
    // Until the epoch's own burn is trimmed.
    both.run(100);
    cards(&mut both, 0, "hl");
    assert_eq!((burns(&both), burnt(&both)), (vec![], 0));
    let stream = both.stream(qos(32));
    both.run(20);
    assert_eq!(both.ends.each_ref().map(|end| end.total(stream)), [u64::from(LENGTH); 2]);
}

#[test]
fn a_whole_block_behind_the_rest_of_one_waits_for_a_stream_to_come() {
    let mut both = Ends::in_step(8_000_000);
    begun_block(&mut both);
    cards(&mut both, 1, "hf");
    assert_eq!(burnt(&both), 0);
    let stream = both.stream(qos(32));
    both.run(20);
    assert_eq!(both.ends[0].total(stream), 32 * (u64::from(LENGTH + 24) / 32));
}

#[test]
fn the_rest_of_a_block_does_not_wait_for_a_stream_that_only_one_kms_has_asked_for() {
    for end in 0..2 {
        let mut both = Ends::in_step(8_000_000);
        begun_block(&mut both);
        let stream = both.opened(qos(16));
        both.get_key(end, stream, None);
        both.run(20);
        cards(&mut both, 1, "l");
        assert_eq!(burnt(&both), 24 + u64::from(LENGTH), "asked for at end {end}");
    }
}

/// Octets burnt when both ends hold less than a chunk, and then one lacks so many blocks one by one.
fn burnt_behind_less_than_a_chunk(retention: Capacity, lacking: usize) -> u64 {
    let [leader, follower] = [Role::Leader, Role::Follower].map(|role| {
        let mut settings = settings(role);
        settings.card.retention = retention;
        settings
    });
    let mut both = Ends::with(leader, follower, 8_000_000);
    both.stream(qos(4_096));
    cards(&mut both, 0, &("h".to_owned() + &"l".repeat(lacking)));
    burnt(&both)
}

#[test]
fn less_than_a_chunk_waits_until_an_eighth_of_the_room_is_kept_behind_it() {
    let length = u64::from(LENGTH);
    // An eighth of 256 blocks, of 160 KiB, and never less than one block.
    for (blocks, bytes, enough) in [(256, 1 << 30, 32), (65_536, 160 << 10, 20), (2, 1 << 30, 1)] {
        let retention = Capacity { bytes, blocks };
        let burnt = |lacking| burnt_behind_less_than_a_chunk(retention, lacking);
        assert_eq!(burnt(enough - 1), 0, "{retention:?}");
        assert_eq!(burnt(enough), (1 + enough as u64) * length, "{retention:?}");
    }
}

#[test]
fn burns_wait_like_other_entries_while_the_other_end_says_nothing() {
    let mut leader = settings(Role::Leader);
    leader.most_entries_in_flight = 2;
    let mut both = Ends::with(leader, settings(Role::Follower), 8_000_000);
    both.run(50);
    both.connected = false;
    for sequence in 0..5 {
        let name = BlockName::new(1, sequence);
        both.event(1, Event::BlockHeld { name, length: LENGTH, replayed: false });
        both.event(0, Event::BlockLost { name });
        both.run(50);
    }
    assert_eq!(burns(&both).len(), 2);
    both.connected = true;
    cards(&mut both, 5, "f");
    both.run(5_000);
    assert_eq!(both.ends[1].durable.mark, Mark::at(BlockName::new(1, 6)));
}
