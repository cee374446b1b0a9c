//! Memory that the card reaches by DMA.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::shared_memory::SharedMemory;

/// Sizes are rounded up to this, in bytes.
const PAGE: usize = 4096;
/// Memory of at least this size is rounded up to it and asks for huge pages, in bytes.
const HUGE_PAGE: usize = 2 << 20;
/// First I/O virtual address that is handed out: above 4 GiB lies none of the windows that platforms reserve.
const FIRST_IOVA: u64 = 1 << 32;
/// End of the I/O virtual addresses handed out: every IOMMU in use translates 39 bits.
const IOVA_END: u64 = 1 << 39;

/// Memory that is mapped here and, at `iova`, for the card. Wiped when dropped.
#[derive(Debug)]
pub struct DmaMemory {
    memory: Arc<SharedMemory>,
    iova: u64,
}

impl DmaMemory {
    /// Takes a mapping that the card reaches at `iova`.
    pub(crate) const fn new(memory: Arc<SharedMemory>, iova: u64) -> Self {
        Self { memory, iova }
    }

    /// I/O virtual address of the first byte, a multiple of 4096.
    #[must_use]
    pub const fn iova(&self) -> u64 {
        self.iova
    }

    /// Size in bytes, a multiple of 4096.
    #[must_use]
    pub fn length(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.memory.read_u64(offset))
    }

    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.memory.copy_out(offset, into);
    }

    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        self.memory.copy_in(offset, from);
    }

    pub(crate) fn wipe(&self, offset: usize, length: usize) {
        self.memory.wipe(offset, length);
    }

    pub(crate) fn wipe_all(&self) {
        self.memory.wipe(0, self.memory.len());
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        self.wipe_all();
    }
}

/// A memory file of fixed size that can be handed to another process.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    file: File,
    length: usize,
}

impl MemoryFile {
    /// Creates zeroed memory of `length` bytes, a multiple of the page size. Sealed, so that whoever else gets the
    /// descriptor cannot shrink it under our mapping.
    pub(crate) fn create(name: &str, length: usize) -> io::Result<Self> {
        let descriptor: OwnedFd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(descriptor);
        file.set_len(u64::try_from(length).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file, length })
    }

    /// Maps all of it.
    pub(crate) fn map(&self) -> io::Result<SharedMemory> {
        let memory = SharedMemory::of_file(self.file.as_fd(), 0, self.length)?;
        if self.length >= HUGE_PAGE {
            memory.prefer_huge_pages();
        }
        Ok(memory)
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Rounds a size up to whole pages, and from 2 MiB on to whole huge pages. `None` if there is no such size.
pub(crate) fn round_up(length: usize) -> Option<usize> {
    let unit = if length >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
    length.max(1).checked_next_multiple_of(unit)
}

/// Hands out I/O virtual addresses, each once.
#[derive(Debug)]
pub(crate) struct IovaAllocator {
    next: u64,
}

impl IovaAllocator {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST_IOVA }
    }

    /// An address range of `length` bytes, aligned to huge pages. `None` when the space has run out.
    pub(crate) fn allocate(&mut self, length: usize) -> Option<u64> {
        let iova = self.next;
        let unit = u64::try_from(HUGE_PAGE).ok()?;
        let end = iova.checked_add(u64::try_from(length).ok()?)?.checked_next_multiple_of(unit)?;
        if end > IOVA_END {
            return None;
        }
        self.next = end;
        Some(iova)
    }
}
