//! A way in for measuring: slots of key as a card leaves them, and what the driver does with one.

use std::io;
use std::sync::Arc;

use crate::dma::DmaMemory;
use crate::ingest;
use crate::shared_memory::SharedMemory;

/// Slots in DMA memory, one behind the other.
#[derive(Debug)]
pub struct Slots {
    memory: DmaMemory,
    slot: usize,
    number: usize,
}

impl Slots {
    /// `number` slots of `slot` octets, a multiple of 4096, locked as a card's are.
    ///
    /// # Errors
    /// When there is no such memory.
    pub fn new(slot: usize, number: usize) -> io::Result<Self> {
        let memory = SharedMemory::anonymous(slot * number)?;
        memory.prefer_huge_pages();
        memory.protect_key_material()?;
        Ok(Self { memory: DmaMemory::new(Arc::new(memory), 1 << 32), slot, number })
    }

    /// Slots.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Writes into a slot, as a card does.
    pub fn deliver(&self, slot: usize, key: &[u8]) {
        self.memory.copy_in(slot % self.number * self.slot, key);
    }

    /// Copies a slot of `room`'s length out, sums the copy up and wipes the slot: what the driver does with a block. Gives the sum.
    pub fn take(&self, slot: usize, room: &mut [u8]) -> u32 {
        let at = slot % self.number * self.slot;
        ingest::take(&self.memory, at, room)
    }

    /// What `take` is held against: the slot's octets by `memcpy` and nothing else.
    #[allow(unsafe_code, reason = "memcpy is what is measured")]
    pub fn memcpy(&self, slot: usize, room: &mut [u8]) {
        let at = slot % self.number * self.slot;
        assert!(room.len() <= self.slot, "a slot has {} octets", self.slot);
        // SAFETY: the slot lies in the mapping, nobody else writes to it while something is measured, and `room` is memory of
        // its own.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.memory.as_ptr().wrapping_add(at),
                room.as_mut_ptr(),
                room.len(),
            );
        }
    }
}
