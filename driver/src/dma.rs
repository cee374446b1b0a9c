//! Memory that the card reaches by DMA.

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::shared_memory::{Folded, SharedMemory, UNIT};

/// Sizes are rounded up to this, in bytes.
const PAGE: usize = 4096;
/// Memory of at least this size is rounded up to it and asks for huge pages, in bytes.
const HUGE_PAGE: usize = 2 << 20;
/// First I/O virtual address that is handed out: above 4 GiB lies none of the windows that platforms reserve.
const FIRST_IOVA: u64 = 1 << 32;
/// Least address that is handed out where nothing above 4 GiB can be had: not 0, which the contract forbids (RNG-1).
const LEAST_IOVA: u64 = 1 << 21;
/// End of the I/O virtual addresses handed out when nobody tells more: every IOMMU in use translates 39 bits.
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

    #[cfg(feature = "measuring")]
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.memory.as_mut_ptr()
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

    /// Wipes key that a card has delivered.
    ///
    /// The feature `no-wipe-for-tests` makes it do nothing, so that a test can show that its search for key finds what was
    /// left behind. No program that is built like what is shipped can have that feature.
    pub(crate) fn wipe_key(&self, offset: usize, length: usize) {
        if cfg!(not(feature = "no-wipe-for-tests")) {
            self.memory.wipe(offset, length);
        }
    }

    /// Moves key that a card has delivered out and wipes it, as [`SharedMemory::take_folded`] does. With `no-wipe-for-tests` it
    /// does nothing.
    pub(crate) fn take_key_folded(&self, offset: usize, into: &mut [[u8; UNIT]]) -> Option<Folded> {
        if cfg!(feature = "no-wipe-for-tests") {
            return None;
        }
        self.memory.take_folded(offset, into)
    }

    pub(crate) fn wipe_all(&self) {
        self.wipe_key(0, self.memory.len());
    }
}

#[cfg(all(feature = "no-wipe-for-tests", not(debug_assertions)))]
compile_error!(
    "no-wipe-for-tests leaves key in memory: it is for tests of debug builds, and no release may have it"
);

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
    /// What is left, in the order in which it is used up.
    windows: Vec<Range<u64>>,
}

impl IovaAllocator {
    /// All addresses that every IOMMU in use translates.
    pub(crate) fn new() -> Self {
        Self { windows: std::iter::once(FIRST_IOVA..IOVA_END).collect() }
    }

    /// Addresses within `ranges`, those above 4 GiB first; as [`IovaAllocator::new`] when there are no ranges.
    pub(crate) fn within(ranges: &[RangeInclusive<u64>]) -> Self {
        if ranges.is_empty() {
            return Self::new();
        }
        let part = |first: u64, end: u64| {
            let cut = ranges.iter().map(move |range| {
                (*range.start()).max(first)..range.end().checked_add(1).unwrap_or(u64::MAX).min(end)
            });
            cut.filter(|window| !window.is_empty())
        };
        Self { windows: part(FIRST_IOVA, u64::MAX).chain(part(LEAST_IOVA, FIRST_IOVA)).collect() }
    }

    /// An address range of `length` bytes, aligned to huge pages. `None` when the space has run out.
    pub(crate) fn allocate(&mut self, length: usize) -> Option<u64> {
        let unit = u64::try_from(HUGE_PAGE).ok()?;
        let length = u64::try_from(length).ok()?;
        self.windows.iter_mut().find_map(|window| {
            let iova = window.start.checked_next_multiple_of(unit)?;
            let end = iova.checked_add(length)?.checked_next_multiple_of(unit)?;
            if end > window.end {
                return None;
            }
            window.start = end;
            Some(iova)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{FIRST_IOVA, IOVA_END, IovaAllocator};

    const MIB: usize = 1 << 20;

    #[test]
    fn addresses_avoid_what_the_platform_reserves() {
        // As an Intel IOMMU of 39 bits tells it: everything but the window of interrupts.
        let mut iovas = IovaAllocator::within(&[0..=0xFEDF_FFFF, 0xFEF0_0000..=0x7F_FFFF_FFFF]);
        assert_eq!(iovas.allocate(4096), Some(FIRST_IOVA));
        assert_eq!(iovas.allocate(3 * MIB), Some(FIRST_IOVA + (2 << 20)));
        assert_eq!(iovas.allocate(4096), Some(FIRST_IOVA + (6 << 20)));
    }

    #[test]
    fn an_iommu_of_32_bits_is_used_below_4_gib_and_never_at_address_0() {
        let mut iovas = IovaAllocator::within(&[0..=0xFEDF_FFFF]);
        let first = iovas.allocate(64 * MIB).expect("there is room");
        assert!(first > 0 && first + (64 << 20) <= 0xFEE0_0000, "{first:#x}");
    }

    #[test]
    fn without_ranges_all_that_every_iommu_translates_is_used() {
        let mut iovas = IovaAllocator::within(&[]);
        assert_eq!(iovas.allocate(4096), Some(FIRST_IOVA));
        assert_eq!(iovas.allocate(usize::try_from(IOVA_END).expect("64 bits")), None);
    }

    proptest! {
        #[test]
        fn what_is_handed_out_lies_within_the_ranges_and_overlaps_nothing(
            ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..6),
            lengths in proptest::collection::vec(1_usize..(1 << 40), 1..20),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| a.min(b)..=a.max(b)).collect();
            let mut iovas = IovaAllocator::within(&ranges);
            let mut handed_out: Vec<(u64, u64)> = Vec::new();
            for length in lengths {
                let Some(iova) = iovas.allocate(length) else { continue };
                let last = iova + u64::try_from(length).expect("64 bits") - 1;
                assert!(ranges.is_empty() || ranges.iter().any(|range| range.contains(&iova) && range.contains(&last)));
                // Ranges that overlap each other are the kernel's own contradiction.
                if ranges.len() < 2 {
                    assert!(handed_out.iter().all(|&(from, to)| last < from || to < iova));
                }
                handed_out.push((iova, last));
            }
        }
    }
}
