//! Delivery, replay, retention, acknowledgement.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::{BLOCK_REPLAYED, event};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, LinkState, State};

use super::host::{BASE, EVENTS, SLOTS};
use super::{announce, begin, block, booted, name, running};
use crate::card::{Block, FromLink, KeyOctets, Name};
use crate::link::test_key_cell;

/// The golden octets of that title in the contract.
fn golden(title: &str) -> Vec<u8> {
    let contract = include_str!("../../../../contract/CONTRACT.md");
    let (_, after) = contract.split_once(&format!("*Golden: {title}*")).unwrap();
    let lines = after.split("```").nth(1).unwrap().lines();
    let octets = lines.filter_map(|line| line.split_once(": ")).flat_map(|(_, octets)| octets.split(' '));
    octets.map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

#[test]
fn what_is_written_is_the_contracts_golden_octets() {
    let (mut card, mut host) = booted();
    let golden_name = name(0x1122_3344_5566_7788, 0x9A_0B0C_0D0E);
    begin(&mut card, golden_name.session);
    let key = KeyOctets::filled_by(40, |octets| {
        for (number, cell) in (0..).zip(octets.chunks_mut(16)) {
            cell.copy_from_slice(&test_key_cell(golden_name, number)[..cell.len()]);
        }
    });
    let block = Block { name: golden_name, qber: 21_500, distilled_at: 0x1_2345_6789, key };
    card.receive(FromLink::Block(block));
    card.receive(FromLink::SessionEnded);
    begin(&mut card, golden_name.session + 1);
    host.start(&mut card);

    assert_eq!(host.octets(BASE, 104), golden("block"));
    // The contract's example stands in slot 3; the first slot after START is 0, which changes slot and check.
    let mut first = golden("event BLOCK");
    first[4] = 0;
    let crc = crc32c::crc32c(&first[..56]);
    first[56..60].copy_from_slice(&crc.to_le_bytes());
    let ring = host.event_base();
    assert_eq!(host.octets(ring, 64), first);
    assert_eq!(host.octets(ring + 64, 64), golden("event REPLAY_END"));
    assert_eq!(host.octets(ring + 128, 64), golden("event SESSION"));
}

#[test]
fn after_start_come_replay_its_end_session_and_link() {
    let (mut card, mut host) = booted();
    announce(&mut card, 1, 0..3);
    card.receive(FromLink::SessionEnded);
    begin(&mut card, 2);
    host.start(&mut card);
    announce(&mut card, 2, 0..1);
    let events = host.take_all(&mut card);
    let kinds: Vec<u16> = events.iter().map(super::host::Delivered::kind).collect();
    let expected =
        [event::BLOCK; 3].into_iter().chain([event::REPLAY_END, event::SESSION, event::LINK, event::BLOCK]);
    assert_eq!(kinds, expected.collect::<Vec<_>>());
    let flags = |at: usize| events[at].header.unwrap().flags.get();
    assert_eq!((flags(0), flags(2), flags(6)), (BLOCK_REPLAYED, BLOCK_REPLAYED, 0));
    assert_eq!((events[4].event.session.get(), events[4].event.sequence.get()), (2, 3));
    assert_eq!(events[5].event.detail.get(), LinkState::Distilling.value());
}

#[test]
fn a_host_that_crashed_gets_everything_again() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..5);
    assert_eq!(host.take_blocks(&mut card).len(), 5);
    card.function_reset(&mut host);
    host.boot(&mut card);
    host.start(&mut card);
    let again = host.take_all(&mut card);
    let payloads: Vec<&[u8]> = again.iter().take(5).map(|delivered| &*delivered.payload).collect();
    let expected: Vec<Vec<u8>> = (0..5).map(|fill| vec![fill; 100]).collect();
    assert_eq!(payloads, expected);
}

#[test]
fn payload_is_written_before_header_and_the_event_last() {
    let (mut card, mut host) = running();
    host.writes.clear();
    announce(&mut card, 1, 0..1);
    host.run(&mut card, 1_000);
    let entry = host.event_base() + 3 * 64;
    assert_eq!(host.writes, [(BASE + 64, 100), (BASE, 64), (entry, 56), (entry + 56, 8)]);
}

#[test]
fn no_slot_is_written_without_credit() {
    let (mut card, mut host) = booted();
    announce(&mut card, 1, 0..20);
    host.start_without_credit(&mut card);
    host.run(&mut card, 10_000);
    assert!(host.writes.is_empty(), "not even the events behind the blocks");
    host.give_credit(3);
    host.run(&mut card, 10_000);
    let slots = host.writes.iter().filter(|(at, _)| *at < host.event_base()).count();
    assert_eq!(slots, 2 * 3, "payload and header of three blocks");
}

