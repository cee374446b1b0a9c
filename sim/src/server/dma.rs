//! The client's memory by I/O virtual address.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::shared::SharedMemory;
use crate::card::DmaRefused;

/// Mappings that a client may have; what vfio-user clients assume when a server names no number.
pub(crate) const MAPPINGS_MAX: usize = 65_535;
/// Granularity of mappings, and the only page size that clients are told of.
pub(crate) const PAGE: u64 = 4096;

/// The card may read from the mapping.
pub(crate) const READABLE: u32 = 1 << 0;
/// The card may write to the mapping.
pub(crate) const WRITABLE: u32 = 1 << 1;

#[derive(Debug)]
struct Mapping {
    bytes: u64,
    flags: u32,
    /// The memory and the offset in it; nothing when the client passed no descriptor. DMA there is refused: this
    /// server does not use the messages that would ask the client for the octets.
    memory: Option<(Arc<SharedMemory>, u64)>,
}

/// A file: device and inode.
type FileKey = (u64, u64);

/// All mappings of a client.
#[derive(Debug)]
pub(crate) struct DmaTable {
    /// The memory of BAR 0, which is no memory of the client even if it passes the descriptor back.
    registers: FileKey,
    mappings: BTreeMap<u64, Mapping>,
    /// Each file is mapped once, whole, however many mappings lie in it. Keyed by device and inode.
    files: BTreeMap<FileKey, Weak<SharedMemory>>,
}

impl DmaTable {
    /// No mappings yet.
    pub(crate) fn new(registers: &SharedMemory) -> Result<Self, Errno> {
        let registers = file_key(registers)?;
        Ok(Self { registers, mappings: BTreeMap::new(), files: BTreeMap::new() })
    }

    /// Makes `bytes` at `iova` reachable.
    ///
    /// # Errors
    /// `EINVAL` for an empty, unaligned or wrapping range or one that its file does not have, `EEXIST` when it
    /// overlaps another, `ENOSPC` when there are too many, or what sealing and mapping the descriptor say.
    pub(crate) fn map(
        &mut self,
        iova: u64,
        bytes: u64,
        flags: u32,
        file: Option<(OwnedFd, u64)>,
    ) -> Result<(), Errno> {
        let end = iova.checked_add(bytes).ok_or(Errno::EINVAL)?;
        if bytes == 0 || !iova.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let before = self.mappings.range(..end).next_back();
        if before.is_some_and(|(&start, mapping)| start + mapping.bytes > iova) {
            return Err(Errno::EEXIST);
        }
        if self.mappings.len() >= MAPPINGS_MAX {
            return Err(Errno::ENOSPC);
        }
        let memory = match file {
            Some((descriptor, offset)) => {
                let last = offset.checked_add(bytes).ok_or(Errno::EINVAL)?;
                Some((self.file(descriptor, last)?, offset))
            }
            None => None,
        };
        self.mappings.insert(iova, Mapping { bytes, flags, memory });
        Ok(())
    }

