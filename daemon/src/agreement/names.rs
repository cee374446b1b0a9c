//! Names of blocks, parts of blocks, and positions in a key stream.

use serde::{Deserialize, Serialize};

/// Place of a key chunk in its key stream, from 0. The interface's index is its low 32 bits.
pub type Position = u64;

/// Name of a block: both ends of a QKD link that have the block have the same octets under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct BlockName {
    /// Session number, never used twice by a pair of cards.
    pub session: u64,
    /// Number within the session, from 0.
    pub sequence: u64,
}

impl BlockName {
    /// The name `sequence` of `session`.
    #[must_use]
    pub const fn new(session: u64, sequence: u64) -> Self {
        Self { session, sequence }
    }

    /// The block that follows in the same session. At the end of the numbers it stays where it is; the core refuses
    /// that last name.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { session: self.session, sequence: self.sequence.saturating_add(1) }
    }

    /// Whether the core takes a block of this name: the last number of a session has no successor.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        self.sequence < u64::MAX
    }
}

impl From<(u64, u64)> for BlockName {
    fn from((session, sequence): (u64, u64)) -> Self {
        Self { session, sequence }
    }
}

impl From<BlockName> for (u64, u64) {
    fn from(name: BlockName) -> Self {
        (name.session, name.sequence)
    }
}

impl std::fmt::Display for BlockName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.session, self.sequence)
    }
}

/// Part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u32, u32)", into = "(u64, u64, u32, u32)")]
pub struct Extent {
    /// The block.
    pub block: BlockName,
    /// First octet.
    pub offset: u32,
    /// Octets, at least 1.
    pub length: u32,
}

impl From<(u64, u64, u32, u32)> for Extent {
    fn from((session, sequence, offset, length): (u64, u64, u32, u32)) -> Self {
        Self { block: BlockName { session, sequence }, offset, length }
    }
}

impl From<Extent> for (u64, u64, u32, u32) {
    fn from(e: Extent) -> Self {
        (e.block.session, e.block.sequence, e.offset, e.length)
    }
}

/// The first octet of key that has been neither granted nor burnt. Everything below is used up for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u32)", into = "(u64, u64, u32)")]
pub struct Mark {
    /// Blocks below this one are wholly used up.
    pub block: BlockName,
    /// Octets of `block` below this one are used up.
    pub offset: u32,
}

impl Mark {
    /// Nothing is used up.
    pub const ZERO: Self = Self::at(BlockName::new(0, 0));

    /// Everything below `block` is used up.
    #[must_use]
    pub const fn at(block: BlockName) -> Self {
        Self { block, offset: 0 }
    }

    /// Everything up to the end of `block` is used up.
    #[must_use]
    pub const fn after(block: BlockName) -> Self {
        Self::at(block.next())
    }
}

impl From<(u64, u64, u32)> for Mark {
    fn from((session, sequence, offset): (u64, u64, u32)) -> Self {
        Self { block: BlockName { session, sequence }, offset }
    }
}

impl From<Mark> for (u64, u64, u32) {
    fn from(m: Mark) -> Self {
        (m.block.session, m.block.sequence, m.offset)
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.block, self.offset)
    }
}

/// Chunks that a key stream can have: their octets are numbered with 64 bits.
#[must_use]
pub(crate) fn position_limit(chunk_size: u32) -> Position {
    u64::MAX / u64::from(chunk_size.max(1))
}

/// The position whose low 32 bits are `index` and that lies within ±2^31 of `near`; `None` where that would be below 0
/// or beyond 64 bits.
#[must_use]
pub fn position_near(near: Position, index: u32) -> Option<Position> {
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is meant")]
    let distance = index.wrapping_sub(near as u32).cast_signed();
    near.checked_add_signed(i64::from(distance))
}
