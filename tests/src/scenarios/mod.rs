//! What must hold of a card and its driver whatever the card is reached through: one list, run over the vfio-user socket
//! and, in the virtual machine, over the kernel's VFIO.
//!
//! The card is a simulated one with positional test key. Scenarios leave it as they found it, in any order.

mod dma;
mod keys;
mod life;
mod trouble;

use std::time::{Duration, Instant};

use qkd_driver::backing::{Backing, BackingError};
use qkd_driver::{BlockName, Card, CardEvent, CardOptions, Fault, TakeError};

use crate::DEADLINE;
use crate::test_key::test_key;

/// What is allowed to every time of the contract: the card is simulated, perhaps under an emulated processor.
const GRACE: Duration = Duration::from_secs(10);
/// Between two tries of something that must come true.
const AGAIN: Duration = Duration::from_millis(50);

/// Makes the card under test misbehave.
pub trait Faults {
    /// Strikes with a fault in the words of `qkd-sim pair --fault`, without `at`. It has struck when this returns.
    ///
    /// # Errors
    /// Why it could not.
    fn strike(&mut self, words: &str) -> Result<(), String>;
}

/// What a scenario works with.
pub struct Stage<'a, B> {
    /// Takes the card. While it is held, taking it again fails.
    pub reach: &'a dyn Fn() -> Result<B, BackingError>,
    /// Whoever has the card in hand.
    pub faults: &'a mut dyn Faults,
}

/// A scenario's outcome: nothing, or why it failed.
pub type Outcome = Result<(), String>;

/// One scenario.
pub struct Scenario<B> {
    /// What it is feared may happen, or must.
    pub name: &'static str,
    /// Plays it.
    pub play: fn(&mut Stage<'_, B>) -> Outcome,
}

macro_rules! scenarios {
    ($($part:ident: $($name:ident)+;)+) => {
        /// Every scenario.
        #[must_use]
        pub fn all<B: Backing>() -> Vec<Scenario<B>> {
            vec![$($(Scenario { name: stringify!($name), play: $part::$name }),+),+]
        }

        /// The names of all scenarios.
        pub const NAMES: &[&str] = &[$($(stringify!($name)),+),+];
    };
}

scenarios! {
    keys:
        keys_come_whole_in_order_and_by_interrupt
        what_was_not_acknowledged_comes_again_to_the_next_owner
        an_acknowledged_block_never_comes_again
        a_reset_in_mid_transfer_loses_nothing_and_repeats_all_that_is_owed;
    dma:
        dma_to_an_address_never_mapped_is_refused
        dma_beyond_the_end_of_a_mapping_is_refused
        dma_after_unmap_is_refused
        dma_without_bus_mastering_is_refused
        delivery_into_memory_that_was_taken_away_ends_in_a_fault;
    life:
        a_second_owner_is_refused
        a_card_of_another_identity_is_refused
        a_card_with_another_serial_number_is_refused
        test_key_is_refused_unless_allowed
        the_cell_rises_and_outlives_its_owner
        a_zeroized_card_proves_it_and_serves_again_after_a_reset;
    trouble:
        a_card_that_shows_another_device_identifier_is_refused
        a_contract_version_too_new_is_refused
        a_failing_self_test_is_told_and_the_next_one_decides
        a_frozen_card_is_found_out_and_comes_back
        a_card_in_fault_comes_back_by_a_function_reset
        a_card_that_is_gone_is_told_without_a_reset_and_may_come_back;
}

/// How cards are opened here.
fn options() -> CardOptions {
    CardOptions { allow_test_key: true, grace: GRACE, slots: 16, recoveries: 32, ..CardOptions::default() }
}

impl<B: Backing> Stage<'_, B> {
    /// Takes the card, which is free or about to be.
    fn take(&self) -> Result<B, String> {
        (self.reach)().map_err(|error| format!("the card cannot be reached: {error}"))
    }

    /// Takes and opens the card.
    fn open(&self) -> Result<Card<B>, String> {
        Card::open(self.take()?, options()).map_err(|error| format!("the card cannot be opened: {error}"))
    }

    /// Opens the card and starts it.
    fn start(&self) -> Result<Card<B>, String> {
        let mut card = self.open()?;
        card.start().map_err(|fault| format!("the card cannot be started: {fault}"))?;
        Ok(card)
    }
}

/// A block that was taken and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    name: BlockName,
    length: usize,
    replayed: bool,
}

/// The next block, its octets held against its name. Gives up at the deadline.
fn next_block<B: Backing>(card: &mut Card<B>) -> Result<Taken, String> {
    let end = Instant::now() + DEADLINE;
    loop {
        while let Some(event) = card.next_event().map_err(told)? {
            let CardEvent::Block(block) = event else { continue };
            let (name, length, replayed) = (block.name(), block.length(), block.replayed());
            let mut key = vec![0; length];
            block.take(&mut key).map_err(|error: TakeError| error.to_string())?;
            if key != test_key(name, length) {
                return Err(format!("block {name} holds other octets than its name stands for"));
            }
            return Ok(Taken { name, length, replayed });
        }
        if Instant::now() > end {
            return Err(format!("no block within {DEADLINE:?}"));
        }
        card.wait(Duration::from_secs(1), None).map_err(told)?;
    }
}

/// So many blocks, each with a greater name than the one before.
fn blocks<B: Backing>(card: &mut Card<B>, count: usize) -> Result<Vec<Taken>, String> {
    let mut taken: Vec<Taken> = Vec::new();
    while taken.len() < count {
        let block = next_block(card)?;
        if let Some(last) = taken.last()
            && last.name >= block.name
        {
            return Err(format!("block {} came after {}", block.name, last.name));
        }
        taken.push(block);
    }
    Ok(taken)
}

fn told(fault: Fault) -> String {
    format!("{fault} [{}]", fault.cause())
}

/// Stops the card and gives it back.
fn close<B: Backing>(card: Card<B>) -> Outcome {
    card.close().map_err(|error| error.to_string())
}

/// That something is as it must be.
fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why()) }
}
