//! Start, stop, zeroize, recovery, and the order in which a card is given up.

use std::time::Duration;

use qkd_contract::command::Opcode;
use qkd_contract::registers as reg;
use qkd_contract::state::Fault as CardFaultCode;

use super::{Scripted, backing, distil, drain, first_fault, name, opened, options, running, settle};
use crate::card::{Card, CardEvent, CardOptions};
use crate::fault::Fault;

#[test]
fn closing_a_running_card_stops_it_and_wipes_what_it_had_delivered() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Block(_)))), "key lies in a slot");
    card.close().expect("the stop is proven");
    assert_eq!(handle.with(|card, _| card.commands.last().copied()), Some(Opcode::Stop));
    assert_eq!((handle.mapped_bytes(), handle.leaked_bytes()), (0, 0));
    assert_eq!(handle.unmapped_memory_is_wiped(), Some(true));
    assert!(!handle.with(|_, bus| bus.bus_mastering()), "bus mastering is off");
}

#[test]
fn dropping_a_card_does_the_same() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Block(_)))));
    drop(card);
    assert_eq!((handle.mapped_bytes(), handle.leaked_bytes()), (0, 0));
    assert_eq!(handle.unmapped_memory_is_wiped(), Some(true));
}

#[test]
fn a_stop_that_is_not_answered_is_proven_by_a_reset() {
    let (card, handle) = running();
    handle.with(|card, _| card.plants.silent = Some(Opcode::Stop));
    let before = handle.with(|card, _| card.resets);
    card.close().expect("the reset is the proof");
    assert_eq!(handle.with(|card, _| card.resets), before + 1);
    assert_eq!(handle.leaked_bytes(), 0);
}

#[test]
fn a_stop_that_cannot_be_proven_leaks_the_memory_instead_of_using_it_again() {
    let (card, handle) = running();
    handle.with(|card, _| {
        card.plants.wrong_state_after = Some(Opcode::Stop);
        card.plants.reset_fails = true;
    });
    let error = card.close().expect_err("nothing is proven");
    assert!(error.leaked > 0);
    assert_eq!(handle.leaked_bytes(), error.leaked);
    assert_eq!(handle.unmapped_memory_is_wiped(), Some(true), "it is wiped all the same");
}

#[test]
fn commands_that_are_never_answered_end_at_their_deadline() {
    for (opcode, clause) in [(Opcode::Start, "TIM-2"), (Opcode::Zeroize, "TIM-4"), (Opcode::Reset, "TIM-6")] {
        let (mut card, handle) = opened();
        handle.with(|card, _| card.plants.silent = Some(opcode));
        let before = card.now();
        let fault = match opcode {
            Opcode::Start => card.start(),
            Opcode::Zeroize => card.zeroize().map(drop),
            _ => card.reset(),
        };
        assert!(matches!(fault, Err(Fault::Timeout { clause: found, .. }) if found == clause), "{fault:?}");
        assert!(card.now() - before < Duration::from_millis(1_100));
    }
}

#[test]
fn a_state_that_does_not_follow_its_command_is_a_fault() {
    let (mut card, handle) = opened();
    handle.with(|card, _| card.plants.wrong_state_after = Some(Opcode::Start));
    assert!(matches!(card.start(), Err(Fault::UnexpectedState { .. })));
    assert!(!card.is_running());
}

#[test]
fn recovery_loses_no_block_that_the_card_retains() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    distil(&handle, 100);
    settle(&handle);
    assert_eq!(drain(&mut card).expect("no fault").len(), 2);
    handle.with(|card, _| card.break_down(CardFaultCode::Ring));
    first_fault(&mut card);
    card.recover().expect("a function reset ends it");
    card.start().expect("it starts");
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0), name(1, 1)], "all is replayed");
    assert_eq!(card.counters().recoveries, 1);
}

#[test]
fn a_reset_that_fails_is_tried_again() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    handle.with(|card, _| {
        card.break_down(CardFaultCode::Dma);
        card.plants.reset_fails = true;
    });
    first_fault(&mut card);
    assert!(matches!(card.recover(), Err(Fault::Backing(_))));
    handle.with(|card, _| card.plants.reset_fails = false);
    card.recover().expect("it works now");
    card.start().expect("it starts");
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0)]);
}

#[test]
fn too_many_faults_stop_the_card_for_good_with_its_memory_wiped() {
    let (mut card, handle) = running();
    for _ in 0..options().recoveries {
        handle.with(|card, _| card.break_down(CardFaultCode::Dma));
        first_fault(&mut card);
        card.recover().expect("there are recoveries left");
        card.start().expect("it starts");
    }
    handle.with(|card, _| card.break_down(CardFaultCode::Dma));
    first_fault(&mut card);
    assert!(matches!(card.recover(), Err(Fault::GivenUp { recoveries: 5 })));
    assert!(matches!(card.recover(), Err(Fault::GivenUp { .. })), "for good");
    assert!(matches!(card.next_event(), Err(Fault::NotRunning)));
    assert_eq!((handle.mapped_bytes(), handle.leaked_bytes()), (0, 0));
    assert_eq!(handle.unmapped_memory_is_wiped(), Some(true));
}

