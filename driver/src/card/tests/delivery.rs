//! Blocks and events of an honest card.

use std::os::fd::AsFd;
use std::time::Duration;

use qkd_contract::state::LinkState;

use super::{SLOTS, distil, drain, name, opened, running, settle};
use crate::card::{CardEvent, TakeError, Woken};
use crate::fault::Fault;

#[test]
fn blocks_arrive_in_order_with_the_octets_that_the_card_put() {
    let (mut card, handle) = running();
    let names: Vec<_> = [1, 7, 8, 63, 64, 65, 1023, 1024].map(|length| distil(&handle, length)).to_vec();
    let mut taken = Vec::new();
    while taken.len() < names.len() {
        settle(&handle);
        taken.extend(drain(&mut card).expect("no fault"));
    }
    assert_eq!(taken, names);
    assert_eq!(card.counters().blocks_taken, 8);
    assert_eq!(card.counters().bytes_taken, 1 + 7 + 8 + 63 + 64 + 65 + 1023 + 1024);
    assert_eq!(handle.with(|card, _| card.unwiped_slots), 0, "every slot came back wiped");
}

#[test]
fn what_was_retained_is_replayed_marked_and_ended_before_anything_new() {
    let (mut card, handle) = opened();
    let (old, older) = handle.with(|card, _| {
        let older = card.distil(10);
        card.lose_one();
        (card.distil(20), older)
    });
    card.start().expect("it starts");
    settle(&handle);
    for (expected, length) in [(older, 10), (old, 20)] {
        let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
            panic!("a block is due")
        };
        assert!(block.replayed());
        assert_eq!((block.name(), block.length()), (expected, length));
        block.take(&mut vec![0; length]).expect("it is good");
    }
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::ReplayEnd))));
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Session { session: 1, previous_blocks: 0 }))));
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Link(LinkState::Distilling)))));
    assert!(matches!(card.next_event(), Ok(None)));
    distil(&handle, 30);
    settle(&handle);
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    assert!(!block.replayed());
    assert_eq!(block.name(), name(1, 3));
    block.take(&mut [0; 30]).expect("it is good");
    assert_eq!(card.counters().blocks_replayed, 2);
}

#[test]
fn a_block_that_is_not_taken_stays_and_fills_the_ring_not_the_host() {
    let (mut card, handle) = running();
    for _ in 0..10 {
        distil(&handle, 100);
    }
    settle(&handle);
    for _ in 0..3 {
        let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
            panic!("a block is due")
        };
        assert_eq!(block.name(), name(1, 0));
    }
    assert_eq!(
        handle.with(|card, _| card.delivered),
        SLOTS,
        "the card delivers no more than there are slots"
    );
    // Waiting does not spin on the block that is pending.
    let before = card.now();
    assert_eq!(card.wait(Duration::from_millis(5), None).expect("no fault"), Woken::TimedOut);
    assert!(card.now() - before >= Duration::from_millis(5));
    let mut taken = Vec::new();
    while taken.len() < 10 {
        taken.extend(drain(&mut card).expect("no fault"));
        settle(&handle);
    }
}

#[test]
fn room_of_the_wrong_size_loses_nothing() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    let refused = block.take(&mut [7; 99]);
    assert!(matches!(refused, Err(TakeError::Room { needed: 100, given: 99 })));
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0)]);
}

#[test]
fn a_discarded_block_gives_its_slot_back_and_stays_retained() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    block.discard();
    assert_eq!(drain(&mut card).expect("no fault"), []);
    settle(&handle);
    assert_eq!(handle.with(|card, _| (card.unwiped_slots, card.retained.len())), (0, 1));
    card.stop().expect("it stops");
    card.start().expect("it starts");
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0)], "it is replayed");
}

#[test]
fn counters_go_on_over_the_wrap_of_32_bits() {
    let (mut card, handle) = running();
    // Both sides are put just before the wrap, at the same places of their rings.
    let near = u32::MAX - 2;
    let start = near - near % 64 + card.progress.consumed;
    let slots = near - near % SLOTS;
    card.progress.consumed = start;
    card.layout.clear_events(card.memory.as_ref().expect("it is open"));
    (card.progress.delivered, card.progress.credit) = (slots, slots.wrapping_add(SLOTS));
    handle.with(|scripted, bus| {
        scripted.jump(start, slots, slots.wrapping_add(SLOTS));
        bus.write32(qkd_contract::registers::EVENT_CONSUMED.offset, start);
        bus.write32(qkd_contract::registers::SLOT_CREDIT.offset, slots.wrapping_add(SLOTS));
    });
    let mut taken = 0;
    for _ in 0..300 {
        distil(&handle, 50);
        assert_eq!(card.wait(Duration::from_millis(50), None).expect("no fault"), Woken::Event);
        taken += drain(&mut card).expect("no fault").len();
    }
    assert_eq!(taken, 300);
    assert!(card.progress.consumed < 1000 && card.progress.delivered < 1000, "the counters have wrapped");
    assert_eq!(handle.with(|card, _| card.unwiped_slots), 0);
}

