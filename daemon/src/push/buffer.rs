//! Send and receive buffers in memory of the vault's kind: requests hold key, and answers may quote it. A key stream has them only
//! while something is in them, so that streams that wait cost nothing, and many use the same few, which stay in the processor's cache.
//! A few streams keep theirs from the first request until all are answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::answer::{LONGEST_HEAD, LastHead};
use crate::vault::{Locking, Room, Vault, VaultError, wipe};

/// Least octets of a send buffer: enough small requests for one write to be worth it.
const SEND_LEAST: usize = 44 * 1024;
/// Octets of a receive buffer: a whole head and some more, so that there is always room to read into.
const RECEIVE: usize = LONGEST_HEAD + 4 * 1024;
/// Streams that may keep their buffers while they wait for an answer.
const MOST_WAITING: usize = 16;
/// Buffers of one size that are kept though nobody needs them: those of all who waited, and some that went from one stream to the
/// next meanwhile. New ones cost half a millisecond.
const MOST_SPARE: usize = MOST_WAITING + 8;
/// Octets of memory for the heads of answers that is had at a time.
const HEADS: u64 = 256 * 1024;

/// Both buffers of one stream, in a mapping of their own.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) send: SendBuffer,
    pub(super) receive: ReceiveBuffer,
}

impl Buffers {
    /// `send`: octets of the send buffer.
    fn new(send: usize, locking: Locking) -> Result<Self, VaultError> {
        let bytes = (send + RECEIVE) as u64;
        let memory = Vault::new(bytes, locking)?;
        let room = |octets| reserve(&memory, octets).ok_or(VaultError::Size { bytes });
        Ok(Self {
            send: SendBuffer { room: room(send)?, filled: 0, written: 0 },
            receive: ReceiveBuffer { room: room(RECEIVE)?, start: 0, end: 0, used: 0 },
        })
    }

    /// Whether nothing is in them.
    pub(super) fn are_empty(&self) -> bool {
        self.send.is_empty() && self.receive.unread().is_empty()
    }

    /// Wipes both.
    fn wipe(&mut self) {
        self.send.wipe();
        self.receive.wipe();
    }
}

/// The buffers that no stream needs now, wiped, and the memory for the heads of answers.
#[derive(Debug)]
pub(super) struct Pool {
    locking: Locking,
    /// Buffers that streams have.
    taken: AtomicUsize,
    spare: Mutex<BTreeMap<usize, Vec<Buffers>>>,
    heads: Mutex<Vec<Vault>>,
}

impl Pool {
    pub(super) fn new(locking: Locking) -> Self {
        Self { locking, taken: AtomicUsize::new(0), spare: Mutex::default(), heads: Mutex::default() }
    }

    /// Buffers for requests of up to so many octets.
    ///
    /// # Errors
    /// See [`VaultError`]: there is no more such memory now.
    pub(super) fn take(&self, longest_request: usize) -> Result<Buffers, VaultError> {
        // Few sizes, so that what one stream does not need any more another one does.
        let size =
            if longest_request > SEND_LEAST { longest_request.next_power_of_two() } else { SEND_LEAST };
        let spare = lock(&self.spare).get_mut(&size).and_then(Vec::pop);
        let made = || {
            Buffers::new(size, self.locking).or_else(|_| {
                // What is kept of other sizes may be what is missing.
                let kept = std::mem::take(&mut *lock(&self.spare));
                drop(kept);
                Buffers::new(size, self.locking)
            })
        };
        let buffers = spare.map_or_else(made, Ok)?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(buffers)
    }

    /// Whether so many streams have buffers that none should keep empty ones.
    pub(super) fn is_in_demand(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > MOST_WAITING
    }

    /// Takes them back, and wipes them.
    pub(super) fn give_back(&self, mut buffers: Buffers) {
        buffers.wipe();
        self.taken.fetch_sub(1, Ordering::Relaxed);
        let mut spare = lock(&self.spare);
        let spare = spare.entry(buffers.send.room.as_slice().len()).or_default();
        if spare.len() < MOST_SPARE {
            spare.push(buffers);
        }
    }

    /// Memory to remember an answer's head in.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub(super) fn head(&self) -> Result<LastHead, VaultError> {
        let mut heads = lock(&self.heads);
        let room = |vault: &Vault| reserve(vault, LastHead::ROOM);
        let room = match heads.iter().find_map(room) {
            Some(room) => room,
            None => {
                // What no stream has anything in goes first.
                heads.retain(|vault| vault.used() > 0);
                let vault = Vault::new(HEADS, self.locking)?;
                let room = room(&vault).ok_or(VaultError::Size { bytes: HEADS })?;
                heads.push(vault);
                room
            }
        };
        Ok(LastHead::new(room))
    }
}

