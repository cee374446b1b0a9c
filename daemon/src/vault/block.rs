//! Key blocks: filled once, then taken apart into extents, each octet once.

use std::fmt;
use std::ops::Range;

use super::span::Span;

/// Room for a key block that is being filled. Dropped unsealed, it is wiped and given back.
pub struct Room {
    span: Span,
}

impl Room {
    pub(super) fn new(span: Span) -> Self {
        Self { span }
    }

    /// All of it; zero where nothing was written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.span.bytes_mut()
    }

    /// All of it, to read.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.span.bytes()
    }

    /// Makes it a key block: nothing is written any more, only taken.
    #[must_use]
    pub fn seal(self) -> KeyBlock {
        let (first, length) = (self.span.start(), self.span.length());
        KeyBlock { first, length, left: vec![self.span] }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("length", &self.span.length()).finish_non_exhaustive()
    }
}

/// A block of key. Its octets can only be taken out, each of them once; what is left is wiped on drop.
pub struct KeyBlock {
    first: usize,
    length: usize,
    // What has not been taken, in order: no octet can be taken that is not owned here.
    left: Vec<Span>,
}

/// A part of a key block cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakenTwice {
    /// Some of it was taken before. Key must never be used twice, so this is a fault of the caller.
    #[error("octets {offset} to {end} of the key block are not all there any more: key was asked for twice")]
    Gone {
        /// First octet asked for.
        offset: u32,
        /// One past the last octet asked for.
        end: u64,
    },
    /// It goes beyond the block, or is empty.
    #[error("octets {offset} to {end} are not a part of a key block of {length} octets")]
    Outside {
        /// First octet asked for.
        offset: u32,
        /// One past the last octet asked for.
        end: u64,
        /// Octets of the block.
        length: usize,
    },
}

impl KeyBlock {
    /// Octets of the block as it was sealed.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Octets that have not been taken.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.iter().map(Span::length).sum()
    }

    /// Takes `length` octets from `offset` on out of the block.
    ///
    /// # Errors
    /// When an octet of them was taken before or lies outside the block; nothing is taken then.
    pub fn take(&mut self, offset: u32, length: u32) -> Result<KeyExtent, TakenTwice> {
        let end = u64::from(offset) + u64::from(length);
        if length == 0 || usize::try_from(end).map_or(true, |end| end > self.length) {
            return Err(TakenTwice::Outside { offset, end, length: self.length });
        }
        let (start, length) = (self.first + offset as usize, length as usize);
        let gone = TakenTwice::Gone { offset, end };
        let at = self.left.partition_point(|span| span.start() + span.length() <= start);
        let holds_all = self
            .left
            .get(at)
            .is_some_and(|span| span.start() <= start && start + length <= span.start() + span.length());
        if !holds_all {
            return Err(gone);
        }
        let span = self.left.remove(at);
        let ahead = start - span.start();
        let (before, rest) = span.split_at(ahead);
        let (taken, after) = rest.split_at(length);
        let leftovers = [before, after].into_iter().filter(|span| span.length() > 0);
        self.left.splice(at..at, leftovers);
        Ok(KeyExtent { span: taken })
    }
}

impl fmt::Debug for KeyBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBlock")
            .field("length", &self.length)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

/// A part of a key block, owned alone and wiped on drop.
pub struct KeyExtent {
    span: Span,
}

impl KeyExtent {
    /// The key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.span.bytes()
    }

    /// Has the processor fetch what of `range` is still there, so that it need not be waited for when it is sent.
    pub fn fetch(&self, range: Range<usize>) {
        self.span.fetch(range);
    }

    /// Octets that are still there.
    #[must_use]
    pub fn length(&self) -> usize {
        self.span.length()
    }

    /// Wipes the first `length` octets, at most all; the extent then begins after them.
    pub fn wipe_front(&mut self, length: usize) {
        self.span.wipe_front(length);
    }

    /// Splits into the first `length` octets, at most all, and the rest.
    #[must_use]
    pub fn split_at(self, length: usize) -> (Self, Self) {
        let (front, rest) = self.span.split_at(length);
        (Self { span: front }, Self { span: rest })
    }
}

impl fmt::Debug for KeyExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyExtent").field("length", &self.length()).finish_non_exhaustive()
    }
}
