//! Key as it arrives.

use std::time::{Duration, Instant};

use qkd_driver::backing::Backing;
use qkd_driver::{Card, CardOptions};

use super::{Outcome, Stage, blocks, close, ensure, next_block, options, told};
use crate::DEADLINE;

/// Blocks that are taken where some are needed.
const SOME: usize = 5;

pub(super) fn keys_come_whole_in_order_and_by_interrupt<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let options = CardOptions { spin: Duration::ZERO, ..options() };
    let mut card = Card::open(stage.take()?, options).map_err(|error| error.to_string())?;
    card.start().map_err(told)?;
    let taken = blocks(&mut card, 3 * SOME)?;
    // So many blocks are not all retained: some are waited for, and it is the vector that ends the waiting.
    let before = card.counters().interrupts;
    let end = Instant::now() + DEADLINE;
    while card.counters().interrupts < before + SOME as u64 {
        ensure(Instant::now() < end, || format!("only {} interrupts", card.counters().interrupts - before))?;
        let block = next_block(&mut card)?;
        card.acknowledge(block.name, block.name).map_err(told)?;
    }
    let last = taken.last().ok_or("nothing was taken")?;
    card.acknowledge(taken.first().ok_or("nothing was taken")?.name, last.name).map_err(told)?;
    card.health().map_err(told)?;
    close(card)
}

pub(super) fn what_was_not_acknowledged_comes_again_to_the_next_owner<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut card = stage.start()?;
    let owed = blocks(&mut card, SOME)?;
    close(card)?;
    let mut card = stage.start()?;
    for before in owed {
        let again = next_block(&mut card)?;
        ensure((again.name, again.length) == (before.name, before.length) && again.replayed, || {
            format!("{again:?} came in place of {before:?}")
        })?;
    }
    close(card)
}

pub(super) fn an_acknowledged_block_never_comes_again<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut card = stage.start()?;
    let settled = blocks(&mut card, SOME)?;
    let (first, last) = settled.first().zip(settled.last()).ok_or("nothing was taken")?;
    card.acknowledge(first.name, last.name).map_err(told)?;
    while !card.acknowledgements_settled().map_err(told)? {
        next_block(&mut card)?;
    }
    close(card)?;
    let mut card = stage.start()?;
    for block in blocks(&mut card, SOME)? {
        ensure(block.name > last.name, || {
            format!("{} came again, acknowledged up to {}", block.name, last.name)
        })?;
    }
    close(card)
}

pub(super) fn a_reset_in_mid_transfer_loses_nothing_and_repeats_all_that_is_owed<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut card = stage.start()?;
    for _ in 0..3 {
        let owed = blocks(&mut card, SOME)?;
        // The card has credit and goes on delivering while the function is reset.
        card.recover().map_err(told)?;
        card.start().map_err(told)?;
        for before in &owed {
            let again = next_block(&mut card)?;
            ensure(again.name == before.name && again.length == before.length, || {
                format!("{again:?} came in place of {before:?}")
            })?;
        }
        let last = owed.last().ok_or("nothing was taken")?;
        let next = next_block(&mut card)?;
        ensure(
            next.name.session > last.name.session || next.name.sequence == last.name.sequence + 1,
            || format!("{} came after {}: a block is missing", next.name, last.name),
        )?;
        card.acknowledge(owed.first().ok_or("nothing was taken")?.name, next.name).map_err(told)?;
        while !card.acknowledgements_settled().map_err(told)? {
            next_block(&mut card)?;
        }
        card.recover().map_err(told)?;
        card.start().map_err(told)?;
    }
    close(card)
}
