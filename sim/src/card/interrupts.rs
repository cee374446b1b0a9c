//! Arming, moderation and the two vectors (clauses INT).

use qkd_contract::limits::MODERATION_MAX_US;
use qkd_contract::pci::EVENT_VECTOR;
use qkd_contract::registers as reg;

use super::bus::{Bus, low32, read, read_u32};

/// What the host has armed.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    serial: u32,
    waits_for: Option<u32>,
    due_since: Option<u64>,
}

impl Interrupts {
    /// Takes the serial that stands in ARM as served, as START does (CMD-5).
    pub(crate) fn take_as_served(&mut self, bus: &dyn Bus) {
        *self = Self { serial: low32(read(bus, &reg::ARM) >> 32), ..Self::default() };
    }

    /// Looks for a new arm serial and raises the event vector once for it when an event with a greater number has
    /// been written, held back by MODERATION (INT-1, INT-4). Tells whether something is under way.
    pub(crate) fn run(&mut self, bus: &mut dyn Bus, written: u32) -> bool {
        let arm = read(bus, &reg::ARM);
        let serial = low32(arm >> 32);
        if serial != self.serial {
            self.serial = serial;
            self.waits_for = (serial != 0).then_some(low32(arm));
            self.due_since = None;
        }
        let Some(number) = self.waits_for else { return false };
        if written.wrapping_sub(number).cast_signed() <= 0 {
            return false;
        }
        let now = bus.now();
        let since = *self.due_since.get_or_insert(now);
        let moderation = read_u32(bus, &reg::MODERATION).min(MODERATION_MAX_US);
        if now.saturating_sub(since) < u64::from(moderation) {
            return true;
        }
        self.waits_for = None;
        self.due_since = None;
        raise(bus, EVENT_VECTOR);
        true
    }
}

/// Raises a vector if the host lets it (INT-2).
pub(crate) fn raise(bus: &mut dyn Bus, vector: u32) {
    if read_u32(bus, &reg::INTERRUPT_ENABLE) & (1 << vector) != 0 {
        bus.raise(vector);
    }
}