#[test]
fn acknowledged_blocks_are_erased_and_not_replayed() {
    let (mut card, handle) = running();
    for _ in 0..3 {
        distil(&handle, 100);
    }
    settle(&handle);
    drain(&mut card).expect("no fault");
    assert!(card.acknowledge(name(1, 0), name(1, 1)).expect("no fault"));
    settle(&handle);
    assert!(card.acknowledgements_settled().expect("no fault"));
    assert_eq!(handle.with(|card, _| card.acknowledged.clone()), [(name(1, 0), name(1, 1))]);
    card.stop().expect("it stops");
    card.start().expect("it starts");
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 2)]);
}

#[test]
fn a_full_acknowledgement_ring_defers_and_loses_nothing() {
    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.acks_ignored = true);
    let mut written = 0;
    while card.acknowledge(name(1, written), name(1, written)).expect("no fault") {
        written += 1;
    }
    assert_eq!(written, 64, "as many as the ring has entries");
    assert_eq!(card.counters().acknowledgements_deferred, 1);
    handle.with(|card, _| card.plants.acks_ignored = false);
    settle(&handle);
    assert!(card.acknowledge(name(1, 64), name(1, 64)).expect("no fault"));
    settle(&handle);
    assert_eq!(handle.with(|card, _| card.acknowledged.len()), 65);
}

#[test]
fn a_range_the_wrong_way_round_never_reaches_the_card() {
    let (mut card, handle) = running();
    let refused = card.acknowledge(name(2, 0), name(1, 9));
    assert!(matches!(refused, Err(Fault::ReversedRange { .. })));
    assert!(card.is_running());
    settle(&handle);
    assert_eq!(handle.with(|card, _| card.acknowledged.len()), 0);
}

#[test]
fn the_wait_ends_for_an_event_the_waker_and_the_time_and_sleeps_in_between() {
    let (mut card, handle) = running();
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    assert_eq!(
        card.wait(Duration::from_millis(20), Some(reader.as_fd())).expect("no fault"),
        Woken::TimedOut
    );
    assert!(card.counters().sleeps > 0, "it blocked rather than polled");
    nix::unistd::write(&writer, b"x").expect("written");
    assert_eq!(card.wait(Duration::from_millis(20), Some(reader.as_fd())).expect("no fault"), Woken::Waker);
    distil(&handle, 10);
    assert_eq!(card.wait(Duration::from_millis(20), Some(reader.as_fd())).expect("no fault"), Woken::Event);
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0)]);
    handle.request_removal();
    assert_eq!(card.wait(Duration::from_secs(1), None).expect("no fault"), Woken::RemovalRequested);
}

#[test]
fn a_request_to_give_the_card_back_is_heard_while_nobody_waits_for_it() {
    let (mut card, handle) = running();
    card.health().expect("no fault");
    assert!(!card.removal_requested());
    handle.request_removal();
    card.health().expect("no fault");
    assert!(card.removal_requested());
    // Told once by the platform, and remembered for whoever waits next.
    assert_eq!(card.wait(Duration::from_secs(1), None).expect("no fault"), Woken::RemovalRequested);
    // The self-test of a recovery waits for the card's own signals; a request that comes meanwhile is not lost.
    let (mut card, handle) = running();
    handle.request_removal();
    card.recover().expect("recovered");
    assert!(card.removal_requested());
}

#[test]
fn an_event_during_sleep_wakes_at_once_by_its_interrupt() {
    let (mut card, handle) = running();
    for round in 1..=5 {
        let start = card.now();
        let distilled = start + Duration::from_millis(20);
        handle.with(|card, _| card.distil_at = Some(u64::try_from(distilled.as_micros()).expect("soon")));
        assert_eq!(card.wait(Duration::from_secs(1), None).expect("no fault"), Woken::Event);
        assert!(
            card.now() < distilled + Duration::from_millis(1),
            "round {round}: not only when the time was up"
        );
        assert_eq!(drain(&mut card).expect("no fault").len(), 1);
    }
}

#[test]
fn a_new_session_and_link_states_are_told() {
    let (mut card, handle) = running();
    distil(&handle, 10);
    handle.with(|card, _| {
        card.tell_link(LinkState::Off);
        card.begin_session(5);
        card.distil(11);
    });
    settle(&handle);
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    block.take(&mut [0; 10]).expect("it is good");
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Link(LinkState::Off)))));
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Session { session: 5, previous_blocks: 1 }))));
    assert_eq!(drain(&mut card).expect("no fault"), [name(5, 0)]);
    assert_eq!(card.newest().expect("no fault"), Some(name(5, 0)));
    assert_eq!(card.session().expect("no fault"), Some(5));
}
