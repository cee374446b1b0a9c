//! Memory that somebody else may write at any moment: a BAR, or memory that a card reaches by DMA.
//!
//! No reference into it ever exists; every access is a volatile load or store through a raw pointer, or made by
//! instructions of our own, so the compiler can neither repeat nor invent one. All other modules reach such memory through [`SharedMemory`] only.
#![allow(unsafe_code, reason = "volatile access through raw pointers is the whole purpose of this module")]

#[cfg(target_arch = "x86_64")]
mod fold;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use zeroize::Zeroizing;

/// Bytes of a unit, of which [`SharedMemory::take_folded`] moves any number.
pub(crate) const UNIT: usize = 256;
/// Bytes that stand for all that was moved. As words, which are wiped faster.
pub(crate) type Folded = Zeroizing<[u64; 8]>;

/// From so many bytes on the processor's string instructions are faster than loads and stores one by one.
#[cfg(target_arch = "x86_64")]
const STRING: usize = 512;

/// A mapping, accessed by volatile loads and stores of checked, aligned places.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    map: MmapRaw,
}

impl SharedMemory {
    /// Maps `length` bytes of `file` from `offset`, shared.
    pub(crate) fn of_file(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let map = MmapOptions::new().offset(offset).len(length).map_raw(file.as_raw_fd())?;
        Ok(Self { map })
    }

    /// Maps `length` zeroed bytes of private memory.
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        Ok(Self { map: MmapRaw::from(MmapMut::map_anon(length)?) })
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Keeps the memory out of core dumps and child processes.
    pub(crate) fn keep_to_this_process(&self) -> io::Result<()> {
        self.map.advise(Advice::DontDump)?;
        self.map.advise(Advice::DontFork)
    }

    /// Keeps the memory out of core dumps and child processes, and in physical memory. An error is the lock's.
    pub(crate) fn protect_key_material(&self) -> io::Result<()> {
        self.keep_to_this_process()?;
        self.map.lock()
    }

    /// Address of the first byte, for requests to the kernel that name memory.
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Asks for huge pages; whether the kernel has any is its own affair.
    pub(crate) fn prefer_huge_pages(&self) {
        let _ = self.map.advise(Advice::HugePage);
    }

