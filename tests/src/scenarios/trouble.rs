//! Cards that are broken, foreign, or gone.

use std::time::{Duration, Instant};

use qkd_driver::backing::Backing;
use qkd_driver::{Card, CardFaultCode, CardOptions, Fault, OpenError};

use super::{AGAIN, Outcome, Stage, blocks, close, ensure, next_block, options, told};
use crate::DEADLINE;

/// Lets `scene` play and restores the card's own identity, whatever came of it.
fn disguised<B: Backing>(
    stage: &mut Stage<'_, B>,
    words: &str,
    scene: fn(&mut Stage<'_, B>) -> Outcome,
) -> Outcome {
    stage.faults.strike(words)?;
    let outcome = scene(stage);
    stage.faults.strike("kind=own-identity")?;
    outcome?;
    close(stage.open()?)
}

pub(super) fn a_card_that_shows_another_device_identifier_is_refused<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    disguised(stage, "kind=device-id", |stage| match Card::open(stage.take()?, options()) {
        Ok(_) => Err("the card was opened".to_owned()),
        Err(error) => {
            ensure(matches!(error, OpenError::OtherDevice { .. }), || format!("refused otherwise: {error}"))
        }
    })
}

pub(super) fn a_contract_version_too_new_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    disguised(stage, "kind=version", |stage| match Card::open(stage.take()?, options()) {
        Ok(_) => Err("the card was opened".to_owned()),
        Err(error) => ensure(error.to_string().contains("contract version 2."), || {
            format!("refused otherwise: {error}")
        }),
    })
}

pub(super) fn a_failing_self_test_is_told_and_the_next_one_decides<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    stage.faults.strike("kind=self-test count=1")?;
    match Card::open(stage.take()?, options()) {
        Ok(_) => return Err("a card with a wrong pattern was opened".to_owned()),
        Err(OpenError::Fault(Fault::SelfTestPattern { .. })) => {}
        Err(error) => return Err(format!("refused otherwise: {error}")),
    }
    close(stage.open()?)
}

/// Asks for the card's health until it tells of a fault.
fn found_out<B: Backing>(card: &mut Card<B>) -> Result<Fault, String> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Err(fault) = card.health() {
            return Ok(fault);
        }
        ensure(Instant::now() < end, || "nothing was found out".to_owned())?;
        match card.wait(AGAIN, None) {
            Ok(_) => {}
            Err(fault) => return Ok(fault),
        }
        while let Some(event) = card.next_event().map_err(told)? {
            if let qkd_driver::CardEvent::Block(block) = event {
                block.discard();
            }
        }
    }
}

pub(super) fn a_frozen_card_is_found_out_and_comes_back<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    // Its own, short allowance: the longest time of the heartbeat is what is looked for.
    let options = CardOptions { grace: Duration::from_secs(1), ..options() };
    let mut card = Card::open(stage.take()?, options).map_err(|error| error.to_string())?;
    card.start().map_err(told)?;
    next_block(&mut card)?;
    stage.faults.strike("kind=freeze for=4s")?;
    let fault = found_out(&mut card)?;
    ensure(matches!(fault, Fault::Timeout { .. }), || format!("it was taken for: {fault}"))?;
    drop(card);
    let mut card = stage.start()?;
    blocks(&mut card, 2)?;
    close(card)
}

pub(super) fn a_card_in_fault_comes_back_by_a_function_reset<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut card = stage.start()?;
    next_block(&mut card)?;
    stage.faults.strike("kind=internal")?;
    let fault = found_out(&mut card)?;
    ensure(matches!(fault, Fault::CardFault(CardFaultCode::Internal)), || {
        format!("it was taken for: {fault}")
    })?;
    card.recover().map_err(told)?;
    card.start().map_err(told)?;
    blocks(&mut card, 2)?;
    close(card)
}

pub(super) fn a_card_that_is_gone_is_told_without_a_reset_and_may_come_back<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut card = stage.start()?;
    next_block(&mut card)?;
    stage.faults.strike("kind=gone for=3s")?;
    let fault = found_out(&mut card)?;
    ensure(matches!(fault, Fault::Gone), || format!("it was taken for: {fault}"))?;
    let resets = card.counters().resets_tried;
    ensure(matches!(card.recover(), Err(Fault::Gone)), || "a card that is gone was recovered".to_owned())?;
    ensure(card.counters().resets_tried == resets, || "a card that is gone was reset".to_owned())?;
    // Nothing can prove that it has stopped, so its memory is left to it.
    ensure(card.close().is_err(), || "a card that is gone was proven to have stopped".to_owned())?;
    let end = Instant::now() + DEADLINE;
    loop {
        match stage.start() {
            Ok(mut card) => {
                blocks(&mut card, 2)?;
                return close(card);
            }
            Err(error) => ensure(Instant::now() < end, || format!("the card does not come back: {error}"))?,
        }
        std::thread::sleep(AGAIN);
    }
}
