//! The card-written registers, and the clearing of the others.

use qkd_contract::registers::{self, Access, Register};

use super::bus::{self, Bus};

const WORDS: usize = 0x2080 / 4;

/// What the card last wrote to each of its registers, so that a step writes only what has changed.
#[derive(Debug)]
pub(crate) struct Registers {
    written: Box<[u64]>,
}

impl Registers {
    pub(crate) fn new() -> Self {
        Self { written: vec![0; WORDS].into_boxed_slice() }
    }

    /// Sets a card-written register; the bus sees it only when the value is new.
    pub(crate) fn set(&mut self, bus: &mut dyn Bus, register: &Register, value: u64) {
        debug_assert_eq!(register.access, Access::Card, "{} is the host's", register.name);
        if let Some(written) = self.written.get_mut(register.offset as usize / 4)
            && *written != value
        {
            *written = value;
            bus::write(bus, register, value);
        }
    }

    /// What the card last wrote to a register.
    pub(crate) fn get(&self, register: &Register) -> u64 {
        self.written.get(register.offset as usize / 4).copied().unwrap_or(0)
    }

    /// Writes every card-written register again: a host that scribbles over one sees it mended (REG-2).
    pub(crate) fn refresh(&self, bus: &mut dyn Bus) {
        for register in registers::ALL.iter().filter(|register| register.access == Access::Card) {
            bus::write(bus, register, self.get(register));
        }
    }

    /// Zeroes every host-written register, as a reset does (REG-7).
    pub(crate) fn clear_host_written(bus: &mut dyn Bus) {
        for register in registers::ALL.iter().filter(|register| register.access == Access::Host) {
            bus::write(bus, register, 0);
        }
    }

    /// Makes the whole table read all ones, as the bus does once the card is gone (REG-8).
    pub(crate) fn all_ones(bus: &mut dyn Bus) {
        for register in registers::ALL {
            bus::write(bus, register, u64::MAX);
        }
    }
}