#[test]
fn a_full_event_ring_is_not_written_over() {
    let (mut card, mut host) = running();
    for turn in 0..u64::from(EVENTS) * 3 {
        // Blocks between the changes keep each from being superseded.
        let state = if turn % 2 == 0 { LinkState::Aligning } else { LinkState::Distilling };
        card.receive(FromLink::State(state));
        host.run(&mut card, 500);
    }
    let entries = host.writes.iter().filter(|(at, length)| *at >= host.event_base() && *length == 8);
    assert_eq!(entries.count(), EVENTS as usize + 3, "three were consumed before");
    assert_eq!(card.state(), State::Running);
    assert!(host.take_all(&mut card).len() >= EVENTS as usize);
}

#[test]
fn what_waits_for_a_host_that_sleeps_is_bounded_and_ends_with_the_present() {
    let (mut card, mut host) = booted();
    host.start_without_credit(&mut card);
    announce(&mut card, 1, 0..1);
    for session in 2..20_000 {
        card.receive(FromLink::SessionEnded);
        card.receive(FromLink::State(LinkState::Off));
        begin(&mut card, session);
    }
    let waiting = card.delivery.as_ref().unwrap().notices_waiting();
    assert!(waiting < 600, "{waiting} notices wait");
    host.give_credit(SLOTS);
    let events = host.take_all(&mut card);
    let sessions: Vec<u64> =
        events.iter().filter(|e| e.kind() == event::SESSION).map(|e| e.event.session.get()).collect();
    assert!(sessions.is_sorted());
    assert_eq!(sessions.last(), Some(&19_999));
    let links = events.iter().rfind(|e| e.kind() == event::LINK);
    assert_eq!(links.unwrap().event.detail.get(), LinkState::Distilling.value());
}

#[test]
fn each_breach_of_the_rings_is_a_fault() {
    for (register, value) in [
        (&reg::SLOT_CREDIT, u64::from(SLOTS) + 1),
        (&reg::SLOT_CREDIT, u64::from(u32::MAX)),
        (&reg::EVENT_CONSUMED, 4),
        (&reg::EVENT_CONSUMED, 3 + (1 << 31)),
        (&reg::ACK_TAIL, 65),
        (&reg::ACK_TAIL, u64::from(u32::MAX)),
    ] {
        let (mut card, mut host) = running();
        announce(&mut card, 1, 0..1);
        host.set(register, value);
        host.run(&mut card, 1_000);
        assert_eq!(card.fault(), Fault::Ring, "{} = {value}", register.name);
        assert_eq!(card.retained().0, 1, "the key stays");
    }
    let (mut card, mut host) = running();
    host.acknowledge(name(2, 0), name(1, 9));
    host.run(&mut card, 1_000);
    assert_eq!(card.fault(), Fault::Ring, "a range that ends before it begins");
}

#[test]
fn an_acknowledged_block_is_never_delivered_again() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..6);
    host.take_blocks(&mut card);
    host.acknowledge(name(1, 1), name(1, 3));
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::ACK_HEAD), 1);
    assert_eq!(host.get(&reg::RETAINED_BLOCKS), 3);
    assert_eq!(host.get(&reg::RETAINED_BYTES), 300);
    host.command(&mut card, Opcode::Stop, 0);
    host.start(&mut card);
    assert_eq!(host.take_blocks(&mut card), [name(1, 0), name(1, 4), name(1, 5)]);
}

#[test]
fn a_block_acknowledged_before_its_turn_is_left_out() {
    let (mut card, mut host) = booted();
    announce(&mut card, 1, 0..20);
    host.start(&mut card);
    // Eight slots are full; the rest of the replay waits.
    host.acknowledge(name(1, 0), name(1, 11));
    host.run(&mut card, 1_000);
    let names = host.take_blocks(&mut card);
    let expected: Vec<Name> = (0..8).chain(12..20).map(|sequence| name(1, sequence)).collect();
    assert_eq!(names, expected);
}

#[test]
fn acknowledging_what_is_not_there_does_nothing_and_later_blocks_stay() {
    let (mut card, mut host) = running();
    host.acknowledge(name(1, 0), name(1, 100));
    host.acknowledge(name(7, 0), name(u64::MAX, u64::MAX));
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::ACK_HEAD), 2);
    announce(&mut card, 1, 0..2);
    assert_eq!(card.retained().0, 2);
    assert_eq!(host.take_blocks(&mut card).len(), 2);
}

