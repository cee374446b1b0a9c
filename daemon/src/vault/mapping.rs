//! The pages behind the vault: locked, outside core dumps and out of the reach of child processes.

#![allow(unsafe_code, reason = "memory of this kind comes from system calls only")]

use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munlock, munmap,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::{Locking, VaultError};

/// What keeps the vault's memory from leaving the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// `memfd_secret`: locked, and the kernel itself has no mapping of it. The machine cannot hibernate meanwhile.
    Secret,
    /// Anonymous memory, locked: never swapped.
    Locked,
    /// Anonymous memory that could not be locked: key may reach a swap disk.
    Unlocked,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "secret memory (memfd_secret)",
            Self::Locked => "locked memory",
            Self::Unlocked => "unlocked memory, which may be swapped",
        })
    }
}

/// A multiple of every page size in use on Linux.
const ROUNDING: usize = 65_536;

/// An exclusive mapping of zeroed pages, unmapped on drop.
pub(super) struct Mapping {
    base: NonNull<u8>,
    length: NonZeroUsize,
    kind: MemoryKind,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Mapping` itself never touches its octets after
// it is made. Whoever makes references into it answers for them.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives only an address, a length and the kind.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `bytes`, rounded up.
    pub(super) fn new(bytes: u64, locking: Locking) -> Result<Self, VaultError> {
        let length = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| bytes.checked_next_multiple_of(ROUNDING))
            .filter(|length| isize::try_from(*length).is_ok())
            .and_then(NonZeroUsize::new)
            .ok_or(VaultError::Size { bytes })?;
        if locking != Locking::Locked
            && let Some(mapping) = Self::secret_that_is_there(length)
        {
            mapping.keep_inside()?;
            return Ok(mapping);
        }
        if locking == Locking::Secret {
            return Err(VaultError::NotSecret { needed: length.get(), limit: Limit::current() });
        }
        let mut mapping = Self::anonymous(length)?;
        mapping.keep_inside()?;
        match mapping.lock() {
            Ok(()) => mapping.kind = MemoryKind::Locked,
            Err(_) if locking == Locking::Preferred => {}
            Err(why) => {
                return Err(VaultError::NotLocked { needed: length.get(), limit: Limit::current(), why });
            }
        }
        Ok(mapping)
    }

    /// First octet; aligned to a page.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Octets.
    pub(super) fn length(&self) -> usize {
        self.length.get()
    }

    /// What it turned out to be.
    pub(super) fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// `None` where the kernel does not give such memory, or not that much. Memory that is not there should be missed at the
    /// start: all of it is had once, given back, and then had piece by piece ([`Self::populate`]).
    fn secret_that_is_there(length: NonZeroUsize) -> Option<Self> {
        let probe = Self::secret(length)?;
        // SAFETY: the mapping is new, and nothing refers to it.
        unsafe { probe.populate(0..length.get()) }.ok()?;
        drop(probe);
        Self::secret(length)
    }

    fn secret(length: NonZeroUsize) -> Option<Self> {
        let file = secret_file()?;
        nix::unistd::ftruncate(&file, i64::try_from(length.get()).ok()?).ok()?;
        let map = || {
            // SAFETY: no address is asked for, so that no other mapping is replaced.
            unsafe { mmap(None, length, read_write(), MapFlags::MAP_SHARED, &file, 0) }
        };
        let base = map().or_else(|_| raise_limit().and_then(|()| map())).ok()?.cast();
        Some(Self { base, length, kind: MemoryKind::Secret })
    }

    /// Has the pages of `range` given now, all zero. The kernel gives pages of secret memory at the first touch, and some kernels
    /// only then hold them against the limit on locked memory, by a signal that ends the process. Where the kernel itself is what
    /// touches them, it answers with an error.
    ///
    /// # Errors
    /// There is no more such memory.
    ///
    /// # Safety
    /// Nothing refers to any octet of the range.
    pub(super) unsafe fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let length = range.end.min(self.length()).saturating_sub(range.start);
        if self.kind == MemoryKind::Unlocked || length == 0 {
            return Ok(());
        }
        // SAFETY: `length` is not 0, so that `range.start` lies in the mapping.
        let first = unsafe { self.base.add(range.start) };
        if self.kind == MemoryKind::Locked {
            // SAFETY: `length` octets from there on lie in the mapping; the advice has pages made and changes nothing in them.
            return match unsafe { madvise(first.cast(), length, MmapAdvise::MADV_POPULATE_WRITE) } {
                // Before Linux 5.14 they are made when they are written to.
                Ok(()) | Err(Errno::EINVAL) => Ok(()),
                Err(why) => Err(why.into()),
            };
        }
        let zeros = File::from(memfd_create("qkdd-zeros", MFdFlags::MFD_CLOEXEC)?);
        zeros.set_len(u64::try_from(length).map_err(io::Error::other)?)?;
        // SAFETY: `length` octets from there on lie in the mapping, are writable, and have been zeroed since they were made or
        // were last referred to. The caller answers for that nothing refers to them now. The slice goes to the kernel only.
        let pages = unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), length) };
        zeros.read_exact_at(pages, 0)
    }

    fn anonymous(length: NonZeroUsize) -> Result<Self, VaultError> {
        // SAFETY: no address is asked for, so that no other mapping is replaced.
        let base = unsafe { mmap_anonymous(None, length, read_write(), MapFlags::MAP_PRIVATE) }
            .map_err(|why| VaultError::NotMapped { bytes: length.get(), why })?;
        Ok(Self { base: base.cast(), length, kind: MemoryKind::Unlocked })
    }

    /// Keeps the pages out of core dumps and out of child processes, and small, so that those that are not needed take no memory.
    fn keep_inside(&self) -> Result<(), VaultError> {
        // SAFETY: the range is exactly this mapping, and the advice changes nothing in it. A kernel without huge pages refuses it.
        let _ = unsafe { madvise(self.base.cast(), self.length(), MmapAdvise::MADV_NOHUGEPAGE) };
        for advice in [MmapAdvise::MADV_DONTDUMP, MmapAdvise::MADV_DONTFORK] {
            // SAFETY: the range is exactly this mapping, and neither advice changes what it holds in this process.
            unsafe { madvise(self.base.cast(), self.length(), advice) }
                .map_err(|why| VaultError::NotKeptInside { why })?;
        }
        Ok(())
    }

    /// Locks all of it, so that memory that is not there is missed at the start; then gives the pages, to which nobody has written
    /// yet, back to the system, and has each locked when it is first touched. The limit on locked memory counts all of them.
    fn lock(&self) -> Result<(), Errno> {
        let lock = || {
            // SAFETY: the range is exactly this mapping; locking does not change what it holds.
            unsafe { mlock(self.base.cast(), self.length()) }
        };
        lock().or_else(|_| raise_limit().and_then(|()| lock()))?;
        // SAFETY: as for `mlock`.
        unsafe { munlock(self.base.cast(), self.length()) }?;
        // SAFETY: the range is exactly this mapping, which is new: zeroed, and nothing refers to it. Pages of anonymous memory
        // that are given back are zero again at their next touch.
        unsafe { madvise(self.base.cast(), self.length(), MmapAdvise::MADV_DONTNEED) }?;
        // SAFETY: as for `mlock`.
        match unsafe { libc::mlock2(self.base.as_ptr().cast(), self.length(), libc::MLOCK_ONFAULT) } {
            0 => Ok(()),
            _ => lock(),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly this mapping, and nothing refers to it any more: every reference into it is
        // made by an owner that keeps the mapping alive.
        // There is nothing to do about a failure: the pages then stay mapped until the process ends.
        let _ = unsafe { munmap(self.base.cast(), self.length()) };
    }
}

fn read_write() -> ProtFlags {
    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
}

/// The limit on locked memory, for a person to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(Option<u64>);

impl Limit {
    fn current() -> Self {
        Self(getrlimit(Resource::RLIMIT_MEMLOCK).ok().map(|(_, hard)| hard))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unknown"),
            Some(RLIM_INFINITY) => f.write_str("unlimited"),
            Some(octets) => write!(f, "{octets} bytes for the whole process"),
        }
    }
}

/// Raises the soft limit on locked memory to the hard one, which every process may do.
fn raise_limit() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft == hard {
        return Err(Errno::ENOMEM);
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)
}

/// Whether the kernel gives secret memory at all.
pub(crate) fn has_secret_memory() -> bool {
    secret_file().is_some()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn secret_file() -> Option<OwnedFd> {
    // The number is the same on all three; the C library has no function for it.
    const MEMFD_SECRET: libc::c_long = 447;
    // SAFETY: memfd_secret takes flags only and touches no memory of this process.
    let descriptor = unsafe { libc::syscall(MEMFD_SECRET, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
    // SAFETY: the kernel has just made this descriptor for this call, so that nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn secret_file() -> Option<OwnedFd> {
    None
}
