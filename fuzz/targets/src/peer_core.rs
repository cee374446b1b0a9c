//! The key agreement's core against a peer that says anything: messages of a real conversation distorted, doubled and held
//! back, entries and reports that fit the chain and the state but lie, and octets.
//!
//! Whatever it hears, the core must not panic, must not grow, must not give an octet of key to two places, and must give
//! key only to a stream that a KMS at this end has opened and asked for.

mod attack;
mod books;
mod ends;

use qkd_daemon::agreement::{Message, Record};

use crate::Target;
use crate::input::Input;
use crate::mutate::Dice;
use ends::Ends;

pub(crate) const TARGET: Target = Target { name: "peer_core", run, seeds, bounded: 1_500, longest: 2_048 };

fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let attacked = usize::from(input.byte() & 1);
    let mut ends = Ends::in_step(attacked);
    ends.open_stream();
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        attack::step(&mut ends, &mut input);
    }
    // Whatever was said, an honest peer is served again.
    ends.heal();
}

fn seeds() -> Vec<Vec<u8>> {
    let mut dice = Dice(9);
    // Each kind of step once by itself, at both ends, then mixtures.
    let mut seeds: Vec<Vec<u8>> = (0..2 * attack::KINDS)
        .map(|step| {
            let mut seed = vec![step % 2, 1, 3, 1, 3, 0, 40, 1, 3, step / 2];
            seed.extend((0..60).map(|_| dice.roll().to_le_bytes()[0] % 16));
            seed
        })
        .collect();
    // A leader that grants, in many ways, what it has granted before.
    seeds.extend((0..24_u8).map(|number| {
        let mut seed = vec![1, 1, 3, 1, 3, 0, 40, 1, 3, 0, 40];
        for again in 0..4 {
            let (count, block, offset) = (number % 4, again, number / 4 * 32);
            // Entries: none more; stream; grant; count; block; offset; length; extents; mark; first; lines; epoch; heard.
            seed.extend([8, 0, 0, 4, count, block, offset, 0, 0, 0, 0, 0, 0, 0]);
            seed.extend([0, 5]);
        }
        seed
    }));
    seeds.extend((0..24).map(|_| (0..120).map(|_| dice.roll().to_le_bytes()[0]).collect()));
    seeds
}

/// Messages of a conversation between two honest ends.
pub(crate) fn conversation() -> Vec<Message> {
    let mut said = ends::conversation().0;
    let mut kinds = Vec::new();
    // One of each kind and length: the rest says nothing new.
    said.retain(|message| {
        let json = message.encode().expect("a real message");
        let kind = (std::mem::discriminant(message), json.len() / 64);
        let new = !kinds.contains(&kind);
        kinds.push(kind);
        new
    });
    said
}

/// What an end writes to its ledger meanwhile.
pub(crate) fn records() -> Vec<Vec<Record>> {
    ends::conversation().1
}
