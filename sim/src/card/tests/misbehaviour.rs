//! Each fault is really there, strikes as often as asked, and the card is sound again afterwards.

use qkd_contract::command::Opcode;
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, State};

use super::host::{BASE, Delivered, Host};
use super::{announce, name, running};
use crate::card::{Name, OnDelivery, Trouble};

fn crcs_match(host: &Host, delivered: &Delivered) -> (bool, bool, bool) {
    let header = delivered.header.unwrap();
    let slot = BASE + u64::from(delivered.event.slot.get() * host.slot_bytes);
    let header_crc = crc32c::crc32c(&host.octets(slot, 60)[..60]);
    let entry = host.event_base() + u64::from((delivered.event.number.get() - 1) % 64) * 64;
    (
        crc32c::crc32c(&delivered.payload) == header.payload_crc.get(),
        header_crc == header.header_crc.get(),
        crc32c::crc32c(host.octets(entry, 56)) == delivered.event.crc.get(),
    )
}

/// The blocks that follow when a fault strikes twice among four.
fn struck(fault: OnDelivery) -> (Host, Vec<Delivered>) {
    let (mut card, mut host) = running();
    card.trouble(Trouble::Deliveries(fault, 2), host.now);
    announce(&mut card, 1, 0..4);
    host.run(&mut card, 5_000);
    let blocks = host.take_all(&mut card);
    assert_eq!(card.state(), State::Running);
    (host, blocks)
}

fn sequences(blocks: &[Delivered]) -> Vec<u64> {
    blocks.iter().map(|block| block.name().sequence).collect()
}

#[test]
fn a_check_is_wrong_where_it_was_asked_and_nowhere_else() {
    for (fault, expected) in [
        (OnDelivery::BadPayloadCrc, (false, true, true)),
        (OnDelivery::BadHeaderCrc, (true, false, true)),
        (OnDelivery::BadEventCrc, (true, true, false)),
    ] {
        let (host, blocks) = struck(fault);
        let found: Vec<_> = blocks.iter().map(|block| crcs_match(&host, block)).collect();
        assert_eq!(found, [expected, expected, (true, true, true), (true, true, true)], "{fault:?}");
    }
}

#[test]
fn blocks_come_twice_or_in_the_wrong_order() {
    assert_eq!(sequences(&struck(OnDelivery::Duplicate).1), [0, 0, 0, 1, 2, 3], "the copy is struck as well");
    assert_eq!(sequences(&struck(OnDelivery::OutOfOrder).1), [1, 0, 3, 2]);
}

#[test]
fn a_length_is_beyond_the_slot_and_a_session_foreign() {
    let (host, blocks) = struck(OnDelivery::LengthBeyondSlot);
    let lengths: Vec<u32> = blocks.iter().map(|block| block.event.length.get()).collect();
    assert_eq!(lengths, [host.slot_bytes, host.slot_bytes, 100, 100]);
    let (_, blocks) = struck(OnDelivery::ForeignSession);
    assert!(blocks[..2].iter().all(|block| block.name().session > 1 << 31));
    assert_eq!(blocks[2].name(), name(1, 2));
}

#[test]
fn an_event_that_is_skipped_is_never_written() {
    let (mut card, mut host) = running();
    card.trouble(Trouble::Deliveries(OnDelivery::EventSkipped, 1), host.now);
    announce(&mut card, 1, 0..2);
    assert_eq!(host.take_all(&mut card).len(), 0, "event 4 never comes");
    let fifth = host.event_base() + 4 * 64;
    assert_eq!(host.octets(fifth + 60, 4), 5_u32.to_le_bytes());
    assert_eq!(card.retained().0, 2, "both come again after the next start");
}

#[test]
fn a_swap_waits_for_a_second_block() {
    let (mut card, mut host) = running();
    card.trouble(Trouble::Deliveries(OnDelivery::OutOfOrder, 1), host.now);
    announce(&mut card, 1, 0..1);
    assert_eq!(host.take_blocks(&mut card), [name(1, 0)]);
    announce(&mut card, 1, 1..4);
    let later: Vec<Name> = [2, 1, 3].map(|sequence| name(1, sequence)).into();
    assert_eq!(host.take_blocks(&mut card), later);
}

#[test]
fn forced_overflow_counts_and_ends() {
    let (mut card, mut host) = running();
    card.trouble(Trouble::Overflow(2), host.now);
    announce(&mut card, 1, 0..4);
    assert_eq!(host.take_blocks(&mut card), [name(1, 2), name(1, 3)]);
    assert_eq!(host.get(&reg::DROPPED_OVERFLOW), 2);
}

#[test]
fn a_wrong_pattern_and_a_failed_boot_are_seen() {
    let (mut card, mut host) = super::booted();
    card.trouble(Trouble::WrongPattern(1), host.now);
    host.command(&mut card, Opcode::SelfTest, 0);
    let wrong = host.octets(BASE, 4096).to_vec();
    host.command(&mut card, Opcode::SelfTest, 0);
    assert_eq!(wrong.iter().zip(host.octets(BASE, 4096)).filter(|(a, b)| a != b).count(), 1);
    card.trouble(Trouble::BootFails, host.now);
    host.command(&mut card, Opcode::Reset, 0);
    host.boot(&mut card);
    assert_eq!((card.state(), card.fault()), (State::Fault, Fault::SelfTest));
    host.command(&mut card, Opcode::Reset, 0);
    host.boot(&mut card);
    assert_eq!(card.state(), State::Stopped);
}

#[test]
fn another_version_is_claimed_at_once() {
    let (mut card, mut host) = super::booted();
    card.trouble(Trouble::Version(0x0002_0000), host.now);
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::VERSION), 0x0002_0000);
}
