//! Memory that another process reads and writes at the same time: BAR 0 and the client's DMA memory.
#![allow(unsafe_code)] // Reading and writing such memory is only possible through raw pointers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A shared mapping of a file that cannot shrink. Every access is checked against its bounds and atomic, so that
/// whatever the other side does meanwhile gives at worst a wrong value, never undefined behaviour.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    map: MmapRaw,
    file: File,
}

impl SharedMemory {
    /// New zeroed memory of `bytes`, sealed against any change of its size.
    pub(crate) fn create(name: &str, bytes: u64) -> io::Result<Self> {
        let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
        file.set_len(bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Self::map(file)
    }

    /// Maps the whole of a file that a client has passed.
    ///
    /// A file that shrinks would end this process with SIGBUS at the next access, so it must be sealed against
    /// shrinking. Where the client has not done that it is done here; a file that cannot be sealed is refused.
    pub(crate) fn of_client(descriptor: OwnedFd) -> io::Result<Self> {
        let seals = fcntl(&descriptor, FcntlArg::F_GET_SEALS)?;
        if !SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK) {
            fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        }
        Self::map(File::from(descriptor))
    }

    fn map(file: File) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(file.as_raw_fd())?;
        Ok(Self { map, file })
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Pointer to `bytes` octets at `offset`, if they lie within the mapping.
    fn at(&self, offset: u64, bytes: usize) -> Option<*mut u8> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes)?;
        (end <= self.map.len()).then(|| self.map.as_mut_ptr().wrapping_add(start))
    }

    /// One aligned 32-bit load with acquire order; `None` outside the mapping or unaligned.
    pub(crate) fn load32(&self, offset: u64) -> Option<u32> {
        let pointer = self.at(offset, 4).filter(|_| offset.is_multiple_of(4))?;
        // SAFETY: `at` gives a pointer to four octets of a mapping that lives as long as `self` and whose file
        // cannot shrink; it is 4-aligned because the mapping starts at a page. All accesses of this process to the
        // mapping are atomic, and other processes are no part of its memory model.
        let word = unsafe { AtomicU32::from_ptr(pointer.cast()) };
        Some(u32::from_le(word.load(Ordering::Acquire)))
    }

    /// One aligned 64-bit load with acquire order; `None` outside the mapping or unaligned.
    pub(crate) fn load64(&self, offset: u64) -> Option<u64> {
        self.word64(offset).map(|word| u64::from_le(word.load(Ordering::Acquire)))
    }

    /// One aligned 32-bit store with release order; `None` outside the mapping or unaligned.
    pub(crate) fn store32(&self, offset: u64, value: u32) -> Option<()> {
        let pointer = self.at(offset, 4).filter(|_| offset.is_multiple_of(4))?;
        // SAFETY: as in `load32`; the mapping is writable.
        let word = unsafe { AtomicU32::from_ptr(pointer.cast()) };
        word.store(value.to_le(), Ordering::Release);
        Some(())
    }

    /// One aligned 64-bit store with release order; `None` outside the mapping or unaligned.
    pub(crate) fn store64(&self, offset: u64, value: u64) -> Option<()> {
        self.word64(offset).map(|word| word.store(value.to_le(), Ordering::Release))
    }

    /// Copies out of the mapping; `None`, with nothing copied, when the range does not lie within it.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        self.at(offset, into.len())?;
        let mut offset = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let step = if offset.is_multiple_of(8) && rest.len() >= 8 { 8 } else { 1 };
            let (now, later) = rest.split_at_mut(step);
            if step == 8 {
                now.copy_from_slice(&self.word64(offset)?.load(Ordering::Relaxed).to_ne_bytes());
            } else {
                now.fill(self.octet(offset)?.load(Ordering::Relaxed));
            }
            offset += step as u64;
            rest = later;
        }
        std::sync::atomic::fence(Ordering::Acquire);
        Some(())
    }

    /// Copies into the mapping; `None`, with nothing copied, when the range does not lie within it.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Option<()> {
        self.at(offset, from.len())?;
        std::sync::atomic::fence(Ordering::Release);
        let mut offset = offset;
        let mut rest = from;
        while !rest.is_empty() {
            match rest.split_first_chunk::<8>() {
                Some((now, later)) if offset.is_multiple_of(8) => {
                    self.word64(offset)?.store(u64::from_ne_bytes(*now), Ordering::Relaxed);
                    offset += 8;
                    rest = later;
                }
                _ => {
                    let (now, later) = rest.split_first()?;
                    self.octet(offset)?.store(*now, Ordering::Relaxed);
                    offset += 1;
                    rest = later;
                }
            }
        }
        Some(())
    }

    fn word64(&self, offset: u64) -> Option<&AtomicU64> {
        let pointer = self.at(offset, 8).filter(|_| offset.is_multiple_of(8))?;
        // SAFETY: as in `load32`, with eight octets and an alignment of 8; the reference does not outlive `self`.
        Some(unsafe { AtomicU64::from_ptr(pointer.cast()) })
    }

    fn octet(&self, offset: u64) -> Option<&AtomicU8> {
        let pointer = self.at(offset, 1)?;
        // SAFETY: as in `load32`, with one octet; the reference does not outlive `self`.
        Some(unsafe { AtomicU8::from_ptr(pointer) })
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
