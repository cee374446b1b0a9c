//! Life cycle, commands, resets, zeroize, the cell.

use std::io;

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::self_test_octet;
use qkd_contract::limits::{HEARTBEAT_MS, SELF_TEST_BYTES};
use qkd_contract::pci::CONTROL_VECTOR;
use qkd_contract::registers::{self as reg, Access};
use qkd_contract::state::{Fault, LinkState, State};

use super::host::{BASE, Host, SLOTS};
use super::{BLOCK_MAX, announce, begin, booted, card, identity, name, running};
use crate::card::{Card, FromLink, NonVolatile, Remembered, Trouble};

const SECOND: u64 = 1_000_000;

#[test]
fn boot_shows_identity_and_stops() {
    let (mut card, mut host) = (card(), Host::new(BLOCK_MAX));
    card.step(&mut host);
    assert_eq!(host.get(&reg::STATE), u64::from(State::Boot.value()));
    assert_eq!(host.get(&reg::MAGIC), 0x3144_4B51);
    host.boot(&mut card);
    assert_eq!(host.get(&reg::STATE), u64::from(State::Stopped.value()));
    assert_eq!(host.get(&reg::SERIAL), 0xA1B2C3);
    assert_eq!(host.get(&reg::PEER_SERIAL), 0, "not known before the first session");
    begin(&mut card, 1);
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::PEER_SERIAL), 0xA1B2C4);
}

#[test]
fn a_command_in_a_wrong_state_has_no_effect() {
    let (mut card, mut host) = booted();
    assert_eq!(host.command(&mut card, Opcode::Stop, 0), Some(Outcome::WrongState));
    assert_eq!(card.state(), State::Stopped);
    host.start(&mut card);
    for opcode in [Opcode::Start, Opcode::SelfTest] {
        assert_eq!(host.command(&mut card, opcode, 0), Some(Outcome::WrongState));
    }
    assert_eq!(card.state(), State::Running);
}

#[test]
fn an_unknown_opcode_an_argument_or_an_old_tag_does_nothing() {
    let (mut card, mut host) = booted();
    host.set(&reg::COMMAND, 9 << 16 | 77);
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::COMMAND_DONE), u64::from(9 << 16 | Outcome::UnknownOpcode.value()));
    host.set(&reg::COMMAND, u64::from(9 << 16 | Opcode::Start.value()));
    host.run(&mut card, 10_000);
    assert_eq!(card.state(), State::Stopped, "the tag was used");
    assert_eq!(host.command(&mut card, Opcode::Start, 5), Some(Outcome::BadConfiguration));
    assert_eq!(host.command(&mut card, Opcode::Raise, 2), Some(Outcome::BadConfiguration));
}

#[test]
fn rings_that_break_a_rule_are_refused() {
    for (register, bad) in [
        (&reg::SLOT_BASE, 0),
        (&reg::SLOT_BASE, BASE + 64),
        (&reg::SLOT_BASE, u64::MAX - 4095),
        (&reg::EVENT_BASE, BASE + 4096),
        (&reg::ACK_BASE, BASE),
        (&reg::SLOT_BYTES, 4096),
        (&reg::SLOT_BYTES, 8192 + 64),
        (&reg::SLOT_COUNT, 1),
        (&reg::SLOT_COUNT, 12),
        (&reg::SLOT_COUNT, 1 << 17),
        (&reg::EVENT_COUNT, 32),
        (&reg::ACK_COUNT, 0),
    ] {
        let (mut card, mut host) = booted();
        host.set(register, bad);
        for opcode in [Opcode::Start, Opcode::SelfTest] {
            let outcome = host.command(&mut card, opcode, 0);
            assert_eq!(outcome, Some(Outcome::BadConfiguration), "{} = {bad:#x}", register.name);
        }
    }
}

#[test]
fn self_test_writes_the_pattern_and_nothing_else() {
    let (mut card, mut host) = booted();
    assert_eq!(host.command(&mut card, Opcode::SelfTest, 0), Some(Outcome::Done));
    let expected: Vec<u8> = (0..SELF_TEST_BYTES).map(self_test_octet).collect();
    assert_eq!(host.octets(BASE, 4096), expected);
    assert_eq!(host.writes, [(BASE, 4096)]);
    assert_eq!(host.raised, [CONTROL_VECTOR]);
}

