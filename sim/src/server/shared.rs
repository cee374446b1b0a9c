//! Memory that another process reads and writes at the same time: BAR 0 and the client's DMA memory.
#![allow(unsafe_code, reason = "reading and writing such memory is only possible through raw pointers")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

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
        let (head, words, tail) = self.parts(offset, into.len())?;
        let (into_head, rest) = into.split_at_mut(head.len());
        let (into_words, into_tail) = rest.split_at_mut(words.len() * 8);
        let octets = head.iter().zip(into_head).chain(tail.iter().zip(into_tail));
        octets.for_each(|(from, to)| *to = from.load(Ordering::Relaxed));
        for (from, to) in words.iter().zip(into_words.as_chunks_mut().0) {
            *to = from.load(Ordering::Relaxed).to_ne_bytes();
        }
        fence(Ordering::Acquire);
        Some(())
    }

    /// Copies into the mapping; `None`, with nothing copied, when the range does not lie within it.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Option<()> {
        let (head, words, tail) = self.parts(offset, from.len())?;
        fence(Ordering::Release);
        let (from_head, rest) = from.split_at(head.len());
        let (from_words, from_tail) = rest.split_at(words.len() * 8);
        let octets = head.iter().zip(from_head).chain(tail.iter().zip(from_tail));
        octets.for_each(|(to, &from)| to.store(from, Ordering::Relaxed));
        for (to, &from) in words.iter().zip(from_words.as_chunks().0) {
            to.store(u64::from_ne_bytes(from), Ordering::Relaxed);
        }
        Some(())
    }

    fn word64(&self, offset: u64) -> Option<&AtomicU64> {
        match self.parts(offset, 8)? {
            (_, [word], _) => Some(word),
            _ => None,
        }
    }

    /// A range of the mapping as octets up to the first multiple of 8, words, and the octets that are left.
    fn parts(&self, offset: u64, bytes: usize) -> Option<(&[AtomicU8], &[AtomicU64], &[AtomicU8])> {
        let start = self.at(offset, bytes)?.cast::<AtomicU8>();
        // SAFETY: `at` gives a pointer to `bytes` octets of a writable mapping that lives as long as `self` and whose
        // file cannot shrink. All accesses of this process to the mapping are atomic, and other processes are no part
        // of its memory model, so shared references to atomics are what may point there.
        let octets = unsafe { std::slice::from_raw_parts(start, bytes) };
        // SAFETY: eight `AtomicU8` have the size and the valid values of one `AtomicU64`, and `align_to` keeps to its
        // alignment. Accesses of different sizes do not meet in one octet at once: ranges are only
        // copied of a client's memory and by the cards' thread alone, and BAR 0 is never taken for such memory.
        let parts = unsafe { octets.align_to::<AtomicU64>() };
        Some(parts)
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
