//! The head of the last answer that accepted something. A server nearly always sends the same one again, and what is the same,
//! octet by octet, means the same: it need not be parsed anew.

use crate::vault::{Room, wipe};

/// What a head means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Octets of the head.
    pub(super) length: usize,
    /// A 2xx status. The connection goes on.
    pub(super) status: u16,
    /// Octets of the body.
    pub(super) body: usize,
}

/// A head, in memory of the vault's kind: a KMS may quote key in it.
#[derive(Debug)]
pub(in crate::push) struct LastHead {
    room: Room,
    known: Option<Known>,
}

impl LastHead {
    /// Octets of its memory. Longer heads are parsed each time.
    pub(in crate::push) const ROOM: usize = 1024;

    pub(in crate::push) fn new(room: Room) -> Self {
        Self { room, known: None }
    }

    /// With memory of its own.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::push) fn on_its_own() -> Self {
        let memory = crate::vault::Vault::new(4096, crate::vault::Locking::Preferred).expect("memory");
        Self::new(memory.reserve(1024).expect("room"))
    }

    /// What the head at the beginning of `octets` means, if it is the one that is remembered.
    pub(super) fn begins(&self, octets: &[u8]) -> Option<Known> {
        let known = self.known?;
        let head = self.room.as_slice().get(..known.length)?;
        octets.starts_with(head).then_some(known)
    }

    pub(super) fn remember(&mut self, head: &[u8], known: Known) {
        self.forget();
        if let Some(room) = self.room.as_mut_slice().get_mut(..head.len()) {
            room.copy_from_slice(head);
            self.known = Some(known);
        }
    }

    /// Wipes it.
    pub(in crate::push) fn forget(&mut self) {
        if let Some(known) = self.known.take()
            && let Some(head) = self.room.as_mut_slice().get_mut(..known.length)
        {
            wipe(head);
        }
    }
}
