//! Arming, moderation, enabling.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::pci::{CONTROL_VECTOR, EVENT_VECTOR};
use qkd_contract::registers as reg;

use super::host::Host;
use super::{announce, running};

fn arm(host: &mut Host, serial: u64, number: u64) {
    host.raised.clear();
    host.set(&reg::ARM, serial << 32 | number);
}

#[test]
fn an_armed_event_is_told_once() {
    let (mut card, mut host) = running();
    arm(&mut host, 1, 3);
    host.run(&mut card, 10_000);
    assert!(host.raised.is_empty(), "nothing new yet");
    announce(&mut card, 1, 0..4);
    host.run(&mut card, 10_000);
    assert_eq!(host.raised, [EVENT_VECTOR]);
}

#[test]
fn an_event_before_the_arm_is_told_at_once() {
    let (mut card, mut host) = running();
    announce(&mut card, 1, 0..1);
    host.run(&mut card, 10_000);
    arm(&mut host, 1, 3);
    card.step(&mut host);
    assert_eq!(host.raised, [EVENT_VECTOR]);
}

#[test]
fn numbers_compare_across_the_wrap() {
    let (mut card, mut host) = running();
    // Three events are written: a number just below 2^32 lies before them, one far ahead does not.
    arm(&mut host, 1, u64::from(u32::MAX));
    card.step(&mut host);
    assert_eq!(host.raised, [EVENT_VECTOR]);
    arm(&mut host, 2, 1 << 31);
    card.step(&mut host);
    assert!(host.raised.is_empty());
}

#[test]
fn moderation_holds_an_interrupt_back_no_longer_than_it_says() {
    let (mut card, mut host) = running();
    host.set(&reg::MODERATION, 5_000);
    arm(&mut host, 1, 3);
    announce(&mut card, 1, 0..1);
    host.run(&mut card, 4_500);
    assert!(host.raised.is_empty());
    host.run(&mut card, 1_500);
    assert_eq!(host.raised, [EVENT_VECTOR]);
    host.set(&reg::MODERATION, u64::from(u32::MAX));
    arm(&mut host, 2, 3);
    host.run(&mut card, 11_000);
    assert_eq!(host.raised, [EVENT_VECTOR], "no more than the maximum counts");
}

#[test]
fn a_vector_that_is_not_enabled_is_not_raised_and_not_kept() {
    let (mut card, mut host) = running();
    host.set(&reg::INTERRUPT_ENABLE, 2);
    arm(&mut host, 1, 3);
    announce(&mut card, 1, 0..1);
    host.run(&mut card, 1_000);
    host.set(&reg::INTERRUPT_ENABLE, 3);
    host.run(&mut card, 1_000);
    assert!(host.raised.is_empty());
}

#[test]
fn a_serial_from_before_start_is_served() {
    let (mut card, mut host) = running();
    host.command(&mut card, Opcode::Stop, 0);
    arm(&mut host, 1, 0);
    host.start(&mut card);
    assert!(!host.raised.contains(&EVENT_VECTOR));
}

#[test]
fn a_raise_reaches_the_vector_that_was_named() {
    let (mut card, mut host) = running();
    host.raised.clear();
    assert_eq!(host.command(&mut card, Opcode::Raise, EVENT_VECTOR), Some(Outcome::Done));
    assert_eq!(host.raised, [EVENT_VECTOR, CONTROL_VECTOR]);
}
