//! Everything that a card may do wrong ends in the fault of its clause, and never in key.

use std::time::Duration;

use qkd_contract::layout::{BlockHeader, Event};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault as CardFaultCode, LinkState};

use super::plants::{Plant, Plants};
use super::scripted::BLOCK_MAX;
use super::{
    SERIAL, Scripted, TestCard, backing, distil, drain, first_fault, name, opened, options, running, settle,
};
use crate::backing::model::ModelHandle;
use crate::card::{BlockFault, Card, CardEvent, CardOptions, OpenError, TakeError};
use crate::fault::Fault;
use crate::identity::IdentityError;

/// The fault after a block whose event was changed.
fn fault_of_event(plant: fn(&mut Event), reseal: bool) -> Fault {
    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.event = Plant::of(2, plant, reseal));
    deliver_three(&mut card, &handle)
}

/// The fault after a block whose header was changed and sealed again.
fn fault_of_header(plant: fn(&mut BlockHeader)) -> Fault {
    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.header = Plant::of(2, plant, true));
    deliver_three(&mut card, &handle)
}

fn deliver_three(card: &mut TestCard, handle: &ModelHandle<Scripted>) -> Fault {
    for _ in 0..3 {
        distil(handle, 100);
    }
    let fault = first_fault(card);
    assert_eq!(card.counters().blocks_taken, 2, "the two good blocks before were taken");
    assert_eq!(card.counters().faults.get(fault.cause()), Some(&1));
    assert!(!fault.clause().is_empty());
    assert!(matches!(card.next_event(), Err(Fault::NotRunning)), "nothing comes out of a card at fault");
    fault
}

#[test]
fn an_event_that_breaks_its_layout_is_a_fault() {
    let wrong_crc = fault_of_event(|event| event.length = 99.into(), false);
    assert!(matches!(wrong_crc, Fault::EventCorrupt { .. }), "{wrong_crc}");
    let kind = fault_of_event(|event| event.kind = 9.into(), true);
    assert!(matches!(kind, Fault::UnknownKind { kind: 9, .. }), "{kind}");
    let flags = fault_of_event(|event| event.flags = 1.into(), true);
    assert!(matches!(flags, Fault::ReservedBits { .. }), "{flags}");
    let reserved = fault_of_event(|event| event.reserved[23] = 1, true);
    assert!(matches!(reserved, Fault::ReservedBits { .. }), "{reserved}");
    let detail = fault_of_event(|event| event.detail = 1.into(), true);
    assert!(matches!(detail, Fault::EventField { field: "detail", .. }), "{detail}");
}

#[test]
fn an_event_number_that_is_skipped_or_comes_twice_is_a_fault() {
    let skipped = fault_of_event(|event| event.number = (event.number.get() + 1).into(), false);
    assert!(matches!(skipped, Fault::EventNumber { .. }), "{skipped}");
    let twice = fault_of_event(|event| event.number = (event.number.get() - 1).into(), false);
    assert!(matches!(twice, Fault::EventNumber { .. }), "{twice}");
}

#[test]
fn an_event_that_is_never_written_is_seen_by_the_next_or_by_its_interrupt() {
    for told_by_block in [true, false] {
        let (mut card, handle) = running();
        handle.with(|card, _| card.plants.skip_event = Some(0));
        distil(&handle, 10);
        settle(&handle);
        assert_eq!(drain(&mut card).expect("nothing in the ring tells yet"), []);
        handle.with(|card, _| match told_by_block {
            true => {
                card.distil(10);
            }
            false => card.tell_link(LinkState::Off),
        });
        let fault = first_fault(&mut card);
        assert!(matches!(fault, Fault::EventNumber { expected: 4, found: 5 }), "{fault}");
    }
}

#[test]
fn a_block_in_the_wrong_slot_or_beyond_it_is_a_fault() {
    let slot = fault_of_event(|event| event.slot = (event.slot.get() ^ 1).into(), true);
    assert!(matches!(slot, Fault::SlotMismatch { .. }), "{slot}");
    let outside = fault_of_event(|event| event.slot = u32::MAX.into(), true);
    assert!(matches!(outside, Fault::SlotMismatch { .. }), "{outside}");
    for length in [0, BLOCK_MAX + 1, u32::MAX] {
        let plant: fn(&mut Event) = match length {
            0 => |event| event.length = 0.into(),
            u32::MAX => |event| event.length = u32::MAX.into(),
            _ => |event| event.length = (BLOCK_MAX + 1).into(),
        };
        let fault = fault_of_event(plant, true);
        assert!(matches!(fault, Fault::LengthBeyondSlot { length: found, .. } if found == length), "{fault}");
    }
}

