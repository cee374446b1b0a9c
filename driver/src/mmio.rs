//! Register access, and the ordering between registers and DMA memory.
#![allow(unsafe_code, reason = "memory barriers of Arm processors have no safe form")]

use std::sync::atomic::{Ordering, fence};

use qkd_contract::registers::Register;

use crate::shared_memory::SharedMemory;

/// A register BAR. Each call is one access of that width; nothing is merged, split, repeated or left out (REG-3, REG-6).
///
/// Offsets are in bytes from the BAR's start and multiples of the width. An access outside the BAR reads all ones or
/// writes nothing, as on the bus.
pub trait Mmio {
    /// Reads a 32-bit register.
    fn read32(&self, offset: u32) -> u32;
    /// Writes a 32-bit register.
    fn write32(&self, offset: u32, value: u32);
    /// Reads a 64-bit register.
    fn read64(&self, offset: u32) -> u64;
    /// Writes a 64-bit register.
    fn write64(&self, offset: u32, value: u64);
}

/// A BAR that is mapped into this process.
#[derive(Debug)]
pub struct MappedBar {
    memory: SharedMemory,
}

impl MappedBar {
    pub(crate) const fn new(memory: SharedMemory) -> Self {
        Self { memory }
    }

    /// The offset as an index, if an access of `width` bytes there is legal.
    fn place(&self, offset: u32, width: usize) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?;
        let inside = offset.checked_add(width)? <= self.memory.len();
        (inside && offset.is_multiple_of(width)).then_some(offset)
    }
}

impl Mmio for MappedBar {
    fn read32(&self, offset: u32) -> u32 {
        self.place(offset, 4).map_or(u32::MAX, |at| u32::from_le(self.memory.read_u32(at)))
    }

    fn write32(&self, offset: u32, value: u32) {
        if let Some(at) = self.place(offset, 4) {
            self.memory.write_u32(at, value.to_le());
        }
    }

    fn read64(&self, offset: u32) -> u64 {
        self.place(offset, 8).map_or(u64::MAX, |at| u64::from_le(self.memory.read_u64(at)))
    }

    fn write64(&self, offset: u32, value: u64) {
        if let Some(at) = self.place(offset, 8) {
            self.memory.write_u64(at, value.to_le());
        }
    }
}

/// Registers by their row in the contract's table, with the ordering that the contract relies on.
pub(crate) trait Registers: Mmio {
    /// Reads a 32-bit register; loads from DMA memory that follow see what the card wrote before it.
    fn get32(&self, register: Register) -> u32 {
        debug_assert_eq!(register.width, 4, "{} has 8 bytes", register.name);
        let value = self.read32(register.offset);
        after_device_read();
        value
    }

    /// Reads a 64-bit register; ordering as [`Registers::get32`].
    fn get64(&self, register: Register) -> u64 {
        debug_assert_eq!(register.width, 8, "{} has 4 bytes", register.name);
        let value = self.read64(register.offset);
        after_device_read();
        value
    }

    /// Writes a 32-bit register; the card sees the stores to DMA memory that came before it.
    fn set32(&self, register: Register, value: u32) {
        debug_assert_eq!(register.width, 4, "{} has 8 bytes", register.name);
        before_device_write();
        self.write32(register.offset, value);
    }

    /// Writes a 64-bit register; ordering as [`Registers::set32`].
    fn set64(&self, register: Register, value: u64) {
        debug_assert_eq!(register.width, 8, "{} has 4 bytes", register.name);
        before_device_write();
        self.write64(register.offset, value);
    }
}

impl<M: Mmio + ?Sized> Registers for M {}

/// Orders stores to DMA memory before a following register write or event entry.
pub(crate) fn before_device_write() {
    // Full, not release: a fence between threads does not order plain stores against device memory on every processor.
    fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction; it touches no register and no memory.
    unsafe {
        core::arch::asm!("dsb st", options(nostack, preserves_flags));
    }
}

/// Orders a read of a register or an event's number before the loads from DMA memory that follow.
pub(crate) fn after_device_read() {
    fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction; it touches no register and no memory.
    unsafe {
        core::arch::asm!("dsb ld", options(nostack, preserves_flags));
    }
}
