//! The driver against a card whose registers, DMA memory and interrupts are the fuzzer's: a good card with a hand in its
//! works, or one that never was any good.
//!
//! Whatever it answers, the driver must not panic, wait for ever or take more memory than its options say, must wipe what it
//! gives back, and must hand out only the octets that a good card had put under that name.

use std::time::Duration;

use qkd_contract::registers::{self as reg, Access};
use qkd_driver::backing::model::{Model, ModelBacking, ModelBus};
use qkd_driver::{Card, CardEvent, CardOptions, Fault, TakeError};
use qkd_sim::link::{End, PairOptions};
use qkd_sim::plan::Plan;
use qkd_tests::model::{SharedPair, SimulatedCard};
use qkd_tests::test_key::test_key;

use crate::Target;
use crate::input::Input;
use crate::mutate::Dice;

pub(crate) const TARGET: Target = Target { name: "card", run, seeds, bounded: 300, longest: 1_024 };

const SLOTS: u32 = 4;
const BLOCK_MAX: u32 = 4_096;
/// Most memory that these options can mean: a driver that believes another BLOCK_MAX takes more, and none above 1 MiB.
const MEMORY_MAX: usize = (SLOTS as usize + 1) * ((1 << 20) + 8_192) + (1 << 20);
/// Virtual time that one run may take: every deadline that can pass on the way, for each of its deeds.
const LIMIT: Duration = Duration::from_secs(1_200);
const MOST_DEEDS: usize = 48;

/// A harm that is done at a certain step.
#[derive(Clone, Copy)]
struct Harm {
    wait: u16,
    kind: u8,
    place: u16,
    value: u64,
}

struct Fuzzed {
    good: SimulatedCard,
    /// Without the good card nothing but harm is ever in the registers.
    is_good: bool,
    harms: std::vec::IntoIter<Harm>,
    next: Option<Harm>,
    resets_fail: bool,
}

impl Fuzzed {
    fn harm(&mut self, harm: Harm, bus: &mut dyn ModelBus) {
        match harm.kind % 8 {
            0..=2 => {
                let registers: Vec<_> =
                    reg::ALL.iter().filter(|register| register.access == Access::Card).collect();
                let register = registers[usize::from(harm.place) % registers.len()];
                let old = if register.width == 4 {
                    bus.read32(register.offset).into()
                } else {
                    bus.read64(register.offset)
                };
                let value = changed(old, harm);
                if register.width == 4 {
                    bus.write32(register.offset, value as u32);
                } else {
                    bus.write64(register.offset, value);
                }
            }
            3 => {
                let entries = bus.read32(reg::EVENT_COUNT.offset).max(1);
                let at = u64::from(u32::from(harm.place >> 3) % entries) * 64 + u64::from(harm.place & 7) * 8;
                let base = bus.read64(reg::EVENT_BASE.offset);
                scribble(bus, base.wrapping_add(at), harm);
            }
            4 => {
                let at = u64::from(harm.place) % (u64::from(SLOTS) * u64::from(BLOCK_MAX + 4_096) / 8) * 8;
                let base = bus.read64(reg::SLOT_BASE.offset);
                scribble(bus, base.wrapping_add(at), harm);
            }
            5 => bus.raise(u32::from(harm.place % 3)),
            6 => self.resets_fail = !self.resets_fail,
            _ => {
                // DMA to where nothing is mapped.
                let _ = bus.dma_write(harm.value, &[0xA5; 64]);
            }
        }
    }
}

fn changed(old: u64, harm: Harm) -> u64 {
    match harm.kind >> 3 & 7 {
        0 => harm.value,
        1 => old.wrapping_add(1),
        2 => old.wrapping_sub(1),
        3 => u64::MAX,
        4 => 0,
        5 => old.wrapping_add(harm.value),
        _ => old ^ 1 << (harm.value & 63),
    }
}

fn scribble(bus: &mut dyn ModelBus, at: u64, harm: Harm) {
    let mut octets = [0; 8];
    if bus.dma_read(at, &mut octets).is_ok() {
        let _ = bus.dma_write(at, &changed(u64::from_le_bytes(octets), harm).to_le_bytes());
    }
}

impl Model for Fuzzed {
    fn step(&mut self, bus: &mut dyn ModelBus) {
        if self.is_good {
            self.good.step(bus);
        }
        while let Some(harm) = &mut self.next {
            if harm.wait > 0 {
                harm.wait -= 1;
                break;
            }
            let harm = *harm;
            self.next = self.harms.next();
            self.harm(harm, bus);
        }
    }

    fn function_reset(&mut self, bus: &mut dyn ModelBus) -> bool {
        let done = !self.is_good || self.good.function_reset(bus);
        done && !self.resets_fail
    }

    fn next_step_us(&self, now_us: u64) -> u64 {
        now_us + 500
    }
}

fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (kind, deeds) = (input.byte(), usize::from(input.byte()) % MOST_DEEDS);
    let deeds = input.take(deeds).to_vec();
    let mut harms = Vec::new();
    while !input.is_empty() && harms.len() < 256 {
        let wait = match input.byte() {
            short @ 0..=127 => u16::from(short),
            long => u16::from(long - 127) * 64,
        };
        harms.push(Harm { wait, kind: input.byte(), place: input.u16(), value: input.number() });
    }
    let options = PairOptions { block_max: BLOCK_MAX, ..PairOptions::calm(u64::from(kind >> 1)) };
    let pair = SharedPair::new(&options, Plan::default());
    // Without a card at the other end there is no link.
    let mut other = pair.open(End::B).expect("a good card");
    other.start().expect("a good card");
    let (good, serial) = pair.model(End::A);
    let mut harms = harms.into_iter();
    let next = harms.next();
    let model = Fuzzed { good, is_good: kind & 1 == 0, harms, next, resets_fail: false };
    let backing = ModelBacking::new(model, serial, pair.clock().clone());
    let handle = backing.handle();
    let begun = pair.clock().now_us();
    let options =
        CardOptions { slots: SLOTS, acknowledgements: 64, allow_test_key: true, ..CardOptions::default() };
    if let Ok(mut card) = Card::open(backing, options) {
        assert!(handle.mapped_bytes() <= MEMORY_MAX, "{} bytes of DMA memory", handle.mapped_bytes());
        let _ = card.start();
        // The link comes up.
        pass(&mut other, Duration::from_millis(1_200));
        for deed in deeds {
            pass(&mut other, Duration::from_millis(20));
            if let Err(fault) = act(&mut card, deed)
                && (fault.needs_recovery() || !card.is_running())
            {
                let _ = card.recover();
                let _ = card.start();
            }
        }
        assert!(handle.mapped_bytes() <= MEMORY_MAX, "{} bytes of DMA memory", handle.mapped_bytes());
    }
    let took = Duration::from_micros(pair.clock().now_us() - begun);
    assert!(took < LIMIT, "took {took:?} of the card's time");
    assert_ne!(handle.unmapped_memory_is_wiped(), Some(false), "memory was given back with key in it");
}

/// Time passes, by the clock of the good card at the other end, which keeps all its blocks.
fn pass(other: &mut Card<ModelBacking<SimulatedCard>>, time: Duration) {
    let end = other.now() + time;
    while other.now() < end {
        let _ = other.wait(end.saturating_sub(other.now()), None);
        let _ = other.next_event();
    }
}

fn act(card: &mut Card<ModelBacking<Fuzzed>>, deed: u8) -> Result<(), Fault> {
    match deed % 16 {
        0 => card.health().map(drop),
        1 => card.telemetry().map(drop),
        2 => card.newest().map(drop),
        3 => card.wait(Duration::from_millis(u64::from(deed)), None).map(drop),
        4 => card.store_cell(u64::from(deed)),
        5 => card.stop(),
        6 => card.start(),
        7 => card.link_state().map(drop),
        8 => card.session().map(drop),
        9 => card.recover().map(drop),
        _ => take_one(card),
    }
}

fn take_one(card: &mut Card<ModelBacking<Fuzzed>>) -> Result<(), Fault> {
    let _ = card.wait(Duration::from_millis(20), None)?;
    let Some(CardEvent::Block(block)) = card.next_event()? else { return Ok(()) };
    let (name, length) = (block.name(), block.length());
    assert!(length <= 1 << 20, "a block of {length} octets");
    let mut room = vec![0; length];
    match block.take(&mut room) {
        Ok(()) => {
            crate::reach(&crate::TAKEN);
            assert_eq!(
                room,
                test_key(name, length),
                "block {name:?} has other octets than the card put there"
            );
            card.acknowledge(name, name).map(drop)
        }
        Err(TakeError::Fault(fault)) => {
            assert!(room.iter().all(|octet| *octet == 0), "key is left after a fault");
            Err(fault)
        }
        Err(_) => {
            assert!(room.iter().all(|octet| *octet == 0), "key is left of a block that is lost");
            Ok(())
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut dice = Dice(5);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    // A good life without harm, then more and more of it, early and late.
    for harms in [0, 1, 4, 16, 60] {
        for wait in [20, 100, 160, 255] {
            let mut seed = vec![0, 40];
            seed.extend((0..40).map(|at| if at % 5 == 0 { dice.roll().to_le_bytes()[0] } else { 15 }));
            for _ in 0..harms {
                seed.push(wait);
                seed.extend(dice.roll().to_le_bytes().iter().take(4));
                seed.pop();
                seed.push(dice.roll().to_le_bytes()[0] % 200);
            }
            seeds.push(seed);
        }
    }
    seeds.push(vec![1; 64]);
    seeds
}
