//! A card that does random wrong things: never a panic, a hang, or key that the card had not put under that name.

use std::time::Duration;

use qkd_contract::registers as reg;

use super::{SERIAL, Scripted, options};
use crate::backing::model::{Model, ModelBacking, ModelBus, VirtualClock};
use crate::card::{Card, CardEvent};

const SEEDS: u64 = 5_000;
/// Virtual time that one run may take: its own loop's, and every deadline that can pass on the way.
const LIMIT: Duration = Duration::from_secs(60);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

/// The honest card with a hand in its works.
struct Hostile {
    honest: Scripted,
    random: Random,
    /// One step in so many goes wrong.
    rarely: u64,
    since_us: u64,
}

impl Hostile {
    /// Values near what is expected are the dangerous ones.
    fn value(&mut self, near: u64) -> u64 {
        match self.random.below(6) {
            0 => self.random.next(),
            1 => near.wrapping_add(1),
            2 => near.wrapping_sub(1),
            3 => u64::MAX,
            4 => 0,
            _ => near ^ 1 << self.random.below(64),
        }
    }

    fn do_harm(&mut self, bus: &mut dyn ModelBus) {
        match self.random.below(4) {
            0 | 1 => {
                let cards: Vec<_> =
                    reg::ALL.iter().filter(|register| register.access == reg::Access::Card).collect();
                let register = cards[usize::try_from(self.random.below(cards.len() as u64)).expect("small")];
                if register.width == 4 {
                    let value = self.value(bus.read32(register.offset).into());
                    bus.write32(register.offset, u32::try_from(value & 0xFFFF_FFFF).expect("masked"));
                } else {
                    let value = self.value(bus.read64(register.offset));
                    bus.write64(register.offset, value);
                }
            }
            2 => {
                let entry = self.random.below(bus.read32(reg::EVENT_COUNT.offset).max(1).into());
                let at = bus.read64(reg::EVENT_BASE.offset) + entry * 64 + self.random.below(8) * 8;
                self.scribble(bus, at);
            }
            _ => {
                let at = bus.read64(reg::SLOT_BASE.offset) + self.random.below(4 * 4096 / 8) * 8;
                self.scribble(bus, at);
            }
        }
    }

    fn scribble(&mut self, bus: &mut dyn ModelBus, at: u64) {
        let mut octets = [0; 8];
        // Outside what is mapped nothing happens, as behind an IOMMU.
        if bus.dma_read(at, &mut octets).is_ok() {
            let value = self.value(u64::from_le_bytes(octets));
            let _ = bus.dma_write(at, &value.to_le_bytes());
        }
    }
}

impl Model for Hostile {
    fn step(&mut self, bus: &mut dyn ModelBus) {
        self.honest.step(bus);
        if bus.now_us() > self.since_us + 300 {
            self.since_us = bus.now_us();
            let length = 1 + usize::try_from(self.random.below(1024)).expect("small");
            self.honest.distil(length);
        }
        if self.random.one_in(self.rarely) {
            self.do_harm(bus);
        }
    }

    fn function_reset(&mut self, bus: &mut dyn ModelBus) -> bool {
        self.honest.function_reset(bus) && !self.random.one_in(20)
    }
}

/// One run; how many blocks were taken and how many faults were seen.
fn run(seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let rarely = 20 << random.below(8);
    let clock = VirtualClock::new();
    let model = Hostile { honest: Scripted::new(), random, rarely, since_us: 0 };
    let backing = ModelBacking::new(model, SERIAL, clock.clone());
    let handle = backing.handle();
    let mut driver = Random(!seed);
    let Ok(mut card) = Card::open(backing, options()) else { return (0, 1) };
    let mut faults = 0;
    for _ in 0..200 {
        let outcome = match driver.below(12) {
            0 => card.health().map(drop),
            1 => card.telemetry().map(drop),
            2 => card.newest().map(drop),
            3 => card.wait(Duration::from_millis(1), None).map(drop),
            4 => card.store_cell(driver.below(1 << 20)),
            5 if driver.one_in(10) => card.stop(),
            6 if driver.one_in(10) => card.start(),
            _ => take_one(&mut card),
        };
        if let Err(fault) = outcome {
            faults += 1;
            if fault.needs_recovery() || !card.is_running() {
                let _ = card.recover();
                let _ = card.start();
            }
        }
    }
    let taken = card.counters().blocks_taken;
    drop(card);
    assert!(Duration::from_micros(clock.now_us()) < LIMIT, "seed {seed} took {} µs", clock.now_us());
    assert_ne!(handle.unmapped_memory_is_wiped(), Some(false), "seed {seed}");
    (taken, faults)
}

fn take_one(card: &mut Card<ModelBacking<Hostile>>) -> Result<(), crate::fault::Fault> {
    let Some(CardEvent::Block(block)) = card.next_event()? else { return Ok(()) };
    let name = block.name();
    let mut room = vec![0; block.length()];
    match block.take(&mut room) {
        Ok(()) => {
            assert_eq!(room, Scripted::payload(name, room.len()), "{name} has the octets that the card put");
            let _ = card.acknowledge(name, name)?;
            Ok(())
        }
        Err(crate::card::TakeError::Fault(fault)) => Err(fault),
        Err(_) => {
            assert!(room.iter().all(|octet| *octet == 0));
            Ok(())
        }
    }
}

#[test]
fn a_hostile_card_never_panics_hangs_or_gives_wrong_key() {
    let (mut taken, mut faults) = (0, 0);
    for seed in 0..SEEDS {
        let (blocks, wrong) = run(seed);
        taken += blocks;
        faults += wrong;
    }
    assert!(taken > SEEDS, "good blocks came through in between: {taken}");
    assert!(faults > SEEDS, "the harm was seen: {faults}");
}