fn reserve(memory: &Vault, octets: usize) -> Option<Room> {
    memory.reserve(u32::try_from(octets).ok()?)
}

// Nothing under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Nothing was read beyond since it was wiped.
    used: usize,
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
        self.used = self.used.max(self.end);
    }

    /// What was read and is not done with.
    pub(super) fn unread(&self) -> &[u8] {
        self.room.as_slice().get(self.start..self.end).unwrap_or_default()
    }

    /// So many octets of [`Self::unread`] are done with.
    pub(super) fn done(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Wipes what was read.
    fn wipe(&mut self) {
        if let Some(used) = self.room.as_mut_slice().get_mut(..self.used) {
            wipe(used);
        }
        (self.start, self.end, self.used) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADS, LONGEST_HEAD, MOST_SPARE, Pool, SEND_LEAST};
    use crate::vault::Locking;

    fn pool() -> Pool {
        Pool::new(Locking::Preferred)
    }

    #[test]
    fn a_stream_gets_the_buffers_that_another_one_is_done_with_and_nothing_that_was_in_them() {
        let pool = pool();
        let mut buffers = pool.take(300).unwrap();
        let place = buffers.send.room.as_slice().as_ptr();
        // A request half written, an answer half understood, and what was moved about before it.
        buffers.send.free_mut().fill(0xa5);
        buffers.send.fill(3_000);
        buffers.send.wrote(100);
        for read in [2_000, 500] {
            buffers.receive.free_mut()[..read].fill(0xa5);
            buffers.receive.fill(read);
            buffers.receive.done(1_900);
        }
        assert!(!buffers.are_empty());
        // What a request that was not finished has left behind its end is the filler's to wipe.
        buffers.send.wipe_all();
        pool.give_back(buffers);
        let again = pool.take(SEND_LEAST).unwrap();
        assert_eq!(again.send.room.as_slice().as_ptr(), place);
        assert!(again.are_empty());
        assert!(
            again.send.room.as_slice().iter().chain(again.receive.room.as_slice()).all(|octet| *octet == 0)
        );
        let other = pool.take(300).unwrap();
        assert_ne!(other.send.room.as_slice().as_ptr(), place, "nobody else has them meanwhile");
    }

    #[test]
    fn buffers_hold_the_longest_request_and_the_longest_head() {
        let pool = pool();
        for longest in [1, SEND_LEAST, SEND_LEAST + 1, 1_500_000] {
            let mut buffers = pool.take(longest).unwrap();
            assert!(buffers.send.free_mut().len() >= longest, "{longest}");
            assert!(buffers.receive.free_mut().len() > LONGEST_HEAD);
            pool.give_back(buffers);
        }
        // Sizes are few: all three of these are one.
        let sizes =
            [70_000, 90_000, 131_072].map(|longest| pool.take(longest).unwrap().send.room.as_slice().len());
        assert_eq!(sizes, [131_072; 3]);
    }

    #[test]
    fn where_some_streams_wait_and_others_take_turns_no_buffers_are_made_again_and_again() {
        let pool = pool();
        let mut waiting = Vec::new();
        while !pool.is_in_demand() {
            waiting.push(pool.take(300).unwrap());
        }
        for _ in 0..3 {
            pool.give_back(pool.take(300).unwrap());
        }
        let all = waiting.len() + 1;
        waiting.into_iter().for_each(|buffers| pool.give_back(buffers));
        assert_eq!(pool.spare.lock().unwrap()[&SEND_LEAST].len(), all);
    }

    #[test]
    fn what_many_streams_needed_at_once_is_not_kept_for_ever() {
        let pool = pool();
        let many: Vec<_> = (0..3 * MOST_SPARE).map(|_| pool.take(300).unwrap()).collect();
        assert!(pool.is_in_demand());
        many.into_iter().for_each(|buffers| pool.give_back(buffers));
        assert!(!pool.is_in_demand());
        assert_eq!(pool.spare.lock().unwrap()[&SEND_LEAST].len(), MOST_SPARE);
        let heads: Vec<_> = (0..3 * HEADS / 4096).map(|_| pool.head().unwrap()).collect();
        assert_eq!(pool.heads.lock().unwrap().len(), 3);
        drop(heads);
        let again: Vec<_> = (0..2 * HEADS / 4096).map(|_| pool.head().unwrap()).collect();
        assert_eq!(pool.heads.lock().unwrap().len(), 3, "{} heads", again.len());
    }
}