#[test]
fn dma_without_bus_mastering_is_a_fault_and_not_a_write() {
    let (mut card, mut host) = booted();
    host.bus_master = false;
    assert_eq!(host.command(&mut card, Opcode::SelfTest, 0), Some(Outcome::Failed));
    assert_eq!((card.state(), card.fault()), (State::Fault, Fault::Dma));
    assert_eq!(host.get(&reg::DMA_ERRORS), 1);
    assert!(host.writes.is_empty());
    card.function_reset(&mut host);
    host.boot(&mut card);
    assert_eq!((card.state(), card.fault()), (State::Stopped, Fault::None), "this cause does not last");
}

#[test]
fn nothing_is_written_after_the_stop_is_shown() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..20);
    assert_eq!(host.command(&mut card, Opcode::Stop, 0), Some(Outcome::Done));
    let writes = host.writes.len();
    announce(&mut card, 1, 20..30);
    host.run(&mut card, SECOND);
    assert_eq!(host.writes.len(), writes);
    assert_eq!(host.get(&reg::STATE), u64::from(State::Stopped.value()));
    assert_eq!(host.get(&reg::RETAINED_BLOCKS), 30, "distilling goes on");
}

#[test]
fn reset_drops_what_is_retained_and_the_registers_of_the_host() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..5);
    host.set(&reg::CELL_STORE, 41);
    host.run(&mut card, 10_000);
    assert_eq!(host.command(&mut card, Opcode::Reset, 0), Some(Outcome::Done));
    assert_eq!(card.retained(), (0, 0));
    for register in reg::ALL.iter().filter(|register| register.access == Access::Host) {
        assert_eq!(host.get(register), 0, "{}", register.name);
    }
    host.run(&mut card, SECOND);
    assert_eq!(card.state(), State::Stopped);
    assert_eq!((card.session(), host.get(&reg::SESSION)), (0, 0));
    assert_eq!(host.get(&reg::NEWEST_SESSION), 0);
    assert_eq!(host.get(&reg::BLOCKS_ANNOUNCED), 5, "counted since power-on");
    assert_eq!(host.get(&reg::CELL), 41);
    host.start(&mut card);
    assert!(host.take_blocks(&mut card).is_empty());
}

#[test]
fn a_session_number_never_comes_again() {
    let (mut card, mut host) = booted();
    assert!(!card.agree_session(1), "the number in use");
    host.command(&mut card, Opcode::Reset, 0);
    assert!(!card.agree_session(1), "a number of before the reset");
    card.trouble(Trouble::PowerLoss, host.now);
    host.boot(&mut card);
    assert!(!card.agree_session(1), "a number of before the power loss");
    assert!(card.agree_session(7));
    card.receive(FromLink::SessionBegan(6));
    host.run(&mut card, 1_000);
    assert_eq!(card.fault(), Fault::NonVolatile, "a session that was not agreed");
    assert_eq!(card.session(), 0);
}

#[test]
fn a_function_reset_keeps_keys_session_cell_and_counters() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..5);
    host.set(&reg::CELL_STORE, 9);
    host.run(&mut card, 10_000);
    card.function_reset(&mut host);
    assert_eq!(host.get(&reg::COMMAND), 0);
    assert_eq!(host.get(&reg::COMMAND_DONE), 0);
    announce(&mut card, 1, 5..6);
    host.boot(&mut card);
    assert_eq!(card.state(), State::Stopped);
    assert_eq!(host.get(&reg::SESSION), 1);
    assert_eq!(host.get(&reg::CELL), 9);
    assert_eq!((host.get(&reg::NEWEST_SESSION), host.get(&reg::NEWEST_SEQUENCE)), (1, 5));
    host.start(&mut card);
    assert_eq!(host.take_blocks(&mut card), (0..6).map(|n| name(1, n)).collect::<Vec<_>>());
}