#[test]
fn one_range_may_span_sessions() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..3);
    card.receive(FromLink::SessionEnded);
    begin(&mut card, 2);
    announce(&mut card, 2, 0..3);
    host.acknowledge(name(1, 2), name(2, 1));
    host.run(&mut card, 1_000);
    assert_eq!(card.retained().0, 3);
    host.command(&mut card, Opcode::Stop, 0);
    host.start(&mut card);
    assert_eq!(host.take_blocks(&mut card), [name(1, 0), name(1, 1), name(2, 2)]);
}

#[test]
fn acknowledgements_not_taken_before_a_stop_are_forgotten() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..2);
    host.take_blocks(&mut card);
    assert_eq!(host.command(&mut card, Opcode::Stop, 0), Some(Outcome::Done));
    host.acknowledge(name(1, 0), name(1, 1));
    host.run(&mut card, 100_000);
    assert_eq!(card.retained().0, 2);
}

#[test]
fn overflow_refuses_the_newest_and_counts_it() {
    let (mut card, mut host) = booted();
    for sequence in 0..20 {
        card.receive(FromLink::Block(block(1, sequence, 4096)));
    }
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::RETAINED_BYTES), 64 * 1024, "16 blocks fill it");
    assert_eq!(host.get(&reg::DROPPED_OVERFLOW), 4);
    assert_eq!(host.get(&reg::DROPPED_OVERFLOW_BYTES), 4 * 4096);
    assert_eq!(host.get(&reg::NEWEST_SEQUENCE), 15);
    host.start(&mut card);
    host.acknowledge(name(1, 0), name(1, 0));
    host.run(&mut card, 1_000);
    card.receive(FromLink::Block(block(1, 20, 4096)));
    let names = host.take_blocks(&mut card);
    assert_eq!(names.first(), Some(&name(1, 0)), "in flight when it was acknowledged");
    assert_eq!(
        &names[names.len() - 2..],
        [name(1, 15), name(1, 20)],
        "numbers of refused blocks are used up"
    );
}

#[test]
fn overflow_by_count_refuses_the_newest_too() {
    let (mut card, mut host) = booted();
    announce(&mut card, 1, 0..120);
    host.run(&mut card, 1_000);
    assert_eq!((host.get(&reg::RETAINED_BLOCKS), host.get(&reg::DROPPED_OVERFLOW)), (100, 20));
}

#[test]
fn a_block_lost_at_this_end_uses_its_number_up() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..1);
    card.receive(FromLink::Lost(name(1, 1)));
    announce(&mut card, 1, 2..3);
    assert_eq!(host.take_blocks(&mut card), [name(1, 0), name(1, 2)]);
    assert_eq!(host.get(&reg::DROPPED_RECONCILIATION), 1);
    card.receive(FromLink::Lost(name(1, 3)));
    card.receive(FromLink::SessionEnded);
    begin(&mut card, 2);
    let events = host.take_all(&mut card);
    assert_eq!(events.last().unwrap().event.sequence.get(), 4, "the lost ones were numbers too");
}

#[test]
fn the_newest_block_is_never_read_half_changed() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..50);
    host.run(&mut card, 1_000);
    card.receive(FromLink::SessionEnded);
    begin(&mut card, 2);
    announce(&mut card, 2, 0..1);
    let watched = [reg::NEWEST_SESSION.offset, reg::NEWEST_SEQUENCE.offset];
    let mut watcher = Watcher { inner: host, watched, seen: Vec::new() };
    card.step(&mut watcher);
    assert_eq!(watcher.seen, [(watched[0], 0), (watched[1], 0), (watched[0], 2)]);
}

/// Writes down the order in which registers are written.
struct Watcher {
    inner: super::host::Host,
    watched: [u32; 2],
    seen: Vec<(u32, u64)>,
}

impl crate::card::Bus for Watcher {
    fn read32(&self, offset: u32) -> u32 {
        self.inner.read32(offset)
    }

    fn read64(&self, offset: u32) -> u64 {
        self.inner.read64(offset)
    }

    fn write32(&mut self, offset: u32, value: u32) {
        self.inner.write32(offset, value);
    }

    fn write64(&mut self, offset: u32, value: u64) {
        if self.watched.contains(&offset) {
            self.seen.push((offset, value));
        }
        self.inner.write64(offset, value);
    }

    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), crate::card::DmaRefused> {
        self.inner.dma_read(iova, into)
    }

    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), crate::card::DmaRefused> {
        self.inner.dma_write(iova, from)
    }

    fn dma_write_u64(&mut self, iova: u64, value: u64) -> Result<(), crate::card::DmaRefused> {
        self.inner.dma_write_u64(iova, value)
    }

    fn raise(&mut self, vector: u32) {
        self.inner.raise(vector);
    }

    fn now(&self) -> u64 {
        self.inner.now
    }
}
