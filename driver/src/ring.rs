//! Where slots, events and acknowledgements lie in DMA memory, and the free-running counters that govern them.

use qkd_contract::layout::{Acknowledgement, BlockHeader, Event};
use qkd_contract::limits::{
    ACK_BYTES, ACK_COUNT, BLOCK_HEADER_BYTES, EVENT_BYTES, EVENT_COUNT, RING_ALIGNMENT, SLOT_COUNT,
};
use zerocopy::IntoBytes;

use crate::dma::DmaMemory;
use crate::mmio::{after_device_read, before_device_write};

/// Octets of an event before the eight that the card writes last (CRC and number).
const EVENT_SEAL: usize = 56;

/// Sizes of the three rings, and where they lie in one piece of DMA memory: slots, events, acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingLayout {
    /// Bytes per slot.
    pub(crate) slot_bytes: u32,
    /// Number of slots, a power of two.
    pub(crate) slot_count: u32,
    /// Entries of the event ring, a power of two.
    pub(crate) event_count: u32,
    /// Entries of the acknowledgement ring, a power of two.
    pub(crate) ack_count: u32,
    event_offset: usize,
    ack_offset: usize,
    total: usize,
}

impl RingLayout {
    /// Lays the rings out for blocks of up to `block_max` bytes. `None` if a count breaks RNG-2, or the memory would
    /// not fit the address space.
    pub(crate) fn new(block_max: u32, slot_count: u32, ack_count: u32) -> Option<Self> {
        let slot_bytes =
            block_max.checked_add(BLOCK_HEADER_BYTES)?.checked_next_multiple_of(RING_ALIGNMENT)?;
        // An event ring of twice the slots leaves room for the events between blocks while every slot is full.
        let event_count = slot_count.checked_mul(2)?.clamp(*EVENT_COUNT.start(), *EVENT_COUNT.end());
        let legal = |count: u32, range: std::ops::RangeInclusive<u32>| {
            count.is_power_of_two() && range.contains(&count)
        };
        if !legal(slot_count, SLOT_COUNT) || !legal(event_count, EVENT_COUNT) || !legal(ack_count, ACK_COUNT)
        {
            return None;
        }
        let ring = |count: u32, bytes: u32| {
            let length = count.checked_mul(bytes)?.checked_next_multiple_of(RING_ALIGNMENT)?;
            usize::try_from(length).ok()
        };
        let slots = usize::try_from(slot_bytes).ok()?.checked_mul(usize::try_from(slot_count).ok()?)?;
        let event_offset = slots;
        let ack_offset = event_offset.checked_add(ring(event_count, EVENT_BYTES)?)?;
        let total = ack_offset.checked_add(ring(ack_count, ACK_BYTES)?)?;
        Some(Self { slot_bytes, slot_count, event_count, ack_count, event_offset, ack_offset, total })
    }

    /// Bytes of DMA memory needed.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// I/O virtual addresses of slot 0, the event ring and the acknowledgement ring.
    pub(crate) const fn bases(&self, iova: u64) -> (u64, u64, u64) {
        (iova, iova + self.event_offset as u64, iova + self.ack_offset as u64)
    }

    /// Offset of slot `index`, which must be less than the count.
    pub(crate) const fn slot(&self, index: u32) -> usize {
        index as usize * self.slot_bytes as usize
    }

    /// Offset of the payload in slot `index`.
    pub(crate) const fn payload(&self, index: u32) -> usize {
        self.slot(index) + BLOCK_HEADER_BYTES as usize
    }

    /// Offset of the entry of event `number` (RNG-6).
    const fn event(&self, number: u32) -> usize {
        let index = number.wrapping_sub(1) & (self.event_count - 1);
        self.event_offset + index as usize * EVENT_BYTES as usize
    }

    /// Offset of acknowledgement entry `number`, counted from 0 (ACK-1).
    const fn ack(&self, number: u32) -> usize {
        let index = number & (self.ack_count - 1);
        self.ack_offset + index as usize * ACK_BYTES as usize
    }

    /// Zeroes the event ring, so that no entry of an earlier START looks like one of this (EVT-3).
    pub(crate) fn clear_events(&self, memory: &DmaMemory) {
        memory.wipe(self.event_offset, self.ack_offset - self.event_offset);
    }

    /// Copies the header of slot `index` out.
    pub(crate) fn read_header(&self, memory: &DmaMemory, index: u32) -> [u8; size_of::<BlockHeader>()] {
        let mut copy = [0_u8; size_of::<BlockHeader>()];
        memory.copy_out(self.slot(index), &mut copy);
        copy
    }

    /// Writes acknowledgement entry `number`.
    pub(crate) fn write_ack(&self, memory: &DmaMemory, number: u32, entry: &Acknowledgement) {
        memory.copy_in(self.ack(number), entry.as_bytes());
    }
}