#[test]
fn a_block_out_of_order_twice_or_of_another_session_is_a_fault() {
    for (forged, session) in
        [(name(1, 1), false), (name(1, 0), false), (name(0, 5), true), (name(2, 5), true)]
    {
        let (mut card, handle) = running();
        distil(&handle, 10);
        distil(&handle, 10);
        handle.with(|card, _| card.forge(forged, 10, false));
        let fault = first_fault(&mut card);
        assert_eq!(card.counters().blocks_taken, 2);
        match session {
            true => assert!(matches!(fault, Fault::ForeignSession { .. }), "{fault}"),
            false => assert!(matches!(fault, Fault::BlockOutOfOrder { .. }), "{fault}"),
        }
    }
}

#[test]
fn a_session_that_is_not_newer_is_a_fault() {
    for session in [0, 1] {
        let (mut card, handle) = running();
        handle.with(|card, _| card.begin_session(session));
        let fault = first_fault(&mut card);
        assert!(matches!(fault, Fault::SessionOutOfOrder { .. }), "{fault}");
    }
}

#[test]
fn the_rules_of_replay_are_held() {
    let (mut card, handle) = running();
    handle.with(|card, _| card.forge(name(1, 0), 10, true));
    handle.with(|card, _| card.retained.insert(name(1, 0), 10));
    let fault = first_fault(&mut card);
    assert!(
        matches!(fault, Fault::Replay { clause: "BLK-3", .. }),
        "a replayed block after the end: {fault}"
    );

    let (mut card, handle) = running();
    handle.with(|card, _| card.end_replay_again());
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::Replay { clause: "RPL-1", .. }), "a second end: {fault}");

    let (mut card, handle) = opened();
    handle.with(|card, _| {
        card.distil(10);
        card.plants.header = Plant::of(0, |header| header.flags = 0.into(), true);
    });
    card.start().expect("it starts");
    let fault = first_fault(&mut card);
    assert!(
        matches!(fault, Fault::Replay { clause: "BLK-3", .. }),
        "a replayed block without its mark: {fault}"
    );
}

#[test]
fn a_header_that_disagrees_with_its_event_is_a_fault() {
    type Change = fn(&mut BlockHeader);
    let plants: [(Change, &str); 5] = [
        (|header| header.magic = 1.into(), "magic"),
        (|header| header.version = 2.into(), "version"),
        (|header| header.session = 2.into(), "session"),
        (|header| header.sequence = 1.into(), "sequence"),
        (|header| header.length = 99.into(), "length"),
    ];
    for (plant, expected) in plants {
        let fault = fault_of_header(plant);
        assert!(
            matches!(fault, Fault::HeaderMismatch { field, .. } if field == expected),
            "{expected}: {fault}"
        );
    }
    let flags = fault_of_header(|header| header.flags = 2.into());
    assert!(matches!(flags, Fault::ReservedBits { .. }) && flags.clause() == "BLK-3", "{flags}");
    let reserved = fault_of_header(|header| header.reserved[0] = 1);
    assert!(matches!(reserved, Fault::ReservedBits { .. }) && reserved.clause() == "BLK-2", "{reserved}");
    let qber = fault_of_header(|header| header.qber = 1_000_001.into());
    assert!(matches!(qber, Fault::ValueOutOfRange { clause: "BLK-6", .. }), "{qber}");
}

#[test]
fn a_wrong_crc_costs_this_block_only() {
    for in_header in [true, false] {
        let (mut card, handle) = running();
        handle.with(|card, _| match in_header {
            true => card.plants.header = Plant::of(1, |header| header.qber = 5.into(), false),
            false => card.plants.payload = Plant::of(1, |payload| payload[99] ^= 0x80, false),
        });
        for _ in 0..3 {
            distil(&handle, 100);
        }
        settle(&handle);
        assert_eq!(drain(&mut card).expect("the card goes on"), [name(1, 0), name(1, 2)]);
        let counters = card.counters();
        assert_eq!(counters.blocks_bad_header, u64::from(in_header));
        assert_eq!(counters.blocks_bad_payload, u64::from(!in_header));
        settle(&handle);
        assert_eq!(handle.with(|card, _| card.unwiped_slots), 0, "its slot came back wiped");
    }
}