#[test]
fn faults_long_ago_do_not_count() {
    let (mut card, handle) = running();
    for _ in 0..3 * options().recoveries {
        handle.with(|card, _| card.break_down(CardFaultCode::Dma));
        first_fault(&mut card);
        card.recover().expect("the others are long ago");
        card.start().expect("it starts");
        handle.advance(options().recovery_window);
    }
}

#[test]
fn another_card_after_a_reset_is_not_taken_for_the_same() {
    let (mut card, handle) = running();
    handle.with(|card, _| card.break_down(CardFaultCode::Dma));
    first_fault(&mut card);
    handle.with(|card, _| card.shown.insert(reg::SERIAL.offset, 0xDD));
    assert!(matches!(card.recover(), Err(Fault::IdentityChanged(_))));
}

#[test]
fn a_card_that_lost_power_is_taken_back_and_another_peer_is_not() {
    let (mut card, handle) = running();
    distil(&handle, 10);
    assert_eq!(card.newest().expect("no fault"), Some(name(1, 0)));
    handle.with(|card, _| {
        card.retained.clear();
        card.shown.insert(reg::PEER_SERIAL.offset, 0);
        card.shown.insert(reg::NEWEST_SESSION.offset, 0);
        card.shown.insert(reg::BLOCKS_ANNOUNCED.offset, 0);
        card.restart_by_itself();
    });
    first_fault(&mut card);
    card.recover().expect("nothing is wrong with it");
    assert_eq!(card.identity().peer_serial, None);
    assert_eq!(card.newest().expect("no fault"), None);
    card.start().expect("it starts");
    card.health().expect("an unknown peer is no fault");
    handle.with(|card, _| card.shown.insert(reg::PEER_SERIAL.offset, 0xC3));
    assert!(matches!(card.health(), Err(Fault::PeerChanged { found: 0xC3, .. })));
}

#[test]
fn zeroize_is_believed_only_with_its_proof() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    card.zeroize().expect("it is proven");
    assert_eq!(handle.with(|card, _| card.retained.len()), 0);
    assert!(matches!(card.start(), Err(Fault::NotStopped)));
    card.reset().expect("a card reset goes on");
    card.start().expect("it starts");

    let (mut card, handle) = running();
    distil(&handle, 100);
    handle.with(|card, _| card.plants.zeroize_leaves_blocks = true);
    assert!(matches!(card.zeroize(), Err(Fault::NotZeroized { .. })));

    let (mut card, handle) = running();
    handle.with(|card, _| card.shown.insert(reg::ZEROIZED.offset, 0));
    assert!(matches!(card.zeroize(), Err(Fault::NotZeroized { .. })));
}

#[test]
fn a_card_that_comes_up_zeroized_is_reset() {
    let (mut card, handle) = opened();
    card.zeroize().expect("it is proven");
    card.break_for_test();
    card.recover().expect("a card reset leads out of Zeroized");
    assert!(handle.with(|card, _| card.commands.contains(&Opcode::Reset)));
    card.start().expect("it starts");
}

#[test]
fn options_outside_their_range_are_refused() {
    for wrong in [
        CardOptions { slots: 3, ..options() },
        CardOptions { slots: 1, ..options() },
        CardOptions { acknowledgements: 32, ..options() },
        CardOptions { moderation_us: 10_001, ..options() },
    ] {
        let (backing, _handle) = backing(Scripted::new());
        assert!(matches!(Card::open(backing, wrong), Err(crate::card::OpenError::Option { .. })));
    }
}

#[test]
fn a_stopped_card_wipes_its_slots_and_can_start_again() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Block(_)))));
    card.stop().expect("it stops");
    let slot = handle.with(|_, bus| {
        let mut octets = [0xFF; 164];
        bus.dma_read(bus.read64(reg::SLOT_BASE.offset), &mut octets).expect("still mapped");
        octets
    });
    assert_eq!(slot, [0; 164]);
    card.stop().expect("stopping twice is nothing");
    card.start().expect("it starts");
    assert_eq!(drain(&mut card).expect("no fault"), [name(1, 0)]);
}

impl super::TestCard {
    fn break_for_test(&mut self) {
        self.life = crate::card::Life::Faulted;
    }
}

#[test]
fn a_card_that_loses_power_while_it_is_opened_is_set_up_again() {
    for (opcode, swallowed) in
        [Opcode::SelfTest, Opcode::Raise].into_iter().flat_map(|at| [(at, false), (at, true)])
    {
        let mut model = Scripted::new();
        model.plants.power_loss_at = Some(opcode);
        model.plants.power_loss_swallows_it = swallowed;
        let (backing, handle) = backing(model);
        let mut card = Card::open(backing, options()).expect("it opens once it has power again");
        assert_eq!(card.counters().recoveries, 1, "{opcode:?}, never answered: {swallowed}");
        card.start().expect("it starts");
        let name = distil(&handle, 10);
        assert_eq!(drain(&mut card).expect("no fault"), [name]);
    }
}
