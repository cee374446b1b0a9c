//! Whose card it is, which card it is, and what it remembers.

use qkd_driver::backing::{Backing, PciIdentity};
use qkd_driver::{Card, CardOptions, OpenError};

use super::{Outcome, Stage, blocks, close, ensure, next_block, options, told};

/// Opens the card with `options`, which must be refused as `wanted` tells.
fn refused<B: Backing>(
    stage: &Stage<'_, B>,
    options: CardOptions,
    wanted: fn(&OpenError) -> bool,
) -> Outcome {
    match Card::open(stage.take()?, options) {
        Ok(_) => Err("the card was opened".to_owned()),
        Err(error) => ensure(wanted(&error), || format!("it was refused otherwise: {error}")),
    }
}

pub(super) fn a_second_owner_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut card = stage.start()?;
    let second = (stage.reach)();
    ensure(second.is_err(), || "a second owner got the card".to_owned())?;
    // The first one is not disturbed.
    blocks(&mut card, 2)?;
    close(card)?;
    close(stage.open()?)
}

pub(super) fn a_card_of_another_identity_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let pci = PciIdentity { vendor: 0x1234, device: 0x5678 };
    refused(stage, CardOptions { pci, ..options() }, |error| matches!(error, OpenError::OtherDevice { .. }))
}

pub(super) fn a_card_with_another_serial_number_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let serial = Some(0x0BAD_5E71_A100);
    refused(stage, CardOptions { serial, ..options() }, |error| matches!(error, OpenError::OtherCard { .. }))
}

pub(super) fn test_key_is_refused_unless_allowed<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let allow_test_key = false;
    refused(stage, CardOptions { allow_test_key, ..options() }, |error| matches!(error, OpenError::TestKey))
}

pub(super) fn the_cell_rises_and_outlives_its_owner<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut card = stage.open()?;
    let before = card.cell().map_err(told)?;
    card.store_cell(before + 3).map_err(told)?;
    close(card)?;
    let mut card = stage.open()?;
    let after = card.cell().map_err(told)?;
    ensure(after == before + 3, || {
        format!("the cell held {before}, was given {}, and holds {after}", before + 3)
    })?;
    close(card)
}

pub(super) fn a_zeroized_card_proves_it_and_serves_again_after_a_reset<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut card = stage.start()?;
    let last = blocks(&mut card, 2)?.pop().ok_or("nothing was taken")?;
    card.zeroize().map_err(told)?;
    card.reset().map_err(told)?;
    card.start().map_err(told)?;
    let next = next_block(&mut card)?;
    ensure(next.name.session > last.name.session, || {
        format!("{} came after a zeroize that followed {}", next.name, last.name)
    })?;
    close(card)
}