#[test]
fn a_card_that_writes_into_a_slot_after_its_event_gives_no_wrong_key() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    handle.with(|_, bus| {
        let slot = bus.read64(reg::SLOT_BASE.offset);
        bus.dma_write(slot + 64 + 50, &[0xEE; 8]).expect("it is mapped");
    });
    let mut room = [0xFF; 100];
    let lost = block.take(&mut room);
    assert!(matches!(lost, Err(TakeError::Lost { cause: BlockFault::PayloadCorrupt, .. })), "{lost:?}");
    assert_eq!(room, [0; 100], "the room is wiped");
}

#[test]
fn a_card_that_vanishes_is_gone_and_is_not_reset() {
    let (mut card, handle) = running();
    distil(&handle, 100);
    settle(&handle);
    drain(&mut card).expect("no fault");
    handle.with(|card, _| card.plants.all_ones = true);
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::Gone), "{fault}");
    let resets = handle.with(|card, _| card.resets);
    assert!(matches!(card.recover(), Err(Fault::Gone)));
    assert_eq!(handle.with(|card, _| card.resets), resets);
    assert!(handle.leaked_bytes() > 0, "without proof of a stop the memory is not used again");
    assert!(matches!(card.recover(), Err(Fault::GivenUp { .. })));
    assert_eq!(card.close().expect_err("it is not forgotten").leaked, handle.leaked_bytes());
}

#[test]
fn a_stopped_heartbeat_and_acknowledgements_that_are_not_taken_are_seen() {
    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.heart_stopped = true);
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::Timeout { clause: "TIM-8", .. }), "{fault}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.acks_ignored = true);
    card.acknowledge(name(1, 0), name(1, 0)).expect("there is room");
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::Timeout { clause: "TIM-10", .. }), "{fault}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.shown.insert(reg::ACK_HEAD.offset, 1));
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::AckHead { found: 1, .. }), "{fault}");
}

#[test]
fn a_card_that_breaks_down_restarts_or_changes_its_peer_is_seen() {
    let (mut card, handle) = running();
    handle.with(|card, _| card.break_down(CardFaultCode::Temperature));
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::CardFault(CardFaultCode::Temperature)), "{fault}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.restart_by_itself());
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::UnexpectedState { .. }), "{fault}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.shown.insert(reg::PEER_SERIAL.offset, 0xC3));
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::PeerChanged { found: 0xC3, .. }), "{fault}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.shown.insert(reg::STATE.offset, 77));
    let fault = first_fault(&mut card);
    assert!(matches!(fault, Fault::UndefinedValue { register: "STATE", value: 77 }), "{fault}");
}

#[test]
fn telemetry_that_never_holds_still_or_is_out_of_range_ends_in_bounded_time() {
    let (mut card, handle) = running();
    let reading = card.telemetry().expect("no fault");
    assert_eq!(
        (reading.qber_ppm, reading.detector_temperature, reading.board_temperature),
        (21_500, Some(-50_000), None)
    );
    handle.with(|card, _| card.shown.insert(reg::QBER.offset, 1_000_001));
    assert!(matches!(card.telemetry(), Err(Fault::ValueOutOfRange { what: "QBER", .. })));

    let (mut card, handle) = running();
    handle.with(|card, _| card.shown.insert(reg::TELEMETRY_SEQUENCE.offset, 3));
    let before = card.now();
    assert!(matches!(card.telemetry(), Err(Fault::Timeout { clause: "TIM-13", .. })));
    assert!(card.now() - before < Duration::from_millis(200));
}

#[test]
fn the_cell_and_the_newest_name_never_fall() {
    let (mut card, handle) = running();
    assert_eq!(card.cell().expect("no fault"), 7);
    card.store_cell(9).expect("it is stored");
    assert_eq!(handle.with(|card, _| card.cell()), 9);
    card.store_cell(3).expect("a smaller value is nothing");
    assert_eq!(card.cell().expect("no fault"), 9);
    handle.with(|card, _| card.shown.insert(reg::CELL.offset, 8));
    let fell = card.cell().expect_err("the cell fell");
    assert!(matches!(fell, Fault::Cell { from: 9, to: 9, found: 8 }) && fell.clause() == "CEL-1", "{fell}");

    let (mut card, handle) = running();
    handle.with(|card, _| card.plants.cell_stuck = true);
    assert!(matches!(card.store_cell(99), Err(Fault::Timeout { clause: "TIM-7", .. })));

    let (mut card, handle) = running();
    assert_eq!(card.newest().expect("no fault"), None);
    distil(&handle, 10);
    distil(&handle, 10);
    assert_eq!(card.newest().expect("no fault"), Some(name(1, 1)));
    handle.with(|card, _| card.shown.insert(reg::NEWEST_SEQUENCE.offset, 0));
    assert!(matches!(card.newest(), Err(Fault::NewestFell { .. })));
}