/// What stands where the next event is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// Nothing new.
    Nothing,
    /// A number that is neither the one due nor the one of a lap before.
    Foreign(u32),
    /// The entry, copied out once; its CRC is not yet checked.
    Entry([u8; size_of::<Event>()]),
}

/// How far both sides are since START. All counters run freely modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Events consumed.
    pub(crate) consumed: u32,
    /// Block events consumed; the slot of the next block follows from it (RNG-5).
    pub(crate) delivered: u32,
    /// Slots given to the card.
    pub(crate) credit: u32,
    /// Acknowledgement entries written.
    pub(crate) ack_tail: u32,
    /// Acknowledgement entries that the card had taken when last looked.
    pub(crate) ack_head: u32,
    /// Whether the event ring has been gone through once, so that every entry holds the number of a lap before.
    lapped: bool,
}

impl Progress {
    /// Number of the event that is due (EVT-3).
    pub(crate) const fn due(&self) -> u32 {
        self.consumed.wrapping_add(1)
    }

    /// Whether the event that is due, or anything unexpected, stands in its entry. Cheap: one load.
    pub(crate) fn something_due(&self, layout: &RingLayout, memory: &DmaMemory) -> bool {
        !matches!(self.classify(layout, memory.read_u64(layout.event(self.due()) + EVENT_SEAL)), Seal::Old)
    }

    /// The number of an event that was written although one before it was not, among the `ahead` entries after the one
    /// that is due. Events are written in order (ORD-1), so that is one that was skipped.
    pub(crate) fn skipped_to(&self, layout: &RingLayout, memory: &DmaMemory, ahead: u32) -> Option<u32> {
        let later = (1..=ahead.min(layout.event_count - 1)).map(|by| self.due().wrapping_add(by));
        let is_there = |number: &u32| {
            let seal = memory.read_u64(layout.event(*number) + EVENT_SEAL);
            seal != 0 && (seal >> 32) as u32 == *number
        };
        let found = later.into_iter().find(is_there)?;
        // It may have been written, with the due one before it, since that was looked at.
        after_device_read();
        (!self.something_due(layout, memory)).then_some(found)
    }

    /// Reads the entry of the event that is due.
    pub(crate) fn read_due(&self, layout: &RingLayout, memory: &DmaMemory) -> Due {
        let at = layout.event(self.due());
        match self.classify(layout, memory.read_u64(at + EVENT_SEAL)) {
            Seal::Old => return Due::Nothing,
            Seal::Foreign(number) => return Due::Foreign(number),
            Seal::Due => {}
        }
        // The number is written last, so what was written before it is there once the number is.
        after_device_read();
        let mut copy = [0_u8; size_of::<Event>()];
        memory.copy_out(at, &mut copy);
        Due::Entry(copy)
    }

    const fn classify(&self, layout: &RingLayout, seal: u64) -> Seal {
        let number = (seal >> 32) as u32;
        let due = self.due();
        if number == due && seal != 0 {
            Seal::Due
        } else if seal == 0 || (self.lapped && number == due.wrapping_sub(layout.event_count)) {
            Seal::Old
        } else {
            Seal::Foreign(number)
        }
    }

    /// Counts the due event as consumed.
    pub(crate) const fn consume(&mut self, layout: &RingLayout) {
        self.consumed = self.consumed.wrapping_add(1);
        if self.consumed & (layout.event_count - 1) == 0 {
            self.lapped = true;
        }
    }

    /// Slot of the next block (RNG-5).
    pub(crate) const fn next_slot(&self, layout: &RingLayout) -> u32 {
        self.delivered & (layout.slot_count - 1)
    }

    /// Whether the acknowledgement ring has room for one more entry.
    pub(crate) const fn ack_room(&self, layout: &RingLayout) -> bool {
        self.ack_tail.wrapping_sub(self.ack_head) < layout.ack_count
    }

    /// Takes a new value of `ACK_HEAD` if it is possible (ACK-3).
    pub(crate) const fn advance_ack_head(&mut self, head: u32) -> bool {
        let possible = head.wrapping_sub(self.ack_head) <= self.ack_tail.wrapping_sub(self.ack_head);
        if possible {
            self.ack_head = head;
        }
        possible
    }
}

/// What the last eight octets of an event entry say.
enum Seal {
    Old,
    Due,
    Foreign(u32),
}

/// Decodes a header that was copied out.
pub(crate) fn decode_header(copy: &[u8; size_of::<BlockHeader>()]) -> BlockHeader {
    zerocopy::transmute!(*copy)
}

/// Decodes an event that was copied out.
pub(crate) fn decode_event(copy: &[u8; size_of::<Event>()]) -> Event {
    zerocopy::transmute!(*copy)
}

/// Makes entries written to DMA memory visible before the register that announces them.
pub(crate) fn publish() {
    before_device_write();
}

#[cfg(test)]
mod tests;