    /// The mapping of a whole file of at least `bytes`, made anew only when there is none yet or it is too short.
    fn file(&mut self, descriptor: OwnedFd, bytes: u64) -> Result<Arc<SharedMemory>, Errno> {
        let key = file_key(&descriptor)?;
        if key == self.registers {
            return Err(Errno::EINVAL);
        }
        let known = self.files.get(&key).and_then(Weak::upgrade).filter(|known| known.len() >= bytes);
        if let Some(known) = known {
            return Ok(known);
        }
        let memory = SharedMemory::of_client(descriptor)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EINVAL)))?;
        if memory.len() < bytes {
            return Err(Errno::EINVAL);
        }
        let memory = Arc::new(memory);
        self.files.retain(|_, known| known.strong_count() > 0);
        self.files.insert(key, Arc::downgrade(&memory));
        Ok(memory)
    }

    /// Takes back all mappings within `bytes` at `iova`, and tells how many octets that were. Where nothing is mapped it
    /// is 0 and no error, as with the kernel's VFIO: a virtual machine unmaps whatever its emulated IOMMU invalidates.
    ///
    /// # Errors
    /// `EINVAL` when the range is empty, wraps or would cut a mapping in two; nothing is taken back then.
    pub(crate) fn unmap(&mut self, iova: u64, bytes: u64) -> Result<u64, Errno> {
        if bytes == 0 {
            return Err(Errno::EINVAL);
        }
        let end = iova.checked_add(bytes).ok_or(Errno::EINVAL)?;
        let overlapping = |(start, mapping): (&u64, &Mapping)| (*start, start + mapping.bytes);
        let ends_inside = self.mappings.range(..end).next_back().map(overlapping);
        let starts_before = self.mappings.range(..iova).next_back().map(overlapping);
        if ends_inside.is_some_and(|(_, last)| last > end)
            || starts_before.is_some_and(|(_, last)| last > iova)
        {
            return Err(Errno::EINVAL);
        }
        let inside: Vec<u64> = self.mappings.range(iova..end).map(|(&start, _)| start).collect();
        Ok(inside.iter().filter_map(|start| self.mappings.remove(start)).map(|mapping| mapping.bytes).sum())
    }

    /// Takes back everything, and tells how many octets that were.
    pub(crate) fn clear(&mut self) -> u64 {
        self.files.clear();
        std::mem::take(&mut self.mappings).values().map(|mapping| mapping.bytes).sum()
    }

    /// The pieces of memory behind a range, in order; refused unless all of it is mapped with the permission.
    fn pieces(&self, iova: u64, length: usize, flag: u32) -> Result<Vec<Piece<'_>>, DmaRefused> {
        let refused = DmaRefused { iova, length: length as u64 };
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (iova, length);
        while rest > 0 {
            let (&start, mapping) = self.mappings.range(..=at).next_back().ok_or(refused)?;
            let inside = at - start;
            let (memory, offset) = mapping.memory.as_ref().ok_or(refused)?;
            if inside >= mapping.bytes || mapping.flags & flag == 0 {
                return Err(refused);
            }
            let length = usize::try_from(mapping.bytes - inside).unwrap_or(usize::MAX).min(rest);
            pieces.push(Piece { memory, offset: offset + inside, length });
            rest -= length;
            at = at.checked_add(length as u64).ok_or(refused)?;
        }
        Ok(pieces)
    }

    pub(crate) fn read(&self, iova: u64, mut into: &mut [u8]) -> Result<(), DmaRefused> {
        let refused = DmaRefused { iova, length: into.len() as u64 };
        for piece in self.pieces(iova, into.len(), READABLE)? {
            let (now, later) = into.split_at_mut(piece.length);
            piece.memory.read(piece.offset, now).ok_or(refused)?;
            into = later;
        }
        Ok(())
    }

    pub(crate) fn write(&self, iova: u64, mut from: &[u8]) -> Result<(), DmaRefused> {
        let refused = DmaRefused { iova, length: from.len() as u64 };
        for piece in self.pieces(iova, from.len(), WRITABLE)? {
            let (now, later) = from.split_at(piece.length);
            piece.memory.write(piece.offset, now).ok_or(refused)?;
            from = later;
        }
        Ok(())
    }

    pub(crate) fn write_u64(&self, iova: u64, value: u64) -> Result<(), DmaRefused> {
        let refused = DmaRefused { iova, length: 8 };
        match self.pieces(iova, 8, WRITABLE)?.as_slice() {
            [piece] => piece.memory.store64(piece.offset, value).ok_or(refused),
            _ => Err(refused),
        }
    }
}

fn file_key(file: &impl AsFd) -> Result<FileKey, Errno> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[derive(Debug)]
struct Piece<'a> {
    memory: &'a SharedMemory,
    offset: u64,
    length: usize,
}
