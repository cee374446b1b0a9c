//! Many seeds with every kind of fault, checked against what must hold whatever happens.

use std::collections::BTreeMap;

use qkd_contract::command::Opcode;
use qkd_contract::layout::event;
use qkd_contract::state::State;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::pair::Ends;
use crate::card::Name;
use crate::card::tests::host::{Delivered, Host, SLOTS};
use crate::link::{End, Optics, PairOptions, Weather};
use crate::plan::Plan;

const SEEDS: u64 = 2_000;
const STEP_US: u64 = 20_000;
const STEPS: u64 = 300;

/// What one end has seen.
#[derive(Default)]
struct Seen {
    blocks: BTreeMap<Name, Vec<u8>>,
    acknowledged_up_to: Option<Name>,
    last_in_run: Option<Name>,
    session_in_run: u64,
}

impl Seen {
    /// Takes a delivery as a careful driver does; false when it breaks a rule and the run must end.
    fn take(&mut self, delivered: Delivered, slot_bytes: u32) -> bool {
        let name = delivered.name();
        let Some(header) = delivered.header else {
            if delivered.kind() == event::SESSION {
                assert!(name.session > self.session_in_run, "sessions rise");
                self.session_in_run = name.session;
            }
            return true;
        };
        let sound = delivered.event.length.get() <= slot_bytes - 64
            && self.last_in_run < Some(name)
            && name.session < 1 << 32
            && header.session == delivered.event.session
            && crc32c::crc32c(&delivered.payload) == header.payload_crc.get();
        if !sound {
            return false;
        }
        self.last_in_run = Some(name);
        assert!(self.acknowledged_up_to < Some(name), "{name:?} was acknowledged and comes again");
        let known = self.blocks.insert(name, delivered.payload.clone());
        assert!(known.is_none_or(|known| known == delivered.payload), "{name:?} has other octets now");
        true
    }
}

/// One look of a host at its card: starts it when it is stopped, takes what is there, acknowledges some of it.
fn look(ends: &mut Ends, end: End, seen: &mut Seen, chance: &mut ChaCha8Rng) {
    let mut host = std::mem::replace(ends.host(end), Host::new(64));
    let card = ends.pair.card(end);
    match card.state() {
        State::Stopped => {
            seen.last_in_run = None;
            seen.session_in_run = 0;
            if host.try_start(card) {
                host.give_credit(SLOTS);
            } else {
                card.function_reset(&mut host);
            }
        }
        State::Running => {
            let mut sound = true;
            while let Some(delivered) = host.take() {
                sound &= seen.take(delivered, host.slot_bytes);
                if !sound {
                    break;
                }
            }
            if !sound || chance.random_bool(0.01) {
                card.function_reset(&mut host);
            } else if let Some(last) = seen.last_in_run.filter(|_| chance.random_bool(0.2)) {
                host.acknowledge(Name { session: 0, sequence: 0 }, last);
                // A card that is frozen takes nothing, and what it does not take is forgotten at the next start.
                host.run(card, 1_000);
                while host.take().is_some() {}
                if host.all_acknowledged() {
                    seen.acknowledged_up_to = seen.acknowledged_up_to.max(Some(last));
                }
            } else if chance.random_bool(0.002) {
                host.command(card, Opcode::Zeroize, 0);
            }
        }
        State::Fault if card.fault() == qkd_contract::state::Fault::Ring => {
            panic!("the host kept the rules of the rings")
        }
        State::Fault | State::Zeroized => {
            host.command(card, Opcode::Reset, 0);
        }
        State::Boot | State::Stopping | State::Zeroizing => {}
    }
    *ends.host(end) = host;
}

fn run(seed: u64) -> usize {
    let options = PairOptions {
        loss_db: Optics::RECORD.loss_for(20_000.0).unwrap(),
        key_seed: Some([seed.to_le_bytes()[0]; 32]),
        weather: Weather::Stormy,
        block_max: 256,
        retention_bytes: 4_096,
        retention_blocks: 32,
        ..PairOptions::calm(seed)
    };
    let mut ends = Ends::new(&options, Plan::none().with_random(seed, 60.0));
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = [Seen::default(), Seen::default()];
    for _ in 0..STEPS {
        ends.pass(STEP_US, STEP_US / 4);
        for (end, seen) in End::BOTH.into_iter().zip(&mut seen) {
            look(&mut ends, end, seen, &mut chance);
        }
    }
    let [a, b] = &seen;
    for (name, octets) in &a.blocks {
        assert!(b.blocks.get(name).is_none_or(|other| other == octets), "seed {seed}: {name:?} differs");
    }
    a.blocks.keys().filter(|name| b.blocks.contains_key(name)).count()
}

#[test]
fn whatever_happens_a_name_has_one_key_and_an_acknowledged_one_none() {
    let mut in_common = 0;
    for seed in 0..SEEDS {
        in_common += run(seed);
    }
    assert!(in_common > 10_000, "{in_common} blocks at both ends: the runs say too little");
}
