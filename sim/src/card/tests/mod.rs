//! The card's rules, each in virtual time against a host that drives it by hand.

mod delivery;
pub(crate) mod host;
mod interrupts;
mod life;
mod misbehaviour;

use qkd_contract::state::{LinkState, Role};

use super::{Block, Card, FromLink, Identity, KeyOctets, Name, Remembered, WhileRunning};

const BLOCK_MAX: u32 = 4096;

fn identity() -> Identity {
    Identity {
        block_max: BLOCK_MAX,
        retention_bytes: 64 * 1024,
        retention_blocks: 100,
        ..Identity::new(0xA1B2C3, 0xA1B2C4, Role::Transmitter)
    }
}

fn card() -> Card {
    Card::new(identity(), Remembered::default(), Box::new(WhileRunning)).unwrap()
}

fn name(session: u64, sequence: u64) -> Name {
    Name { session, sequence }
}

fn block(session: u64, sequence: u64, length: usize) -> Block {
    let fill = u8::try_from(sequence % 251).unwrap();
    let key = KeyOctets::filled_by(length, |octets| octets.fill(fill));
    Block { name: name(session, sequence), qber: 20_000, distilled_at: sequence * 1_000, key }
}

fn begin(card: &mut Card, session: u64) {
    assert!(card.agree_session(session));
    card.receive(FromLink::State(LinkState::Distilling));
    card.receive(FromLink::SessionBegan(session));
}

/// Announces blocks `sequences` of a session.
fn announce(card: &mut Card, session: u64, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        card.receive(FromLink::Block(block(session, sequence, 100)));
    }
}

/// A booted card with its host, in session 1, Stopped.
fn booted() -> (Card, host::Host) {
    let (mut card, mut host) = (card(), host::Host::new(BLOCK_MAX));
    host.boot(&mut card);
    begin(&mut card, 1);
    host.set_rings();
    (card, host)
}

/// As [`booted`], and Running with the first three events taken.
fn running() -> (Card, host::Host) {
    let (mut card, mut host) = booted();
    host.start(&mut card);
    assert_eq!(host.take_all(&mut card).len(), 3, "REPLAY_END, SESSION, LINK");
    (card, host)
}
