//! The only place where key lives: memory that is not swapped, not dumped, not inherited, and wiped.
//!
//! A block of key is filled once ([`Room`]), sealed ([`KeyBlock`]), and then taken apart into [`KeyExtent`]s. An octet
//! leaves its block once: whoever asks for it again gets an error, whatever went wrong before. That makes it the last
//! line of defence against key delivered at two positions.

mod block;
mod mapping;
mod pages;
mod span;
mod wipe;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use nix::errno::Errno;

pub use self::block::{KeyBlock, KeyExtent, Room, TakenTwice};
pub use self::mapping::{Limit, MemoryKind};

pub(crate) use self::mapping::has_secret_memory;
pub(crate) use self::wipe::wipe;

use self::mapping::Mapping;
use self::span::Arena;

/// Which memory will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// Secret memory only ([`MemoryKind::Secret`]).
    Secret,
    /// Locked memory, also where the kernel gives secret memory.
    Locked,
    /// Secret memory where the kernel gives it, otherwise locked memory. What cannot be locked is an error.
    Required,
    /// As `Required`, but memory that cannot be locked is taken as it is; [`Vault::kind`] then says
    /// [`MemoryKind::Unlocked`].
    Preferred,
}

/// The vault cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Zero octets, or more than can be addressed.
    #[error("memory for keys of {bytes} bytes is not possible")]
    Size {
        /// Octets asked for.
        bytes: u64,
    },
    /// The system has no memory to give.
    #[error("no {bytes} bytes of memory for keys: {why}; make vault.bytes smaller")]
    NotMapped {
        /// Octets asked for.
        bytes: usize,
        /// The system's word for it.
        why: Errno,
    },
    /// The kernel does not give secret memory, or not so much.
    #[error(
        "the kernel gives no {needed} bytes of secret memory (limit on locked memory: {limit}); it must have memfd_secret \
         (Linux 5.14, before 6.5 with secretmem.enable=1), and the limit must allow it (LimitMEMLOCK= in the systemd unit, \
         or `ulimit -l`). Otherwise set vault.memory to \"best\" or \"locked\""
    )]
    NotSecret {
        /// Octets to map beyond those already locked.
        needed: usize,
        /// The process's limit.
        limit: Limit,
    },
    /// The memory cannot be kept out of swap.
    #[error(
        "{needed} more bytes of memory for keys cannot be locked: {why} (limit on locked memory: {limit}); raise the \
         limit (LimitMEMLOCK= in the systemd unit, or `ulimit -l`), make vault.bytes smaller, or set \
         vault.unlocked_memory_lets_keys_reach_swap"
    )]
    NotLocked {
        /// Octets to lock beyond those already locked.
        needed: usize,
        /// The process's limit.
        limit: Limit,
        /// The system's word for it.
        why: Errno,
    },
    /// The memory cannot be kept out of core dumps or child processes.
    #[error("memory for keys cannot be kept out of core dumps and child processes: {why}")]
    NotKeptInside {
        /// The system's word for it.
        why: Errno,
    },
}

/// A handle to the memory that holds key. A clone is another handle to the same memory.
#[derive(Clone)]
pub struct Vault {
    arena: Arc<Arena>,
}

impl Vault {
    /// Maps at least `bytes` octets, rounded up to 64 KiB, all zero.
    ///
    /// Raises the process's soft limit on locked memory to its hard limit when that is needed.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn new(bytes: u64, locking: Locking) -> Result<Self, VaultError> {
        Ok(Self { arena: Arena::new(Mapping::new(bytes, locking)?) })
    }

    /// What keeps the memory from leaving the process, for the log.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.arena.kind()
    }

    /// Room for `length` octets, which takes whole pages of 4 KiB. `None`: there is none now, or `length` is 0.
    #[must_use]
    pub fn reserve(&self, length: u32) -> Option<Room> {
        self.arena.reserve(usize::try_from(length).ok()?).map(Room::new)
    }

    /// Octets in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.arena.length()
    }

    /// Octets in use, in whole pages. Cheap: one load.
    #[must_use]
    pub fn used(&self) -> usize {
        self.arena.used()
    }

    /// Octets not in use. They may lie in pieces.
    #[must_use]
    pub fn free(&self) -> usize {
        self.size().saturating_sub(self.used())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("kind", &self.kind())
            .field("size", &self.size())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}
