//! Exclusive byte ranges of the vault's memory, wiped when they are dropped.

// That no two spans overlap is kept here and nowhere else.
#![allow(unsafe_code, reason = "turns addresses inside the mapping into slices")]

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mapping::{Mapping, MemoryKind};
use super::pages::{PAGE, PageMap};
use super::wipe::wipe;

/// Pages that are had from the system at a time.
const STEP: usize = (1 << 20) / PAGE;

/// Octets that the processor's caches fetch at a time.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// The memory and the record of what is in use.
pub(super) struct Arena {
    mapping: Mapping,
    map: Mutex<Map>,
    used: AtomicUsize,
}

struct Map {
    pages: PageMap,
    /// Pages below this one were had from the system. As the first that is free is taken, an empty vault stays small.
    had: usize,
    /// That the system gives no more has been said.
    said: bool,
}

impl Arena {
    pub(super) fn new(mapping: Mapping) -> Arc<Self> {
        let pages = PageMap::new(mapping.length() / PAGE);
        let map = Mutex::new(Map { pages, had: 0, said: false });
        Arc::new(Self { mapping, map, used: AtomicUsize::new(0) })
    }

    /// A span of `length` zeroed octets that begins at a page; `None` when there is no room.
    pub(super) fn reserve(self: &Arc<Self>, length: usize) -> Option<Span> {
        let count = length.div_ceil(PAGE);
        let first = {
            let mut map = self.lock();
            let first = map.pages.take(count)?;
            if !self.have(&mut map, first + count) {
                map.pages.give_back(first, count);
                return None;
            }
            self.used.store(map.pages.used(), Ordering::Relaxed);
            first
        };
        let pages = Arc::new(Pages { arena: Arc::clone(self), first, count });
        // The only place where a span comes from nothing: the pages have just been taken, so no other span is in them.
        Some(Span { pages, start: first * PAGE, length })
    }

    /// Has the pages below `end` from the system. Whether they are there.
    fn have(&self, map: &mut Map, end: usize) -> bool {
        if end <= map.had {
            return true;
        }
        let to = end.next_multiple_of(STEP).min(self.mapping.length() / PAGE);
        // SAFETY: no span lies in pages from `had` on: [`Self::reserve`] has given out none of them, as `map` is locked and it
        // gives out only what this function has said is there.
        match unsafe { self.mapping.populate(map.had * PAGE..to * PAGE) } {
            Ok(()) => {
                map.had = to;
                map.said = false;
                true
            }
            Err(why) => {
                if !std::mem::replace(&mut map.said, true) {
                    log::error!(
                        id = "vault.no_memory";
                        "of {} bytes of memory for keys the system gives no more than {} now: {why}; what has no room waits",
                        self.mapping.length(),
                        map.had * PAGE
                    );
                }
                false
            }
        }
    }

    pub(super) fn kind(&self) -> MemoryKind {
        self.mapping.kind()
    }

    pub(super) fn length(&self) -> usize {
        self.mapping.length()
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) * PAGE
    }

    // The map is never left half changed: nothing in it can panic between its steps.
    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every octet of every page is zero; the caller sees to it that nothing is in use.
    #[cfg(test)]
    pub(super) fn is_zero(&self) -> bool {
        assert_eq!(self.lock().pages.used(), 0, "only an empty vault may be looked at");
        // SAFETY: no page is in use, so no span and no reference into the mapping exists, and the mapping lives
        // as long as `self`.
        let all = unsafe { slice::from_raw_parts(self.mapping.base().as_ptr(), self.mapping.length()) };
        all.iter().all(|octet| *octet == 0)
    }
}

/// Pages in use; given back when the last span in them is gone.
struct Pages {
    arena: Arc<Arena>,
    first: usize,
    count: usize,
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Every span has wiped itself before it let go of the pages, so what is given back is zero.
        let mut map = self.arena.lock();
        map.pages.give_back(self.first, self.count);
        self.arena.used.store(map.pages.used(), Ordering::Relaxed);
    }
}

/// The exclusive owner of a byte range of the vault. Zeroed when new, wiped on drop.
///
/// Invariant: no two spans overlap, and a span lies within pages that it keeps in use. [`Arena::reserve`] makes it
/// true and [`Span::split_at`] keeps it; there is no other way to a span, and it cannot be cloned.
pub(super) struct Span {
    pages: Arc<Pages>,
    start: usize,
    length: usize,
}

impl Span {
    /// First octet, counted from the beginning of the memory.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Octets.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant the range lies in the mapping, which `pages` keeps alive, and no other span
        // overlaps it, so that nobody writes to it while `self` is borrowed. The mapping began as zeroes.
        unsafe { slice::from_raw_parts(self.address().as_ptr(), self.length) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed exclusively and owns the range alone.
        unsafe { slice::from_raw_parts_mut(self.address().as_ptr(), self.length) }
    }

    /// Has the processor fetch what of `range` lies in the span. Only a matter of speed.
    pub(super) fn fetch(&self, range: Range<usize>) {
        let Some(octets) = self.bytes().get(range) else { return };
        #[cfg(target_arch = "x86_64")]
        for line in octets.chunks(CACHE_LINE) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: the instruction is part of every processor of this kind, reads nothing into the program and never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = octets;
    }

    /// Splits into the first `length` octets, at most all, and the rest.
    pub(super) fn split_at(mut self, length: usize) -> (Self, Self) {
        let length = length.min(self.length);
        let rest =
            Self { pages: Arc::clone(&self.pages), start: self.start + length, length: self.length - length };
        self.length = length;
        (self, rest)
    }

    /// Wipes the first `length` octets, at most all, and lets go of them.
    pub(super) fn wipe_front(&mut self, length: usize) {
        let length = length.min(self.length);
        if let Some(front) = self.bytes_mut().get_mut(..length) {
            wipe(front);
        }
        self.start += length;
        self.length -= length;
    }

    fn address(&self) -> NonNull<u8> {
        // SAFETY: by the invariant `start` is at most the mapping's length, which fits `isize`.
        unsafe { self.pages.arena.mapping.base().add(self.start) }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // The fields, and with them the pages, are dropped after this.
        wipe(self.bytes_mut());
    }
}
