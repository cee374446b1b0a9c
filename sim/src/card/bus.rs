//! What a card reaches the host through, so that the same card runs in virtual time and behind a socket.

use qkd_contract::registers::Register;

/// A DMA access was refused: nothing is mapped there, or bus mastering is off (ST-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DMA of {length} octets at {iova:#x} was refused: not mapped, or bus mastering is off")]
pub struct DmaRefused {
    /// First I/O virtual address of the access.
    pub iova: u64,
    /// Octets of the access.
    pub length: u64,
}

/// The card's side of the bus: its own registers, the host's memory, its interrupt vectors and a clock.
pub trait Bus {
    /// Reads four octets of BAR 0; 0 outside it.
    fn read32(&self, offset: u32) -> u32;
    /// Reads eight octets of BAR 0 as one access; 0 outside it.
    fn read64(&self, offset: u32) -> u64;
    /// Writes four octets of BAR 0.
    fn write32(&mut self, offset: u32, value: u32);
    /// Writes eight octets of BAR 0 as one access.
    fn write64(&mut self, offset: u32, value: u64);

    /// Copies host memory to the card.
    ///
    /// # Errors
    /// [`DmaRefused`] when the whole range is not readable; nothing is promised of `into` then.
    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused>;

    /// Copies from the card to host memory. Octets of one call may become visible in any order; a later call is
    /// visible after an earlier one (ORD-1).
    ///
    /// # Errors
    /// [`DmaRefused`] when the whole range is not writable; nothing has been written then.
    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused>;

    /// Writes eight octets, naturally aligned, as one access after all earlier writes are visible (ORD-3).
    ///
    /// # Errors
    /// As [`Bus::dma_write`]; also when `iova` is not a multiple of 8.
    fn dma_write_u64(&mut self, iova: u64, value: u64) -> Result<(), DmaRefused>;

    /// Sends the message of an MSI-X vector. Whether the host hears it is the host's affair.
    fn raise(&mut self, vector: u32);

    /// Microseconds since any fixed moment; never goes back.
    fn now(&self) -> u64;
}

/// Reads a register with its own width.
pub(crate) fn read(bus: &dyn Bus, register: &Register) -> u64 {
    if register.width == 8 { bus.read64(register.offset) } else { u64::from(bus.read32(register.offset)) }
}

/// Reads the low 32 bits of a register.
pub(crate) fn read_u32(bus: &dyn Bus, register: &Register) -> u32 {
    low32(read(bus, register))
}

/// Writes a register with its own width.
pub(crate) fn write(bus: &mut dyn Bus, register: &Register, value: u64) {
    if register.width == 8 {
        bus.write64(register.offset, value);
    } else {
        bus.write32(register.offset, low32(value));
    }
}

/// The low 32 bits, as free-running counters want them.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(crate) const fn low32(value: u64) -> u32 {
    value as u32
}
