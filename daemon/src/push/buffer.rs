//! Send and receive buffers in memory of the vault's kind: requests hold key, and answers may quote it.

use super::answer::{LONGEST_HEAD, LastHead};
use crate::vault::{Locking, Room, Vault, VaultError, wipe};

/// Least octets of a send buffer: enough small requests for one write to be worth it.
const SEND_LEAST: usize = 44 * 1024;
/// Octets of a receive buffer: a whole head and some more, so that there is always room to read into.
const RECEIVE: usize = LONGEST_HEAD + 4 * 1024;

/// Both buffers of one stream, in a mapping of their own.
pub(super) fn buffers(
    longest_request: usize,
    locking: Locking,
) -> Result<(SendBuffer, ReceiveBuffer), VaultError> {
    let send = longest_request.max(SEND_LEAST).next_multiple_of(4096);
    let bytes = (send + RECEIVE + LastHead::ROOM) as u64;
    let memory = Vault::new(bytes, locking)?;
    let room = |octets: usize| {
        let room = u32::try_from(octets).ok().and_then(|octets| memory.reserve(octets));
        room.ok_or(VaultError::Size { bytes })
    };
    Ok((
        SendBuffer { room: room(send)?, filled: 0, written: 0 },
        ReceiveBuffer { room: room(RECEIVE)?, start: 0, end: 0, last: LastHead::new(room(LastHead::ROOM)?) },
    ))
}

/// Requests that wait to be written. Filled when empty, wiped when written.
#[derive(Debug)]
pub(super) struct SendBuffer {
    room: Room,
    filled: usize,
    written: usize,
}

impl SendBuffer {
    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// What is still free at the end.
    pub(super) fn free_mut(&mut self) -> &mut [u8] {
        self.room.as_mut_slice().get_mut(self.filled..).unwrap_or_default()
    }

    /// So many octets of [`Self::free_mut`] are a request.
    pub(super) fn fill(&mut self, octets: usize) {
        self.filled += octets;
    }

    /// What waits to be written.
    pub(super) fn unwritten(&self) -> &[u8] {
        self.room.as_slice().get(self.written..self.filled).unwrap_or_default()
    }

    /// So many octets of [`Self::unwritten`] were written, and are wiped: a KMS may accept a chunk before it reads the next.
    pub(super) fn wrote(&mut self, octets: usize) {
        let end = self.written.saturating_add(octets).min(self.filled);
        if let Some(written) = self.room.as_mut_slice().get_mut(self.written..end) {
            wipe(written);
        }
        self.written = end;
        if self.written >= self.filled {
            (self.filled, self.written) = (0, 0);
        }
    }

    /// Wipes all of it, also what was begun and is no request.
    pub(super) fn wipe_all(&mut self) {
        wipe(self.room.as_mut_slice());
        (self.filled, self.written) = (0, 0);
    }

    /// Wipes what is in it.
    pub(super) fn wipe(&mut self) {
        if let Some(filled) = self.room.as_mut_slice().get_mut(..self.filled) {
            wipe(filled);
        }
        (self.filled, self.written) = (0, 0);
    }
}

/// Answers that were read and not understood yet.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    room: Room,
    start: usize,
    end: usize,
    last: LastHead,
}

impl ReceiveBuffer {
    /// Room to read into, never empty as long as no more than a head's greatest length is left unread.
    pub(super) fn free_mut(&mut self) -> &mut [u8] {
        if self.start > 0 {
            let (start, end) = (self.start, self.end);
            self.room.as_mut_slice().copy_within(start..end, 0);
            (self.start, self.end) = (0, end - start);
        }
        let end = self.end;
        self.room.as_mut_slice().get_mut(end..).unwrap_or_default()
    }

    /// So many octets of [`Self::free_mut`] were read.
    pub(super) fn fill(&mut self, octets: usize) {
        self.end += octets;
    }

    /// What was read and is not done with.
    pub(super) fn unread(&self) -> &[u8] {
        self.room.as_slice().get(self.start..self.end).unwrap_or_default()
    }

    /// As [`Self::unread`], with what an answer may be known by.
    pub(super) fn unread_and_last(&mut self) -> (&[u8], &mut LastHead) {
        (self.room.as_slice().get(self.start..self.end).unwrap_or_default(), &mut self.last)
    }

    /// So many octets of [`Self::unread`] are done with.
    pub(super) fn done(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Wipes everything.
    pub(super) fn wipe(&mut self) {
        wipe(self.room.as_mut_slice());
        (self.start, self.end) = (0, 0);
        self.last.forget();
    }
}
