//! The rings that the host describes before START (clauses RNG).

use qkd_contract::limits::{
    ACK_BYTES, ACK_COUNT, BLOCK_HEADER_BYTES, EVENT_BYTES, EVENT_COUNT, RING_ALIGNMENT, SLOT_COUNT,
};
use qkd_contract::registers as reg;

use super::bus::{Bus, read, read_u32};

/// The ring registers as latched by START.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rings {
    slot_base: u64,
    event_base: u64,
    ack_base: u64,
    pub(crate) slot_bytes: u32,
    pub(crate) slot_count: u32,
    pub(crate) event_count: u32,
    pub(crate) ack_count: u32,
}

/// The ring registers break a rule of clauses RNG-1 or RNG-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRings;

impl Rings {
    /// Reads the ring registers and holds them against the rules.
    pub(crate) fn latch(bus: &dyn Bus, block_max: u32) -> Result<Self, BadRings> {
        let rings = Self {
            slot_base: read(bus, &reg::SLOT_BASE),
            event_base: read(bus, &reg::EVENT_BASE),
            ack_base: read(bus, &reg::ACK_BASE),
            slot_bytes: read_u32(bus, &reg::SLOT_BYTES),
            slot_count: read_u32(bus, &reg::SLOT_COUNT),
            event_count: read_u32(bus, &reg::EVENT_COUNT),
            ack_count: read_u32(bus, &reg::ACK_COUNT),
        };
        let counted = |count: u32, range: std::ops::RangeInclusive<u32>| {
            count.is_power_of_two() && range.contains(&count)
        };
        let fits = rings.slot_bytes.is_multiple_of(RING_ALIGNMENT)
            && rings.slot_bytes >= BLOCK_HEADER_BYTES.saturating_add(block_max);
        let good = fits
            && counted(rings.slot_count, SLOT_COUNT)
            && counted(rings.event_count, EVENT_COUNT)
            && counted(rings.ack_count, ACK_COUNT)
            && rings.areas_are_apart();
        if good { Ok(rings) } else { Err(BadRings) }
    }

    /// Whether the three areas are aligned, not at 0, below 2^64, and do not overlap (RNG-1).
    fn areas_are_apart(&self) -> bool {
        let mut areas = [
            (self.slot_base, u64::from(self.slot_bytes) * u64::from(self.slot_count)),
            (self.event_base, u64::from(EVENT_BYTES) * u64::from(self.event_count)),
            (self.ack_base, u64::from(ACK_BYTES) * u64::from(self.ack_count)),
        ];
        areas.sort_unstable();
        let mut free_from = 1;
        areas.iter().all(|&(base, bytes)| {
            let good = base >= free_from && base.is_multiple_of(u64::from(RING_ALIGNMENT));
            match base.checked_add(bytes) {
                Some(end) => free_from = end,
                None => return false,
            }
            good
        })
    }

    /// Slot index of the n-th delivered block (RNG-5).
    pub(crate) fn slot_of(&self, n: u32) -> u32 {
        n & (self.slot_count - 1)
    }

    /// I/O virtual address of a slot.
    pub(crate) fn slot_address(&self, slot: u32) -> u64 {
        self.slot_base + u64::from(self.slot_bytes) * u64::from(slot)
    }

    /// I/O virtual address of the entry for an event number, from 1 (RNG-6).
    pub(crate) fn event_address(&self, number: u32) -> u64 {
        let index = number.wrapping_sub(1) & (self.event_count - 1);
        self.event_base + u64::from(EVENT_BYTES) * u64::from(index)
    }

    /// I/O virtual address of the n-th acknowledgement entry.
    pub(crate) fn ack_address(&self, n: u32) -> u64 {
        self.ack_base + u64::from(ACK_BYTES) * u64::from(n & (self.ack_count - 1))
    }
}
