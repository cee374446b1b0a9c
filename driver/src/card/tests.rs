//! A card's behaviour and misbehaviour, in virtual time.

mod delivery;
mod golden;
mod hostile;
mod lifecycle;
mod misbehaviour;
mod plants;
mod scripted;

use std::time::Duration;

use scripted::Scripted;

use super::{Card, CardEvent, CardOptions, TakeError};
use crate::backing::model::{ModelBacking, ModelHandle, VirtualClock};
use crate::fault::Fault;
use crate::name::BlockName;

type TestCard = Card<ModelBacking<Scripted>>;
type Handle = ModelHandle<Scripted>;

const SERIAL: u64 = 0xA1;
const PEER: u64 = 0xB2;
const SLOTS: u32 = 4;

fn options() -> CardOptions {
    CardOptions { slots: SLOTS, acknowledgements: 64, allow_test_key: true, ..CardOptions::default() }
}

fn backing(model: Scripted) -> (ModelBacking<Scripted>, Handle) {
    let backing = ModelBacking::new(model, SERIAL, VirtualClock::new());
    let handle = backing.handle();
    (backing, handle)
}

fn opened() -> (TestCard, Handle) {
    let (backing, handle) = backing(Scripted::new());
    (Card::open(backing, options()).expect("an honest card opens"), handle)
}

/// A running card, past the end of the replay, in session 1.
fn running() -> (TestCard, Handle) {
    let (mut card, handle) = opened();
    card.start().expect("an honest card starts");
    assert_eq!(drain(&mut card).expect("no fault"), []);
    (card, handle)
}

const fn name(session: u64, sequence: u64) -> BlockName {
    BlockName { session, sequence }
}

fn distil(handle: &Handle, length: usize) -> BlockName {
    handle.with(|card, _| card.distil(length))
}

fn settle(handle: &Handle) {
    handle.advance(Duration::from_millis(1));
}

/// Takes every block that lies ready.
fn drain(card: &mut TestCard) -> Result<Vec<BlockName>, Fault> {
    let mut taken = Vec::new();
    loop {
        match card.next_event()? {
            None => return Ok(taken),
            Some(CardEvent::Block(block)) => {
                let name = block.name();
                let mut room = vec![0; block.length()];
                match block.take(&mut room) {
                    Ok(()) => {
                        assert_eq!(room, Scripted::payload(name, room.len()), "octets of {name}");
                        taken.push(name);
                    }
                    Err(TakeError::Fault(fault)) => {
                        assert!(room.iter().all(|octet| *octet == 0), "the room is wiped on a fault");
                        return Err(fault);
                    }
                    Err(TakeError::Lost { .. }) => {
                        assert!(room.iter().all(|octet| *octet == 0), "the room of a lost block is wiped");
                    }
                    Err(TakeError::Room { .. }) => unreachable!("the room has the block's length"),
                }
            }
            Some(_) => {}
        }
    }
}

/// The first fault that the card shows within a second of virtual time, asked in every way there is.
fn first_fault(card: &mut TestCard) -> Fault {
    let deadline = card.now() + Duration::from_secs(1);
    while card.now() < deadline {
        let outcome = drain(card).map(drop).and_then(|()| card.health().map(drop));
        let outcome = outcome.and_then(|()| card.wait(Duration::from_millis(20), None).map(drop));
        if let Err(fault) = outcome {
            return fault;
        }
    }
    panic!("no fault was seen");
}