/// What opening a card with these plants ends in.
fn open_error(plants: Plants, shown: &[(reg::Register, u64)], options: CardOptions) -> OpenError {
    let mut model = Scripted::new();
    model.plants = plants;
    model.shown = shown.iter().map(|(register, value)| (register.offset, *value)).collect();
    let (backing, handle) = backing(model);
    let error = Card::open(backing, options).expect_err("it must not open");
    assert_eq!(handle.mapped_bytes(), 0, "nothing stays mapped after {error}");
    assert_ne!(handle.unmapped_memory_is_wiped(), Some(false));
    error
}

#[test]
fn a_card_that_is_none_or_of_another_version_is_refused_before_its_registers_are_touched() {
    let magic = open_error(Plants::default(), &[(reg::MAGIC, 5)], options());
    assert!(matches!(magic, OpenError::Identity(IdentityError::WrongMagic { found: 5 })), "{magic}");
    let gone = open_error(Plants { all_ones: true, ..Plants::default() }, &[], options());
    assert!(matches!(gone, OpenError::Identity(IdentityError::Gone)), "{gone}");
    let major = open_error(Plants::default(), &[(reg::VERSION, 0x2_0000)], options());
    assert!(
        matches!(major, OpenError::Identity(IdentityError::OtherVersion { major: 2, minor: 0 })),
        "{major}"
    );
    assert!(major.to_string().contains("version 2.0"), "it is said in words: {major}");

    let mut newer = Scripted::new();
    newer.shown.insert(reg::VERSION.offset, 0x1_0007);
    newer.shown.insert(reg::FEATURES.offset, reg::feature::DEFINED | 1 << 40);
    let (backing, _handle) = backing(newer);
    let card = Card::open(backing, options()).expect("a newer minor version is accepted");
    assert_eq!(card.identity().version, (1, 7));
}

#[test]
fn limits_and_serials_are_held_when_a_card_is_opened() {
    let wrong: [(reg::Register, u64); 8] = [
        (reg::BLOCK_MAX, 0),
        (reg::BLOCK_MAX, 100),
        (reg::BLOCK_MAX, (1 << 20) + 64),
        (reg::RETENTION_BYTES, 10),
        (reg::RETENTION_BLOCKS, 0),
        (reg::ROLE, 3),
        (reg::SERIAL, 0),
        (reg::PEER_SERIAL, SERIAL),
    ];
    for (register, value) in wrong {
        let error = open_error(Plants::default(), &[(register, value)], options());
        assert!(
            matches!(error, OpenError::Identity(IdentityError::OutOfRange { register: found, .. }) if found == register.name),
            "{} = {value}: {error}",
            register.name
        );
    }
    let capability = open_error(Plants::default(), &[(reg::SERIAL, 0x77)], options());
    assert!(matches!(capability, OpenError::Identity(IdentityError::OtherCapability { .. })), "{capability}");
    let other = open_error(Plants::default(), &[], CardOptions { serial: Some(0x99), ..options() });
    assert!(matches!(other, OpenError::OtherCard { which: "this card", .. }), "{other}");
    let peer = open_error(Plants::default(), &[], CardOptions { peer_serial: Some(0x99), ..options() });
    assert!(matches!(peer, OpenError::OtherCard { expected: 0x99, .. }), "{peer}");
    let test_key = open_error(Plants::default(), &[], CardOptions { allow_test_key: false, ..options() });
    assert!(matches!(test_key, OpenError::TestKey), "{test_key}");
}

#[test]
fn dma_and_interrupts_are_proven_before_a_card_is_used() {
    let pattern = open_error(Plants { pattern: Some(4095), ..Plants::default() }, &[], options());
    assert!(matches!(pattern, OpenError::Fault(Fault::SelfTestPattern { octet: 4095 })), "{pattern}");
    let silent = open_error(Plants { no_interrupts: true, ..Plants::default() }, &[], options());
    assert!(matches!(silent, OpenError::Fault(Fault::Timeout { .. })), "{silent}");
    let boot = open_error(Plants { never_boots: true, ..Plants::default() }, &[], options());
    assert!(matches!(boot, OpenError::Fault(Fault::Timeout { clause: "TIM-1", .. })), "{boot}");
}