#[test]
fn a_function_reset_cuts_a_command_short_without_an_outcome() {
    let (mut card, mut host) = booted();
    host.set(&reg::COMMAND, u64::from(1 << 16 | Opcode::Start.value()));
    card.step(&mut host);
    card.function_reset(&mut host);
    host.run(&mut card, SECOND);
    assert_eq!(card.state(), State::Stopped);
    assert_eq!(host.get(&reg::COMMAND_DONE), 0);
}

#[test]
fn zeroize_shows_its_proof_and_only_reset_goes_on_from_it() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..5);
    assert_eq!(host.command(&mut card, Opcode::Zeroize, 0), Some(Outcome::Done));
    assert_eq!(host.get(&reg::STATE), u64::from(State::Zeroized.value()));
    for (register, value) in [
        (&reg::ZEROIZED, 1),
        (&reg::RETAINED_BLOCKS, 0),
        (&reg::RETAINED_BYTES, 0),
        (&reg::SESSION, 0),
        (&reg::LINK_STATE, LinkState::Off.value().into()),
        (&reg::NEWEST_SEQUENCE, 4),
    ] {
        assert_eq!(host.get(register), value, "{}", register.name);
    }
    assert!(!card.optics_ready());
    announce(&mut card, 1, 5..6);
    assert_eq!(card.retained(), (0, 0), "no block is announced in Zeroized");
    assert_eq!(host.command(&mut card, Opcode::Start, 0), Some(Outcome::WrongState));
    card.function_reset(&mut host);
    host.boot(&mut card);
    assert_eq!(card.state(), State::Zeroized);
    assert_eq!(host.command(&mut card, Opcode::Reset, 0), Some(Outcome::Done));
    host.boot(&mut card);
    assert_eq!((card.state(), host.get(&reg::ZEROIZED)), (State::Stopped, 1));
}

#[test]
fn a_reset_while_zeroizing_waits_for_the_erasure() {
    let (mut card, mut host) = running();
    host.set(&reg::COMMAND, u64::from(100 << 16 | Opcode::Zeroize.value()));
    card.step(&mut host);
    assert_eq!(card.state(), State::Zeroizing);
    host.set(&reg::COMMAND, u64::from(101 << 16 | Opcode::Reset.value()));
    card.step(&mut host);
    assert_eq!(card.state(), State::Zeroizing);
    host.run(&mut card, 10_000);
    assert_eq!(host.get(&reg::COMMAND_DONE), u64::from(101 << 16 | Outcome::Done.value()));
    assert_eq!(host.get(&reg::ZEROIZED), 1);
    host.boot(&mut card);
    assert_eq!(card.state(), State::Stopped);
}

#[test]
fn a_function_reset_while_zeroizing_does_not_undo_it() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..5);
    host.set(&reg::COMMAND, u64::from(100 << 16 | Opcode::Zeroize.value()));
    card.step(&mut host);
    card.function_reset(&mut host);
    host.boot(&mut card);
    assert_eq!((card.state(), card.retained().0, host.get(&reg::ZEROIZED)), (State::Zeroized, 0, 1));
}

#[test]
fn the_cell_rises_only_and_outlives_everything() {
    let (mut card, mut host) = booted();
    for (store, shown) in [(5, 5), (4, 5), (u64::MAX - 1, u64::MAX - 1), (6, u64::MAX - 1)] {
        host.set(&reg::CELL_STORE, store);
        host.run(&mut card, 1_000);
        assert_eq!(host.get(&reg::CELL), shown);
    }
    card.trouble(Trouble::PowerLoss, host.now);
    host.boot(&mut card);
    assert_eq!(host.get(&reg::CELL), u64::MAX - 1);
    assert_eq!(host.command(&mut card, Opcode::Zeroize, 0), Some(Outcome::Done));
    assert_eq!(host.get(&reg::CELL), u64::MAX - 1);
}

struct Broken;