    /// Address of `length` bytes at `offset`.
    ///
    /// # Panics
    /// When they are not inside the mapping, or not aligned to `alignment`: a mistake of the caller, who has offsets
    /// from its own checked layout and never from a device.
    fn address(&self, offset: usize, length: usize, alignment: usize) -> *mut u8 {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.map.len());
        assert!(inside, "access of {length} bytes at {offset} leaves a mapping of {} bytes", self.map.len());
        assert!(offset.is_multiple_of(alignment), "access at {offset} is not aligned to {alignment}");
        self.map.as_mut_ptr().wrapping_add(offset)
    }

    /// Loads four bytes at an aligned offset.
    pub(crate) fn read_u32(&self, offset: usize) -> u32 {
        let place = self.address(offset, 4, 4).cast::<u32>();
        // SAFETY: `address` checked that the four bytes lie in the live mapping, whose start is page-aligned, at an
        // offset aligned to 4. Any bit pattern is a u32; volatile, because another agent may write it.
        unsafe { place.read_volatile() }
    }

    /// Loads eight bytes at an aligned offset, as one access.
    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        let place = self.address(offset, 8, 8).cast::<u64>();
        // SAFETY: as in `read_u32`, with eight bytes aligned to 8.
        unsafe { place.read_volatile() }
    }

    /// Stores four bytes at an aligned offset.
    pub(crate) fn write_u32(&self, offset: usize, value: u32) {
        let place = self.address(offset, 4, 4).cast::<u32>();
        // SAFETY: the place is checked and aligned as in `read_u32`, and mapped writable; no Rust reference to it exists.
        unsafe { place.write_volatile(value) }
    }

    /// Stores eight bytes at an aligned offset, as one access.
    pub(crate) fn write_u64(&self, offset: usize, value: u64) {
        let place = self.address(offset, 8, 8).cast::<u64>();
        // SAFETY: as in `write_u32`, with eight bytes aligned to 8.
        unsafe { place.write_volatile(value) }
    }

    /// Copies `into.len()` bytes out, each loaded once.
    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.address(offset, into.len(), 1);
        #[cfg(target_arch = "x86_64")]
        if into.len() >= STRING {
            // SAFETY: `from` is the first of `into.len()` bytes that `address` checked, and `into` is memory of its own. The
            // direction flag is clear whenever Rust code runs. An instruction is no access that the compiler knows of, so
            // that somebody else may write meanwhile, as with volatile loads; it loads each byte once.
            unsafe {
                std::arch::asm!(
                    "rep movsb",
                    inout("rcx") into.len() => _,
                    inout("rsi") from => _,
                    inout("rdi") into.as_mut_ptr() => _,
                    options(nostack, preserves_flags)
                );
            }
            return;
        }
        let by_words = if offset.is_multiple_of(8) { into.len() / 8 * 8 } else { 0 };
        let (aligned, tail) = into.split_at_mut(by_words);
        let words = aligned.as_chunks_mut::<8>().0;
        let tail_at = by_words;
        for (index, word) in words.iter_mut().enumerate() {
            let place = from.cast::<u64>().wrapping_add(index);
            // SAFETY: `place` lies in the `into.len()` bytes that `address` checked, and is aligned to 8 because the
            // mapping and, where there are words, `offset` are.
            *word = unsafe { place.read_volatile() }.to_ne_bytes();
        }
        for (index, octet) in tail.iter_mut().enumerate() {
            let place = from.wrapping_add(tail_at + index);
            // SAFETY: `place` lies in the checked bytes; a byte needs no alignment.
            *octet = unsafe { place.read_volatile() };
        }
    }

    /// Moves units out and leaves zeroes behind, each byte loaded once. Gives bytes whose CRC-32C (BLK-5) is that of them all; `None`,
    /// with nothing done, where the processor cannot do that in one pass or there are none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn take_folded(&self, offset: usize, into: &mut [[u8; UNIT]]) -> Option<Folded> {
        let from = self.address(offset, into.as_flattened().len(), 1);
        // SAFETY: `address` checked that so many bytes lie in the live mapping, which is writable and has no Rust reference into it.
        unsafe { fold::take(from, into) }
    }

    /// No processor of this architecture does it in one pass.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn take_folded(&self, _: usize, _: &mut [[u8; UNIT]]) -> Option<Folded> {
        None
    }

    /// Copies `from` in.
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        let into = self.address(offset, from.len(), 1);
        let by_words = if offset.is_multiple_of(8) { from.len() / 8 * 8 } else { 0 };
        let (aligned, tail) = from.split_at(by_words);
        let words = aligned.as_chunks::<8>().0;
        for (index, word) in words.iter().enumerate() {
            let place = into.cast::<u64>().wrapping_add(index);
            // SAFETY: `place` lies in the `from.len()` bytes that `address` checked, aligned to 8 as in
            // `copy_out`, mapped writable.
            unsafe { place.write_volatile(u64::from_ne_bytes(*word)) };
        }
        for (index, octet) in tail.iter().enumerate() {
            let place = into.wrapping_add(by_words + index);
            // SAFETY: `place` lies in the checked bytes; a byte needs no alignment.
            unsafe { place.write_volatile(*octet) };
        }
    }

    /// Writes zeros over `length` bytes. Volatile, so that it is done even if nobody reads them again. `offset` is a
    /// multiple of 8.
    pub(crate) fn wipe(&self, offset: usize, length: usize) {
        let into = self.address(offset, length, 8);
        #[cfg(target_arch = "x86_64")]
        if length >= STRING {
            // SAFETY: `into` is the first of `length` bytes that `address` checked, mapped writable. As in `copy_out`, the
            // compiler knows of no access, so it can leave none out.
            unsafe {
                std::arch::asm!(
                    "rep stosb",
                    inout("rcx") length => _,
                    inout("rdi") into => _,
                    in("al") 0_u8,
                    options(nostack, preserves_flags)
                );
            }
            return;
        }
        let words = length / 8;
        for index in 0..words {
            let place = into.cast::<u64>().wrapping_add(index);
            // SAFETY: `place` lies in the `length` bytes that `address` checked, aligned to 8, mapped writable.
            unsafe { place.write_volatile(0) };
        }
        for index in words * 8..length {
            let place = into.wrapping_add(index);
            // SAFETY: `place` lies in the checked bytes; a byte needs no alignment.
            unsafe { place.write_volatile(0) };
        }
    }
}
