//! What the card reports, and what must be made of it.

use super::two_ends::{BLOCK, End, Ends, settings};
use crate::agreement::core::Core;
use crate::agreement::{
    Action, BlockName, Capacity, Durable, Event, Level, Mark, Message, Now, Output, Role,
};
use crate::interface::QosRequest;

fn released(both: &Ends, end: usize, name: BlockName) -> bool {
    both.ends[end].actions.iter().any(|a| matches!(a, Action::Release { block } if *block == name))
}

fn warnings(both: &Ends, end: usize) -> usize {
    let loud = |a: &&Action| matches!(a, Action::Say { level: Level::Warn | Level::Error, .. });
    both.ends[end].actions.iter().filter(loud).count()
}

#[test]
fn a_block_without_octets_or_with_a_name_that_none_may_have_is_given_back() {
    let mut both = Ends::in_step(1_000_000);
    let (empty, nameless) = (BlockName::new(1, 0), BlockName::new(1, u64::MAX));
    for (name, length) in [(empty, 0), (nameless, BLOCK)] {
        both.event(1, Event::BlockHeld { name, length, replayed: false });
        assert!(released(&both, 1, name), "{name}");
        assert!(both.ends[1].says("a name or length that none may have"));
    }
    assert_eq!(both.ends[1].core.status().held, Capacity { bytes: 0, blocks: 0 });
}

#[test]
fn a_block_that_is_reported_twice_is_said_and_one_that_is_not_is_no_news() {
    let mut both = Ends::in_step(1_000_000);
    both.ends[1].forget_old();
    both.block();
    assert_eq!(warnings(&both, 1), 0);
    let name = BlockName::new(1, 0);
    both.event(1, Event::BlockHeld { name, length: BLOCK, replayed: false });
    assert!(both.ends[1].says("reported twice"));
    assert_eq!(both.ends[1].core.status().held.bytes, u64::from(BLOCK));
}

#[test]
fn a_new_session_tells_that_nothing_of_the_one_before_comes_any_more() {
    let mut both = Ends::in_step(1_000_000);
    both.block();
    both.run(20);
    both.ends[1].forget_old();
    both.event(1, Event::Session { session: 2, previous_blocks: 1 });
    assert_eq!(warnings(&both, 1), 0);
    let heard = both.overhear(20);
    let mut complete = heard[0].iter().filter_map(|message| match message {
        Message::Report(report) => Some(report.complete),
        _ => None,
    });
    assert_eq!(complete.next_back(), Some(BlockName::new(2, 0)));
    both.event(1, Event::Session { session: 1, previous_blocks: 0 });
    assert!(both.ends[1].says("after a later one"));
}

#[test]
fn streams_pin_half_of_the_smaller_room_in_octets_and_in_blocks() {
    let (mut leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    (leader.vault_bytes, leader.card.retention.blocks) = (10_000, 100);
    (follower.vault_bytes, follower.card.retention.blocks) = (20_000, 30);
    let both = Ends::with(leader, follower, 1_000_000);
    assert_eq!(both.ends[0].core.pin_limit(), Capacity { bytes: 5_000, blocks: 15 });
}

/// The mark that a core begins with whose ledger is of these cards.
fn mark_of_cards(card: u64, peer_card: u64) -> Mark {
    let mut both = Ends::in_step(1_000_000);
    both.stream(QosRequest::default());
    both.block();
    both.run(50);
    let durable: Durable = both.ends[1].durable.clone();
    assert!(durable.mark > Mark::ZERO);
    let mut settings = settings(Role::Follower);
    (settings.card.serial, settings.card.peer_serial) = (card, peer_card);
    let mut core = Core::new(settings, durable);
    let now = Now { boot_ms: both.time, wall_ms: 1_700_000_000_000 + both.time };
    core.handle(now, Event::Start, &mut Output::default());
    core.status().mark
}

#[test]
fn marks_of_another_pair_of_cards_say_nothing_also_where_only_one_card_was_replaced() {
    assert!(mark_of_cards(2, 1) > Mark::ZERO, "the same pair");
    assert_eq!(mark_of_cards(2, 9), Mark::ZERO);
    assert_eq!(mark_of_cards(9, 1), Mark::ZERO);
    assert_eq!(mark_of_cards(8, 9), Mark::ZERO);
}

#[test]
fn what_the_kms_has_accepted_before_a_restart_is_acknowledged_to_the_card_after_it() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest { key_chunk_size: Some(64), ..QosRequest::default() });
        both.block();
        both.run(30);
        for either in 0..2 {
            both.accept(either, stream);
        }
        both.run(300);
        let durable = both.ends[end].durable.clone();
        both.ends[end] = End::new(settings([Role::Leader, Role::Follower][end]), durable);
        both.event(end, Event::Start);
        let name = BlockName::new(1, 0);
        both.event(end, Event::BlockHeld { name, length: BLOCK, replayed: true });
        both.event(end, Event::ReplayEnd);
        let acknowledged =
            |a: &Action| matches!(a, Action::Acknowledge { first, last } if *first <= name && name <= *last);
        assert!(both.ends[end].actions.iter().any(acknowledged), "end {end}");
        assert!(released(&both, end, name), "end {end}");
    }
}

#[test]
fn an_output_is_empty_only_without_writes_and_without_actions() {
    let action = || Action::Zeroized;
    let write = || crate::agreement::Record::WriteNumber(1);
    assert!(Output::default().is_empty());
    assert!(!Output { writes: vec![write()], actions: Vec::new() }.is_empty());
    assert!(!Output { writes: Vec::new(), actions: vec![action()] }.is_empty());
    assert!(!Output { writes: vec![write()], actions: vec![action()] }.is_empty());
}