impl NonVolatile for Broken {
    fn store(&mut self, _: Remembered) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn no_session_begins_and_no_cell_rises_when_memory_fails() {
    let mut card = Card::new(identity(), Remembered::default(), Box::new(Broken)).unwrap();
    let mut host = Host::new(BLOCK_MAX);
    host.boot(&mut card);
    assert!(!card.agree_session(1));
    host.run(&mut card, 1_000);
    assert_eq!((card.state(), card.fault()), (State::Fault, Fault::NonVolatile));
    host.set(&reg::CELL_STORE, 1);
    host.run(&mut card, 1_000);
    assert_eq!(host.get(&reg::CELL), 0);
    assert_eq!(host.command(&mut card, Opcode::Reset, 0), Some(Outcome::Done));
    host.boot(&mut card);
    assert_eq!(card.fault(), Fault::NonVolatile, "lasts over RESET");
}

#[test]
fn faults_last_as_the_contract_says() {
    for (fault, over_function_reset, over_reset, keeps_keys) in [
        (Fault::Ring, false, false, true),
        (Fault::Internal, true, false, true),
        (Fault::Tamper, true, true, false),
    ] {
        let (mut card, mut host) = running();
        announce(&mut card, 1, 0..3);
        card.trouble(Trouble::Fault(fault), host.now);
        host.run(&mut card, 1_000);
        assert_eq!((card.state(), card.fault()), (State::Fault, fault));
        assert_eq!(host.raised.last(), Some(&CONTROL_VECTOR));
        assert_eq!(card.retained().0 == 3, keeps_keys, "{fault:?}");
        card.function_reset(&mut host);
        host.boot(&mut card);
        assert_eq!(card.state() == State::Fault, over_function_reset, "{fault:?}");
        host.command(&mut card, Opcode::Reset, 0);
        host.boot(&mut card);
        assert_eq!(card.state() == State::Fault, over_reset, "{fault:?}");
    }
}

#[test]
fn the_heartbeat_beats_in_time_and_stops_with_the_card() {
    let (mut card, mut host) = booted();
    let mut last = host.get(&reg::HEARTBEAT);
    for _ in 0..20 {
        host.run(&mut card, HEARTBEAT_MS * 1_000);
        assert_ne!(std::mem::replace(&mut last, host.get(&reg::HEARTBEAT)), last);
    }
    card.trouble(Trouble::Freeze(SECOND), host.now);
    let stopped = host.get(&reg::HEARTBEAT);
    host.run(&mut card, SECOND / 2);
    assert_eq!(host.get(&reg::HEARTBEAT), stopped);
    host.run(&mut card, SECOND);
    assert_ne!(host.get(&reg::HEARTBEAT), stopped);
}

#[test]
fn a_card_that_is_gone_reads_all_ones_and_comes_back_empty() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..3);
    card.trouble(Trouble::Gone(SECOND), host.now);
    host.run(&mut card, SECOND / 2);
    assert!(reg::ALL.iter().all(|register| host.get(register) == u64::MAX >> (64 - 8 * register.width)));
    card.function_reset(&mut host);
    assert_eq!(host.get(&reg::MAGIC), u64::from(u32::MAX), "a card that is gone answers no reset");
    host.run(&mut card, SECOND);
    assert_eq!(host.get(&reg::MAGIC), 0x3144_4B51);
    assert_eq!((card.state(), card.retained()), (State::Stopped, (0, 0)));
    assert_eq!(host.get(&reg::BLOCKS_ANNOUNCED), 0);
    assert_eq!(host.get(&reg::SLOT_COUNT), 0);
}

#[test]
fn a_register_that_the_host_wrote_over_is_mended() {
    let (mut card, mut host) = booted();
    host.set(&reg::SERIAL, 1);
    host.set(&reg::RETAINED_BYTES, 1 << 40);
    host.run(&mut card, HEARTBEAT_MS * 1_000);
    assert_eq!(host.get(&reg::SERIAL), 0xA1B2C3);
    assert_eq!(host.get(&reg::RETAINED_BYTES), 0);
}

#[test]
fn credit_given_before_start_is_honoured() {
    let (mut card, mut host) = booted();
    announce(&mut card, 1, 0..3);
    host.set(&reg::SLOT_CREDIT, SLOTS.into());
    host.command(&mut card, Opcode::Start, 0);
    host.run(&mut card, 1_000);
    assert_eq!(host.peek().unwrap().name(), name(1, 0));
}
